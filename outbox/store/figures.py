"""How it stands, in figures: for whoever asks, never for a loop."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, or_, select, text

from outbox.core.draft import uuid7
from outbox.core.lifecycle import SYSTEM_KIND, Outcome, Phase, State
from outbox.store.schema import attempts, drafts, workers


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker that has not ended; instants in microseconds UTC. `last_seen` is the last thing it stored."""

    id: str
    host: str
    pid: int
    started_at: int
    last_seen: int


def counts_by_state(connection: Connection) -> dict[State, int]:
    """How many drafts are in each state; the outbox's own left out."""
    counted = connection.execute(
        select(drafts.c.state, func.count()).where(drafts.c.kind != SYSTEM_KIND).group_by(drafts.c.state)
    )
    found = {str(state): int(number) for state, number in counted}
    return {state: found.get(state.value, 0) for state in State}


def count_in_doubt(connection: Connection) -> int:
    """Drafts at executing that may have been sent; the outbox's own, which end by themselves, left out."""
    query = (
        select(func.count())
        .select_from(drafts.join(attempts, attempts.c.id == drafts.c.attempt_id))
        .where(
            text("drafts.state = 'executing' AND drafts.kind <> 'system'"),
            or_(attempts.c.phase == Phase.GAP.value, attempts.c.outcome == Outcome.IN_DOUBT.value),
        )
    )
    return int(connection.execute(query).scalar_one())


def oldest_approved(connection: Connection) -> int | None:
    """Since when the draft waits that is to be claimed first (microseconds UTC)."""
    query = select(func.min(drafts.c.not_before)).where(text("drafts.state = 'approved' AND drafts.kind <> 'system'"))
    found: int | None = connection.execute(query).scalar_one()
    return found


def working(connection: Connection) -> list[WorkerRow]:
    """Workers that have not ended, as far as the database knows, the oldest first."""
    newest = (
        select(
            attempts.c.worker_id,
            func.max(attempts.c.started_at).label("claimed"),
            func.max(attempts.c.gap_at).label("entered"),
            func.max(attempts.c.ended_at).label("done"),
        )
        .group_by(attempts.c.worker_id)
        .subquery()
    )
    rows = connection.execute(
        select(workers, newest.c.claimed, newest.c.entered, newest.c.done)
        .select_from(workers.outerjoin(newest, newest.c.worker_id == workers.c.id))
        .where(workers.c.ended_at.is_(None))
        .order_by(workers.c.started_at)
    ).all()
    return [
        WorkerRow(
            row.id,
            row.host,
            row.pid,
            row.started_at,
            max(row.started_at, row.claimed or 0, row.entered or 0, row.done or 0),
        )
        for row in rows
    ]


def tampered_since(connection: Connection, codes: list[str], since: int) -> list[tuple[str, str, str]]:
    """Drafts that failed because a row was not what was signed: id, code, words.

    Those that were drafted or claimed since an instant (microseconds UTC); ids sort by time.
    """
    claimed = select(attempts.c.draft_id).where(attempts.c.id >= uuid7(since, bytes(10)))
    rows = connection.execute(
        select(drafts.c.id, drafts.c.error_code, drafts.c.error_message)
        .where(drafts.c.error_code.in_(codes), text("drafts.state = 'failed'"))
        .where(or_(drafts.c.id >= uuid7(since, bytes(10)), drafts.c.id.in_(claimed)))
        .order_by(drafts.c.id)
    )
    return [(row.id, row.error_code, row.error_message) for row in rows]
