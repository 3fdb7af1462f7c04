"""A place that replies arrive in, as the inbox sees it: read, and left as another reader would want to find it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message: the mailbox's own lasting name for it, and the header fields that are looked at first.

    `arrived_at` is when the mailbox took it, in microseconds UTC, where the mailbox says that.
    """

    uid: str
    head: bytes
    arrived_at: int | None = None


class Mailbox(Protocol):
    """Every method raises Unavailable where the mailbox cannot be reached; the next call tries again."""

    @property
    def name(self) -> str:
        """What replies are recorded under; it has no password in it."""

    @property
    def numbered(self) -> bool:
        """Whether a uid is VALIDITY.NUMBER, so that the same message may come again under another validity."""

    def messages(self, known: Collection[str], *, since: int) -> Iterator[Delivered]:
        """Messages that are there, have no uid in `known`, and did not arrive before `since`; the oldest first."""

    def read(self, uid: str) -> bytes | None:
        """The octets, at most one more than LARGEST_MESSAGE; None where the message is gone or has another name now."""

    def taken(self, uid: str) -> None:
        """Say that its record is stored: in a mailbox that is ours alone, it is marked as seen."""

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Return when something may have arrived, after `seconds`, or soon after `stop` is set."""

    def close(self) -> None:
        """Leave the mailbox."""
