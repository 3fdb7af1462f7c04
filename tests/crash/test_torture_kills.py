"""kill -9 and SIGSTOP of a worker process at every call of an attempt that the kernel sees, and at random times.

A worker is restarted after each kill and works on what the dead one left. Points are found by a rehearsal that counts
them (tests/crash/shim.c); `make test` takes those at which something becomes durable or goes to the relay.
"""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.faults_table import Tally, write
from tests.crash.shimmed import BOUND, Arm, Zygote
from tests.crash.torture import BUSY, GONE, GREY, Load, TruthRelay
from tests.house import JANE

HELD_FOR = 2.5  # seconds: longer than the relay's timeouts (1 s here) and than the age of a gap (2 s)
RANDOM_KILLS = 450  # in each of two runs
LONGEST = {"sqlite": 0.25, "postgresql": 0.5}  # seconds to a kill: as the database is further off, less is done in them
STOPPED_LANES = 16
LOOKED_AFTER = 2.0  # seconds for a second worker to do what it must not


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of attempt: how its drafts are made, and what is in its MAIL command alone."""

    name: str
    stock: Callable[[Load, int], object]
    sender: str = "<sales@"

    def __str__(self) -> str:
        return self.name


ACCEPTED = Kind("accepted", lambda load, number: load.approve(number, JANE))
REQUEST = Kind("a request with its token", lambda load, number: load.ask(number), sender="<approve@")
KINDS = [
    ACCEPTED,
    Kind("451 after the dot", lambda load, number: load.approve(number, GREY)),
    Kind("451 at RCPT", lambda load, number: load.approve(number, BUSY)),
    Kind("550 at RCPT", lambda load, number: load.approve(number, GONE)),
    REQUEST,
]


@dataclass(frozen=True, slots=True)
class Point:
    """One labelled call."""

    region: str
    number: int
    call: str
    kind: str

    def __str__(self) -> str:
        return f"{self.region} {self.number} {self.call} {self.kind}"

    @property
    def is_seed(self) -> bool:
        """Whether something becomes durable here, or the message or its dot goes to the relay."""
        match self.call, self.kind:
            case "send", "socket":
                return self.region in {"body", "dot"}
            case ("fdatasync", "wal" | "ledger") | ("commit", "server"):
                return True
            case _:
                return False

    def armed(self, kind: Kind, number: int, *, after: bool) -> Arm:
        return Arm(self.region, self.number, after=after, signal=number, sender=kind.sender)


@pytest.fixture
def zygote() -> Zygote:
    return Zygote.shared()


@pytest.fixture
def truth() -> Iterator[TruthRelay]:
    with TruthRelay() as started:
        yield started


def rehearsed(zygote: Zygote, load: Load, kind: Kind) -> list[Point]:
    """Every point of one attempt, from the worker's start to its end, in a load without leftovers."""
    log = load.house.folder / "labels"
    kind.stock(load, 1)
    child = zygote.start(load.house.folder, arm=Arm("none", sender=kind.sender, log=str(log)))
    assert load.note(child) == 0, child.said
    split = [line.split() for line in log.read_text().splitlines()]
    points = [Point(region, int(number), call, what) for region, number, call, what in split]
    regions = {"start", "EHLO", "MAIL", "RCPT"}  # where DATA is under way, a refusal is left without a word
    assert {point.region for point in points} >= regions
    return list(dict.fromkeys(points))


def drained(zygote: Zygote, load: Load) -> None:
    """A worker that nobody disturbs looks after all that is left."""
    load.note(zygote.start(load.house.folder), where="the last worker")
    assert load.due() == 0


def strike(zygote: Zygote, load: Load, kind: Kind, point: Point, *, after: bool) -> None:
    """One worker, killed at one point; where the point is not reached it ends by itself."""
    if load.due() == 0:
        kind.stock(load, 1)
    where = f"{'after' if after else 'before'} {point}"
    child = zygote.start(load.house.folder, arm=point.armed(kind, signal.SIGKILL, after=after))
    if load.note(child, expected=(0, -signal.SIGKILL), where=where) == -signal.SIGKILL:
        load.faults += 1


