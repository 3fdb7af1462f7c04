"""A draft together with its digest and signature: made at drafting, verified again after the claim."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from outbox.core.canonical import digest
from outbox.core.draft import Draft
from outbox.core.errors import Code, VerificationFailed
from outbox.core.headers import usual_fields
from outbox.core.lifecycle import SYSTEM_KIND
from outbox.core.message import DRAFT_HEADER, decode_words, split_headers
from outbox.core.signing import KeyRing, Purpose, Signature

_DRAFT_HEADER = DRAFT_HEADER.lower()


@dataclass(frozen=True, slots=True)
class SignedDraft:
    """A draft as a row holds it.

    `subject` and `message_id` are derived from the message; the fingerprint tells repeated drafts of one agent apart
    and has no authority. `about` is the draft that a system draft speaks of.
    """

    draft: Draft
    subject: str
    message_id: str
    digest: bytes
    fingerprint: bytes
    signature: Signature
    about: str | None = None


def purpose_of(kind: str) -> Purpose:
    """The purpose a draft of `kind` is signed under: a drafter cannot make a system draft."""
    return Purpose.SYSTEM if kind == SYSTEM_KIND else Purpose.DRAFT


def sign_draft(ring: KeyRing, draft: Draft, fingerprint: bytes, about: str | None = None) -> SignedDraft:
    """Take the digest of `draft` and sign it."""
    taken = digest(draft)
    subject, message_id = derived(draft)
    return SignedDraft(draft, subject, message_id, taken, fingerprint, ring.sign(purpose_of(draft.kind), taken), about)


def derived(draft: Draft) -> tuple[str, str]:
    """Subject (decoded) and Message-ID as the message says them."""
    return _derived(split_headers(draft.message))


def _derived(headers: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    return _of_fields({name.lower(): value for name, value in reversed(headers)})


def _of_fields(values: dict[str, str]) -> tuple[str, str]:
    return decode_words(values.get("subject", "")), values.get("message-id", "")


def verify_digest(signed: SignedDraft) -> None:
    """Raise VerificationFailed unless the stored octets and envelope are what the digest was taken over."""
    if not hmac.compare_digest(digest(signed.draft), signed.digest):
        raise VerificationFailed(
            Code.DIGEST_MISMATCH, f"draft {signed.draft.id}: its row or octets are not what its digest was taken over"
        )


def verify_draft(ring: KeyRing, signed: SignedDraft) -> dict[str, str] | None:
    """Raise VerificationFailed unless every signed fact, and what derives from it, is as it was drafted.

    Returns the message's usual_fields, for who looks at it next.
    """
    verify_digest(signed)
    if not ring.verify(purpose_of(signed.draft.kind), signed.digest, signed.signature):
        raise VerificationFailed(
            Code.SIGNATURE_INVALID, f"draft {signed.draft.id}: no key of ours made its signature; it was not sent"
        )
    fields = usual_fields(signed.draft.message)
    if fields is not None:
        derives = _of_fields(fields)
        ids = [fields[_DRAFT_HEADER]] if _DRAFT_HEADER in fields else []
    else:
        headers = split_headers(signed.draft.message)
        derives = _derived(headers)
        ids = [value for name, value in headers if name.lower() == _DRAFT_HEADER]
    if (signed.subject, signed.message_id) != derives or ids != [signed.draft.id]:
        raise VerificationFailed(
            Code.DIGEST_MISMATCH, f"draft {signed.draft.id}: its subject, Message-ID or id is not what its message says"
        )
    return fields
