"""A loop that goes on while something fails: said once when it lasts, once when it is over, tried ever more rarely."""

from __future__ import annotations

import logging

from outbox.alerts import Alerts
from outbox.clock import Clock
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import OutboxError

PATIENCE = 300 * MICROSECONDS
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between tries


class Outage:
    """One kind of failure of a loop that goes on; `room` names the log that it is said in."""

    def __init__(self, alerts: Alerts, clock: Clock, room: str = "inbox") -> None:
        self._alerts, self._clock, self._room = alerts, clock, room
        self._log = logging.getLogger(f"outbox.{room}")
        self._since: int | None = None
        self._error: OutboxError | None = None
        self._told = False
        self.pause = 0.0  # seconds that a loop may wait before it tries again

    def failed(self, error: OutboxError) -> None:
        """It failed; a person is told once, when it has lasted for PATIENCE."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        self.pause = min(max(2 * self.pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        if self._error is None or error.message != self._error.message:
            self._log.error("%s", error, extra={"action": self._room, "code": error.code.value})
            self._error = error
        if not self._told and now - self._since >= PATIENCE:
            self._told = True
            self._alerts.tell(error.code, error.message, lasts=True)

    @property
    def words(self) -> str:
        """What fails now; empty where nothing does."""
        return self._error.message if self._error is not None else ""

    def worked(self) -> None:
        """It works, or works again; who was told that it did not is told."""
        if self._error is not None:
            words = f"it works again, after: {self._error.message}"
            self._log.warning("%s", words, extra={"action": "recovered"})
            if self._told:
                self._alerts.over(self._error.code)
                self._alerts.tell(self._error.code, words)
        self._since, self._error, self._told, self.pause = None, None, False, 0.0
