"""After a restore that a person vouches for: what has left stays gone, what waited is cancelled, and it goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from outbox.agreement import open_ledger
from outbox.clock import new_id
from outbox.core.errors import Code, OutboxError, StateRefused, TryLater, UsageError
from outbox.core.lifecycle import Room, Settled
from outbox.ledger import LedgerRefused
from outbox.lock import WorkerLock
from outbox.operator.fence import FenceReport
from outbox.operator.settling import person
from outbox.store.claims import Claim, release_if_held
from outbox.store.engine import connect
from tests.crash.journals import assert_the_journal_holds
from tests.house import HOUR, SECOND, House
from tests.operator.stuck import (
    APPROVED,
    CLAIMED,
    CLAIMED_IN_LEDGER,
    COMPLETED,
    DOUBT,
    FRESH,
    GAP,
    GAP_ACCEPTED,
    GAP_REFUSED,
    PENDING,
    Meanwhile,
    Stuck,
    claimed,
    entered,
    finish,
    journalled,
    later,
    stuck_in,
    write_in_ledger,
)
from tests.relay.recording import RecordingRelay
from tests.worker.hand import system_drafts, writing

WHY = "last night's backup; the disk broke"
HELD = (CLAIMED, GAP, GAP_ACCEPTED, GAP_REFUSED, DOUBT, FRESH)


class Crash(Exception):
    """The process ends here."""


def crash() -> None:
    raise Crash


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    return stuck_in(tmp_path)


def left(stuck: Stuck, name: str) -> Claim:
    """By the ledger the draft has left, under an attempt that the database does not know."""
    claim = Claim(stuck.drafts[name], new_id(stuck.house.clock()), "mail")
    write_in_ledger(stuck.house, entered(claim, stuck.house.clock() - 60 * SECOND))
    return claim


def accept(stuck: Stuck, *, note: str | None = WHY, clock: Meanwhile | None = None) -> FenceReport:
    with stuck.desk(clock) as desk:
        return desk.accept_fence(note=note)


def lose_ledger(stuck: Stuck) -> None:
    (stuck.house.settings.state_dir / "ledger").unlink()


def alter_ledger(stuck: Stuck) -> None:
    file = stuck.house.settings.state_dir / "ledger"
    file.write_bytes(file.read_bytes().replace(b'"entered"', b'"ent3red"', 1))


def refused(stuck: Stuck, kind: type[OutboxError]) -> OutboxError:
    """A refusal that wrote neither a row nor a line."""
    ledger = stuck.house.settings.state_dir / "ledger"
    before = ledger.read_bytes(), stuck.house.rows("SELECT * FROM drafts"), stuck.house.rows("SELECT * FROM journal")
    with pytest.raises(kind) as told:
        accept(stuck)
    after = ledger.read_bytes(), stuck.house.rows("SELECT * FROM drafts"), stuck.house.rows("SELECT * FROM journal")
    assert after == before
    return told.value


def agrees(house: House) -> bool:
    """Whether a worker would start."""
    with closing(connect(house.place)) as database:
        try:
            open_ledger(house.settings.state_dir, house.settings.grant_ring(), database).close()
        except LedgerRefused:
            return False
    return True


def states(stuck: Stuck) -> dict[str, tuple[object, object]]:
    return {name: stuck.state(name) for name in stuck.drafts}


def sent(relay: RecordingRelay, stuck: Stuck) -> list[str]:
    """The drafts that left, by name."""
    return [name for name, key in stuck.drafts.items() for one in relay.messages if key.encode() in one.octets]


def drain(stuck: Stuck, relay: RecordingRelay) -> None:
    stuck.house.set("relay", port=str(relay.port))
    for _ in range(2):
        stuck.house.drain()


# Refusals


def test_where_ledger_and_database_agree_there_is_nothing_to_accept(stuck: Stuck) -> None:
    assert refused(stuck, StateRefused).code is Code.STATE_CONFLICT


def test_where_nothing_was_ever_sent_there_is_nothing_to_accept(house: House) -> None:
    """No ledger yet, and no gap: a worker begins one, and what waits may leave."""
    draft = house.approved()
    with pytest.raises(StateRefused):
        accept(Stuck(house, {}, {}, ""))
    assert house.rows("SELECT state FROM drafts WHERE id = ?", draft.id) == [("approved",)]


def test_it_needs_a_note(stuck: Stuck) -> None:
    left(stuck, APPROVED)
    for note in (None, ""):
        with pytest.raises(UsageError):
            accept(stuck, note=note)


def test_while_a_worker_lives_it_is_too_early(stuck: Stuck) -> None:
    left(stuck, APPROVED)
    lock = WorkerLock(stuck.house.settings.state_dir, stuck.worker_id)
    assert refused(stuck, TryLater).code is Code.WORKER_ALIVE
    lock.release()


def test_a_pause_stays_in_force_over_a_fence(stuck: Stuck) -> None:
    left(stuck, APPROVED)
    with stuck.desk() as desk:
        desk.pause(reason="tests")
    accept(stuck)
    assert stuck.state(APPROVED) == ("executing", None)
    assert stuck.house.rows("SELECT reason FROM pause") == [("tests",)]


def test_without_the_grant_key_it_cannot_be_done(stuck: Stuck) -> None:
    left(stuck, APPROVED)
    (stuck.house.folder / "keys" / "grant.key").unlink()
    assert refused(stuck, OutboxError).exit_code == 78


# What becomes of each


def test_by_a_ledger_that_is_ahead_what_left_is_in_doubt_and_what_waits_is_cancelled(
    tmp_path: Path, relay: RecordingRelay
) -> None:
    stuck = stuck_in(tmp_path, ahead=True)
    approved = left(stuck, APPROVED)
    assert not agrees(stuck.house)
    report = accept(stuck)
    assert agrees(stuck.house)
    assert report.aside is None
    assert "does not know" in report.why
    for name in (CLAIMED_IN_LEDGER, APPROVED, GAP, FRESH, GAP_ACCEPTED):
        assert stuck.state(name) == ("executing", None), name
        assert stuck.attempt(name) == ("done", "in_doubt"), name
    ((attempt, gap_at),) = stuck.house.rows(
        "SELECT id, gap_at FROM attempts WHERE draft_id = ?", stuck.drafts[APPROVED]
    )
    assert (attempt, gap_at) == (approved.attempt_id, stuck.house.clock() - 60 * SECOND)
    assert stuck.state(PENDING) == ("cancelled", "restored")
    assert stuck.state(CLAIMED) == ("executing", None)  # provably unsent: a worker lets go of it
    assert stuck.state(COMPLETED) == ("completed", None)
    assert stuck.case(GAP_ACCEPTED).finding == "sent"
    assert {"claim", "gap", "done"} <= {*journalled(stuck.house, stuck.drafts[APPROVED])}
    drain(stuck, relay)
    assert sorted(sent(relay, stuck)) == sorted([CLAIMED, GAP_REFUSED])  # a refusal for now that the ledger has
    assert_the_journal_holds(stuck.house)


def test_what_waits_and_whose_attempt_in_the_ledger_is_a_row_already_is_cancelled(stuck: Stuck) -> None:
    """The row says unsent, and the ledger's line of that could not be written: no second row can be made of it."""
    house = stuck.house
    with writing(house, Room.WORKER) as writer:
        claim = claimed(house, writer, stuck.worker_id, stuck.drafts[APPROVED])
        finish(house, writer, claim, "not_sent")
        writer.run(lambda tx: release_if_held(tx, claim, not_before=house.clock() + HOUR, now=house.clock()))
    write_in_ledger(house, entered(claim, house.clock()))
    left(stuck, PENDING)
    assert not agrees(house)
    accept(stuck)
    assert agrees(house)
    assert stuck.state(APPROVED) == ("cancelled", "restored")
    assert stuck.attempt(APPROVED) == ("done", "not_sent")


