"""Several write at the same time on PostgreSQL, and what SQLite's one lock made sure of still holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from outbox.core.errors import StateRefused
from outbox.core.lifecycle import Outcome, Room, State
from outbox.store.claims import (
    Claim,
    Tripped,
    claim_if_cool,
    complete_if_held,
    enter_gaps_if_held,
    release_if_held,
)
from outbox.store.heat import Headroom, Heat
from outbox.store.stop import cancel_if_not_sent
from outbox.store.verdicts import approve_if_pending
from outbox.store.writer import Transaction
from tests.store.stage import ROOMY, WIRE, Stage

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


def test_a_stop_that_comes_as_the_draft_is_completed_is_told_that_it_is(stage: Stage) -> None:
    stage.register("w1")
    stage.approved("d")
    claim, now = stage.claim(attempt_id="a"), stage.clock.now
    stage.enter_gap(claim)
    stage.finish(claim, Outcome.ACCEPTED)
    completed = Held(lambda tx: complete_if_held(tx, [claim], now=now))
    stop = meanwhile(
        stage, completed, Room.WORKER, lambda tx: cancel_if_not_sent(tx, "d", now=now), Room.OPERATOR, "stopping"
    )
    with pytest.raises(StateRefused, match="already completed"):
        stop.result(BOUND)


def test_a_stop_that_comes_as_the_draft_is_claimed_is_asked_of_its_worker(stage: Stage) -> None:
    stage.register("w1")
    stage.approved("d")
    now = stage.clock.now
    claimed = Held(lambda tx: claim_if_cool(tx, ROOMY, worker_id="w1", attempt_ids=["a"], now=now))
    stop = meanwhile(
        stage, claimed, Room.WORKER, lambda tx: cancel_if_not_sent(tx, "d", now=now), Room.DRAFTER, "stopping"
    )
    assert stop.result(BOUND) is State.EXECUTING
    assert stage.rows("SELECT stop_asked_at FROM drafts") == [(now,)]


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


# Several workers


WORKERS = ("w1", "w2", "w3", "w4")
DEADLOCKS = "SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()"


def all_at_once(stage: Stage, work: Callable[[str], int]) -> list[int]:
    """What each worker's `work` returns; they begin together."""
    together = threading.Barrier(len(WORKERS))
    for name in WORKERS:
        stage.register(name)

    def begin(name: str) -> int:
        together.wait(BOUND)
        return work(name)

    with ThreadPoolExecutor(len(WORKERS)) as threads:
        return list(threads.map(begin, WORKERS))


def claim_three(
    stage: Stage, heat: Heat, name: str, before: int, headroom: Headroom | None = None
) -> tuple[list[Claim], Tripped | None]:
    ids, now = [f"{name}-{before}-{number}" for number in range(3)], stage.clock.now
    return stage.run(
        Room.WORKER,
        lambda tx: claim_if_cool(tx, heat, worker_id=name, attempt_ids=ids, now=now, headroom=headroom),
        name,
    )


def test_many_claims_of_four_workers_keep_the_limit_to_the_one(stage: Stage) -> None:
    heat, headrooms = Heat("mail", count=50, window=900, cooldown=300), {name: Headroom() for name in WORKERS}
    for _ in range(60):
        stage.approved()

    def claim_all(name: str) -> int:
        claimed = 0
        while True:
            claims, tripped = claim_three(stage, heat, name, claimed, headrooms[name])
            claimed += len(claims)
            if tripped is not None:
                return claimed

    shares = all_at_once(stage, claim_all)
    assert sum(shares) == 50
    assert stage.rows("SELECT count(*), count(DISTINCT draft_id) FROM attempts") == [(50, 50)]
    assert stage.rows("SELECT count(*) FROM journal WHERE action = 'trip'") == [(1,)]
    assert min(shares) >= 3  # the gate's lock is given in turn


def test_a_gap_that_is_entered_while_places_are_counted_takes_one(stage: Stage) -> None:
    """The count is held up at the workers' rows; it may not have looked at the gaps before."""
    heat = Heat("mail", count=1, window=900, cooldown=300)
    stage.register("w1")
    stage.register("w2")
    stage.approved("sent")
    stage.approved("waits")
    claim = stage.claim(heat=heat)
    with stage.house.connection() as stranger, ThreadPoolExecutor(1) as threads:
        stranger.execute("BEGIN")
        stranger.execute("LOCK TABLE workers IN ACCESS EXCLUSIVE MODE")
        counted = threads.submit(stage.trip, "w2", heat=heat)
        wait_until_locked(stage)
        values = (stage.clock.now, WIRE, claim.attempt_id)
        stranger.execute("UPDATE attempts SET phase = 'gap', gap_at = ?, wire_digest = ? WHERE id = ?", values)
        stranger.execute("COMMIT")
        assert counted.result(BOUND).newly
    assert stage.rows("SELECT count(*) FROM attempts") == [(1,)]


def test_workers_that_claim_send_and_are_stopped_at_once_never_lock_each_other_out(stage: Stage) -> None:
    heat = Heat("mail", count=1000, window=900, cooldown=300)
    drafts = [stage.approved() for _ in range(60)]

    def send_all(name: str) -> int:
        sent = 0
        while claims := claim_three(stage, heat, name, sent)[0]:
            for claim in claims:
                try:
                    stage.enter_gap(claim, name)
                except StateRefused:  # stopped
                    stage.finish(claim, Outcome.NOT_SENT, name)
                    stage.release(claim, name)
                else:
                    stage.finish(claim, Outcome.ACCEPTED, name)
                    stage.complete(claim, name)
            sent += len(claims)
        return sent

    stopping = threading.Thread(target=lambda: [stop(stage, draft_id) for draft_id in reversed(drafts)])
    stage.writer(Room.OPERATOR, "stopping")
    stopping.start()
    all_at_once(stage, send_all)
    stopping.join(BOUND)
    assert not stopping.is_alive()
    states = dict(stage.rows("SELECT state, count(*) FROM drafts GROUP BY state"))  # type: ignore[arg-type]
    assert set(states) <= {"completed", "cancelled"}
    assert sum(states.values()) == 60
    assert stage.rows(DEADLOCKS) == [(0,)]


def stop(stage: Stage, draft_id: str) -> None:
    with suppress(StateRefused):
        stage.run(Room.OPERATOR, lambda tx: cancel_if_not_sent(tx, draft_id, now=stage.clock.now), "stopping")


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
