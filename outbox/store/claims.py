"""Claim, enter the gap, complete, fail, defer: the worker's verbs.

The thermal cutout is counted here, in the transaction that claims: a transmission is a gap entered within the window,
or an open claim of a worker that has not ended. Exact, shared by all workers, and not forgotten at a restart.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    TextClause,
    and_,
    exists,
    insert,
    not_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.sqlite import insert as insert_or_not

from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, StateRefused
from outbox.core.lifecycle import Gate, Outcome, Phase, State, Verb
from outbox.store.heat import Heat, used
from outbox.store.pause import unpaused
from outbox.store.schema import attempts, drafts, gate, grants, recipients, workers
from outbox.store.transition import LostRace, move
from outbox.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class Claim:
    """A draft held by an attempt: from here on its id is the fencing token."""

    draft_id: str
    attempt_id: str
    gate: str

    @property
    def is_system(self) -> bool:
        """Whether it is mail of the outbox's own, by the gate that let it through."""
        return self.gate == Gate.SYSTEM


@dataclass(frozen=True, slots=True)
class Tripped:
    """The thermal cutout is open until `until` at least; `newly` on the claim that tripped it."""

    until: int
    newly: bool


@dataclass(frozen=True, slots=True)
class Report:
    """How an attempt ended, as it is stored. `heard` is the relay's last reply, per recipient where it differed."""

    outcome: Outcome
    code: int | None
    enhanced: str | None
    text: str
    queue_id: str | None = None
    heard: tuple[tuple[str, int, str], ...] = ()


# Literal, not bound, so that SQLite sees that the partial indexes apply.
_OF_GATE: dict[str, TextClause] = {
    Gate.MAIL: text("drafts.state = 'approved' AND drafts.kind <> 'system'"),
    Gate.SYSTEM: text("drafts.state = 'approved' AND drafts.kind = 'system'"),
}


def _oldest_due(gate_name: str, now: int) -> Select[tuple[str]]:
    """The draft to claim first. One with an attempt that may be sending it was set back by hand, and is left alone."""
    spent = exists().where(grants.c.draft_id == drafts.c.id, grants.c.expires_at <= now)
    held = exists().where(attempts.c.draft_id == drafts.c.id, text("attempts.phase <> 'done'"))
    return (
        select(drafts.c.id)
        .where(_OF_GATE[gate_name], drafts.c.not_before <= now, drafts.c.expires_at > now, not_(spent), not_(held))
        .order_by(drafts.c.not_before)
        .limit(1)
    )


def is_due(connection: Connection, gate_name: str, *, now: int) -> bool:
    """Whether a claim would find a draft, so that an idle worker writes nothing."""
    return connection.execute(_oldest_due(gate_name, now)).first() is not None


def claim_if_cool(tx: Transaction, heat: Heat, *, worker_id: str, attempt_id: str, now: int) -> Claim | Tripped | None:
    """Claim the draft that was approved first, if one is due and the gate has a place; None where nothing is due."""
    tripped = _open_gate(tx, heat, now)
    if tripped is not None:
        return tripped if is_due(tx.connection, heat.gate, now=now) else None
    try:
        draft_id = move(
            tx,
            Verb.CLAIM,
            _oldest_due(heat.gate, now).scalar_subquery(),
            source=State.APPROVED,
            now=now,
            guards=(unpaused(),),
            attempt_id=attempt_id,
        )
    except LostRace:
        return None
    tx.connection.execute(
        insert(attempts).values(
            id=attempt_id,
            draft_id=draft_id,
            worker_id=worker_id,
            gate=heat.gate,
            phase=Phase.CLAIMED.value,
            started_at=now,
        )
    )
    return Claim(draft_id, attempt_id, heat.gate)


def _open_gate(tx: Transaction, heat: Heat, now: int) -> Tripped | None:
    until = tx.connection.execute(select(gate.c.until).where(gate.c.name == heat.gate)).scalar_one()
    has_place = used(tx.connection, heat, now=now) < heat.count
    if until is not None and (now < until or not has_place):
        return Tripped(until, newly=False)
    if until is not None:
        _set_gate(tx, heat, now=now, until=None)
    elif not has_place and is_due(tx.connection, heat.gate, now=now):
        until = now + heat.cooldown * MICROSECONDS
        _set_gate(tx, heat, now=now, until=until)
        return Tripped(until, newly=True)
    return None if has_place else Tripped(now, newly=False)


def _set_gate(tx: Transaction, heat: Heat, *, now: int, until: int | None) -> None:
    tripped_at = None if until is None else now
    tx.connection.execute(update(gate).where(gate.c.name == heat.gate).values(tripped_at=tripped_at, until=until))
    tx.journal("cool" if until is None else "trip", now=now, detail={"gate": heat.gate, "until": until})


def enter_gap_if_held(tx: Transaction, claim: Claim, *, wire_digest: bytes, now: int) -> None:
    """The last step before the final dot. Raises LostRace where the draft may not be sent any more.

    It may be where this attempt is at claimed and holds the draft, nobody asked to stop or paused, and neither the
    draft nor a grant is past its time.
    """
    may_be_sent = exists().where(
        drafts.c.id == claim.draft_id,
        drafts.c.state == State.EXECUTING.value,
        drafts.c.attempt_id == claim.attempt_id,
        drafts.c.stop_asked_at.is_(None),
        drafts.c.expires_at > now,
    )
    spent = exists().where(grants.c.draft_id == claim.draft_id, grants.c.expires_at <= now)
    entered = tx.connection.execute(
        update(attempts)
        .where(
            attempts.c.id == claim.attempt_id,
            attempts.c.phase == Phase.CLAIMED.value,
            and_(may_be_sent, not_(spent), unpaused()),
        )
        .values(phase=Phase.GAP.value, gap_at=now, wire_digest=wire_digest)
        .returning(attempts.c.id)
    ).one_or_none()
    if entered is None:
        raise LostRace(
            Code.STATE_CONFLICT,
            f"draft {claim.draft_id} was stopped or paused, ran out of time or is held by another attempt",
        )
    tx.journal(
        "gap",
        now=now,
        draft_id=claim.draft_id,
        attempt_id=claim.attempt_id,
        detail={"wire_digest": wire_digest.hex()},
    )


