"""What a hostile reader found in the worker, each by the fact that it broke."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from outbox import worker
from outbox.core.address import Mailbox
from outbox.core.canonical import sha256
from outbox.core.draft import Draft, Envelope
from outbox.core.errors import TryLater, Unavailable
from outbox.core.lifecycle import Room, State
from outbox.core.message import Content, compose
from outbox.core.signed import sign_draft
from outbox.core.signing import KeyRing, Purpose, Signature
from outbox.ledger import NAME, Heard, Ledger, LedgerRefused
from outbox.lock import living
from outbox.store.claims import end_worker_once
from outbox.worker import Worker
from tests.house import FOUNDER, HOUR, JANE, SALES, SECOND, House
from tests.relay.scripted import Hold, Phase, Say, ScriptedRelay
from tests.worker.hand import PATIENCE, codes, dead_worker, draining, grant, insert, writing
from tests.worker.test_fence import backed_up

UNSTORABLE = "INSERT INTO nowhere VALUES (1)"  # a trigger with it fails as a disk does: by no rule of ours


def open_at(house: House) -> Worker:
    return worker.open(house.settings, clock=house.clock)


def pause(house: House) -> None:
    (house.settings.state_dir / "paused").touch()


def look(room: Worker) -> None:
    """Look after what is there; what is paused waits."""
    with suppress(TryLater):
        room.run(drain=True)


def break_updates(house: House, table: str) -> None:
    with house.connection() as connection:
        connection.execute(f"CREATE TRIGGER broken BEFORE UPDATE ON {table} BEGIN {UNSTORABLE}; END")


def mend_updates(house: House) -> None:
    with house.connection() as connection:
        connection.execute("DROP TRIGGER broken")


# The database's file


def replace_database(house: House, copy: Path) -> None:
    """Put a backup in its place, as the manual says, but under a worker that runs."""
    aside = house.folder / "broken"
    aside.mkdir()
    for file in house.folder.glob("outbox.db*"):
        file.rename(aside / file.name)
    shutil.copy(copy, house.database)


@pytest.mark.sqlite
def test_a_worker_ends_where_another_file_came_in_its_databases_place(house: House) -> None:
    copy = backed_up(house)
    with open_at(house) as room:
        room.run(drain=True)
        replace_database(house, copy)
        with pytest.raises(Unavailable, match="replaced") as ended:
            room.run(drain=True)
    assert ended.value.exit_code == 69


@pytest.mark.sqlite
def test_no_dot_is_written_after_another_file_came_in_the_databases_place(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.MAIL: [Hold(), Say(b"250 2.1.0 Ok\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        copy = backed_up(house)
        with ThreadPoolExecutor(1) as pool:
            drained = pool.submit(house.drain)
            relay.wait_until_holding()
            replace_database(house, copy)
            relay.release()
            assert isinstance(drained.exception(PATIENCE), Unavailable)
        relay.wait_until_over()
        assert [seen.dots for seen in relay.seen] == [0]
        assert house.cancel(draft.id).draft.state is State.CANCELLED


# A row set back by hand


def test_a_draft_set_back_with_its_attempt_open_is_left_alone_and_the_others_leave(house: House) -> None:
    back = house.approved()
    dead_worker(house, in_gap=True)
    other = house.approved(subject="Another", to=("joe@customer.example",))
    with house.as_thief() as thief:
        thief.execute("UPDATE drafts SET state = 'approved', attempt_id = NULL WHERE id = ?", (back.id,))
    house.drain()
    assert house.story(other.id).draft.state is State.COMPLETED
    assert house.story(back.id).draft.state is State.APPROVED
    assert house.relay.to(JANE) == []


# What is in doubt is told


def test_what_its_finder_died_over_is_told_by_the_next_worker_and_once(house: House) -> None:
    house.approved()
    dead = dead_worker(house, in_gap=True)
    with writing(house, Room.WORKER) as writer:
        writer.run(lambda tx: end_worker_once(tx, dead.worker_id, now=house.clock()))
    for _ in range(2):
        house.drain()
        (house.settings.state_dir / "worker.json").unlink()
        house.clock.advance(2 * HOUR)
    (mail,) = house.relay.to(FOUNDER)
    assert b"in_doubt" in mail.octets


def test_one_attempt_that_cannot_be_looked_after_silences_none_of_the_others(house: House) -> None:
    """Of two claims one is looked at before the gap, whatever their order."""
    for in_gap in (False, True, False):
        house.approved(subject=f"Offer {house.clock.now}")
        dead_worker(house, in_gap=in_gap)
        house.clock.advance(SECOND)
    pause(house)
    with open_at(house) as room:
        break_updates(house, "attempts")
        look(room)
        mend_updates(house)
        assert codes(house).count("in_doubt") == 1


# What kills its workers


def test_a_draft_whose_workers_die_waits_ever_longer_and_fails_in_the_end(house: House) -> None:
    house.set("relay", retry="[60, 300]")
    draft = house.approved()
    pause(house)
    waits = []
    with open_at(house) as room:
        for _ in range(10):
            dead_worker(house)
            look(room)
            ((due,),) = house.rows("SELECT not_before FROM drafts WHERE id = ?", draft.id)
            waits.append((int(str(due)) - house.clock.now) // SECOND)
            house.clock.advance(300 * SECOND)
    assert waits[:4] == [0, 60, 300, 300]
    found = house.story(draft.id).draft
    assert found.state is State.FAILED
    assert (found.error or ("",))[0] == "worker_failed"
    assert "worker_failed" in codes(house)


def test_a_worker_that_was_stopped_did_not_die_of_its_draft(house: House) -> None:
    draft = house.approved()
    for _ in range(3):
        with open_at(house):
            ((own_id,),) = house.rows("SELECT id FROM workers WHERE ended_at IS NULL")
            assert dead_worker(house, worker_id=str(own_id)).claim.draft_id == draft.id
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED


# Ends


def test_a_stop_that_could_not_be_stored_leaves_a_lock_file_that_nobody_holds(house: House) -> None:
    """Else nobody on a host of another name, as a container's next start is, could ever call it dead."""
    draft = house.approved()
    room = open_at(house)
    ((own_id,),) = house.rows("SELECT id FROM workers")
    dead_worker(house, worker_id=str(own_id))
    break_updates(house, "workers")
    room.close()
    mend_updates(house)
    with house.as_thief() as thief:
        thief.execute("UPDATE workers SET host = 'container-1'")
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED


