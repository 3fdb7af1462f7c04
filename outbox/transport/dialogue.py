"""The SMTP conversation on a stream that aiosmtplib has connected, secured and logged in.

Nothing is buffered beyond the kernel once `write` returns (high water 0), and `abort` throws away what is unwritten: a
plain close would go on flushing, dot included, after we have given the message up for unsent. The kernel is told the
same: it gives up what is not acknowledged in time, and whatever ends the connection without a goodbye, be it the end of
this process, resets it instead of sending on.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections import deque

from outbox.core.finding import printable
from outbox.transport.outcome import Break, Reply

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+|$)")
_LONGEST_LINE = 4096  # RFC 5321 says 512; some relays explain themselves at length
_MOST_LINES = 100
_CHUNK = 64 * 1024
_LONGEST_PATIENCE = 2**31 - 1  # milliseconds


class Dialogue(asyncio.Protocol):
    """Writes commands, reads complete replies. Once broken it stays broken, with the reason.

    What the relay's host does not acknowledge within `patience` seconds is not sent any more.
    """

    def __init__(self, transport: asyncio.Transport, patience: float) -> None:
        self._transport = transport
        self._buffer = b""
        self._lines: list[tuple[int, str]] = []
        self._replies: deque[Reply] = deque()
        self._broken: Break | None = None
        self._heard = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        _buffer_nothing(transport)
        _give_up_after(transport, patience)
        _reset_at_close(transport, resets=True)
        transport.set_protocol(self)
        transport.resume_reading()

    # What asyncio calls

    def data_received(self, data: bytes) -> None:
        """Take in lines; a complete reply wakes whoever waits for it."""
        self._buffer += data
        while b"\n" in self._buffer and self._broken is None:
            line, self._buffer = self._buffer.split(b"\n", 1)
            self._take(line.removesuffix(b"\r"))
        if len(self._buffer) > _LONGEST_LINE:
            self._break("the relay sent an endless line")

    def eof_received(self) -> None:
        """The relay has closed its side."""
        self._break("the relay closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._break(f"the connection was lost ({exc or 'closed'})")

    def pause_writing(self) -> None:
        """There is something that the kernel has not taken yet."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The kernel has taken everything."""
        self._writable.set()

    # What the transaction calls

    async def command(self, line: str, timeout: float) -> Reply | Break:
        """Write one command and wait for its reply."""
        if "\r" in line or "\n" in line:
            raise AssertionError("a command is one line")
        self._transport.write(line.encode() + b"\r\n")
        return await self.reply(timeout)

    async def write(self, octets: bytes, timeout: float) -> Break | None:
        """Hand octets to the kernel, all of them, with progress within `timeout` seconds each 64 KiB."""
        for start in range(0, len(octets), _CHUNK):
            if self._broken is not None:
                return self._broken
            self._transport.write(octets[start : start + _CHUNK])
            try:
                async with asyncio.timeout(timeout):  # wait_for can swallow a cancellation
                    await self._writable.wait()
            except TimeoutError:
                return Break(f"the relay took nothing for {timeout:g} s")
        return self._broken

    def write_dot(self) -> None:
        """The octets that may hand the message over; the body before them ended with CRLF."""
        self._transport.write(b".\r\n")

    async def reply(self, timeout: float) -> Reply | Break:
        """The next complete reply, or why there is none within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not self._replies and self._broken is None:
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            return Break(f"no reply within {timeout:g} s")
        if self._replies:
            return self._replies.popleft()
        return self._broken or Break("no reply")

    async def unsettled(self) -> Break | None:
        """Anything that came, or broke, without being asked for: looked at before the dot is written.

        Two turns of the loop: the first polls the socket, the second runs what the poll found.
        """
        for _ in range(2):
            await asyncio.sleep(0)
        if self._broken is not None:
            return self._broken
        if self._replies:
            return Break(f"the relay said {self._replies[0]} before the final dot")
        if self._buffer or self._lines or self._transport.is_closing():
            return Break("the relay spoke or closed before the final dot")
        return None

    def quit(self) -> None:
        """Say goodbye and close at once: what was heard before must not get lost while an answer is awaited."""
        if not self._transport.is_closing():
            _reset_at_close(self._transport, resets=False)  # a reset would overtake the goodbye
            self._transport.write(b"QUIT\r\n")
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection, and whatever is unwritten or, unless we said goodbye, unsent by the kernel."""
        self._transport.abort()

    def _take(self, line: bytes) -> None:
        found = _LINE.fullmatch(line)
        if found is None or len(line) > _LONGEST_LINE or len(self._lines) >= _MOST_LINES:
            self._break(f"the relay said {line[:60]!r}, which is not SMTP")
            return
        code, text = int(found[1]), (found[3] or b"").decode("utf-8", "replace")
        if self._lines and self._lines[-1][0] != code:
            self._break("the relay changed its code in mid-reply")
            return
        self._lines.append((code, text))
        if found[2] != b"-":
            self._replies.append(_reply(self._lines))
            self._lines = []
            self._heard.set()

    def _break(self, why: str) -> None:
        if self._broken is None:
            self._broken = Break(why)
        self._heard.set()
        self._writable.set()


def _buffer_nothing(transport: asyncio.Transport) -> None:
    """Make a write wait for the kernel. Under TLS two transports buffer, and 0 on the outer one never drains.

    What is not public here is held by tests/transport/test_aiosmtplib.py.
    """
    inner = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    if inner is None:
        transport.set_write_buffer_limits(high=0)
    else:
        inner.set_write_buffer_limits(high=0)
        transport.set_write_buffer_limits(high=1, low=0)


def _give_up_after(transport: asyncio.Transport, seconds: float) -> None:
    """Without it Linux repeats an unacknowledged dot for a quarter of an hour and more, whoever has written it off."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = min(max(1, round(seconds * 1000)), _LONGEST_PATIENCE)
        _set_option(transport, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _reset_at_close(transport: asyncio.Transport, *, resets: bool) -> None:
    """Whether the end of this socket throws away what the kernel has not sent yet."""
    _set_option(transport, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", int(resets), 0))


def _set_option(transport: asyncio.Transport, level: int, name: int, value: int | bytes) -> None:
    with contextlib.suppress(OSError):  # it is closed already: nothing will be written to it
        transport.get_extra_info("socket").setsockopt(level, name, value)


def _reply(lines: list[tuple[int, str]]) -> Reply:
    enhanced = None
    words = []
    for _, text in lines:
        found = _ENHANCED.match(text)
        enhanced = enhanced or (found[1] if found else None)
        words.append(text[found.end() :] if found else text)
    return Reply(lines[0][0], enhanced, printable(" ".join(words)).strip()[:1000])
