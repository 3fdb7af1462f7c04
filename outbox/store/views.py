"""Reads, for every room. What they show comes from columns; whoever decides on it verifies it first."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, not_, or_, select, text

from outbox.core.draft import Envelope
from outbox.core.errors import Code, DraftUnknown, VerificationFailed
from outbox.core.lifecycle import FINAL, SYSTEM_KIND, State
from outbox.store.rows import parse_envelope
from outbox.store.schema import (
    ENDED_UNSENT,
    MOST_ASKS,
    attempts,
    drafts,
    grants,
    proofs,
    recipients,
    rejections,
    replies,
    requests,
    resubmissions,
    seen_signatures,
    tellings,
)
from outbox.store.settlements import SettlementView, newest_settlements

MOST_LETTERS = 50
_AT_ONCE = 500  # drafts in one statement
_LIVE_IDS = {
    State.PENDING: text("SELECT id FROM drafts WHERE state = 'pending'"),
    State.APPROVED: text(
        "SELECT id FROM drafts WHERE state = 'approved' AND kind <> 'system'"
        " UNION ALL SELECT id FROM drafts WHERE state = 'approved' AND kind = 'system'"
    ),
    State.EXECUTING: text("SELECT id FROM drafts WHERE state = 'executing'"),
}
_MAY_HAVE_LEFT = text("CASE WHEN phase <> 'done' OR outcome IN ('accepted', 'in_doubt') THEN 1 ELSE 0 END")  # the last
_NOT_THROUGH = [state.value for state in (State.FAILED, State.EXPIRED, State.CANCELLED)]


@dataclass(frozen=True, slots=True)
class GrantView:
    """Who approved, through what, when, and until when it holds."""

    approver: str
    channel: str
    at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class RequestView:
    """Who was asked, by which system draft, when."""

    approver: str
    draft_id: str
    at: int


@dataclass(frozen=True, slots=True)
class RejectionView:
    """Who rejected, why, when."""

    approver: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class RecipientView:
    """What the relay said of one recipient."""

    address: str
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One try, with the relay's last reply."""

    id: str
    worker_id: str
    phase: str
    outcome: str | None
    code: int | None
    enhanced: str | None
    text: str | None
    queue_id: str | None
    wire_digest: bytes | None
    started_at: int
    gap_at: int | None
    ended_at: int | None
    recipients: tuple[RecipientView, ...]


@dataclass(frozen=True, slots=True)
class DraftView:
    """A draft as `list` shows it. Instants are microseconds UTC."""

    id: str
    kind: str
    agent: str
    state: State
    envelope: Envelope
    subject: str
    digest: bytes
    fingerprint: bytes
    message_id: str
    about: str | None
    created_at: int
    expires_at: int
    not_before: int | None
    stop_asked_at: int | None
    error: tuple[str, str] | None
    rejection: RejectionView | None
    settlement: SettlementView | None
    grants: tuple[GrantView, ...]
    resubmitted: str | None


@dataclass(frozen=True, slots=True)
class Story:
    """A draft with everything that happened to it."""

    draft: DraftView
    requests: tuple[RequestView, ...]
    attempts: tuple[AttemptView, ...]


@dataclass(frozen=True, slots=True)
class ReplyView:
    """One message that carried a token of ours, and what became of it."""

    received_at: int
    sender: str
    message_id: str
    draft_id: str | None
    verdict: str
    counted: bool
    why: str


@dataclass(frozen=True, slots=True)
class ProofView:
    """How it was known who wrote approvals: by what, and for DKIM whose key under which selector."""

    method: str
    domain: str
    selector: str


def list_drafts(
    connection: Connection,
    *,
    states: Sequence[State] = (),
    system: bool = False,
    limit: int = 100,
    after: str | None = None,
) -> list[DraftView]:
    """Drafts, the oldest first; `after` is the id of the last one seen."""
    query = select(drafts).order_by(drafts.c.id).limit(limit)
    if not system:
        query = query.where(drafts.c.kind != SYSTEM_KIND)
    if after is not None:
        query = query.where(drafts.c.id > after)
    if not states:
        rows = list(connection.execute(query).all())
    else:
        found = [row for state in set(states) for row in connection.execute(query.where(_of_state(state))).all()]
        rows = sorted(found, key=lambda row: str(row.id))[:limit]
    parts = (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE))
    return [view for part in parts for view in _draft_views(connection, part)]


def _of_state(state: State) -> ColumnElement[bool]:
    """In words of a partial index, but for the usual end: a page does not read all of history to find few."""
    if state is State.COMPLETED:
        return drafts.c.state == state.value
    if state in FINAL:
        return and_(text(ENDED_UNSENT), drafts.c.state == state.value)
    return drafts.c.id.in_(_LIVE_IDS[state])


