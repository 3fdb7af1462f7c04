"""Write a receipt: one draft's whole story out of the database, under the grant key's MAC where that is held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outbox.clock import Clock, wall
from outbox.config import Settings
from outbox.core.canonical import canonical, sha256
from outbox.core.draft import MICROSECONDS
from outbox.core.grant import Grant
from outbox.core.lifecycle import Room
from outbox.core.message import date_line
from outbox.core.receipt import (
    AttemptSection,
    DraftSection,
    EvidenceSection,
    GrantSection,
    JournalSection,
    Receipt,
    RecipientSection,
    RejectionSection,
    ReplySection,
    SettlementSection,
    ShownSection,
)
from outbox.core.signing import Signature
from outbox.operator.replay import facts_in
from outbox.store.chains import ChainedLink, links_of_draft
from outbox.store.engine import connect
from outbox.store.identity import identity_of
from outbox.store.receipts import (
    RequestFacts,
    rejection_of,
    reply_of,
    requests_of,
    settlements_of,
    whole_evidence_of,
)
from outbox.store.revision import refuse_other_revision
from outbox.store.rows import load_draft, load_grants
from outbox.store.views import AttemptView, story

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MOST_SECONDS = 300  # between a claim and the Date line of its attempt


@dataclass(frozen=True, slots=True)
class Made:
    """A receipt's file, and the grant key whose MAC is under it; None where this user holds none."""

    octets: bytes
    key_id: str | None


def make_receipt(settings: Settings, draft_id: str, *, clock: Clock = wall) -> Made:
    """The receipt of one draft as it is now. Raises DraftUnknown, or VerificationFailed for an unreadable row."""
    database = connect(settings.database_place, Room.OPERATOR)
    try:
        refuse_other_revision(database)
        with database.reading() as connection:
            receipt = _receipt(connection, draft_id, clock())
    finally:
        database.close()
    if settings.has_key("grant"):
        receipt = receipt.signed(settings.grant_ring())
    return Made(receipt.text(), receipt.key_id)


def _receipt(connection: Connection, draft_id: str, now: int) -> Receipt:
    told, links = story(connection, draft_id), links_of_draft(connection, draft_id)
    draft = _draft(connection, draft_id)
    error_code, error_message = told.draft.error or (None, None)
    rejected = rejection_of(connection, draft_id)
    return Receipt(
        made_at=now,
        database=identity_of(connection).id,
        state=told.draft.state.value,
        error_code=error_code,
        error_message=error_message,
        draft=draft,
        shown=tuple(_shown(connection, asked) for asked in requests_of(connection, draft_id)),
        approved=tuple(
            _approved(connection, grant, signature, links) for grant, signature in load_grants(connection, draft_id)
        ),
        rejected=RejectionSection(
            approver=rejected.approver, channel=rejected.channel, reason=rejected.reason, at=rejected.at
        )
        if rejected is not None
        else None,
        sent=tuple(_attempt(one, draft.message) for one in told.attempts),
        settled=tuple(
            SettlementSection(attempt=one.attempt_id, settled_as=one.settled_as, by=one.by, note=one.note, at=one.at)
            for one in settlements_of(connection, draft_id)
        ),
        evidence=tuple(
            EvidenceSection(source=one.source, found=one.found, detail=one.detail, at=at, octets=one.octets)
            for one, at in whole_evidence_of(connection, draft_id)
        ),
        journal=tuple(map(_row, links)),
    )


def _draft(connection: Connection, draft_id: str) -> DraftSection:
    signed = load_draft(connection, draft_id)
    return DraftSection.of(signed, canonical(signed.draft).decode())


def _shown(connection: Connection, asked: RequestFacts) -> ShownSection:
    return ShownSection(
        id=asked.request.id,
        approver=asked.request.approver,
        digest=asked.request.digest,
        ask=asked.ask,
        asked_at=asked.asked_at,
        expires_at=asked.request.expires_at,
        spent_at=asked.spent_at,
        carrier=_draft(connection, asked.carrier_id),
    )


def _approved(connection: Connection, grant: Grant, signature: Signature, links: list[ChainedLink]) -> GrantSection:
    return GrantSection(
        id=grant.id,
        approver=grant.approver,
        channel=grant.channel,
        digest=grant.digest,
        at=grant.at,
        expires_at=grant.expires_at,
        canonical=grant.canonical().decode(),
        signature=signature.octets,
        key_id=signature.key_id,
        reply=_reply(connection, grant, links),
    )


def _reply(connection: Connection, grant: Grant, links: list[ChainedLink]) -> ReplySection | None:
    reply = reply_of(connection, grant)
    if reply is None:
        return None
    return ReplySection(
        id=reply.id,
        received_at=reply.received_at,
        arrived_at=_arrived_at(reply.id, links),
        sender=reply.sender,
        message_id=reply.message_id,
        verdict=reply.verdict,
        why=reply.why,
        digest=reply.digest,
        method=reply.method,
        domain=reply.domain,
        selector=reply.selector,
        key_record=reply.key_record,
        octets=reply.octets,
    )


def _arrived_at(reply_id: str, links: list[ChainedLink]) -> int | None:
    """When a kept reply arrived, which the journal says alone."""
    for chained in links:
        if chained.link.entry.action == "keep":
            detail = facts_in(chained.link.entry.detail)
            at = detail.get("arrived_at")
            if detail.get("reply") == reply_id and isinstance(at, int):
                return at
    return None


def _attempt(attempt: AttemptView, message: bytes) -> AttemptSection:
    return AttemptSection(
        id=attempt.id,
        worker=attempt.worker_id,
        phase=attempt.phase,
        outcome=attempt.outcome,
        code=attempt.code,
        enhanced=attempt.enhanced,
        text=attempt.text,
        queue_id=attempt.queue_id,
        started_at=attempt.started_at,
        gap_at=attempt.gap_at,
        ended_at=attempt.ended_at,
        date_line=_date_line(attempt, message),
        wire_digest=attempt.wire_digest,
        recipients=tuple(
            RecipientSection(address=one.address, code=one.code, text=one.text) for one in attempt.recipients
        ),
    )


def _date_line(attempt: AttemptView, message: bytes) -> str | None:
    """The line that was put in front: no column has it, but it is of a second between the claim and the gap."""
    if attempt.gap_at is None:
        return None
    first, last = attempt.started_at // MICROSECONDS, attempt.gap_at // MICROSECONDS
    for second in range(first, min(last, first + _MOST_SECONDS) + 1):
        line = date_line(second * MICROSECONDS)
        if sha256(line + message) == attempt.wire_digest:
            return line.decode()
    return None


def _row(chained: ChainedLink) -> JournalSection:
    link = chained.link
    entry = link.entry
    return JournalSection(
        place=link.place,
        writer=entry.writer,
        seq=entry.seq,
        at=entry.at,
        action=entry.action,
        draft=entry.draft_id,
        attempt=entry.attempt_id,
        detail=entry.detail,
        previous=chained.previous,
        key_id=link.signature.key_id,
        mac=link.signature.octets,
    )
