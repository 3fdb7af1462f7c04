"""Bring a database to this version's revision (Alembic)."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from outbox.core.errors import Code, ConfigError
from outbox.store.dialect import PATIENT
from outbox.store.engine import Database, translated
from outbox.store.roles import role_statements
from outbox.store.schema import REVISION


def scripts() -> Path:
    """Where the migrations are: beside this module in an installed wheel, else at the checkout's top.

    An editable install copies them into site-packages too, where they go stale; those are never found from here.
    """
    beside = Path(__file__).parent / "migrations"
    return beside if beside.is_dir() else Path(__file__).parents[2] / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    return config


def upgrade(database: Database) -> str:
    """Bring the database to REVISION and return that; each migration is one transaction."""
    config = _config()
    with translated(database.name), database.writer.connect().execution_options(**{PATIENT: True}) as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, REVISION)
        except CommandError as error:
            raise ConfigError(
                Code.DATABASE_REVISION,
                f"{database.name} cannot be brought to revision {REVISION}: {error}",
                field="database.url",
            ) from error
    return REVISION


def apply_roles(database: Database) -> None:
    """Make the rooms' roles on a server, and give each what is its own; as the owner of the tables, in one go."""
    with translated(database.name), database.writer.begin() as connection:
        for statement in role_statements():
            connection.exec_driver_sql(statement)
