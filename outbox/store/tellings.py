"""What approvers who were asked are still to be told: one reminder while it waits, one end."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select, text, true, update

from outbox.core.errors import Code
from outbox.core.grant import Request
from outbox.core.lifecycle import FINAL, Outcome, Phase, State
from outbox.core.signed import SignedDraft
from outbox.store.notices import insert_system
from outbox.store.schema import attempts, drafts, requests, tellings
from outbox.store.transition import LostRace
from outbox.store.writer import Transaction

MOST_AT_ONCE = 100
_ENDED = [state.value for state in State if state in FINAL]


@dataclass(frozen=True, slots=True)
class Telling:
    """One approver who is to hear of one draft. `carrier_id` is the system draft that first asked him."""

    request: Request
    carrier_id: str
    asked_at: int
    state: State
    stop_asked: bool


def due_endings(connection: Connection) -> list[Telling]:
    """Drafts that have ended, or are in doubt, and whose approvers do not know it yet."""
    in_doubt = exists().where(
        attempts.c.draft_id == drafts.c.id,
        attempts.c.phase == Phase.DONE.value,
        attempts.c.outcome == Outcome.IN_DOUBT.value,
    )
    ended = or_(drafts.c.state.in_(_ENDED), and_(drafts.c.state == State.EXECUTING.value, in_doubt))
    return _open(connection, ended)


def due_reminders(connection: Connection, *, now: int, shortest: int) -> list[Telling]:
    """Pending drafts that were asked about, three quarters of whose time is over; not where all of it is `shortest`."""
    lifetime = drafts.c.expires_at - requests.c.created_at
    due = and_(
        drafts.c.state == State.PENDING.value,
        tellings.c.reminded_at.is_(None),
        requests.c.spent_at.is_(None),
        lifetime >= shortest,
        drafts.c.expires_at > now,
        (drafts.c.expires_at - now) * 4 <= lifetime,
    )
    return _open(connection, due)


def _open(connection: Connection, condition: ColumnElement[bool]) -> list[Telling]:
    rows = connection.execute(
        select(requests, drafts.c.state, drafts.c.stop_asked_at)
        .select_from(tellings.join(requests, requests.c.id == tellings.c.request_id))
        .join(drafts, drafts.c.id == tellings.c.draft_id)
        .where(text("tellings.told_at IS NULL"), condition)
        .order_by(tellings.c.draft_id, tellings.c.approver)
        .limit(MOST_AT_ONCE)
    ).all()
    return [
        Telling(
            Request(row.id, row.draft_id, row.digest, row.approver, row.expires_at),
            row.carrier_id,
            row.created_at,
            State(row.state),
            row.stop_asked_at is not None,
        )
        for row in rows
    ]


def tell_ending_once(tx: Transaction, request: Request, notice: SignedDraft | None, *, now: int) -> None:
    """Note that an approver knows how it ended, with the notice that tells him. Raises LostRace where he does."""
    _note_once(tx, request, notice, now=now, column="told_at")


def note_told(tx: Transaction, request: Request, *, now: int) -> None:
    """An answer of ours says how it ended; no other mail need. Nothing happens where he was told before."""
    tx.connection.execute(
        update(tellings)
        .where(
            tellings.c.draft_id == request.draft_id,
            tellings.c.approver == request.approver,
            tellings.c.told_at.is_(None),
        )
        .values(told_at=now)
    )


def remind_once(tx: Transaction, request: Request, notice: SignedDraft | None, *, now: int) -> None:
    """Insert the one reminder, or note that there is none. Raises LostRace after the first, and after the verdict."""
    pending = exists().where(drafts.c.id == request.draft_id, drafts.c.state == State.PENDING.value)
    _note_once(tx, request, notice, now=now, column="reminded_at", guard=pending)


def _note_once(
    tx: Transaction,
    request: Request,
    notice: SignedDraft | None,
    *,
    now: int,
    column: str,
    guard: ColumnElement[bool] | None = None,
) -> None:
    noted = tx.connection.execute(
        update(tellings)
        .where(
            tellings.c.draft_id == request.draft_id,
            tellings.c.approver == request.approver,
            tellings.c[column].is_(None),
            true() if guard is None else guard,
        )
        .values({column: now})
        .returning(tellings.c.draft_id)
    ).one_or_none()
    if noted is None:
        raise LostRace(Code.STATE_CONFLICT, f"{request.approver} was told about draft {request.draft_id} before")
    if notice is not None:
        insert_system(tx, notice, now=now)
