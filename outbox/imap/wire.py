"""One connection to an IMAP server, with a limit on whatever the server may make us read, hold or wait for.

imaplib by itself takes a literal of any size into memory, has no end to what answers one command, waits for ever on a
server that sends an octet now and then, and keeps the last ten commands, the login among them, for a log.
"""

from __future__ import annotations

import imaplib
import math
import socket
import ssl
import time
from contextlib import suppress

MOST_OCTETS = 50 * 1024 * 1024  # that may answer one command: twice the largest message that is read
MOST_LINES = 100_000  # the same; each is an object in memory, however short
LONGEST_LINE = 4 * 1024 * 1024  # a SEARCH names half a million messages in one line
LONGEST_ANSWER = 600.0  # seconds that one command may take, however steadily octets come
_CHUNK = 64 * 1024


class Wire(imaplib.IMAP4):
    """Connects as it is made. `timeout` in seconds is for each silence of the server; without `context`, no TLS.

    From `ends_at` on, by the monotonic clock, nothing more is waited for.

    What the library documents as overridable is overridden; tests/inbox/test_imap.py holds the rest of what is used.
    """

    def __init__(
        self, host: str, port: int, *, context: ssl.SSLContext | None, timeout: float, ends_at: float = math.inf
    ) -> None:
        self._context, self._patience, self._ends_at = context, timeout, ends_at
        self._unread = bytearray()
        self._idle_tag: bytes | None = None
        self.allow()
        super().__init__(host, port, timeout)

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:
        """Connect, and speak TLS from the first octet on."""
        self.host, self.port = host, port
        self.sock = socket.create_connection((host, port), timeout)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # commands are written in pieces
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=host)  # closes it where it fails

    def shutdown(self) -> None:
        """Leave at once, whatever is half said."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def allow(self) -> None:
        """Begin to count anew, before each command: octets, lines, time."""
        self._octets_left, self._lines_left = MOST_OCTETS, MOST_LINES
        self._deadline = min(time.monotonic() + LONGEST_ANSWER, self._ends_at)

    def readline(self) -> bytes:
        """The next line with its end, or nothing where the server has hung up."""
        self._lines_left -= 1
        if self._lines_left < 0:
            raise self.abort(f"over {MOST_LINES} lines in answer to one command")
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            if searched > LONGEST_LINE:
                raise self.abort(f"a line of over {LONGEST_LINE} octets")
            if not self._receive(self._patience):
                return b""
        return self._taken(end + 1)

    def read(self, size: int) -> bytes:
        """So many octets, fewer only where the server has hung up."""
        if size > MOST_OCTETS:
            raise self.abort(f"a literal of {size} octets")
        while len(self._unread) < size and self._receive(self._patience):
            pass
        return self._taken(size)

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        return taken

    def _receive(self, seconds: float) -> bool:
        """Whether more came; false at the end of the stream. Raises TimeoutError."""
        left = self._deadline - time.monotonic()
        if left <= 0 and self._deadline == self._ends_at:
            raise TimeoutError
        if left <= 0:
            raise self.abort(f"one answer took over {LONGEST_ANSWER:g} s")
        self.sock.settimeout(min(seconds, left))
        received = self.sock.recv(_CHUNK)
        self.sock.settimeout(self._patience)  # for sending
        self._unread += received
        self._octets_left -= len(received)
        if self._octets_left < 0:
            raise self.abort(f"over {MOST_OCTETS} octets in answer to one command")
        return bool(received)

    def changed(self) -> bool:
        """Whether messages came or went since this was last asked. What else was said unasked is forgotten."""
        unasked = set(self.untagged_responses)
        self.untagged_responses.clear()
        if "UIDVALIDITY" in unasked:
            raise self.abort("the folder was made anew")
        return not unasked.isdisjoint({"EXISTS", "EXPUNGE", "VANISHED"})

    @property
    def idling(self) -> bool:
        """Whether the server was asked to speak up by itself (RFC 2177); no command may be sent then."""
        return self._idle_tag is not None

    def idle(self) -> None:
        """Ask for that. What the server says before it agrees is kept."""
        self.allow()
        tag = self._command("IDLE")
        while self._get_response() is not None:
            if self.tagged_commands[tag] is not None:
                raise self.error("IDLE was refused")
        self._idle_tag = tag

    def hear(self, seconds: float) -> bool:
        """While idling, wait about so long; whether messages came or went."""
        self.allow()
        with suppress(TimeoutError):
            if b"\n" not in self._unread and not self._receive(max(seconds, 0.01)):
                raise self.abort("socket error: EOF")
        while b"\n" in self._unread:
            self._get_response()
        if "BYE" in self.untagged_responses or (self._idle_tag and self.tagged_commands[self._idle_tag]):
            raise self.abort("the server ended IDLE")
        return self.changed()

    def rouse(self) -> None:
        """End IDLE, so that a command may follow."""
        if self._idle_tag is not None:
            self.allow()
            tag, self._idle_tag = self._idle_tag, None
            self.send(b"DONE\r\n")
            self._command_complete("IDLE", tag)

    def leave(self) -> None:
        """Say goodbye, and hang up without waiting for an answer."""
        with suppress(OSError):
            self.send((b"DONE\r\n" if self.idling else b"") + b"BYE LOGOUT\r\n")
        self.shutdown()

    def _log(self, line: str) -> None:
        """Keep no commands and no answers."""

    def _mesg(self, s: str, secs: float | None = None) -> None:
        """Print none."""
