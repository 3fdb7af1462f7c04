"""Connections to SQLite, set up so that COMMIT is durable and takes the write lock first.

WAL with synchronous=FULL: NORMAL does not sync at commit, and a power cut could undo a claim after the mail has left.
One write connection begins IMMEDIATE (pysqlite's own transactions are off); readers are separate and may only query.
"""

from __future__ import annotations

import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, StaticPool, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from outbox.core.errors import Code, Unavailable
from outbox.store.looking import missing

_DIALECT = create_engine("sqlite://").dialect
_TEXT = partial(str, encoding="utf-8", errors="replace")
_COMPILED: dict[Any, Any] = {}  # statements as SQL text, for every engine of this process: there are but so many
BUSY_TIMEOUT = 10_000  # milliseconds that a writer waits for another process, asking again
_ASK_AGAIN = 3  # milliseconds after SQLite began to wait: left alone, it asks ever more rarely
PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL
    "foreign_keys": 1,
    "recursive_triggers": 1,  # else INSERT OR REPLACE deletes behind the triggers' back
    "trusted_schema": 0,
    "temp_store": 2,  # in memory: a statement that a trigger may undo keeps a journal of its own
}


def open_file(path: Path, *, create: bool) -> tuple[Engine, Engine]:
    """The writing and the reading engine. Raises ConfigError where the file is missing, unless it may be created."""
    if not create and not path.is_file():
        raise missing(path)
    uri = f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT / 1000
        )
        connection.text_factory = _TEXT  # a row that is not UTF-8 is an altered row, not a broken database
        if not path.stat().st_size:  # before WAL makes the first page: what is pruned can go back to the disk
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        return connection

    told: dict[str, Any] = {
        "creator": connect, "hide_parameters": True, "execution_options": {"compiled_cache": _COMPILED}
    }  # fmt: skip
    writer = create_engine("sqlite://", poolclass=StaticPool, **told)
    reader = create_engine("sqlite://", poolclass=QueuePool, max_overflow=-1, **told)
    for engine in (writer, reader):
        engine.dialect = _DIALECT  # it is part of what compiled statements are found by
    event.listen(writer, "connect", _set_writer_pragmas)
    event.listen(writer, "begin", _begin_immediate)
    event.listen(reader, "connect", _set_reader_pragmas)
    event.listen(reader, "begin", _begin)
    _assert_pragmas(writer, path)
    return writer, reader


def _set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for name, value in PRAGMAS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()


def _set_writer_pragmas(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    _set_pragmas(connection, entry)
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_ASK_AGAIN}")
    cursor.close()


def _set_reader_pragmas(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    _set_pragmas(connection, entry)
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = 1")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    until = time.monotonic() + BUSY_TIMEOUT / 1000
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as error:
            if not isinstance(error.orig, sqlite3.OperationalError) or time.monotonic() >= until:
                raise
            if error.orig.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        else:
            return


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
