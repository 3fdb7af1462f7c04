"""A house that has asked, made once for each test process and copied for each test."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.house import House
from tests.inbox.letters import Asked
from tests.postgres import server
from tests.relay.recording import RecordingRelay


@pytest.fixture(scope="session")
def asked_once(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    before = server.made()
    with RecordingRelay() as relay:
        house = House.build(tmp_path_factory.mktemp("asked"), relay)
        draft, other = house.draft(), house.draft(subject="Another offer")
        request = house.ask(draft.id)
        made = Asked(house, draft.id, request, other.id, house.request_for(other.id))
    server.keep_databases(before)
    return made


@pytest.fixture
def asked(asked_once: Asked, tmp_path: Path, relay: RecordingRelay) -> Asked:
    """Two drafts have been asked about, and nothing was answered yet."""
    return dataclasses.replace(asked_once, house=asked_once.house.copied(tmp_path / "house", relay))
