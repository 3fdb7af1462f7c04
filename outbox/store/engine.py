"""Connections to SQLite, set up so that COMMIT is durable and takes the write lock first.

WAL with synchronous=FULL: NORMAL does not sync at commit, and a power cut could undo a claim after the mail has left.
One write connection begins IMMEDIATE (pysqlite's own transactions are off); readers are separate and may only query.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, StaticPool, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from outbox.core.errors import Code, ConfigError, Unavailable

_DIALECT = create_engine("sqlite://").dialect
_COMPILED: dict[Any, Any] = {}  # statements as SQL text, for every engine of this process: there are but so many
BUSY_TIMEOUT = 10_000  # milliseconds that a writer waits for another process
PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL
    "foreign_keys": 1,
    "recursive_triggers": 1,  # else INSERT OR REPLACE deletes behind the triggers' back
    "trusted_schema": 0,
}


@dataclass(frozen=True, slots=True)
class Database:
    """One SQLite file: the engine that writes (one connection, BEGIN IMMEDIATE) and the one that reads."""

    path: Path
    writer: Engine
    reader: Engine
    opened: os.stat_result

    def refuse_replaced(self) -> None:
        """Raise Unavailable where another file has come in its place: what is done here, nobody would see."""
        try:
            same = os.path.samestat(self.path.stat(), self.opened)
        except OSError:
            same = False
        if not same:
            words = (
                f"{self.path} was taken away or replaced while it was in use; start again with the one that is there"
            )
            raise Unavailable(Code.DATABASE_UNAVAILABLE, words)

    def close(self) -> None:
        """Give both engines' connections back."""
        self.writer.dispose()
        self.reader.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for one consistent look. Raises Unavailable where the file cannot be read."""
        with translated(self.path), self.reader.connect() as connection:
            yield connection


def connect(path: Path, *, create: bool = False) -> Database:
    """Open the file at `path`. Raises ConfigError where it is missing, unless it may be created."""
    if not create and not path.is_file():
        raise ConfigError(
            Code.DATABASE_MISSING, f"there is no database at {path}; `outbox init` makes one", field="database.url"
        )
    uri = f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}"

    def open_file() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT / 1000
        )
        connection.text_factory = _text  # a row that is not UTF-8 is an altered row, not a broken database
        return connection

    told: dict[str, Any] = {
        "creator": open_file, "hide_parameters": True, "execution_options": {"compiled_cache": _COMPILED}
    }  # fmt: skip
    writer = create_engine("sqlite://", poolclass=StaticPool, **told)
    reader = create_engine("sqlite://", poolclass=QueuePool, max_overflow=-1, **told)
    for engine in (writer, reader):
        engine.dialect = _DIALECT  # it is part of what compiled statements are found by
    event.listen(writer, "connect", _set_pragmas)
    event.listen(writer, "begin", _begin_immediate)
    event.listen(reader, "connect", _set_reader_pragmas)
    event.listen(reader, "begin", _begin)
    with translated(path):
        _assert_pragmas(writer, path)
    return Database(path, writer, reader, path.stat())


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for name, value in PRAGMAS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()


def _set_reader_pragmas(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    _set_pragmas(connection, entry)
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = 1")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _assert_pragmas(writer: Engine, path: Path) -> None:
    with writer.connect() as connection:
        for name, expected in PRAGMAS.items():
            found = connection.execute(text(f"PRAGMA {name}")).scalar_one()
            if found != expected:
                raise Unavailable(
                    Code.DATABASE_UNAVAILABLE,
                    f"{path}: PRAGMA {name} is {found}, not {expected}; is the file on a network disk?",
                )
        connection.rollback()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's own errors as one line for the operator."""
    try:
        yield
    except DBAPIError as error:
        raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{path}: {error.orig}") from error
    except (sqlite3.Error, UnicodeDecodeError) as error:  # a corrupt page may hold no text where names are kept
        raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{path}: {error}") from error
