"""Attempts that are under way, and what was made of a draft before: for the worker, and for whoever looks after it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, text, true

from outbox.core.errors import Code
from outbox.store.schema import attempts, drafts, workers


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt that no living worker will finish."""

    draft_id: str
    attempt_id: str
    worker_id: str
    phase: str
    gate: str


def attempts_made(connection: Connection, draft_id: str) -> int:
    """How often a draft was tried, the try under way included."""
    query = select(func.count()).select_from(attempts).where(attempts.c.draft_id == draft_id)
    return int(connection.execute(query).scalar_one())


@dataclass(frozen=True, slots=True)
class Registered:
    """A worker that has not ended, as far as the database knows; on a server, with which ledger, and if with a lock."""

    id: str
    host: str
    ledger: str | None
    visible: bool


def workers_not_ended(connection: Connection) -> list[Registered]:
    """Those of every host."""
    columns = (workers.c.id, workers.c.host, workers.c.ledger, workers.c.visible)
    rows = connection.execute(select(*columns).where(workers.c.ended_at.is_(None)).order_by(workers.c.id))
    return [Registered(row.id, row.host, row.ledger, bool(row.visible)) for row in rows]


def abandoned(connection: Connection, ledger: str | None = None) -> list[OpenAttempt]:
    """Open attempts of workers that have ended; where a ledger is named, not those that another one knows about."""
    whose = true() if ledger is None else or_(workers.c.ledger.is_(None), workers.c.ledger == ledger)
    return _open_attempts(connection, and_(workers.c.ended_at.is_not(None), whose))


def open_attempts_of(connection: Connection, worker_id: str) -> list[OpenAttempt]:
    """Open attempts of one worker."""
    return _open_attempts(connection, workers.c.id == worker_id)


def _open_attempts(connection: Connection, whose: ColumnElement[bool]) -> list[OpenAttempt]:
    rows = connection.execute(
        select(attempts.c.draft_id, attempts.c.id, attempts.c.worker_id, attempts.c.phase, attempts.c.gate)
        .select_from(attempts.join(workers))
        .where(text("attempts.phase <> 'done'"), whose)
    ).all()
    return [OpenAttempt(row.draft_id, row.id, row.worker_id, row.phase, row.gate) for row in rows]


def count_ended_as(connection: Connection, draft_id: str, words: str) -> int:
    """How many attempts at a draft ended with these words of ours."""
    query = select(func.count()).select_from(attempts).where(attempts.c.draft_id == draft_id, attempts.c.text == words)
    return int(connection.execute(query).scalar_one())


def was_alerted(connection: Connection, draft_id: str, code: Code) -> bool:
    """Whether an alert of this code about a draft was put among the outbox's own mail."""
    query = select(drafts.c.id).where(
        text("about IS NOT NULL"), drafts.c.about == draft_id, drafts.c.subject.startswith(f"[outbox] {code}:")
    )
    return connection.execute(query.limit(1)).first() is not None
