"""How it stands: figures, workers, and everything that is wrong now."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from outbox import operator
from outbox.agreement import _refuse_other_times
from outbox.cli.desk_text import status_json, status_text
from outbox.core.errors import Code, TryLater, Unavailable
from outbox.core.lifecycle import Room, State
from outbox.ledger import Ledger
from outbox.lock import WorkerLock
from outbox.operator.status import Status
from outbox.store.engine import connect
from outbox.store.identity import NEWEST
from tests.house import HOUR, SECOND, House
from tests.operator.stuck import (
    APPROVED,
    CLAIMED,
    PENDING,
    Stuck,
    bury,
    claimed,
    enter,
    entered,
    finish,
    later,
    stuck_in,
    write_in_ledger,
)
from tests.relay.recording import RecordingRelay
from tests.worker.hand import writing


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    return stuck_in(tmp_path)


def look(house: House) -> Status:
    with operator.read(house.settings) as records:
        return records.status(clock=house.clock)


def alerts(house: House) -> list[Code]:
    return [alert.code for alert in look(house).alerts]


def test_an_outbox_where_all_is_well_has_no_alert(tmp_path: Path, relay: RecordingRelay) -> None:
    house = House.build(tmp_path, relay)
    assert alerts(house) == []
    sent, waiting = house.approved(), house.draft()
    house.drain()
    found = look(house)
    assert found.alerts == ()
    assert (found.states[State.COMPLETED], found.states[State.PENDING]) == (1, 1)
    assert sum(found.states.values()) == 2
    assert (found.in_doubt, found.workers, found.pause, found.switch) == (0, (), None, None)
    assert (found.thermal.used, found.thermal.limit, found.thermal.is_open) == (1, 10, False)
    assert {sent.id, waiting.id} == {draft.id for draft in house.drafts()}


def test_every_state_is_counted_and_the_outboxs_own_mail_is_not(stuck: Stuck) -> None:
    stuck.house.inbox()
    found = look(stuck.house)
    assert found.states == dict.fromkeys(State, 0) | {
        State.EXECUTING: 6, State.PENDING: 1, State.APPROVED: 1, State.COMPLETED: 1,
    }  # fmt: skip


def test_what_is_in_the_gap_and_what_ended_in_doubt_is_in_doubt(stuck: Stuck) -> None:
    assert look(stuck.house).in_doubt == 5
    assert Code.IN_DOUBT in alerts(stuck.house)


def test_what_the_contract_says_is_there(stuck: Stuck) -> None:
    with stuck.desk() as desk:
        desk.pause(reason="tests")
    found = status_json(look(stuck.house))
    assert isinstance(found, dict)
    contract = {
        "states", "in_doubt", "oldest_approved", "paused", "pause_reason", "alerts", "thermal", "workers", "revision",
    }  # fmt: skip
    assert contract <= set(found)
    assert set(found["thermal"]) == {"open", "until", "used", "limit"}  # type: ignore[arg-type]
    (worker,) = found["workers"]  # type: ignore[misc]
    assert {"id", "host", "pid", "started_at", "last_seen", "alive"} <= set(worker)
    assert found["paused"] is True
    assert found["pause_reason"] == "tests"
    assert set(found["states"]) == {state.value for state in State}  # type: ignore[arg-type]
    assert all({"code", "message"} <= set(alert) for alert in found["alerts"])  # type: ignore[union-attr]
    assert str(found["oldest_approved"]).endswith("Z")
    json.dumps(found)
    assert "tests" in status_text(look(stuck.house))


# Workers


def test_a_worker_is_alive_while_it_holds_its_lock_and_dead_after(stuck: Stuck) -> None:
    lock = WorkerLock(stuck.house.settings.state_dir, stuck.worker_id)
    (worker,) = look(stuck.house).workers
    assert (worker.id, worker.is_alive) == (stuck.worker_id, True)
    assert worker.last_seen >= worker.started_at
    assert Code.WORKER_DEAD not in alerts(stuck.house)
    lock.release()
    assert not look(stuck.house).workers[0].is_alive
    assert Code.WORKER_DEAD in alerts(stuck.house)
    with writing(stuck.house, Room.WORKER) as writer:
        bury(stuck.house, writer, stuck.worker_id)
    assert look(stuck.house).workers == ()
    assert Code.WORKER_DEAD not in alerts(stuck.house)


def test_drafts_that_wait_for_long_and_no_worker_is_an_alert(stuck: Stuck) -> None:
    house = stuck.house
    assert Code.NO_WORKER not in alerts(house)
    later(house, 301)
    assert Code.NO_WORKER in alerts(house)
    assert look(house).oldest_approved is not None
    lock = WorkerLock(house.settings.state_dir, stuck.worker_id)
    assert Code.NO_WORKER not in alerts(house)
    lock.release()
    house.cancel(stuck.drafts[APPROVED])
    assert Code.NO_WORKER not in alerts(house)
    assert look(house).oldest_approved is None


# Pause and cutout


@pytest.mark.parametrize("how", ["file", "environment", "database"])
def test_each_way_to_pause_is_seen(stuck: Stuck, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "file":
        (stuck.house.settings.state_dir / "paused").touch()
    elif how == "environment":
        monkeypatch.setenv("OUTBOX_PAUSED", "1")
    else:
        with stuck.desk() as desk:
            desk.pause(reason="tests")
    found = look(stuck.house)
    assert (found.pause is not None) == (how == "database")
    assert (found.switch is not None) == (how != "database")
    told = status_json(found)
    assert isinstance(told, dict)
    assert told["paused"] is True
    assert told["pause_reason"]


def test_a_tripped_cutout_is_open_till_its_cooldown_is_over_and_a_place_is_free(
    tmp_path: Path, relay: RecordingRelay
) -> None:
    house = House.build(tmp_path, relay)
    house.set("thermal", count="1", window='"15m"', cooldown='"5m"')
    for _ in range(2):
        house.approved()
    with pytest.raises(TryLater):
        house.drain()
    found = look(house)
    assert (found.thermal.is_open, found.thermal.used) == (True, 1)
    assert found.thermal.until == house.clock() + 300 * SECOND
    assert alerts(house) == [Code.THERMAL]
    later(house, 301)
    assert look(house).thermal.is_open
    later(house, 600)
    assert not look(house).thermal.is_open


# What rooms say, and what is wrong with rows and ledger


def test_tampering_is_an_alert_for_a_day_and_once(tmp_path: Path, relay: RecordingRelay) -> None:
    house = House.build(tmp_path, relay)
    draft = house.draft(ttl=7 * 86400)
    house.relay.refuse["DATA"] = "451 4.3.0 later"
    house.approve(draft.id)
    house.drain()
    later(house, 70)
    with house.as_thief() as thief:
        thief.execute("UPDATE drafts SET subject = 'Other'")
    house.drain()
    assert alerts(house) == [Code.DIGEST_MISMATCH]
    house.clock.advance(25 * HOUR)
    assert alerts(house) == []


def test_tampering_that_the_inbox_found_is_an_alert_too(house: House) -> None:
    house.draft()
    with house.as_thief() as thief:
        thief.execute("UPDATE messages SET octets = CAST(replace(octets, 'here', 'not') AS BLOB)")
    house.inbox()
    assert house.drafts()[0].state is State.FAILED
    assert alerts(house) == [Code.DIGEST_MISMATCH]


def test_an_open_circuit_is_an_alert_till_mail_leaves_again(tmp_path: Path, relay: RecordingRelay) -> None:
    house = House.build(tmp_path, relay)
    house.set("relay", security='"starttls"')  # this relay has none
    house.approved()
    with pytest.raises(Unavailable):
        house.drain()
    assert alerts(house) == [Code.CIRCUIT_OPEN]
    house.set("relay", security='"none"')
    later(house, 70)
    house.drain()
    assert alerts(house) == []


@pytest.mark.parametrize("room", ["worker", "inbox"])
def test_what_a_rooms_state_file_says_is_open_is_an_alert(house: House, room: str) -> None:
    said = {"open": [{"code": "mailbox_unreachable", "message": "imap.example: \x1b[2J\r\nno route"}]}
    (house.settings.state_dir / f"{room}.json").write_text(json.dumps(said))
    (alert,) = look(house).alerts
    assert alert.code is Code.MAILBOX_UNREACHABLE
    assert alert.message.isprintable()


STRANGE = [
    b"", b"{", b"[]", b"null", b'{"open": {}}', b'{"open": "worker"}', b'{"open": [1, null, "x", [], {}]}',
    b'{"open": [{"code": "no_such_code", "message": "x"}]}', b'{"open": [{"code": [], "message": "x"}]}',
    b'{"open": [{"code": "in_doubt"}]}', b'{"open": [{"code": "in_doubt", "message": 5}]}', b"[" * 100_000, b"\xff",
]  # fmt: skip


def test_a_state_file_written_by_a_stranger_breaks_nothing(house: House) -> None:
    for octets in STRANGE:
        (house.settings.state_dir / "worker.json").write_bytes(octets)
        assert alerts(house) == [], octets[:60]


def test_a_state_file_that_is_none_is_not_waited_for(house: House) -> None:
    """The folder may be writable for other rooms, and to open a pipe for reading is to wait for a writer."""
    pipe = house.settings.state_dir / "worker.json"
    os.mkfifo(pipe)
    waited: list[int] = []

    def let_go() -> None:
        waited.append(1)
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(2, let_go)
    timer.start()
    assert alerts(house) == []
    timer.cancel()
    timer.join()
    assert waited == []


def test_a_ledger_that_workers_would_refuse_is_an_alert(stuck: Stuck) -> None:
    house = stuck.house
    file = house.settings.state_dir / "ledger"
    before = file.read_bytes()
    assert {Code.LEDGER_MISSING, Code.LEDGER_AHEAD, Code.LEDGER_ALTERED} & {*alerts(house)} == set()
    with writing(house, Room.WORKER) as writer:
        claim = claimed(house, writer, stuck.worker_id, stuck.drafts[APPROVED])
    write_in_ledger(house, entered(claim, house.clock()))
    assert Code.LEDGER_AHEAD in alerts(house)
    file.write_bytes(before.replace(b'"entered"', b'"ent3red"', 1))
    assert Code.LEDGER_ALTERED in alerts(house)
    file.unlink()
    assert Code.LEDGER_MISSING in alerts(house)
    (house.folder / "keys" / "grant.key").unlink()
    assert Code.LEDGER_MISSING not in alerts(house)  # who cannot read it does not know


def test_an_attempt_accepted_while_ledger_and_database_are_compared_is_no_alert(stuck: Stuck) -> None:
    """A worker that starts beside others would refuse to: exit code 78, and no supervisor starts it again."""
    house, claim = stuck.house, stuck.claim(CLAIMED)
    ((database_id,),) = house.rows("SELECT id FROM identity")
    database = connect(house.place)
    ledger = Ledger.open(house.settings.state_dir, house.settings.grant_ring(), str(database_id))
    with writing(house, Room.WORKER) as writer:  # another worker, meanwhile
        enter(house, writer, None, claim)
        write_in_ledger(house, entered(claim, house.clock()))
        finish(house, writer, claim, "accepted")
    _refuse_other_times(ledger, database, 0, NEWEST)
    ledger.close()
    database.close()


def test_looking_writes_nothing(stuck: Stuck) -> None:
    def files() -> dict[str, tuple[int, int]]:
        folder = stuck.house.settings.state_dir
        return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir()}

    before = files(), stuck.house.rows("SELECT * FROM journal")
    look(stuck.house)
    with stuck.desk() as desk:
        desk.settling.cases()
    assert (files(), stuck.house.rows("SELECT * FROM journal")) == before


def test_a_pending_draft_is_no_draft_that_waits_for_a_worker(stuck: Stuck) -> None:
    stuck.house.cancel(stuck.drafts[APPROVED])
    later(stuck.house, 400)
    assert stuck.state(PENDING)[0] == "pending"
    assert Code.NO_WORKER not in alerts(stuck.house)