def story(connection: Connection, draft_id: str) -> Story:
    """Everything about one draft. Raises DraftUnknown where there is none."""
    row = connection.execute(select(drafts).where(drafts.c.id == draft_id)).one_or_none()
    if row is None:
        raise DraftUnknown(Code.DRAFT_UNKNOWN, f"there is no draft {draft_id}")
    asked = connection.execute(
        select(requests).where(requests.c.draft_id == draft_id).order_by(requests.c.created_at, requests.c.id)
    ).all()
    tried = connection.execute(
        select(attempts)
        .where(attempts.c.draft_id == draft_id)
        .order_by(attempts.c.started_at, _MAY_HAVE_LEFT, attempts.c.id)
    ).all()
    (draft,) = _draft_views(connection, [row])
    return Story(
        draft,
        tuple(RequestView(one.approver, one.carrier_id, one.created_at) for one in asked),
        tuple(_attempt_view(connection, one) for one in tried),
    )


def _draft_views(connection: Connection, rows: Sequence[Row[tuple[object, ...]]]) -> list[DraftView]:
    ids = [row.id for row in rows]
    granted: dict[str, list[GrantView]] = defaultdict(list)
    for one in connection.execute(select(grants).where(grants.c.draft_id.in_(ids)).order_by(grants.c.at, grants.c.id)):
        granted[one.draft_id].append(GrantView(one.approver, one.channel, one.at, one.expires_at))
    rejected = {
        one.draft_id: RejectionView(one.approver, one.reason, one.at)
        for one in connection.execute(select(rejections).where(rejections.c.draft_id.in_(ids)))
    }
    again = {
        one.draft_id: one.reason
        for one in connection.execute(select(resubmissions).where(resubmissions.c.draft_id.in_(ids)))
    }
    settled = newest_settlements(connection, ids)
    return [
        DraftView(
            id=row.id,
            kind=row.kind,
            agent=row.agent,
            state=_state(row.state, row.id),
            envelope=_shown_envelope(row.envelope),
            subject=row.subject,
            digest=row.digest,
            fingerprint=row.fingerprint,
            message_id=row.message_id,
            about=row.about,
            created_at=row.created_at,
            expires_at=row.expires_at,
            not_before=row.not_before,
            stop_asked_at=row.stop_asked_at,
            error=(row.error_code, row.error_message) if row.error_code is not None else None,
            rejection=rejected.get(row.id),
            settlement=settled.get(row.id),
            grants=tuple(granted[row.id]),
            resubmitted=again.get(row.id),
        )
        for row in rows
    ]


def _state(stored: str, draft_id: str) -> State:
    try:
        return State(stored)
    except ValueError as error:
        raise VerificationFailed(Code.ROW_UNREADABLE, f"draft {draft_id}: {stored[:40]!a} is no state") from error


def _shown_envelope(stored: str) -> Envelope:
    try:
        return parse_envelope(stored)
    except (ValueError, KeyError, TypeError, RecursionError, VerificationFailed):
        # An altered row is still listed; the worker refuses it.
        return Envelope(f"(unreadable) {json.dumps(stored[:100])}", ())


def _attempt_view(connection: Connection, row: Row[tuple[object, ...]]) -> AttemptView:
    of_attempt = select(recipients).where(recipients.c.attempt_id == row.id).order_by(recipients.c.address)
    heard = connection.execute(of_attempt).all()
    return AttemptView(
        id=row.id,
        worker_id=row.worker_id,
        phase=row.phase,
        outcome=row.outcome,
        code=row.code,
        enhanced=row.enhanced,
        text=row.text,
        queue_id=row.queue_id,
        wire_digest=row.wire_digest,
        started_at=row.started_at,
        gap_at=row.gap_at,
        ended_at=row.ended_at,
        recipients=tuple(RecipientView(one.address, one.code, one.text) for one in heard),
    )


def list_replies(connection: Connection) -> list[ReplyView]:
    """Every recorded reply, the oldest first."""
    rows = connection.execute(select(replies).order_by(replies.c.received_at, replies.c.id)).all()
    return [
        ReplyView(row.received_at, row.sender, row.message_id, row.draft_id, row.verdict, bool(row.counted), row.why)
        for row in rows
    ]


