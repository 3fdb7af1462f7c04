"""Settle what is left at executing, and fence a database that was restored: the operator's verbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, exists, insert, not_, select, text, update

from outbox.core.errors import Code, StateRefused
from outbox.core.evidence import Evidence
from outbox.core.lifecycle import Gate, Outcome, Phase, Settled, State, Verb
from outbox.store.evidence import insert_evidence
from outbox.store.schema import attempts, drafts, grants, settlements, workers
from outbox.store.transition import LostRace, move
from outbox.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a person decided about an attempt, who he was, and why."""

    settled_as: Settled
    by: str
    note: str


@dataclass(frozen=True, slots=True)
class SettlementView:
    """A settlement as it is stored, and when (microseconds UTC)."""

    settled_as: str
    by: str
    note: str
    at: int


@dataclass(frozen=True, slots=True)
class Gone:
    """What the ledger says of a draft: that this attempt may have sent it at `at`."""

    draft_id: str
    attempt_id: str
    wire_digest: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Held:
    """A draft at executing with the attempt that holds it; instants in microseconds UTC.

    Where the ledger was asked, `gone` is what it says of this attempt, and `is_heard_unsent` whether its worker heard
    that the relay did not take it.
    """

    draft_id: str
    kind: str
    expires_at: int
    attempt_id: str
    worker_id: str
    host: str
    pid: int
    worker_started_at: int
    worker_ended_at: int | None
    ledger: str | None
    visible: bool
    gate: str
    phase: str
    outcome: str | None
    code: int | None
    text: str | None
    queue_id: str | None
    wire_digest: bytes | None
    since: int
    gap_at: int | None
    gone: Gone | None = None
    is_heard_unsent: bool = False


def held(connection: Connection, draft_id: str | None = None) -> list[Held]:
    """What is at executing, the longest first; of one draft, where it is named."""
    query = (
        select(drafts.c.kind, drafts.c.expires_at, attempts, workers.c.host, workers.c.pid)
        .add_columns(workers.c.started_at.label("worker_started_at"), workers.c.ended_at.label("worker_ended_at"))
        .add_columns(workers.c.ledger, workers.c.visible)
        .select_from(drafts.join(attempts, attempts.c.id == drafts.c.attempt_id).join(workers))
        .where(drafts.c.id.in_(text("SELECT id FROM drafts WHERE state = 'executing'")))
        .order_by(attempts.c.started_at, attempts.c.id)
    )
    if draft_id is not None:
        query = query.where(drafts.c.id == draft_id)
    return [
        Held(
            draft_id=row.draft_id,
            kind=row.kind,
            expires_at=row.expires_at,
            attempt_id=row.id,
            worker_id=row.worker_id,
            host=row.host,
            pid=row.pid,
            worker_started_at=row.worker_started_at,
            worker_ended_at=row.worker_ended_at,
            ledger=row.ledger,
            visible=bool(row.visible),
            gate=row.gate,
            phase=row.phase,
            outcome=row.outcome,
            code=row.code,
            text=row.text,
            queue_id=row.queue_id,
            wire_digest=row.wire_digest,
            since=row.started_at,
            gap_at=row.gap_at,
        )
        for row in connection.execute(query).all()
    ]


def newest_settlements(connection: Connection, draft_ids: Sequence[str]) -> dict[str, SettlementView]:
    """The newest settlement of each of these drafts that has one."""
    rows = connection.execute(
        select(settlements)
        .where(settlements.c.draft_id.in_(draft_ids))
        .order_by(settlements.c.at, settlements.c.attempt_id)
    )
    return {row.draft_id: SettlementView(row.settled_as, row.settled_by, row.note, row.at) for row in rows}


def settle_sent_if_held(tx: Transaction, row: Held, settlement: Settlement, *, now: int) -> None:
    """It left: the draft is completed. Raises LostRace where its attempt does not hold it any more."""
    _settle(tx, row, settlement, now=now)
    move(tx, Verb.COMPLETE, row.draft_id, source=State.EXECUTING, holder=row.attempt_id, now=now)


