"""Delivery status notifications (RFC 3461, RFC 3464): the envelope id that only we can make, and what a report says.

Anybody can write a report. One that repeats an envelope id of ours was written by somebody whom the message reached, or
by the relay that took it.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from enum import StrEnum

from outbox.core.canonical import VERSION, encode
from outbox.core.errors import PolicyRefused
from outbox.core.finding import printable
from outbox.core.grant import without_tokens
from outbox.core.rendering import decode_text, leaves, type_of
from outbox.core.signing import KeyRing, Purpose, Signature

LARGEST_READ = 256 * 1024  # octets of a report; what it says stands before the message that it returns
MOST_RECIPIENTS = 20
_MOST_LINES = 2000
_LONGEST_LINE = 2000
_LONGEST_WORDS = 200
_LONGEST_TYPE = 2000
_UUID, _KEY_ID, _MAC = 16, 8, 32  # octets
_PIECE = 32  # characters
_TYPES = {"message/delivery-status", "message/global-delivery-status"}  # the second is RFC 6533's
_REPORT_TYPE = re.compile(r';\s*report-type\s*=\s*"?(?:global-)?delivery-status"?\s*(?:;|$)', re.IGNORECASE)


class Action(StrEnum):
    """What became of a message for one recipient (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class Submission:
    """Which draft was submitted, in which attempt."""

    draft_id: str
    attempt_id: str

    def canonical(self) -> bytes:
        """The bytes that an envelope id authenticates."""
        return encode({"version": VERSION, "draft": self.draft_id, "attempt": self.attempt_id})


@dataclass(frozen=True, slots=True)
class Fate:
    """What a report says of one recipient; every text is printable, short, and whatever its writer wanted."""

    action: Action
    address: str
    status: str
    diagnostic: str


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """A report that names one envelope id. `mta` is who wrote it; `fates` has those that failed first."""

    envid: str
    mta: str
    fates: tuple[Fate, ...]

    @property
    def failed(self) -> bool:
        """Whether it did not reach somebody."""
        return any(fate.action is Action.FAILED for fate in self.fates)

    def __str__(self) -> str:
        """One line for people."""
        said = (
            f"{fate.action} to {fate.address}: status {fate.status}{fate.diagnostic and f' ({fate.diagnostic})'}"
            for fate in self.fates
        )
        return f"{'; '.join(said)}; by MTA {self.mta}"


def envid(ring: KeyRing, draft_id: str, attempt_id: str) -> str:
    """The ENVID of one attempt, 98 characters: both ids, the key's id and a MAC under the grant key, in base64url.

    RFC 3461 4.4 allows 100. Raises ValueError for ids that are no UUIDs.
    """
    signature = ring.sign(Purpose.DELIVERY, Submission(draft_id, attempt_id).canonical())
    octets = uuid.UUID(draft_id).bytes + uuid.UUID(attempt_id).bytes + bytes.fromhex(signature.key_id)
    return _spelt(octets + signature.octets)


def split_envid(text: str) -> tuple[Submission, Signature] | None:
    """What an ENVID says, or None where `text` is not the one spelling of one. Nothing is verified yet."""
    try:
        octets = base64.urlsafe_b64decode(text.replace(".", ""))
    except (binascii.Error, ValueError):
        return None
    if len(octets) != 2 * _UUID + _KEY_ID + _MAC or _spelt(octets) != text:
        return None
    ids, made = octets[: 2 * _UUID], octets[2 * _UUID :]
    submission = Submission(str(uuid.UUID(bytes=ids[:_UUID])), str(uuid.UUID(bytes=ids[_UUID:])))
    return submission, Signature(made[:_KEY_ID].hex(), made[_KEY_ID:])


def _spelt(octets: bytes) -> str:
    """In pieces that are too short to be taken for a reply token, wherever those are looked for."""
    text = base64.urlsafe_b64encode(octets).decode()
    return ".".join(text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def verified_envid(ring: KeyRing, text: str) -> Submission | None:
    """The submission that an ENVID was made for, or None unless a key of this ring made it."""
    parts = split_envid(text)
    if parts is None or not ring.verify(Purpose.DELIVERY, parts[0].canonical(), parts[1]):
        return None
    return parts[0]


def is_delivery_report(media_type: str) -> bool:
    """Whether an unfolded Content-Type is that of a delivery status notification."""
    short = media_type[:_LONGEST_TYPE]
    kind = short.partition(";")[0].strip().lower()
    return kind == "multipart/report" and _REPORT_TYPE.search(short) is not None


def parse_report(octets: bytes) -> DeliveryReport | None:
    """What a multipart/report says, or None where it names no envelope id, or can be read in two ways."""
    try:
        parts = [part for part in leaves(octets[:LARGEST_READ]) if type_of(part) in _TYPES]
        text = _text_of(parts)
    except (PolicyRefused, RecursionError, ValueError, LookupError):
        return None
    about, *each = list(_groups(text)) or [[]]
    ids = [value for name, value in about if name == "original-envelope-id"]
    fates = [fate for group in each[:MOST_RECIPIENTS] if (fate := _fate(group)) is not None]
    if len(ids) != 1 or not fates:
        return None
    fates.sort(key=lambda fate: fate.action is not Action.FAILED)
    return DeliveryReport(ids[0], _value(about, "reporting-mta", typed=True), tuple(fates))


def _text_of(parts: list[Message]) -> str:
    return decode_text(parts[0]) if len(parts) == 1 else ""


def _groups(text: str) -> Iterator[list[tuple[str, str]]]:
    """Groups of fields with blank lines between (RFC 3464 2.1), names in lower case, values unfolded."""
    group: list[tuple[str, str]] = []
    for line in [*text.split("\n", _MOST_LINES)[:_MOST_LINES], ""]:
        name, colon, value = line[:_LONGEST_LINE].partition(":")
        if not line.strip():
            if group:
                yield group
            group = []
        elif line[0] in " \t" and group:
            last, before = group[-1]
            group[-1] = (last, f"{before} {line.strip()}".strip()[:_LONGEST_LINE])
        elif colon:
            group.append((name.strip().lower(), value.strip()))


def _fate(group: list[tuple[str, str]]) -> Fate | None:
    try:
        action = Action(_value(group, "action").partition(" ")[0].lower())
    except ValueError:
        return None
    return Fate(
        action=action,
        address=_value(group, "original-recipient", typed=True) or _value(group, "final-recipient", typed=True),
        status=_value(group, "status"),
        diagnostic=_value(group, "diagnostic-code"),
    )


def _value(group: list[tuple[str, str]], wanted: str, *, typed: bool = False) -> str:
    """The first field of a name for a line of ours; `typed` where a type and a semicolon stand before it."""
    value = next((value for name, value in group if name == wanted), "")
    value = value.partition(";")[2] if typed and ";" in value else value
    return " ".join(printable(without_tokens(value)).split())[:_LONGEST_WORDS]
