"""A clock that jumps: nothing is claimed and nothing expires until it can be believed again, and a person is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outbox import operator, worker
from outbox.clock import FURTHEST, ClockWatch, steady, wall
from outbox.core.errors import Code, TryLater
from outbox.core.lifecycle import State
from tests.house import HOUR, JANE, SECOND, HandClock, House
from tests.relay.scripted import Hold, Phase, Say, ScriptedRelay
from tests.worker.hand import PATIENCE, codes, dead_worker


@dataclass
class Clocks:
    """A wall clock that can be set, and a steady one that only goes on."""

    wall: HandClock = field(default_factory=HandClock)
    steady: HandClock = field(default_factory=lambda: HandClock(now=5 * SECOND))

    def pass_by(self, microseconds: int, *, drift: int = 0) -> None:
        self.wall.advance(microseconds + drift)
        self.steady.advance(microseconds)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def watch(clocks: Clocks) -> ClockWatch:
    return ClockWatch(clocks.wall, clocks.steady)


def test_time_that_passes_is_no_jump(clocks: Clocks, watch: ClockWatch) -> None:
    clocks.pass_by(1000 * HOUR)
    assert watch.jumped() is None


@pytest.mark.parametrize("drift", [-FURTHEST, FURTHEST])
def test_a_drift_is_taken_in_however_far_it_goes_in_time(clocks: Clocks, watch: ClockWatch, drift: int) -> None:
    for _ in range(10):
        clocks.pass_by(HOUR, drift=drift)
        assert watch.jumped() is None


@pytest.mark.parametrize(("drift", "words"), [(-FURTHEST - SECOND, "-301 s"), (FURTHEST + SECOND, r"\+301 s")])
def test_a_jump_is_one_until_the_clock_is_back(clocks: Clocks, watch: ClockWatch, drift: int, words: str) -> None:
    clocks.pass_by(HOUR, drift=drift)
    for _ in range(3):
        said = watch.jumped()
        assert said is not None
        assert words.replace("\\", "") in said
        clocks.pass_by(HOUR)
    clocks.pass_by(SECOND, drift=-drift)
    assert watch.jumped() is None


@pytest.mark.parametrize(("ahead", "is_behind"), [(FURTHEST, False), (FURTHEST + 1, True)])
def test_a_clock_behind_what_is_stored_is_not_believed(
    clocks: Clocks, watch: ClockWatch, ahead: int, is_behind: bool
) -> None:
    said = watch.jumped(clocks.wall.now + ahead)
    assert (said is not None and "behind what is stored" in said) == is_behind


def test_the_wall_clock_is_held_against_one_that_nobody_sets() -> None:
    before = steady()
    assert ClockWatch(wall).jumped() is None
    assert steady() >= before


# Through a worker


@pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "ahead"])
def test_a_worker_claims_nothing_by_a_clock_that_jumped_and_goes_on_when_it_is_back(house: House, jump: int) -> None:
    still = HandClock()
    with worker.open(house.settings, clock=house.clock, steady=still) as room:
        draft = house.approved()
        house.clock.advance(jump)
        if jump < 0:
            house.approved(subject="Due by that clock too")
        for _ in range(2):
            with pytest.raises(TryLater) as refused:
                room.run(drain=True)
            assert refused.value.code is Code.CLOCK_JUMPED
        assert house.relay.connections == 0
        assert codes(house) == ["clock_jumped"]
        house.clock.advance(-jump)
        room.run(drain=True)
        assert house.story(draft.id).draft.state is State.COMPLETED


def test_nothing_expires_by_a_clock_that_jumped(house: House) -> None:
    still = HandClock()
    draft = house.approved(ttl=3600)
    with worker.open(house.settings, clock=house.clock, steady=still) as room:
        house.clock.advance(2 * HOUR)
        with pytest.raises(TryLater):  # the operator's mail about it waits
            room.run(drain=True)
        assert house.story(draft.id).draft.state is State.APPROVED
        house.clock.advance(-2 * HOUR)
        room.run(drain=True)
    assert len(house.relay.to(JANE)) == 1


def test_a_clock_that_jumped_lets_go_of_no_dead_workers_claim(house: House) -> None:
    still = HandClock()
    draft = house.approved(ttl=3600)
    dead_worker(house)
    with worker.open(house.settings, clock=house.clock, steady=still) as room:
        house.clock.advance(2 * HOUR)
        with pytest.raises(TryLater):  # the operator's mail about the dead waits
            room.run(drain=True)
        assert [one.phase for one in house.story(draft.id).attempts] == ["claimed"]
        house.clock.advance(-2 * HOUR)
        room.run(drain=True)
    assert len(house.relay.to(JANE)) == 1


def test_what_ends_unsent_while_the_clock_is_not_believed_does_not_expire(tmp_path: Path) -> None:
    still = HandClock()
    with ScriptedRelay({Phase.MAIL: [Hold(), Say(b"451 4.3.0 Later\r\n")]}) as relay, ThreadPoolExecutor(1) as pool:
        house = House.build(tmp_path, relay)
        draft = house.approved(ttl=3600)
        with worker.open(house.settings, clock=house.clock, steady=still) as room:
            drained = pool.submit(room.run, drain=True)
            relay.wait_until_holding()
            house.clock.advance(2 * HOUR)
            relay.release()
            assert isinstance(drained.exception(PATIENCE), None | TryLater)
            assert house.story(draft.id).draft.state is State.APPROVED
            house.clock.advance(-2 * HOUR)


def test_what_was_deferred_by_a_clock_that_was_ahead_is_due_once_the_right_one_is_believed(house: House) -> None:
    draft = house.approved()
    house.relay.refuse[JANE] = "451 4.3.0 Later"
    house.clock.advance(10 * HOUR)
    house.drain()
    house.relay.refuse.clear()
    house.clock.advance(-10 * HOUR)
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.believe_clock()
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED


def test_a_worker_that_starts_behind_what_is_stored_claims_nothing(house: House) -> None:
    house.approved()
    house.drain()
    house.clock.advance(-HOUR)
    house.approved(subject="Another")
    with pytest.raises(TryLater, match="behind what is stored") as refused:
        house.drain()
    assert refused.value.code is Code.CLOCK_JUMPED
    assert len(house.relay.to(JANE)) == 1
    house.clock.advance(HOUR)
    house.drain()
    assert len(house.relay.to(JANE)) == 2


def test_a_few_minutes_are_no_jump(house: House) -> None:
    house.approved()
    house.drain()
    house.clock.advance(-FURTHEST + SECOND)
    house.approved(subject="Another")
    house.drain()
    assert len(house.relay.to(JANE)) == 2
