"""Authority to send one digest, and the reply token that asks for it."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum

from outbox.core.canonical import VERSION, are_whole, encode, quoted
from outbox.core.signing import REPLY_MAC_OCTETS, KeyRing, Purpose, Signature

REQUEST_ID_OCTETS = 8
_ID_CHARACTERS = (REQUEST_ID_OCTETS * 8 + 4) // 5  # 13: base32 without its padding
_MAC_CHARACTERS = (REPLY_MAC_OCTETS * 8 + 4) // 5  # 26
TOKEN_CHARACTERS = _ID_CHARACTERS + _MAC_CHARACTERS
_TOKEN_FORM = re.compile(rf"[A-Za-z2-7]{{{TOKEN_CHARACTERS},}}")


class Channel(StrEnum):
    """How an approver gave his verdict."""

    REPLY = "reply"
    TERMINAL = "terminal"


@dataclass(frozen=True, slots=True)
class Grant:
    """Signed, expiring, single-use authority to send one digest. Instants are microseconds UTC."""

    id: str
    draft_id: str
    digest: bytes
    approver: str
    channel: Channel
    at: int
    expires_at: int

    def canonical(self) -> bytes:
        """The bytes that are signed."""
        if are_whole(self.at, self.expires_at):
            try:
                return self._canonical().encode()
            except (TypeError, UnicodeEncodeError):  # no text, or none that can be encoded
                pass
        return encode(
            {
                "version": VERSION,
                "id": self.id,
                "draft": self.draft_id,
                "digest": self.digest.hex(),
                "approver": self.approver,
                "channel": self.channel.value,
                "at": self.at,
                "expires_at": self.expires_at,
            }
        )

    def _canonical(self) -> str:
        return (
            f'{{"approver":{quoted(self.approver)},"at":{self.at},"channel":{quoted(self.channel)},'
            f'"digest":"{self.digest.hex()}","draft":{quoted(self.draft_id)},"expires_at":{self.expires_at},'
            f'"id":{quoted(self.id)},"version":{VERSION}}}'
        )


def sign_grant(ring: KeyRing, grant: Grant) -> Signature:
    """Sign a grant with the newest grant key."""
    return ring.sign(Purpose.GRANT, grant.canonical())


def verify_grant(ring: KeyRing, grant: Grant, signature: Signature) -> bool:
    """Whether the grant key made this grant, word for word."""
    return ring.verify(Purpose.GRANT, grant.canonical(), signature)


@dataclass(frozen=True, slots=True)
class Request:
    """What one approver was shown and asked: its digest binds the answer to what stood in that mail."""

    id: bytes
    draft_id: str
    digest: bytes
    approver: str
    expires_at: int

    def canonical(self) -> bytes:
        """The bytes that the reply token authenticates."""
        return encode(
            {
                "version": VERSION,
                "id": self.id.hex(),
                "draft": self.draft_id,
                "digest": self.digest.hex(),
                "approver": self.approver,
                "expires_at": self.expires_at,
            }
        )

    @property
    def tag(self) -> str:
        """A short name for the subject line, of no authority."""
        return _base32(self.id)[:6]


def _base32(octets: bytes) -> str:
    return base64.b32encode(octets).decode().rstrip("=").lower()


def placeholder(request_id: bytes) -> str:
    """What stands in stored octets where the token will be; "0" and "1" are not in base32, so it is never a token."""
    return _base32(request_id) + "0" * _MAC_CHARACTERS


def reply_token(ring: KeyRing, request: Request) -> str:
    """39 characters of lower-case base32: request id (13) and MAC (26)."""
    return _base32(request.id) + _base32(ring.reply_mac(request.canonical()))


def without_tokens(text: str) -> str:
    """`text` of a stranger, for a row or a log: whatever has the form of a token is left out."""
    return _TOKEN_FORM.sub("(token)", text)


def split_token(text: str) -> tuple[bytes, bytes] | None:
    """Request id and MAC of a token in any case, or None where `text` is not the one spelling of a token."""
    if len(text) != TOKEN_CHARACTERS:
        return None
    parts = text[:_ID_CHARACTERS], text[_ID_CHARACTERS:]
    try:
        request_id, mac = (base64.b32decode(part.upper() + "=" * (-len(part) % 8)) for part in parts)
    except (binascii.Error, ValueError):
        return None
    if (_base32(request_id), _base32(mac)) != (parts[0].lower(), parts[1].lower()):
        return None  # base32 ignores the last bits; a token has one spelling
    return request_id, mac
