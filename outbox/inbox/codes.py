"""One-time codes (TOTP, RFC 6238): six digits from an authenticator, for mailboxes whose mail proves nothing.

Nothing here remembers a code: that each of them is taken once, and that wrong ones are counted, is the store's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass

from outbox.core.draft import MICROSECONDS

STEP = 30
"""Seconds that a code is shown for. Authenticators know no other number."""
GRACE = 300
"""Seconds before a message's arrival from which its code may be.

Mail takes time: the code is read before the reply is written to its end, and the reply goes through two servers. One
time step ahead is for a phone whose clock is fast. That makes 300 / 30 + 1 + 1 = 12 codes of a million at any moment,
so that the five tries a token has find one with a probability of 12 * 5 / 1,000,000 = 0.00006.
"""
_LEAST_SECRET_OCTETS = 16  # RFC 4226 section 4, R6
_LONGEST_SECRET_FILE = 1024
_CODE = re.compile(r"([0-9]{3}) ?([0-9]{3})")
CODE_FORM = re.compile(r"(?<![0-9])[0-9]{3}[ \u00a0]?[0-9]{3}(?![0-9])")  # where it stands in a text
_BASE32 = re.compile(r"[A-Z2-7]+")


@dataclass(frozen=True, slots=True)
class Matched:
    """The time step that a code belongs to, counted from 1970: what is written down so that it is taken once."""

    step: int


def match_code(secret: str, code: str, *, since: int, until: int) -> Matched | None:
    """The newest time step from `since` to `until` (microseconds UTC, both included) that shows `code`, or None.

    `secret` is what `parse_secret` gave. Six ASCII digits are a code, also with a blank in the middle.
    How long it takes does not tell which step it was, nor how much of the code was right.
    """
    from pyotp import TOTP

    written = _CODE.fullmatch(code.strip(" \t"))
    if written is None:
        return None
    given, generator, found = written[1] + written[2], TOTP(secret, interval=STEP), None
    for step in range(max(0, since) // (STEP * MICROSECONDS), until // (STEP * MICROSECONDS) + 1):
        if hmac.compare_digest(generator.generate_otp(step), given):
            found = Matched(step)
    return found


def parse_secret(octets: bytes) -> str:
    """The base32 secret in a file's octets; blanks, line ends, padding and case are forgiven.

    Raises ValueError, which does not repeat the secret, where it is not base32 or shorter than 128 bits (RFC 4226
    section 4, R6).
    """
    text = "".join(octets[:_LONGEST_SECRET_FILE].decode("ascii", "replace").split()).upper().rstrip("=")
    if len(octets) > _LONGEST_SECRET_FILE or not _BASE32.fullmatch(text):
        raise ValueError("it is not one secret in base32 (letters and the digits 2 to 7)")
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        raise ValueError("it is not whole: no base32 has that length") from None
    if len(raw) < _LEAST_SECRET_OCTETS:
        raise ValueError(f"it has {len(raw) * 8} bits; a secret has at least {_LEAST_SECRET_OCTETS * 8}")
    return text
