"""An adversarial SMTP relay: scripted for each connection and phase, and honest about what it saw and accepted.

A script maps a phase (or one recipient's address, for its RCPT) to what the relay does there instead of answering well.
After it has half closed a connection it goes on reading: whatever is then handed over counts as accepted.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

from tests.relay.recording import Sent

PATIENCE = 20.0  # seconds that anything here waits before it gives up
EXTENSIONS = ("PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
ONE_AT_A_TIME = tuple(offer for offer in EXTENSIONS if offer != "PIPELINING")


class Phase(StrEnum):
    """Where in a conversation a script takes over. BODY is right after 354, before any of the message is read."""

    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BODY = "body"
    DOT = "dot"
    RSET = "RSET"
    QUIT = "QUIT"


@dataclass(frozen=True)
class Say:
    """Send these octets; `piecemeal`, one at a time."""

    octets: bytes
    piecemeal: bool = False


@dataclass(frozen=True)
class Hold:
    """Do nothing, and read nothing, until `release()`."""


@dataclass(frozen=True)
class Keep:
    """Accept the message that was handed over, whatever is said about it."""


@dataclass(frozen=True)
class Fin:
    """Half close: say no more, but go on reading."""


@dataclass(frozen=True)
class Rst:
    """Reset the connection."""


Action = Say | Hold | Keep | Fin | Rst
Script = Mapping[Phase | str, Sequence[Action]]


@dataclass
class Seen:
    """What one client did: each command line, the raw body after 354, and whether its lone dot came."""

    commands: list[bytes] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    dots: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def verbs(self) -> list[str]:
        """The commands by their first word."""
        return [line.split(b" ", 1)[0].split(b":", 1)[0].decode("ascii", "replace").upper() for line in self.commands]

    @property
    def commands_in_body(self) -> list[bytes]:
        """Lines after 354 that are commands a client might have meant."""
        return [line for line in bytes(self.body).split(b"\r\n") if line.upper() in {b"QUIT", b"RSET", b"NOOP"}]


class ScriptedRelay:
    """The nth connection follows the nth of `scripts`, every later one `then`.

    A connection is `kept` open for further messages, which then meet the same script again; where there are `scripts`,
    it is closed after one, if not said otherwise, so that the nth message meets the nth of them.
    """

    def __init__(
        self,
        *scripts: Script,
        then: Script | None = None,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        login: tuple[str, str] | None = None,
        extensions: tuple[str, ...] = EXTENSIONS,
        kept: bool | None = None,
    ) -> None:
        self.is_kept = not scripts if kept is None else kept
        self.scripts, self.then = list(scripts), then or {}
        self.tls, self.implicit_tls, self.login, self.extensions = tls, implicit_tls, login, extensions
        self.messages: list[Sent] = []
        self.seen: list[Seen] = []
        self.holding = threading.Event()  # set when a Hold begins
        self.spoke = threading.Event()  # set when the script of BODY is done
        self.kept = threading.Condition()  # notified when a message is accepted
        self._released = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._accepting.join(PATIENCE)
        self._listener.close()
        for opened in self._sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    @property
    def connections(self) -> int:
        """How many clients connected."""
        return len(self.seen)

    def to(self, address: str) -> list[Sent]:
        """What was accepted for one recipient."""
        return [sent for sent in self.messages if address in sent.recipients]

    def release(self) -> None:
        """Let every Hold, now and later, come to its end."""
        self._released.set()

    def wait_until_holding(self) -> None:
        """Wait for a Hold to begin."""
        assert self.holding.wait(PATIENCE), "the relay never came to hold"

    def wait_until_over(self) -> None:
        """Wait until every connection so far has ended, so that what was seen and accepted is final."""
        for seen in list(self.seen):
            assert seen.over.wait(PATIENCE), f"a client never left: {seen.commands}"

    def wait_until_kept(self, count: int) -> None:
        """Wait until so many messages have been accepted."""
        with self.kept:
            assert self.kept.wait_for(lambda: len(self.messages) >= count, PATIENCE), "the relay never got it"

    def _accept(self) -> None:
        while True:
            try:
                opened, _ = self._listener.accept()
            except OSError:
                return
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            script = self.scripts[len(self.seen)] if len(self.seen) < len(self.scripts) else self.then
            seen = Seen()
            self.seen.append(seen)
            self._sockets.append(opened)
            thread = threading.Thread(target=_Conversation(self, opened, script, seen).run, daemon=True)
            self._threads.append(thread)
            thread.start()


class _Over(Exception):
    """This conversation has come to its end."""


class _Conversation:
    def __init__(self, relay: ScriptedRelay, opened: socket.socket, script: Script, seen: Seen) -> None:
        self._relay, self._socket, self._script, self._seen = relay, opened, script, seen
        self._buffer = b""
        self._secure = False
        self._sender, self._recipients, self._message = "", [], b""

    def run(self) -> None:
        try:
            if self._relay.implicit_tls:
                self._begin_tls()
            self._answer(Phase.GREETING, b"220 relay.example ESMTP\r\n")
            while True:
                self._obey(self._line())
        except (_Over, OSError):
            pass
        finally:
            self._socket.close()
            self._seen.over.set()

    def _obey(self, line: bytes) -> None:
        self._seen.commands.append(line)
        match self._seen.verbs[-1]:
            case "EHLO":
                self._answer(Phase.EHLO, self._offers())
            case "STARTTLS" if self._relay.tls is not None:
                if self._answer(Phase.STARTTLS, b"220 2.0.0 Ready\r\n"):
                    self._begin_tls()
            case "AUTH":
                self._answer(Phase.AUTH, self._check_login(line))
            case "MAIL":
                if self._answer(Phase.MAIL, b"250 2.1.0 Ok\r\n"):
                    self._sender, self._recipients = _path(line), []
            case "RCPT":
                address = _path(line)
                phase = address if address in self._script else Phase.RCPT
                if self._answer(phase, b"250 2.1.5 Ok\r\n"):
                    self._recipients.append(address)
            case "DATA":
                if self._answer(Phase.DATA, b"354 End data with <CR><LF>.<CR><LF>\r\n", good=b"3"):
                    self._take_message()
            case "RSET":
                self._sender, self._recipients = "", []
                self._answer(Phase.RSET, b"250 2.0.0 Ok\r\n")
            case "QUIT":
                self._answer(Phase.QUIT, b"221 2.0.0 Bye\r\n")
                raise _Over
            case _:
                self._send(b"500 5.5.2 What?\r\n")

    def _take_message(self) -> None:
        self._act(self._script.get(Phase.BODY, ()))
        self._relay.spoke.set()
        self._message = _unstuffed(self._body())
        self._seen.dots += 1
        if Phase.DOT in self._script:
            self._act(self._script[Phase.DOT])
        else:
            self._keep()
            self._send(b"250 2.0.0 Ok: queued as %06X\r\n" % len(self._relay.messages))
        self._sender, self._recipients = "", []
        if not self._relay.is_kept:
            raise _Over

    def _body(self) -> bytes:
        """Everything up to the lone dot; what comes after it stays in the buffer."""
        body, self._buffer = bytearray(b"\r\n" + self._buffer), b""
        searched, end = 0, -1
        try:
            while (end := body.find(b"\r\n.\r\n", searched)) < 0:
                searched = max(0, len(body) - 4)
                body += self._receive()
        finally:
            self._seen.body += body[2 : end + 2] if end >= 0 else body[2:]
        self._buffer = bytes(body[end + 5 :])
        return bytes(body[2 : end + 2])

    def _answer(self, phase: Phase | str, good_reply: bytes, *, good: bytes = b"2") -> bool:
        """Follow the script, or reply well; whether what was said begins with the digit that it should."""
        actions = self._script.get(phase, (Say(good_reply),))
        self._act(actions)
        said = b"".join(action.octets for action in actions if isinstance(action, Say))
        return said.startswith(good)

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Say(octets, piecemeal):
                    for piece in [octets[n : n + 1] for n in range(len(octets))] if piecemeal else [octets]:
                        self._send(piece)
                case Hold():
                    self._relay.holding.set()
                    self._relay._released.wait(PATIENCE)
                case Keep():
                    self._keep()
                case Fin():
                    socket.socket.shutdown(self._socket, socket.SHUT_WR)  # below TLS, where there is TLS
                case Rst():
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self._socket.close()
                    self._relay.spoke.set()
                    raise _Over

    def _keep(self) -> None:
        with self._relay.kept:
            self._relay.messages.append(Sent(self._sender, tuple(self._recipients), self._message))
            self._relay.kept.notify_all()

    def _offers(self) -> bytes:
        offers = ["relay.example", *self._relay.extensions]
        if self._relay.tls is not None and not self._secure:
            offers.append("STARTTLS")
        if self._relay.login is not None:
            offers.append("AUTH PLAIN")
        *firsts, last = offers
        return "".join([f"250-{offer}\r\n" for offer in firsts] + [f"250 {last}\r\n"]).encode()

    def _check_login(self, line: bytes) -> bytes:
        user, password = self._relay.login or ("", "")
        good = line == b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode())
        return b"235 2.7.0 Welcome\r\n" if good else b"535 5.7.8 Authentication credentials invalid\r\n"

    def _begin_tls(self) -> None:
        assert self._relay.tls is not None
        self._socket = self._relay.tls.wrap_socket(self._socket, server_side=True)
        self._secure = True

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._buffer += self._receive()
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line

    def _receive(self) -> bytes:
        received = self._socket.recv(256 * 1024)
        if not received:
            raise _Over
        return received

    def _send(self, octets: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # after a Fin of ours
            self._socket.sendall(octets)


def _path(line: bytes) -> str:
    found = re.search(rb"<(.*?)>", line)
    return found[1].decode() if found else ""


def _unstuffed(body: bytes) -> bytes:
    """RFC 5321 4.5.2, from the receiver's side."""
    return b"\r\n".join(line.removeprefix(b".") for line in body.split(b"\r\n"))
