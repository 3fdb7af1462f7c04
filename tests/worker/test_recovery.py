"""What a dead worker left behind: let go where it provably sent nothing, left alone where it may have."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

from outbox.clock import new_id
from outbox.core.lifecycle import Room, State
from outbox.store.claims import Claim, Heat, claim_if_cool, enter_gap_if_held, insert_worker
from outbox.worker.lock import WorkerLock, is_alive
from tests.house import FOUNDER, HOUR, JANE, House
from tests.worker.hand import codes, system_drafts, writing

HEATS = {"mail": Heat("mail", 10, 900, 300), "system": Heat("system", 60, 900, 300)}


@dataclass(frozen=True)
class Dead:
    """A worker that claimed and is no more."""

    worker_id: str
    claim: Claim


def _dead_worker(house: House, *, in_gap: bool = False, host: str | None = None, gate: str = "mail") -> Dead:
    worker_id, now = new_id(house.clock()), house.clock()
    with writing(house, Room.WORKER) as writer:
        writer.run(lambda tx: insert_worker(tx, worker_id, host=host or socket.gethostname(), pid=1, now=now))
        claim = writer.run(
            lambda tx: claim_if_cool(tx, HEATS[gate], worker_id=worker_id, attempt_id=new_id(now), now=now)
        )
        assert isinstance(claim, Claim)
        if in_gap:
            writer.run(lambda tx: enter_gap_if_held(tx, claim, wire_digest=bytes(32), now=now))
    return Dead(worker_id, claim)


def test_a_claim_of_a_dead_worker_is_let_go_and_sent_once(house: House) -> None:
    draft = house.approved()
    _dead_worker(house)
    house.drain()
    found = house.story(draft.id)
    assert found.draft.state is State.COMPLETED
    assert [one.outcome for one in found.attempts] == ["not_sent", "accepted"]
    assert len(house.relay.to(JANE)) == 1


def test_a_gap_of_a_dead_worker_stays_and_is_told_of_once(house: House) -> None:
    draft = house.approved()
    _dead_worker(house, in_gap=True)
    for _ in range(3):
        house.drain()
        house.clock.advance(12 * HOUR)
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert house.relay.to(JANE) == []
    assert codes(house) == ["in_doubt"]
    assert len(house.relay.to(FOUNDER)) == 1


def test_a_system_draft_in_the_gap_of_a_dead_worker_fails(house: House) -> None:
    house.draft()
    house.inbox()
    (request,) = system_drafts(house)
    _dead_worker(house, in_gap=True, gate="system")
    house.drain()
    found = house.story(request)
    assert found.draft.state is State.FAILED
    assert (found.draft.error or ("",))[0] == "in_doubt"
    assert found.attempts[0].outcome == "in_doubt"
    assert house.relay.messages == []


def test_nothing_is_let_go_where_that_is_left_to_people(house: House) -> None:
    house.set("reconcile", auto_release='"never"')
    draft = house.approved()
    _dead_worker(house)
    for _ in range(2):
        house.drain()
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert house.relay.messages == []
    assert house.rows("SELECT phase FROM attempts") == [("claimed",)]


def test_a_claim_of_a_worker_that_holds_its_lock_is_left_alone(house: House) -> None:
    draft = house.approved()
    dead = _dead_worker(house)
    lock = WorkerLock(house.settings.state_dir, dead.worker_id)
    house.drain()
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert is_alive(house.settings.state_dir, dead.worker_id)
    lock.release()
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED


def test_a_lock_file_that_nobody_holds_is_a_dead_workers(house: House) -> None:
    draft = house.approved()
    dead = _dead_worker(house)
    file = house.settings.state_dir / f"worker-{dead.worker_id}.lock"
    file.touch()
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED
    assert not file.exists()


def test_a_worker_of_another_host_is_not_called_dead_from_here(house: House) -> None:
    draft = house.approved()
    _dead_worker(house, host="another.example")
    house.drain()
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert house.relay.messages == []


def test_a_stop_asked_of_a_dead_workers_claim_cancels_it(house: House) -> None:
    draft = house.approved()
    _dead_worker(house)
    assert house.cancel(draft.id).draft.state is State.EXECUTING
    house.drain()
    assert house.story(draft.id).draft.state is State.CANCELLED
    assert house.relay.to(JANE) == []


def test_a_dead_workers_claim_whose_time_has_passed_expires(house: House) -> None:
    draft = house.approved(ttl=3600)
    _dead_worker(house)
    house.clock.advance(HOUR)
    house.drain()
    assert house.story(draft.id).draft.state is State.EXPIRED
    assert house.relay.to(JANE) == []


def test_a_dead_workers_claim_takes_no_place_in_the_cutout(house: House) -> None:
    house.set("thermal", count="1")
    house.approved()
    _dead_worker(house)
    house.drain()
    assert len(house.relay.to(JANE)) == 1


def test_a_zombie_that_comes_back_after_its_claim_was_let_go_cannot_enter_the_gap(house: House) -> None:
    house.approved()
    dead = _dead_worker(house)
    house.drain()
    with writing(house, Room.WORKER) as writer, pytest.raises(Exception, match="held by another attempt"):
        writer.run(lambda tx: enter_gap_if_held(tx, dead.claim, wire_digest=bytes(32), now=house.clock()))
    assert len(house.relay.to(JANE)) == 1
