"""A draft: an immutable envelope, message and limits, parsed once at the border."""

from __future__ import annotations

from dataclasses import dataclass

MICROSECONDS = 1_000_000
DAY = 86400  # seconds


@dataclass(frozen=True, slots=True)
class Envelope:
    """RFC 5321 sender and recipients, as MAIL and RCPT will say them: domains in their ASCII form."""

    sender: str
    to: tuple[str, ...]
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()

    @property
    def recipients(self) -> tuple[str, ...]:
        """Every address that RCPT will name, in order."""
        return self.to + self.cc + self.bcc


@dataclass(frozen=True, slots=True)
class Thread:
    """The Message-IDs that a draft answers, with angle brackets."""

    in_reply_to: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """What is signed: everything that decides who receives which octets, and until when.

    `message` is RFC 5322 octets with CRLF line ends and no Date; instants are microseconds UTC. `resubmitted` is why
    the agent asks again for what was rejected.
    """

    id: str
    kind: str
    agent: str
    envelope: Envelope
    message: bytes
    created_at: int
    expires_at: int
    thread: Thread = Thread()
    resubmitted: str | None = None


def uuid7(now: int, randomness: bytes) -> str:
    """A UUIDv7 (RFC 9562 5.7) of an instant in microseconds and 10 random octets: ids that sort by time."""
    if len(randomness) != 10:
        raise ValueError("a UUIDv7 takes 10 random octets")
    octets = bytearray((now // 1000).to_bytes(6, "big") + randomness)
    octets[6] = 0x70 | octets[6] & 0x0F
    octets[8] = 0x80 | octets[8] & 0x3F
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
