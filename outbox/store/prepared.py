"""Statements of the loop, made into SQL once: SQLAlchemy writes them, for both databases, and the driver runs them.

To look a statement up, name its parameters and wrap its rows costs more than SQLite takes to execute it.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, UpdateBase
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import Select

Value = str | int | bytes | None


class Prepared:
    """A statement and the names of its parameters, in the order in which their values are given.

    For an insert they are its columns. Values are text, whole numbers and octets, and reach the driver as they are.
    Raises SQLAlchemy's errors.
    """

    def __init__(self, statement: Select[Any] | UpdateBase, *names: str) -> None:
        self._statement, self._names = statement, names
        self._made: dict[str, _Sql] = {}

    def rows(self, connection: Connection, *values: Value) -> Sequence[Any]:
        """What one execution gives back: tuples, with a name for each column."""
        return self._sql(connection).rows(connection, values)

    def scalar(self, connection: Connection, *values: Value) -> Any:
        """The first column of the first row, or None."""
        row = self._sql(connection).first(connection, values)
        return row[0] if row is not None else None

    def many(self, connection: Connection, values: Sequence[Sequence[Value]]) -> int:
        """Execute once for each of `values`, of which there is one at least; returns how many rows that changed."""
        return self._sql(connection).count(connection, values)

    def _sql(self, connection: Connection) -> _Sql:
        dialect = connection.dialect
        sql = self._made.get(dialect.name)
        if sql is None:
            keys = list(self._names) if getattr(self._statement, "is_insert", False) else None
            compiled = self._statement.compile(dialect=dialect, column_keys=keys)
            sql = self._made[dialect.name] = _Sql(compiled, self._names)
        return sql


class _Sql:
    """SQL text, and where each of its parameters comes from: a value that is given, or one of the statement's own."""

    def __init__(self, compiled: Any, names: Sequence[str]) -> None:
        self._text = str(compiled)
        place = {name: index for index, name in enumerate(names)}
        own = compiled.params
        self._is_positional: bool = compiled.positional
        order = compiled.positiontup if compiled.positional else list(own)
        self._order = [(name, place.get(name, -1), own[name]) for name in order]
        self._row: Any = None

    def rows(self, connection: Connection, values: Sequence[Value]) -> Sequence[Any]:
        cursor = self._run(connection, [values])
        with _Translated(connection):
            found = cursor.fetchall()
            if self._row is None:
                named: Any = namedtuple  # noqa: PYI024  its names are known when the statement was run
                self._row = named("Row", [column[0] for column in cursor.description])._make
            cursor.close()
        return [self._row(row) for row in found]

    def first(self, connection: Connection, values: Sequence[Value]) -> Any:
        cursor = self._run(connection, [values])
        with _Translated(connection):
            row = cursor.fetchone()
            cursor.close()
        return row

    def count(self, connection: Connection, values: Sequence[Sequence[Value]]) -> int:
        cursor = self._run(connection, values)
        changed: int = cursor.rowcount
        cursor.close()
        return changed

    def _run(self, connection: Connection, values: Sequence[Sequence[Value]]) -> Any:
        if not connection.in_transaction():
            connection.begin()
        cursor: Any = connection.connection.cursor()
        with _Translated(connection):
            if len(values) == 1:
                cursor.execute(self._text, self._parameters(values[0]))
            else:
                cursor.executemany(self._text, [self._parameters(each) for each in values])
        return cursor

    def _parameters(self, values: Sequence[Value]) -> Any:
        if self._is_positional:
            return tuple([values[index] if index >= 0 else own for _, index, own in self._order])
        return {name: values[index] if index >= 0 else own for name, index, own in self._order}


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
