"""The drafter's house: no relay is started, because nothing here may reach one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import House
from tests.relay.recording import RecordingRelay


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House.build(tmp_path, RecordingRelay(port=2525))
