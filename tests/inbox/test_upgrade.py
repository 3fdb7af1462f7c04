"""A database of a version before, with requests that wait, is upgraded; nothing in it is lost, and all are told."""

from __future__ import annotations

import os
import shutil
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from outbox.core.errors import Code
from outbox.core.lifecycle import State
from outbox.ledger import NAME, LedgerRefused
from outbox.store.engine import connect
from outbox.store.migrate import scripts
from tests.cli import zygote
from tests.house import FOUNDER, HOUR, JANE, House
from tests.inbox.letters import Asked, text_of
from tests.worker.hand import codes, dead_worker

pytestmark = pytest.mark.sqlite  # there was no other database before revision 0004


def as_it_was(house: House, revision: str) -> None:
    """Put the database back to a revision, made by its migrations alone, with every row that had a place in it.

    There was no ledger either.
    """
    newer = house.database.rename(house.folder / "newer.db")
    for file in house.folder.glob("outbox.db-*"):
        file.rename(house.folder / f"newer.db{file.name.removeprefix('outbox.db')}")
    house.settings.state_dir.joinpath(NAME).unlink()
    database, config = connect(house.database, create=True), Config()
    config.set_main_option("script_location", str(scripts()))
    with database.writer.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    database.close()
    with house.as_thief() as connection:
        connection.execute("ATTACH ? AS newer", (str(newer),))
        tables = {name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}
        for table in sorted(tables - {"alembic_version", "gate"}):
            names = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
            connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM newer.{table}")
        connection.execute("DETACH newer")


def upgrade(folder: Path) -> None:
    code, _, err = zygote.run(["db", "upgrade"], folder, dict(os.environ), b"")
    assert (code, err) == (0, b"")


@pytest.fixture(params=["0001", "0002"])
def upgraded(asked: Asked, request: pytest.FixtureRequest) -> Asked:
    """Asked by a version before; then the new one came."""
    as_it_was(asked.house, request.param)
    assert asked.house.rows("SELECT version_num FROM alembic_version") == [(request.param,)]
    before = asked.house.rows("SELECT id, state, digest FROM drafts ORDER BY id")
    upgrade(asked.house.folder)
    assert asked.house.rows("SELECT id, state, digest FROM drafts ORDER BY id") == before
    return asked


def told(house: House, words: str) -> list[str]:
    """Look and send; the texts of what the founder got with these words in the subject."""
    house.inbox()
    house.drain()
    letters = [message_from_bytes(one.octets, policy=policy.default) for one in house.relay.to(FOUNDER)]
    return [text_of(one) for one in letters if words in str(one["Subject"])]  # type: ignore[arg-type]


def test_who_was_asked_before_the_upgrade_can_answer_and_hears_of_the_end(upgraded: Asked) -> None:
    upgraded.house.reply(upgraded.request, "Ship it")
    upgraded.house.inbox()
    upgraded.house.drain()
    assert len(upgraded.house.relay.to(JANE)) == 1
    (text,) = told(upgraded.house, "] Sent: ")
    assert f"Draft {upgraded.draft_id}" in text


def test_who_was_asked_before_the_upgrade_is_reminded_and_hears_that_it_expired(upgraded: Asked) -> None:
    upgraded.house.clock.advance(18 * HOUR)
    assert len(told(upgraded.house, "] Expires soon, ")) == 2
    upgraded.house.clock.advance(6 * HOUR)
    assert len(told(upgraded.house, "] Expired: ")) == 2


def test_nobody_is_told_of_what_had_ended_before_the_upgrade(asked: Asked) -> None:
    asked.house.cancel(asked.draft_id)
    as_it_was(asked.house, "0001")
    upgrade(asked.house.folder)
    assert told(asked.house, "] Cancelled: ") == []
    asked.house.cancel(asked.other_id)
    assert len(told(asked.house, "] Cancelled: ")) == 1


def test_gaps_from_before_the_upgrade_need_no_ledger_and_those_after_it_do(upgraded: Asked) -> None:
    house = upgraded.house
    ((gaps, newest),) = house.rows("SELECT count(gap_at), max(gap_at) FROM attempts")
    assert gaps == 2  # the requests
    assert house.rows("SELECT ledger_since FROM identity") == [(int(str(newest)) + 1,)]
    house.clock.advance(HOUR)
    house.approve(upgraded.draft_id)
    house.drain()
    assert len(house.relay.to(JANE)) == 1
    house.settings.state_dir.joinpath(NAME).unlink()
    with pytest.raises(LedgerRefused) as refused:
        house.drain()
    assert refused.value.code is Code.LEDGER_MISSING


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_what_was_left_in_the_gap_before_the_upgrade_is_in_doubt_after_it(house: House, revision: str) -> None:
    draft = house.approved()
    dead_worker(house, in_gap=True)
    as_it_was(house, revision)
    upgrade(house.folder)
    house.drain()
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert house.relay.to(JANE) == []
    assert "in_doubt" in codes(house)


def test_each_database_gets_a_name_of_its_own(asked: Asked, tmp_path: Path) -> None:
    other = tmp_path / "other"
    as_it_was(asked.house, "0002")
    shutil.copytree(asked.house.folder, other)
    names = set()
    for folder in (asked.house.folder, other):
        upgrade(folder)
        names |= set(House(folder, asked.house.relay).rows("SELECT id FROM identity"))
    assert len(names) == 2
