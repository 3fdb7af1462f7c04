"""Killed while it makes the ledger shorter, a worker leaves the old one or the new one, whole, and no second copy.

The kill is at the calls that matter: the writes and the sync of the new file, its rename, and the sync of the folder.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from outbox.clock import wall
from outbox.forgetting import LARGE
from outbox.ledger import NAME, Ledger
from tests.crash.held_relay import HeldRelay
from tests.crash.shimmed import Arm, Zygote
from tests.house import JANE, HandClock, House
from tests.relay.recording import RecordingRelay
from tests.worker.test_forgetting import long_past


@pytest.fixture
def relay() -> Iterator[HeldRelay]:
    with HeldRelay() as held:
        yield held


def is_short(house: House) -> bool:
    return (house.settings.state_dir / NAME).stat().st_size < LARGE


def left(house: House, draft_id: str) -> bool:
    """Whether the ledger can be read, and has a draft in the gap."""
    ((name,),) = house.rows("SELECT id FROM identity")
    ring = house.settings.grant_ring()
    with closing(Ledger.open(house.settings.state_dir, ring, str(name), read_only=True)) as ledger:
        return ledger.possibly_sent(draft_id) is not None


@pytest.mark.parametrize(
    ("call", "number", "after", "becomes_short"),
    [
        pytest.param("write", 1, False, False, id="before it is written", marks=pytest.mark.torture),
        pytest.param("fsync", 2, False, False, id="before it is synced"),
        pytest.param("rename", 1, False, False, id="before it takes the other's place"),
        pytest.param("rename", 1, True, True, id="after it took the other's place"),
        pytest.param("fsync", 3, True, True, id="after the folder was synced", marks=pytest.mark.torture),
    ],
)
def test_a_kill_at_any_step_leaves_one_whole_ledger_and_no_second_copy(
    tmp_path: Path, relay: HeldRelay, call: str, number: int, *, after: bool, becomes_short: bool
) -> None:
    house = House.build(tmp_path, RecordingRelay(port=relay.port))
    house.clock = HandClock(wall())
    sent = house.approved().id
    zygote = Zygote.shared()
    assert zygote.start(house.folder).wait() == 0
    house.clock.now = wall()
    long_past(house)
    house.clock.now = wall()
    waits = house.approved(subject="Another").id
    killed = zygote.start(house.folder, arm=Arm("any", number, after=after, signal=signal.SIGKILL, call=call))
    assert killed.wait() == -signal.SIGKILL
    assert is_short(house) is becomes_short
    assert relay.dots_for(JANE) == 1
    assert left(house, sent)
    assert not left(house, waits)
    last = zygote.start(house.folder)
    assert last.wait() == 0, last.said
    assert is_short(house)
    assert relay.dots_for(JANE) == 2
    assert [*house.settings.state_dir.glob("*.tmp")] == []
