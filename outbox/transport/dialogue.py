"""The SMTP conversation on a stream that aiosmtplib has connected, secured and logged in.

Nothing is buffered beyond the kernel once `write` returns (high water 0), and `abort` throws away what is unwritten: a
plain close would go on flushing, dot included, after we have given the message up for unsent. The kernel is told the
same: it gives up what is not acknowledged in time, and whatever ends the connection without a goodbye, be it the end of
this process, resets it instead of sending on.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections import deque
from collections.abc import Callable

from outbox.transport.outcome import Break, Reply
from outbox.transport.replies import LONGEST_LINE, Lines

_CHUNK = 64 * 1024
_BUFFER = 16 * 1024  # asyncio would allocate 256 KiB for each reply
_LONGEST_PATIENCE = 2**31 - 1  # milliseconds
_LOOKS = 3  # at a socket that has something to read: TLS has records that are no words of the relay's


class Dialogue(asyncio.BufferedProtocol):
    """Asks, and hears complete replies in the order of what was asked. Once broken it stays broken, with the reason.

    A reply that was not asked for breaks it; what was heard before that stands. What the relay's host does not
    acknowledge within `patience` seconds is not sent any more.
    """

    def __init__(self, transport: asyncio.Transport, patience: float) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(_BUFFER))
        self._part = b""
        self._lines = Lines()
        self._heard: deque[Reply] = deque()
        self._outstanding = 0  # replies that were asked for and have not come
        self._broken: Break | None = None
        self._is_full = False  # whether there is something that the kernel has not taken yet
        self._waiter: asyncio.Future[None] | None = None
        self._due: float | None = None  # by the loop's clock
        self._patience, self._words = 0.0, ""  # what to say when it is past
        self._timer: asyncio.TimerHandle | None = None
        self._ended: Callable[[], None] | None = None
        self._readable = select.poll()
        if transport.is_closing():  # and its socket may be gone
            self._broken = Break("the relay closed the connection")
            return
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        _buffer_nothing(transport)
        _give_up_after(transport, patience)
        _reset_at_close(transport, resets=True)
        transport.set_protocol(self)
        transport.resume_reading()

    # What asyncio calls

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  asyncio's
        """Where to put what the relay says."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in lines; whoever waits is woken by the last reply that is due, or by one that may change his mind."""
        if self._broken is not None:
            return
        data = self._part + self._buffer[:nbytes]
        start, wakes = 0, False
        while (end := data.find(b"\n", start)) >= 0 and self._broken is None:
            wakes |= self._take(data[start:end].removesuffix(b"\r"))
            start = end + 1
        self._part = data[start:]
        if len(self._part) > LONGEST_LINE:
            self._break("the relay sent an endless line")
        elif not self._outstanding and (self._part or self._lines):
            self._break("the relay spoke out of turn")
        elif wakes:
            self._wake()

    def eof_received(self) -> None:
        """The relay has closed its side."""
        self._break("the relay closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._break(f"the connection was lost ({exc or 'closed'})")
        self._forget_time()

    def pause_writing(self) -> None:
        """There is something that the kernel has not taken yet."""
        self._is_full = True

    def resume_writing(self) -> None:
        """The kernel has taken everything."""
        self._is_full = False
        self._wake()

    # What the transaction calls

    def ask(self, commands: bytes, replies: int, timeout: float) -> None:
        """Write commands that so many replies answer, each within `timeout` seconds of the one before it.

        What the kernel does not take at once is written while replies are read (RFC 2920 3.1).
        """
        self._outstanding += replies
        self._transport.write(commands)
        self._expect(timeout, "no reply within")

    async def hear(self) -> Reply | Break:
        """The next complete reply to what was asked, or why there is none."""
        while not self._heard:
            if self._broken is not None:
                return self._broken
            await self._wait()
        return self._heard.popleft()

    async def write(self, octets: bytes, timeout: float) -> Break | None:
        """Hand octets to the kernel, all of them, with progress within `timeout` seconds each 64 KiB."""
        for start in range(0, len(octets), _CHUNK):
            if self._broken is not None:
                break
            self._transport.write(octets[start : start + _CHUNK])
            if self._is_held_up():
                self._expect(timeout, "the relay took nothing for")
                while self._is_held_up():
                    await self._wait()
                self._due = None
        return self._broken

    def write_dot(self, timeout: float) -> None:
        """The octets that may hand the message over; the body before them ended with CRLF."""
        self.ask(b".\r\n", 1, timeout)

    async def unsettled(self) -> Break | None:
        """Anything that came, or broke, without being asked for: looked at before the dot is written.

        What the socket has to be read, the loop reads in two turns: the first polls it, the second runs what the poll
        found.
        """
        for _ in range(_LOOKS):
            if not self._has_something_to_read():
                break
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if self._broken is None and (self._transport.is_closing() or self._has_something_to_read()):
            self._break("the relay spoke or closed before the final dot")
        return self._broken

    # What happens between two transactions

    @property
    def is_even(self) -> bool:
        """Whether nothing is owed to either side, and the stream is open."""
        return not (self._broken or self._outstanding or self._heard or self._transport.is_closing())

    @property
    def is_quiet(self) -> bool:
        """The same, and nothing waits to be read."""
        return self.is_even and not self._has_something_to_read()

    def rest(self, seconds: float, ended: Callable[[], None]) -> None:
        """Be left alone; `ended` is called, once, when that has lasted so long or the relay speaks or leaves."""
        self._expect(seconds, "nothing was sent for")
        self._ended = ended

    def rise(self) -> None:
        """Be used again."""
        self._ended = self._due = None

    def quit(self) -> None:
        """Say goodbye and close at once: what was heard before must not get lost while an answer is awaited."""
        if not self._transport.is_closing():
            _reset_at_close(self._transport, resets=False)  # a reset would overtake the goodbye
            self._transport.write(b"QUIT\r\n")
            self._transport.close()
        self.abort()

    def abort(self) -> None:
        """Drop the connection, and whatever is unwritten or, unless we said goodbye, unsent by the kernel."""
        self._ended = None
        self._forget_time()
        self._transport.abort()

    def _take(self, line: bytes) -> bool:
        """Whether whoever waits has to know of what this line completes."""
        taken = self._lines.take(line)
        if taken is None:
            return False
        if isinstance(taken, Break):
            self._break(taken.why)
            return True
        if not self._outstanding:
            self._break(f"the relay said {taken} before it was asked")
            return True
        self._heard.append(taken)
        self._outstanding -= 1
        if not self._outstanding:
            self._due = None
            return True
        self._due = self._loop.time() + self._patience
        return taken.code >= 400

    def _has_something_to_read(self) -> bool:
        """Asked of the kernel: the descriptor is this connection's as long as nobody has said that it is lost."""
        return self._broken is None and bool(self._readable.poll(0))

    def _is_held_up(self) -> bool:
        return self._is_full and self._broken is None

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break(self, why: str) -> None:
        if self._broken is None:
            self._broken = Break(why)
        self._wake()
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended()

    def _expect(self, seconds: float, words: str) -> None:
        """One timer a connection, which looks again when it was too early: most of what is expected comes."""
        self._patience, self._words = seconds, words
        self._due = due = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._look_at_the_time)
        else:
            self._break(f"{self._words} {self._patience:g} s")

    def _forget_time(self) -> None:
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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
