"""Which revision a database is at, and whether its guards are what the migrations made. Needs no Alembic."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Connection, inspect, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex

from outbox.core.errors import Code, Unavailable
from outbox.store.engine import Database
from outbox.store.looking import REVISION, other_revision
from outbox.store.schema import metadata
from outbox.store.triggers import TRIGGERS


def current(database: Database) -> str | None:
    """The revision that the database is at, or None for an empty one."""
    with database.reading() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def refuse_other_revision(database: Database) -> None:
    """Raise ConfigError unless the database is at REVISION."""
    if (found := current(database)) != REVISION:
        raise other_revision(database.name, found)


def refuse_altered(database: Database) -> None:
    """Raise Unavailable unless triggers, indexes and whatever else guards rows are what the migrations made."""
    with database.reading() as connection:
        if database.is_server:
            from outbox.store.made import expected_in_server, found_in_server

            found, expected = found_in_server(connection), expected_in_server()
        else:
            found, expected = guards(connection), expected_guards()
    altered = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if altered:
        raise Unavailable(
            Code.DATABASE_ALTERED,
            f"{database.name}: {', '.join(altered)} is not what the migrations made; restore a backup or ask why",
        )


def guards(connection: Connection) -> dict[str, str]:
    """Name and text of every trigger and index in a SQLite file, white space folded."""
    rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'index')"))
    return {name: _folded(sql) for name, sql in rows if sql is not None}


@cache
def expected_guards() -> dict[str, str]:
    """Name and text of every trigger and index that the schema describes."""
    indexes = [index for table in metadata.tables.values() for index in table.indexes]
    words = [str(CreateIndex(index).compile(dialect=sqlite.dialect())) for index in indexes]
    return {sql.replace("UNIQUE ", "").split()[2]: _folded(sql) for sql in (*words, *TRIGGERS)}


def _folded(sql: str) -> str:
    return " ".join(sql.split())
