"""Run migrations on the connection that outbox.store.migrate hands over, each in a transaction of its own."""

from __future__ import annotations

from pathlib import Path

from alembic import context
from sqlalchemy import Connection

from outbox.store.engine import connect
from outbox.store.schema import metadata
from outbox.store.server import parse_server


def run(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=metadata, transactional_ddl=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    url = context.config.get_main_option("sqlalchemy.url") or ""
    place = parse_server(url) if url.startswith("postgresql") else Path(url.removeprefix("sqlite:///"))
    with connect(place, "migrations", create=True).writer.connect() as connection:
        run(connection)
