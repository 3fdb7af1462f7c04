"""IMAP mailboxes as the tests open them: by a clock that the test moves, with pauses that are not left to chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from outbox.core.errors import Unavailable
from outbox.inbox.imap import ImapMailbox
from outbox.inbox.mailbox import Delivered
from outbox.inbox.patience import LONGEST_PAUSE


@dataclass
class HandTime:
    """Seconds that only the test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Mailboxes:
    """Called, it opens a mailbox at loopback; left, it closes them all."""

    port: int = 0
    username: str = "approve@acme.example"
    password: str = "a password"
    time: HandTime = field(default_factory=HandTime)
    opened: list[ImapMailbox] = field(default_factory=list)

    def __call__(self, **given: object) -> ImapMailbox:
        values: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.port,
            "tls": False,
            "folder": "INBOX",
            "username": self.username,
            "secret": lambda: self.password,
            "xoauth2": False,
            "dedicated": False,
            "timeout": 10.0,
            "monotonic": self.time,
            "randomness": lambda: 0.0,
        }
        self.opened.append(ImapMailbox(**(values | given)))  # type: ignore[arg-type]
        return self.opened[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mailbox in self.opened:
            mailbox.close()


@dataclass
class Reader:
    """The inbox's side of a mailbox: what it has seen it knows, by name, with its octets."""

    mailbox: ImapMailbox
    time: HandTime
    known: dict[str, bytes | None] = field(default_factory=dict)

    def look(self) -> list[str]:
        """One look, as the inbox does it; the names that are new."""
        found = []
        for delivered in self.mailbox.messages(self.known.keys(), since=0):
            self.known[delivered.uid] = self.mailbox.read(delivered.uid)
            found.append(delivered.uid)
            self.mailbox.taken(delivered.uid)
        return found

    def look_until_well(self) -> None:
        """Look again after each failure, when its pause is over."""
        for _ in range(100):
            try:
                self.look()
            except Unavailable:
                self.time.now += LONGEST_PAUSE + 1
            else:
                return
        raise AssertionError("it never got well")


def listed(mailbox: ImapMailbox, *known: str, since: int = 0) -> list[Delivered]:
    """What a look lists."""
    return list(mailbox.messages(set(known), since=since))


def names(mailbox: ImapMailbox, *known: str) -> list[str]:
    """The same, by name alone."""
    return [one.uid for one in listed(mailbox, *known)]
