"""How many sends the relay can bear at a time, and when to try it again: learnt from how connecting to it went."""

from __future__ import annotations

from collections.abc import Callable

_PATIENT_AFTER = 3  # failures in a row
_FIRST_REST, _LONGEST_REST = 0.1, 60.0  # seconds
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 320.0  # seconds until more is tried than the relay is known to take


class Pace:
    """All lanes in health, few after a failure, more with each success (slow start).

    A relay that is gone is tried by one send, and by all again soon after it is back. One that goes on taking some
    while it turns away others limits their number: more is tried one by one, and ever more rarely.
    """

    def __init__(self, lanes: int, clock: Callable[[], float]) -> None:
        self._lanes, self._clock = lanes, clock
        self._places = self._known = lanes  # `_known`: up to so many the way back is quick
        self._wait, self._more_at = _FIRST_WAIT, 0.0
        self._failed_at = float("-inf")
        self._in_a_row = 0
        self._rests_until = float("-inf")

    @property
    def places(self) -> int:
        """How many sends may be under way now."""
        return self._places

    @property
    def rest(self) -> float:
        """Seconds to wait before anything more is claimed."""
        return max(0.0, self._rests_until - self._clock())

    def failed(self, begun: float, taken: int) -> None:
        """The relay turned a connection away that was begun at an instant of the clock, while `taken` others stood.

        Those that were begun together fail together, and count as one.
        """
        now = self._clock()
        if begun > self._failed_at:
            self._in_a_row += 1
            self._wait = min(2 * self._wait, _LONGEST_WAIT) if taken else _FIRST_WAIT
        self._failed_at = now
        self._places = max(1, min(taken, self._lanes))
        self._known = self._places if taken else self._lanes
        self._more_at = now + self._wait
        if self._in_a_row >= _PATIENT_AFTER:
            doubled = min(self._in_a_row - _PATIENT_AFTER, 10)
            self._rests_until = now + min(_FIRST_REST * 2**doubled, _LONGEST_REST)

    def connected(self) -> None:
        """The relay let us in."""
        self._in_a_row, self._rests_until = 0, float("-inf")

    def worked(self) -> None:
        """The relay answered for a message."""
        if self._places >= self._lanes:
            return
        if self._places < self._known:
            self._places += 1
        elif (now := self._clock()) >= self._more_at:
            self._places += 1
            self._known, self._more_at = self._places, now + self._wait
        if self._places >= self._lanes:
            self._wait = _FIRST_WAIT
