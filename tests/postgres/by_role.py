"""One database, entered over a plain connection as any of the rooms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from outbox.core.lifecycle import Room
from tests.postgres import server
from tests.postgres.plain import Plain


@dataclass(frozen=True)
class ByRole:
    """Who is it that types."""

    name: str

    @contextmanager
    def plain(self, room: Room | None = None) -> Iterator[Plain]:
        """A room's own login, or the owner's."""
        user = server.login_of(room) if room is not None else None
        told = dict(server.server_of(self.name, user=user).parameters)
        with psycopg.connect(**told, autocommit=True) as connection:
            yield Plain(connection)
