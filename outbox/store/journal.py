"""The append-only record of every transition, written in the transaction that it records.

One chain for each writer (a room and one run of it): every row carries a MAC over itself and its predecessor's MAC, so
that a row changed, taken out or put elsewhere is found by whoever holds the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from outbox.core.canonical import VERSION, encode
from outbox.core.lifecycle import Room
from outbox.core.signing import KeyRing, Purpose
from outbox.store.schema import journal

GENESIS = bytes(32)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: who wrote it, its place in that chain, and what happened; `at` in microseconds UTC."""

    writer: str
    seq: int
    at: int
    action: str
    draft_id: str | None
    attempt_id: str | None
    detail: str

    def canonical(self, previous: bytes) -> bytes:
        """The bytes under this row's MAC; `previous` is the MAC of the row before it, or GENESIS."""
        return encode(
            {
                "version": VERSION,
                "writer": self.writer,
                "seq": self.seq,
                "at": self.at,
                "action": self.action,
                "draft": self.draft_id,
                "attempt": self.attempt_id,
                "detail": self.detail,
                "previous": previous.hex(),
            }
        )


@dataclass(slots=True)
class Chain:
    """The head of one writer's chain. It moves with the transaction: a rollback puts it back."""

    room: Room
    run: str
    ring: KeyRing
    seq: int = 0
    head: bytes = GENESIS

    @property
    def writer(self) -> str:
        """What this chain's rows name as their writer."""
        return f"{self.room}:{self.run}"

    def resume(self, connection: Connection) -> None:
        """Find the head again in the journal, after a COMMIT whose fate is not known."""
        newest = connection.execute(
            select(journal.c.seq, journal.c.mac)
            .where(journal.c.writer == self.writer)
            .order_by(journal.c.seq.desc())
            .limit(1)
        ).one_or_none()
        self.seq, self.head = (newest.seq, newest.mac) if newest is not None else (0, GENESIS)

    def append(
        self,
        connection: Connection,
        action: str,
        *,
        now: int,
        draft_id: str | None = None,
        attempt_id: str | None = None,
        detail: Mapping[str, str | int | None] | None = None,
    ) -> None:
        """Write the next row of this chain."""
        facts = json.dumps(detail or {}, sort_keys=True, separators=(",", ":"))
        entry = Entry(self.writer, self.seq + 1, now, action, draft_id, attempt_id, facts)
        signature = self.ring.sign(Purpose.JOURNAL, entry.canonical(self.head))
        connection.execute(
            insert(journal).values(
                writer=entry.writer,
                seq=entry.seq,
                at=entry.at,
                action=entry.action,
                draft_id=entry.draft_id,
                attempt_id=entry.attempt_id,
                detail=entry.detail,
                key_id=signature.key_id,
                mac=signature.octets,
            )
        )
        self.seq, self.head = entry.seq, signature.octets
