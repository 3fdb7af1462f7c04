"""Rows as the values they were written from, parsed again as if a stranger had written them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, select

from outbox.core.canonical import encode, envelope_json, thread_fields
from outbox.core.draft import Draft, Envelope, Thread
from outbox.core.errors import Code, DraftUnknown, VerificationFailed
from outbox.core.grant import Channel, Grant, Request
from outbox.core.lifecycle import FINAL
from outbox.core.signed import SignedDraft
from outbox.core.signing import Signature
from outbox.store.schema import drafts, grants, messages, requests, resubmissions

_PLAIN_TEXT = r'"([ !#-\[\]-~]*)"'  # nothing in it is escaped
_TO_ONE = re.compile(rf'\{{"bcc":\[\],"cc":\[\],"from":{_PLAIN_TEXT},"to":\[{_PLAIN_TEXT}\]\}}')
_parsed = json.JSONDecoder().raw_decode
_CHANNELS = {channel.value: channel for channel in Channel}


def envelope_text(envelope: Envelope) -> str:
    """The envelope column: canonical JSON."""
    return envelope_json(envelope)


def thread_text(thread: Thread) -> str:
    """The thread_references column: canonical JSON."""
    return encode(thread_fields(thread)).decode()


_NO_THREAD = Thread()
_NO_THREAD_TEXT = thread_text(_NO_THREAD)


def signed_columns(signed: SignedDraft) -> dict[str, object]:
    """The columns that never change, as they are inserted."""
    return {
        "id": signed.draft.id,
        "kind": signed.draft.kind,
        "agent": signed.draft.agent,
        "envelope": envelope_text(signed.draft.envelope),
        "subject": signed.subject,
        "message_id": signed.message_id,
        "thread_references": thread_text(signed.draft.thread),
        "digest": signed.digest,
        "fingerprint": signed.fingerprint,
        "signature": signed.signature.octets,
        "key_id": signed.signature.key_id,
        "about": signed.about,
        "created_at": signed.draft.created_at,
        "expires_at": signed.draft.expires_at,
    }


def parse_envelope(stored: str) -> Envelope:
    """The envelope column, read back; ValueError for anything that `envelope_text` does not write."""
    one = _TO_ONE.fullmatch(stored)
    if one is not None:
        return Envelope(one[1], (one[2],))
    fields, _ = _parsed(stored)
    envelope = Envelope(fields["from"], tuple(fields["to"]), tuple(fields["cc"]), tuple(fields["bcc"]))
    if envelope_text(envelope) != stored or not all(isinstance(address, str) for address in envelope.recipients):
        raise ValueError("not an envelope")
    return envelope


def parse_thread(stored: str) -> Thread:
    """The thread_references column, read back; ValueError for anything that `thread_text` does not write."""
    if stored == _NO_THREAD_TEXT:
        return _NO_THREAD
    fields, _ = _parsed(stored)
    thread = Thread(fields["in_reply_to"], tuple(fields["references"]))
    if thread_text(thread) != stored:
        raise ValueError("not thread references")
    return thread


def load_draft(connection: Connection, draft_id: str) -> SignedDraft:
    """One draft with its octets. Raises DraftUnknown, or VerificationFailed where it cannot be read."""
    row = connection.execute(signed_rows().where(drafts.c.id == draft_id)).one_or_none()
    if row is None:
        raise DraftUnknown(Code.DRAFT_UNKNOWN, f"there is no draft {draft_id}")
    if row.octets is None and row.state in FINAL:
        words = f"draft {draft_id}: its octets were pruned; an archive of `outbox prune` has them, if one was named"
        raise VerificationFailed(Code.OCTETS_PRUNED, words)
    return signed_of_row(row)


def signed_rows() -> Select[Any]:
    """Drafts with their octets, as `signed_of_row` takes them."""
    return (
        select(drafts, messages.c.octets, resubmissions.c.reason.label("resubmitted"))
        .outerjoin(messages, messages.c.draft_id == drafts.c.id)
        .outerjoin(resubmissions, resubmissions.c.draft_id == drafts.c.id)
    )


def signed_of_row(row: Any) -> SignedDraft:
    """The draft that a row holds. Raises VerificationFailed where it cannot be read."""
    try:
        return _signed(row)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationFailed(
            Code.ROW_UNREADABLE, f"draft {row.id}: its row cannot be read; it is not what was written"
        ) from error


def _signed(row: Any) -> SignedDraft:
    draft = Draft(
        id=row.id,
        kind=row.kind,
        agent=row.agent,
        envelope=parse_envelope(row.envelope),
        message=bytes(row.octets),
        created_at=row.created_at,
        expires_at=row.expires_at,
        thread=parse_thread(row.thread_references),
        resubmitted=row.resubmitted,
    )
    signature = Signature(row.key_id, row.signature)
    return SignedDraft(draft, row.subject, row.message_id, row.digest, row.fingerprint, signature, row.about)


def load_grants(connection: Connection, draft_id: str) -> list[tuple[Grant, Signature]]:
    """Every grant stored for a draft. Raises VerificationFailed where one cannot be read."""
    rows = connection.execute(
        select(grants).where(grants.c.draft_id == draft_id).order_by(grants.c.at, grants.c.id)
    ).all()
    return grants_of_rows(draft_id, rows)


def grants_of_rows(draft_id: str, rows: Sequence[Any]) -> list[tuple[Grant, Signature]]:
    """The grants of a draft that rows hold. Raises VerificationFailed where one cannot be read."""
    try:
        return [
            (
                Grant(row.id, row.draft_id, row.digest, row.approver, _channel(row.channel), row.at, row.expires_at),
                Signature(row.key_id, row.signature),
            )
            for row in rows
        ]
    except ValueError as error:
        raise VerificationFailed(Code.GRANT_INVALID, f"draft {draft_id}: a grant cannot be read") from error


def _channel(stored: str) -> Channel:
    return _CHANNELS.get(stored) or Channel(stored)


def load_request(connection: Connection, request_id: bytes) -> tuple[Request, int, int | None] | None:
    """A request with its created_at and spent_at, or None."""
    row = connection.execute(select(requests).where(requests.c.id == request_id)).one_or_none()
    if row is None:
        return None
    request = Request(row.id, row.draft_id, row.digest, row.approver, row.expires_at)
    return request, row.created_at, row.spent_at
