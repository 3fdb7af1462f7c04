"""Record replies, and carry verdicts out: the verbs of whoever answers for an approver."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from outbox.core.errors import Code, DraftUnknown, StateRefused
from outbox.core.grant import Channel, Grant
from outbox.core.lifecycle import State, Verb
from outbox.core.signing import Signature
from outbox.store.schema import drafts, grants, rejections, replies, requests
from outbox.store.transition import move
from outbox.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class ReplyRecord:
    """One message that carried a token of ours, and what became of it. `digest` is of its raw octets."""

    id: str
    mailbox: str
    uid: str
    digest: bytes
    received_at: int
    sender: str
    message_id: str
    draft_id: str | None
    verdict: str
    counted: bool
    why: str
    answer_id: str | None = None


def insert_reply_once(tx: Transaction, record: ReplyRecord) -> None:
    """Record a reply under its mailbox's own name for it. The database refuses it twice."""
    tx.connection.execute(
        insert(replies).values(
            id=record.id,
            mailbox=record.mailbox,
            uid=record.uid,
            digest=record.digest,
            received_at=record.received_at,
            sender=record.sender,
            message_id=record.message_id,
            draft_id=record.draft_id,
            verdict=record.verdict,
            counted=int(record.counted),
            why=record.why,
            answer_id=record.answer_id,
        )
    )
    tx.journal(
        "reply",
        now=record.received_at,
        draft_id=record.draft_id,
        detail={"reply": record.id, "verdict": record.verdict, "counted": int(record.counted), "why": record.why},
    )


def approve_if_pending(tx: Transaction, grant: Grant, signature: Signature, *, now: int) -> None:
    """Insert a grant and move its draft to approved. Raises StateRefused unless it is pending and unexpired."""
    refuse_unless_pending(tx, grant.draft_id)
    tx.connection.execute(
        insert(grants).values(
            id=grant.id,
            draft_id=grant.draft_id,
            digest=grant.digest,
            approver=grant.approver,
            channel=grant.channel.value,
            at=grant.at,
            expires_at=grant.expires_at,
            signature=signature.octets,
            key_id=signature.key_id,
        )
    )
    move(
        tx,
        Verb.APPROVE,
        grant.draft_id,
        source=State.PENDING,
        now=now,
        guards=(drafts.c.expires_at > now, drafts.c.digest == grant.digest),
        not_before=now,
    )
    tx.journal(
        "grant",
        now=now,
        draft_id=grant.draft_id,
        detail={"grant": grant.id, "approver": grant.approver, "channel": grant.channel.value},
    )


def refuse_unless_pending(tx: Transaction, draft_id: str) -> None:
    """Say in words what the guards would refuse: the move that follows is what decides."""
    state = tx.connection.execute(select(drafts.c.state).where(drafts.c.id == draft_id)).scalar_one_or_none()
    if state is None:
        raise DraftUnknown(Code.DRAFT_UNKNOWN, f"there is no draft {draft_id}")
    if state != State.PENDING:
        raise StateRefused(Code.STATE_CONFLICT, f"draft {draft_id} is {state} already; nothing was changed")


def spend_request_once(tx: Transaction, request_id: bytes, *, now: int) -> None:
    """Spend a reply token for approving. Raises StateRefused where it was spent."""
    spent = tx.connection.execute(
        update(requests)
        .where(requests.c.id == request_id, requests.c.spent_at.is_(None))
        .values(spent_at=now)
        .returning(requests.c.draft_id)
    ).one_or_none()
    if spent is None:
        raise StateRefused(Code.STATE_CONFLICT, "this request was answered with an approval already")


def reject_if_pending(
    tx: Transaction, draft_id: str, *, approver: str, channel: Channel, reason: str, now: int
) -> None:
    """Reject a pending draft, with the reason that its agent will read. Raises StateRefused where it is not pending."""
    refuse_unless_pending(tx, draft_id)
    tx.connection.execute(
        insert(rejections).values(draft_id=draft_id, approver=approver, channel=channel.value, reason=reason, at=now)
    )
    move(tx, Verb.REJECT, draft_id, source=State.PENDING, now=now)


def fail_pending(tx: Transaction, draft_id: str, *, code: Code, message: str, now: int) -> None:
    """Fail a pending draft whose octets are not what its digest says. Raises LostRace where it is not pending."""
    move(tx, Verb.FAIL, draft_id, source=State.PENDING, now=now, error=(code, message))