def test_what_is_pending_and_has_left_is_cancelled_and_says_so(stuck: Stuck) -> None:
    claim = left(stuck, PENDING)
    accept(stuck)
    assert stuck.state(PENDING) == ("cancelled", "restored")
    told = stuck.house.story(stuck.drafts[PENDING]).draft.error
    assert told is not None
    assert f"by the ledger attempt {claim.attempt_id} may have sent it" in told[1]
    assert stuck.state(APPROVED) == ("cancelled", "restored")


@pytest.mark.parametrize("lost", [lose_ledger, alter_ledger], ids=["missing", "altered"])
def test_without_a_ledger_to_believe_whatever_was_open_is_in_doubt(
    stuck: Stuck, relay: RecordingRelay, lost: Callable[[Stuck], object]
) -> None:
    lost(stuck)
    assert not agrees(stuck.house)
    report = accept(stuck)
    assert agrees(stuck.house)
    assert (report.aside is not None) == (lost is alter_ledger)
    assert report.aside is None or report.aside.is_file()
    for name in HELD:
        assert stuck.state(name) == ("executing", None), name
        assert stuck.attempt(name) == ("done", "in_doubt"), name
        assert stuck.case(name).finding == "unknown", name
    assert stuck.state(PENDING) == stuck.state(APPROVED) == ("cancelled", "restored")
    drain(stuck, relay)
    assert sent(relay, stuck) == []
    assert stuck.house.approved().id is not None
    drain(stuck, relay)
    assert len(relay.messages) >= 1


