"""Whether somebody else has committed: looked at often, since a look costs microseconds and writes nothing."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from outbox.store.dialect import CHANNEL
from outbox.store.engine import Database
from outbox.store.inotify import FileWatch

_LISTEN_AGAIN = 5.0  # seconds after a connection to a server was lost
_OFTEN, _SELDOM = 0.02, 1.0  # seconds between looks where nothing tells, and where it is told
_AT_ONCE = 0.001  # and after something was written that is no commit yet: the first, then twice as long each time


class Changes:
    """A connection of its own, on which the database says that there is something new.

    SQLite's data_version moves with every commit of another connection, and every commit writes to the WAL, which is
    watched. On a server only those are announced that made something due (`dialect.announce`), and behind PgBouncer in
    transaction mode none. So whoever waits looks now and then as well.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.tell_all = not database.is_server  # whether nobody commits without its being seen here
        self._driver: Any = None
        self._lost_at = float("-inf")
        self._version: int | None = None
        self._expecting = _SELDOM  # seconds to the next look
        self._watch: FileWatch | None = None
        self._watches: tuple[Callable[[int], object], Callable[[int], object]] | None = None
        self._connect()

    def follow(self, watch: Callable[[int], object], unwatch: Callable[[int], object]) -> None:
        """Have `watch` called with a descriptor that is readable as soon as `came` may say something new.

        `unwatch` is called before that one is closed.
        """
        self._watches = watch, unwatch
        if (descriptor := self._descriptor()) is not None:
            watch(descriptor)

    def unfollow(self) -> None:
        """Have nothing called any more."""
        if self._watches is not None and (descriptor := self._descriptor()) is not None:
            self._watches[1](descriptor)
        self._watches = None

    @property
    def are_told(self) -> bool:
        """Whether something says that there is something new; else `came` is to be asked again and again."""
        return self._watches is not None and self._descriptor() is not None

    @property
    def pause(self) -> float:
        """Seconds until `came` is to be asked again, whether the descriptor is readable by then or not."""
        return self._expecting if self.are_told else _OFTEN

    def _descriptor(self) -> int | None:
        if self._driver is None:
            return None
        if not self.tell_all:
            return int(self._driver.fileno())
        return self._watch.descriptor if self._watch is not None else None

    def came(self) -> bool:
        """Whether anything was committed since the last look; True, too, where that cannot be told for a moment."""
        if self._driver is None:
            if time.monotonic() - self._lost_at < _LISTEN_AGAIN:
                return False
            self._connect()
            if self._watches is not None and (descriptor := self._descriptor()) is not None:
                self._watches[0](descriptor)
            return True
        try:
            return self._moved() if self.tell_all else self._heard()
        except (self._driver.Error, OSError):
            self.close()
            self._lost_at = time.monotonic()
            return True

    def close(self) -> None:
        """Give the connection back."""
        if self._watches is not None and (descriptor := self._descriptor()) is not None:
            self._watches[1](descriptor)
        if self._watch is not None:
            self._watch.close()
            self._watch = None
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
            return
        with suppress(OSError):
            self._watch = FileWatch(f"{self._database.name}-wal")
        self._version = self._driver.execute("PRAGMA data_version").fetchone()[0]

    def _moved(self) -> bool:
        """A commit is written to the WAL, then synced, and only then there to be seen: of that nobody is told."""
        was_written = self._watch is not None and self._watch.forget()
        version: int = self._driver.execute("PRAGMA data_version").fetchone()[0]
        before, self._version = self._version, version
        if was_written:  # perhaps for a commit after the one that is seen now
            self._expecting = _AT_ONCE
        else:
            self._expecting = _SELDOM if version != before else min(2 * self._expecting, _SELDOM)
        return version != before

    def _heard(self) -> bool:
        if not select.select([self._driver.fileno()], [], [], 0)[0]:
            return False
        return len(list(self._driver.notifies(timeout=0))) > 0
