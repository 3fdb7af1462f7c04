"""Why nothing may be claimed for now, where a person or the clock says so."""

from __future__ import annotations

import time
from collections.abc import Callable

from outbox.clock import ClockWatch
from outbox.core.errors import Code, TryLater
from outbox.store.changes import Changes
from outbox.store.engine import Database
from outbox.store.instants import newest_instant_of_workers
from outbox.store.pause import standing_pause
from outbox.store.presence import Presence
from outbox.switches import Switches

_UNSEEN = "the session is lost by which others see that this worker lives; nothing is claimed until it has another"
_FRESH = 0.05  # seconds for which the database's word is taken that nobody has paused; each gap asks it again


class Hold:
    """What holds the worker, by its last look; `reason` is None where nothing does."""

    def __init__(
        self, database: Database, switches: Switches, watch: ClockWatch, changes: Changes, presence: Presence
    ) -> None:
        self._database, self._switches, self._watch, self._changes = database, switches, watch, changes
        self._presence = presence
        self._apart: str | None = None
        self._looked_at, self._is_stirred = float("-inf"), True
        self.reason: TryLater | None = None

    def stir(self) -> None:
        """Somebody has written to the database."""
        self._is_stirred = True

    def compare_clocks(self, clock: Callable[[], int]) -> bool:
        """Look whether this machine's clock (nanoseconds) and the server's agree. Raises Unavailable."""
        self._apart = self._database.apart(clock)
        return self._apart is None

    def forget(self) -> None:
        """Look again at the next chance, whatever was found."""
        self._looked_at, self._is_stirred = float("-inf"), True

    def look(self) -> tuple[TryLater | None, bool]:
        """What held it before, and whether that is another now. Raises Unavailable.

        A switch is seen at once, what the database says a moment later; where nobody has written to it, it says what it
        said.
        """
        now, before = time.monotonic(), self.reason
        is_fresh = now - self._looked_at < _FRESH or (self._changes.tell_all and not self._is_stirred)
        is_fresh = is_fresh and self._apart is None and not self._presence.look()
        if before is None and is_fresh and self._switches.thrown() is None and self._watch.jumped() is None:
            return before, False
        self._is_stirred = False
        self.reason, self._looked_at = self.now(), now
        return before, not _is_same(self.reason, before)

    def now(self) -> TryLater | None:
        """What holds it at this moment. Raises Unavailable."""
        if (thrown := self._switches.thrown()) is not None:
            return TryLater(Code.PAUSED, f"paused: {thrown}; what is approved waits")
        if self._presence.look():
            return TryLater(Code.DATABASE_UNAVAILABLE, f"{self._database.name}: {_UNSEEN}")
        if self._apart is not None:
            return TryLater(Code.CLOCK_JUMPED, f"{self._apart}; nothing is claimed or expired until then")
        with self._database.reading() as connection:
            pause = standing_pause(connection)
            newest = newest_instant_of_workers(connection)
        if pause is not None:
            return TryLater(Code.PAUSED, f"paused by {pause.by}: {pause.reason}; `outbox resume` ends it")
        if (jump := self._watch.jumped(newest)) is not None:
            return TryLater(Code.CLOCK_JUMPED, f"{jump}; nothing is claimed or expired until that is mended")
        return None


def _is_same(hold: TryLater | None, before: TryLater | None) -> bool:
    """Whether that was said already; of a clock the words change with every second."""
    if hold is None or before is None:
        return hold is before
    return hold.code is before.code and (hold.code is Code.CLOCK_JUMPED or hold.message == before.message)
