"""Cancel, for whoever may: at once before the claim, and as a stop that is asked for from the claim to the gap."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from outbox.core.errors import Code, DraftUnknown, StateRefused
from outbox.core.lifecycle import State, Verb
from outbox.store.schema import drafts
from outbox.store.transition import move
from outbox.store.writer import Transaction


def cancel_if_not_sent(tx: Transaction, draft_id: str, *, now: int) -> State:
    """Cancel a pending or approved draft, or ask an executing one to stop; returns the state it is in then.

    EXECUTING means that the stop holds until the gap: the answer comes with the attempt's end. Raises StateRefused
    where the draft is final, DraftUnknown where there is none.
    """
    # Its row is held: on PostgreSQL it could be claimed, or completed, between this look and what follows from it.
    look = select(drafts.c.state).where(drafts.c.id == draft_id).with_for_update(key_share=True)
    state = tx.connection.execute(look).scalar_one_or_none()
    if state is None:
        raise DraftUnknown(Code.DRAFT_UNKNOWN, f"there is no draft {draft_id}")
    if state in (State.PENDING, State.APPROVED):
        move(tx, Verb.CANCEL, draft_id, source=State(state), now=now)
        return State.CANCELLED
    if state == State.EXECUTING:
        _ask_executing_to_stop(tx, draft_id, now=now)
        return State.EXECUTING
    raise StateRefused(Code.STATE_CONFLICT, f"draft {draft_id} is already {state}; there is nothing to cancel")


def stop_was_asked(connection: Connection, draft_id: str) -> bool:
    """Whether the draft was asked to stop before."""
    query = select(drafts.c.stop_asked_at).where(drafts.c.id == draft_id)
    return connection.execute(query).scalar_one_or_none() is not None


def _ask_executing_to_stop(tx: Transaction, draft_id: str, *, now: int) -> None:
    asked = tx.connection.execute(
        update(drafts)
        .where(drafts.c.id == draft_id, drafts.c.state == State.EXECUTING.value, drafts.c.stop_asked_at.is_(None))
        .values(stop_asked_at=now)
        .returning(drafts.c.attempt_id)
    ).one_or_none()
    if asked is None:
        return  # it was asked before; asking twice changes nothing
    tx.journal("stop", now=now, draft_id=draft_id, attempt_id=asked.attempt_id)
