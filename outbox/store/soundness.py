"""Whether a database is sound, for whoever looks after it: read only, and given up where it takes too long."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, func, select, text

from outbox.core.errors import Unavailable
from outbox.store.engine import Database
from outbox.store.schema import drafts, workers

_FAULTS = """
    SELECT checksum_failures || ' pages had wrong checksums' FROM pg_stat_database
    WHERE datname = current_database() AND checksum_failures > 0
    UNION ALL
    SELECT 'index ' || relname || ' is not whole' FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relnamespace = 'public'::regnamespace AND NOT (indisvalid AND indisready)
    UNION ALL
    SELECT 'constraint ' || conname || ' was never checked' FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND NOT convalidated"""
_LOOK_EVERY = 1000  # instructions of SQLite's machine between looks at the clock


def first_fault(database: Database, *, seconds: float) -> str | None:
    """What is found wrong first, or None: by SQLite's quick check, or in what PostgreSQL knows of itself.

    Raises TimeoutError after `seconds`, or Unavailable.
    """
    if database.is_server:
        with database.reading() as connection:
            found = connection.execute(text(_FAULTS)).scalars().first()
            return str(found) if found is not None else None
    until = time.monotonic() + seconds
    try:
        with database.reading() as connection:
            _interrupt(connection, until)
            try:
                said = str(connection.execute(text("PRAGMA quick_check(1)")).scalar_one())
            finally:
                _interrupt(connection, None)
    except Unavailable as error:
        if time.monotonic() > until:
            raise TimeoutError(f"it was not through after {seconds:g} s") from error
        raise
    return None if said == "ok" else said


def _interrupt(connection: Connection, until: float | None) -> None:
    """Break off what this connection does once `until` is past; with None, do so no more."""
    raw: Any = connection.connection.dbapi_connection
    raw.set_progress_handler(None if until is None else lambda: time.monotonic() > until, _LOOK_EVERY)


def newest_instant(database: Database) -> int | None:
    """When, in microseconds UTC, the newest draft was made or a worker last came or went; None where there is nothing.

    Raises Unavailable.
    """
    with database.reading() as connection:
        drafted = connection.execute(select(drafts.c.created_at).order_by(drafts.c.id.desc()).limit(1)).scalar()
        came, went = connection.execute(select(func.max(workers.c.started_at), func.max(workers.c.ended_at))).one()
    return max((instant for instant in (drafted, came, went) if instant is not None), default=None)