def test_who_accepted_and_why_is_in_journal_and_ledger(stuck: Stuck) -> None:
    left(stuck, APPROVED)
    accept(stuck)
    ((told,),) = stuck.house.rows("SELECT detail FROM journal WHERE action = 'fence'")
    for text in (str(told), (stuck.house.settings.state_dir / "ledger").read_text().splitlines()[-1]):
        assert person() in text
        assert WHY in text
    assert refused(stuck, StateRefused).code is Code.STATE_CONFLICT  # once is enough


def test_what_is_put_in_doubt_can_be_settled(stuck: Stuck) -> None:
    left(stuck, APPROVED)
    accept(stuck)
    with stuck.desk() as desk:
        desk.settling.settle(stuck.drafts[APPROVED], Settled.SENT, note="it is in Sent", at_once=True)
    assert stuck.state(APPROVED) == ("completed", None)


def test_what_a_worker_of_another_host_left_can_be_settled_after_a_move(stuck: Stuck) -> None:
    """Restored on a new machine: the old one's lock files are not there, and nobody ever will release them."""
    with stuck.house.as_thief() as thief:
        thief.execute("UPDATE workers SET host = 'burnt-down.example'")
    lose_ledger(stuck)
    accept(stuck)
    with stuck.desk() as desk:
        desk.settling.settle(stuck.drafts[GAP], Settled.SENT, note="it is in Sent", at_once=True)


def test_the_outboxs_own_mail_never_waits_for_a_person(stuck: Stuck) -> None:
    house = stuck.house
    house.inbox()
    (request,) = system_drafts(house)
    stuck.drafts["request"] = request
    left(stuck, "request")
    accept(stuck)
    assert house.rows("SELECT state FROM drafts WHERE id = ?", request) in ([("failed",)], [("cancelled",)])


def test_what_was_stopped_after_the_restore_is_in_doubt_all_the_same(tmp_path: Path) -> None:
    stuck = stuck_in(tmp_path, ahead=True)
    stuck.house.cancel(stuck.drafts[CLAIMED_IN_LEDGER])
    accept(stuck)
    assert stuck.attempt(CLAIMED_IN_LEDGER) == ("done", "in_doubt")


@pytest.mark.parametrize("how", ["stopped", "late"])
def test_without_a_ledger_a_claim_that_was_stopped_or_is_late_is_not_called_unsent(
    stuck: Stuck, relay: RecordingRelay, how: str
) -> None:
    if how == "stopped":
        stuck.house.cancel(stuck.drafts[CLAIMED])
    else:
        stuck.house.clock.advance(25 * HOUR)
    lose_ledger(stuck)
    accept(stuck)
    drain(stuck, relay)
    assert stuck.state(CLAIMED) == ("executing", None)
    assert stuck.attempt(CLAIMED) == ("done", "in_doubt")


