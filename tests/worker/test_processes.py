"""`python -m outbox worker` under a supervisor: told to stop, killed, or up against a locked database."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from outbox.core.lifecycle import State
from tests.house import FOUNDER, JANE, House
from tests.relay.scripted import Hold, Keep, Phase, Say, Script, ScriptedRelay
from tests.worker.hand import codes, ended, on_wall_clock, start_worker, still_runs

HELD_IN_GAP: Script = {Phase.DOT: [Keep(), Hold(), Say(b"250 2.0.0 Ok: queued as 1F2E3D\r\n")]}
HELD_BEFORE_GAP: Script = {Phase.MAIL: [Hold(), Say(b"250 2.1.0 Ok\r\n")]}
SIGNALS = [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.torture)]


@pytest.mark.parametrize("number", SIGNALS)
def test_an_idle_worker_ends_when_told_to(tmp_path: Path, number: signal.Signals) -> None:
    with ScriptedRelay() as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        draft = house.approved()
        process = start_worker(house)
        relay.wait_until_kept(1)
        later = house.approved(subject="Another")  # found without a restart
        relay.wait_until_kept(2)
        process.send_signal(number)
        code, said = ended(process)
        assert code == 0, said
        assert [house.story(one.id).draft.state for one in (draft, later)] == [State.COMPLETED] * 2
        assert house.rows("SELECT count(*) FROM workers WHERE ended_at IS NULL") == [(0,)]
        assert list((tmp_path / "state").glob("*.lock")) == []


@pytest.mark.parametrize("number", SIGNALS)
def test_a_worker_that_is_owed_a_reply_waits_for_it_and_claims_no_more(tmp_path: Path, number: signal.Signals) -> None:
    with ScriptedRelay(HELD_IN_GAP) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        draft = house.approved()
        process = start_worker(house)
        relay.wait_until_holding()
        process.send_signal(number)
        assert still_runs(process, 1)
        waiting = house.approved(subject="Another")
        relay.release()
        code, said = ended(process)
        assert code == 0, said
        assert house.story(draft.id).draft.state is State.COMPLETED
        assert house.story(draft.id).attempts[0].queue_id == "1F2E3D"
        assert house.story(waiting.id).draft.state is State.APPROVED
        assert len(relay.to(JANE)) == 1


def test_a_reply_that_takes_longer_than_the_stop_leaves_the_draft_in_doubt(tmp_path: Path) -> None:
    with ScriptedRelay(HELD_IN_GAP) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        house.set("worker", stop_timeout="1")
        draft = house.approved()
        process = start_worker(house)
        relay.wait_until_holding()
        process.terminate()
        code, said = ended(process)
        assert code == 0, said
        assert "in_doubt" in said
        relay.release()
        on_wall_clock(house).drain()
        assert house.story(draft.id).draft.state is State.EXECUTING
        assert len(house.story(draft.id).attempts) == 1
        assert len(relay.to(JANE)) == 1


def test_what_is_not_in_the_gap_when_the_stop_ends_is_let_go_unsent(tmp_path: Path) -> None:
    with ScriptedRelay(HELD_BEFORE_GAP) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        house.set("worker", stop_timeout="1")
        draft = house.approved()
        process = start_worker(house)
        relay.wait_until_holding()
        process.terminate()
        code, said = ended(process)
        assert code == 0, said
        relay.release()
        relay.wait_until_over()
        assert relay.messages == []
        assert house.story(draft.id).draft.state is State.APPROVED
        on_wall_clock(house).drain()
        assert len(relay.to(JANE)) == 1


def test_a_worker_killed_before_the_gap_sent_nothing_and_the_next_one_sends(tmp_path: Path) -> None:
    with ScriptedRelay(HELD_BEFORE_GAP) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        draft = house.approved()
        process = start_worker(house)
        relay.wait_until_holding()
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
        assert house.story(draft.id).draft.state is State.EXECUTING
        relay.release()
        on_wall_clock(house).drain()
        assert house.story(draft.id).draft.state is State.COMPLETED
        assert len(relay.to(JANE)) == 1
        assert [one.outcome for one in house.story(draft.id).attempts] == ["not_sent", "accepted"]


def test_a_worker_killed_in_the_gap_leaves_it_to_the_operator(tmp_path: Path) -> None:
    with ScriptedRelay(HELD_IN_GAP) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        draft = house.approved()
        process = start_worker(house)
        relay.wait_until_holding()
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
        relay.release()
        for _ in range(2):
            on_wall_clock(house).drain()
        assert house.story(draft.id).draft.state is State.EXECUTING
        assert len(relay.to(JANE)) == 1
        assert len(relay.to(FOUNDER)) == 1  # told once
        assert codes(house) == ["in_doubt", "worker_dead"]


def test_a_worker_beside_a_living_one_leaves_its_attempts_alone(tmp_path: Path) -> None:
    with ScriptedRelay(HELD_BEFORE_GAP) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        draft = house.approved()
        process = start_worker(house, "--drain")
        relay.wait_until_holding()
        on_wall_clock(house).drain()
        assert house.story(draft.id).draft.state is State.EXECUTING
        assert relay.messages == []
        relay.release()
        code, said = ended(process)
        assert code == 0, said
        assert house.story(draft.id).draft.state is State.COMPLETED
        assert len(relay.to(JANE)) == 1


def test_a_worker_that_is_stopped_while_the_database_is_locked_still_ends(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DATA: [Hold(), Say(b"354 Go\r\n")]}) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        house.set("worker", stop_timeout="1")
        draft = house.approved()
        process = start_worker(house)
        relay.wait_until_holding()
        with house.connection() as other:
            other.execute("BEGIN IMMEDIATE")
            relay.release()
            assert relay.spoke.wait(20)  # from here on it wants to enter the gap
            process.terminate()
            assert still_runs(process, 2)
            other.execute("ROLLBACK")
        code, said = ended(process)
        assert code == 0, said
        assert "Traceback" not in said
        relay.wait_until_over()
        assert relay.messages == []
        assert house.story(draft.id).draft.state in {State.APPROVED, State.EXECUTING}


def test_a_gap_that_took_too_long_to_store_is_no_leave_to_send(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DATA: [Hold(), Say(b"354 Go\r\n")]}) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        draft = house.approved()
        process = start_worker(house, "--drain")
        relay.wait_until_holding()
        with house.connection() as other:
            other.execute("BEGIN IMMEDIATE")
            relay.release()
            assert still_runs(process, 3)
            other.execute("ROLLBACK")
        code, said = ended(process)
        assert code == 0, said
        relay.wait_until_over()
        found = house.story(draft.id)
        assert (found.draft.state, len(relay.to(JANE))) in {(State.APPROVED, 0), (State.COMPLETED, 1)}
        assert found.attempts[0].outcome == ("accepted" if relay.to(JANE) else "not_sent")


@pytest.mark.sqlite
def test_a_worker_without_its_database_exits_78_with_one_line(house: House) -> None:
    house.database.unlink()
    code, said = ended(start_worker(house, "--drain"))
    assert code == 78
    assert said.startswith("outbox: ")
    assert said.count("\n") == 1
