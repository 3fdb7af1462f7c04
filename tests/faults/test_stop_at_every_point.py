"""Stop, cancel and pause at every point of an attempt: before the gap nothing leaves, after it the answer says so."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes, policy
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from outbox import operator
from outbox.core.errors import Code, OutboxError, StateRefused, TryLater
from outbox.core.lifecycle import State
from tests.crash.faults_table import Tally, write
from tests.faults.truth import assert_the_promises_hold, rows_of
from tests.house import FOUNDER, HOUR, JANE, SALES, SECOND, House
from tests.relay.adversary import Adversary, Fin, Hold, Keep, Phase, Script, complete
from tests.seeds import seeds
from tests.worker.hand import draining

OFFER = "offer@acme.example"
BEFORE = (Phase.GREETING, Phase.EHLO, Phase.MAIL, Phase.RCPT, Phase.DATA)
WELL, LATER, GONE, DROP = (
    (),
    (complete(451, "4.3.0 Later"),),
    (complete(550, "5.1.1 Nobody"),),
    (Fin(),),
)
GOOD = {Phase.GREETING: complete(220, "relay.example"), Phase.DATA: complete(354, "Go")}
OK = complete(250, "2.0.0 Ok: queued as 4F2")


@dataclass(frozen=True)
class Scene:
    """One approved draft, and the relay it goes through."""

    house: House
    relay: Adversary
    draft_id: str

    def hold_at(self, phase: Phase, *then: object) -> None:
        """Let the next connection be held at a phase, and go on from there as it is told."""
        offered = complete(250, "relay.example") if phase is Phase.EHLO else GOOD.get(phase, OK)
        follow = then or (offered,)
        script: Script = {phase: [Hold(), *follow]}  # type: ignore[list-item]
        self.relay.scripts = [*({} for _ in range(self.relay.connections)), script]

    def row(self) -> tuple[State, int | None, list[str | None]]:
        """State, when a stop was asked for, and how the attempts ended."""
        story = self.house.story(self.draft_id)
        return story.draft.state, story.draft.stop_asked_at, [attempt.outcome for attempt in story.attempts]

    def letters(self) -> str:
        """Everything that the founder was told, as he reads it."""
        letters = (message_from_bytes(one.octets, policy=policy.default) for one in self.relay.to(FOUNDER))
        return "\n".join(" ".join(str(one.get_body().get_content()).split()) for one in letters)  # type: ignore[union-attr]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """The draft was approved at the terminal."""
    with Adversary() as relay:
        house = House.build(tmp_path, relay)  # type: ignore[arg-type]
        house.set("approval", confirm='"none"')
        house.set("relay", retry="[60]")
        yield Scene(house, relay, house.approved().id)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Scene]:
    """The draft was asked about, and approved by a reply."""
    with Adversary() as relay:
        house = House.build(tmp_path, relay)  # type: ignore[arg-type]
        house.set("approval", confirm='"none"')
        draft = house.draft()
        request = house.ask(draft.id)
        house.clock.advance(SECOND)
        house.reply(request, "Ship it")
        house.inbox()
        yield Scene(house, relay, draft.id)


def scene_for(request: pytest.FixtureRequest, stop: str) -> Scene:
    """What a stop needs: who replies was asked."""
    found: Scene = request.getfixturevalue("scene" if stop == "command" else "asked")
    return found


Verb = Callable[[Scene], object]


def by_command(scene: Scene) -> None:
    """`outbox cancel ID`."""
    story = scene.house.cancel(scene.draft_id)
    assert story.draft.state is State.EXECUTING
    assert story.draft.stop_asked_at is not None


def by_reply(scene: Scene) -> None:
    """The approver says "stop"."""
    scene.house.clock.advance(SECOND)
    scene.house.reply(scene.house.request_for(scene.draft_id), "Stop")
    scene.house.inbox()


def by_rejection(scene: Scene) -> None:
    """The approver thinks better of it."""
    scene.house.clock.advance(SECOND)
    scene.house.reply(scene.house.request_for(scene.draft_id), "Reject: the price is wrong")
    scene.house.inbox()


STOPS: dict[str, Verb] = {"command": by_command, "reply": by_reply, "rejection": by_rejection}
ENDINGS = {"well": WELL, "refused_for_now": LATER, "refused_for_good": GONE, "dropped": DROP}
IN_TIME = [f"{phase}-{ending}-{stop}" for stop, phase, ending in product(STOPS, BEFORE, ENDINGS)]


@pytest.mark.parametrize("case", seeds(IN_TIME, 11))
def test_a_stop_before_the_gap_stops_it_whatever_the_relay_says_then(request: pytest.FixtureRequest, case: str) -> None:
    phase, ending, stop = case.split("-")
    scene = scene_for(request, stop)
    if (Phase(phase), ending) in {(Phase.GREETING, "refused_for_good"), (Phase.EHLO, "refused_for_good")}:
        ending = "refused_for_now"  # the circuit's, which tests/faults/test_relay_faults.py has
    scene.hold_at(Phase(phase), *ENDINGS[ending])
    with draining(scene.house):
        scene.relay.wait_until_holding()
        STOPS[stop](scene)
    scene.relay.settle()
    state, asked_at, outcomes = scene.row()
    assert (state, len(outcomes)) == (State.CANCELLED, 1)
    assert asked_at is not None
    assert not {"accepted", "in_doubt"} & set(outcomes)
    assert scene.house.story(scene.draft_id).draft.error == ("stopped", "stopped before it was sent")
    assert scene.relay.dots_of(SALES) == 0
    scene.house.clock.advance(HOUR)
    scene.house.inbox()
    scene.house.drain()
    assert scene.relay.to(JANE) == []
    if stop != "command":
        assert "It is being sent at this moment" in scene.letters()
        assert "The stop came in time: nothing was sent." in scene.letters()


TOO_LATE = {
    "taken": ((Keep(), Hold(), OK), State.COMPLETED, "The stop came too late."),
    "refused_for_now": ((Hold(), *LATER), State.CANCELLED, "The stop came in time: nothing was sent."),
    "refused_for_good": ((Hold(), *GONE), State.CANCELLED, "The stop came in time: nothing was sent."),
    "dropped": ((Keep(), Hold(), Fin()), State.EXECUTING, "may have been sent, and may not"),
}


@pytest.mark.parametrize("case", seeds([f"{ending}-{stop}" for stop, ending in product(STOPS, TOO_LATE)], 5))
def test_a_stop_in_the_gap_does_what_it_still_can_and_says_what_became_of_it(
    request: pytest.FixtureRequest, case: str
) -> None:
    ending, stop = case.split("-")
    scene = scene_for(request, stop)
    actions, state, words = TOO_LATE[ending]
    scene.relay.scripts = [*({} for _ in range(scene.relay.connections)), {Phase.DOT: actions}]
    with draining(scene.house):
        scene.relay.wait_until_holding()
        STOPS[stop](scene)
        assert scene.row()[0] is State.EXECUTING
    scene.relay.settle()
    for _ in range(2):
        scene.house.clock.advance(HOUR)
        scene.house.inbox()
        scene.house.drain()
    assert scene.row()[0] is state
    assert scene.row()[1] is not None
    assert len(scene.row()[2]) == 1
    assert scene.relay.dots_of(SALES) == 1
    if stop != "command":
        assert words in scene.letters()


def test_a_stop_before_the_claim_or_after_the_record_says_so_at_once(scene: Scene) -> None:
    assert scene.row()[0] is State.APPROVED
    other = scene.house.approved()
    assert scene.house.cancel(scene.draft_id).draft.state is State.CANCELLED
    scene.house.drain()
    assert scene.relay.drafts[scene.draft_id] == 0
    assert scene.relay.drafts[other.id] == 1
    for draft_id, state in ((scene.draft_id, "cancelled"), (other.id, "completed")):
        with pytest.raises(StateRefused, match=f"already {state}; there is nothing to cancel"):
            scene.house.cancel(draft_id)


# At the gap itself: who is first in the database wins, and the rows say who it was


@pytest.mark.parametrize("seed", seeds(map(str, range(40)), 20))
def test_a_stop_that_races_with_the_gap_ends_one_way_or_the_other(scene: Scene, seed: str) -> None:
    dice, tally = random.Random(int(seed)), Tally("stop at the gap", faults=1)
    early = dice.random() < 0.5
    scene.hold_at(Phase.DATA)
    scene.relay.spoke.clear()
    with ThreadPoolExecutor(1) as pool, draining(scene.house), scene.house.connection() as connection:
        scene.relay.wait_until_holding()
        connection.execute("BEGIN IMMEDIATE")  # so that the gap and the stop wait side by side
        stop = pool.submit(scene.house.cancel, scene.draft_id) if early else None
        scene.relay.release()
        assert scene.relay.spoke.wait(20)
        stop = stop or pool.submit(scene.house.cancel, scene.draft_id)
        wait([stop], dice.random() / 10)
        connection.execute("ROLLBACK")
    scene.relay.settle()
    state, asked_at, outcomes = scene.row()
    taken = scene.relay.drafts[scene.draft_id]
    assert (state, outcomes, taken) in [(State.CANCELLED, ["not_sent"], 0), (State.COMPLETED, ["accepted"], 1)]
    if asked_at is None:  # it came when all was over, and was told so
        assert isinstance(stop.exception(), StateRefused)
        assert state is State.COMPLETED
    assert_the_promises_hold(scene.house, scene.relay, tally)
    write([tally])


# Pause


def paused_at_the_desk(scene: Scene) -> None:
    with operator.open(scene.house.settings, clock=scene.house.clock) as desk:
        desk.pause(reason="what is this?")


def resumed_at_the_desk(scene: Scene) -> None:
    with operator.open(scene.house.settings, clock=scene.house.clock) as desk:
        desk.resume()


def paused_by_file(scene: Scene) -> None:
    (scene.house.settings.state_dir / "paused").write_text("what is this?\n")


def resumed_by_file(scene: Scene) -> None:
    (scene.house.settings.state_dir / "paused").unlink()


PAUSES: dict[str, tuple[Verb, Verb]] = {
    "desk": (paused_at_the_desk, resumed_at_the_desk),
    "file": (paused_by_file, resumed_by_file),
}


def drain_paused(scene: Scene) -> None:
    """A drain that finds a pause says so, and sends nothing."""
    with pytest.raises(TryLater) as told:
        scene.house.drain()
    assert told.value.code is Code.PAUSED


@pytest.mark.parametrize("case", seeds([f"{phase}-{pause}" for pause, phase in product(PAUSES, BEFORE)], 3))
def test_a_pause_before_the_gap_sends_nothing_until_it_is_resumed(scene: Scene, case: str) -> None:
    phase, how = case.split("-")
    pause, resume = PAUSES[how]
    scene.hold_at(Phase(phase))
    with suppress(TryLater), draining(scene.house):
        scene.relay.wait_until_holding()
        pause(scene)
    scene.relay.settle()
    assert scene.row() == (State.APPROVED, None, ["not_sent"])
    assert scene.relay.dots_of(SALES) == 0
    scene.house.clock.advance(HOUR)
    drain_paused(scene)
    assert len(scene.row()[2]) == 1, "it was claimed under a pause"
    resume(scene)
    scene.house.clock.advance(HOUR)
    scene.house.drain()
    assert scene.row()[0] is State.COMPLETED
    assert scene.relay.drafts[scene.draft_id] == 1


@pytest.mark.parametrize("how", PAUSES)
def test_a_pause_in_the_gap_lets_the_answer_be_heard(scene: Scene, how: str) -> None:
    scene.relay.scripts = [*({} for _ in range(scene.relay.connections)), {Phase.DOT: [Keep(), Hold(), OK]}]
    with suppress(TryLater), draining(scene.house):
        scene.relay.wait_until_holding()
        PAUSES[how][0](scene)
    assert scene.row() == (State.COMPLETED, None, ["accepted"])
    assert scene.relay.drafts[scene.draft_id] == 1


def test_a_worker_that_is_started_with_outbox_paused_claims_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_PAUSED", "1")
    drain_paused(scene)
    assert scene.row() == (State.APPROVED, None, [])
    monkeypatch.delenv("OUTBOX_PAUSED")
    scene.house.drain()
    assert scene.row()[0] is State.COMPLETED


# At any time


@pytest.mark.torture
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(10))
def test_stops_and_pauses_at_random_times_never_make_a_row_lie(tmp_path: Path, seed: int) -> None:
    dice, count, tally = random.Random(seed), 60, Tally("stops and pauses at random", faults=0)
    with Adversary() as relay:
        house = House.build(tmp_path, relay)  # type: ignore[arg-type]
        house.set("thermal", count="100000")
        house.set("relay", retry="[1]", lanes="5")
        scene = Scene(house, relay, "")
        drafts = [house.approved(subject=f"Offer {number}").id for number in range(count)]
        verbs = [partial(house.cancel, dice.choice(drafts)) for _ in range(count // 2)]
        verbs += [partial(verb, scene) for pair in PAUSES.values() for verb in pair for _ in range(3)]
        dice.shuffle(verbs)
        done = threading.Event()
        worker = threading.Thread(target=_drain_until, args=(house, done))
        worker.start()
        for verb in verbs:
            relay.pause(dice.random() / 30)
            with suppress(OutboxError, FileNotFoundError):
                verb()
                tally.faults += 1
        done.set()
        worker.join()
        for _, resume in PAUSES.values():
            with suppress(OutboxError, FileNotFoundError):
                resume(scene)
        house.clock.advance(HOUR)
        house.drain()
        relay.settle()
        assert_the_promises_hold(house, relay, tally)
        assert {row.state for row in rows_of(house)} <= {State.COMPLETED, State.CANCELLED}
        stopped = {row.draft_id for row in rows_of(house) if row.state is State.CANCELLED}
        assert stopped & relay.drafts.keys() == set()
    write([tally])


def _drain_until(house: House, done: threading.Event) -> None:
    while not done.is_set():
        house.clock.advance(SECOND)
        with suppress(TryLater):
            house.drain()
