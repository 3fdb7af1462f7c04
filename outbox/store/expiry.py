"""Expire what is past its time."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, exists, or_, select, text

from outbox.core.errors import Code
from outbox.core.lifecycle import State, Verb
from outbox.store.schema import drafts, grants
from outbox.store.transition import move
from outbox.store.writer import Transaction

MOST_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Overdue:
    """A draft that is past its time."""

    id: str
    kind: str
    state: State


def overdue(connection: Connection, *, now: int) -> list[Overdue]:
    """Drafts whose own time, or whose grant's, is past; the longest overdue first."""
    waiting = text("drafts.state IN ('pending', 'approved')")  # literal, for the partial index
    by_draft = select(drafts.c.id, drafts.c.kind, drafts.c.state).where(waiting, drafts.c.expires_at <= now)
    rows = connection.execute(by_draft.order_by(drafts.c.expires_at, drafts.c.id).limit(MOST_AT_ONCE)).all()
    by_grant = select(drafts.c.id, drafts.c.kind, drafts.c.state).where(
        text("drafts.state = 'approved' AND drafts.kind <> 'system'"),
        exists().where(grants.c.draft_id == drafts.c.id, grants.c.expires_at <= now),
    )
    rows = [*rows, *connection.execute(by_grant.limit(MOST_AT_ONCE)).all()]
    return list({row.id: Overdue(row.id, row.kind, State(row.state)) for row in rows}.values())


def expire_if_overdue(tx: Transaction, draft_id: str, source: State, *, now: int) -> None:
    """Expire one draft. Raises LostRace where it moved meanwhile or its time is not past."""
    past = or_(
        drafts.c.expires_at <= now,
        exists().where(grants.c.draft_id == drafts.c.id, grants.c.expires_at <= now),
    )
    what = (
        "nobody answered in time" if source is State.PENDING else "its time, or its grant's, passed before it was sent"
    )
    move(tx, Verb.EXPIRE, draft_id, source=source, now=now, guards=(past,), error=(Code.EXPIRED, what))
