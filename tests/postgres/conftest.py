"""A database of its own for each test, and plain connections to it by role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from outbox.store.engine import Database, connect
from tests.postgres import server
from tests.postgres.by_role import ByRole


@pytest.fixture
def name() -> str:
    """A migrated database, with the rooms' roles."""
    return server.make_database()


@pytest.fixture
def database(name: str) -> Iterator[Database]:
    """As its owner has it."""
    with closing(connect(server.server_of(name))) as opened:
        yield opened


@pytest.fixture
def by_role(name: str) -> ByRole:
    return ByRole(name)