# Killed at a point


@pytest.mark.both
def test_a_worker_killed_where_something_becomes_durable_or_leaves_sends_nothing_twice(
    tmp_path: Path, zygote: Zygote, truth: TruthRelay
) -> None:
    load = Load.build(tmp_path / "house", truth)
    points = [point for point in rehearsed(zygote, load, ACCEPTED) if point.is_seed]
    for point in points:
        strike(zygote, load, ACCEPTED, point, after=True)
    drained(zygote, load)
    tally, breaches = load.judged("killed at a point: accepted", zygote)
    write([tally])
    assert breaches == []
    assert tally.faults >= len(points) // 2
    assert tally.in_doubt > 0
    assert tally.provably_unsent > 0


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_worker_killed_at_any_call_sends_nothing_twice(
    tmp_path: Path, zygote: Zygote, truth: TruthRelay, kind: Kind
) -> None:
    load = Load.build(tmp_path / "house", truth)
    points = rehearsed(zygote, load, kind)
    for point in points:
        for after in (False, True):
            strike(zygote, load, kind, point, after=after)
    drained(zygote, load)
    tally, breaches = load.judged(f"killed at a point: {kind}", zygote)
    write([tally])
    assert breaches == []
    assert tally.faults > len(points)  # of twice as many; a few are not reached, where there is nothing to look after


# Killed at a random time


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_worker_with_three_lanes_killed_at_random_times_sends_nothing_twice(
    tmp_path: Path, zygote: Zygote, truth: TruthRelay, seed: int
) -> None:
    load, dice = Load.build(tmp_path / "house", truth, lanes=3), random.Random(seed)
    while load.faults < RANDOM_KILLS:
        if load.due() < 12:
            for kind in KINDS:
                kind.stock(load, 4)
        child = zygote.start(load.house.folder)
        child.has_ended(dice.uniform(0.0, LONGEST["sqlite" if load.house.url is None else "postgresql"]))
        child.signal(signal.SIGKILL)
        if load.note(child, expected=(0, -signal.SIGKILL), where="random") == -signal.SIGKILL:
            load.faults += 1
    drained(zygote, load)
    tally, breaches = load.judged("killed at random times", zygote)
    write([tally])
    assert breaches == []
    assert tally.accepted > 100


# Stopped for longer than any time-out, while a second worker works


def stop(zygote: Zygote, load: Load, kind: Kind, point: Point, *, presumed_dead: bool) -> None:
    """Stop a worker at a point; a second one drains meanwhile; then the first goes on."""
    if load.due() == 0:
        kind.stock(load, 1)
    zombie = zygote.start(load.house.folder, arm=point.armed(kind, signal.SIGSTOP, after=False))
    if zombie.has_stopped():
        load.faults += 1
        until = time.monotonic() + HELD_FOR
        if presumed_dead:  # as on a second host, or where an operator took the lock for a leftover
            for lock in (load.house.folder / "state").glob("worker-*.lock"):
                lock.unlink()
        second = zygote.start(load.house.folder)
        threading.Event().wait(until - time.monotonic())  # it is the fault that takes so long
        zombie.signal(signal.SIGCONT)
        load.note(second, expected=(0, 69), where=f"beside one stopped at {point}")
    load.note(zombie, expected=(0, 69), where=f"stopped at {point}")