@dataclass
class EndsTheWriter:
    """A clock; once it `strikes`, the thread that writes ends as it reads it."""

    house: House
    strikes: bool = False

    def __call__(self) -> int:
        if self.strikes and threading.current_thread().name == "outbox-writer":
            raise SystemExit
        return self.house.clock()


@pytest.mark.timeout(20)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_whose_writing_thread_has_ended_ends_and_waits_for_nothing(house: House) -> None:
    dead_worker(house, holding=False)  # to bury it the thread that writes reads the clock
    draft = house.approved()
    clock = EndsTheWriter(house)
    with worker.open(house.settings, clock=clock) as room:
        clock.strikes = True
        with pytest.raises(Unavailable, match="has ended"):
            room.run(drain=True)
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED


# The supervisor


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address)
        bound.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "3000")
        yield bound


def test_an_alerts_command_that_takes_long_silences_no_watchdog(house: House, supervisor: socket.socket) -> None:
    begun, end = house.folder / "begun", house.folder / "end"
    for pipe in (begun, end):
        os.mkfifo(pipe)
    script = house.folder / "alarm"
    script.write_text(f"#!/bin/sh\necho now > '{begun}'\nread x < '{end}'\n")
    script.chmod(0o755)
    house.set("alerts", command=f'"{script}"')
    dead_worker(house, holding=False)
    with draining(house):
        begun.read_text()  # the command runs from here on
        heard = supervisor.recv(4096)
        end.write_text("go\n")
    assert heard == b"WATCHDOG=1"


# What is signed oddly, and what is locked first


def test_an_address_that_a_signed_envelope_names_twice_gets_one_copy_and_one_line(house: House) -> None:
    now = house.clock()
    twice = Envelope(SALES, (JANE,), (JANE,))
    name = "0190a1b2-c3d4-7e5f-8a6b-000000000001"
    message = compose(
        Content(Mailbox("", SALES), (Mailbox("", JANE),), (), "Offer", "Hello\n"), name, f"<{name}@acme.example>"
    )
    draft = Draft(name, "email", "python", twice, message, now, now + HOUR)
    grant(house, insert(house, sign_draft(house.settings.draft_ring(), draft, sha256(message))))
    house.drain()
    found = house.story(name)
    assert (found.draft.state, [one.outcome for one in found.attempts]) == (State.COMPLETED, ["accepted"])
    assert len(house.relay.to(JANE)) == 1


def test_a_worker_that_its_ledger_refuses_leaves_no_lock_behind(house: House) -> None:
    house.approved()
    house.drain()
    (house.settings.state_dir / NAME).unlink()
    with pytest.raises(LedgerRefused):
        open_at(house)
    assert living(house.settings.state_dir) == []
    assert [*house.settings.state_dir.glob("worker-*.lock")] == []


class WatchedRing(KeyRing):
    """Each time that a line is sealed, it looks whether another process could write now."""

    file: Path
    seen: list[bool]

    def sign(self, purpose: Purpose, payload: bytes) -> Signature:
        with self.file.open("rb") as another, suppress(BlockingIOError):
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.seen.append(True)
        return super().sign(purpose, payload)


def test_no_thread_lets_go_of_the_ledgers_lock_under_another_that_writes(tmp_path: Path) -> None:
    """One descriptor is one lock, whichever thread takes it: two workers' lines would be written at one place."""
    ring = WatchedRing([bytes(32)])
    Ledger.begin(tmp_path, KeyRing([bytes(32)]), "00" * 16).close()
    ring.file, ring.seen = tmp_path / NAME, []
    ledger = Ledger.open(tmp_path, ring, "00" * 16)
    lines = [
        Heard(f"attempt {number}", "refused_transient", 451, None, "later", None, (), None) for number in range(64)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda line: ledger.append([line]), lines))
    ledger.close()
    assert ring.seen == []
