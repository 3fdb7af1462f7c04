"""The append-only record of every transition, written in the transaction that it records.

One chain for each writer (a room and one run of it): every row carries a MAC over itself and its predecessor's MAC, so
that a row changed, taken out or put elsewhere is found by whoever holds the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from outbox.core.canonical import VERSION, quoted, quoted_or_null
from outbox.core.lifecycle import Room
from outbox.core.signing import KeyRing, Purpose
from outbox.store.prepared import PreparedChange, Value
from outbox.store.schema import journal

GENESIS = bytes(32)
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_INSERT = PreparedChange(
    insert(journal), "writer", "seq", "at", "action", "draft_id", "attempt_id", "detail", "key_id", "mac"
)


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
        columns = (self.writer, self.seq, self.at, self.action, self.draft_id, self.attempt_id, self.detail)
        return _canonical(columns, previous)


_Columns = tuple[str, int, int, str, str | None, str | None, str]  # in the order in which they are stored


def _canonical(columns: _Columns, previous: bytes) -> bytes:
    """RFC 8785 bytes, its names in their order; a test holds them against `core.canonical.encode`."""
    writer, seq, at, action, draft_id, attempt_id, detail = columns
    text = (
        f'{{"action":{quoted(action)},"at":{at},"attempt":{quoted_or_null(attempt_id)},"detail":{quoted(detail)},'
        f'"draft":{quoted_or_null(draft_id)},"previous":"{previous.hex()}","seq":{seq},"version":{VERSION},'
        f'"writer":{quoted(writer)}}}'
    )
    return text.encode("utf-8", "surrogatepass")  # which no MAC of ours is over


class Fact(NamedTuple):
    """What happened, to which draft under which attempt; `detail` as JSON."""

    action: str
    draft_id: str | None = None
    attempt_id: str | None = None
    detail: str = "{}"


def detail_text(detail: Mapping[str, str | int | None]) -> str:
    """The detail column: JSON, its keys in order."""
    return _encode(detail)


@dataclass(slots=True)
class Chain:
    """The head of one writer's chain. It moves with the transaction: a rollback puts it back."""

    room: Room
    run: str
    ring: KeyRing
    seq: int = 0
    head: bytes = GENESIS
    _unwritten: list[tuple[Value, ...]] = field(default_factory=list)

    @property
    def writer(self) -> str:
        """What this chain's rows name as their writer."""
        return f"{self.room}:{self.run}"

    def resume(self, connection: Connection) -> None:
        """Find the head again in the journal, after a COMMIT whose fate is not known."""
        self._unwritten.clear()
        newest = connection.execute(
            select(journal.c.seq, journal.c.mac)
            .where(journal.c.writer == self.writer)
            .order_by(journal.c.seq.desc())
            .limit(1)
        ).one_or_none()
        self.seq, self.head = (newest.seq, newest.mac) if newest is not None else (0, GENESIS)

    def append(self, facts: Sequence[Fact], *, now: int) -> None:
        """Take the next rows of this chain; `write` stores them."""
        writer, rows = self.writer, self._unwritten
        for fact in facts:
            columns = (writer, self.seq + 1, now, fact.action, fact.draft_id, fact.attempt_id, fact.detail)
            signature = self.ring.sign(Purpose.JOURNAL, _canonical(columns, self.head))
            rows.append((*columns, signature.key_id, signature.octets))
            self.seq, self.head = self.seq + 1, signature.octets

    def write(self, connection: Connection) -> None:
        """Store what was appended, in one statement."""
        rows, self._unwritten = self._unwritten, []
        if rows:
            _INSERT.many(connection, rows)

    @property
    def mark(self) -> tuple[int, bytes, int]:
        """Where it stands, for `go_back`."""
        return self.seq, self.head, len(self._unwritten)

    def go_back(self, mark: tuple[int, bytes, int]) -> None:
        """Forget what was appended since, where a transaction or a part of it is undone."""
        self.seq, self.head, count = mark
        del self._unwritten[count:]
