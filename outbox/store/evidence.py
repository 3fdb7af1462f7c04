"""What was found out about a draft: rows of their own, because a finished attempt never changes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from outbox.core.evidence import Evidence
from outbox.store.schema import evidence
from outbox.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """One thing found, and when (microseconds UTC)."""

    source: str
    found: bool | None
    detail: str
    at: int


def insert_evidence(
    tx: Transaction, item: Evidence, *, evidence_id: str, draft_id: str, attempt_id: str | None, now: int
) -> None:
    """Keep what was found."""
    found = None if item.found is None else int(item.found)
    tx.connection.execute(
        insert(evidence).values(
            id=evidence_id,
            draft_id=draft_id,
            attempt_id=attempt_id,
            source=item.source,
            found=found,
            detail=item.detail,
            octets=item.octets,
            at=now,
        )
    )
    tx.journal(
        "evidence",
        now=now,
        draft_id=draft_id,
        attempt_id=attempt_id,
        detail={"source": item.source, "found": found, "evidence": evidence_id},
    )


def evidence_of(connection: Connection, draft_id: str) -> tuple[EvidenceView, ...]:
    """Everything found about a draft, the oldest first."""
    rows = connection.execute(select(evidence).where(evidence.c.draft_id == draft_id).order_by(evidence.c.id)).all()
    return tuple(
        EvidenceView(row.source, None if row.found is None else bool(row.found), row.detail, row.at) for row in rows
    )
