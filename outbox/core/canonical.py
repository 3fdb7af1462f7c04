"""Versioned canonical bytes (RFC 8785), and the digests over them.

Canonical bytes name their own version, so that a later form can never be read as this one.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from json.encoder import encode_basestring

import rfc8785

from outbox.core.draft import Draft, Envelope, Thread
from outbox.core.errors import Code, VerificationFailed

VERSION = 1
_LARGEST_INTEGER = 2**53 - 1  # RFC 8785 3.2.2.3: what a double holds exactly


def sha256(octets: bytes) -> bytes:
    """SHA-256, 32 octets."""
    return hashlib.sha256(octets).digest()


quoted = encode_basestring  # text as RFC 8785 has it: the same characters are escaped, in the same way


def quoted_or_null(text: str | None) -> str:
    """Text, or null, as RFC 8785 has them."""
    return "null" if text is None else quoted(text)


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


def envelope_json(envelope: Envelope) -> str:
    """The envelope as canonical JSON. Raises VerificationFailed where it cannot be said in JSON."""
    try:
        text = _envelope(envelope)
        text.encode()
    except (TypeError, UnicodeEncodeError):
        return encode(envelope_fields(envelope)).decode()
    return text


def _envelope(envelope: Envelope) -> str:
    bcc, cc = _texts(envelope.bcc), _texts(envelope.cc)
    return f'{{"bcc":[{bcc}],"cc":[{cc}],"from":{quoted(envelope.sender)},"to":[{_texts(envelope.to)}]}}'


def _texts(texts: tuple[str, ...]) -> str:
    return "" if texts == () else ",".join(map(quoted, texts))


def canonical(draft: Draft) -> bytes:
    """The bytes that a draft's digest is taken over."""
    if are_whole(draft.created_at, draft.expires_at):
        try:
            return _canonical(draft).encode()
        except (TypeError, UnicodeEncodeError):  # no text, or none that can be encoded
            pass
    return encode(_draft_fields(draft))


def are_whole(one: int, other: int) -> bool:
    """Whether Python writes both as RFC 8785 does: exact integers, no bools, that a double can hold."""
    return (
        type(one) is int
        and type(other) is int
        and -_LARGEST_INTEGER <= one <= _LARGEST_INTEGER
        and -_LARGEST_INTEGER <= other <= _LARGEST_INTEGER
    )


def _canonical(draft: Draft) -> str:
    """What `encode` makes of `_draft_fields`, the names put in their order beforehand. Raises TypeError."""
    again = "" if draft.resubmitted is None else f'"resubmitted":{quoted(draft.resubmitted)},'
    thread = draft.thread
    return (
        f'{{"agent":{quoted(draft.agent)},"created_at":{draft.created_at},"envelope":{_envelope(draft.envelope)},'
        f'"expires_at":{draft.expires_at},"id":{quoted(draft.id)},"kind":{quoted(draft.kind)},'
        f'"message_sha256":"{hashlib.sha256(draft.message).hexdigest()}",{again}'
        f'"thread":{{"in_reply_to":{quoted_or_null(thread.in_reply_to)},"references":[{_texts(thread.references)}]}},'
        f'"version":{VERSION}}}'
    )


def _draft_fields(draft: Draft) -> dict[str, object]:
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
    return fields


def digest(draft: Draft) -> bytes:
    """SHA-256 over the canonical bytes: what signatures and grants name."""
    return sha256(canonical(draft))


def encode(fields: dict[str, object]) -> bytes:
    """RFC 8785 bytes of a JSON object. Raises VerificationFailed where it cannot be said in JSON: nobody wrote that."""
    try:
        return _plain_object(fields).encode()
    except (_Unusual, UnicodeEncodeError):
        return _encode_anything(fields)


class _Unusual(Exception):
    """A value that the library is asked about."""


def _plain_object(fields: dict[str, object]) -> str:
    """What rfc8785 writes for text, integers, null, lists and objects of them; six times as fast."""
    parts = []
    for name, label in _labels(tuple(fields)):
        value = fields[name]
        parts.append(f"{label}{encode_basestring(value)}" if type(value) is str else label + _plain(value))
    return f"{{{','.join(parts)}}}"


def _plain(value: object) -> str:
    # Exact types: a bool is an int, and an enum may be either.
    if type(value) is str:
        return encode_basestring(value)
    if type(value) is int and -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
        return str(value)
    if value is None:
        return "null"
    if type(value) is list:
        return f"[{','.join(map(_plain, value))}]"
    if type(value) is dict:
        return _plain_object(value)
    raise _Unusual


@lru_cache(maxsize=128)
def _labels(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Names in their order, each with the text before its value. In ASCII that of UTF-16 is the same (3.2.3)."""
    if not all(type(name) is str and name.isascii() for name in names):
        raise _Unusual
    return tuple((name, f"{encode_basestring(name)}:") for name in sorted(names))


def _encode_anything(fields: dict[str, object]) -> bytes:
    try:
        return rfc8785.dumps(fields)  # type: ignore[arg-type]  # its own alias is recursive and invariant
    except rfc8785.CanonicalizationError as error:
        raise VerificationFailed(
            Code.ROW_UNREADABLE, f"a stored value was never written by an outbox: {error}"
        ) from error
