"""A relay of our own, as a process of its own: it accepts everything, counts, and answers as late as it is told to.

`python -m benchmarks.sink --tally FILE [--reply-delay S] [--dot-delay S]` prints its port. A reply's delay is that of a
wire: what was sent in one flight is answered together, so many milliseconds later. The tally is a file that others may
map meanwhile: a count, then for each message accepted its number and when its 250 was written (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import signal
import struct
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mail import NUMBERED

RECORD = struct.Struct("<Id")
HEAD = struct.Struct("<Q")
UNNUMBERED = 0xFFFFFFFF
MOST = 4_000_000
_LOOKED_AT = 2000  # octets at the head of a message in which its subject stands


class Tally:
    """What was accepted, in a file that is mapped: writing it costs no system call."""

    def __init__(self, file: Path) -> None:
        with file.open("w+b") as opened:
            opened.truncate(HEAD.size + MOST * RECORD.size)
            self._map = mmap.mmap(opened.fileno(), 0)
        self._count = 0

    def add(self, head: bytes) -> None:
        """Count one message by the number in its subject."""
        found = NUMBERED.search(head)
        number = int(found[1]) if found else UNNUMBERED
        RECORD.pack_into(self._map, HEAD.size + self._count * RECORD.size, number, time.monotonic())
        self._count += 1
        HEAD.pack_into(self._map, 0, self._count)


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply; `head` is the beginning of the message that it accepts."""

    octets: bytes
    head: bytes | None = None


_OK, _GO_ON, _BYE = Reply(b"250 2.1.0 ok\r\n"), Reply(b"354 go on\r\n"), Reply(b"221 2.0.0 bye\r\n")
_HELLO = Reply(
    b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
)
_REPLIES = {b"MAIL": _OK, b"RCPT": _OK, b"RSET": _OK, b"NOOP": _OK, b"HELO": _OK, b"EHLO": _HELLO, b"QUIT": _BYE}
_UNKNOWN = Reply(b"502 5.5.2 what?\r\n")


class Session(asyncio.Protocol):
    """One connection. Speaks ESMTP with PIPELINING and 8BITMIME."""

    def __init__(self, tally: Tally, reply_delay: float, dot_delay: float) -> None:
        self._tally, self._reply_delay, self._dot_delay = tally, reply_delay, dot_delay
        self._octets = bytearray()
        self._in_data = False
        self._scanned = 0
        self._late: deque[list[Reply]] = deque()
        self._last_due = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._say([Reply(b"220 sink.example ESMTP\r\n")])

    def data_received(self, data: bytes) -> None:
        """Take in whatever came, and answer all of it at once."""
        self._octets += data
        replies: list[Reply] = []
        while (reply := self._end_of_data() if self._in_data else self._command()) is not None:
            replies.append(reply)
        if replies:
            self._say(replies)

    def _end_of_data(self) -> Reply | None:
        end = self._octets.find(b"\r\n.\r\n", self._scanned)
        if end < 0:
            self._scanned = max(0, len(self._octets) - 4)
            return None
        head = bytes(self._octets[: min(end, _LOOKED_AT)])
        del self._octets[: end + 5]
        self._in_data, self._scanned = False, 0
        return Reply(b"250 2.0.0 taken\r\n", head)

    def _command(self) -> Reply | None:
        end = self._octets.find(b"\n")
        if end < 0:
            return None
        verb = bytes(self._octets[:4]).upper()
        del self._octets[: end + 1]
        if verb == b"DATA":
            self._in_data = True
            return _GO_ON
        return _REPLIES.get(verb, _UNKNOWN)

    def _say(self, replies: list[Reply]) -> None:
        takes = any(reply.head is not None for reply in replies)
        delay = self._reply_delay + (self._dot_delay if takes else 0.0)
        if not delay:
            self._send(replies)
            return
        self._late.append(replies)
        self._last_due = max(self._last_due, self._loop.time() + delay)
        self._loop.call_at(self._last_due, lambda: self._send(self._late.popleft()))

    def _send(self, replies: list[Reply]) -> None:
        """Count what is accepted as its 250 is written, whether or not anybody is there to read it."""
        for reply in replies:
            if reply.head is not None:
                self._tally.add(reply.head)
        assert self._transport is not None
        self._transport.write(b"".join(reply.octets for reply in replies))
        if _BYE in replies:
            self._transport.close()


async def serve(tally: Tally, reply_delay: float, dot_delay: float) -> None:
    """Until SIGTERM. Prints the port."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: Session(tally, reply_delay, dot_delay), "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


def main() -> None:
    """Run as a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tally", type=Path, required=True)
    parser.add_argument("--reply-delay", type=float, default=0.0)
    parser.add_argument("--dot-delay", type=float, default=0.0)
    told = parser.parse_args()
    asyncio.run(serve(Tally(told.tally), told.reply_delay, told.dot_delay))


if __name__ == "__main__":
    main()
