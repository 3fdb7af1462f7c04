"""Reads of the journal and of what it speaks of, row by row: there may be millions, and none is kept.

All of them yield in an order that can be merged; who compares them reads them on one connection, which sees one moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select

from outbox.core.seal import Head
from outbox.core.signing import Signature
from outbox.store.dialect import PLACE
from outbox.store.journal import GENESIS, Entry
from outbox.store.schema import attempts, drafts, journal

_AT_ONCE = 1000  # rows fetched together


@dataclass(frozen=True, slots=True)
class Link:
    """One row of the journal as it lies there, and its place in the order of commits."""

    place: int
    entry: Entry
    signature: Signature


@dataclass(frozen=True, slots=True)
class ChainedLink:
    """A row with the MAC of the row before it in its chain; None where that is not there."""

    link: Link
    previous: bytes | None


@dataclass(frozen=True, slots=True)
class DraftFacts:
    """Of a draft what the journal says too."""

    id: str
    state: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """Of an attempt what the journal says too."""

    id: str
    draft_id: str
    phase: str
    outcome: str | None
    wire_digest: bytes | None


def _stream(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    yield from connection.execution_options(yield_per=_AT_ONCE).execute(query)


def _link(row: Row[Any]) -> Link:
    entry = Entry(row.writer, row.seq, row.at, row.action, row.draft_id, row.attempt_id, row.detail)
    return Link(row.place, entry, Signature(row.key_id, row.mac))


def links_by_chain(connection: Connection) -> Iterator[Link]:
    """Every row, chain by chain, each in its order."""
    query = select(journal, PLACE.label("place")).order_by(journal.c.writer, journal.c.seq)
    return map(_link, _stream(connection, query))


def links_by_draft(connection: Connection) -> Iterator[Link]:
    """Every row that names a draft, draft by draft, each in the order of commits."""
    query = (
        select(journal, PLACE.label("place")).where(journal.c.draft_id.is_not(None)).order_by(journal.c.draft_id, PLACE)
    )
    return map(_link, _stream(connection, query))


def _chained() -> Select[Any]:
    before = journal.alias("before")
    link = and_(before.c.writer == journal.c.writer, before.c.seq == journal.c.seq - 1)
    return select(journal, PLACE.label("place"), before.c.mac.label("previous")).outerjoin(before, link)


def _chained_link(row: Row[Any]) -> ChainedLink:
    return ChainedLink(_link(row), GENESIS if row.seq == 1 else row.previous)


def links_after(connection: Connection, place: int) -> Iterator[ChainedLink]:
    """Every row after a place, in the order of commits."""
    query = _chained().where(place < PLACE).order_by(PLACE)
    return map(_chained_link, _stream(connection, query))


def links_of_draft(connection: Connection, draft_id: str) -> list[ChainedLink]:
    """The rows that name a draft or, where they name none, an attempt of it, in the order of commits."""
    his = select(attempts.c.id).where(attempts.c.draft_id == draft_id)
    unnamed = and_(journal.c.draft_id.is_(None), journal.c.attempt_id.in_(his))
    query = _chained().where(or_(journal.c.draft_id == draft_id, unnamed)).order_by(PLACE)
    return [_chained_link(row) for row in connection.execute(query).all()]


def drafts_by_id(connection: Connection) -> Iterator[DraftFacts]:
    """Every draft, by id."""
    query = select(drafts.c.id, drafts.c.state, drafts.c.digest).order_by(drafts.c.id)
    for row in _stream(connection, query):
        yield DraftFacts(row.id, row.state, row.digest)


def attempts_by_draft(connection: Connection) -> Iterator[AttemptFacts]:
    """Every attempt, by its draft."""
    query = select(
        attempts.c.id, attempts.c.draft_id, attempts.c.phase, attempts.c.outcome, attempts.c.wire_digest
    ).order_by(attempts.c.draft_id)
    for row in _stream(connection, query):
        yield AttemptFacts(row.id, row.draft_id, row.phase, row.outcome, row.wire_digest)


def heads_after(connection: Connection, place: int) -> tuple[Head, ...]:
    """The newest row of each chain that grew after a place, by writer."""
    newest = (
        select(journal.c.writer, func.max(journal.c.seq).label("seq"))
        .where(place < PLACE)
        .group_by(journal.c.writer)
        .subquery()
    )
    query = (
        select(journal.c.writer, journal.c.seq, journal.c.mac)
        .join(newest, and_(journal.c.writer == newest.c.writer, journal.c.seq == newest.c.seq))
        .order_by(journal.c.writer)
    )
    return tuple(Head(row.writer, row.seq, row.mac) for row in connection.execute(query).all())


def rows_until(connection: Connection, place: int) -> int:
    """How many rows there are up to a place."""
    return int(connection.execute(select(func.count()).select_from(journal).where(place >= PLACE)).scalar_one())


def mac_at(connection: Connection, writer: str, seq: int) -> bytes | None:
    """The MAC of one row, or None where it is not there."""
    found: bytes | None = connection.execute(
        select(journal.c.mac).where(journal.c.writer == writer, journal.c.seq == seq)
    ).scalar_one_or_none()
    return found
