"""One outbox in a folder of its own, with as many drafts as are wanted, drafted, signed and granted for real.

Drafts and grants go through the rooms' own verbs, many in one transaction, so that a hundred thousand take a minute.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.mail import RECIPIENT, SENDER, message
from outbox import config
from outbox.clock import new_id, wall
from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.grant import Channel, Grant, sign_grant
from outbox.core.lifecycle import Room
from outbox.drafter.intake import Additions, Intake, Overrides
from outbox.operator.setup import Plan, initialise, upgrade_settings_database
from outbox.store.drafts import NewDraft, insert_many_pending
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.verdicts import approve_if_pending
from outbox.store.writer import Transaction, Writer

APPROVER = "founder@acme.example"
_TOGETHER = 500  # drafts in one transaction
_LIFETIME = 7 * 86400  # seconds


@dataclass(frozen=True, slots=True)
class Drafted:
    """One draft, as its grant names it."""

    id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class House:
    """The folder of one outbox."""

    folder: Path

    @classmethod
    def build(cls, folder: Path) -> House:
        """An initialised outbox whose gates let everything through, without a relay yet."""
        initialise(
            Plan(
                folder=folder,
                from_domains=("acme.example",),
                approvers=(APPROVER,),
                address="approve@acme.example",
                mailbox="maildir:Maildir",
                authenticity="none",
                relay_host="127.0.0.1",
                relay_port=1,
            )
        )
        return cls(folder)

    @classmethod
    def on_postgres(cls, folder: Path, address: str) -> House:
        """The same on an empty PostgreSQL database, given by its libpq address."""
        house = cls.build(folder)
        (folder / "outbox.db").unlink()
        house.move_to(address)
        upgrade_settings_database(house.settings)
        return house

    def move_to(self, address: str) -> None:
        """From here on the database is that one."""
        file = self.folder / "outbox.toml"
        before = ('url = "sqlite:', 'url = "postgresql')
        lines = [f'url = "{_sqlalchemy(address)}"' if line.startswith(before) else line for line in _lines(file)]
        file.write_text("\n".join(lines) + "\n")

    def copy(self, folder: Path) -> House:
        """The same outbox in another folder, which must not be there."""
        shutil.copytree(self.folder, folder)
        return House(folder)

    def environment(self, *, port: int, lanes: int = 20) -> dict[str, str]:
        """The settings that a run makes, over those of the folder."""
        return {
            "OUTBOX_CONFIG": str(self.folder / "outbox.toml"),
            "OUTBOX_RELAY__PORT": str(port),
            "OUTBOX_RELAY__LANES": str(lanes),
            "OUTBOX_THERMAL__COUNT": "1000000",
            "OUTBOX_POLICY__MAX_TTL": "30d",
        }

    @property
    def settings(self) -> Settings:
        """As the folder has them."""
        return config.load(self.folder / "outbox.toml")

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "outbox.db"

    def draft(self, count: int, *, first: int = 0) -> list[Drafted]:
        """Draft `count` mails of 2 KB, numbered from `first`."""
        settings = self.settings
        ring = settings.draft_ring()
        intake = Intake(ring, settings.rules(), _LIFETIME, Additions())
        overrides = Overrides(sender=SENDER, to=(RECIPIENT,), ttl=_LIFETIME)

        drafted: list[Drafted] = []
        with self.writing(Room.DRAFTER) as write:
            for numbers in _groups(first, count):
                now = wall()
                signed = [intake.adopt(message(number), overrides, new_id(now), now) for number in numbers]
                new = [NewDraft(one) for one in signed]
                write(partial(insert_many_pending, new=new, now=now))
                drafted.extend(Drafted(one.draft.id, one.digest) for one in signed)
        return drafted

    def approve(self, drafted: Sequence[Drafted]) -> None:
        """Grant each in the approver's name."""
        ring = self.settings.grant_ring()

        def grant(tx: Transaction, start: int) -> None:
            now = wall()
            for draft in drafted[start : start + _TOGETHER]:
                one = Grant(
                    id=new_id(now),
                    draft_id=draft.id,
                    digest=draft.digest,
                    approver=APPROVER,
                    channel=Channel.TERMINAL,
                    at=now,
                    expires_at=now + _LIFETIME * MICROSECONDS,
                )
                approve_if_pending(tx, one, sign_grant(ring, one), now=now)

        with self.writing(Room.OPERATOR) as write:
            for start in range(0, len(drafted), _TOGETHER):
                write(partial(grant, start=start))

    def approved(self, count: int, *, first: int = 0) -> list[Drafted]:
        """Draft and approve."""
        drafted = self.draft(count, first=first)
        self.approve(drafted)
        return drafted

    def count(self, state: str) -> int:
        """How many drafts of agents are in that state; on SQLite."""
        with closing(sqlite3.connect(self.database)) as connection:
            query = "SELECT count(*) FROM drafts WHERE state = ? AND kind <> 'system'"
            return int(connection.execute(query, (state,)).fetchone()[0])

    def in_doubt(self) -> int:
        """How many attempts are in the gap; on SQLite."""
        with closing(sqlite3.connect(self.database)) as connection:
            return int(connection.execute("SELECT count(*) FROM attempts WHERE phase = 'gap'").fetchone()[0])

    @contextmanager
    def writing(self, room: Room) -> Iterator[Callable[[Callable[[Transaction], Any]], Any]]:
        """A room's own writer: what is called with a transition commits it, and returns its result."""
        settings = self.settings
        ring = settings.draft_ring() if room is Room.DRAFTER else settings.grant_ring()
        database = connect(settings.database_place, room)
        writer = Writer(database, Chain(room, new_id(wall()), ring))
        try:
            yield writer.run
        finally:
            writer.close()
            database.close()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def _sqlalchemy(address: str) -> str:
    return address.replace("postgresql://", "postgresql+psycopg://", 1)


def _groups(first: int, count: int) -> Iterator[range]:
    for start in range(first, first + count, _TOGETHER):
        yield range(start, min(start + _TOGETHER, first + count))


def worker_command(*, drain: bool = True) -> list[str]:
    """The worker's command, as this Python runs it."""
    return [sys.executable, "-P", "-m", "outbox", "worker", *(["--drain"] if drain else []), "--quiet"]
