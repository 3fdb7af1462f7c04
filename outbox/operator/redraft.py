"""A new draft out of one that ended: other id, other Message-ID, the same words to the same people; approved anew."""

from __future__ import annotations

from functools import partial

from outbox.agreement import disagreement, read_ledger
from outbox.clock import Clock, new_id
from outbox.config import Settings
from outbox.core.address import domain
from outbox.core.draft import MICROSECONDS, Draft
from outbox.core.errors import Code, OutboxError, StateRefused
from outbox.core.lifecycle import FINAL, POSSIBLY_SENT, SYSTEM_KIND, Phase, State
from outbox.core.message import adopt
from outbox.core.policy import raise_first, violations
from outbox.core.signed import SignedDraft, sign_draft, verify_draft
from outbox.core.signing import KeyRing
from outbox.ledger import Ledger
from outbox.store.drafts import OWN_KEYS, insert_pending
from outbox.store.engine import Database
from outbox.store.evidence import evidence_of
from outbox.store.identity import Whose, has_gaps_since, identity_of
from outbox.store.rows import load_draft
from outbox.store.views import DraftView, Story, story
from outbox.store.writer import Writer

_DOUBTFUL = {Code.RESTORED.value, Code.POSSIBLY_SENT.value}


def redraft(
    settings: Settings, database: Database, writer: Writer, draft_id: str, *, may_duplicate: bool, clock: Clock
) -> str:
    """Draft again what ended; returns the new id, or that of the redraft that was made of it before.

    Raises StateRefused: state_conflict where it has not ended, may_duplicate where it may have been sent.
    """
    ring = settings.draft_ring()
    with database.reading() as connection:
        told = story(connection, draft_id)
        signed = load_draft(connection, draft_id)
    _refuse_unended(told)
    if not may_duplicate and (why := _why_possibly_sent(settings, database, told)) is not None:
        raise StateRefused(
            Code.MAY_DUPLICATE,
            f"draft {draft_id} may have been sent ({why}): its recipients could get it twice; say --may-duplicate if "
            "they may",
        )
    verify_draft(ring, signed)
    now = clock()
    fresh = _again(settings, ring, signed, new_id(now), now)
    return writer.run(partial(insert_pending, signed=fresh, now=now, idempotency_key=f"{OWN_KEYS}redraft:{draft_id}"))


def _again(settings: Settings, ring: KeyRing, signed: SignedDraft, draft_id: str, now: int) -> SignedDraft:
    old, policy = signed.draft, settings.rules()
    message_id = f"<{draft_id}@{domain(old.envelope.sender)}>"
    draft = Draft(
        id=draft_id,
        kind=old.kind,
        agent=old.agent,
        envelope=old.envelope,
        message=adopt(old.message, draft_id, message_id, anew=True).message,
        created_at=now,
        expires_at=now + settings.policy.default_ttl * MICROSECONDS,
        thread=old.thread,
        resubmitted=old.resubmitted,
    )
    raise_first(violations(draft, policy))
    return sign_draft(ring, draft, signed.fingerprint)


def _refuse_unended(told: Story) -> None:
    draft = told.draft
    if draft.kind == SYSTEM_KIND:
        why = "is the outbox's own; it is not drafted again"
    elif draft.state is State.REJECTED:
        why = "was rejected; its agent may ask again and say why (--resubmit)"
    elif draft.state not in FINAL:
        hint = "; settle it first (`outbox reconcile`)" if draft.state is State.EXECUTING else ""
        why = f"is {draft.state} and has not ended{hint}"
    else:
        return
    raise StateRefused(Code.STATE_CONFLICT, f"draft {draft.id} {why}")


def _why_possibly_sent(settings: Settings, database: Database, told: Story) -> str | None:
    """What speaks for its having been sent. A ledger that cannot be asked, for want of a key, counts as that."""
    for attempt in told.attempts:
        if attempt.outcome in POSSIBLY_SENT or attempt.phase == Phase.GAP:
            return f"attempt {attempt.id} ended {attempt.outcome or 'in the gap'}"
    with database.reading() as connection:
        proof = next((one for one in evidence_of(connection, told.draft.id) if one.found), None)
    if proof is not None:
        return f"{proof.source}: {proof.detail}"
    if told.draft.error is not None and told.draft.error[0] in _DOUBTFUL:
        return told.draft.error[1]
    return _in_ledger(settings, database, told.draft)


def _was_restored(settings: Settings, database: Database, draft: DraftView, ledger: Ledger) -> bool:
    """Whether the database may have forgotten an attempt; one that was never put back knows them all."""
    if draft.created_at < ledger.index.fenced_at:
        return True
    return disagreement(settings.state_dir, settings.record_ring("grant"), database) is not None


def _in_ledger(settings: Settings, database: Database, draft: DraftView) -> str | None:
    with database.reading() as connection:
        named = identity_of(connection)
        has_gaps = has_gaps_since(connection, named.ledger_since, Whose(is_only=True))
    try:
        ledger = read_ledger(settings.state_dir, settings.record_ring("grant"), database)
    except OutboxError as error:
        return error.message if has_gaps or error.code is not Code.LEDGER_MISSING else None
    gone = ledger.possibly_sent(draft.id)
    ledger.close()
    if gone is None and draft.created_at < ledger.index.blank_until:
        return "it was drafted before the ledger was lost, which would know"
    if (
        gone is None
        and ledger.index.has_forgotten(draft.expires_at)
        and _was_restored(settings, database, draft, ledger)
    ):
        return (
            "it is of before the database was restored, and the ledger has forgotten drafts like it, which would know"
        )
    return f"by the ledger attempt {gone.attempt} was in the gap" if gone is not None else None
