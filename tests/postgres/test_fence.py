"""A fence on one of several hosts: it waits for the workers of all, and is about its own ledger alone."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from outbox import operator
from outbox.clock import new_id
from outbox.core.errors import Code, TryLater
from outbox.core.lifecycle import Room, State
from outbox.ledger import NAME, Entered, Forgotten
from outbox.ledger_id import known_ledger_id, ledger_id
from outbox.operator.fence import FenceReport
from outbox.store.claims import claim_if_cool, end_worker_once, enter_gaps_if_held, insert_worker
from outbox.store.engine import connect
from outbox.store.presence import Presence, key_of
from tests.house import House
from tests.operator.stuck import write_in_ledger
from tests.postgres.test_presence import until
from tests.relay.recording import RecordingRelay
from tests.worker.hand import HEATS, WIRE, writing

OTHER = "0" * 32  # the name of another host's ledger
OTHER_HOST = "other.acme.example"
WHY = "a replica took over that had not got every commit"


@pytest.fixture
def house(tmp_path: Path, relay: RecordingRelay) -> House:
    """One that has sent: its host has a ledger, with a name."""
    house = House.build(tmp_path / "here", relay, kind="postgresql")
    house.approved()
    house.drain()
    return house


def accept(house: House, *, even_so: bool = False) -> FenceReport:
    with operator.open(house.settings_of(Room.OPERATOR), clock=house.clock) as desk:
        return desk.accept_fence(note=WHY, even_so=even_so)


def held_by_the_dead(house: House, ledger: str | None, *, in_gap: bool) -> str:
    """A draft that a worker with this ledger held when it died."""
    draft, now, worker_id = house.approved(), house.clock(), new_id(house.clock())
    with writing(house, Room.WORKER) as writer:
        writer.run(lambda tx: insert_worker(tx, worker_id, host=OTHER_HOST, pid=1, now=now, ledger=ledger))
        (claim,), _ = writer.run(
            lambda tx: claim_if_cool(tx, HEATS["mail"], worker_id=worker_id, attempt_ids=[new_id(now)], now=now)
        )
        if in_gap:
            writer.run(lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=now))
        writer.run(lambda tx: end_worker_once(tx, worker_id, now=now))
    return draft.id


def attempt(house: House, draft_id: str) -> tuple[object, object]:
    """Phase and outcome."""
    (found,) = house.rows("SELECT phase, outcome FROM attempts WHERE draft_id = ?", draft_id)
    return found[0], found[1]


@contextmanager
def living_elsewhere(house: House) -> Iterator[None]:
    """A worker of another host that has not ended, and its lock; that is free afterwards, and the row as it was."""
    worker_id, now = new_id(house.clock()), house.clock()
    with closing(connect(house.place, Room.WORKER)) as database, closing(Presence(database, worker_id)):
        with writing(house, Room.WORKER) as writer:
            writer.run(
                lambda tx: insert_worker(tx, worker_id, host=OTHER_HOST, pid=1, now=now, ledger=OTHER, visible=True)
            )
        yield
    until(lambda: not house.rows(f"SELECT 1 FROM pg_locks WHERE objid = {key_of(worker_id) & 0xFFFFFFFF}"))


def lose_ledger(house: House) -> None:
    (house.settings.state_dir / NAME).unlink()


# Whose workers it waits for


def test_while_a_worker_of_another_host_lives_it_is_too_early(house: House) -> None:
    waits = house.approved()
    with living_elsewhere(house):
        before = house.rows("SELECT writer, seq FROM journal ORDER BY place")
        with pytest.raises(TryLater, match=f"on {OTHER_HOST} lives; stop the workers of every host first") as refused:
            accept(house, even_so=True)
        assert refused.value.code is Code.WORKER_ALIVE
        assert house.rows("SELECT writer, seq FROM journal ORDER BY place") == before
    assert house.story(waits.id).draft.state is State.APPROVED


def test_a_worker_of_another_host_that_holds_no_lock_is_not_waited_for(house: House) -> None:
    """Its row is that of a backup, or its host is gone: nobody would ever write its end."""
    waits = house.approved()
    with living_elsewhere(house):
        pass
    assert accept(house, even_so=True).cancelled == 1
    assert house.story(waits.id).draft.state is State.CANCELLED


# Whose drafts it puts in doubt


@pytest.mark.parametrize("in_gap", [False, True], ids=["claimed", "gap"])
def test_without_a_ledger_what_another_one_knows_of_is_left_to_that(house: House, *, in_gap: bool) -> None:
    own = held_by_the_dead(house, ledger_id(house.settings.state_dir), in_gap=in_gap)
    nameless = held_by_the_dead(house, None, in_gap=in_gap)
    others = held_by_the_dead(house, OTHER, in_gap=in_gap)
    lose_ledger(house)
    assert accept(house).in_doubt == 2
    assert attempt(house, own) == attempt(house, nameless) == ("done", "in_doubt")
    assert attempt(house, others) == ("gap" if in_gap else "claimed", None)
    assert house.story(others).draft.state is State.EXECUTING


def test_what_this_ledger_forgot_says_nothing_of_what_another_one_knows(house: House) -> None:
    own = held_by_the_dead(house, ledger_id(house.settings.state_dir), in_gap=False)
    others = held_by_the_dead(house, OTHER, in_gap=False)
    expires_at = max(house.story(draft_id).draft.expires_at for draft_id in (own, others))
    write_in_ledger(house, Forgotten(house.clock(), 0, expires_at))
    assert accept(house, even_so=True).in_doubt == 1
    assert attempt(house, own) == ("done", "in_doubt")
    assert attempt(house, others) == ("claimed", None)


def test_what_left_by_this_ledger_is_in_doubt_whoever_has_claimed_it_since(house: House) -> None:
    """The other host's ledger does not know that it left from here, and would let it leave once more."""
    others = held_by_the_dead(house, OTHER, in_gap=False)
    left(house, others)
    assert accept(house).in_doubt == 1
    assert attempt(house, others) == ("done", "in_doubt")


def left(house: House, draft_id: str) -> None:
    """By this host's ledger the draft has left, under an attempt that the database does not know."""
    at = house.clock()
    write_in_ledger(house, Entered(draft_id, new_id(at), bytes(32).hex(), (), WIRE.hex(), at))


# Whose row it writes


def test_after_a_fence_a_new_host_joins_as_before(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fence puts in doubt stands under its own row: that is this ledger's, and no other has to know it."""
    gone = house.approved()
    left(house, gone.id)
    assert accept(house).in_doubt == 1
    name = known_ledger_id(house.settings.state_dir)
    assert house.rows(
        "SELECT ledger FROM attempts JOIN workers ON workers.id = worker_id WHERE draft_id = ?", gone.id
    ) == [(name,)]
    monkeypatch.setattr(socket, "gethostname", lambda: "new.acme.example")
    house.set("database", state_dir='"state-new"')
    house.approved(subject="From the new host")
    house.drain()
    assert len(house.relay.messages) == 2


def test_where_the_whole_state_folder_was_lost_a_fence_gives_the_new_ledger_a_name(house: House) -> None:
    before = known_ledger_id(house.settings.state_dir)
    shutil.rmtree(house.settings.state_dir)
    waits = house.approved()
    assert accept(house).cancelled == 1
    name = known_ledger_id(house.settings.state_dir)
    assert name not in {None, before}
    assert set(house.rows("SELECT ledger FROM workers")) == {(before,), (name,)}
    house.approved(subject="After it")
    house.drain()
    assert house.story(waits.id).draft.state is State.CANCELLED
    assert len(house.relay.messages) == 2
