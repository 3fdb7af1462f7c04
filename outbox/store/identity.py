"""Which database this is, and what a ledger outside of it can be held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from outbox.core.lifecycle import Gate, Outcome
from outbox.store.schema import attempts, identity, workers

_IN_ONE_STATEMENT = 500
NEWEST = 1000  # attempts that are looked for in the ledger


@dataclass(frozen=True, slots=True)
class Identity:
    """The database's id, and since when (microseconds UTC) its gaps are in a ledger."""

    id: str
    ledger_since: int


def identity_of(connection: Connection) -> Identity:
    """The database's own name."""
    row = connection.execute(select(identity)).one()
    return Identity(row.id, row.ledger_since)


def has_gaps_since(connection: Connection, since: int) -> bool:
    """Whether any attempt entered the gap since an instant."""
    return any(_newest_gap(connection, gate) >= since for gate in Gate)


def knows_fence(connection: Connection, fence: str) -> bool:
    """Whether this database was there when a fence was accepted: that is a worker's row of that id."""
    return connection.execute(select(workers.c.id).where(workers.c.id == fence)).first() is not None


def is_attempt(connection: Connection, attempt_id: str) -> bool:
    """Whether this database has an attempt."""
    return connection.execute(select(attempts.c.id).where(attempts.c.id == attempt_id)).first() is not None


def newest_gap(connection: Connection) -> int:
    """When the newest gap was entered (microseconds UTC); 0 where none was."""
    return max(0, *(_newest_gap(connection, gate) for gate in Gate))


def _newest_gap(connection: Connection, gate: Gate) -> int:
    """Of one gate, by which the index is ordered; -1 where none was."""
    query = select(attempts.c.gap_at).where(attempts.c.gate == gate.value, attempts.c.gap_at.is_not(None))
    found: int | None = connection.execute(query.order_by(attempts.c.gap_at.desc()).limit(1)).scalar_one_or_none()
    return -1 if found is None else found


def unknown_gaps(connection: Connection, attempt_ids: Sequence[str]) -> list[str]:
    """Those of these attempts that the database does not know to have entered the gap."""
    unknown: list[str] = []
    for start in range(0, len(attempt_ids), _IN_ONE_STATEMENT):
        part = attempt_ids[start : start + _IN_ONE_STATEMENT]
        query = select(attempts.c.id).where(attempts.c.id.in_(part), attempts.c.gap_at.is_not(None))
        known = set(connection.execute(query).scalars())
        unknown += [one for one in part if one not in known]
    return unknown


@dataclass(frozen=True, slots=True)
class Left:
    """An attempt, and the draft that left by it."""

    attempt: str
    draft: str


def newest_accepted(connection: Connection, since: int) -> list[Left]:
    """The newest attempts that the relay accepted, entered since an instant."""
    found: list[tuple[int, str, str]] = []
    for gate in Gate:  # the index is ordered by it first
        query = (
            select(attempts.c.gap_at, attempts.c.id, attempts.c.draft_id)
            .where(attempts.c.gate == gate.value, attempts.c.gap_at.is_not(None), attempts.c.gap_at >= since)
            .where(attempts.c.outcome == Outcome.ACCEPTED.value)
            .order_by(attempts.c.gap_at.desc())
            .limit(NEWEST)
        )
        found += [(row.gap_at, row.id, row.draft_id) for row in connection.execute(query)]
    return [Left(attempt_id, draft_id) for _, attempt_id, draft_id in sorted(found, reverse=True)[:NEWEST]]
