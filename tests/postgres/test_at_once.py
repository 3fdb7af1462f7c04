"""Several write at the same time on PostgreSQL, and what SQLite's one lock made sure of still holds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from outbox.core.errors import StateRefused
from outbox.core.lifecycle import Outcome, Room
from outbox.store.claims import enter_gaps_if_held, release_if_held
from outbox.store.stop import cancel_if_not_sent
from outbox.store.verdicts import approve_if_pending
from outbox.store.writer import Transaction
from tests.store.stage import WIRE, Stage

BOUND = 30.0
LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    opened = Stage(tmp_path, "postgresql")
    yield opened
    opened.close()


class Held:
    """Work in a transaction that stays open until it is let go."""

    def __init__(self, work: object) -> None:
        self._work = work
        self.done, self.let_go = threading.Event(), threading.Event()

    def __call__(self, tx: Transaction) -> None:
        self._work(tx)  # type: ignore[operator]
        self.done.set()
        assert self.let_go.wait(BOUND)


def wait_until_locked(stage: Stage) -> None:
    """Until somebody waits for a row that another transaction has."""
    with stage.house.connection() as connection:
        for _ in range(3000):
            if connection.execute(LOCKED).fetchone() != (0,):
                return
            threading.Event().wait(0.01)
    raise AssertionError("nobody waits")


def meanwhile(stage: Stage, held: Held, room: Room, then: object, then_room: Room, run: str) -> Future[object]:
    """`then` is begun while `held` is open, and waits for it."""
    first = stage.writer(room, "held").submit(held)
    assert held.done.wait(BOUND)
    second = stage.writer(then_room, run).submit(then)  # type: ignore[arg-type]
    wait_until_locked(stage)
    assert not second.done()
    held.let_go.set()
    first.result(BOUND)
    return second


def test_a_stop_that_is_committed_first_keeps_the_gap_from_being_entered(stage: Stage) -> None:
    stage.register("w1")
    stage.approved("d")
    claim, now = stage.claim(attempt_id="a"), stage.clock.now
    stop = Held(lambda tx: cancel_if_not_sent(tx, "d", now=now))
    gap = meanwhile(
        stage, stop, Room.OPERATOR, lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=now), Room.WORKER, "w1"
    )
    with pytest.raises(StateRefused):
        gap.result(BOUND)
    assert stage.rows("SELECT phase, gap_at FROM attempts") == [("claimed", None)]


def test_a_stop_that_comes_while_the_gap_is_entered_waits_and_is_too_late(stage: Stage) -> None:
    stage.register("w1")
    stage.approved("d")
    claim, now = stage.claim(attempt_id="a"), stage.clock.now
    gap = Held(lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=now))
    stop = meanwhile(
        stage, gap, Room.WORKER, lambda tx: cancel_if_not_sent(tx, "d", now=now), Room.OPERATOR, "stopping"
    )
    stop.result(BOUND)
    ((gap_first,),) = stage.rows(
        "SELECT (SELECT place FROM journal WHERE action = 'gap') < (SELECT place FROM journal WHERE action = 'stop')"
    )
    assert gap_first is True


def test_of_two_approvals_at_the_same_time_one_counts(stage: Stage) -> None:
    stage.insert("d")
    (one, its), (two, other) = stage.grant("d"), stage.grant("d", approver="other@acme.example")
    now = stage.clock.now
    first = Held(lambda tx: approve_if_pending(tx, one, its, now=now))
    second = meanwhile(
        stage, first, Room.INBOX, lambda tx: approve_if_pending(tx, two, other, now=now), Room.OPERATOR, "2"
    )
    with pytest.raises(StateRefused):
        second.result(BOUND)
    assert stage.rows("SELECT id FROM grants") == [(one.id,)]


def test_a_gap_that_is_entered_keeps_the_draft_from_being_let_go(stage: Stage) -> None:
    stage.register("w1")
    stage.approved("d")
    claim, now = stage.claim(attempt_id="a"), stage.clock.now
    gap = Held(lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=now))

    def let_go(tx: Transaction) -> None:
        release_if_held(tx, claim, not_before=now, now=now)

    released = meanwhile(stage, gap, Room.WORKER, let_go, Room.WORKER, "w2")
    with pytest.raises(StateRefused):
        released.result(BOUND)
    assert stage.rows("SELECT state FROM drafts") == [("executing",)]


def test_counts_are_right_whoever_ended_what(stage: Stage) -> None:
    stage.register("w1")
    for number in range(12):
        stage.insert(f"d{number}")
    now = stage.clock.now

    def cancel(number: int) -> object:
        return stage.writer(Room.OPERATOR, str(number % 4)).run(
            lambda tx: cancel_if_not_sent(tx, f"d{number}", now=now)
        )

    for run in range(4):
        stage.writer(Room.OPERATOR, str(run))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(cancel, range(12)))
    assert stage.rows("SELECT sum(n)::int FROM counters WHERE state = 'cancelled'") == [(12,)]


def test_rows_about_one_draft_have_places_in_the_order_of_what_happened(stage: Stage) -> None:
    stage.register("w1")
    for number in range(8):
        stage.approved(f"d{number}")
        claim = stage.claim(attempt_id=f"a{number}")
        stage.enter_gap(claim)
        stage.finish(claim, Outcome.ACCEPTED)
        stage.complete(claim)
    found = stage.read(
        lambda connection: connection.execute(
            text("SELECT draft_id, action FROM journal WHERE draft_id IS NOT NULL ORDER BY draft_id, place")
        ).all()
    )
    each = [[action for draft_id, action in found if draft_id == f"d{number}"] for number in range(8)]
    assert each == [["insert", "approve", "grant", "claim", "gap", "done", "complete"]] * 8
