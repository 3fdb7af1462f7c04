"""A database as the store knows it: an engine that writes over one connection, and one that only reads.

Which of the two it is, a SQLite file or a PostgreSQL server, is known to store/sqlite.py and store/postgres.py, and to
what store/dialect.py says for both.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from outbox.core.errors import Code, Unavailable
from outbox.store.dialect import SETTLED
from outbox.store.server import Server

Place = Path | Server
FURTHEST_APART = 1_000_000  # microseconds that clocks may be apart
SERVER_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


@dataclass(frozen=True, slots=True)
class Database:
    """One database. `name` is for people; `opened` is the file that was opened, None for a server."""

    name: str
    writer: Engine
    reader: Engine
    opened: os.stat_result | None = None

    @property
    def is_server(self) -> bool:
        """Whether it is PostgreSQL."""
        return self.opened is None

    def refuse_replaced(self) -> None:
        """Raise Unavailable where another file has come in its place: what is done here, nobody would see."""
        if self.opened is None:
            return  # a server's connections break where its database goes
        try:
            same = os.path.samestat(os.stat(self.name), self.opened)  # noqa: PTH116  for each gap
        except OSError:
            same = False
        if not same:
            words = (
                f"{self.name} was taken away or replaced while it was in use; start again with the one that is there"
            )
            raise Unavailable(Code.DATABASE_UNAVAILABLE, words)

    def apart(self, clock: Callable[[], int] = time.time_ns) -> str | None:
        """In words, how far this machine's clock is from the server's, where that is too far; a file has none.

        Every machine decides by its own clock what is due, too late, or within the cutout's window; so these agree.
        """
        if not self.is_server:
            return None
        with self.reading() as connection:
            connection.execute(text("SELECT 1"))  # so that what is measured is one question and its answer
            asked = clock()
            there = connection.execute(text(SERVER_CLOCK)).scalar_one()
            answered = clock()
        ahead = (asked + answered) // 2000 - there
        if abs(ahead) - (answered - asked) // 2000 <= FURTHEST_APART:
            return None
        way = "ahead of" if ahead > 0 else "behind"
        return f"this machine's clock is {abs(ahead) / 1e6:.1f} s {way} the database server's; set both by NTP"

    def close(self) -> None:
        """Give both engines' connections back."""
        self.writer.dispose()
        self.reader.dispose()

    @contextmanager
    def reading(self, *, settled: bool = False) -> Iterator[Connection]:
        """A connection for one consistent look. Raises Unavailable where the database cannot be read.

        With `settled` no transaction is under way meanwhile that could bring rows with places lower than what is seen:
        on a server, whoever writes waits till then. So that look is a short one.
        """
        with translated(self.name), self.reader.connect() as connection:
            yield connection.execution_options(**{SETTLED: settled})


def connect(place: Place, room: str = "", *, create: bool = False) -> Database:
    """Open the database at `place`, on a server in the name of `room`.

    Raises ConfigError where there is none (a file may be made, with `create`), or Unavailable.
    """
    if isinstance(place, Server):
        from outbox.store.postgres import open_server

        with translated(str(place)):
            database = Database(str(place), *open_server(place, room))
        with ExitStack() as unless_agreed:
            unless_agreed.callback(database.close)
            if (apart := database.apart()) is not None:
                raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{database.name}: {apart}")
            unless_agreed.pop_all()
        return database
    from outbox.store.sqlite import open_file

    with translated(str(place)):
        writer, reader = open_file(place, create=create)
        return Database(str(place), writer, reader, place.stat())


@contextmanager
def translated(name: str) -> Iterator[None]:
    """The database's own errors as one line for the operator."""
    try:
        yield
    except DBAPIError as error:
        raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{name}: {first_line(error)}") from error
    except (sqlite3.Error, UnicodeDecodeError) as error:  # a corrupt page may hold no text where names are kept
        raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{name}: {error}") from error


def first_line(error: BaseException) -> str:
    """What the database said, without the statement, its values, and where in a trigger it happened."""
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return said.strip().partition("\n")[0]
