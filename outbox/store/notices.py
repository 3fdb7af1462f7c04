"""Insert system drafts: requests, answers and alerts leave through the same door as all mail."""

from __future__ import annotations

from sqlalchemy import insert

from outbox.core.grant import Request
from outbox.core.lifecycle import State, Verb
from outbox.core.signed import SignedDraft
from outbox.store.dialect import announce, insert_or_ignore
from outbox.store.rows import signed_columns
from outbox.store.schema import drafts, messages, requests, tellings
from outbox.store.writer import Transaction


def insert_system(tx: Transaction, signed: SignedDraft, *, now: int) -> None:
    """Insert a system draft, born approved."""
    tx.connection.execute(insert(drafts).values(**signed_columns(signed), state=State.APPROVED.value, not_before=now))
    tx.connection.execute(insert(messages).values(draft_id=signed.draft.id, octets=signed.draft.message))
    announce(tx.connection)
    tx.journal(
        Verb.INSERT.value,
        now=now,
        draft_id=signed.draft.id,
        detail={"to": State.APPROVED.value, "about": signed.about, "digest": signed.digest.hex()},
    )


def insert_request(tx: Transaction, request: Request, carrier: SignedDraft, *, ask: int, now: int) -> None:
    """Insert a request and the system draft that carries it; the (draft, approver, ask) is taken once."""
    insert_system(tx, carrier, now=now)
    tx.connection.execute(
        insert(requests).values(
            id=request.id,
            draft_id=request.draft_id,
            approver=request.approver,
            digest=request.digest,
            carrier_id=carrier.draft.id,
            ask=ask,
            created_at=now,
            expires_at=request.expires_at,
        )
    )
    tx.connection.execute(
        insert_or_ignore(tellings).values(draft_id=request.draft_id, approver=request.approver, request_id=request.id)
    )
    tx.journal(
        "ask",
        now=now,
        draft_id=request.draft_id,
        detail={"approver": request.approver, "request": request.id.hex(), "carrier": carrier.draft.id, "ask": ask},
    )
