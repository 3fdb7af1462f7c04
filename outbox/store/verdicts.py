"""Record replies, and carry verdicts out: the verbs of whoever answers for an approver."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, and_, insert, not_, or_, select, text, update

from outbox.core.canonical import sha256
from outbox.core.errors import Code, DraftUnknown, StateRefused
from outbox.core.grant import Channel, Grant, Request
from outbox.core.lifecycle import State, Verb
from outbox.core.signing import Signature
from outbox.store.dialect import announce, insert_or_ignore
from outbox.store.schema import (
    codes,
    drafts,
    grants,
    proofs,
    rejections,
    replies,
    requests,
    seen_signatures,
    signed_replies,
    wrong_codes,
)
from outbox.store.transition import move
from outbox.store.writer import Transaction

# Literal, and each with a query of its own, so that SQLite sees that the partial indexes apply.
_LIVE = text(
    "drafts.id IN (SELECT id FROM drafts WHERE state IN ('pending', 'approved')"
    " UNION ALL SELECT id FROM drafts WHERE state = 'executing')"
)


@dataclass(frozen=True, slots=True)
class ReplyRecord:
    """One message that carried a token of ours, and what became of it.

    `digest` is of its raw octets, `signatures` are those of its DKIM signatures.
    """

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
    signatures: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class SignedReply:
    """A reply that approved, as it came, and the TXT record of the key that its DKIM signature was verified with.

    `arrived_at` is what the signature's own times were judged by; microseconds UTC.
    """

    reply_id: str
    octets: bytes
    key_record: str
    arrived_at: int


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
    if record.signatures:
        tx.connection.execute(
            insert_or_ignore(seen_signatures),
            [{"digest": digest, "reply_id": record.id} for digest in record.signatures],
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
    announce(tx.connection)
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


def spend_requests(tx: Transaction, draft_id: str, approver: str, *, now: int) -> None:
    """Spend every reply token of one approver for one draft: it can be stopped and rejected by reply, not approved."""
    tx.connection.execute(
        update(requests)
        .where(requests.c.draft_id == draft_id, requests.c.approver == approver, requests.c.spent_at.is_(None))
        .values(spent_at=now)
    )
    tx.journal("spend", now=now, draft_id=draft_id, detail={"approver": approver, "why": Code.CODES_EXHAUSTED.value})


def insert_proof(tx: Transaction, reply_id: str, approver: str, *, method: str, domain: str, selector: str) -> None:
    """Keep how it was known who wrote a reply."""
    tx.connection.execute(
        insert(proofs).values(reply_id=reply_id, approver=approver, method=method, domain=domain, selector=selector)
    )


def insert_signed_reply(tx: Transaction, kept: SignedReply, request: Request, *, now: int) -> None:
    """Keep a reply that approved, and spend every token that its approver had for the draft: they stand in it."""
    tx.connection.execute(
        insert(signed_replies).values(reply_id=kept.reply_id, octets=kept.octets, key_record=kept.key_record)
    )
    tx.connection.execute(
        update(requests)
        .where(requests.c.draft_id == request.draft_id, requests.c.approver == request.approver)
        .where(requests.c.spent_at.is_(None))
        .values(spent_at=now)
    )
    tx.journal(
        "keep",
        now=now,
        draft_id=request.draft_id,
        detail={
            "reply": kept.reply_id,
            "digest": sha256(kept.octets).hex(),
            "key_record": sha256(kept.key_record.encode()).hex(),
            "arrived_at": kept.arrived_at,
        },
    )


def other_open_requests(connection: Connection, request: Request, *, now: int) -> list[bytes]:
    """The ids of requests that can still be answered, but for those of one approver for one draft."""
    same = and_(requests.c.draft_id == request.draft_id, requests.c.approver == request.approver)
    query = (
        select(requests.c.id)
        .join(drafts, drafts.c.id == requests.c.draft_id)
        .where(_LIVE, requests.c.expires_at > now, not_(same))
    )
    return list(connection.execute(query).scalars())


def use_code_once(tx: Transaction, approver: str, step: int, reply_id: str) -> None:
    """Take a one-time code. Raises StateRefused where it was used before."""
    taken = tx.connection.execute(
        insert_or_ignore(codes).values(approver=approver, step=step, reply_id=reply_id).returning(codes.c.step)
    ).one_or_none()
    if taken is None:
        raise StateRefused(
            Code.STATE_CONFLICT, "this code was used before; each one counts once, the next comes in 30 s"
        )


def spoil_codes(tx: Transaction, approver: str, steps: Iterable[int], reply_id: str) -> None:
    """Take one-time codes that stood in a reply and were not used by it: whoever has read it knows them."""
    for step in steps:
        tx.connection.execute(insert_or_ignore(codes).values(approver=approver, step=step, reply_id=reply_id))


def insert_wrong_code(tx: Transaction, reply_id: str, draft_id: str, approver: str) -> None:
    """Count a wrong code."""
    tx.connection.execute(insert(wrong_codes).values(reply_id=reply_id, draft_id=draft_id, approver=approver))


def wrong_codes_given(connection: Connection, draft_id: str, approver: str, *, since: int) -> tuple[int, int]:
    """How many wrong codes came in one approver's name: for this draft, and since an instant for any."""
    query = (
        select(wrong_codes.c.draft_id, replies.c.received_at)
        .join(replies, replies.c.id == wrong_codes.c.reply_id)
        .where(wrong_codes.c.approver == approver)
        .where(or_(wrong_codes.c.draft_id == draft_id, replies.c.received_at >= since))
    )
    rows = connection.execute(query).all()
    return sum(row.draft_id == draft_id for row in rows), sum(row.received_at >= since for row in rows)


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
