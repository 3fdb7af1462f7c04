"""Looks at a database in plain SQL, for the page that is asked for most: importing SQLAlchemy takes longer than it.

Values are named in it as `:name`, which SQLite and SQLAlchemy both take.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from outbox.core.errors import Code, ConfigError, Unavailable
from outbox.core.lifecycle import Room
from outbox.store.server import Server

Look = Callable[[str, dict[str, object]], Sequence[tuple[Any, ...]]]
REVISION = "0004"  # the newest migration
_REVISION_TABLE = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"


@contextmanager
def looking(place: Path | Server) -> Iterator[Look]:
    """One consistent look, at this version's revision. Raises ConfigError where there is none, or Unavailable."""
    if isinstance(place, Server):
        with _looking_at_server(place) as look:
            yield look
        return
    if not place.is_file():
        raise missing(place)
    try:
        with closing(_open(place)) as connection:
            connection.execute("BEGIN")

            def look(sql: str, values: dict[str, object]) -> Sequence[tuple[Any, ...]]:
                return connection.execute(sql, values).fetchall()

            found = look("SELECT version_num FROM alembic_version", {}) if look(_REVISION_TABLE, {}) else []
            if (revision := found[0][0] if found else None) != REVISION:
                raise other_revision(str(place), revision)
            yield look
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{place}: {error}") from error


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, timeout=10)
    connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
    for pragma in ("query_only = 1", "trusted_schema = 0"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@contextmanager
def _looking_at_server(place: Server) -> Iterator[Look]:
    from sqlalchemy import text

    from outbox.store.engine import connect
    from outbox.store.revision import refuse_other_revision

    with closing(connect(place, Room.OPERATOR)) as database:
        refuse_other_revision(database)
        with database.reading() as connection:
            yield lambda sql, values: [tuple(row) for row in connection.execute(text(sql), values)]


def missing(path: Path) -> ConfigError:
    """The error for a file that is not there."""
    return ConfigError(
        Code.DATABASE_MISSING, f"there is no database at {path}; `outbox init` makes one", field="database.url"
    )


def other_revision(name: str, found: str | None) -> ConfigError:
    """The error for a database at another revision, or at none."""
    return ConfigError(
        Code.DATABASE_REVISION,
        f"{name} is at revision {found or 'none'}, this outbox works with {REVISION}; "
        "back it up, then run `outbox db upgrade`",
        field="database.url",
    )