def unasked(connection: Connection, approver: str, *, now: int, limit: int = 100) -> list[tuple[str, int]]:
    """Pending drafts that `approver` is to be asked about, with the number of that ask.

    A request is asked again where the system draft that carried it did not get through, at most MOST_ASKS times.
    """
    carrier = drafts.alias("carrier")
    underway = (
        exists()
        .where(requests.c.draft_id == drafts.c.id, requests.c.approver == approver)
        .where(requests.c.carrier_id == carrier.c.id)
        .where(or_(carrier.c.state.not_in(_NOT_THROUGH), requests.c.ask >= MOST_ASKS))
    )
    asked = (
        select(func.count())
        .where(requests.c.draft_id == drafts.c.id, requests.c.approver == approver)
        .scalar_subquery()
    )
    rows = connection.execute(
        select(drafts.c.id, asked.label("asked"))
        .where(text("drafts.state = 'pending'"), drafts.c.expires_at > now, not_(underway))
        .order_by(drafts.c.id)
        .limit(limit)
    ).all()
    return [(row.id, row.asked + 1) for row in rows]


def state_of(connection: Connection, draft_id: str) -> State | None:
    """The state a draft is in, or None."""
    found = connection.execute(select(drafts.c.state).where(drafts.c.id == draft_id)).scalar_one_or_none()
    return State(found) if found is not None else None


def is_recorded(connection: Connection, mailbox: str, uid: str) -> bool:
    """Whether this message of this mailbox was read to its end before."""
    return (
        connection.execute(select(replies.c.id).where(replies.c.mailbox == mailbox, replies.c.uid == uid)).first()
        is not None
    )


def was_renumbered(connection: Connection, mailbox: str, raw_digest: bytes, prefix: str) -> bool:
    """Whether these octets were taken from this mailbox under a uid that does not begin with `prefix`."""
    query = select(replies.c.id).where(
        replies.c.digest == raw_digest, replies.c.mailbox == mailbox, not_(replies.c.uid.startswith(prefix))
    )
    return connection.execute(query).first() is not None


def oldest_asked(connection: Connection) -> int | None:
    """When the oldest request was made whose draft has not ended, or whose approver does not know that it has."""
    query = (
        select(func.min(requests.c.created_at))
        .select_from(tellings.join(requests, requests.c.id == tellings.c.request_id))
        .where(text("tellings.told_at IS NULL"))
    )
    found: int | None = connection.execute(query).scalar_one()
    return found


def last_counted_reply(connection: Connection, draft_id: str) -> str:
    """The Message-ID of the newest reply that counted for a draft; empty where there is none that can be named."""
    query = (
        select(replies.c.message_id)
        .where(text("counted = 1"), replies.c.draft_id == draft_id)
        .order_by(replies.c.received_at.desc(), replies.c.id.desc())
    )
    return connection.execute(query).scalars().first() or ""


def has_counted_reply(connection: Connection) -> bool:
    """Whether any reply has counted so far."""
    return connection.execute(select(replies.c.id).where(text("counted = 1")).limit(1)).first() is not None


def proofs_of(connection: Connection, approver: str, *, limit: int = 20) -> list[ProofView]:
    """How the approvals of `approver` were proved, each way once."""
    query = select(proofs.c.method, proofs.c.domain, proofs.c.selector).where(
        func.lower(proofs.c.approver) == approver.lower()
    )
    rows = connection.execute(query.distinct().order_by(proofs.c.domain, proofs.c.selector).limit(limit))
    return [ProofView(row.method, row.domain, row.selector) for row in rows]


def was_seen(connection: Connection, raw_digest: bytes, message_id: str, signatures: Sequence[bytes]) -> bool:
    """Whether the same octets, Message-ID or DKIM signature came before, or the Message-ID left through this outbox."""
    came = select(replies.c.id).where(
        or_(replies.c.digest == raw_digest, and_(replies.c.message_id == message_id, replies.c.message_id != ""))
    )
    left = select(drafts.c.id).where(drafts.c.message_id == message_id)
    signed = select(seen_signatures.c.reply_id).where(seen_signatures.c.digest.in_(signatures))
    return any(connection.execute(query).first() is not None for query in (came, left, signed))


def letters_about(connection: Connection, draft_id: str) -> list[str]:
    """The ids of what approvers were written about a draft: requests, reminders and answers, as far as rows say so."""
    query = select(drafts.c.id).where(text("about IS NOT NULL"), drafts.c.about == draft_id).order_by(drafts.c.id)
    return list(connection.execute(query.limit(MOST_LETTERS)).scalars())


def answered_senders(connection: Connection, draft_id: str) -> list[str]:
    """From whom each reply about a draft was that we answered."""
    query = select(replies.c.sender).where(replies.c.draft_id == draft_id, text("answer_id IS NOT NULL"))
    return list(connection.execute(query).scalars())