def stopped_at(
    tmp_path: Path, zygote: Zygote, kind: Kind, regions: Collection[str], *, presumed_dead: bool, lanes: int
) -> None:
    """Stop a worker at every point, or at the seeds of some regions, several houses at a time; nothing breaks."""
    name = f"stopped at a point{', presumed dead' if presumed_dead else ''}: {kind}"
    with ExitStack() as stack:
        loads = [Load.build(tmp_path / f"house-{n}", stack.enter_context(TruthRelay())) for n in range(lanes)]
        points = [point for point in rehearsed(zygote, loads[0], kind) if point.region in regions or not regions]
        points = [point for point in points if point.is_seed or not regions]

        def work(number: int) -> tuple[Tally, list[str]]:
            for point in points[number::lanes]:
                stop(zygote, loads[number], kind, point, presumed_dead=presumed_dead)
            drained(zygote, loads[number])
            return loads[number].judged(name, zygote)

        with ThreadPoolExecutor(lanes) as pool:
            judged = list(pool.map(work, range(lanes)))
    total = Tally(name)
    for tally, _ in judged:
        total.add(tally)
    write([total])
    assert [breach for _, breaches in judged for breach in breaches] == []
    assert total.faults >= len(points) // 2


def test_a_worker_stopped_in_an_attempt_sends_no_second_copy_when_it_wakes_up(tmp_path: Path, zygote: Zygote) -> None:
    stopped_at(tmp_path, zygote, ACCEPTED, {"body", "dot"}, presumed_dead=True, lanes=4)


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("presumed_dead", [False, True], ids=["its lock held", "presumed dead"])
@pytest.mark.parametrize("kind", [ACCEPTED, REQUEST], ids=str)
def test_a_worker_stopped_at_any_call_sends_no_second_copy_when_it_wakes_up(
    tmp_path: Path, zygote: Zygote, kind: Kind, presumed_dead: bool
) -> None:
    stopped_at(tmp_path, zygote, kind, (), presumed_dead=presumed_dead, lanes=STOPPED_LANES)


# Presumed dead while it is about to enter the gap


def sent_beside_a_stopped_one(zygote: Zygote, folder: Path, number: int) -> tuple[bool, list[str]]:
    """Two workers in one attempt: whether the second came so far, and every breach of the promise.

    The first is presumed dead and waits for 354. The second is stopped as it takes the write lock for the `number`th
    time, between its look at what the first left and what it writes about that; the first enters the gap meanwhile.
    """
    with TruthRelay(held_for=JANE) as relay:
        load = Load.build(folder, relay)
        load.house.set("relay", timeout="30", final_timeout="30")
        load.approve(1, JANE)
        relay.at_data.hold()
        relay.at_dot.hold()
        first = zygote.start(folder)
        relay.at_data.wait()
        for lock in (folder / "state").glob("worker-*.lock"):
            lock.unlink()
        second = zygote.start(folder, arm=Arm("any", number, signal=signal.SIGSTOP, call="lock"))
        has_stopped = second.has_stopped()
        load.faults += has_stopped
        relay.at_data.let_go()
        until = time.monotonic() + BOUND
        while not (relay.taken or first.has_ended(0.02)):  # where it lost the draft it ends without a dot
            assert time.monotonic() < until, first.said
        second.signal(signal.SIGCONT)
        second.has_ended(LOOKED_AFTER)
        relay.at_dot.let_go()
        load.note(first, expected=(0, 69), where=f"presumed dead, the other at its write lock {number}")
        load.note(second, expected=(0, 69), where=f"at its write lock {number}")
        drained(zygote, load)
        tally, breaches = load.judged("presumed dead, about to enter the gap", zygote)
        write([tally])
        return has_stopped, breaches


@pytest.mark.torture
@pytest.mark.timeout(300)
def test_an_attempt_that_enters_the_gap_while_its_worker_is_presumed_dead_is_not_said_to_be_unsent(
    tmp_path: Path, zygote: Zygote
) -> None:
    for number in itertools.count(1):
        has_stopped, breaches = sent_beside_a_stopped_one(zygote, tmp_path / str(number), number)
        assert breaches == []
        if not has_stopped:
            break
    assert number > 3  # it registers, finds the first one dead, and lets its attempt go
