"""DESIGN's table of rooms, enforced by the server: what each room's role cannot do, and that the rooms can work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from outbox.core.lifecycle import EDGES, Edge, Room, State
from outbox.store.migrate import apply_roles
from outbox.store.plpgsql import ROLES
from outbox.store.roles import DELETES, INSERTS, READS, UPDATES, role_statements
from outbox.store.schema import metadata
from tests import house as houses
from tests.contracts.markdown import code, page, rows, sections
from tests.house import JANE, House
from tests.postgres import server
from tests.postgres.plain import Plain
from tests.relay.recording import RecordingRelay
from tests.store.stage import Stage
from tests.store.test_guards import ATTEMPT, DRAFT, GAP, GRANT, moved, row, tried

DENIED = psycopg.errors.InsufficientPrivilege
ROOMS_WORDS = "outbox: this is not for this room to do"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A draft pending, one approved, and one executing, at claimed; what a test does to them is undone."""
    before = server.made()
    opened = Stage(tmp_path_factory.mktemp("roles"), "postgresql")
    opened.register("w1")
    opened.approved("claimed")
    opened.claim(attempt_id="try-of-claimed")
    opened.insert("pending")
    opened.approved("approved")
    opened.insert_notice("notice", about="pending")
    apply_roles(opened.database)  # what is granted on the database itself is not copied with it
    server.keep_databases(before)
    yield opened
    opened.close()


@contextmanager
def entered(stage: Stage, room: Room, *prepared: str) -> Iterator[Plain]:
    """A connection as a room, after what the owner has prepared; all of it is undone."""
    told = dict(server.server_of(stage.house.name).parameters)
    with closing(psycopg.connect(**told, autocommit=True)) as connection:
        plain = Plain(connection, kept=False)
        for one in prepared:
            plain.execute(one)
        connection.execute(f"SET SESSION AUTHORIZATION {server.login_of(room)}")
        yield plain


def state(plain: Plain, draft_id: str) -> object:
    return plain.execute("SELECT state FROM drafts WHERE id = ?", (draft_id,)).fetchone()[0]


@pytest.mark.parametrize(
    "tries",
    [
        row("grants", GRANT),
        "UPDATE drafts SET not_before = 1 WHERE id = 'pending'",
        "UPDATE drafts SET expires_at = expires_at + 1 WHERE id = 'pending'",
        "UPDATE drafts SET attempt_id = NULL",
        "UPDATE requests SET spent_at = 1",
        "UPDATE attempts SET phase = 'done'",
        "UPDATE pause SET paused_at = NULL",
        "UPDATE counters SET n = 0",
        "DELETE FROM messages",
        row("drafts", DRAFT, not_before="1"),
        "SELECT code FROM replies",
        "SELECT octets FROM signed_replies",
        "SELECT step FROM codes",
        "SELECT detail FROM journal",
    ],
)
def test_the_drafter_may_not(stage: Stage, tries: str) -> None:
    with entered(stage, Room.DRAFTER) as drafter, pytest.raises((DENIED, psycopg.errors.UndefinedColumn)) as refused:
        drafter.execute(tries)
    assert "SELECT code" in tries or isinstance(refused.value, DENIED)


@pytest.mark.parametrize("decided", ["approved", "rejected", "expired", "failed"])
def test_the_drafter_cannot_approve_nor_decide_otherwise(stage: Stage, decided: str) -> None:
    rejection = "INSERT INTO rejections VALUES ('pending', 'x', 'reply', 'x', 1)"
    with entered(stage, Room.DRAFTER, row("grants", GRANT), rejection) as drafter:  # even where these are there
        with pytest.raises(psycopg.IntegrityError, match=ROOMS_WORDS):
            drafter.execute(moved("pending", decided))
        assert state(drafter, "pending") == "pending"


