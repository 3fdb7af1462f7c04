"""The door between a message and its final dot: who enters it, and how long the leave to write the dot holds."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

GAP_AGE = 2.0  # seconds from the gap's commit within which the dot must be written


@dataclass(frozen=True, slots=True)
class GapEntered:
    """The gap is committed; `at` is seconds of `boottime()` just before that."""

    at: float


@dataclass(frozen=True, slots=True)
class GapRefused:
    """The draft may not be sent any more, or it is not known whether the gap was stored."""

    why: str


EnterGap = Callable[[], Awaitable[GapEntered | GapRefused]]
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds that also pass while the machine sleeps, so that a process that woke up sees how long it was away."""
    return time.clock_gettime(_BOOTTIME)
