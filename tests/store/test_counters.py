"""How many ended in each state, and how many attempts were begun, is counted as it happens."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import event

from outbox.core.lifecycle import FINAL, Gate, Outcome, Room, State
from outbox.store import figures
from outbox.store.engine import connect
from outbox.store.figures import counts_by_state
from outbox.store.identity import Whose, has_gaps_since, newest_accepted, newest_gap
from outbox.store.looking import Look, looking
from outbox.store.migrate import scripts, upgrade
from outbox.store.settlements import held, waiting
from outbox.store.stop import cancel_if_not_sent
from outbox.store.views import list_drafts
from tests.house import HOUR, House
from tests.relay.recording import RecordingRelay
from tests.store.stage import ROOMY_SYSTEM, Stage


def counted(house: House) -> dict[str, int]:
    """The counters, shards added up."""
    return {str(state): int(str(n)) for state, n in house.rows("SELECT state, sum(n) FROM counters GROUP BY state")}


def there(house: House) -> dict[str, int]:
    """What they should say, by counting."""
    found = dict.fromkeys(FINAL, 0) | dict(
        house.rows("SELECT state, count(*) FROM drafts WHERE kind <> 'system' GROUP BY state")
    )
    return {str(state): int(str(n)) for state, n in found.items() if state in FINAL}


def claims(house: House) -> dict[str, int]:
    return {str(name): int(str(number)) for name, number in house.rows("SELECT name, claims FROM gate")}


def begun(house: House) -> dict[str, int]:
    rows = dict(house.rows("SELECT gate, count(*) FROM attempts GROUP BY gate"))
    return {gate.value: int(str(rows.get(gate.value, 0))) for gate in Gate}


def test_every_way_to_end_is_counted_once(stock: House) -> None:
    assert counted(stock) == there(stock)
    assert all(counted(stock).values())


def test_every_attempt_that_was_begun_is_counted_at_its_gate(stock: House) -> None:
    assert claims(stock) == begun(stock)
    assert all(claims(stock).values())


def test_the_outbox_s_own_mail_is_in_no_counter(stage: Stage) -> None:
    stage.register("w1")
    stage.insert_notice()
    claim = stage.claim(heat=ROOMY_SYSTEM)
    stage.enter_gap(claim)
    stage.finish(claim, Outcome.ACCEPTED)
    stage.complete(claim)
    assert set(counted(stage.house).values()) == {0}
    assert claims(stage.house) == {"mail": 0, "system": 1}


def test_a_transition_that_is_rolled_back_is_not_counted(stage: Stage) -> None:
    draft_id = stage.insert()
    with stage.house.connection() as connection:
        connection.execute("BEGIN")
        connection.execute("UPDATE drafts SET state = 'cancelled' WHERE id = ?", (draft_id,))
        assert dict(connection.execute("SELECT state, n FROM counters"))["cancelled"] == 1
        connection.execute("ROLLBACK")
    assert set(counted(stage.house).values()) == {0}


def test_counts_are_those_of_the_rows_whatever_happens(stage: Stage) -> None:
    """A draft after the other, each pushed along some way; live states are counted, and the others as they end."""
    dice = random.Random(4)
    stage.register("w1")
    for _ in range(20):
        draft_id = stage.insert(ttl=24 * HOUR)
        if dice.random() < 0.8:
            stage.approve(draft_id)
            if dice.random() < 0.7:
                claim = stage.claim()
                stage.enter_gap(claim)
                stage.finish(claim, dice.choice([Outcome.ACCEPTED, Outcome.IN_DOUBT]))
                if stage.rows("SELECT 1 FROM attempts WHERE id = ? AND outcome = 'accepted'", claim.attempt_id):
                    stage.complete(claim)
        elif dice.random() < 0.5:
            now = stage.clock.now
            stage.run(Room.DRAFTER, lambda tx, name=draft_id, at=now: cancel_if_not_sent(tx, name, now=at))
    expected = dict.fromkeys(State, 0) | dict(stage.rows("SELECT state, count(*) FROM drafts GROUP BY state"))
    with looking(stage.house.place) as look:
        found = counts_by_state(look)
    assert found == {State(state): number for state, number in expected.items()}
    assert len([number for number in expected.values() if number]) >= 4


# The migration


def as_it_was(newer: House, folder: Path) -> House:
    """A database that revision 0003 made, with every row of a newer one that had a place in it."""
    older = House(folder, RecordingRelay())
    database, config = connect(older.database, create=True), Config()
    config.set_main_option("script_location", str(scripts()))
    with database.writer.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
    database.close()
    with older.as_thief() as connection:
        connection.execute("ATTACH ? AS newer", (str(newer.database),))
        tables = {name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}
        assert "counters" not in tables
        for table in sorted(tables - {"alembic_version", "gate"}):
            connection.execute(f"DELETE FROM main.{table}")
            names = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
            connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM newer.{table}")
        connection.execute("DETACH newer")
    return older


@pytest.mark.sqlite
def test_an_upgrade_counts_what_is_there_and_goes_on_from_it(stock: House, tmp_path: Path) -> None:
    (tmp_path / "older").mkdir()
    older = as_it_was(stock, tmp_path / "older")
    database = connect(older.place)
    upgrade(database)
    database.close()
    assert counted(older) == counted(stock)
    assert claims(older) == claims(stock)
    for table in ("drafts", "attempts", "messages", "journal", "identity", "workers"):
        assert older.rows(f"SELECT * FROM {table} ORDER BY 1, 2") == stock.rows(f"SELECT * FROM {table} ORDER BY 1, 2")
    with older.connection() as connection:
        connection.execute("UPDATE drafts SET state = 'cancelled' WHERE id = 'pending'")
    assert counted(older)["cancelled"] == counted(stock)["cancelled"] + 1


@pytest.mark.sqlite
def test_a_new_file_can_give_its_space_back_little_by_little(stage: Stage) -> None:
    assert stage.rows("PRAGMA auto_vacuum") == [(2,)]


# What a loop or a page reads

LOOKS: dict[str, Callable[..., object]] = {
    "has_gaps_since": lambda connection: has_gaps_since(connection, 1, Whose(is_only=True)),
    "newest_gap": newest_gap,
    "newest_accepted": lambda connection: newest_accepted(connection, 1, Whose(is_only=True), 20),
    "waiting": waiting,
    "held": held,
    **{
        f"list {state}": lambda connection, state=state: list_drafts(connection, states=[state])
        for state in State
        if state is not State.COMPLETED
    },
}
FIGURES: dict[str, Callable[[Look], object]] = {
    "counts_by_state": counts_by_state,
    "count_in_doubt": figures.count_in_doubt,
    "oldest_approved": figures.oldest_approved,
    "working": figures.working,
    "tampered_since": lambda look: figures.tampered_since(look, ["grant_invalid"], 0),
    "standing_pause": figures.standing_pause,
    "needs_ledger": figures.needs_ledger,
    "heating": lambda look: figures.heating(look, Gate.MAIL, count=10, window=900, now=0),
}
PARTIAL = (
    "attempts_open",
    "drafts_pending",
    "drafts_approved",
    "drafts_executing",
    "drafts_expiring",
    "workers_living",
)


@pytest.mark.sqlite
@pytest.mark.parametrize("name", LOOKS)
def test_no_page_reads_all_of_history(stock: House, name: str) -> None:
    """As SQLite plans it: nothing is scanned but what is alive now."""
    database, plans = connect(stock.place), []

    @event.listens_for(database.reader, "before_cursor_execute")
    def explain(connection, cursor, statement, parameters, context, many) -> None:
        del cursor, context, many
        if statement.startswith("SELECT"):
            raw = connection.connection.dbapi_connection
            plans.extend(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    with database.reading() as connection:
        LOOKS[name](connection)
    database.close()
    assert plans
    assert scans(plans) == []


def scans(plans: list[str]) -> list[str]:
    """Steps that go through a whole table, or an index of more than what is alive."""
    found = [step for step in plans if step.startswith("SCAN") and not any(index in step for index in PARTIAL)]
    return [step for step in found if step.split()[1] not in {"counters", "pause", "gate", "identity"}]


@pytest.mark.sqlite
@pytest.mark.parametrize("name", FIGURES)
def test_no_figure_reads_all_of_history(stock: House, name: str) -> None:
    plans: list[str] = []
    with looking(stock.database) as look:

        def explain(sql: str, values: dict[str, object]) -> object:
            plans.extend(row[3] for row in look(f"EXPLAIN QUERY PLAN {sql}", values))
            return look(sql, values)

        FIGURES[name](explain)  # type: ignore[arg-type]
    assert plans
    assert scans(plans) == []


@pytest.mark.sqlite
def test_a_page_of_some_states_is_in_the_order_of_ids_and_goes_on_behind_the_last(stock: House) -> None:
    database = connect(stock.place)
    states = [State.PENDING, State.APPROVED, State.FAILED, State.COMPLETED]
    with database.reading() as connection:
        whole = [one.id for one in list_drafts(connection, states=states, system=True)]
        pages, after = [], None
        while page := list_drafts(connection, states=states, system=True, limit=2, after=after):
            pages += [one.id for one in page]
            after = page[-1].id
    database.close()
    expected = stock.rows(
        "SELECT id FROM drafts WHERE state IN ('pending', 'approved', 'failed', 'completed') ORDER BY id"
    )
    assert whole == pages == [draft_id for (draft_id,) in expected]
    assert len(whole) >= 6
