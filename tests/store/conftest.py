"""Fixtures for the store: a stage of its own for each test, and one file with a draft in every state."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import House
from tests.relay.recording import RecordingRelay
from tests.store.stage import Stage
from tests.store.stock import fill


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    opened = Stage(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file made once; see `stock`."""
    opened = Stage(tmp_path_factory.mktemp("stocked"))
    fill(opened)
    opened.close()
    return opened.path


@pytest.fixture
def stock(tmp_path: Path, stocked: Path) -> House:
    """A house with a draft in every state and a row in every table; see `tests/store/stock.py`."""
    made = House(tmp_path, RecordingRelay())
    shutil.copy(stocked, made.database)
    return made
