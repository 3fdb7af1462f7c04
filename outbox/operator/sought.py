"""A draft that may have left, and what a message found somewhere proves about it (docs/adr/0023)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from outbox.core.canonical import sha256
from outbox.core.message import DRAFT_HEADER

_MOST_DATES = 4  # fields of one header that could be the one added as it was sent; each costs a digest of the whole


@dataclass(frozen=True, slots=True)
class Sought:
    """What is known of the draft and its attempt.

    `gap_at` in microseconds UTC; `queue_id` is the relay's; `wire_digest` is SHA-256 of what the relay was given, and
    `message` the stored octets. Without these two no copy outside a Sent folder proves anything.
    """

    draft_id: str
    message_id: str
    recipients: tuple[str, ...]
    gap_at: int | None
    queue_id: str | None
    wire_digest: bytes | None = None
    message: bytes = field(default=b"", repr=False)

    def is_named_in(self, head: bytes) -> bool:
        """Whether a header carries a name that only this draft has.

        A Message-ID is one where the outbox made it. An agent's own may stand in the copy that its mail program kept of
        what it handed to the outbox, and in what was drafted anew.
        """
        ids = list(_values(head, DRAFT_HEADER))
        if ids:
            return ids == [self.draft_id]
        return self.draft_id in self.message_id and self.has_message_id(head)

    def has_message_id(self, head: bytes) -> bool:
        """Whether this is its Message-ID, and the only one."""
        return list(_values(head, "Message-ID")) == [self.message_id]

    def likeness(self, octets: bytes) -> str | None:
        """In which way a whole message is the one that was sent, in words that follow "it"; None where it is not.

        Servers on the way put lines of their own on top, above our Date; some write another Date or Message-ID.
        """
        head, blank, body = octets.partition(b"\r\n\r\n")
        if self.wire_digest and any(sha256(octets[at:]) == self.wire_digest for at in _dates(head)):
            return "is octet for octet what the relay was given"
        own = self.message.partition(b"\r\n\r\n")[2].rstrip(b"\r\n")
        if blank and own and body.rstrip(b"\r\n") == own:
            return "has this draft's text, octet for octet"
        return None


def _values(head: bytes, name: str) -> Iterator[str]:
    """The unfolded values of a field, above the first blank line."""
    for line in re.split(rb"\r\n(?![ \t])", head.partition(b"\r\n\r\n")[0]):
        label, colon, value = line.partition(b":")
        if colon and label.rstrip(b" \t").lower() == name.lower().encode():
            yield value.replace(b"\r\n", b"").decode("utf-8", "replace").strip(" \t")


def _dates(head: bytes) -> list[int]:
    """Where Date fields begin, spelled as ours is."""
    return [found.start() for found in re.finditer(rb"^Date: ", head, re.MULTILINE)][:_MOST_DATES]
