"""Instants and ids for the rooms: parameters of theirs, so that tests and replays bring their own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from outbox.core.draft import MICROSECONDS, uuid7

Clock = Callable[[], int]
FURTHEST = 300 * MICROSECONDS  # a clock that is further from where it should be has jumped


def wall() -> int:
    """Now, in microseconds UTC."""
    return time.time_ns() // 1000


def steady() -> int:
    """Microseconds that also pass while the machine sleeps, and that nobody sets."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1000


def new_id(now: int) -> str:
    """A fresh UUIDv7."""
    return uuid7(now, secrets.token_bytes(10))


class ClockWatch:
    """Whether the wall clock can be believed: it jumped neither against the steady one, nor behind what was stored.

    What it drifts by slowly is taken in; after a jump it is believed again when it is back.
    """

    def __init__(self, clock: Clock, against: Clock | None = None) -> None:
        self._clock = clock
        self._steady = against or (steady if clock is wall else clock)  # a clock that a test moves is moved as a whole
        self._apart = self._clock() - self._steady()

    def jumped(self, newest: int | None = None) -> str | None:
        """How the clock jumped, in words, or None; `newest` is the highest instant that was stored."""
        now = self._clock()
        apart = now - self._steady()
        moved = apart - self._apart
        if abs(moved) > FURTHEST:
            return f"the clock jumped by {moved / MICROSECONDS:+.0f} s"
        self._apart = apart
        if newest is not None and newest - now > FURTHEST:
            behind = (newest - now) // MICROSECONDS
            return f"the clock is {behind} s behind what is stored already (if it is right, `outbox resume --clock`)"
        return None
