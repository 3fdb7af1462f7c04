"""Fixtures for every room: a relay and a house of its own for each test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import house as houses
from tests.house import House
from tests.postgres import server
from tests.relay.recording import RecordingRelay

server.keep_in_mind()
for name in [name for name in os.environ if name.startswith("OUTBOX_")]:
    del os.environ[name]  # a developer's own outbox is not this one


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database", choices=("sqlite", "postgresql"), help="run everything on this one (default: what a test says)"
    )


def pytest_configure(config: pytest.Config) -> None:
    houses.DATABASE = config.getoption("--database") or "sqlite"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A seed of the rooms' tests runs on both databases each time; all of them do with --database."""
    if metafunc.definition.get_closest_marker("both") and not metafunc.config.getoption("--database"):
        metafunc.parametrize("_of_kind", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def _of_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    before, houses.DATABASE = houses.DATABASE, getattr(request, "param", houses.DATABASE)
    yield
    houses.DATABASE = before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is about a SQLite file is not there for PostgreSQL."""
    items[:] = [item for item in items if not (_kind(item) == "postgresql" and item.get_closest_marker("sqlite"))]


def _kind(item: pytest.Item) -> object:
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return given.get("kind", given.get("_of_kind", houses.DATABASE))


@pytest.fixture(autouse=True)
def _databases_of_its_own() -> Iterator[None]:
    before = server.made()
    yield
    server.drop_databases(before)


@pytest.fixture
def relay() -> Iterator[RecordingRelay]:
    with RecordingRelay() as started:
        yield started


@pytest.fixture
def house(tmp_path: Path, relay: RecordingRelay) -> House:
    return House.build(tmp_path, relay)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """In CI a skipped test is a failure: it says why, and what `make servers` did not find."""
    del exitstatus
    if os.environ.get("CI") == "true" and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("CI=true: a skipped test fails the run", red=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """See `pytest_terminal_summary`."""
    server.drop_kept()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and exitstatus == 0 and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
