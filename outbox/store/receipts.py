"""Reads for a receipt: everything that is stored of one draft, as it lies there."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, select, text

from outbox.core.evidence import Evidence
from outbox.core.grant import Grant, Request
from outbox.store.schema import evidence, proofs, rejections, replies, requests, settlements, signed_replies


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """One request for a draft, the system draft that carried it, and when it was made and spent (microseconds UTC)."""

    request: Request
    carrier_id: str
    ask: int
    asked_at: int
    spent_at: int | None


@dataclass(frozen=True, slots=True)
class ReplyFacts:
    """A reply that approved, how it was proved, and where it was kept its octets and the key record as seen."""

    id: str
    received_at: int
    sender: str
    message_id: str
    verdict: str
    why: str
    digest: bytes
    method: str | None
    domain: str | None
    selector: str | None
    key_record: str | None
    octets: bytes | None


@dataclass(frozen=True, slots=True)
class RejectionFacts:
    """Who rejected a draft, how, why and when."""

    approver: str
    channel: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class SettlementFacts:
    """What was decided about one attempt."""

    attempt_id: str
    settled_as: str
    by: str
    note: str
    at: int


def requests_of(connection: Connection, draft_id: str) -> list[RequestFacts]:
    """Every request for a draft, the oldest first."""
    rows = connection.execute(
        select(requests).where(requests.c.draft_id == draft_id).order_by(requests.c.created_at, requests.c.id)
    ).all()
    return [
        RequestFacts(
            Request(row.id, row.draft_id, row.digest, row.approver, row.expires_at),
            row.carrier_id,
            row.ask,
            row.created_at,
            row.spent_at,
        )
        for row in rows
    ]


def reply_of(connection: Connection, grant: Grant) -> ReplyFacts | None:
    """The reply that gave a grant: what was recorded of it has the grant's own instant."""
    query = (
        select(replies, proofs.c.method, proofs.c.domain, proofs.c.selector, proofs.c.approver)
        .add_columns(signed_replies.c.octets, signed_replies.c.key_record)
        .outerjoin(proofs, proofs.c.reply_id == replies.c.id)
        .outerjoin(signed_replies, signed_replies.c.reply_id == replies.c.id)
        .where(
            and_(replies.c.draft_id == grant.draft_id, replies.c.received_at == grant.at),
            text("replies.counted = 1 AND replies.verdict = 'approve'"),
        )
    )
    for row in connection.execute(query).all():
        if row.approver in {None, grant.approver}:
            return ReplyFacts(
                id=row.id,
                received_at=row.received_at,
                sender=row.sender,
                message_id=row.message_id,
                verdict=row.verdict,
                why=row.why,
                digest=row.digest,
                method=row.method,
                domain=row.domain,
                selector=row.selector,
                key_record=row.key_record,
                octets=row.octets,
            )
    return None


def rejection_of(connection: Connection, draft_id: str) -> RejectionFacts | None:
    """The rejection of a draft."""
    row = connection.execute(select(rejections).where(rejections.c.draft_id == draft_id)).one_or_none()
    return RejectionFacts(row.approver, row.channel, row.reason, row.at) if row is not None else None


def settlements_of(connection: Connection, draft_id: str) -> list[SettlementFacts]:
    """Every settlement of a draft, the oldest first."""
    rows = connection.execute(
        select(settlements)
        .where(settlements.c.draft_id == draft_id)
        .order_by(settlements.c.at, settlements.c.attempt_id)
    ).all()
    return [SettlementFacts(row.attempt_id, row.settled_as, row.settled_by, row.note, row.at) for row in rows]


def whole_evidence_of(connection: Connection, draft_id: str) -> list[tuple[Evidence, int]]:
    """Everything found out about a draft with its octets, and when, the oldest first."""
    rows = connection.execute(
        select(evidence).where(evidence.c.draft_id == draft_id).order_by(evidence.c.at, evidence.c.id)
    ).all()
    return [
        (Evidence(row.source, None if row.found is None else bool(row.found), row.detail, row.octets), row.at)
        for row in rows
    ]
