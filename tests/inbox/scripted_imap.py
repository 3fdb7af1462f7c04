"""An IMAP server that is hostile or broken where its script says so, and well-behaved elsewhere.

A script maps a verb (UID left out; GREETING, and LITERAL for what answers a SASL challenge) to what is said for it, in
turn; the last is said again and again. TAG stands for the command's tag, UIDS for what it named.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PATIENCE = 20.0  # seconds
VALIDITY = 99
CAPABILITIES = b"IMAP4rev1 AUTH=PLAIN IDLE"


@dataclass(frozen=True)
class HangUp:
    """Say this, and end the connection."""

    octets: bytes = b""


@dataclass(frozen=True)
class Hold:
    """Say this, and nothing more until `release()`."""

    octets: bytes = b""


Act = bytes | HangUp | Hold
Script = Mapping[str, Sequence[Act]]
WELL: dict[str, bytes] = {
    "GREETING": b"* OK here\r\n",
    "CAPABILITY": b"* CAPABILITY " + CAPABILITIES + b"\r\nTAG OK so\r\n",
    "AUTHENTICATE": b"+ \r\n",
    "LITERAL": b"TAG OK in\r\n",
    "LOGIN": b"TAG OK in\r\n",
    "SELECT": b"* 2 EXISTS\r\n* OK [UIDVALIDITY %d] ok\r\nTAG OK [READ-WRITE] open\r\n" % VALIDITY,
    "EXAMINE": b"* 2 EXISTS\r\n* OK [UIDVALIDITY %d] ok\r\nTAG OK [READ-ONLY] open\r\n" % VALIDITY,
    "SEARCH": b"* SEARCH 1 2\r\nTAG OK found\r\n",
    "NOOP": b"TAG OK nothing\r\n",
    "STORE": b"TAG OK stored\r\n",
    "IDLE": b"+ idling\r\n",
    "DONE": b"TAG OK idled\r\n",
    "LOGOUT": b"* BYE\r\nTAG OK out\r\n",
}


def fetched(*messages: tuple[int, bytes], section: str = "BODY[HEADER.FIELDS (TO)]<0>") -> bytes:
    """What answers a FETCH well."""
    lines = [
        b'* %d FETCH (UID %d INTERNALDATE " 1-Feb-2027 10:00:00 +0100" %s {%d}\r\n%s)\r\n'
        % (uid, uid, section.encode(), len(octets), octets)
        for uid, octets in messages
    ]
    return b"".join(lines) + b"TAG OK fetched\r\n"


@dataclass
class ScriptedImap:
    """Speaks plain IMAP on loopback, to one client after another or to several."""

    script: Script = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.said: list[str] = []  # commands, without tag and UID
        self.literals: list[bytes] = []
        self.connections = 0
        self.holding = threading.Event()
        self._told: dict[str, int] = {}
        self._released = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=20)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._accepting.join(PATIENCE)
        self._listener.close()
        for opened in self._sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    @property
    def verbs(self) -> list[str]:
        """What was asked, by verb."""
        return [line.split(" ")[0] for line in self.said]

    def release(self) -> None:
        """Let every Hold come to its end."""
        self._released.set()

    def _accept(self) -> None:
        while True:
            try:
                opened, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(opened)
            thread = threading.Thread(target=self._converse, args=(opened,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, opened: socket.socket) -> None:
        with suppress(OSError, EOFError), opened, opened.makefile("rb") as lines:
            self._act(opened, "GREETING", b"", "")
            tag = b""
            for line in lines:
                words = line.decode("utf-8", "replace").split()
                if line == b"DONE\r\n":
                    verb, named = "DONE", ""
                elif len(words) < 2:
                    verb, named = "LITERAL", ""
                    self.literals.append(line)
                else:
                    tag = words[0].encode()
                    rest = words[2:] if words[1] == "UID" else words[1:]
                    verb, named = rest[0], rest[1] if len(rest) > 1 else ""
                    self.said.append(" ".join(rest))
                self._act(opened, verb, tag, named)

    def _act(self, opened: socket.socket, verb: str, tag: bytes, named: str) -> None:
        acts = self.script.get(f"{verb} {named}") or self.script.get(verb)
        told = self._told[verb] = self._told.get(verb, 0) + 1
        act = acts[min(told, len(acts)) - 1] if acts else WELL.get(verb, fetched())
        octets = act if isinstance(act, bytes) else act.octets
        opened.sendall(octets.replace(b"TAG", tag).replace(b"UIDS", named.encode()))
        match act:
            case HangUp():
                opened.shutdown(socket.SHUT_RDWR)
                raise EOFError
            case Hold():
                self.holding.set()
                self._released.wait(PATIENCE)
