"""Insert and withdraw drafts: the drafter's verbs."""

from __future__ import annotations

from sqlalchemy import insert, select, text
from sqlalchemy.dialects.sqlite import insert as insert_or_not

from outbox.core.errors import Code, DraftUnknown, PolicyRefused
from outbox.core.finding import printable
from outbox.core.lifecycle import SYSTEM_KIND, State, Verb
from outbox.core.signed import SignedDraft
from outbox.store.rows import signed_columns
from outbox.store.schema import drafts, messages, rejections, resubmissions
from outbox.store.stop import cancel_if_not_sent
from outbox.store.writer import Transaction

OWN_KEYS = "outbox:"  # what idempotency keys of the outbox's own begin with; no agent's may


def insert_pending(tx: Transaction, signed: SignedDraft, *, now: int, idempotency_key: str | None) -> str:
    """Insert a draft as pending and return its id, or that of the same draft under the same key.

    Raises PolicyRefused: idempotency_conflict where the key was used for something else, already_rejected where the
    same was rejected before and the draft does not say why it is made again.
    """
    inserted = tx.connection.execute(
        insert_or_not(drafts)
        .values(**signed_columns(signed), state=State.PENDING.value, idempotency_key=idempotency_key)
        .on_conflict_do_nothing(index_elements=["agent", "idempotency_key"])
        .returning(drafts.c.id)
    ).scalar_one_or_none()
    if inserted is None:
        return _same_draft(tx, signed, idempotency_key)
    _refuse_what_was_rejected(tx, signed)
    tx.connection.execute(insert(messages).values(draft_id=signed.draft.id, octets=signed.draft.message))
    if signed.draft.resubmitted is not None:
        tx.connection.execute(insert(resubmissions).values(draft_id=signed.draft.id, reason=signed.draft.resubmitted))
    tx.journal(
        Verb.INSERT.value,
        now=now,
        draft_id=signed.draft.id,
        detail={"to": State.PENDING.value, "agent": signed.draft.agent, "digest": signed.digest.hex()},
    )
    return signed.draft.id


def _refuse_what_was_rejected(tx: Transaction, signed: SignedDraft) -> None:
    """Raise PolicyRefused where the same words to the same people were rejected; the newest reason is said again."""
    if signed.draft.resubmitted is not None:
        return
    earlier = tx.connection.execute(
        select(drafts.c.id, rejections.c.approver, rejections.c.reason)
        .join(rejections, rejections.c.draft_id == drafts.c.id)
        .where(text("drafts.state = 'rejected'"), drafts.c.fingerprint == signed.fingerprint)
        .order_by(rejections.c.at.desc())
        .limit(1)
    ).one_or_none()
    if earlier is not None:
        reason = printable(earlier.reason).strip()
        why = f": {reason}" if reason else ", without a reason"
        raise PolicyRefused(
            Code.ALREADY_REJECTED,
            f"{earlier.approver} rejected the same as draft {earlier.id}{why}; change it, or say why it should be "
            "asked for again (--resubmit)",
            field="resubmit",
        )


def _same_draft(tx: Transaction, signed: SignedDraft, idempotency_key: str | None) -> str:
    earlier = tx.connection.execute(
        select(drafts.c.id, drafts.c.fingerprint, drafts.c.state).where(
            drafts.c.agent == signed.draft.agent, drafts.c.idempotency_key == idempotency_key
        )
    ).one()
    if earlier.fingerprint != signed.fingerprint:
        raise PolicyRefused(
            Code.IDEMPOTENCY_CONFLICT,
            f"idempotency key {idempotency_key!a} already names draft {earlier.id}, which says something else",
            field="idempotency_key",
        )
    if earlier.state == State.REJECTED and signed.draft.resubmitted is not None:
        raise PolicyRefused(
            Code.IDEMPOTENCY_CONFLICT,
            f"idempotency key {idempotency_key!a} names draft {earlier.id}, which was rejected; use another key",
            field="idempotency_key",
        )
    return str(earlier.id)


def withdraw_if_not_sent(tx: Transaction, draft_id: str, *, agent: str, now: int) -> State:
    """Cancel an agent's own draft; see `stop.cancel_if_not_sent`. Another's is as unknown as none."""
    own = tx.connection.execute(
        select(drafts.c.agent).where(drafts.c.id == draft_id, drafts.c.kind != SYSTEM_KIND)
    ).scalar_one_or_none()
    if own != agent:
        raise DraftUnknown(Code.DRAFT_UNKNOWN, f"agent {agent} has no draft {draft_id}")
    return cancel_if_not_sent(tx, draft_id, now=now)
