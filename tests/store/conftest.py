"""Fixtures for the store: a stage of its own for each test, and one database with a draft in every state.

Every test of the store that asks for either runs on SQLite and on PostgreSQL, unless it says `@pytest.mark.sqlite`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.house import House
from tests.postgres import server
from tests.relay.recording import RecordingRelay
from tests.store.stage import Stage
from tests.store.stock import fill


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--database")
        metafunc.parametrize("kind", [asked] if asked else ["sqlite", "postgresql"])


@pytest.fixture
def stage(tmp_path: Path, kind: str) -> Iterator[Stage]:
    opened = Stage(tmp_path, kind)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], House]:
    """A house of each kind that was stocked once; see `stock`."""

    @cache
    def of(kind: str) -> House:
        before = server.made()
        opened = Stage(tmp_path_factory.mktemp("stocked"), kind)
        fill(opened)
        opened.close()
        server.keep_databases(before)
        return opened.house

    return of


@pytest.fixture
def stock(tmp_path: Path, stocked: Callable[[str], House], kind: str) -> House:
    """A house with a draft in every state and a row in every table; see `tests/store/stock.py`.

    On PostgreSQL it is one for all, and what is done over `connection` is undone at the end.
    """
    pattern = stocked(kind)
    made = House(tmp_path, RecordingRelay(), url=pattern.url, is_kept=kind == "sqlite")
    if kind == "sqlite":
        shutil.copy(pattern.database, made.database)
    return made