def settle_not_sent_if_held(tx: Transaction, row: Held, settlement: Settlement, *, now: int) -> None:
    """It did not leave, in the operator's judgement: the draft has failed, and is not sent again."""
    _settle(tx, row, settlement, now=now)
    why = f"settled as not sent by {settlement.by}: {settlement.note}"
    move(
        tx,
        Verb.SETTLE,
        row.draft_id,
        source=State.EXECUTING,
        holder=row.attempt_id,
        now=now,
        error=(Code.SETTLED, why),
    )


def release_if_unsent(tx: Transaction, row: Held, settlement: Settlement, *, now: int) -> None:
    """It provably did not leave and is approved again. Raises LostRace where it was stopped or its time is past."""
    _settle(tx, row, settlement, now=now)
    move(
        tx,
        Verb.DEFER,
        row.draft_id,
        source=State.EXECUTING,
        holder=row.attempt_id,
        now=now,
        guards=(
            drafts.c.stop_asked_at.is_(None),
            drafts.c.expires_at > now,
            not_(exists().where(grants.c.draft_id == drafts.c.id, grants.c.expires_at <= now)),
        ),
        not_before=now,
        attempt_id=None,
    )


def _settle(tx: Transaction, row: Held, settlement: Settlement, *, now: int) -> None:
    """Close the attempt where it is open, and say who decided what."""
    if row.phase == Phase.CLAIMED.value and settlement.settled_as is Settled.SENT:
        gone = row.gone or Gone(row.draft_id, row.attempt_id, bytes(32), now)
        _enter(tx, row.attempt_id, gone, f"settled as sent: {settlement.note}", now=now)
        row = replace(row, phase=Phase.GAP.value)
    if row.phase != Phase.DONE.value:
        is_unsent = row.is_heard_unsent and settlement.settled_as is Settled.RELEASED
        is_doubtful = row.phase == Phase.GAP.value and not is_unsent
        outcome = Outcome.IN_DOUBT if is_doubtful else Outcome.NOT_SENT
        _close(tx, (row.draft_id, row.attempt_id), row.phase, outcome, f"settled by {settlement.by}", now=now)
    tx.connection.execute(
        insert(settlements).values(
            attempt_id=row.attempt_id,
            draft_id=row.draft_id,
            settled_as=settlement.settled_as.value,
            settled_by=settlement.by,
            note=settlement.note,
            at=now,
        )
    )
    tx.journal(
        "settlement",
        now=now,
        draft_id=row.draft_id,
        attempt_id=row.attempt_id,
        detail={"as": settlement.settled_as.value, "by": settlement.by, "note": settlement.note},
    )


def _close(tx: Transaction, held_by: tuple[str, str], phase: str, outcome: Outcome, words: str, *, now: int) -> None:
    draft_id, attempt_id = held_by
    closed = tx.connection.execute(
        update(attempts)
        .where(attempts.c.id == attempt_id, attempts.c.phase == phase)
        .values(phase=Phase.DONE.value, outcome=outcome.value, text=words, ended_at=now)
        .returning(attempts.c.id)
    ).one_or_none()
    if closed is None:
        raise LostRace(Code.STATE_CONFLICT, f"attempt {attempt_id} is not at {phase} any more; nothing was changed")
    tx.journal(
        "done", now=now, draft_id=draft_id, attempt_id=attempt_id, detail={"outcome": outcome.value, "code": None}
    )


_WORDS = "the database was restored after it may have been sent"


