"""The rooms' roles on PostgreSQL: what makes them, to be read, or done as the owner of the tables."""

from __future__ import annotations

from contextlib import closing

from outbox.config import Settings
from outbox.core.errors import Code, ConfigError
from outbox.store.engine import connect
from outbox.store.migrate import apply_roles
from outbox.store.revision import refuse_other_revision
from outbox.store.roles import role_statements


def roles_text() -> str:
    """The SQL, for whoever administers the server."""
    return "".join(f"{statement};\n" for statement in role_statements())


def give_roles(settings: Settings) -> str:
    """Make the roles and give them what is theirs; the database's name. Raises ConfigError, Unavailable."""
    with closing(connect(settings.database_place, "roles")) as database:
        if not database.is_server:
            words = "database.url: a SQLite file has no roles; the rooms are kept apart by their users and groups"
            raise ConfigError(Code.NOT_SUPPORTED, words, field="database.url")
        refuse_other_revision(database)
        apply_roles(database)
        return database.name
