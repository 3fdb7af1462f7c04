"""One database and everybody who writes to it, without the rooms around them: the store's verbs, in short."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from outbox.core.canonical import sha256
from outbox.core.draft import Draft, Envelope, uuid7
from outbox.core.grant import Channel, Grant, sign_grant
from outbox.core.lifecycle import Outcome, Room
from outbox.core.notice import Notice, sign_notice
from outbox.core.signed import SignedDraft, sign_draft
from outbox.core.signing import KeyRing, Purpose, Signature
from outbox.store.claims import (
    Claim,
    Heat,
    Report,
    Tripped,
    claim_if_cool,
    complete_if_held,
    enter_gaps_if_held,
    finish_if_open,
    insert_worker,
    release_if_held,
)
from outbox.store.drafts import insert_pending
from outbox.store.engine import Database, connect
from outbox.store.journal import GENESIS, Chain, Entry
from outbox.store.migrate import upgrade
from outbox.store.notices import insert_system
from outbox.store.rows import load_draft
from outbox.store.verdicts import approve_if_pending
from outbox.store.writer import Transaction, Writer
from tests.house import APPROVAL, FOUNDER, HOUR, JANE, SALES, HandClock, House
from tests.postgres import server
from tests.postgres.plain import Plain
from tests.relay.recording import RecordingRelay

Result = TypeVar("Result")
ROOMY = Heat("mail", count=1000, window=900, cooldown=300)
ROOMY_SYSTEM = Heat("system", count=1000, window=900, cooldown=300)
RING = KeyRing([bytes(range(32))])
WIRE = bytes(32)


def report(outcome: Outcome) -> Report:
    """How an attempt ended, with the relay's words."""
    return Report(outcome, 250, "2.0.0", "the relay's words")


