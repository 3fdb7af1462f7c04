"""A raw message as it came, read with limits: the most hostile input there is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from email.message import Message
from email.utils import parsedate_to_datetime

from outbox.core.address import parse_mailboxes
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import PolicyRefused
from outbox.core.grant import without_tokens
from outbox.core.message import parse_message_ids
from outbox.core.rendering import decode_text, leaves, type_of

LARGEST_HEADER = 256 * 1024
LARGEST_MESSAGE = 25 * 1024 * 1024
_MOST_FIELDS = 1000
_FIELD = re.compile(r"([!-9;-~]{1,100})[ \t]*:(.*)", re.DOTALL)
_AUTOMATIC_PRECEDENCE = {"bulk", "junk", "list", "auto_reply"}
_AUTOMATIC_FIELDS = {
    "x-auto-response-suppress", "x-autoreply", "x-auto-reply", "x-autorespond", "x-autoresponder", "x-loop",
    "feedback-id", "x-failed-recipients", "list-id", "list-unsubscribe", "list-subscribe", "list-post", "list-help",
    "list-owner", "list-archive",
}  # fmt: skip
_AUTOMATIC_TYPES = {"text/calendar", "message/disposition-notification", "message/delivery-status", "multipart/report"}


@dataclass(frozen=True, slots=True)
class Incoming:
    """Header fields in order (names in lower case, values unfolded) and the whole octets.

    `whole` is false where the header is longer than what is read, or has lines that are no fields: what it does not
    say cannot be relied on then.
    """

    fields: tuple[tuple[str, str], ...]
    whole: bool
    octets: bytes

    def values(self, names: Iterable[str]) -> tuple[str, ...]:
        """Every value of the fields of these names, in order."""
        return tuple(value for name, value in self.fields if name in names)


def parse_incoming(octets: bytes) -> Incoming:
    """Read the header block, within its limits."""
    blank = re.search(rb"\r?\n\r?\n", octets[:LARGEST_HEADER])
    head = octets[: blank.start() if blank else LARGEST_HEADER].rstrip(b"\r\n")
    lines = re.split(rb"\r?\n(?![ \t])", head)
    found = [_FIELD.fullmatch(line.decode("utf-8", "replace")) for line in lines[:_MOST_FIELDS]]
    fields = [(field[1].lower(), re.sub(r"[\r\n]+", "", field[2]).strip()) for field in found if field is not None]
    ended = blank is not None or len(octets) < LARGEST_HEADER
    return Incoming(tuple(fields), ended and len(fields) == len(lines), octets)


def only_author(incoming: Incoming) -> tuple[str | None, str]:
    """The one address in the one From header, or None and why there is not exactly one."""
    values = incoming.values({"from"})
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
    """The Message-ID, or an empty text where there is not exactly one that can be said in a header."""
    values = incoming.values({"message-id"})
    ids = parse_message_ids(values[0]) if len(values) == 1 else ()
    usable = len(ids) == 1 and "=?" not in ids[0] and ids[0].isprintable() and without_tokens(ids[0]) == ids[0]
    return ids[0] if usable else ""


def dated_at(incoming: Incoming) -> int | None:
    """The Date header in microseconds UTC, or None."""
    values = incoming.values({"date"})
    if len(values) != 1 or len(values[0]) > 200:
        return None
    try:
        moment = parsedate_to_datetime(values[0])
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * MICROSECONDS
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def why_automatic(incoming: Incoming) -> str | None:
    """What in the header shows that no person wrote this, or None."""
    if not incoming.whole:
        return "its header is too long, or not a header, to be relied on"
    for value in incoming.values({"auto-submitted"}):
        if value.partition(";")[0].strip().lower() != "no":
            return f"Auto-Submitted: {value[:40]}"
    for value in incoming.values({"precedence"}):
        if value.strip().lower() in _AUTOMATIC_PRECEDENCE:
            return f"Precedence: {value[:40]}"
    for name, _ in incoming.fields:
        if name in _AUTOMATIC_FIELDS:
            return f"it has a {name} header"
    if any(value.strip() in {"", "<>"} for value in incoming.values({"return-path"})):
        return "its envelope sender is empty"
    for value in incoming.values({"content-type"}):
        if value.partition(";")[0].strip().lower() in _AUTOMATIC_TYPES:
            return f"it is a {value.partition(';')[0].strip().lower()}"
    return None


@dataclass(frozen=True, slots=True)
class Written:
    """What a person wrote: the characters of every text/plain part, or None and why there are none to read.

    `automatic` says which part shows that a program wrote the message.
    """

    text: str | None
    why: str = ""
    automatic: str | None = None


def plain_text(incoming: Incoming) -> Written:
    """Every inline text/plain part together: what stands below a picture belongs to the answer too."""
    if len(incoming.octets) > LARGEST_MESSAGE:
        return Written(None, "the message is over 25 MiB")
    try:
        parts = list(leaves(incoming.octets))
        texts = [decode_text(part) for part in parts if _is_inline_text(part)]
    except PolicyRefused as refused:
        return Written(None, refused.message)
    except RecursionError:
        return Written(None, "its parts are nested beyond reason")
    types = (type_of(part) for part in parts)
    automatic = next((f"it has a {found} part" for found in types if found in _AUTOMATIC_TYPES), None)
    if not texts:
        return Written(None, "it has no text/plain part", automatic)
    return Written("\n".join(texts), automatic=automatic)


def _is_inline_text(part: Message) -> bool:
    named = part.get_filename() is not None or part.get_content_disposition() == "attachment"
    return part.get_content_type() == "text/plain" and not named
