"""Attempts that are under way, and what was made of a draft before: for the worker, and for whoever looks after it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select, text

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


def workers_not_ended(connection: Connection) -> list[tuple[str, str]]:
    """Ids and hosts of the workers that have not ended, as far as the database knows."""
    rows = connection.execute(select(workers.c.id, workers.c.host).where(workers.c.ended_at.is_(None)))
    return [(row.id, row.host) for row in rows]


def abandoned(connection: Connection) -> list[OpenAttempt]:
    """Open attempts of workers that have ended."""
    return _open_attempts(connection, workers.c.ended_at.is_not(None))


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
