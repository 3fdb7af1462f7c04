"""Who may be claimed, how hot it may run, when the gap is entered, and where what was not sent goes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from outbox.core.errors import StateRefused
from outbox.core.lifecycle import Outcome, Room, State
from outbox.store.claims import Claim, Heat, Tripped, claim_if_cool, end_worker_once, is_due
from outbox.store.expiry import expire_if_overdue, overdue
from outbox.store.heat import used
from outbox.store.open_attempts import abandoned
from outbox.store.stop import cancel_if_not_sent
from outbox.store.transition import LostRace
from outbox.store.views import unasked
from tests.house import FOUNDER, HOUR, SECOND
from tests.store.stage import ROOMY, ROOMY_SYSTEM, Stage, report

HEAT = Heat("mail", count=3, window=900, cooldown=300)
WINDOW, COOLDOWN = HEAT.window * SECOND, HEAT.cooldown * SECOND


@pytest.fixture(autouse=True)
def worker(stage: Stage) -> str:
    stage.register("w1")
    return "w1"


def stop(stage: Stage, draft_id: str) -> None:
    stage.run(Room.OPERATOR, lambda tx: cancel_if_not_sent(tx, draft_id, now=stage.clock.now))


def end(stage: Stage, worker_id: str) -> None:
    stage.run(Room.WORKER, lambda tx: end_worker_once(tx, worker_id, now=stage.clock.now), "the one who saw it")


# Which draft


def test_the_draft_that_was_approved_first_is_claimed_first(stage: Stage) -> None:
    first_drafted, second_drafted = stage.insert(), stage.insert()
    stage.approve(second_drafted)
    stage.clock.advance(SECOND)
    stage.approve(first_drafted)
    assert [stage.claim().draft_id for _ in range(2)] == [second_drafted, first_drafted]
    assert stage.try_claim() is None


def test_a_claim_holds_its_draft_by_its_attempt(stage: Stage) -> None:
    draft_id = stage.approved()
    claim = stage.claim(attempt_id="a")
    assert (claim.draft_id, claim.attempt_id) == (draft_id, "a")
    assert stage.rows("SELECT state, attempt_id FROM drafts") == [("executing", "a")]
    assert stage.rows("SELECT draft_id, worker_id, gate, phase, outcome, gap_at FROM attempts WHERE id = 'a'") == [
        (draft_id, "w1", "mail", "claimed", None, None)
    ]


@pytest.mark.parametrize("state", ["pending", "cancelled", "executing"])
def test_what_is_not_approved_is_not_claimed(stage: Stage, state: str) -> None:
    draft_id = stage.insert()
    if state == "cancelled":
        stop(stage, draft_id)
    if state == "executing":
        stage.approve(draft_id)
        stage.claim()
    assert stage.try_claim() is None
    assert stage.state(draft_id) == state


def test_a_deferred_draft_waits_for_its_time(stage: Stage) -> None:
    draft_id = stage.approved()
    claim = stage.claim()
    stage.finish(claim, Outcome.REFUSED_TRANSIENT)
    assert stage.release(claim, pause=SECOND) is State.APPROVED
    stage.clock.advance(SECOND - 1)
    assert stage.try_claim() is None
    stage.clock.advance(1)
    assert stage.claim().draft_id == draft_id


def test_a_draft_past_its_time_is_not_claimed(stage: Stage) -> None:
    stage.approved(ttl=SECOND)
    stage.clock.advance(SECOND)
    assert stage.try_claim() is None
    assert not stage.read(lambda connection: is_due(connection, "mail", now=stage.clock.now))
    stage.clock.advance(-1)
    assert isinstance(stage.try_claim(), Claim)


def test_a_draft_whose_grant_is_past_its_time_is_not_claimed(stage: Stage) -> None:
    stage.approved(grant_ttl=SECOND)
    stage.clock.advance(SECOND)
    assert stage.try_claim() is None
    stage.clock.advance(-1)
    assert isinstance(stage.try_claim(), Claim)


def test_an_expired_draft_does_not_hide_the_next_one(stage: Stage) -> None:
    stage.approved(ttl=SECOND)
    stage.clock.advance(SECOND)
    waiting = stage.approved()
    assert stage.claim().draft_id == waiting


def test_a_second_worker_cannot_claim_the_same_draft(stage: Stage) -> None:
    stage.register("w2")
    stage.approved()
    assert isinstance(stage.try_claim("w1"), Claim)
    assert stage.try_claim("w2") is None


def test_workers_that_claim_at_the_same_time_never_get_the_same_draft(stage: Stage) -> None:
    drafts = {stage.approved() for _ in range(40)}
    workers = ["w1", "w2", "w3", "w4"]
    for name in workers[1:]:
        stage.register(name)
    for name in workers:
        stage.writer(Room.WORKER, name)
    together = threading.Barrier(len(workers))

    def take(name: str) -> list[str]:
        together.wait(10)
        found: list[str] = []
        while isinstance(claim := stage.try_claim(name, attempt_id=f"{name}-{len(found)}"), Claim):
            found.append(claim.draft_id)
        return found

    with ThreadPoolExecutor(len(workers)) as threads:
        claimed = [draft_id for one in threads.map(take, workers) for draft_id in one]
    assert sorted(claimed) == sorted(drafts)


# The thermal cutout


def heat_up(stage: Stage, count: int = HEAT.count) -> list[Claim]:
    """Transmissions that are over: as many gaps entered now."""
    claims = []
    for _ in range(count):
        stage.approved()
        claims.append(stage.claim())
        stage.enter_gap(claims[-1])
        stage.finish(claims[-1], Outcome.ACCEPTED)
        stage.complete(claims[-1])
    return claims


def places(stage: Stage, heat: Heat = HEAT) -> int:
    return heat.count - stage.read(lambda connection: used(connection, heat, now=stage.clock.now))


def gate(stage: Stage, name: str = "mail") -> tuple[object, ...]:
    return stage.rows("SELECT tripped_at, until FROM gate WHERE name = ?", name)[0]


def test_exactly_as_many_as_the_gate_has_places_are_claimed(stage: Stage) -> None:
    for _ in range(HEAT.count + 1):
        stage.approved()
    assert [type(stage.try_claim(heat=HEAT)) for _ in range(HEAT.count + 1)] == [Claim] * HEAT.count + [Tripped]


def test_gaps_of_the_window_and_open_claims_take_places_together(stage: Stage) -> None:
    heat_up(stage, 1)
    for _ in range(3):
        stage.approved()
    stage.claim(heat=HEAT)
    in_the_gap = stage.claim(heat=HEAT)
    assert places(stage) == 0
    stage.enter_gap(in_the_gap)
    assert places(stage) == 0
    assert stage.trip(heat=HEAT).newly


def test_an_attempt_that_ended_before_the_gap_gives_its_place_back(stage: Stage) -> None:
    stage.approved()
    claim = stage.claim(heat=HEAT)
    assert places(stage) == 2
    stage.finish(claim, Outcome.NOT_SENT)
    assert places(stage) == 3


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.IN_DOUBT, Outcome.REFUSED_TRANSIENT, Outcome.NOT_SENT])
def test_a_gap_takes_its_place_whatever_came_of_it(stage: Stage, outcome: Outcome) -> None:
    stage.approved()
    claim = stage.claim(heat=HEAT)
    stage.enter_gap(claim)
    stage.finish(claim, outcome)
    assert places(stage) == 2


def test_a_gap_leaves_the_window_to_the_microsecond(stage: Stage) -> None:
    heat_up(stage)
    stage.clock.advance(WINDOW - 1)
    assert places(stage) == 0
    stage.clock.advance(1)
    assert places(stage) == 3


def test_the_open_claim_of_a_worker_that_has_ended_takes_no_place(stage: Stage) -> None:
    stage.approved()
    stage.claim(heat=HEAT)
    end(stage, "w1")
    assert places(stage) == 3


def test_the_gap_of_a_worker_that_has_ended_keeps_its_place(stage: Stage) -> None:
    stage.approved()
    stage.enter_gap(stage.claim(heat=HEAT))
    end(stage, "w1")
    assert places(stage) == 2


def test_a_full_gate_trips_only_where_a_draft_is_due(stage: Stage) -> None:
    heat_up(stage)
    assert stage.try_claim(heat=HEAT) is None
    assert gate(stage) == (None, None)
    stage.approved()
    assert stage.trip(heat=HEAT) == Tripped(stage.clock.now + COOLDOWN, newly=True)
    assert gate(stage) == (stage.clock.now, stage.clock.now + COOLDOWN)


def test_it_trips_once(stage: Stage) -> None:
    heat_up(stage)
    stage.approved()
    until = stage.clock.now + COOLDOWN
    stage.register("w2")
    assert stage.trip(heat=HEAT).newly
    stage.clock.advance(SECOND)
    assert [stage.trip(name, heat=HEAT) for name in ("w1", "w2")] == [Tripped(until, newly=False)] * 2
    assert stage.rows("SELECT count(*) FROM journal WHERE action = 'trip'") == [(1,)]


def test_it_stays_open_while_no_place_is_free_although_the_cooldown_is_over(stage: Stage) -> None:
    heat_up(stage)
    stage.approved()
    until = stage.trip(heat=HEAT).until
    stage.clock.advance(COOLDOWN)
    assert places(stage) == 0
    assert [stage.trip(heat=HEAT) for _ in range(2)] == [Tripped(until, newly=False)] * 2
    assert stage.rows("SELECT count(*) FROM journal WHERE action = 'cool'") == [(0,)]
    stage.clock.advance(WINDOW - COOLDOWN)
    assert isinstance(stage.try_claim(heat=HEAT), Claim)


def test_it_stays_open_until_the_cooldown_is_over_although_a_place_is_free(stage: Stage) -> None:
    heat_up(stage, 2)
    stage.clock.advance(WINDOW - SECOND)
    heat_up(stage, 1)
    stage.approved()
    assert stage.trip(heat=HEAT).newly
    stage.clock.advance(SECOND)
    assert places(stage) == 2
    stage.clock.advance(COOLDOWN - SECOND - 1)
    assert not stage.trip(heat=HEAT).newly
    stage.clock.advance(1)
    assert isinstance(stage.try_claim(heat=HEAT), Claim)
    assert gate(stage) == (None, None)
    assert stage.rows("SELECT action FROM journal WHERE action IN ('trip', 'cool') ORDER BY at") == [
        ("trip",),
        ("cool",),
    ]


def test_it_can_trip_again_and_that_is_a_trip_of_its_own(stage: Stage) -> None:
    heat_up(stage)
    for _ in range(HEAT.count + 1):
        stage.approved()
    assert stage.trip(heat=HEAT).newly
    stage.clock.advance(WINDOW)
    assert [type(stage.try_claim(heat=HEAT)) for _ in range(HEAT.count)] == [Claim] * HEAT.count
    assert stage.trip(heat=HEAT).newly


def test_a_tripped_gate_with_nothing_due_claims_nothing_and_stays_tripped(stage: Stage) -> None:
    heat_up(stage)
    waiting = stage.approved()
    stage.trip(heat=HEAT)
    stop(stage, waiting)
    before = gate(stage)
    assert stage.try_claim(heat=HEAT) is None
    assert gate(stage) == before


def test_heat_and_the_open_gate_survive_a_restart(stage: Stage) -> None:
    heat_up(stage)
    stage.approved()
    until = stage.trip(heat=HEAT).until
    end(stage, "w1")
    stage.close()
    stage.register("w2")
    assert places(stage) == 0
    assert stage.trip("w2", heat=HEAT) == Tripped(until, newly=False)


def test_the_outbox_s_own_mail_has_a_gate_of_its_own(stage: Stage) -> None:
    heat_up(stage)
    stage.approved()
    notice = stage.insert_notice()
    assert stage.trip(heat=HEAT).newly
    assert gate(stage, "system") == (None, None)
    assert stage.claim(heat=ROOMY_SYSTEM).draft_id == notice
    assert stage.rows("SELECT gate FROM attempts WHERE draft_id = ?", notice) == [("system",)]
    assert places(stage, Heat("system", 1, 900, 300)) == 0


def test_the_gates_do_not_claim_each_others_drafts(stage: Stage) -> None:
    stage.approved()
    assert stage.try_claim(heat=ROOMY_SYSTEM) is None
    stage.claim()
    stage.insert_notice()
    assert stage.try_claim() is None


def test_the_count_is_exact_for_workers_that_claim_at_the_same_time(stage: Stage) -> None:
    for _ in range(30):
        stage.approved()
    heat = Heat("mail", count=7, window=900, cooldown=300)
    workers = ["w1", "w2", "w3"]
    for name in workers[1:]:
        stage.register(name)
    together = threading.Barrier(len(workers))

    def take(name: str) -> list[object]:
        together.wait(10)
        return [stage.try_claim(name, heat=heat, attempt_id=f"{name}-{number}") for number in range(10)]

    with ThreadPoolExecutor(len(workers)) as threads:
        found = [one for each in threads.map(take, workers) for one in each]
    assert sum(isinstance(one, Claim) for one in found) == 7
    assert sum(isinstance(one, Tripped) and one.newly for one in found) == 1


# The gap


def test_the_gap_is_entered_by_the_attempt_that_holds_the_draft(stage: Stage) -> None:
    stage.approved()
    claim = stage.claim()
    stage.enter_gap(claim)
    assert stage.rows("SELECT phase, gap_at, wire_digest FROM attempts") == [("gap", stage.clock.now, bytes(32))]


def _stopped(stage: Stage, claim: Claim) -> Claim:
    stop(stage, claim.draft_id)
    return claim


def _out_of_time(stage: Stage, claim: Claim) -> Claim:
    stage.clock.advance(HOUR)
    return claim


def _wrong_attempt(_stage: Stage, claim: Claim) -> Claim:
    return replace(claim, attempt_id="another")


def _wrong_draft(stage: Stage, claim: Claim) -> Claim:
    stage.approved("other")
    stage.claim()
    return replace(claim, draft_id="other")


def _superseded(stage: Stage, claim: Claim) -> Claim:
    stage.finish(claim, Outcome.NOT_SENT)
    stage.release(claim)
    assert stage.claim().draft_id == claim.draft_id
    return claim


def _entered(stage: Stage, claim: Claim) -> Claim:
    stage.enter_gap(claim)
    return claim


def _finished(stage: Stage, claim: Claim) -> Claim:
    stage.finish(claim, Outcome.NOT_SENT)
    return claim


def _grant_out_of_time(stage: Stage, claim: Claim) -> Claim:
    ((expires_at,),) = stage.rows("SELECT expires_at FROM grants WHERE draft_id = ?", claim.draft_id)
    stage.clock.advance(int(str(expires_at)) - stage.clock.now)
    return claim


REFUSALS: dict[str, tuple[Callable[[Stage, Claim], Claim], dict[str, int]]] = {
    "a stop was asked for": (_stopped, {}),
    "the draft is past its time": (_out_of_time, {"grant_ttl": 2 * HOUR}),
    "the grant is past its time": (_grant_out_of_time, {"grant_ttl": SECOND}),
    "there is no such attempt": (_wrong_attempt, {}),
    "the attempt holds another draft": (_wrong_draft, {}),
    "a later attempt holds the draft": (_superseded, {}),
    "the gap was entered before": (_entered, {}),
    "the attempt is over": (_finished, {}),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_the_gap_is_not_entered_where(stage: Stage, why: str) -> None:
    spoil, given = REFUSALS[why]
    stage.approved(**given)
    claim = spoil(stage, stage.claim())
    before = stage.rows("SELECT id, phase, gap_at FROM attempts ORDER BY id"), stage.rows("SELECT * FROM journal")
    with pytest.raises(LostRace):
        stage.enter_gap(claim)
    assert before == (
        stage.rows("SELECT id, phase, gap_at FROM attempts ORDER BY id"),
        stage.rows("SELECT * FROM journal"),
    )


@pytest.mark.parametrize("given", [{"ttl": SECOND}, {"grant_ttl": SECOND}])
def test_the_gap_is_entered_up_to_the_last_microsecond(stage: Stage, given: dict[str, int]) -> None:
    stage.approved(**given)
    claim = stage.claim()
    stage.clock.advance(SECOND - 1)
    stage.enter_gap(claim)


def test_a_stop_asked_for_in_the_gap_is_recorded_and_changes_nothing_else(stage: Stage) -> None:
    draft_id = stage.approved()
    claim = stage.claim()
    stage.enter_gap(claim)
    stop(stage, draft_id)
    stop(stage, draft_id)
    assert stage.state(draft_id) == "executing"
    assert stage.rows("SELECT count(*) FROM journal WHERE action = 'stop'") == [(1,)]
    stage.finish(claim, Outcome.ACCEPTED)
    stage.complete(claim)
    assert stage.state(draft_id) == "completed"


def test_a_second_gap_is_refused_until_the_first_is_settled(stage: Stage) -> None:
    stage.approved()
    claim = stage.claim()
    stage.enter_gap(claim)
    stage.finish(claim, Outcome.IN_DOUBT)
    with pytest.raises(StateRefused, match="an attempt is open or may have sent it"):
        stage.release(claim)
    assert stage.try_claim() is None
    assert stage.state(claim.draft_id) == "executing"


def test_an_attempt_ends_once(stage: Stage) -> None:
    stage.approved()
    claim = stage.claim()
    stage.finish(claim, Outcome.NOT_SENT)
    with pytest.raises(LostRace, match="is done already"):
        stage.finish(claim, Outcome.REFUSED_TRANSIENT)
    assert stage.rows("SELECT outcome FROM attempts") == [("not_sent",)]


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.IN_DOUBT])
def test_nothing_may_have_left_without_a_gap(stage: Stage, outcome: Outcome) -> None:
    stage.approved()
    claim = stage.claim()
    with pytest.raises(StateRefused, match="attempts_possibly_sent"):
        stage.finish(claim, outcome)
    assert stage.rows("SELECT phase FROM attempts") == [("claimed",)]


def test_the_words_of_the_relay_are_kept_with_the_attempt(stage: Stage) -> None:
    stage.approved()
    claim = stage.claim()
    stage.finish(claim, Outcome.REFUSED_TRANSIENT)
    said = report(Outcome.REFUSED_TRANSIENT)
    assert stage.rows("SELECT outcome, code, enhanced, text, ended_at FROM attempts") == [
        ("refused_transient", said.code, said.enhanced, said.text, stage.clock.now)
    ]


# Release


def unsent(stage: Stage, **given: int) -> Claim:
    stage.approved(**given)
    claim = stage.claim()
    stage.finish(claim, Outcome.NOT_SENT)
    return claim


def draft_row(stage: Stage) -> tuple[object, ...]:
    return stage.rows("SELECT state, attempt_id, not_before - ?, error_code FROM drafts", stage.clock.now)[0]


def test_what_was_not_sent_goes_back_to_approved_for_later(stage: Stage) -> None:
    claim = unsent(stage)
    assert stage.release(claim, pause=60) is State.APPROVED
    assert draft_row(stage) == ("approved", None, 60, None)


def test_what_was_asked_to_stop_goes_to_cancelled_and_never_back(stage: Stage) -> None:
    claim = unsent(stage)
    stop(stage, claim.draft_id)
    assert stage.release(claim) is State.CANCELLED
    assert (draft_row(stage)[0], draft_row(stage)[3]) == ("cancelled", "stopped")


def test_what_is_past_its_time_goes_to_expired(stage: Stage) -> None:
    claim = unsent(stage, ttl=SECOND)
    stage.clock.advance(SECOND)
    assert stage.release(claim) is State.EXPIRED
    assert (draft_row(stage)[0], draft_row(stage)[3]) == ("expired", "expired")


def test_a_stop_comes_before_the_time(stage: Stage) -> None:
    claim = unsent(stage, ttl=SECOND)
    stop(stage, claim.draft_id)
    stage.clock.advance(SECOND)
    assert stage.release(claim) is State.CANCELLED


def test_only_the_attempt_that_holds_a_draft_lets_it_go(stage: Stage) -> None:
    claim = unsent(stage)
    stage.release(claim)
    held = stage.claim()
    with pytest.raises(LostRace):
        stage.release(claim)
    assert stage.rows("SELECT state, attempt_id FROM drafts") == [("executing", held.attempt_id)]


@pytest.mark.parametrize("gap", [False, True])
def test_a_draft_whose_attempt_is_open_is_not_let_go(stage: Stage, *, gap: bool) -> None:
    stage.approved()
    claim = stage.claim()
    if gap:
        stage.enter_gap(claim)
    with pytest.raises(StateRefused, match="an attempt is open or may have sent it"):
        stage.release(claim)
    assert stage.state(claim.draft_id) == "executing"


def test_the_open_attempts_of_a_worker_that_has_ended_are_found(stage: Stage) -> None:
    stage.register("w2")
    stage.approved()
    stage.approved()
    mine = stage.claim("w1")
    stage.claim("w2")
    assert stage.read(abandoned) == []
    end(stage, "w1")
    assert [(one.attempt_id, one.worker_id, one.phase) for one in stage.read(abandoned)] == [
        (mine.attempt_id, "w1", "claimed")
    ]


def test_a_worker_ends_once(stage: Stage) -> None:
    end(stage, "w1")
    with pytest.raises(StateRefused, match="ended already"):
        end(stage, "w1")


# Expiry


def test_what_is_overdue_by_its_own_time_or_its_grants_is_found(stage: Stage) -> None:
    late, spent = stage.insert(ttl=SECOND), stage.approved(grant_ttl=SECOND)
    notice = stage.insert_notice(ttl=SECOND)
    stage.insert()
    stage.approved()
    assert stage.read(lambda connection: overdue(connection, now=stage.clock.now)) == []
    stage.clock.advance(SECOND)
    found = stage.read(lambda connection: overdue(connection, now=stage.clock.now))
    assert {(one.id, one.state) for one in found} == {
        (late, State.PENDING),
        (spent, State.APPROVED),
        (notice, State.APPROVED),
    }


@pytest.mark.sqlite
def test_what_is_not_overdue_does_not_expire(stage: Stage) -> None:
    draft_id = stage.insert(ttl=SECOND)
    stage.clock.advance(SECOND - 1)
    with pytest.raises(LostRace):
        stage.run(Room.INBOX, lambda tx: expire_if_overdue(tx, draft_id, State.PENDING, now=stage.clock.now))
    assert stage.state(draft_id) == "pending"


# The plans


@contextmanager
def statements(connection: Connection) -> Iterator[list[str]]:
    """Every statement that a connection runs meanwhile, with its values in it."""
    seen: list[str] = []
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_trace_callback(seen.append)
    try:
        yield seen
    finally:
        driver.set_trace_callback(None)


def plan(stage: Stage, statement: str) -> str:
    with stage.house.connection() as connection:
        rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
    return "\n".join(str(detail) for *_, detail in rows)


def plans(stage: Stage, look: Callable[[Connection], object]) -> list[str]:
    """How SQLite goes about each SELECT of a view."""
    with stage.database.reading() as connection, statements(connection) as seen:
        look(connection)
    return [plan(stage, statement) for statement in seen if statement.startswith("SELECT")]


@pytest.mark.sqlite
@pytest.mark.parametrize(("heat", "index"), [(ROOMY, "drafts_approved"), (ROOMY_SYSTEM, "drafts_approved_system")])
def test_a_claim_searches_its_partial_index_and_sorts_nothing(stage: Stage, heat: Heat, index: str) -> None:
    stage.approved()
    stage.insert_notice()
    seen: list[str] = []

    def claim(tx: object) -> object:
        with statements(tx.connection) as these:  # type: ignore[attr-defined]
            found = claim_if_cool(tx, heat, worker_id="w1", attempt_ids=["a"], now=stage.clock.now)  # type: ignore[arg-type]
        seen.extend(these)
        return found

    ((claimed,), _) = stage.run(Room.WORKER, claim, "w1")  # type: ignore[misc]
    assert isinstance(claimed, Claim)
    (due,) = [one for one in seen if one.startswith("SELECT drafts.id")]
    words = plan(stage, due)
    assert f"SEARCH drafts USING INDEX {index} (not_before<?)" in words
    assert "SCAN" not in words
    assert "TEMP B-TREE" not in words


@pytest.mark.sqlite
@pytest.mark.parametrize(("gate_name", "index"), [("mail", "drafts_approved"), ("system", "drafts_approved_system")])
def test_an_idle_look_searches_the_partial_index(stage: Stage, gate_name: str, index: str) -> None:
    (words,) = plans(stage, lambda connection: is_due(connection, gate_name, now=1))
    assert f"SEARCH drafts USING INDEX {index} (not_before<?)" in words


@pytest.mark.sqlite
def test_places_are_counted_in_partial_indexes(stage: Stage) -> None:
    (words,) = plans(stage, lambda connection: used(connection, HEAT, now=1))
    assert "attempts_heat" in words
    assert words.count("attempts_open") == 2  # of the living, and of all


@pytest.mark.sqlite
def test_what_is_pending_and_unasked_is_found_in_the_partial_index(stage: Stage) -> None:
    (words,) = plans(stage, lambda connection: unasked(connection, FOUNDER, now=1))
    assert "drafts_pending" in words
    assert "SCAN drafts\n" not in words


@pytest.mark.sqlite
def test_what_is_overdue_is_found_in_partial_indexes(stage: Stage) -> None:
    by_draft, by_grant = plans(stage, lambda connection: overdue(connection, now=1))
    assert "SEARCH drafts USING INDEX drafts_expiring (expires_at<?)" in by_draft
    assert "TEMP B-TREE FOR ORDER BY" not in by_draft  # but for those of one instant, by their ids
    assert "drafts_approved" in by_grant


@pytest.mark.sqlite
def test_the_attempts_of_dead_workers_are_found_in_the_partial_index(stage: Stage) -> None:
    (words,) = plans(stage, abandoned)
    assert "attempts_open" in words
