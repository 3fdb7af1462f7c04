"""Whether a worker lives, as a server knows it: it holds an advisory lock, which goes when its session does.

Who asks takes no lock: the server lists them all. Behind PgBouncer in transaction mode a session is nobody's own, so
there the lock would say nothing, and is not taken.
"""

from __future__ import annotations

import hashlib
import select
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from outbox.core.errors import Code, Unavailable
from outbox.store.engine import Database

_AGAIN = 1.0  # seconds between tries to be seen again
HELD = (
    "SELECT classid::bigint << 32 | objid::bigint FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted"
    " AND objsubid = 1 AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
)
# A host that is gone says no goodbye: the server finds out in a minute, and lets go of the lock. No limit of the
# server's own ends a session that has nothing to say.
_SESSION = (
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;"
    " SET tcp_user_timeout = 60000; SET idle_session_timeout = 0"
)
_OWN = "SELECT ended_at FROM public.workers WHERE id = %s FOR SHARE"


def key_of(worker_id: str) -> int:
    """The number of a worker's lock: 64 bits of a hash, signed."""
    return int.from_bytes(hashlib.sha256(f"outbox worker {worker_id}".encode()).digest()[:8], "big", signed=True)


def present(connection: Connection, worker_ids: Iterable[str]) -> set[str]:
    """Those of these workers whose lock is held now, on a server, whatever the transaction has seen before."""
    held = {int(key) for (key,) in connection.exec_driver_sql(HELD)}
    return {worker_id for worker_id in worker_ids if key_of(worker_id) in held}


class Presence:
    """A worker's own session and lock on a server; where it is a file, there is neither.

    A session that is lost is made again by a thread, and `is_lost` till the lock is held and the worker is known not to
    have been ended meanwhile; if it was, `is_ended`. Raises Unavailable where the first cannot be made.
    """

    def __init__(self, database: Database, worker_id: str) -> None:
        self._database, self._worker_id = database, worker_id
        self._raw: Any = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.is_lost = self.is_ended = False
        self.is_seen = database.is_server and self._take()  # whether others can tell that it lives

    def look(self) -> bool:
        """Whether the worker may be taken for dead, or is not known not to be."""
        if self._raw is not None and not self.is_lost and (self._raw.closed or _says_something(self._raw)):
            self.is_lost = True
            self._thread = threading.Thread(target=self._come_back, name="outbox-presence", daemon=True)
            self._thread.start()
        return self.is_lost

    def close(self) -> None:
        """Let go of the lock."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_AGAIN)
        self._hang_up()

    def _take(self) -> bool:
        """Whether the lock is held. Raises Unavailable where it cannot be tried."""
        try:
            borrowed = self._database.reader.raw_connection()
            self._raw = borrowed.driver_connection  # of one that is detached it is None
            borrowed.detach()
        except SQLAlchemyError as error:
            raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{self._database.name}: no session for the lock") from error
        try:
            if self._raw.execute("SELECT pg_backend_pid()").fetchone()[0] != self._raw.info.backend_pid:
                self._hang_up()  # something in between gives sessions to whoever comes
                return False
            self._raw.execute(_SESSION)
            return bool(self._raw.execute(f"SELECT pg_try_advisory_lock({key_of(self._worker_id)})").fetchone()[0])
        except self._errors as error:
            self._hang_up()
            raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{self._database.name}: {error}") from error

    def _come_back(self) -> None:
        while not self._closing.is_set():
            with suppress(Unavailable):
                if self._is_well() or self._take():
                    self.is_ended = self._was_ended()
                    self.is_lost = self.is_ended
                    return
                self._hang_up()
            self._closing.wait(_AGAIN)

    def _is_well(self) -> bool:
        """Whether the server only had something to say."""
        if self._raw is None:
            return False
        try:
            self._raw.execute("SELECT 1")
        except self._errors:
            self._hang_up()
            return False
        return True

    def _was_ended(self) -> bool:
        """Whoever ends a worker holds its row and then looks at its lock; here it is the other way round."""
        try:
            row = self._raw.execute(_OWN, (self._worker_id,)).fetchone()
        except self._errors as error:
            self._hang_up()
            raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{self._database.name}: {error}") from error
        return row is not None and row[0] is not None

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        driver: Any = self._database.reader.dialect.loaded_dbapi
        return driver.Error, OSError

    def _hang_up(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            with suppress(*self._errors):
                raw.close()


def _says_something(raw: Any) -> bool:
    looked = select.poll()
    looked.register(raw.fileno(), select.POLLIN)
    return bool(looked.poll(0))