@dataclass
class Stage:
    """A migrated file, a clock that the test moves, and one writer for each room and run."""

    folder: Path
    kind: str = "sqlite"
    clock: HandClock = field(default_factory=HandClock)
    _open: dict[tuple[Room, str], tuple[Database, Writer]] = field(default_factory=dict)
    _ids: int = 0

    def __post_init__(self) -> None:
        self.house = House(self.folder, RecordingRelay(), self.clock)  # for its plain connections; it is not entered
        if self.kind == "postgresql":
            self.house.url = server.url_of(server.make_database())
        self.database = connect(self.house.place, create=True)
        if self.kind == "sqlite":
            upgrade(self.database)

    @property
    def path(self) -> Path:
        return self.house.database

    def close(self) -> None:
        """Close every writer and every connection; what is asked for later opens them anew."""
        for database, writer in self._open.values():
            writer.close()
            database.close()
        self._open.clear()
        self.database.close()

    def writer(self, room: Room, run: str = "1") -> Writer:
        """The writer of one run of a room, with connections and a journal chain of its own."""
        if (room, run) not in self._open:
            database = connect(self.house.place, room)
            self._open[room, run] = database, Writer(database, Chain(room, run, RING))
        return self._open[room, run][1]

    def run(self, room: Room, work: Callable[[Transaction], Result], run: str = "1") -> Result:
        return self.writer(room, run).run(work)

    def read(self, look: Callable[[Connection], Result]) -> Result:
        with self.database.reading() as connection:
            return look(connection)

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        return self.house.rows(query, *values)

    def new_id(self) -> str:
        self._ids += 1
        return uuid7(self.clock.now, self._ids.to_bytes(10, "big"))

    def signed(
        self,
        draft_id: str | None = None,
        *,
        ttl: int = HOUR,
        agent: str = "agent",
        kind: str = "email",
        words: str | None = None,
        resubmitted: str | None = None,
    ) -> SignedDraft:
        """A draft; those with the same `words` have the same fingerprint."""
        made = draft_id or self.new_id()
        message = f"Subject: Offer\r\nMessage-ID: <{made}@acme.example>\r\n\r\nHello\r\n".encode()
        now, envelope = self.clock.now, Envelope(SALES, (JANE,))
        draft = Draft(made, kind, agent, envelope, message, now, now + ttl, resubmitted=resubmitted)
        return sign_draft(RING, draft, sha256((words or made).encode()))

    def notice(self, draft_id: str | None = None, *, ttl: int = HOUR, about: str | None = None) -> SignedDraft:
        notice = Notice(APPROVAL, FOUNDER, "Alert", "Something happened.", self.clock.now + ttl, about)
        return sign_notice(RING, notice, Room.INBOX, draft_id or self.new_id(), self.clock.now)

    def grant(self, draft_id: str, *, approver: str = FOUNDER, ttl: int = HOUR) -> tuple[Grant, Signature]:
        digest = self.read(lambda connection: load_draft(connection, draft_id)).digest
        now = self.clock.now
        grant = Grant(self.new_id(), draft_id, digest, approver, Channel.TERMINAL, now, now + ttl)
        return grant, sign_grant(RING, grant)

    # The verbs, each in a transaction of its own

    def insert(self, draft_id: str | None = None, *, run: str = "1", key: str | None = None, **given: object) -> str:
        signed = self.signed(draft_id, **({"words": key} | given))  # type: ignore[arg-type]
        now = self.clock.now
        return self.run(Room.DRAFTER, lambda tx: insert_pending(tx, signed, now=now, idempotency_key=key), run)

    def insert_notice(self, draft_id: str | None = None, *, room: Room = Room.INBOX, **given: object) -> str:
        signed = self.notice(draft_id, **given)  # type: ignore[arg-type]
        self.run(room, lambda tx: insert_system(tx, signed, now=self.clock.now))
        return signed.draft.id

    def approve(self, draft_id: str, *, room: Room = Room.OPERATOR, ttl: int = HOUR) -> None:
        grant, signature = self.grant(draft_id, ttl=ttl)
        self.run(room, lambda tx: approve_if_pending(tx, grant, signature, now=self.clock.now))

    def approved(self, draft_id: str | None = None, *, grant_ttl: int = HOUR, **given: object) -> str:
        made = self.insert(draft_id, **given)  # type: ignore[arg-type]
        self.approve(made, ttl=grant_ttl)
        return made

    def register(self, worker_id: str) -> None:
        now = self.clock.now
        self.run(Room.WORKER, lambda tx: insert_worker(tx, worker_id, host="here", pid=1, now=now), worker_id)

    def try_claim(self, worker_id: str = "w1", *, heat: Heat = ROOMY, attempt_id: str | None = None) -> object:
        """A claim, or what kept the gate shut, or None where nothing is due."""
        made, now = attempt_id or self.new_id(), self.clock.now
        claims, tripped = self.run(
            Room.WORKER,
            lambda tx: claim_if_cool(tx, heat, worker_id=worker_id, attempt_ids=[made], now=now),
            worker_id,
        )
        return claims[0] if claims else tripped

    def claim(self, worker_id: str = "w1", *, heat: Heat = ROOMY, attempt_id: str | None = None) -> Claim:
        found = self.try_claim(worker_id, heat=heat, attempt_id=attempt_id)
        assert isinstance(found, Claim), found
        return found

    def trip(self, worker_id: str = "w1", *, heat: Heat) -> Tripped:
        found = self.try_claim(worker_id, heat=heat)
        assert isinstance(found, Tripped), found
        return found

    def enter_gap(self, claim: Claim, worker_id: str = "w1") -> None:
        now = self.clock.now
        self.run(Room.WORKER, lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=now), worker_id)

    def finish(self, claim: Claim, outcome: Outcome, worker_id: str = "w1") -> None:
        """Close the attempt alone, and leave its draft where it is."""
        now = self.clock.now
        self.run(Room.WORKER, lambda tx: finish_if_open(tx, [(claim, report(outcome))], now=now), worker_id)

    def complete(self, claim: Claim, worker_id: str = "w1") -> None:
        self.run(Room.WORKER, lambda tx: complete_if_held(tx, [claim], now=self.clock.now), worker_id)

    def release(self, claim: Claim, worker_id: str = "w1", *, pause: int = 0) -> object:
        now = self.clock.now
        return self.run(Room.WORKER, lambda tx: release_if_held(tx, claim, not_before=now + pause, now=now), worker_id)

    def state(self, draft_id: str) -> str:
        ((state,),) = self.rows("SELECT state FROM drafts WHERE id = ?", draft_id)
        return str(state)


def dump(connection: sqlite3.Connection | Plain) -> list[str]:
    """Every table, trigger, index and row as text."""
    return list(connection.iterdump())


@dataclass(frozen=True)
class Recorded:
    """One row of the journal as it lies there; `place` is its place in the order of commits."""

    entry: Entry
    signature: Signature
    place: int

    @property
    def detail(self) -> dict[str, object]:
        return dict(json.loads(self.entry.detail))


def journal_of(connection: sqlite3.Connection | Plain) -> list[Recorded]:
    """The whole journal, chain by chain, each in its order."""
    place = "place" if isinstance(connection, Plain) else "rowid"
    rows = connection.execute(
        f"SELECT writer, seq, at, action, draft_id, attempt_id, detail, key_id, mac, {place} "
        "FROM journal ORDER BY writer, seq"
    ).fetchall()
    return [Recorded(Entry(*row[:7]), Signature(row[7], row[8]), row[9]) for row in rows]


def broken_links(recorded: list[Recorded], ring: KeyRing = RING) -> list[tuple[str, int]]:
    """Writer and seq of every row that is not what its MAC, its predecessor or its place says."""
    found, heads = [], dict[str, tuple[int, bytes]]()
    for row in recorded:
        writer, seq = row.entry.writer, row.entry.seq
        last, head = heads.get(writer, (0, GENESIS))
        if seq != last + 1 or not ring.verify(Purpose.JOURNAL, row.entry.canonical(head), row.signature):
            found.append((writer, seq))
        heads[writer] = seq, row.signature.octets
    return found
