"""The one compare-and-set that every transition goes through."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sqlalchemy import ColumnElement, ScalarSelect, Update, update

from outbox.core.errors import Code, StateRefused
from outbox.core.lifecycle import State, Verb, edge_from
from outbox.store.journal import Fact, detail_text
from outbox.store.prepared import Given, PreparedChange
from outbox.store.schema import drafts
from outbox.store.writer import Transaction


class LostRace(StateRefused):
    """The draft was not where this transition starts; another was first. Nothing was changed."""


def move(
    tx: Transaction,
    verb: Verb,
    draft: str | ScalarSelect[str],
    *,
    source: State,
    now: int,
    holder: str | None = None,
    guards: tuple[ColumnElement[bool], ...] = (),
    error: tuple[Code, str] | None = None,
    **changes: object,
) -> str:
    """Move one draft along the edge (source, verb), journalled; returns its id.

    `draft` is an id or a subquery for one; `holder` is the attempt that must hold it (needed once it is executing).
    Raises LostRace where any guard does not hold.
    """
    edge = edge_from(source, verb)
    _refuse_stranger(tx, source, verb)
    if source is State.EXECUTING and holder is None:
        raise AssertionError("from the claim on, a transition names its attempt")
    values = {"state": edge.target.value, **changes}
    if error is not None:
        values |= {"error_code": error[0].value, "error_message": error[1]}
    wanted = [drafts.c.id == draft, drafts.c.state == source.value, *guards]
    if holder is not None:
        wanted.append(drafts.c.attempt_id == holder)
    moved = tx.connection.execute(
        update(drafts).where(*wanted).values(values).returning(drafts.c.id, drafts.c.attempt_id)
    ).one_or_none()
    if moved is None:
        name = f"draft {draft}" if isinstance(draft, str) else "the draft"
        raise LostRace(
            Code.STATE_CONFLICT, f"{name} is not {source} any more, or its time is past; nothing was changed"
        )
    tx.journal(
        verb.value,
        now=now,
        draft_id=moved.id,
        attempt_id=holder or moved.attempt_id,
        detail={"from": source.value, "to": edge.target.value, "code": error[0].value if error else None},
    )
    return str(moved.id)


def move_many(tx: Transaction, verb: Verb, held: Sequence[tuple[str, str]], *, source: State, now: int) -> None:
    """Move many drafts, each named with its attempt, along the edge (source, verb), journalled: all of them or none.

    From approved the attempt becomes what holds the draft; from executing it has to be. Raises LostRace where any draft
    is not there.
    """
    _refuse_stranger(tx, source, verb)
    if _many(source, verb).many(tx.connection, held) != len(held):
        raise LostRace(Code.STATE_CONFLICT, f"a draft is not {source} any more, or its time is past")
    detail = detail_text({"from": source.value, "to": edge_from(source, verb).target.value, "code": None})
    tx.journal_many([Fact(verb.value, draft_id, attempt_id, detail) for draft_id, attempt_id in held], now=now)


@cache
def _many(source: State, verb: Verb) -> PreparedChange:
    target = edge_from(source, verb).target.value

    def moved(given: Given) -> Update:
        statement = update(drafts).where(drafts.c.id == given["draft"], drafts.c.state == source.value)
        if source is State.EXECUTING:
            return statement.where(drafts.c.attempt_id == given["attempt"]).values(state=target)
        return statement.values(state=target, attempt_id=given["attempt"])

    return PreparedChange(moved, "draft", "attempt")


def _refuse_stranger(tx: Transaction, source: State, verb: Verb) -> None:
    if tx.room not in edge_from(source, verb).rooms:
        raise AssertionError(f"the {tx.room} may not {verb} a draft that is {source}")
