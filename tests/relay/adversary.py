"""A hostile relay for many drafts at once: it knows each by its sender, and keeps the truth of what it took.

The scripted relay follows one script a connection. Here the first steps, where no draft is named yet, follow the
connection's; from MAIL on each sender has scripts of its own, the nth for its nth transaction, and is treated well
after the last. A client that hears nothing to MAIL, but that the relay is leaving, on a connection that it has used
before, tries again on a new one (that is one transaction to it), and meets there what it met here. Beside what the
scripted relay can do, it can wait, and say one octet a second.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy
from itertools import takewhile

from tests.relay.recording import Sent
from tests.relay.scripted import (
    EXTENSIONS,
    ONE_AT_A_TIME,
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

__all__ = [
    "EXTENSIONS",
    "ONE_AT_A_TIME",
    "Adversary",
    "Drip",
    "Fin",
    "Hold",
    "Keep",
    "Phase",
    "Rst",
    "Say",
    "Script",
    "Wait",
    "complete",
]
_MOST_LINES = 100  # of a reply that a client reads
_ANSWERED = re.compile(rb"(?s)(?:([0-9]{3})-[^\n]*\n(?:\1-[^\n]*\n)*\1|[2-5][0-9]{2})(?: [^\n]*)?\r?\n")


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

    With `tls` it offers STARTTLS and with `login` AUTH; without, a client that asks for them finds them stripped. It
    offers PIPELINING; not so with `extensions=ONE_AT_A_TIME`.
    """

    def __init__(
        self,
        *connections: Script,
        senders: Mapping[str, Sequence[Script]] | None = None,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        extensions: tuple[str, ...] = EXTENSIONS,
    ) -> None:
        super().__init__(*connections, tls=tls, login=login, extensions=extensions, kept=True)
        self._senders = {sender: list(scripts) for sender, scripts in (senders or {}).items()}
        self._choosing = threading.Lock()
        self._dots: Counter[str] = Counter()

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
        return self._dots[sender]

    def seen_of(self, sender: str) -> list[Seen]:
        """The connections on which this sender was named."""
        return [seen for seen in self.seen if any(_names(line, sender) for line in list(seen.commands))]

    def script_of(self, sender: str, *, used: bool) -> Script:
        """What to do in this sender's next transaction, on a connection that was `used` before or not."""
        with self._choosing:
            waiting = self._senders.get(sender)
            if not waiting:
                return {}
            return waiting[0] if used and _comes_again(waiting[0].get(Phase.MAIL)) else waiting.pop(0)

    def count_dot(self, sender: str) -> None:
        """One more final dot of this sender's."""
        with self._choosing:
            self._dots[sender] += 1

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

    def __init__(self, relay: ScriptedRelay, opened: socket.socket, script: Script, seen: Seen) -> None:
        super().__init__(relay, opened, script, seen)
        self._from_the_start = script

    def _obey(self, line: bytes) -> None:
        if line[:5].upper() == b"MAIL ":
            script = self._relay.script_of(_path(line), used="MAIL" in self._seen.verbs)
            self._script = {**self._from_the_start, **script}
        if line[:5].upper() == b"HELO " and Phase.EHLO in self._script:
            line = b"EHLO " + line[5:]  # what EHLO was refused for
        super()._obey(line)

    def _body(self) -> bytes:
        body = super()._body()
        self._relay.count_dot(self._sender)
        return body

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


def _comes_again(actions: Sequence[Action | Wait] | None) -> bool:
    """Whether a client hears no answer in this to MAIL but that the relay is leaving."""
    if actions is None:
        return False
    in_time = takewhile(lambda action: not isinstance(action, (Hold, Drip)), actions)
    said = b"".join(action.octets for action in in_time if isinstance(action, Say))
    answered = _ANSWERED.match(said)
    is_too_long = answered is not None and answered[0].count(b"\n") > _MOST_LINES
    return answered is None or is_too_long or said.startswith(b"421")


def _octets(octets: bytes) -> Iterable[bytes]:
    return (octets[n : n + 1] for n in range(len(octets)))
