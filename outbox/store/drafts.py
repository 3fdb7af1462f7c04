"""Insert and withdraw drafts: the drafter's verbs."""

from __future__ import annotations

from sqlalchemy import insert, select
from sqlalchemy.dialects.sqlite import insert as insert_or_not

from outbox.core.errors import Code, DraftUnknown, PolicyRefused
from outbox.core.lifecycle import SYSTEM_KIND, State, Verb
from outbox.core.signed import SignedDraft
from outbox.store.rows import signed_columns
from outbox.store.schema import drafts, messages
from outbox.store.stop import cancel_if_not_sent
from outbox.store.writer import Transaction


def insert_pending(tx: Transaction, signed: SignedDraft, *, now: int, idempotency_key: str | None) -> str:
    """Insert a draft as pending and return its id, or that of the same draft under the same key.

    Raises PolicyRefused(idempotency_conflict) where the key was used for something else.
    """
    inserted = tx.connection.execute(
        insert_or_not(drafts)
        .values(**signed_columns(signed), state=State.PENDING.value, idempotency_key=idempotency_key)
        .on_conflict_do_nothing(index_elements=["agent", "idempotency_key"])
        .returning(drafts.c.id)
    ).scalar_one_or_none()
    if inserted is None:
        return _same_draft(tx, signed, idempotency_key)
    tx.connection.execute(insert(messages).values(draft_id=signed.draft.id, octets=signed.draft.message))
    tx.journal(
        Verb.INSERT.value,
        now=now,
        draft_id=signed.draft.id,
        detail={"to": State.PENDING.value, "agent": signed.draft.agent, "digest": signed.digest.hex()},
    )
    return signed.draft.id


def _same_draft(tx: Transaction, signed: SignedDraft, idempotency_key: str | None) -> str:
    earlier = tx.connection.execute(
        select(drafts.c.id, drafts.c.fingerprint).where(
            drafts.c.agent == signed.draft.agent, drafts.c.idempotency_key == idempotency_key
        )
    ).one()
    if earlier.fingerprint != signed.fingerprint:
        raise PolicyRefused(
            Code.IDEMPOTENCY_CONFLICT,
            f"idempotency key {idempotency_key!a} already names draft {earlier.id}, which says something else",
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
