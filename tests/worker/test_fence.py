"""Ledger and database of two times: no worker starts, and it is said what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from outbox import operator, worker
from outbox.core.errors import Code, OutboxError, StateRefused, Unavailable
from outbox.core.lifecycle import State
from outbox.ledger import NAME, Ledger, LedgerRefused
from tests.cli import zygote
from tests.house import HOUR, JANE, House
from tests.relay.scripted import Hold, Keep, Phase, Say, ScriptedRelay
from tests.worker.hand import codes, dead_worker, draining


def ledger_file(house: House) -> Path:
    return house.settings.state_dir / NAME


def backed_up(house: House) -> Path | str:
    """A copy of the database as it is now, whoever writes to it meanwhile."""
    return house.backed_up()


def restore(house: House, copy: Path | str) -> None:
    house.restore(copy)


def why_refused(house: House, error: type[OutboxError] = LedgerRefused) -> OutboxError:
    with pytest.raises(error) as refused:
        house.drain()
    return refused.value


def test_a_database_that_never_entered_a_gap_gets_a_ledger_without_ado(house: House) -> None:
    house.drain()
    assert ledger_file(house).exists()
    ledger_file(house).unlink()
    house.approved()
    house.drain()
    assert len(house.relay.to(JANE)) == 1


def test_a_ledger_that_is_missing_beside_a_database_that_entered_gaps_is_said_in_one_line(house: House) -> None:
    house.approved()
    house.drain()
    ledger_file(house).unlink()
    waits = house.approved(subject="Another")
    code, out, err = zygote.run(["worker", "--drain"], house.folder, dict(os.environ), b"")
    assert (code, out) == (78, b"")
    (line,) = err.decode().splitlines()
    assert line.startswith(f"outbox: there is no ledger at {ledger_file(house)}, and the database has entered gaps")
    assert "outbox fence accept" in line
    assert house.story(waits.id).draft.state is State.APPROVED
    assert len(house.relay.to(JANE)) == 1
    assert not ledger_file(house).exists()


@pytest.mark.parametrize("kept", range(2), ids=["nothing", "the first line"])
def test_a_ledger_that_lacks_what_the_relay_accepted_is_refused(house: House, kept: int) -> None:
    house.approved()
    house.drain()
    lines = ledger_file(house).read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    ledger_file(house).write_bytes(b"".join(lines[:kept]))
    assert why_refused(house).code is Code.LEDGER_ALTERED
    ledger_file(house).write_bytes(b"".join(lines))
    house.drain()


def test_a_ledger_that_only_lacks_how_it_ended_is_one_that_a_crash_left(house: House) -> None:
    house.approved()
    house.drain()
    lines = ledger_file(house).read_bytes().splitlines(keepends=True)
    ledger_file(house).write_bytes(b"".join(lines[:2]))
    house.drain()
    assert len(house.relay.to(JANE)) == 1


def test_another_databases_ledger_is_refused(house: House, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    Ledger.begin(other, house.settings.grant_ring(), "00" * 16).close()
    ledger_file(house).parent.mkdir(exist_ok=True)
    shutil.move(other / NAME, ledger_file(house))
    refused = why_refused(house)
    assert refused.code is Code.LEDGER_ALTERED
    assert "another database" in refused.message


def test_a_ledger_that_cannot_be_opened_is_no_missing_one(house: House) -> None:
    ledger_file(house).mkdir(parents=True)
    assert why_refused(house, Unavailable).code is Code.LEDGER_UNWRITABLE


@pytest.mark.parametrize("at", ["pending", "approved", "deferred"])
def test_a_database_from_before_the_mail_left_is_refused_and_sends_nothing(house: House, at: str) -> None:
    draft = house.draft()
    if at != "pending":
        house.approve(draft.id)
    if at == "deferred":
        house.relay.refuse[JANE] = "451 4.3.0 Later"
        house.drain()
        house.relay.refuse.clear()
        house.clock.advance(HOUR)
    copy = backed_up(house)
    if at == "pending":
        house.approve(draft.id)
    house.drain()
    restore(house, copy)
    refused = why_refused(house)
    assert refused.code is Code.LEDGER_AHEAD
    assert (house.name if house.url else str(house.database)) in refused.message
    assert len(house.relay.to(JANE)) == 1


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.DOT])
def test_a_database_from_while_the_mail_was_leaving_sends_no_second_copy(tmp_path: Path, phase: Phase) -> None:
    """From before the gap, no worker starts; from in the gap, what became of it is in the ledger."""
    kept = [Keep(), Hold(), Say(b"250 2.0.0 Ok: queued as 1F2E3D\r\n")]
    with ScriptedRelay({phase: [Hold(), Say(b"250 2.1.0 Ok\r\n")] if phase is Phase.MAIL else kept}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        with draining(house):
            relay.wait_until_holding()
            copy = backed_up(house)
        restore(house, copy)
        if phase is Phase.MAIL:
            assert why_refused(house).code is Code.LEDGER_AHEAD
        else:
            house.drain()
            found = house.story(draft.id)
            assert (found.draft.state, found.attempts[0].queue_id) == (State.COMPLETED, "1F2E3D")
        assert len(relay.to(JANE)) == 1


def test_a_gap_that_was_committed_and_not_yet_in_the_ledger_keeps_nobody_from_starting(house: House) -> None:
    draft = house.approved()
    dead_worker(house, in_gap=True)
    lines = ledger_file(house).read_bytes().splitlines(keepends=True)
    ledger_file(house).write_bytes(b"".join(lines[:1]))
    house.drain()
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert codes(house) == ["in_doubt", "worker_dead"]
    assert house.relay.to(JANE) == []


def test_what_the_operator_vouches_for_starts_again_and_sends_nothing_twice(house: House) -> None:
    draft = house.approved()
    copy = backed_up(house)
    house.drain()
    restore(house, copy)
    why_refused(house)
    with operator.open(house.settings, clock=house.clock) as desk:
        report = desk.accept_fence(note="restored from the backup of this morning")
        assert (report.in_doubt, report.cancelled, report.aside) == (1, 0, None)
    house.drain()
    found = house.story(draft.id)
    assert (found.draft.state, [one.outcome for one in found.attempts]) == (State.EXECUTING, ["in_doubt"])
    assert len(house.relay.to(JANE)) == 1
    later = house.approved(subject="Another")
    house.drain()
    assert house.story(later.id).draft.state is State.COMPLETED


def accept(house: House) -> None:
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.accept_fence(note="restored")


@pytest.mark.parametrize("lost", [True, False], ids=["state folder lost", "ledger kept"])
def test_a_database_from_before_a_fence_is_refused_again_and_can_be_vouched_for_again(house: House, lost: bool) -> None:
    """What the first fence put in doubt or cancelled would else wait again, and the ledger no longer looks for it."""
    house.approved(to=("joe@customer.example",))
    house.drain()
    draft = house.approved()
    copy = backed_up(house)
    if lost:
        house.drain()
        shutil.rmtree(house.settings.state_dir)
    else:
        house.cancel(draft.id)
        house.approved(to=("joe@customer.example",), subject="Another")
        house.drain()
        restore(house, copy)
    accept(house)
    house.drain()
    before = len(house.relay.to(JANE))
    restore(house, copy)
    refused = why_refused(house)
    assert refused.code is Code.LEDGER_AHEAD
    assert "fence" in refused.message
    accept(house)
    house.drain()
    assert house.story(draft.id).draft.state is State.CANCELLED
    assert len(house.relay.to(JANE)) == before == int(lost)


def test_there_is_nothing_to_vouch_for_where_ledger_and_database_agree(house: House) -> None:
    house.approved()
    house.drain()
    with operator.open(house.settings, clock=house.clock) as desk, pytest.raises(StateRefused, match="agree"):
        desk.accept_fence(note="why not")


def test_two_workers_begin_one_ledger(house: House) -> None:
    house.approved()
    with worker.open(house.settings, clock=house.clock) as one, worker.open(house.settings, clock=house.clock) as other:
        one.run(drain=True)
        house.approved(subject="Another")
        other.run(drain=True)
    assert len(house.relay.to(JANE)) == 2
    assert ledger_file(house).read_text().count('"is":"entered"') == 2
