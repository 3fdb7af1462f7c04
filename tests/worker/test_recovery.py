"""What a dead worker left behind: let go where it provably sent nothing, left alone where it may have."""

from __future__ import annotations

import pytest

from outbox import worker
from outbox.core.lifecycle import Room, State
from outbox.lock import WorkerLock, is_alive
from outbox.store.claims import enter_gaps_if_held
from tests.house import FOUNDER, HOUR, JANE, House
from tests.worker.hand import WIRE, alerts, codes, dead_worker, system_drafts, writing

pytestmark = pytest.mark.both


def test_a_claim_of_a_dead_worker_is_let_go_and_sent_once(house: House) -> None:
    draft = house.approved()
    dead_worker(house)
    house.drain()
    found = house.story(draft.id)
    assert found.draft.state is State.COMPLETED
    assert [one.outcome for one in found.attempts] == ["not_sent", "accepted"]
    assert len(house.relay.to(JANE)) == 1


def test_a_gap_of_a_dead_worker_stays_and_is_told_of_once(house: House) -> None:
    draft = house.approved()
    dead_worker(house, in_gap=True)
    for _ in range(3):
        house.drain()
        house.clock.advance(12 * HOUR)
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert house.relay.to(JANE) == []
    assert codes(house) == ["in_doubt", "worker_dead"]
    assert len(house.relay.to(FOUNDER)) == 1


def test_a_dead_worker_is_told_of_once_whatever_it_held(house: House) -> None:
    dead = dead_worker(house, holding=False)
    for _ in range(2):
        house.drain()
    (alert,) = alerts(house)
    assert alert["code"] == "worker_dead"
    assert dead.worker_id in str(alert["message"])
    assert len(house.relay.to(FOUNDER)) == 1


def test_a_system_draft_in_the_gap_of_a_dead_worker_fails(house: House) -> None:
    house.draft()
    house.inbox()
    (request,) = system_drafts(house)
    dead_worker(house, in_gap=True, gate="system")
    house.drain()
    found = house.story(request)
    assert found.draft.state is State.FAILED
    assert (found.draft.error or ("",))[0] == "in_doubt"
    assert found.attempts[0].outcome == "in_doubt"
    assert codes(house) == ["worker_dead"]  # they never cause another
    (alert,) = set(system_drafts(house)) - {request}
    assert house.story(alert).draft.state is State.COMPLETED
    assert len(house.relay.messages) == 1


def test_nothing_is_let_go_where_that_is_left_to_people(house: House) -> None:
    house.set("reconcile", auto_release='"never"')
    draft = house.approved()
    dead_worker(house)
    for _ in range(2):
        house.drain()
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert house.relay.to(JANE) == []
    assert [one.phase for one in house.story(draft.id).attempts] == ["claimed"]


def test_a_claim_of_a_worker_that_holds_its_lock_is_left_alone(house: House) -> None:
    draft = house.approved()
    dead = dead_worker(house)
    lock = WorkerLock(house.settings.state_dir, dead.worker_id)
    house.drain()
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert is_alive(house.settings.state_dir, dead.worker_id)
    lock.release()
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED


def test_a_lock_file_that_nobody_holds_is_a_dead_workers(house: House) -> None:
    draft = house.approved()
    dead = dead_worker(house)
    file = house.settings.state_dir / f"worker-{dead.worker_id}.lock"
    file.touch()
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED
    assert not file.exists()


def test_a_worker_of_another_host_is_not_called_dead_from_here(house: House) -> None:
    draft = house.approved()
    dead_worker(house, host="another.example")
    house.drain()
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert house.relay.messages == []


def test_a_stop_asked_of_a_dead_workers_claim_cancels_it(house: House) -> None:
    draft = house.approved()
    dead_worker(house)
    assert house.cancel(draft.id).draft.state is State.EXECUTING
    house.drain()
    assert house.story(draft.id).draft.state is State.CANCELLED
    assert house.relay.to(JANE) == []


def test_a_dead_workers_claim_whose_time_has_passed_expires(house: House) -> None:
    draft = house.approved(ttl=3600)
    dead_worker(house)
    house.clock.advance(HOUR)
    house.drain()
    assert house.story(draft.id).draft.state is State.EXPIRED
    assert house.relay.to(JANE) == []


def test_a_dead_workers_claim_takes_no_place_in_the_cutout(house: House) -> None:
    house.set("thermal", count="1")
    house.approved()
    dead_worker(house)
    house.drain()
    assert len(house.relay.to(JANE)) == 1


def test_a_zombie_that_comes_back_after_its_claim_was_let_go_cannot_enter_the_gap(house: House) -> None:
    house.approved()
    dead = dead_worker(house)
    house.drain()
    with writing(house, Room.WORKER) as writer, pytest.raises(Exception, match="held by another attempt"):
        writer.run(lambda tx: enter_gaps_if_held(tx, [(dead.claim, WIRE)], now=house.clock()))
    assert len(house.relay.to(JANE)) == 1


def test_a_claim_that_is_a_workers_own_and_unknown_to_it_is_let_go_by_it(house: House) -> None:
    """So it is where COMMIT reported a failure, and the claim was stored all the same."""
    draft = house.approved()
    with worker.open(house.settings, clock=house.clock) as room:
        ((own_id,),) = house.rows("SELECT id FROM workers")
        dead_worker(house, worker_id=str(own_id))
        room.run(drain=True)
    found = house.story(draft.id)
    assert found.draft.state is State.COMPLETED
    assert [one.outcome for one in found.attempts] == ["not_sent", "accepted"]
    assert len(house.relay.to(JANE)) == 1


def test_a_gap_that_is_a_workers_own_and_unknown_to_it_is_left_alone(house: House) -> None:
    draft = house.approved()
    with worker.open(house.settings, clock=house.clock) as room:
        ((own_id,),) = house.rows("SELECT id FROM workers")
        dead_worker(house, worker_id=str(own_id), in_gap=True)
        room.run(drain=True)
        assert house.story(draft.id).draft.state is State.EXECUTING
    house.drain()
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert house.relay.to(JANE) == []