def test_the_drafter_cannot_make_mail_of_the_outbox_s_own(stage: Stage) -> None:
    with entered(stage, Room.DRAFTER) as drafter, pytest.raises(psycopg.IntegrityError, match=ROOMS_WORDS):
        drafter.execute(row("drafts", DRAFT, kind="'system'", state="'approved'"))


def test_the_drafter_withdraws_and_asks_to_stop(stage: Stage) -> None:
    with entered(stage, Room.DRAFTER) as drafter:
        drafter.execute(moved("approved", "cancelled"))
        drafter.execute("UPDATE drafts SET stop_asked_at = 1 WHERE id = 'claimed'")
        assert state(drafter, "approved") == "cancelled"


def test_the_drafter_sees_the_octets_of_drafts_and_not_those_of_the_outbox_s_own_mail(stage: Stage) -> None:
    with entered(stage, Room.DRAFTER) as drafter:
        seen = {name for (name,) in drafter.execute("SELECT draft_id FROM messages").fetchall()}
    assert seen == {"pending", "approved", "claimed"}
    for room in (Room.INBOX, Room.WORKER, Room.OPERATOR):
        with entered(stage, room) as other:
            assert other.execute("SELECT count(*) FROM messages").fetchone() == (4,)


@pytest.mark.parametrize(
    "tries",
    [
        tried("claimed", GAP),
        tried("claimed", "phase = 'done', outcome = 'not_sent', ended_at = 1"),
        row("attempts", ATTEMPT),
        "UPDATE drafts SET attempt_id = 'x' WHERE id = 'approved'",
        "UPDATE gate SET until = NULL",
        "UPDATE pause SET paused_at = NULL",
        "INSERT INTO settlements VALUES ('try-of-claimed', 'claimed', 'sent', 'x', 'x', 1)",
        "DELETE FROM messages",
    ],
)
def test_the_inbox_cannot_enter_the_gap_nor_claim_nor_settle(stage: Stage, tries: str) -> None:
    with entered(stage, Room.INBOX) as inbox, pytest.raises(DENIED):
        inbox.execute(tries)


def test_the_inbox_makes_no_draft_of_an_agent_s(stage: Stage) -> None:
    with entered(stage, Room.INBOX) as inbox, pytest.raises(psycopg.IntegrityError, match=ROOMS_WORDS):
        inbox.execute(row("drafts", DRAFT))


@pytest.mark.parametrize(
    "tries",
    [
        row("grants", GRANT),
        "INSERT INTO rejections VALUES ('pending', 'x', 'reply', 'x', 1)",
        "UPDATE requests SET spent_at = NULL",
        "UPDATE drafts SET stop_asked_at = NULL",
        "UPDATE pause SET paused_at = NULL",
        "UPDATE clock SET believed_at = 1",
        "SELECT octets FROM signed_replies",
    ],
)
def test_the_worker_may_not(stage: Stage, tries: str) -> None:
    with entered(stage, Room.WORKER) as one, pytest.raises(DENIED):
        one.execute(tries)


def test_the_worker_cannot_approve(stage: Stage) -> None:
    granted = row("grants", GRANT)
    with (
        entered(stage, Room.WORKER, granted) as one,
        pytest.raises(psycopg.IntegrityError, match=ROOMS_WORDS),
    ):
        one.execute(moved("pending", "approved", "not_before = 1"))


@pytest.mark.parametrize("room", Room)
@pytest.mark.parametrize(
    "tries",
    [
        "DROP TRIGGER drafts_grant ON drafts",
        "ALTER TABLE drafts DISABLE TRIGGER ALL",
        "ALTER TABLE messages DISABLE ROW LEVEL SECURITY",
        "DROP INDEX attempts_at_most_once",
        "ALTER TABLE drafts DROP CONSTRAINT drafts_due",
        "CREATE OR REPLACE FUNCTION drafts_grant() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "SET session_replication_role = replica",
        "TRUNCATE journal",
        "DELETE FROM journal",
        "DELETE FROM grants",
        "CREATE TABLE own (id integer)",
        "CREATE TEMPORARY TABLE grants (draft_id text)",
        "SET ROLE postgres",
    ],
)
def test_no_room_takes_a_guard_away(stage: Stage, room: Room, tries: str) -> None:
    with entered(stage, room) as plain, pytest.raises(DENIED):
        plain.raw.execute(tries)


