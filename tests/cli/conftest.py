"""A folder that `outbox init` would make, and a shell in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.house import House
from tests.relay.recording import RecordingRelay


@pytest.fixture
def unsent(tmp_path: Path) -> House:
    """A house whose relay is not there."""
    return House.build(tmp_path, RecordingRelay(port=1))


@pytest.fixture
def shell(unsent: House) -> Shell:
    return Shell(unsent.folder)
