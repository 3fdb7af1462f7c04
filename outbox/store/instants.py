"""The highest instant that was stored, which no clock may be far behind; and a person's word that a clock is right."""

from __future__ import annotations

from sqlalchemy import Connection, exists, not_, select, text, update

from outbox.core.errors import Code, StateRefused
from outbox.store.schema import attempts, clock, drafts, grants, workers
from outbox.store.writer import Transaction


def newest_instant_of_workers(connection: Connection) -> int:
    """When, in microseconds UTC, a worker last came, went, claimed or heard an answer; 0 where none ever did.

    What a clock wrote that a person has called wrong since is left out.
    """
    believed = connection.execute(select(clock)).one()
    newest = _newest(connection)
    return newest if newest > believed.ignored_until else min(newest, believed.believed_at)


def believe_clock(tx: Transaction, *, by: str, now: int, longest: int) -> None:
    """Take `now` for right, whatever was written ahead of it. Raises StateRefused where nothing is ahead.

    What was deferred by the clock that was ahead, and would wait for longer than `longest` microseconds, is due now; a
    grant of that clock's is not, since its time has not come.
    """
    newest = _newest(tx.connection)
    granted = exists().where(grants.c.draft_id == drafts.c.id, grants.c.at > now)
    late = (text("state = 'approved'"), drafts.c.not_before > now + longest, not_(granted))
    due = tx.connection.execute(update(drafts).where(*late).values(not_before=now).returning(drafts.c.id)).all()
    if newest <= now and not due:
        raise StateRefused(Code.STATE_CONFLICT, "nothing that is stored is ahead of this clock; nothing was changed")
    tx.connection.execute(update(clock).values(believed_at=now, ignored_until=max(newest, now)))
    tx.journal("clock", now=now, detail={"by": by, "ignored_until": newest, "due": len(due)})


def _newest(connection: Connection) -> int:
    """Of the newest worker and the newest attempt; ids sort by time."""
    worked = connection.execute(
        select(workers.c.started_at, workers.c.ended_at).order_by(workers.c.id.desc()).limit(1)
    ).one_or_none()
    tried = connection.execute(
        select(attempts.c.started_at, attempts.c.gap_at, attempts.c.ended_at).order_by(attempts.c.id.desc()).limit(1)
    ).one_or_none()
    return max((instant for instant in (*(worked or ()), *(tried or ())) if instant is not None), default=0)
