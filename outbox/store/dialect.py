"""What SQLite and PostgreSQL say differently, and SQLAlchemy does not say for both."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Insert, Integer, Table, Text, insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement, SyntaxExtension
from sqlalchemy.sql.visitors import InternalTraversal

SETTLED = "outbox_settled"  # an execution option: nobody writes meanwhile
PATIENT = "outbox_patient"  # an execution option: nothing is given up for taking long
Words = Text().with_variant(Text(collation="C"), "postgresql")  # sorts by its octets, as SQLite's does
Whole = BigInteger().with_variant(Integer(), "sqlite")  # 64 bits in both; STRICT refuses BIGINT
CHANNEL = "outbox_due"  # of LISTEN and NOTIFY


class _Place(ColumnElement[int]):
    """Which row of the journal came when: SQLite's own row number, an identity column on PostgreSQL."""

    type = Whole
    inherit_cache = True


@compiles(_Place)
def _rowid(_element: _Place, compiler: Any, **_given: object) -> str:
    return "journal.place" if compiler.dialect.name == "postgresql" else "journal.rowid"


PLACE = _Place()  # rows are never deleted, so it only grows


class _OrNothing(SyntaxExtension, ClauseElement):
    """ON CONFLICT DO NOTHING, in the words that both databases take."""

    # By this a compiled statement is found again.
    _traverse_internals = [("target", InternalTraversal.dp_string)]  # noqa: RUF012  SQLAlchemy's own form

    def __init__(self, target: str) -> None:
        self.target = target

    def apply_to_insert(self, insert_stmt: Insert) -> None:
        """As SQLAlchemy asks for it: behind the values."""
        insert_stmt.apply_syntax_extension_point(self.append_replacing_same_type, "post_values")


@compiles(_OrNothing)
def _words(element: _OrNothing, _compiler: object, **_given: object) -> str:
    return f"ON CONFLICT {element.target} DO NOTHING" if element.target else "ON CONFLICT DO NOTHING"


def insert_or_ignore(table: Table, *columns: str) -> Insert:
    """An insert that does nothing where a row with the same unique `columns` (without them: any unique ones) is there.

    `.returning(...)` gives a row back only where one was inserted.
    """
    return insert(table).ext(_OrNothing(f"({', '.join(columns)})" if columns else ""))


def announce(connection: Connection) -> None:
    """Tell the workers, at COMMIT, that something is due; SQLite's see every commit as it is. Told twice it is one."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_notify('{CHANNEL}', '')").close()


def refuse_ended(connection: Connection) -> None:
    """Raise OperationalError where the transaction has ended already: COMMIT would say that all is well."""
    raw: Any = connection.connection.dbapi_connection
    is_open = (
        raw.in_transaction if connection.dialect.name == "sqlite" else raw.info.transaction_status.name == "INTRANS"
    )
    if not is_open:
        raise OperationalError(None, None, Exception("the transaction was ended before its COMMIT"))
