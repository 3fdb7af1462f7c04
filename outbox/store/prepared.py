"""Statements of the loop, made into SQL once: SQLAlchemy writes them, for both databases, and the driver runs them.

To look a statement up, name its parameters and wrap its rows costs more than SQLite takes to execute it.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Dialect,
    Insert,
    UpdateBase,
    bindparam,
    column,
    literal_column,
    select,
    values,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import Select
from sqlalchemy.sql.sqltypes import NullType
from sqlalchemy.sql.visitors import replacement_traverse

Value = str | int | bytes | None
_MOST_TOGETHER = 32  # rows of one statement


class Given(Protocol):
    """What a change is given for each row, by name."""

    def __getitem__(self, name: str, /) -> ColumnElement[Any]: ...


class Prepared:
    """A question and the names of its parameters, in the order in which their values are given.

    Values are text, whole numbers and octets, and reach the driver as they are. Raises SQLAlchemy's errors.
    """

    def __init__(self, statement: Select[Any], *names: str) -> None:
        self._statement, self._names = statement, names
        self._made: dict[str, _Sql] = {}

    def rows(self, connection: Connection, *given: Value) -> Sequence[Any]:
        """What it gives back: tuples, with a name for each column."""
        return self._sql(connection).rows(connection, given)

    def scalar(self, connection: Connection, *given: Value) -> Any:
        """The first column of the first row, or None."""
        row = self._sql(connection).first(connection, given)
        return row[0] if row is not None else None

    def _sql(self, connection: Connection) -> _Sql:
        name = connection.dialect.name
        if name not in self._made:
            self._made[name] = _Sql(self._statement, self._names, connection.dialect)
        return self._made[name]


class PreparedChange:
    """A change of one row, prepared for many of them; `names` are of what is given for each.

    SQLite changes up to 32 rows with one statement: between any two, this thread would give the interpreter away and
    wait till the thread that sends lets it have it back. PostgreSQL is sent them all at once in any case.
    """

    def __init__(self, change: Callable[[Given], UpdateBase] | Insert, *names: str) -> None:
        self._change, self._names = change, names
        self._made: dict[tuple[str, int], _Sql] = {}

    def many(self, connection: Connection, given: Sequence[Sequence[Value]]) -> int:
        """Make it for each of `given`, of which there is one at least; returns how many rows that changed."""
        if connection.dialect.name != "sqlite":
            return self._sql(connection, 1).count(connection, given)
        changed, start = 0, 0
        while start < len(given):
            together = min(_MOST_TOGETHER, 1 << (len(given) - start).bit_length() - 1)
            flat = [value for row in given[start : start + together] for value in row]
            changed += self._sql(connection, together).count(connection, [flat])
            start += together
        return changed

    def _sql(self, connection: Connection, together: int) -> _Sql:
        key = connection.dialect.name, together
        if key not in self._made:
            places = [[f"{name}__{row}" for name in self._names] for row in range(together)]
            self._made[key] = _Sql(
                self._statement(places), [place for row in places for place in row], connection.dialect
            )
        return self._made[key]

    def _statement(self, places: Sequence[Sequence[str]]) -> UpdateBase:
        rows: list[tuple[BindParameter[Any], ...]] = [tuple(map(bindparam, row)) for row in places]
        each = [dict(zip(self._names, row, strict=True)) for row in rows]
        if isinstance(self._change, Insert):
            return self._change.values(each if len(rows) > 1 else each[0])
        if len(rows) == 1:
            return self._change(each[0])
        # Within the statement, not before it: the driver counts the rows of what begins with the word UPDATE.
        together = values(*map(column, self._names)).data(rows).cte("rows", nesting=True)
        return self._change(select(together).subquery("given").c)


class _Sql:
    """SQL text, and where each of its parameters comes from: a value that is given, or one of the statement's own."""

    def __init__(self, statement: Any, names: Sequence[str], dialect: Dialect) -> None:
        compiled: Any = _in_words(statement, names, dialect).compile(dialect=dialect)
        self._text = str(compiled)
        order = compiled.positiontup if compiled.positional else list(compiled.params)
        own = [name for name in order if name not in names]
        self._own = tuple([compiled.params[name] for name in own])
        place = {name: index for index, name in enumerate([*names, *own])}
        self._names = None if compiled.positional else order
        self._chosen = _choosing([place[name] for name in order])
        self._row: Any = None

    def rows(self, connection: Connection, given: Sequence[Value]) -> Sequence[Any]:
        cursor = self._run(connection, [given])
        with _Translated(connection):
            found = cursor.fetchall()
            if self._row is None:
                named: Any = namedtuple  # noqa: PYI024  its names are known when the statement was run
                self._row = named("Row", [column[0] for column in cursor.description])._make
            cursor.close()
        return [self._row(row) for row in found]

    def first(self, connection: Connection, given: Sequence[Value]) -> Any:
        cursor = self._run(connection, [given])
        with _Translated(connection):
            row = cursor.fetchone()
            cursor.close()
        return row

    def count(self, connection: Connection, given: Sequence[Sequence[Value]]) -> int:
        cursor = self._run(connection, given)
        changed: int = cursor.rowcount
        cursor.close()
        return changed

    def _run(self, connection: Connection, given: Sequence[Sequence[Value]]) -> Any:
        if not connection.in_transaction():
            connection.begin()
        cursor: Any = connection.connection.cursor()
        with _Translated(connection):
            if len(given) == 1:
                cursor.execute(self._text, self._parameters(given[0]))
            else:
                cursor.executemany(self._text, [self._parameters(each) for each in given])
        return cursor

    def _parameters(self, given: Sequence[Value]) -> tuple[Value, ...] | Mapping[str, Value]:
        chosen = self._chosen((*given, *self._own))
        return chosen if self._names is None else dict(zip(self._names, chosen, strict=True))


def _in_words(statement: Any, names: Sequence[str], dialect: Dialect) -> Any:
    """The statement with its own values in the text, not bound.

    Where a partial index is about a column, SQLite looks at what is bound to be compared with it, and makes its plan
    again whenever that is bound anew, be it the same.
    """

    def in_words(element: Any, **_given: object) -> Any:
        if not isinstance(element, BindParameter) or element.key in names or isinstance(element.type, NullType):
            return None  # what is given, what is no value at all, and what a column is set to
        return literal_column(str(element.compile(dialect=dialect, compile_kwargs={"literal_binds": True})))

    return replacement_traverse(statement, {}, in_words)


def _choosing(places: Sequence[int]) -> Callable[[tuple[Value, ...]], tuple[Value, ...]]:
    """What gives the values at these places, in their order."""
    if list(places) == list(range(len(places))):
        return lambda given: given[: len(places)]
    return itemgetter(*places) if len(places) > 1 else lambda given: (given[places[0]],)


class _Translated:
    """The driver's errors as SQLAlchemy's; a class, because it is entered several times for each message."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        base = self._connection.dialect.loaded_dbapi.Error
        if isinstance(error, base):
            dialect = self._connection.dialect
            raise DBAPIError.instance(None, None, error, base, hide_parameters=True, dialect=dialect) from error
