"""Take the octets of what ended long ago out: drafts, grants, attempts and the journal stay.

The oldest go first, few at a time. What is still needed is left: octets of a draft about which anything was written
down lately, or whose approver is still to be told its end, and letters of ours about a draft that has not ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, not_, select, text

from outbox.core.canonical import sha256
from outbox.core.draft import uuid7
from outbox.core.lifecycle import FINAL, State
from outbox.store.schema import drafts, journal, messages, resubmissions, tellings
from outbox.store.writer import Transaction

_ENDED = [state.value for state in State if state in FINAL]
_about = drafts.alias("its_draft")


@dataclass(frozen=True, slots=True)
class Prunable:
    """A draft whose octets may go, and how many there are."""

    id: str
    octets: int


@dataclass(frozen=True, slots=True)
class Whole:
    """One draft as its rows hold it, whether they can be read or not: envelope and references are JSON text."""

    id: str
    kind: str
    agent: str
    state: str
    envelope: str
    thread_references: str
    subject: str
    message_id: str
    about: str | None
    resubmitted: str | None
    created_at: int
    expires_at: int
    digest: bytes
    fingerprint: bytes
    signature: bytes
    key_id: str
    octets: bytes


def is_pruned(connection: Connection, draft_id: str) -> bool:
    """Whether a draft has ended and its octets are not there any more."""
    query = select(drafts.c.id).outerjoin(messages, messages.c.draft_id == drafts.c.id)
    gone = query.where(drafts.c.id == draft_id, drafts.c.state.in_(_ENDED), messages.c.draft_id.is_(None))
    return connection.execute(gone).first() is not None


def prunable(connection: Connection, *, before: int, after: str, limit: int) -> list[Prunable]:
    """The oldest drafts whose octets may go, behind the id `after`: nothing happened to them since `before`."""
    ends = uuid7(before, b"\xff" * 10)  # ids sort by time
    query = (
        select(messages.c.draft_id, func.length(messages.c.octets).label("octets"))
        .join(drafts, drafts.c.id == messages.c.draft_id)
        .where(messages.c.draft_id > after, messages.c.draft_id <= ends, _may_go(before))
        .order_by(messages.c.draft_id)
        .limit(limit)
    )
    return [Prunable(row.draft_id, row.octets) for row in connection.execute(query)]


def _may_go(before: int) -> ColumnElement[bool]:
    return and_(
        drafts.c.state.in_(_ENDED),
        drafts.c.created_at <= before,
        not_(exists().where(journal.c.draft_id == drafts.c.id, journal.c.at > before)),
        not_(exists().where(tellings.c.draft_id == drafts.c.id, text("told_at IS NULL"))),
        not_(exists().where(_about.c.id == drafts.c.about, _about.c.state.not_in(_ENDED))),
    )


def whole_drafts(connection: Connection, draft_ids: Sequence[str]) -> list[Whole]:
    """These drafts with their octets, as far as those are there, by id."""
    query = (
        select(drafts, messages.c.octets, resubmissions.c.reason.label("resubmitted"))
        .join(messages, messages.c.draft_id == drafts.c.id)
        .outerjoin(resubmissions, resubmissions.c.draft_id == drafts.c.id)
        .where(drafts.c.id.in_(draft_ids))
        .order_by(drafts.c.id)
    )
    return [_whole(row) for row in connection.execute(query)]


def _whole(row: Row[tuple[object, ...]]) -> Whole:
    return Whole(
        id=row.id,
        kind=row.kind,
        agent=row.agent,
        state=row.state,
        envelope=row.envelope,
        thread_references=row.thread_references,
        subject=row.subject,
        message_id=row.message_id,
        about=row.about,
        resubmitted=row.resubmitted,
        created_at=row.created_at,
        expires_at=row.expires_at,
        digest=row.digest,
        fingerprint=row.fingerprint,
        signature=row.signature,
        key_id=row.key_id,
        octets=row.octets,
    )


def prune_ended(
    tx: Transaction, found: Sequence[Prunable], *, by: str, archive: str | None, now: int
) -> list[Prunable]:
    """Take the octets of these drafts out, as far as they are there; the database refuses it for one that lives."""
    query = delete(messages).where(messages.c.draft_id.in_([one.id for one in found])).returning(messages.c.draft_id)
    gone = set(tx.connection.execute(query).scalars())
    pruned = [one for one in found if one.id in gone]
    if pruned:
        detail: dict[str, str | int | None] = {
            "drafts": len(pruned),
            "octets": sum(one.octets for one in pruned),
            "ids": digest_of_ids([one.id for one in pruned]),
            "archive": archive,
            "by": by,
        }
        tx.journal("prune", now=now, detail=detail)
    return pruned


def digest_of_ids(draft_ids: Sequence[str]) -> str:
    """What names a batch: SHA-256 over its ids in order, a line each; hexadecimal."""
    return sha256("".join(f"{one}\n" for one in sorted(draft_ids)).encode()).hex()
