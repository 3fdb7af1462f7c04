"""Statements of the loop, made into SQL once: to look them up again costs more than to run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Row, UpdateBase
from sqlalchemy.sql import Select

Value = str | int | bytes | None


class Prepared:
    """A statement and the names of its parameters, in the order in which their values are given.

    For an insert they are its columns. Values are text, whole numbers and octets, and reach the driver as they are.
    """

    def __init__(self, statement: Select[Any] | UpdateBase, *names: str) -> None:
        self._statement, self._names = statement, names
        self._made: dict[str, _Sql] = {}

    def rows(self, connection: Connection, *values: Value) -> Sequence[Row[Any]]:
        """What one execution gives back."""
        return self._run(connection, [values]).fetchall()

    def scalar(self, connection: Connection, *values: Value) -> Any:
        """The first column of the first row, or None."""
        row = self._run(connection, [values]).fetchone()
        return row[0] if row is not None else None

    def many(self, connection: Connection, values: Sequence[Sequence[Value]]) -> int:
        """Execute once for each of `values`, of which there is one at least; returns how many rows that changed."""
        return self._run(connection, values).rowcount

    def _run(self, connection: Connection, values: Sequence[Sequence[Value]]) -> CursorResult[Any]:
        dialect = connection.dialect
        sql = self._made.get(dialect.name)
        if sql is None:
            keys = list(self._names) if self._names and getattr(self._statement, "is_insert", False) else None
            sql = self._made[dialect.name] = _Sql(
                self._statement.compile(dialect=dialect, column_keys=keys), self._names
            )
        given = [sql.parameters(each) for each in values]
        return connection.exec_driver_sql(sql.text, given if len(given) > 1 else given[0])


class _Sql:
    """SQL text, and where each of its parameters comes from: a value that is given, or one of the statement's own."""

    def __init__(self, compiled: Any, names: Sequence[str]) -> None:
        self.text = str(compiled)
        place = {name: index for index, name in enumerate(names)}
        own = compiled.params
        self._is_positional: bool = compiled.positional
        order = compiled.positiontup if compiled.positional else list(own)
        self._order = [(name, place.get(name, -1), own[name]) for name in order]

    def parameters(self, values: Sequence[Value]) -> Any:
        if self._is_positional:
            return tuple([values[index] if index >= 0 else own for _, index, own in self._order])
        return {name: values[index] if index >= 0 else own for name, index, own in self._order}
