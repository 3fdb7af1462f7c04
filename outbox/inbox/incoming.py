"""A raw message as it came, read with limits: the most hostile input there is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from outbox.core.address import parse_mailboxes
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import PolicyRefused
from outbox.core.message import parse_message_ids
from outbox.core.rendering import decode_text, leaves

LARGEST_HEADER = 256 * 1024
LARGEST_MESSAGE = 25 * 1024 * 1024
_MOST_FIELDS = 1000
_FIELD = re.compile(r"([!-9;-~]{1,100})[ \t]*:(.*)", re.DOTALL)
_AUTOMATIC_PRECEDENCE = {"bulk", "junk", "list", "auto_reply"}
_AUTOMATIC_FIELDS = (
    "x-auto-response-suppress", "x-autoreply", "x-autorespond", "x-autoresponder", "list-id", "list-unsubscribe",
    "list-post", "list-help", "feedback-id", "x-failed-recipients",
)  # fmt: skip
_AUTOMATIC_TYPES = ("multipart/report", "text/calendar", "message/disposition-notification", "message/delivery-status")


@dataclass(frozen=True, slots=True)
class Incoming:
    """Header fields in order (names in lower case, values unfolded) and the whole octets."""

    fields: tuple[tuple[str, str], ...]
    octets: bytes

    def values(self, *names: str) -> tuple[str, ...]:
        """Every value of the fields of these names, in order."""
        return tuple(value for name, value in self.fields if name in names)


def parse_incoming(octets: bytes) -> Incoming:
    """Read the header block; what is not a field, or beyond the limits, is left out."""
    head = re.split(rb"\r?\n\r?\n", octets[:LARGEST_HEADER], maxsplit=1)[0]
    fields = []
    for raw in re.split(rb"\r?\n(?![ \t])", head)[:_MOST_FIELDS]:
        found = _FIELD.fullmatch(raw.decode("utf-8", "replace"))
        if found is not None:
            fields.append((found[1].lower(), re.sub(r"[\r\n]+", "", found[2]).strip()))
    return Incoming(tuple(fields), octets)


def only_author(incoming: Incoming) -> tuple[str | None, str]:
    """The one address in the one From header, or None and why there is not exactly one."""
    values = incoming.values("from")
    if len(values) != 1:
        return None, f"there are {len(values)} From headers"
    try:
        mailboxes = parse_mailboxes(values[0], "From")
    except PolicyRefused:
        return None, "the From header is not one plain address"
    if len(mailboxes) != 1:
        return None, f"the From header names {len(mailboxes)} addresses"
    return mailboxes[0].address, ""


def message_id_of(incoming: Incoming) -> str:
    """The Message-ID, or an empty text where there is not exactly one."""
    values = incoming.values("message-id")
    ids = parse_message_ids(values[0][:LARGEST_HEADER]) if len(values) == 1 else ()
    return ids[0] if len(ids) == 1 else ""


def dated_at(incoming: Incoming) -> int | None:
    """The Date header in microseconds UTC, or None."""
    values = incoming.values("date")
    if len(values) != 1 or len(values[0]) > 200:
        return None
    try:
        moment = parsedate_to_datetime(values[0])
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * MICROSECONDS
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def why_automatic(incoming: Incoming) -> str | None:
    """What shows that no person wrote this, or None."""
    for value in incoming.values("auto-submitted"):
        if value.partition(";")[0].strip().lower() != "no":
            return f"Auto-Submitted: {value[:40]}"
    for value in incoming.values("precedence"):
        if value.strip().lower() in _AUTOMATIC_PRECEDENCE:
            return f"Precedence: {value[:40]}"
    for name in _AUTOMATIC_FIELDS:
        if incoming.values(name):
            return f"it has a {name} header"
    if any(value.strip() == "<>" for value in incoming.values("return-path")):
        return "its envelope sender is empty"
    for value in incoming.values("content-type"):
        if value.strip().lower().startswith(_AUTOMATIC_TYPES):
            return f"it is a {value.partition(';')[0].strip().lower()[:60]}"
    return None


def plain_text(incoming: Incoming) -> tuple[str | None, str]:
    """The first text/plain part's characters, or None and why there is none to read."""
    if len(incoming.octets) > LARGEST_MESSAGE:
        return None, "the message is over 25 MiB"
    try:
        for part in leaves(incoming.octets):
            if part.get_content_type() == "text/plain" and part.get_content_disposition() != "attachment":
                return decode_text(part), ""
    except (PolicyRefused, RecursionError):
        return None, "its parts are nested or multiplied beyond reason"
    return None, "it has no text/plain part"
