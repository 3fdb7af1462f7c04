"""A hostile relay for many drafts at once: it knows each by its sender, and keeps the truth of what it took.

The scripted relay follows one script a connection. Here the first steps, where no draft is named yet, follow the
connection's; from MAIL on each sender has scripts of its own, the nth for its nth transaction, and is treated well
after the last. Beside what the scripted relay can do, it can wait, and say one octet a second.
"""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy

from tests.relay.recording import Sent
from tests.relay.scripted import (
    EXTENSIONS,
    Action,
    Fin,
    Hold,
    Keep,
    Phase,
    Rst,
    Say,
    Script,
    ScriptedRelay,
    Seen,
    _Conversation,
    _path,
)

__all__ = ["Adversary", "Drip", "Fin", "Hold", "Keep", "Phase", "Rst", "Say", "Script", "Wait", "complete"]


@dataclass(frozen=True)
class Wait:
    """Do nothing, and read nothing, for so many seconds, or until `release()`."""

    seconds: float


@dataclass(frozen=True)
class Drip(Say):
    """Send these octets one by one, so many seconds apart; all at once after `release()`."""

    every: float = 1.0


def complete(code: int, *lines: str) -> Say:
    """A whole reply, of as many lines as there are words for."""
    *firsts, last = lines or ("",)
    return Say("".join([*(f"{code}-{line}\r\n" for line in firsts), f"{code} {last}\r\n"]).encode())


class Adversary(ScriptedRelay):
    """`connections` follow one another; `senders` maps an envelope sender to its scripts.

    With `tls` it offers STARTTLS and with `login` AUTH; without, a client that asks for them finds them stripped.
    """

    def __init__(
        self,
        *connections: Script,
        senders: Mapping[str, Sequence[Script]] | None = None,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        extensions: tuple[str, ...] = EXTENSIONS,
    ) -> None:
        super().__init__(*connections, tls=tls, login=login, extensions=extensions)
        self._senders = {sender: list(scripts) for sender, scripts in (senders or {}).items()}
        self._choosing = threading.Lock()

    @property
    def drafts(self) -> Counter[str]:
        """How often each draft was taken, by its X-Outbox-Draft; under "" what carries none."""
        return Counter(draft_of(sent) for sent in self.messages)

    def strays(self, approved: Mapping[str, tuple[str, Sequence[str], bytes]]) -> list[Sent]:
        """What was taken and is not what was approved: empty, foreign, cut off, or in another's envelope.

        `approved` is, by draft, its sender, its recipients, and its octets without the `Date:` line in front.
        """
        return [sent for sent in self.messages if not _is_as_approved(sent, approved.get(draft_of(sent)))]

    def dots_of(self, sender: str) -> int:
        """How many final dots came in this sender's transactions, taken or not."""
        return sum(seen.dots for seen in self.seen_of(sender))

    def seen_of(self, sender: str) -> list[Seen]:
        """The connections on which this sender was named."""
        return [seen for seen in self.seen if any(_names(line, sender) for line in list(seen.commands))]

    def script_of(self, sender: str) -> Script:
        """What to do in this sender's next transaction."""
        with self._choosing:
            waiting = self._senders.get(sender)
            return waiting.pop(0) if waiting else {}

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond `release()`."""
        self._released.wait(seconds)

    def settle(self) -> None:
        """Let every wait end, and every connection with it, so that the truth is whole."""
        self.release()
        self.wait_until_over()

    def _accept(self) -> None:
        while True:
            try:
                opened, _ = self._listener.accept()
            except OSError:
                return
            script = self.scripts[len(self.seen)] if len(self.seen) < len(self.scripts) else {}
            seen = Seen()
            self.seen.append(seen)
            self._sockets.append(opened)
            thread = threading.Thread(target=_Hostile(self, opened, script, seen).run, daemon=True)
            self._threads.append(thread)
            thread.start()


class _Hostile(_Conversation):
    _relay: Adversary

    def _obey(self, line: bytes) -> None:
        if line[:5].upper() == b"MAIL ":
            self._script = {**self._script, **self._relay.script_of(_path(line))}
        if line[:5].upper() == b"HELO " and Phase.EHLO in self._script:
            line = b"EHLO " + line[5:]  # what EHLO was refused for
        super()._obey(line)

    def _act(self, actions: Sequence[Action | Wait]) -> None:
        for action in actions:
            if isinstance(action, Wait):
                self._relay.pause(action.seconds)
            elif isinstance(action, Drip):
                for octet in _octets(action.octets):
                    self._send(octet)
                    self._relay.pause(action.every)
            else:
                super()._act([action])


def draft_of(sent: Sent) -> str:
    """The draft's id as the message itself names it; "" where it names none."""
    return str(message_from_bytes(sent.octets, policy=policy.compat32)["X-Outbox-Draft"] or "")


def _is_as_approved(sent: Sent, approved: tuple[str, Sequence[str], bytes] | None) -> bool:
    if approved is None:
        return False
    sender, recipients, octets = approved
    date, _, rest = sent.octets.partition(b"\r\n")
    is_whole = date.startswith(b"Date: ") and rest == octets
    return is_whole and sent.sender == sender and sorted(sent.recipients) == sorted(recipients)


def _names(line: bytes, sender: str) -> bool:
    return line[:5].upper() == b"MAIL " and _path(line) == sender


def _octets(octets: bytes) -> Iterable[bytes]:
    return (octets[n : n + 1] for n in range(len(octets)))