# What happens in the middle


@pytest.mark.parametrize(
    "at",
    [
        4,
        8,
        9,
        10,
    ],
)
def test_where_it_breaks_off_no_worker_starts_and_it_can_be_run_again(
    stuck: Stuck, relay: RecordingRelay, at: int
) -> None:
    """The draft that waits and has not left is the one that nobody wants sent any more: it was cancelled since."""
    later(stuck.house, 1)
    stuck.drafts["unwanted"] = stuck.house.approved().id
    left(stuck, APPROVED)
    with pytest.raises(Crash):
        accept(stuck, clock=Meanwhile(stuck.house, at, crash))
    if agrees(stuck.house):
        drain(stuck, relay)
    else:
        accept(stuck)
        drain(stuck, relay)
    assert stuck.state("unwanted") == ("cancelled", "restored")
    assert stuck.state(APPROVED) == ("executing", None)
    assert {APPROVED, "unwanted"} & {*sent(relay, stuck)} == set()


@pytest.mark.parametrize("at", [4, 9, 11])
def test_where_it_breaks_off_without_a_ledger_it_can_be_run_again(stuck: Stuck, relay: RecordingRelay, at: int) -> None:
    lose_ledger(stuck)
    with pytest.raises(Crash):
        accept(stuck, clock=Meanwhile(stuck.house, at, crash))
    assert not agrees(stuck.house)
    accept(stuck)
    drain(stuck, relay)
    assert sent(relay, stuck) == []
    assert stuck.attempt(CLAIMED) == ("done", "in_doubt")


def test_what_is_approved_in_the_middle_does_not_leave(stuck: Stuck, relay: RecordingRelay) -> None:
    """An inbox runs on, and reads "ship it" again: the mailbox still has the reply."""
    lose_ledger(stuck)
    clock = Meanwhile(stuck.house, 4, lambda: stuck.house.approve(stuck.drafts[PENDING]), anywhere=False)
    report = accept(stuck, clock=clock)
    assert stuck.house.rows("SELECT count(*) FROM grants WHERE draft_id = ?", stuck.drafts[PENDING]) == [(1,)]
    assert report.cancelled == 2
    drain(stuck, relay)
    assert sent(relay, stuck) == []


def test_a_pause_in_the_middle_makes_nothing_leave(stuck: Stuck, relay: RecordingRelay) -> None:
    """A claim is then not put in doubt, and without a ledger nothing else keeps it from being sent again."""

    def pause() -> None:
        with stuck.desk() as desk:
            desk.pause(reason="somebody is worried")

    lose_ledger(stuck)
    with suppress(OutboxError):
        accept(stuck, clock=Meanwhile(stuck.house, 3, pause, anywhere=False))
    with stuck.desk() as desk:
        desk.resume()
    if not agrees(stuck.house):
        accept(stuck)
    drain(stuck, relay)
    assert sent(relay, stuck) == []


def test_of_two_fences_at_once_the_second_waits(stuck: Stuck) -> None:
    """Else it would set aside the ledger that the first began, and that a worker has written in since."""
    refusals: list[Code] = []

    def another() -> None:
        with pytest.raises(TryLater) as refusal:
            accept(stuck)
        refusals.append(refusal.value.code)

    lose_ledger(stuck)
    accept(stuck, clock=Meanwhile(stuck.house, 4, another, anywhere=False))
    assert refusals == [Code.WORKER_ALIVE]
    assert agrees(stuck.house)


def test_a_clock_that_is_behind_makes_no_fence_that_workers_refuse(stuck: Stuck) -> None:
    lose_ledger(stuck)
    stuck.house.clock.advance(-3 * HOUR)
    accept(stuck)
    assert agrees(stuck.house)
    stuck.house.clock.advance(3 * HOUR)
    assert agrees(stuck.house)
