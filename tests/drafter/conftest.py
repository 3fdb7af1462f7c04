"""The drafter's house: no relay is started, because nothing here may reach one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import House
from tests.relay.recording import RecordingRelay


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House.build(tmp_path, RecordingRelay(port=2525))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> House:
    """One house for all that is refused: that nothing was written there is what each of them finds."""
    return House.build(tmp_path_factory.mktemp("untouched"), RecordingRelay(port=2525))