def finish_if_unsent(tx: Transaction, claim: Claim, report: Report, *, now: int) -> None:
    """Close an attempt that provably sent nothing. Raises LostRace where it has entered the gap meanwhile."""
    _finish(tx, claim, report, attempts.c.phase == Phase.CLAIMED.value, now=now)


def finish_if_open(tx: Transaction, claim: Claim, report: Report, *, now: int) -> None:
    """Close the attempt with its outcome. Raises LostRace where it is done already."""
    _finish(tx, claim, report, attempts.c.phase != Phase.DONE.value, now=now)


def _finish(tx: Transaction, claim: Claim, report: Report, guard: ColumnElement[bool], *, now: int) -> None:
    finished = tx.connection.execute(
        update(attempts)
        .where(attempts.c.id == claim.attempt_id, guard)
        .values(
            phase=Phase.DONE.value,
            outcome=report.outcome.value,
            code=report.code,
            enhanced=report.enhanced,
            text=report.text,
            queue_id=report.queue_id,
            ended_at=now,
        )
        .returning(attempts.c.id)
    ).one_or_none()
    if finished is None:
        raise LostRace(Code.STATE_CONFLICT, f"attempt {claim.attempt_id} went on or is done already")
    for address, code, heard in report.heard:
        tx.connection.execute(
            insert_or_not(recipients)
            .values(attempt_id=claim.attempt_id, address=address, code=code, text=heard)
            .on_conflict_do_nothing()  # one that was named twice: what the relay said first
        )
    tx.journal(
        "done",
        now=now,
        draft_id=claim.draft_id,
        attempt_id=claim.attempt_id,
        detail={"outcome": report.outcome.value, "code": report.code, "queue_id": report.queue_id},
    )


def complete_if_held(tx: Transaction, claim: Claim, *, now: int) -> None:
    """The relay took it."""
    move(tx, Verb.COMPLETE, claim.draft_id, source=State.EXECUTING, holder=claim.attempt_id, now=now)


def fail_if_held(tx: Transaction, claim: Claim, *, code: Code, message: str, now: int) -> None:
    """It will never be sent."""
    move(
        tx,
        Verb.FAIL,
        claim.draft_id,
        source=State.EXECUTING,
        holder=claim.attempt_id,
        now=now,
        error=(code, message),
    )


def refuse_if_held(tx: Transaction, claim: Claim, *, message: str, now: int) -> None:
    """A kind that nobody may delegate."""
    move(
        tx,
        Verb.REFUSE,
        claim.draft_id,
        source=State.EXECUTING,
        holder=claim.attempt_id,
        now=now,
        error=(Code.NON_DELEGABLE_KIND, message),
    )


def cancel_if_stopped(tx: Transaction, claim: Claim, *, now: int) -> bool:
    """Cancel what ended unsent after a stop was asked for; whether it was."""
    with suppress(LostRace):
        move(
            tx,
            Verb.CANCEL,
            claim.draft_id,
            source=State.EXECUTING,
            holder=claim.attempt_id,
            now=now,
            guards=(drafts.c.stop_asked_at.is_not(None),),
            error=(Code.STOPPED, "stopped before it was sent"),
        )
        return True
    return False


def release_if_held(tx: Transaction, claim: Claim, *, not_before: int, now: int, may_expire: bool = True) -> State:
    """Let go of what provably was not sent: back to approved, or to where a stop or its time puts it.

    A clock that is not believed ends nothing (`may_expire`): the claim looks at the time again.
    """
    draft_id, holder = claim.draft_id, claim.attempt_id
    unstopped, alive = drafts.c.stop_asked_at.is_(None), drafts.c.expires_at > now if may_expire else true()
    with suppress(LostRace):
        move(
            tx,
            Verb.DEFER,
            draft_id,
            source=State.EXECUTING,
            holder=holder,
            now=now,
            guards=(unstopped, alive),
            not_before=not_before,
            attempt_id=None,
        )
        return State.APPROVED
    if cancel_if_stopped(tx, claim, now=now):
        return State.CANCELLED
    late = (Code.EXPIRED, "its time passed before it was sent")
    move(tx, Verb.EXPIRE, draft_id, source=State.EXECUTING, holder=holder, now=now, error=late)
    return State.EXPIRED


def insert_worker(tx: Transaction, worker_id: str, *, host: str, pid: int, now: int) -> None:
    """Register a worker as it starts."""
    tx.connection.execute(insert(workers).values(id=worker_id, host=host, pid=pid, started_at=now))
    tx.journal("start", now=now, detail={"worker": worker_id, "host": host, "pid": pid})


def end_worker_once(tx: Transaction, worker_id: str, *, now: int) -> None:
    """Record that a worker stopped, or was found dead. Raises StateRefused where that is known."""
    ended = tx.connection.execute(
        update(workers)
        .where(workers.c.id == worker_id, workers.c.ended_at.is_(None))
        .values(ended_at=now)
        .returning(workers.c.id)
    ).one_or_none()
    if ended is None:
        raise StateRefused(Code.STATE_CONFLICT, f"worker {worker_id} has ended already")
    tx.journal("end", now=now, detail={"worker": worker_id})