@pytest.mark.parametrize("room", Room)
@pytest.mark.parametrize("edge", [edge for edge in EDGES if edge.source is not None], ids=lambda edge: str(edge.verb))
def test_an_edge_is_walked_by_its_rooms_alone(stage: Stage, room: Room, edge: Edge) -> None:
    """Every other guard and privilege is out of the way."""
    assert edge.source is not None
    more = "not_before = 1, attempt_id = 'try-of-claimed', error_code = 'x', error_message = 'x'"
    guards = ("drafts_grant", "drafts_rejection", "drafts_release", "drafts_failure", "drafts_completion")
    prepared = (
        *(f"DROP TRIGGER {guard}" for guard in guards),
        "SET LOCAL session_replication_role = replica",
        f"UPDATE drafts SET state = '{edge.source}', {more} WHERE id = 'approved'",
        "SET LOCAL session_replication_role = origin",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLES[room]}",
    )
    with entered(stage, room, *prepared) as plain:
        if room in _rooms(edge.source, edge.target):
            plain.execute(moved("approved", edge.target))
        else:
            with pytest.raises(psycopg.IntegrityError, match=ROOMS_WORDS):
                plain.execute(moved("approved", edge.target))


def _rooms(source: State, target: State) -> frozenset[Room]:
    return frozenset(room for edge in EDGES if (edge.source, edge.target) == (source, target) for room in edge.rooms)


def test_the_whole_loop_runs_with_a_role_for_each_room(tmp_path: Path, relay: RecordingRelay) -> None:
    before, houses.DATABASE = houses.DATABASE, "postgresql"
    try:
        house = House.build(tmp_path, relay)
    finally:
        houses.DATABASE = before
    draft, other = house.draft(), house.draft(subject="Another")
    house.reply(house.ask(draft.id), "ship it")
    house.inbox()
    house.cancel(other.id)
    house.drain()
    assert len(relay.to(JANE)) == 1
    assert house.story(draft.id).draft.state is State.COMPLETED
    assert house.story(other.id).draft.state is State.CANCELLED


def test_what_roles_may_do_names_tables_and_columns_that_are_there() -> None:
    columns = {name: {column.name for column in table.columns} for name, table in metadata.tables.items()}
    for allowed in (*INSERTS.values(), *UPDATES.values()):
        for table, named in allowed.items():
            assert set(named) <= columns[table] | {"*"}, table
    for read in (*READS.values(), *DELETES.values()):
        assert set(read) <= columns.keys() | {"alembic_version"}


def test_what_each_room_writes_is_what_the_page_says() -> None:
    """docs/reference/privileges.md has a row for each table and a column for each room."""
    table = sections(page("docs/reference/privileges.md"))["Roles on PostgreSQL"]
    documented = {code(cells[0]): dict(zip(Room, cells[1:], strict=True)) for cells in rows(table)}
    for name in metadata.tables:
        for room in Room:
            verbs = [
                *(["reads"] if name in READS[room] else []),
                *(["inserts"] if name in INSERTS[room] else []),
                *(["updates"] if name in UPDATES[room] else []),
                *(["deletes"] if name in DELETES.get(room, ()) else []),
            ]
            assert re.findall(r"\w+", documented[name][room]) == verbs, (name, room)


def test_the_roles_are_said_in_sql_that_holds_no_secret() -> None:
    words = "\n".join(role_statements())
    assert "PASSWORD" not in words
    assert "LOGIN" in words
    assert words.count("NOLOGIN") == len(ROLES)
