"""A mailbox that cannot be reached: said once when it lasts, and once when it is over."""

from __future__ import annotations

import logging

from outbox.alerts import Alerts
from outbox.clock import Clock
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import OutboxError

log = logging.getLogger("outbox.inbox")
PATIENCE = 300 * MICROSECONDS


class Outage:
    """One kind of failure of a loop that goes on."""

    def __init__(self, alerts: Alerts, clock: Clock) -> None:
        self._alerts, self._clock = alerts, clock
        self._since: int | None = None
        self._said = ""
        self._told = False

    def failed(self, error: OutboxError) -> None:
        """It failed; a person is told once, when it has lasted for PATIENCE."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        if error.message != self._said:
            log.error("%s", error, extra={"action": "inbox", "code": error.code.value})
            self._said = error.message
        if not self._told and now - self._since >= PATIENCE:
            self._told = True
            self._alerts.tell(error.code, error.message)

    def worked(self) -> None:
        """It works, or works again."""
        if self._said:
            log.warning("it works again, after: %s", self._said, extra={"action": "recovered"})
        self._since, self._said, self._told = None, "", False
