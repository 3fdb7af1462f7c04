"""What is at executing: what is known of it, and what a person may decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.clock import new_id
from outbox.core.errors import Code, DraftUnknown, OutboxError, StateRefused, TryLater
from outbox.core.evidence import Evidence
from outbox.core.lifecycle import Room, Settled
from outbox.lock import WorkerLock
from outbox.operator.settling import ANSWERS_COME_FOR, Case, person
from outbox.store.claims import Claim
from outbox.store.evidence import insert_evidence
from outbox.store.pause import pause_if_running
from tests.house import HOUR, SECOND
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
    bury,
    claimed,
    enter,
    entered,
    journalled,
    later,
    register,
    row,
    stuck_in,
    write_in_ledger,
)
from tests.relay.recording import RecordingRelay
from tests.worker.hand import writing

SENT, NOT_SENT, RELEASED = Settled.SENT, Settled.NOT_SENT, Settled.RELEASED
WHY = "seen in the provider's log"


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    return stuck_in(tmp_path)


def settle(stuck: Stuck, name: str, settled_as: Settled, note: str | None = WHY, *, at_once: bool = False) -> None:
    with stuck.desk() as desk:
        desk.settling.settle(stuck.drafts.get(name, name), settled_as, note=note, at_once=at_once)


def refused(stuck: Stuck, name: str, settled_as: Settled, note: str | None = WHY, *, at_once: bool = False) -> Code:
    """The code of a refusal that changed nothing."""
    before = rows_of(stuck)
    with pytest.raises(OutboxError) as told:
        settle(stuck, name, settled_as, note, at_once=at_once)
    assert rows_of(stuck) == before
    return told.value.code


def rows_of(stuck: Stuck) -> list[list[tuple[object, ...]]]:
    tables = ("drafts", "attempts", "settlements", "journal")
    return [stuck.house.rows(f"SELECT * FROM {table}") for table in tables]


def found_in(stuck: Stuck, name: str, item: Evidence) -> None:
    """Evidence, as whoever found it kept it."""
    later(stuck.house, 1)
    keep_as = {"evidence_id": new_id(stuck.house.clock()), "draft_id": stuck.drafts[name]}
    with writing(stuck.house, Room.OPERATOR) as writer:
        writer.run(lambda tx: insert_evidence(tx, item, attempt_id=None, now=stuck.house.clock(), **keep_as))


def cases(stuck: Stuck) -> dict[str, Case]:
    names = {draft_id: name for name, draft_id in stuck.drafts.items()}
    with stuck.desk() as desk:
        return {names[case.held.draft_id]: case for case in desk.settling.cases()}


# What is known


def test_each_draft_at_executing_is_listed_with_what_can_be_proved(stuck: Stuck) -> None:
    assert {name: case.finding for name, case in cases(stuck).items()} == {
        CLAIMED: "not_sent",
        GAP: "unknown",
        GAP_ACCEPTED: "sent",
        GAP_REFUSED: "not_sent",
        DOUBT: "unknown",
        FRESH: "unknown",
    }


def test_the_one_that_waits_longest_comes_first(stuck: Stuck) -> None:
    with stuck.desk() as desk:
        since = [case.held.since for case in desk.settling.cases()]
    assert since == sorted(since)


def test_why_is_said_with_each(stuck: Stuck) -> None:
    found = cases(stuck)
    assert found[CLAIMED].because == "it never entered the gap, and the ledger agrees: not sent"
    assert found[GAP].because.startswith("in the gap: ")
    assert "heard 250 the relay's words" in found[GAP_ACCEPTED].because
    assert "heard 451 the relay's words" in found[GAP_REFUSED].because


def test_a_claim_that_the_ledger_has_in_the_gap_is_unknown(tmp_path: Path) -> None:
    case = stuck_in(tmp_path, ahead=True).case(CLAIMED_IN_LEDGER)
    assert case.finding == "unknown"
    assert "which the database does not know" in case.because


def test_an_unsent_attempt_of_a_draft_that_the_ledger_knows_to_have_left_is_not_called_unsent(stuck: Stuck) -> None:
    """Set back by hand: the attempt that left is gone from the database, another one is at claimed."""
    house = stuck.house
    left = Claim(stuck.drafts[APPROVED], new_id(house.clock()), "mail")
    with writing(house, Room.WORKER) as writer:
        claimed(house, writer, stuck.worker_id, stuck.drafts[APPROVED])
    write_in_ledger(house, entered(left, house.clock()))
    assert stuck.case(APPROVED).finding == "unknown"


@pytest.mark.parametrize("missing", ["ledger", "grant.key"])
def test_without_the_ledger_nothing_is_proved_and_nothing_released(stuck: Stuck, missing: str) -> None:
    for file in stuck.house.folder.rglob(missing):
        file.unlink()
    for name in (CLAIMED, GAP, DOUBT):
        case = stuck.case(name)
        assert case.finding == "unknown"
        assert missing.partition(".")[0] in case.because
        assert refused(stuck, name, RELEASED) is Code.NOT_PROVEN


def test_a_ledger_that_was_altered_proves_nothing(stuck: Stuck) -> None:
    file = stuck.house.settings.state_dir / "ledger"
    file.write_bytes(file.read_bytes().replace(b'"entered"', b'"ent3red"', 1))
    assert {case.finding for case in cases(stuck).values()} == {"unknown"}


def test_presence_proves_that_it_left(stuck: Stuck) -> None:
    for name in (CLAIMED, GAP, GAP_REFUSED, DOUBT):
        found_in(stuck, name, Evidence("imap", None, "it is not in Archive: that proves nothing"))
        found_in(stuck, name, Evidence("imap", True, "it is in Sent"))
        case = stuck.case(name)
        assert (case.finding, case.because) == ("sent", "imap: it is in Sent")
        assert [one.found for one in case.evidence] == [None, True]


def test_absence_proves_nothing(stuck: Stuck) -> None:
    for found in (None, False):
        found_in(stuck, GAP, Evidence("imap", found, "it is in no folder"))
    assert stuck.case(GAP).finding == "unknown"


def test_looking_for_evidence_keeps_what_was_found_once(stuck: Stuck) -> None:
    stuck.house.set("reconcile", command='"echo 250 queued as 4711"')
    with stuck.desk() as desk:
        cases = [desk.settling.examine(stuck.drafts[GAP]) for _ in range(2)]
    assert [case.finding for case in cases] == ["sent", "sent"]
    assert "4711" in cases[0].because
    ((kept,),) = stuck.house.rows("SELECT count(*) FROM evidence WHERE source = 'command'")
    assert kept == 1
    assert "evidence" in journalled(stuck.house, stuck.drafts[GAP])


def test_a_draft_that_is_not_executing_has_no_case(stuck: Stuck) -> None:
    for name in (PENDING, APPROVED, COMPLETED):
        with pytest.raises(StateRefused) as told:
            stuck.case(name)
        assert told.value.code is Code.STATE_CONFLICT
        assert refused(stuck, name, SENT) is Code.STATE_CONFLICT


def test_a_draft_that_is_not_there_has_no_case(stuck: Stuck) -> None:
    with stuck.desk() as desk, pytest.raises(DraftUnknown):
        desk.settling.cases("no-such-draft")
    assert refused(stuck, "no-such-draft", SENT) is Code.DRAFT_UNKNOWN


# What may be decided


@pytest.mark.parametrize(
    ("name", "settled_as", "state", "attempt"),
    [
        pytest.param(GAP, SENT, ("completed", None), ("done", "in_doubt"), id="sent, from the gap"),
        pytest.param(DOUBT, SENT, ("completed", None), ("done", "in_doubt"), id="sent, from doubt"),
        pytest.param(GAP, NOT_SENT, ("failed", "settled"), ("done", "in_doubt"), id="not sent, from the gap"),
        pytest.param(DOUBT, NOT_SENT, ("failed", "settled"), ("done", "in_doubt"), id="not sent, from doubt"),
        pytest.param(CLAIMED, NOT_SENT, ("failed", "settled"), ("done", "not_sent"), id="not sent, from the claim"),
        pytest.param(CLAIMED, RELEASED, ("approved", None), ("done", "not_sent"), id="released, from the claim"),
        pytest.param(GAP_REFUSED, RELEASED, ("approved", None), ("done", "not_sent"), id="released, as it was refused"),
        pytest.param(GAP_ACCEPTED, SENT, ("completed", None), ("done", "in_doubt"), id="sent, as it was heard"),
    ],
)
def test_a_settlement_is_kept_with_who_and_why(
    stuck: Stuck, name: str, settled_as: Settled, state: tuple[str, str | None], attempt: tuple[str, str]
) -> None:
    settle(stuck, name, settled_as)
    house, draft_id = stuck.house, stuck.drafts[name]
    assert stuck.state(name) == state
    assert stuck.attempt(name) == attempt
    settled = house.story(draft_id).draft.settlement
    assert settled is not None
    kept = (settled.settled_as, settled.by, settled.note, settled.at)
    assert kept == (settled_as.value, person(), WHY, house.clock())
    assert "settlement" in journalled(house, draft_id)
    ((told,),) = house.rows("SELECT detail FROM journal WHERE action = 'settlement' AND draft_id = ?", draft_id)
    assert all(word in str(told) for word in (settled_as.value, person(), WHY))
    assert refused(stuck, name, settled_as) is Code.STATE_CONFLICT  # a second time


def test_a_release_needs_no_words_of_a_person(stuck: Stuck) -> None:
    settle(stuck, CLAIMED, RELEASED, None)
    settled = stuck.house.story(stuck.drafts[CLAIMED]).draft.settlement
    assert settled is not None
    assert "never entered the gap" in settled.note


def test_sent_and_not_sent_need_a_note(stuck: Stuck) -> None:
    for settled_as in (SENT, NOT_SENT):
        for note in (None, ""):
            assert refused(stuck, GAP, settled_as, note) is Code.USAGE


@pytest.mark.parametrize("settled_as", [SENT, NOT_SENT])
def test_while_an_answer_may_come_it_is_too_early(stuck: Stuck, settled_as: Settled) -> None:
    assert refused(stuck, FRESH, settled_as) is Code.ANSWER_POSSIBLE
    assert refused(stuck, FRESH, settled_as, None, at_once=True) is Code.USAGE
    settle(stuck, FRESH, settled_as, at_once=True)


def test_the_time_in_which_an_answer_may_come_is_the_relays_and_half_an_hour(stuck: Stuck) -> None:
    house, case = stuck.house, stuck.case(FRESH)
    wait = (house.settings.relay.final_timeout + ANSWERS_COME_FOR) * SECOND
    assert case.held.gap_at is not None
    assert case.may_settle_at == case.held.gap_at + wait
    house.clock.now = case.may_settle_at - 1
    assert refused(stuck, FRESH, NOT_SENT) is Code.ANSWER_POSSIBLE
    house.clock.advance(1)
    settle(stuck, FRESH, NOT_SENT)


def test_nothing_is_settled_while_its_worker_lives(stuck: Stuck) -> None:
    lock = WorkerLock(stuck.house.settings.state_dir, stuck.worker_id)
    for name in (CLAIMED, GAP, GAP_ACCEPTED):
        assert stuck.case(name).is_alive
        for settled_as in (SENT, NOT_SENT, RELEASED):
            assert refused(stuck, name, settled_as, at_once=True) is Code.WORKER_ALIVE
    lock.release()
    assert not stuck.case(CLAIMED).is_alive
    settle(stuck, CLAIMED, RELEASED)


def test_what_is_not_provably_unsent_is_not_released(stuck: Stuck) -> None:
    for name in (GAP, DOUBT, GAP_ACCEPTED):
        assert refused(stuck, name, RELEASED) is Code.NOT_PROVEN
        assert refused(stuck, name, RELEASED, at_once=True) is Code.NOT_PROVEN


def test_a_claim_that_the_ledger_has_in_the_gap_is_not_released(tmp_path: Path) -> None:
    assert refused(stuck_in(tmp_path, ahead=True), CLAIMED_IN_LEDGER, RELEASED) is Code.NOT_PROVEN


def test_what_never_entered_the_gap_is_not_settled_as_sent(stuck: Stuck) -> None:
    assert refused(stuck, CLAIMED, SENT) is Code.NOT_PROVEN


def test_what_its_worker_heard_to_be_refused_is_not_settled_as_sent(stuck: Stuck) -> None:
    assert refused(stuck, GAP_REFUSED, SENT) is Code.NOT_PROVEN


def test_what_the_ledger_proves_sent_is_not_settled_as_not_sent(stuck: Stuck) -> None:
    assert refused(stuck, GAP_ACCEPTED, NOT_SENT) is Code.NOT_PROVEN


@pytest.mark.parametrize(
    "name",
    [
        GAP,
        DOUBT,
        GAP_REFUSED,
        CLAIMED,
    ],
)
def test_what_evidence_proves_sent_is_settled_as_sent_alone(stuck: Stuck, name: str) -> None:
    found_in(stuck, name, Evidence("imap", True, "it is in Sent"))
    assert refused(stuck, name, NOT_SENT) is Code.NOT_PROVEN
    assert refused(stuck, name, RELEASED) is Code.NOT_PROVEN
    settle(stuck, name, SENT)
    assert stuck.state(name) == ("completed", None)


def test_a_claim_that_the_ledger_has_in_the_gap_can_be_settled_as_sent(tmp_path: Path) -> None:
    stuck = stuck_in(tmp_path, ahead=True)
    settle(stuck, CLAIMED_IN_LEDGER, SENT, at_once=True)
    assert stuck.state(CLAIMED_IN_LEDGER) == ("completed", None)


def test_while_a_claim_that_the_ledger_has_in_the_gap_may_be_answered_it_is_too_early(stuck: Stuck) -> None:
    house = stuck.house
    with writing(house, Room.WORKER) as writer:
        claim = claimed(house, writer, stuck.worker_id, stuck.drafts[APPROVED])
    write_in_ledger(house, entered(claim, house.clock()))
    assert refused(stuck, APPROVED, NOT_SENT) is Code.ANSWER_POSSIBLE


def test_a_closed_attempt_of_a_worker_that_lives_can_be_settled(stuck: Stuck) -> None:
    """It gave the answer up long ago and works on other drafts: it need not be stopped for this one."""
    lock = WorkerLock(stuck.house.settings.state_dir, stuck.worker_id)
    settle(stuck, DOUBT, SENT)
    lock.release()


# Two at the desk, and a desk beside a worker


@pytest.mark.parametrize(("first", "second"), [(SENT, NOT_SENT), (NOT_SENT, SENT)], ids=["sent first", "sent second"])
@pytest.mark.parametrize("name", [GAP, DOUBT])
def test_of_two_operators_the_first_decides(stuck: Stuck, name: str, first: Settled, second: Settled) -> None:
    clock = Meanwhile(stuck.house, 2, lambda: settle(stuck, name, first))  # after its look, before its word
    with stuck.desk(clock) as desk, pytest.raises(StateRefused):
        desk.settling.settle(stuck.drafts[name], second, note="the other", at_once=False)
    settled = stuck.house.story(stuck.drafts[name]).draft.settlement
    assert settled is not None
    assert (settled.settled_as, settled.note) == (first.value, WHY)


def test_a_release_and_a_recovery_at_the_same_time_release_once(tmp_path: Path, relay: RecordingRelay) -> None:
    stuck = stuck_in(tmp_path, relay)
    clock = Meanwhile(stuck.house, 2, stuck.house.drain)
    with stuck.desk(clock) as desk, pytest.raises(StateRefused):
        desk.settling.settle(stuck.drafts[CLAIMED], RELEASED, note=None, at_once=False)
    assert stuck.state(CLAIMED) == ("completed", None)
    stuck.house.drain()
    assert len([sent for sent in relay.messages if stuck.drafts[CLAIMED].encode() in sent.octets]) == 1


def test_a_worker_that_enters_the_gap_during_a_release_is_not_overtaken(stuck: Stuck) -> None:
    """Its lock file is gone, so it counts as dead; its commit decides."""
    house, claim = stuck.house, stuck.claim(CLAIMED)

    def enter_now() -> None:
        with writing(house, Room.WORKER) as writer:
            enter(house, writer, None, claim)

    with stuck.desk(Meanwhile(house, 2, enter_now)) as desk, pytest.raises(StateRefused):
        desk.settling.settle(claim.draft_id, RELEASED, note=None, at_once=False)
    assert stuck.attempt(CLAIMED) == ("gap", None)
    assert row(house, claim.draft_id) == ("executing", None)


def test_what_was_released_is_sent_once_by_a_worker(tmp_path: Path, relay: RecordingRelay) -> None:
    stuck = stuck_in(tmp_path, relay)
    stuck.house.set("reconcile", auto_release='"never"')
    stuck.house.drain()
    assert stuck.state(CLAIMED) == ("executing", None)
    settle(stuck, CLAIMED, RELEASED)
    for _ in range(2):
        stuck.house.drain()
    assert stuck.state(CLAIMED) == ("completed", None)
    assert len([sent for sent in relay.messages if stuck.drafts[CLAIMED].encode() in sent.octets]) == 1
    assert [one.outcome for one in stuck.house.story(stuck.drafts[CLAIMED]).attempts] == ["not_sent", "accepted"]


def test_what_was_stopped_or_is_past_its_time_is_not_released(stuck: Stuck) -> None:
    stuck.house.cancel(stuck.drafts[CLAIMED])
    assert refused(stuck, CLAIMED, RELEASED) is Code.STATE_CONFLICT
    stuck.house.clock.advance(23 * HOUR)
    assert refused(stuck, GAP_REFUSED, RELEASED) is Code.STATE_CONFLICT


def test_what_no_grant_covers_any_more_is_not_released(tmp_path: Path) -> None:
    stuck = stuck_in(tmp_path)
    house = stuck.house
    house.set("approval", grant_ttl='"1h"')
    house.set("policy", default_ttl='"7d"')
    with writing(house, Room.WORKER) as writer:
        house.cancel(stuck.drafts[APPROVED])
        claim = claimed(house, writer, stuck.worker_id)
    house.clock.advance(2 * HOUR)
    assert refused(stuck, claim.draft_id, RELEASED) is Code.STATE_CONFLICT


def test_a_worker_of_another_host_that_has_no_lock_here_counts_as_alive(stuck: Stuck) -> None:
    house = stuck.house
    house.cancel(stuck.drafts[APPROVED])
    with writing(house, Room.WORKER) as writer:
        worker_id = register(house, writer, host="another.example")
        claim = claimed(house, writer, worker_id)
        assert refused(stuck, claim.draft_id, RELEASED) is Code.WORKER_ALIVE
        bury(house, writer, worker_id)
    settle(stuck, claim.draft_id, RELEASED)


# Everything that can be proved


def test_all_that_is_proven_is_settled_and_nothing_else(stuck: Stuck) -> None:
    names = {draft_id: name for name, draft_id in stuck.drafts.items()}
    with stuck.desk() as desk:
        ends = {names[case.held.draft_id]: end for case, end in desk.settling.settle_proven()}
        assert list(desk.settling.settle_proven()) == []
    assert ends == {CLAIMED: RELEASED, GAP_ACCEPTED: SENT, GAP_REFUSED: RELEASED}
    assert {name: stuck.state(name)[0] for name in (GAP, DOUBT, FRESH)} == dict.fromkeys(
        [GAP, DOUBT, FRESH], "executing"
    )


def test_what_is_proven_and_was_stopped_ends_instead_of_being_sent(stuck: Stuck) -> None:
    stuck.house.cancel(stuck.drafts[CLAIMED])
    with stuck.desk() as desk:
        ends = {case.held.draft_id: end for case, end in desk.settling.settle_proven()}
    assert ends[stuck.drafts[CLAIMED]] is NOT_SENT
    assert stuck.state(CLAIMED) == ("failed", "settled")


def test_what_a_living_worker_holds_is_left_and_said_to_be(stuck: Stuck) -> None:
    lock = WorkerLock(stuck.house.settings.state_dir, stuck.worker_id)
    with stuck.desk() as desk:
        ends = [end for _, end in desk.settling.settle_proven()]
    lock.release()
    assert {end.code for end in ends if isinstance(end, OutboxError)} == {Code.WORKER_ALIVE}
    assert len(ends) == 3


def test_what_evidence_proves_sent_is_settled_however_far_its_attempt_got(stuck: Stuck) -> None:
    names = (CLAIMED, GAP, GAP_REFUSED, DOUBT, FRESH)
    for name in names:
        found_in(stuck, name, Evidence("imap", True, "it is in Sent"))
    with stuck.desk() as desk:
        ends = {case.held.draft_id: end for case, end in desk.settling.settle_proven()}
    assert {name: ends[stuck.drafts[name]] for name in names} == dict.fromkeys(names, SENT)


# Pauses


def test_a_pause_that_comes_during_an_attempt_keeps_it_out_of_the_gap(stuck: Stuck) -> None:
    house = stuck.house
    with writing(house, Room.OPERATOR) as writer:
        writer.run(lambda tx: pause_if_running(tx, reason="tests", by="somebody", now=house.clock()))
    with writing(house, Room.WORKER) as writer, pytest.raises(StateRefused):
        enter(house, writer, None, stuck.claim(CLAIMED))
    assert stuck.attempt(CLAIMED) == ("claimed", None)


def test_a_pause_outlives_the_desk_and_ends_once(tmp_path: Path, relay: RecordingRelay) -> None:
    stuck = stuck_in(tmp_path, relay)
    house = stuck.house
    with stuck.desk() as desk:
        desk.pause(reason="the relay\nis ill")
        with pytest.raises(StateRefused):
            desk.pause(reason="again")
    for _ in range(2):
        with pytest.raises(TryLater) as told:
            house.drain()
        assert told.value.code is Code.PAUSED
        assert person() in told.value.message
        assert "the relay is ill" in told.value.message
    assert relay.messages == []
    with stuck.desk() as desk:
        desk.resume()
        with pytest.raises(StateRefused):
            desk.resume()
    house.drain()
    assert stuck.state(APPROVED) == ("completed", None)
    told_of = house.rows("SELECT action, detail FROM journal WHERE action IN ('pause', 'resume') ORDER BY rowid")
    assert [action for action, _ in told_of] == ["pause", "resume"]
    assert all(person() in str(detail) for _, detail in told_of)
