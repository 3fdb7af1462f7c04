"""Whether somebody else has committed: looked at often, since a look costs microseconds and writes nothing."""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from outbox.store.dialect import CHANNEL
from outbox.store.engine import Database

_LISTEN_AGAIN = 5.0  # seconds after a connection to a server was lost


class Changes:
    """A connection of its own, on which the database says that there is something new.

    SQLite's data_version moves with every commit of another connection. On a server only those are announced that made
    something due (`dialect.announce`), and behind PgBouncer in transaction mode none: whoever waits looks now and then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.tell_all = not database.is_server  # whether nobody commits without its being seen here
        self._driver: Any = None
        self._lost_at = float("-inf")
        self._version: int | None = None
        self._connect()

    def came(self) -> bool:
        """Whether anything was committed since the last look; True, too, where that cannot be told for a moment."""
        if self._driver is None:
            if time.monotonic() - self._lost_at < _LISTEN_AGAIN:
                return False
            self._connect()
            return True
        try:
            return self._moved() if self.tell_all else self._heard()
        except (self._driver.Error, OSError):
            self.close()
            self._lost_at = time.monotonic()
            return True

    def close(self) -> None:
        """Give the connection back."""
        if self._driver is not None:
            with suppress(self._driver.Error):
                self._driver.close()
            self._driver = None

    def _connect(self) -> None:
        try:
            connection = self._database.reader.raw_connection()
        except SQLAlchemyError:
            self._lost_at = time.monotonic()
            return
        self._driver = connection.driver_connection  # of one that is detached it is None
        connection.detach()
        if not self.tell_all:
            self._driver.execute(f"LISTEN {CHANNEL}")

    def _moved(self) -> bool:
        version: int = self._driver.execute("PRAGMA data_version").fetchone()[0]
        before, self._version = self._version, version
        return version != before

    def _heard(self) -> bool:
        if not select.select([self._driver.fileno()], [], [], 0)[0]:
            return False
        return len(list(self._driver.notifies(timeout=0))) > 0
