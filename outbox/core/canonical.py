"""Versioned canonical bytes (RFC 8785), and the digests over them.

Canonical bytes name their own version, so that a later form can never be read as this one.
"""

from __future__ import annotations

import hashlib

import rfc8785

from outbox.core.draft import Draft, Envelope, Thread
from outbox.core.errors import Code, VerificationFailed

VERSION = 1


def sha256(octets: bytes) -> bytes:
    """SHA-256, 32 octets."""
    return hashlib.sha256(octets).digest()


def envelope_fields(envelope: Envelope) -> dict[str, object]:
    """The envelope as its JSON object: from, to, cc, bcc."""
    return {
        "from": envelope.sender,
        "to": list(envelope.to),
        "cc": list(envelope.cc),
        "bcc": list(envelope.bcc),
    }


def thread_fields(thread: Thread) -> dict[str, object]:
    """The thread references as their JSON object."""
    return {"in_reply_to": thread.in_reply_to, "references": list(thread.references)}


def canonical(draft: Draft) -> bytes:
    """The bytes that a draft's digest is taken over."""
    fields: dict[str, object] = {
        "version": VERSION,
        "id": draft.id,
        "kind": draft.kind,
        "agent": draft.agent,
        "envelope": envelope_fields(draft.envelope),
        "message_sha256": sha256(draft.message).hex(),
        "created_at": draft.created_at,
        "expires_at": draft.expires_at,
        "thread": thread_fields(draft.thread),
    }
    if draft.resubmitted is not None:
        fields["resubmitted"] = draft.resubmitted
    return encode(fields)


def digest(draft: Draft) -> bytes:
    """SHA-256 over the canonical bytes: what signatures and grants name."""
    return sha256(canonical(draft))


def encode(fields: dict[str, object]) -> bytes:
    """RFC 8785 bytes of a JSON object. Raises VerificationFailed where it cannot be said in JSON: nobody wrote that."""
    try:
        return rfc8785.dumps(fields)  # type: ignore[arg-type]  # its own alias is recursive and invariant
    except rfc8785.CanonicalizationError as error:
        raise VerificationFailed(
            Code.ROW_UNREADABLE, f"a stored value was never written by an outbox: {error}"
        ) from error
