"""A house that has asked, made once for each test process and copied for each test."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.house import HandClock, House
from tests.inbox.letters import Asked
from tests.relay.recording import RecordingRelay


@pytest.fixture(scope="session")
def asked_once(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    with RecordingRelay() as relay:
        house = House.build(tmp_path_factory.mktemp("asked"), relay)
        draft, other = house.draft(), house.draft(subject="Another offer")
        request = house.ask(draft.id)
        return Asked(house, draft.id, request, other.id, house.request_for(other.id))


@pytest.fixture
def asked(asked_once: Asked, tmp_path: Path, relay: RecordingRelay) -> Asked:
    """Two drafts have been asked about, and nothing was answered yet."""
    folder = tmp_path / "house"
    shutil.copytree(asked_once.house.folder, folder)
    house = House(folder, relay, HandClock(asked_once.house.clock.now))
    house.set("relay", port=str(relay.port))
    return dataclasses.replace(asked_once, house=house)
