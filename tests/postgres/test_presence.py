"""Workers of several hosts see of each other whether they live, and leave to each what only its own ledger knows."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from outbox import operator, worker
from outbox.clock import new_id
from outbox.core.errors import Code, StateRefused, TryLater, Unavailable
from outbox.core.lifecycle import Phase, Room, Settled, State
from outbox.ledger import LedgerRefused
from outbox.ledger_id import known_ledger_id, ledger_id
from outbox.operator.status import status
from outbox.store.changes import Changes
from outbox.store.claims import claim_if_cool, end_absent_worker, end_worker_once, enter_gaps_if_held, insert_worker
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.open_attempts import workers_not_ended
from outbox.store.presence import Presence, key_of, present
from outbox.store.transition import LostRace
from outbox.store.writer import Writer
from tests.house import SECOND, House
from tests.relay.recording import RecordingRelay
from tests.worker.hand import HEATS, WIRE

BOUND = 30.0
SESSION = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND objid = %s AND mode = 'ExclusiveLock'"
)


@pytest.fixture
def house(tmp_path: Path, relay: RecordingRelay) -> House:
    return House.build(tmp_path / "here", relay, kind="postgresql")


def until(holds: Callable[[], object]) -> None:
    """Ask again and again, with a bound."""
    for _ in range(3000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to that")


def cut(house: House, worker_id: str) -> None:
    """End the session by which others see a worker."""
    with house.connection() as owner:
        owner.raw.execute(  # type: ignore[union-attr]
            f"SELECT pg_terminate_backend(pid, 5000) FROM ({SESSION}) AS found", (key_of(worker_id) & 0xFFFFFFFF,)
        )


@contextmanager
def elsewhere(house: House, *, in_gap: bool = False, visible: bool = True) -> Iterator[tuple[str, Presence]]:
    """A worker of another host that holds one draft, and its session; its ledger is not here."""
    now, worker_id = house.clock(), new_id(house.clock())
    with closing(connect(house.place, Room.WORKER)) as database:
        writer = Writer(database, Chain(Room.WORKER, worker_id, house.settings.grant_ring()))
        presence = Presence(database, worker_id)
        writer.run(
            lambda tx: insert_worker(
                tx, worker_id, host="other.acme.example", pid=1, now=now, ledger="0" * 32, visible=visible
            )
        )
        (claim,), _ = writer.run(
            lambda tx: claim_if_cool(tx, HEATS["mail"], worker_id=worker_id, attempt_ids=[new_id(now)], now=now)
        )
        if in_gap:
            writer.run(lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=now))
        try:
            yield worker_id, presence
        finally:
            presence.close()
            writer.close()


def living(house: House) -> set[str]:
    with closing(connect(house.place)) as database, database.reading() as connection:
        return present(connection, [one.id for one in workers_not_ended(connection)])


def not_ended(house: House) -> set[object]:
    return {worker_id for (worker_id,) in house.rows("SELECT id FROM workers WHERE ended_at IS NULL")}


# A worker's own session


def test_a_worker_is_seen_from_before_its_row_is_there_until_it_leaves(house: House) -> None:
    with worker.open(house.settings_of(Room.WORKER), clock=house.clock):
        ((worker_id, ledger, visible),) = house.rows("SELECT id, ledger, visible FROM workers")
        assert (ledger, visible) == (known_ledger_id(house.settings.state_dir), 1)
        assert living(house) == {worker_id}
        (seen,) = status(house.settings).workers
        assert seen.is_alive
    with closing(connect(house.place)) as database, database.reading() as connection:
        assert present(connection, [str(worker_id)]) == set()


def test_a_worker_whose_session_is_lost_is_held_till_it_has_another(house: House) -> None:
    house.approved()
    with worker.open(house.settings_of(Room.WORKER), clock=house.clock) as room:
        presence = room._standing.presence
        cut(house, room._id)
        assert presence.look()
        with pytest.raises(TryLater, match="nothing is claimed until it has another"):
            raise room._hold.now() or AssertionError("it is not held")
        until(lambda: not presence.look())
        assert living(house) == {room._id}
        room.run(drain=True)
    assert len(house.relay.messages) == 1


def test_a_worker_that_was_ended_while_it_could_not_be_seen_ends(house: House) -> None:
    house.approved()
    with worker.open(house.settings_of(Room.WORKER), clock=house.clock) as room:
        with closing(connect(house.place, Room.WORKER)) as database:
            writer = Writer(database, Chain(Room.WORKER, "other", house.settings.grant_ring()))
            writer.run(lambda tx: end_worker_once(tx, room._id, now=house.clock()))
            writer.close()
        cut(house, room._id)
        until(lambda: room._standing.presence.look() and room._standing.presence.is_ended)
        with pytest.raises(Unavailable) as refused:
            room.run(drain=True)
        assert refused.value.code is Code.PRESUMED_DEAD
    assert house.relay.messages == []


def test_a_worker_that_counts_as_dead_enters_no_gap(house: House) -> None:
    house.approved()
    with elsewhere(house) as (worker_id, _), closing(connect(house.place, Room.WORKER)) as database:
        writer = Writer(database, Chain(Room.WORKER, "other", house.settings.grant_ring()))
        writer.run(lambda tx: end_worker_once(tx, worker_id, now=house.clock()))
        ((draft_id, attempt_id),) = house.rows("SELECT draft_id, id FROM attempts")
        claim = worker_claim(str(draft_id), str(attempt_id))
        with pytest.raises(LostRace):
            writer.run(lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=house.clock()))
        writer.close()


def worker_claim(draft_id: str, attempt_id: str) -> object:
    from outbox.store.claims import Claim

    return Claim(draft_id, attempt_id, "mail")


# Others


def test_a_worker_of_another_host_is_ended_when_its_lock_was_free_twice(house: House) -> None:
    house.approved()
    with elsewhere(house) as (worker_id, presence):
        with worker.open(house.settings_of(Room.WORKER), clock=house.clock) as room:
            for _ in range(3):
                room._recovery.recover()
            assert worker_id in not_ended(house)
            presence.close()
            until(lambda: worker_id not in living(house))  # the server notices that the session has ended
            room._recovery.recover()
            assert worker_id in not_ended(house)  # its session may only have broken
            assert [one.is_alive for one in status(house.settings).workers if one.id == worker_id] == [False]
            room._recovery.recover()
            assert worker_id not in not_ended(house)
            room.run(drain=True)
        assert house.rows("SELECT phase FROM attempts WHERE gate = 'mail'") == [
            (Phase.CLAIMED.value,)
        ]  # only its own ledger can say
        assert house.rows("SELECT state FROM drafts WHERE kind <> 'system'") == [(State.EXECUTING.value,)]


def test_a_worker_that_is_back_as_it_is_to_be_ended_is_not(house: House) -> None:
    house.approved()
    with elsewhere(house) as (worker_id, _), closing(connect(house.place, Room.WORKER)) as database:
        writer = Writer(database, Chain(Room.WORKER, "other", house.settings.grant_ring()))
        with pytest.raises(StateRefused, match="is there again"):
            writer.run(lambda tx: end_absent_worker(tx, worker_id, now=house.clock()))
        writer.close()
        assert worker_id in not_ended(house)


def test_a_worker_that_cannot_be_seen_counts_as_alive(house: House) -> None:
    house.approved()
    with elsewhere(house, visible=False) as (worker_id, presence):
        presence.close()
        with worker.open(house.settings_of(Room.WORKER), clock=house.clock) as room:
            for _ in range(3):
                room._recovery.recover()
        assert worker_id in not_ended(house)
        assert [one.is_alive for one in status(house.settings).workers] == [True]


def test_what_another_host_s_worker_left_is_not_called_unsent_here(house: House) -> None:
    draft = house.approved()
    with elsewhere(house) as (_, presence), operator.open(house.settings_of(Room.OPERATOR), clock=house.clock) as desk:
        (case,) = desk.settling.cases()
        assert case.is_sure_to_live
        assert case.is_awaited
        presence.close()
        (case,) = desk.settling.cases()
        assert not case.is_alive
        assert case.finding == "unknown"
        assert "on other.acme.example" in case.because
        with pytest.raises(StateRefused, match="not provably unsent"):
            desk.settling.settle(draft.id, Settled.RELEASED, note="it is gone", at_once=True)
        desk.settling.settle(draft.id, Settled.NOT_SENT, note="it is gone", at_once=True)
    assert house.story(draft.id).draft.state is State.FAILED


def test_a_host_s_own_worker_lets_go_of_what_it_left_there(house: House) -> None:
    house.approved()
    with elsewhere(house):
        pass
    (house.settings.state_dir / "ledger.id").write_text("0" * 32)
    house.rows("SELECT 1")
    with worker.open(house.settings_of(Room.WORKER), clock=house.clock) as room:
        (worker_id,) = not_ended(house) - {room._id}
        room._writer.run(lambda tx: end_absent_worker(tx, str(worker_id), now=house.clock()))
        room.run(drain=True)
    assert [phase for (phase,) in house.rows("SELECT phase FROM attempts ORDER BY id")] == ["done", "done"]
    assert len(house.relay.messages) == 1


# Which ledger


def test_a_ledger_has_one_name_and_keeps_it(tmp_path: Path) -> None:
    name = ledger_id(tmp_path / "state")
    assert ledger_id(tmp_path / "state") == name
    shutil.rmtree(tmp_path / "state")
    assert known_ledger_id(tmp_path / "state") is None
    assert ledger_id(tmp_path / "state") != name


# Wake-up


def test_an_approval_is_heard_and_nothing_else_is(house: House) -> None:
    draft = house.draft()
    with closing(connect(house.settings_of(Room.WORKER).database_place, Room.WORKER)) as database:
        changes = Changes(database)
        house.draft(subject="Another")
        assert not changes.came()
        house.approve(draft.id)
        until(changes.came)
        assert not changes.came()
        changes.close()


def test_an_approval_wakes_a_worker_that_has_nothing_to_do(house: House) -> None:
    draft = house.draft()
    with worker.open(house.settings_of(Room.WORKER), clock=house.clock) as room:
        stirred = threading.Event()
        said: list[int] = []
        room._changes.follow(said.append, lambda _: None)
        watch = threading.Thread(target=lambda: wait_readable(said[0], stirred), daemon=True)
        watch.start()
        house.approve(draft.id)
        assert stirred.wait(BOUND)
        assert room._changes.came()
        room._changes.unfollow()
        watch.join(BOUND)


def wait_readable(descriptor: int, stirred: threading.Event) -> None:
    import select

    if select.select([descriptor], [], [], BOUND)[0]:
        stirred.set()


def test_a_listener_that_was_lost_listens_again(house: House) -> None:
    draft = house.draft()
    with closing(connect(house.settings_of(Room.WORKER).database_place, Room.WORKER)) as database:
        changes = Changes(database)
        with house.connection() as owner:
            owner.raw.execute("SELECT pg_terminate_backend(%s, 5000)", (changes._driver.info.backend_pid,))  # type: ignore[union-attr]
        until(changes.came)  # it cannot be told: look
        changes._lost_at = float("-inf")  # as if the pause were over
        assert changes.came()
        assert not changes.came()
        house.approve(draft.id)
        until(changes.came)
        changes.close()


# Clocks


def test_a_worker_whose_clock_is_not_the_server_s_claims_nothing_and_ends_nothing(house: House) -> None:
    import time

    draft = house.approved()
    late = house.draft(subject="Late", ttl=3600)
    house.clock.advance(2 * 3600 * SECOND)
    moved = [3 * SECOND * 1000]
    with worker.open(
        house.settings_of(Room.WORKER), clock=house.clock, machine=lambda: time.time_ns() + moved[0]
    ) as room:
        with pytest.raises(TryLater) as held:
            room.run(drain=True)
        assert held.value.code is Code.CLOCK_JUMPED
        assert "ahead of the database server's" in held.value.message
        assert house.story(late.id).draft.state is State.PENDING
        moved[0] = 0
        room.run(drain=True)
    assert house.story(late.id).draft.state is State.EXPIRED
    assert house.story(draft.id).draft.state is State.COMPLETED


def move_to(house: House, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the house's rooms run on another machine, with a state folder of its own."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    house.set("database", state_dir=f'"state-{host}"')


def test_each_host_goes_on_with_its_own_ledger(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ["one", "two"]
    for host in hosts * 2:
        move_to(house, host, monkeypatch)
        house.approved(subject=f"From {host}")
        house.drain()
    assert len(house.relay.messages) == 4
    lines = [(house.folder / f"state-{host}" / "ledger").read_bytes().count(b'"is":"entered"') for host in hosts]
    assert lines == [2, 2]


def test_a_host_that_lost_its_folder_does_not_join_as_a_new_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(house, "one", monkeypatch)
    house.approved()
    house.drain()
    shutil.rmtree(house.folder / "state-one")
    house.approved(subject="Another")
    with pytest.raises(LedgerRefused) as refused:
        house.drain()
    assert refused.value.code is Code.LEDGER_MISSING
    assert len(house.relay.messages) == 1
