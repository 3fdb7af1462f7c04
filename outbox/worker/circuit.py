"""After a refusal that the next draft would meet too, nothing is claimed for a while instead of burning every draft."""

from __future__ import annotations

import time

FIRST_PAUSE = 60.0  # seconds; doubled at each refusal in a row
LONGEST_PAUSE = 900.0


class Circuit:
    """Open after a refused login or a bad certificate; closed again by the first attempt that gets further."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE
        self._open_until = float("-inf")
        self.is_broken = False  # whether the last attempt that told anything was refused so

    @property
    def is_open(self) -> bool:
        """Whether nothing may be claimed now."""
        return time.monotonic() < self._open_until

    def note(self, *, halted: bool) -> bool:
        """Take in how an attempt ended; True where this one opened the circuit, so that one alert is raised."""
        if not halted:
            self.is_broken, self._pause, self._open_until = False, FIRST_PAUSE, float("-inf")
            return False
        newly = not self.is_broken
        self.is_broken = True
        self._open_until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return newly
