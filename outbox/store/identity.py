"""Which database this is, and what a ledger outside of it can be held against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import ColumnElement, Connection, exists, or_, select, text, true

from outbox.core.lifecycle import Gate, Outcome, Phase
from outbox.store.schema import attempts, drafts, identity, workers

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


@dataclass(frozen=True, slots=True)
class Whose:
    """Of several ledgers beside one database, which is asked about: by its name, and by the host's where that is gone.

    A file of SQLite has but one, without a name.
    """

    is_only: bool
    ledger: str | None = None
    host: str = ""

    def own(self) -> ColumnElement[bool]:
        """A guard: the attempt was a worker's with this ledger, or with the only one that there was then."""
        if self.is_only:
            return true()
        return self._of(or_(workers.c.ledger.is_(None), workers.c.ledger == self.ledger))

    def own_or_lost(self) -> ColumnElement[bool]:
        """A guard: the same, or a worker's of this host, whose ledger has another name."""
        if self.is_only:
            return true()
        return self._of(or_(workers.c.ledger.is_(None), workers.c.ledger == self.ledger, workers.c.host == self.host))

    def _of(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists().where(workers.c.id == attempts.c.worker_id, condition)


def has_gaps_since(connection: Connection, since: int, whose: Whose) -> bool:
    """Whether any attempt entered the gap since an instant whose line this ledger, or the one before it, has."""
    return any(_newest_gap(connection, gate, whose.own_or_lost()) >= since for gate in Gate)


def knows_fence(connection: Connection, fence: str) -> bool:
    """Whether this database was there when a fence was accepted: that is a worker's row of that id."""
    return connection.execute(select(workers.c.id).where(workers.c.id == fence)).first() is not None


def is_attempt(connection: Connection, attempt_id: str) -> bool:
    """Whether this database has an attempt."""
    return connection.execute(select(attempts.c.id).where(attempts.c.id == attempt_id)).first() is not None


def newest_gap(connection: Connection) -> int:
    """When the newest gap was entered (microseconds UTC); 0 where none was."""
    return max(0, *(_newest_gap(connection, gate, true()) for gate in Gate))


def _newest_gap(connection: Connection, gate: Gate, guard: ColumnElement[bool]) -> int:
    """Of one gate, by which the index is ordered; -1 where none was."""
    query = select(attempts.c.gap_at).where(attempts.c.gate == gate.value, attempts.c.gap_at.is_not(None), guard)
    found: int | None = connection.execute(query.order_by(attempts.c.gap_at.desc()).limit(1)).scalar_one_or_none()
    return -1 if found is None else found


def unknown_gaps(connection: Connection, attempt_ids: Iterable[str]) -> list[str]:
    """Those of these attempts that the database does not know to have entered the gap."""
    unknown: list[str] = []
    rest = iter(attempt_ids)
    while part := list(islice(rest, _IN_ONE_STATEMENT)):
        query = select(attempts.c.id).where(attempts.c.id.in_(part), attempts.c.gap_at.is_not(None))
        known = set(connection.execute(query).scalars())
        unknown += [one for one in part if one not in known]
    return unknown


@dataclass(frozen=True, slots=True)
class Executing:
    """The attempts that hold a draft at executing, and when the time of the first is over that is at claimed."""

    attempts: frozenset[str]
    claimed_until: int | None


def now_executing(connection: Connection) -> Executing:
    """What is under way or in doubt, whoever's it is; instants in microseconds UTC."""
    query = select(attempts.c.id, attempts.c.phase, drafts.c.expires_at).select_from(
        drafts.join(attempts, attempts.c.id == drafts.c.attempt_id)
    )
    rows = connection.execute(query.where(text("drafts.state = 'executing'"))).all()
    claimed = (row.expires_at for row in rows if row.phase == Phase.CLAIMED.value)
    return Executing(frozenset(row.id for row in rows), min(claimed, default=None))


@dataclass(frozen=True, slots=True)
class Left:
    """An attempt, and the draft that left by it; when its time is over (microseconds UTC), if it is there."""

    attempt: str
    draft: str
    expires_at: int | None


def newest_accepted(connection: Connection, since: int, whose: Whose, most: int) -> list[Left]:
    """The newest attempts of a ledger's workers that the relay accepted, entered since an instant; `most` at most."""
    found: list[tuple[int, str, str, int | None]] = []
    for gate in Gate:  # the index is ordered by it first
        query = (
            select(attempts.c.gap_at, attempts.c.id, attempts.c.draft_id, drafts.c.expires_at)
            .select_from(attempts.outerjoin(drafts, drafts.c.id == attempts.c.draft_id))
            .where(attempts.c.gate == gate.value, attempts.c.gap_at.is_not(None), attempts.c.gap_at >= since)
            .where(attempts.c.outcome == Outcome.ACCEPTED.value, whose.own())
            .order_by(attempts.c.gap_at.desc(), attempts.c.id.desc())
            .limit(most)
        )
        found += [(row.gap_at, row.id, row.draft_id, row.expires_at) for row in connection.execute(query)]
    found.sort(key=lambda left: left[:2], reverse=True)
    return [Left(attempt_id, draft_id, expires_at) for _, attempt_id, draft_id, expires_at in found[:most]]
