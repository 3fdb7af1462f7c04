"""Real processes on one database, some of them killed: the journal stays on EDGES and nothing is sent twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path

import pytest

from outbox.clock import wall
from tests.cli import zygote
from tests.crash.held_relay import BOUND, LAST_LINE, HeldRelay
from tests.crash.journals import assert_the_journal_holds
from tests.house import FOUNDER, JANE, HandClock, House
from tests.relay.recording import RecordingRelay, Sent
from tests.seeds import seeds

ACTOR = Path(__file__).parent / "actor.py"
SECONDS = 3  # of random verbs; test_torture_kills.py takes more


# Many processes at once


class Signalling(list[Sent]):
    """What the relay accepted, with an event for when it is enough."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self._enough, self.is_enough = enough, threading.Event()

    def append(self, sent: Sent) -> None:
        super().append(sent)
        if len(self) >= self._enough:
            self.is_enough.set()


def settled_for_random_verbs(house: House) -> None:
    """Limits that are not what is tried here."""
    house.set("thermal", count="100000")
    house.set("thermal.system", count="100000")
    house.set("relay", retry="[1]", lanes="3")
    house.relay.refuse |= {"busy@customer.example": "451 4.3.0 later", "gone@customer.example": "550 5.1.1 no such"}


def assert_no_draft_may_have_been_sent_twice(house: House) -> None:
    twice = house.rows(
        "SELECT draft_id FROM attempts WHERE gap_at IS NOT NULL "
        "AND (phase = 'gap' OR outcome IN ('accepted', 'in_doubt')) GROUP BY draft_id HAVING count(*) > 1"
    )
    assert twice == []


def sent_drafts(relay: RecordingRelay) -> Counter[str]:
    """How often the relay accepted each draft."""
    return Counter(str(message_from_bytes(sent.octets)["X-Outbox-Draft"]) for sent in relay.messages)


