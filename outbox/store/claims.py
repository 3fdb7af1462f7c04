"""Claim, enter the gap, complete, fail, defer: the worker's verbs.

The thermal cutout is counted here, in the transaction that claims: a transmission is a gap entered within the window,
or an open claim of a worker that has not ended. Exact, shared by all workers, and not forgotten at a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    TextClause,
    Update,
    bindparam,
    exists,
    insert,
    not_,
    select,
    text,
    true,
    update,
)

from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, StateRefused
from outbox.core.lifecycle import Gate, Outcome, Phase, State, Verb
from outbox.store.dialect import insert_or_ignore
from outbox.store.heat import Headroom, Heat
from outbox.store.journal import Fact, detail_text
from outbox.store.pause import unpaused
from outbox.store.prepared import Given, Prepared, PreparedChange
from outbox.store.presence import present
from outbox.store.schema import attempts, drafts, gate, grants, recipients, workers
from outbox.store.transition import LostRace, move, move_many
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

    @property
    def columns(self) -> tuple[str, int | None, str | None, str, str | None]:
        """As they are stored, in the order of `_CLOSING`."""
        return self.outcome.value, self.code, self.enhanced, self.text, self.queue_id


# Literal, not bound, so that SQLite sees that the partial indexes apply.
_OF_GATE: dict[str, TextClause] = {
    Gate.MAIL: text("drafts.state = 'approved' AND drafts.kind <> 'system'"),
    Gate.SYSTEM: text("drafts.state = 'approved' AND drafts.kind = 'system'"),
}


def _enter(given: Given) -> Update:
    may_be_sent = exists().where(
        drafts.c.id == given["draft"],
        drafts.c.state == State.EXECUTING.value,
        drafts.c.attempt_id == given["claim"],
        drafts.c.stop_asked_at.is_(None),
        drafts.c.expires_at > given["at"],
    )
    lives = exists().where(workers.c.id == attempts.c.worker_id, workers.c.ended_at.is_(None))
    spent = exists().where(grants.c.draft_id == given["draft"], grants.c.expires_at <= given["at"])
    return (
        update(attempts)
        .where(attempts.c.id == given["claim"], attempts.c.phase == Phase.CLAIMED.value)
        .where(may_be_sent, lives, not_(spent), unpaused())
        .values(phase=Phase.GAP.value, gap_at=given["at"], wire_digest=given["wire"])
    )


_CLOSING = ("outcome", "code", "enhanced", "text", "queue_id", "ended_at")


def _close(given: Given) -> Update:
    values = {name: given[f"new_{name}"] for name in _CLOSING}
    return update(attempts).where(attempts.c.id == given["attempt"]).values(phase=Phase.DONE.value, **values)


_BEGIN = PreparedChange(insert(attempts), "id", "draft_id", "worker_id", "gate", "phase", "started_at")
_ENTER = PreparedChange(_enter, "claim", "draft", "at", "wire")
_CLOSED = ("attempt", *(f"new_{name}" for name in _CLOSING))
_FINISH = PreparedChange(lambda given: _close(given).where(attempts.c.phase != Phase.DONE.value), *_CLOSED)
_FINISH_UNSENT = PreparedChange(lambda given: _close(given).where(attempts.c.phase == Phase.CLAIMED.value), *_CLOSED)
# Of one that was named twice: what the relay said first.
_HEAR = PreparedChange(insert_or_ignore(recipients), "attempt_id", "address", "code", "text")


def _oldest_due(gate_name: str) -> Select[str]:
    """The drafts to claim first. One with an attempt that may be sending it was set back by hand, and is left alone."""
    now: BindParameter[int] = bindparam("now")
    spent = exists().where(grants.c.draft_id == drafts.c.id, grants.c.expires_at <= now)
    held = exists().where(attempts.c.draft_id == drafts.c.id, text("attempts.phase <> 'done'"))
    return (
        select(drafts.c.id)
        .where(_OF_GATE[gate_name], drafts.c.not_before <= now, drafts.c.expires_at > now, not_(spent), not_(held))
        .order_by(drafts.c.not_before)
        .limit(bindparam("most"))
    )


_DUE = {name: Prepared(_oldest_due(name), "now", "most") for name in Gate}
_CLAIMABLE = {
    name: Prepared(_oldest_due(name).where(unpaused()).with_for_update(skip_locked=True, of=drafts), "now", "most")
    for name in Gate
}
_HOLD_GATE = Prepared(
    select(gate.c.until, gate.c.claims).where(gate.c.name == bindparam("gate")).with_for_update(), "gate"
)


def is_due(connection: Connection, gate_name: str, *, now: int) -> bool:
    """Whether a claim would find a draft, so that an idle worker writes nothing."""
    return _DUE[Gate(gate_name)].scalar(connection, now, 1) is not None


def claim_if_cool(
    tx: Transaction,
    heat: Heat,
    *,
    worker_id: str,
    attempt_ids: Sequence[str],
    now: int,
    headroom: Headroom | None = None,
) -> tuple[list[Claim], Tripped | None]:
    """Claim what was approved first, a draft for each id at most, as far as drafts are due and the gate has places.

    Tripped where the gate is open, or where a draft that is due finds no place.
    """
    tripped, places = _open_gate(tx, heat, len(attempt_ids), headroom or Headroom(), now)
    if tripped is not None:
        return [], tripped if is_due(tx.connection, heat.gate, now=now) else None
    due = _CLAIMABLE[Gate(heat.gate)].rows(tx.connection, now, min(len(attempt_ids), places))
    claims = [Claim(row.id, attempt_id, heat.gate) for row, attempt_id in zip(due, attempt_ids, strict=False)]
    if claims:
        held = [(claim.draft_id, claim.attempt_id) for claim in claims]
        move_many(tx, Verb.CLAIM, held, source=State.APPROVED, now=now)
        begun = [(one.attempt_id, one.draft_id, worker_id, heat.gate, Phase.CLAIMED.value, now) for one in claims]
        _BEGIN.many(tx.connection, begun)
    if places == len(claims) < len(attempt_ids) and is_due(tx.connection, heat.gate, now=now):
        tripped = _trip(tx, heat, now)
    return claims, tripped


def _open_gate(tx: Transaction, heat: Heat, wanted: int, headroom: Headroom, now: int) -> tuple[Tripped | None, int]:
    """Whether the cutout keeps everything waiting, and how many places there are."""
    row = _HOLD_GATE.rows(tx.connection, heat.gate)[0]
    until, claims = row.until, row.claims
    places = headroom.places(tx.connection, heat, wanted, claims=claims, undone=tx.undone, now=now)
    if until is not None and (now < until or not places):
        return Tripped(until, newly=False), 0
    if until is not None:
        _set_gate(tx, heat, now=now, until=None)
    elif not places:
        return (_trip(tx, heat, now) if is_due(tx.connection, heat.gate, now=now) else Tripped(now, newly=False)), 0
    return None, places


def _trip(tx: Transaction, heat: Heat, now: int) -> Tripped:
    until = now + heat.cooldown * MICROSECONDS
    _set_gate(tx, heat, now=now, until=until)
    return Tripped(until, newly=True)


def _set_gate(tx: Transaction, heat: Heat, *, now: int, until: int | None) -> None:
    tripped_at = None if until is None else now
    tx.connection.execute(update(gate).where(gate.c.name == heat.gate).values(tripped_at=tripped_at, until=until))
    tx.journal("cool" if until is None else "trip", now=now, detail={"gate": heat.gate, "until": until})


def enter_gaps_if_held(tx: Transaction, entering: Sequence[tuple[Claim, bytes]], *, now: int) -> None:
    """The last step before the final dot, for claims and the digests of what is on the wire: all of them or none.

    Raises LostRace unless each attempt is at claimed and holds its draft, nobody asked to stop, paused or took its
    worker for dead, and neither a draft nor a grant is past its time.
    """
    parameters = [(claim.attempt_id, claim.draft_id, now, wire_digest) for claim, wire_digest in entering]
    if _ENTER.many(tx.connection, parameters) != len(parameters):
        named = f"draft {entering[0][0].draft_id}" if len(entering) == 1 else "a draft"
        raise LostRace(
            Code.STATE_CONFLICT, f"{named} was stopped or paused, ran out of time or is held by another attempt"
        )
    tx.journal_many(
        [
            Fact("gap", claim.draft_id, claim.attempt_id, f'{{"wire_digest":"{wire_digest.hex()}"}}')
            for claim, wire_digest in entering
        ],
        now=now,
    )


def finish_if_unsent(tx: Transaction, claim: Claim, report: Report, *, now: int) -> None:
    """Close an attempt that provably sent nothing. Raises LostRace where it has entered the gap meanwhile."""
    _finish(tx, _FINISH_UNSENT, [(claim, report)], now)


def finish_if_open(tx: Transaction, ended: Sequence[tuple[Claim, Report]], *, now: int) -> None:
    """Close attempts with their outcomes, all of them or none. Raises LostRace where one is done already."""
    _finish(tx, _FINISH, ended, now)


def _finish(tx: Transaction, statement: PreparedChange, ended: Sequence[tuple[Claim, Report]], now: int) -> None:
    parameters = [(claim.attempt_id, *report.columns, now) for claim, report in ended]
    if statement.many(tx.connection, parameters) != len(parameters):
        named = f"attempt {ended[0][0].attempt_id}" if len(ended) == 1 else "an attempt"
        raise LostRace(Code.STATE_CONFLICT, f"{named} went on or is done already")
    heard = [(claim.attempt_id, *one) for claim, report in ended for one in report.heard]
    if heard:
        _HEAR.many(tx.connection, heard)
    tx.journal_many([_done(claim, report) for claim, report in ended], now=now)


def _done(claim: Claim, report: Report) -> Fact:
    detail = {"outcome": report.outcome.value, "code": report.code, "queue_id": report.queue_id}
    return Fact("done", claim.draft_id, claim.attempt_id, detail_text(detail))


def complete_if_held(tx: Transaction, claims: Sequence[Claim], *, now: int) -> None:
    """The relay took them."""
    held = [(claim.draft_id, claim.attempt_id) for claim in claims]
    move_many(tx, Verb.COMPLETE, held, source=State.EXECUTING, now=now)


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


def insert_worker(
    tx: Transaction,
    worker_id: str,
    *,
    host: str,
    pid: int,
    now: int,
    ledger: str | None = None,
    visible: bool = False,
) -> None:
    """Register a worker as it starts; on a server, with the name of its ledger, and whether it holds a lock there."""
    tx.connection.execute(
        insert(workers).values(id=worker_id, host=host, pid=pid, started_at=now, ledger=ledger, visible=int(visible))
    )
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


def end_absent_worker(tx: Transaction, worker_id: str, *, now: int) -> None:
    """End a worker whose lock nobody holds. Raises LostRace where it is held again, StateRefused where it has ended."""
    end_worker_once(tx, worker_id, now=now)  # its row is held from here on: see Presence
    if present(tx.connection, [worker_id]):
        raise LostRace(Code.STATE_CONFLICT, f"worker {worker_id} is there again")
