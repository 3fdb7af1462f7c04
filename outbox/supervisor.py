"""What stands around the loops: a supervisor is told how it goes (sd_notify(3)), and signals ask to stop.

Nobody has to listen: without NOTIFY_SOCKET nothing is sent, and a supervisor that is gone is logged once. Nothing here
raises. The environment is read by outbox/config.py alone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Final, Self

log = logging.getLogger("outbox.supervisor")
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LONGEST = 300  # characters of a status: systemd drops a datagram of more than 4096 octets
_PATIENCE = 1.0  # seconds for the supervisor to take READY or STOPPING; whatever else it does not take at once is lost
_LAST_WORDS = 1.0  # seconds for the log, before the exit that a second signal asks for
_ECHO = 0.25  # seconds in which a second Ctrl-C is the first one: a program that started this one may pass it on


@dataclass(frozen=True, slots=True)
class Supervision:
    """What a supervisor asks for: where it listens, and after how many microseconds of silence it kills."""

    notify_socket: str | None = None
    watchdog_usec: int | None = None

    @classmethod
    def parse(cls, notify_socket: str | None, watchdog_usec: str | None, watchdog_pid: str | None) -> Self:
        """Out of NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID as they are in the environment; None where unset.

        A watchdog of another process, one without a number and an address of another kind are left out.
        """
        address = notify_socket if notify_socket and notify_socket[0] in "/@" and len(notify_socket) > 1 else None
        is_ours = not watchdog_pid or watchdog_pid == str(os.getpid())
        return cls(address, _positive(watchdog_usec) if address and is_ours else None)


def _positive(text: str | None) -> int | None:
    # a length: int() refuses thousands of digits, and takes long for fewer
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    return int(text) or None


class Supervisor:
    """Tells the supervisor. `monotonic` counts seconds. One thread at a time; the loop's."""

    def __init__(self, told: Supervision, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._address = told.notify_socket
        self._interval = None if told.watchdog_usec is None else told.watchdog_usec / 3_000_000
        self._monotonic = monotonic
        self._next = float("-inf")
        self._said: str | None = None
        self._complained = False

    def ready(self, status: str) -> None:
        """The room is open: units that wait for this one go on."""
        self._send("READY=1", status, patience=_PATIENCE)

    def status(self, text: str) -> None:
        """What it does now, for `systemctl status`. Sent where it is another text than before."""
        if _shown(text) != self._said:
            self._send(None, text)

    def alive(self) -> None:
        """Call it at each turn of the loop, while stopping too: it is sent when a third of the watchdog's time is over.

        A supervisor takes silence for a process that hangs, and kills it; an attempt in the gap is then in doubt.
        """
        now = self._monotonic()
        if self._interval is not None and now >= self._next and self._send("WATCHDOG=1"):
            self._next = now + self._interval

    def stopping(self, status: str) -> None:
        """It has been asked to stop, and ends when what it has in hand is done."""
        self._send("STOPPING=1", status, patience=_PATIENCE)

    def _send(self, line: str | None, status: str | None = None, *, patience: float = 0) -> bool:
        if self._address is None:
            return False
        lines = [] if line is None else [line]
        if status is not None:
            self._said = _shown(status)
            lines.append(f"STATUS={self._said}")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(patience)
                sender.connect(self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address)
                sender.send("\n".join(lines).encode())
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path, an address that is no text
            self._complain(error)
            return False
        self._complained = False
        return True

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            log.warning("the supervisor at NOTIFY_SOCKET cannot be told: %s", why, extra={"action": "supervisor"})
        self._complained = True


def _shown(text: str) -> str:
    """One line: a line of its own would be another message to the supervisor (FDSTORE, MAINPID)."""
    return "".join(character if character.isprintable() else " " for character in text[:_LONGEST])


class StopSignals:
    """The first SIGTERM or SIGINT asks to stop, a second one exits at once with 128 and its number.

    A context manager; outside the main thread, where Python allows no handlers, it changes nothing. The first sets
    `asked` and calls `callback`, in a thread of its own (asyncio: `lambda: loop.call_soon_threadsafe(stop.set)`). The
    second leaves what SIGKILL would leave: every row says how far it got.
    """

    def __init__(
        self, callback: Callable[[], object] | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.asked = threading.Event()
        self._callback, self._monotonic = callback, monotonic
        self._first: tuple[int, float] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        now = self._monotonic()
        if self._first is None:
            self._first = (number, now)
            # Not here: the main thread may hold the event's own lock at this moment, in `asked.wait`.
            threading.Thread(target=self._ask, daemon=True).start()
        elif self._first[0] != signal.SIGINT or number != signal.SIGINT or now - self._first[1] >= _ECHO:
            _exit_at_once(number)

    def _ask(self) -> None:
        self.asked.set()
        if self._callback is not None:
            with suppress(RuntimeError):  # the event loop has been closed meanwhile
                self._callback()


def _exit_at_once(number: int) -> None:
    # Not the default handler: the kernel gives process 1 of a container none. Nor this thread: it may be in the
    # middle of a log record, and a reader of stderr that hangs must not keep the process.
    speaker = threading.Thread(target=_last_words, args=(number,), daemon=True)
    speaker.start()
    speaker.join(_LAST_WORDS)
    os._exit(128 + number)


def _last_words(number: int) -> None:
    name = signal.Signals(number).name
    log.warning(
        "a second signal (%s): exits at once, what was being sent may be in doubt", name, extra={"action": "stop"}
    )
    logging.shutdown()