@contextmanager
def actors(house: House, *roles: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that all act on one house; they are gone when this is left."""
    with (house.folder / "stderr").open("wb") as errors:
        started = [
            subprocess.Popen(
                [sys.executable, str(ACTOR), role, str(house.folder / "outbox.toml"), str(seed), str(SECONDS)],
                stderr=errors,
            )
            for seed, role in enumerate(roles)
        ]
        try:
            yield started
        finally:
            for process in started:
                process.kill()
                process.wait(BOUND)


def test_random_verbs_of_many_processes_stay_on_the_edges_and_send_nothing_twice(house: House) -> None:
    settled_for_random_verbs(house)
    roles = ["drafter", "drafter", "operator", "inbox", "worker", "worker"]
    with actors(house, *roles) as processes:
        codes = [process.wait(SECONDS + BOUND) for process in processes]
    assert codes == [0] * len(roles), (house.folder / "stderr").read_text()
    assert_the_journal_holds(house)
    assert_no_draft_may_have_been_sent_twice(house)
    sent = sent_drafts(house.relay)
    assert len(sent) > 5
    assert set(sent.values()) == {1}
    assert sorted(sent) == sorted(str(key) for (key,) in house.rows("SELECT id FROM drafts WHERE state = 'completed'"))
    assert house.rows("SELECT id FROM drafts WHERE state = 'executing'") == []


def test_workers_killed_among_others_leave_nothing_but_doubt_behind(house: House) -> None:
    settled_for_random_verbs(house)
    house.relay.messages = enough = Signalling(3)
    with actors(house, "worker", "worker", "worker", "drafter", "operator") as processes:
        assert enough.is_enough.wait(BOUND)
        for process in processes[:2]:
            process.kill()
        codes = [process.wait(SECONDS + BOUND) for process in processes]
    assert codes == [-9, -9, 0, 0, 0], (house.folder / "stderr").read_text()
    house.clock.now = wall() + 1_000_000
    house.drain()
    assert_the_journal_holds(house)
    assert_no_draft_may_have_been_sent_twice(house)
    sent = sent_drafts(house.relay)
    assert set(sent.values()) == {1}
    completed = {str(key) for (key,) in house.rows("SELECT id FROM drafts WHERE state = 'completed'")}
    doubtful = {str(key) for (key,) in house.rows("SELECT draft_id FROM attempts WHERE phase = 'gap'")}
    executing = {str(key) for (key,) in house.rows("SELECT id FROM drafts WHERE state = 'executing'")}
    given_up = {str(key) for (key,) in house.rows("SELECT draft_id FROM attempts WHERE outcome = 'in_doubt'")}
    assert completed <= sent.keys() <= completed | doubtful | given_up
    assert executing == doubtful


# One worker, killed at a moment


@pytest.fixture
def held() -> Iterator[HeldRelay]:
    with HeldRelay() as started:
        yield started


@pytest.fixture
def home(tmp_path: Path, held: HeldRelay) -> House:
    """A house with one approved draft, whose worker is a process of its own."""
    made = House.build(tmp_path, RecordingRelay(port=held.port))
    made.clock = HandClock(wall())
    made.approved(text=f"Dear Jane,\n\nhere it is.\n{LAST_LINE}")
    return made


@contextmanager
def worker_process(home: House) -> Iterator[subprocess.Popen[bytes]]:
    with (home.folder / "stderr").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "outbox", "worker", "--drain"], cwd=home.folder, stderr=errors
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(BOUND)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    assert process.wait(BOUND) == -9


def drain(home: House) -> None:
    """A worker that runs to its end."""
    code, _, errors = zygote.run(["worker", "--drain"], home.folder, dict(os.environ), b"")
    assert code == 0, errors


def story(home: House) -> tuple[str, list[tuple[object, ...]]]:
    """State of the draft, and phase and outcome of each attempt."""
    ((draft_id, state),) = home.rows("SELECT id, state FROM drafts WHERE kind <> 'system'")
    query = "SELECT phase, outcome FROM attempts WHERE draft_id = ? ORDER BY started_at"
    return str(state), home.rows(query, draft_id)


@contextmanager
def locked(home: House) -> Iterator[None]:
    """Nobody else writes to the database meanwhile."""
    with home.connection() as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def assert_sent_once_after_a_restart(home: House, held: HeldRelay) -> None:
    assert story(home) == ("executing", [("claimed", None)])
    assert held.dots_for(JANE) == 0
    held.let_go()
    drain(home)
    assert story(home) == ("completed", [("done", "not_sent"), ("done", "accepted")])
    drain(home)
    assert held.dots_for(JANE) == 1
    assert_the_journal_holds(home)


def assert_never_sent_again(home: House, held: HeldRelay) -> None:
    assert story(home) == ("executing", [("gap", None)])
    held.let_go()
    drain(home)
    drain(home)
    assert held.dots_for(JANE) == 1
    assert story(home) == ("executing", [("gap", None)])
    assert held.dots_for(FOUNDER) == 1  # he is told once
    assert_the_journal_holds(home)


@pytest.mark.parametrize("moment", seeds(["greeting", "MAIL", "RCPT", "DATA"], 3))
def test_a_worker_killed_before_the_message_sent_nothing_and_it_is_sent_once(
    home: House, held: HeldRelay, moment: str
) -> None:
    held.moments[moment].hold()
    with worker_process(home) as process:
        held.moments[moment].wait()
        kill(process)
    assert_sent_once_after_a_restart(home, held)


def test_a_worker_killed_with_all_written_but_the_dot_sent_nothing_and_it_is_sent_once(
    home: House, held: HeldRelay
) -> None:
    held.moments["DATA"].hold()
    with worker_process(home) as process:
        held.moments["DATA"].wait()
        with locked(home):  # so that it stays before the gap
            held.moments["DATA"].let_go()
            held.moments["body"].wait()
            kill(process)
    assert_sent_once_after_a_restart(home, held)


def test_a_worker_killed_in_the_gap_leaves_doubt_and_it_is_never_sent_again(home: House, held: HeldRelay) -> None:
    held.moments["dot"].hold()
    with worker_process(home) as process:
        held.moments["dot"].wait()
        kill(process)
    assert_never_sent_again(home, held)


def test_a_worker_killed_before_it_recorded_the_acceptance_leaves_doubt_and_it_is_never_sent_again(
    home: House, held: HeldRelay
) -> None:
    held.moments["dot"].hold()
    with worker_process(home) as process:
        held.moments["dot"].wait()
        process.send_signal(signal.SIGSTOP)  # so that it records nothing, in its ledger neither
        held.moments["dot"].let_go()
        held.moments["accepted"].wait()
        kill(process)
    assert_never_sent_again(home, held)


def test_a_stop_asked_for_after_a_kill_in_the_gap_changes_nothing(home: House, held: HeldRelay) -> None:
    held.moments["dot"].hold()
    with worker_process(home) as process:
        held.moments["dot"].wait()
        kill(process)
    ((draft_id,),) = home.rows("SELECT id FROM drafts")
    home.cancel(str(draft_id))
    assert_never_sent_again(home, held)


def test_a_draft_stopped_while_its_dead_worker_held_it_is_cancelled(home: House, held: HeldRelay) -> None:
    held.moments["DATA"].hold()
    with worker_process(home) as process:
        held.moments["DATA"].wait()
        kill(process)
    ((draft_id,),) = home.rows("SELECT id FROM drafts")
    home.cancel(str(draft_id))
    held.let_go()
    drain(home)
    assert story(home) == ("cancelled", [("done", "not_sent")])
    assert held.dots_for(JANE) == 0


@pytest.mark.parametrize("moment", ["DATA", "dot"])
def test_what_a_living_worker_holds_is_left_to_it(home: House, held: HeldRelay, moment: str) -> None:
    held.moments[moment].hold()
    with worker_process(home) as process:
        held.moments[moment].wait()
        before = story(home)
        drain(home)
        assert story(home) == before
        held.let_go()
        assert process.wait(BOUND) == 0
    assert story(home) == ("completed", [("done", "accepted")])
    assert held.dots_for(JANE) == 1
