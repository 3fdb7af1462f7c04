"""A database of the version before, with requests that wait, is upgraded; nothing in it is lost, and all are told."""

from __future__ import annotations

import subprocess
import sys
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from outbox.store.engine import connect
from outbox.store.migrate import scripts
from tests.house import FOUNDER, HOUR, JANE, House
from tests.inbox.letters import Asked, text_of


def as_it_was(house: House) -> None:
    """Put the database back to revision 0001, made by that migration alone, with every row that had a place in it."""
    newer = house.database.rename(house.folder / "newer.db")
    for file in house.folder.glob("outbox.db-*"):
        file.rename(house.folder / f"newer.db{file.name.removeprefix('outbox.db')}")
    database, config = connect(house.database, create=True), Config()
    config.set_main_option("script_location", str(scripts()))
    with database.writer.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    database.close()
    with house.as_thief() as connection:
        connection.execute("ATTACH ? AS newer", (str(newer),))
        tables = {name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}
        for table in sorted(tables - {"alembic_version", "gate"}):
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM newer.{table}")
        connection.execute("DETACH newer")


def upgrade(folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "outbox", "db", "upgrade"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.fixture
def upgraded(asked: Asked) -> Asked:
    """Asked by the version before; then the new one came."""
    as_it_was(asked.house)
    assert asked.house.rows("SELECT version_num FROM alembic_version") == [("0001",)]
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
    as_it_was(asked.house)
    upgrade(asked.house.folder)
    assert told(asked.house, "] Cancelled: ") == []
    asked.house.cancel(asked.other_id)
    assert len(told(asked.house, "] Cancelled: ")) == 1