def doubt_open(tx: Transaction, row: Held, *, gone: Gone | None, now: int) -> None:
    """Put an attempt that is open in doubt: the ledger says so, or nothing can be said of it."""
    if row.phase == Phase.CLAIMED.value:
        why = (
            "it has this attempt in the gap" if gone else "it is lost, and whether this attempt was in the gap with it"
        )
        _enter(tx, row.attempt_id, gone or Gone(row.draft_id, row.attempt_id, bytes(32), now), why, now=now)
    _close(tx, (row.draft_id, row.attempt_id), Phase.GAP.value, Outcome.IN_DOUBT, _WORDS, now=now)


def doubt_approved(tx: Transaction, gone: Gone, *, worker_id: str, now: int) -> None:
    """Put an approved draft that the ledger has at executing, in doubt. Raises LostRace where it is not approved."""
    move(tx, Verb.CLAIM, gone.draft_id, source=State.APPROVED, now=now, attempt_id=gone.attempt_id)
    tx.connection.execute(
        insert(attempts).values(
            id=gone.attempt_id,
            draft_id=gone.draft_id,
            worker_id=worker_id,
            gate=Gate.MAIL.value,
            phase=Phase.CLAIMED.value,
            started_at=gone.at,
        )
    )
    _enter(tx, gone.attempt_id, gone, "it has this attempt in the gap", now=now)
    _close(tx, (gone.draft_id, gone.attempt_id), Phase.GAP.value, Outcome.IN_DOUBT, _WORDS, now=now)


def _enter(tx: Transaction, attempt_id: str, gone: Gone, why: str, *, now: int) -> None:
    """Write a gap down that was entered outside of this database; the evidence for it is what the guard asks for."""
    item = Evidence("ledger", None, why)
    where = {"draft_id": gone.draft_id, "attempt_id": attempt_id}
    insert_evidence(tx, item, evidence_id=f"{attempt_id}:ledger", now=now, **where)
    tx.connection.execute(
        update(attempts)
        .where(attempts.c.id == attempt_id, attempts.c.phase == Phase.CLAIMED.value)
        .values(phase=Phase.GAP.value, gap_at=gone.at, wire_digest=gone.wire_digest)
    )
    tx.journal("gap", now=now, draft_id=gone.draft_id, attempt_id=attempt_id, detail={"of": "ledger"})


def give_up_system(tx: Transaction, row: Held, *, now: int) -> None:
    """Mail of the outbox's own never waits for a person: in doubt, it ends in failed."""
    error = (Code.IN_DOUBT, _WORDS)
    move(tx, Verb.SETTLE, row.draft_id, source=State.EXECUTING, holder=row.attempt_id, now=now, error=error)


def cancel_restored(tx: Transaction, draft_id: str, state: State, why: str, *, now: int) -> None:
    """Cancel what waited in a database that was restored: what became of it afterwards is not known here."""
    move(tx, Verb.CANCEL, draft_id, source=state, now=now, error=(Code.RESTORED, why))


def waiting(connection: Connection) -> list[tuple[str, str, State]]:
    """Id, kind and state of every draft that is pending or approved, the outbox's own too."""
    query = select(drafts.c.id, drafts.c.kind, drafts.c.state).where(text("drafts.state IN ('pending', 'approved')"))
    return sorted((row.id, row.kind, State(row.state)) for row in connection.execute(query))


def refuse_unexecuting(draft_id: str) -> StateRefused:
    """The error for a draft that is not at executing."""
    return StateRefused(Code.STATE_CONFLICT, f"draft {draft_id} is not executing; there is nothing to settle")


def insert_fence(
    tx: Transaction, *, worker_id: str, host: str, pid: int, ledger: str | None, by: str, note: str, now: int
) -> None:
    """Journal an acceptance, with a worker of that name: what it writes down of the ledger belongs to it.

    `ledger` is that ledger's name on a server, None in a file.
    """
    tx.connection.execute(
        insert(workers).values(id=worker_id, host=host, pid=pid, started_at=now, ended_at=now, ledger=ledger)
    )
    tx.journal("fence", now=now, detail={"by": by, "note": note})
