"""One reminder and one end for each approver who was asked; whoever comes second is refused, and writes nothing."""

from __future__ import annotations

import pytest

from outbox.core.errors import StateRefused
from outbox.core.grant import Request
from outbox.core.lifecycle import Outcome, Room, State
from outbox.store.expiry import expire_if_overdue
from outbox.store.notices import insert_request
from outbox.store.stop import cancel_if_not_sent
from outbox.store.tellings import (
    MOST_AT_ONCE,
    Telling,
    due_endings,
    due_reminders,
    note_told,
    remind_once,
    tell_ending_once,
)
from outbox.store.transition import LostRace
from tests.house import FOUNDER, HOUR, SECOND
from tests.store.stage import Stage

PARTNER = "partner@acme.example"


def ask(stage: Stage, draft_id: str, approver: str = FOUNDER, number: int = 1) -> Request:
    """Ask about a draft; `number` is which time it is."""
    now = stage.clock.now
    request = Request(stage.new_id().encode()[-8:], draft_id, bytes(32), approver, now + 4 * HOUR)
    carrier = stage.notice()
    stage.run(Room.INBOX, lambda tx: insert_request(tx, request, carrier, ask=number, now=now))
    return request


@pytest.fixture
def request_(stage: Stage) -> Request:
    """A draft that lives for four hours was asked about."""
    return ask(stage, stage.insert("asked", ttl=4 * HOUR))


def remind(stage: Stage, request: Request, run: str = "1") -> None:
    notice = stage.notice(about=request.draft_id)
    stage.run(Room.INBOX, lambda tx: remind_once(tx, request, notice, now=stage.clock.now), run)


def tell(stage: Stage, request: Request, run: str = "1") -> None:
    notice = stage.notice(about=request.draft_id)
    stage.run(Room.INBOX, lambda tx: tell_ending_once(tx, request, notice, now=stage.clock.now), run)


def cancel(stage: Stage, draft_id: str) -> None:
    stage.run(Room.OPERATOR, lambda tx: cancel_if_not_sent(tx, draft_id, now=stage.clock.now))


def reminders(stage: Stage, shortest: int = HOUR) -> list[Telling]:
    return stage.read(lambda connection: due_reminders(connection, now=stage.clock.now, shortest=shortest))


def endings(stage: Stage) -> list[Telling]:
    return stage.read(due_endings)


def notices(stage: Stage, draft_id: str) -> int:
    ((count,),) = stage.rows("SELECT count(*) FROM drafts WHERE about = ?", draft_id)
    return int(str(count))


def test_who_is_asked_again_is_told_once_and_in_the_thread_of_the_first_request(
    stage: Stage, request_: Request
) -> None:
    ask(stage, "asked", number=2)
    ask(stage, "asked", PARTNER)
    cancel(stage, "asked")
    assert [(one.request.approver, one.request.id == request_.id) for one in endings(stage)] == [
        (FOUNDER, True), (PARTNER, False),
    ]  # fmt: skip


@pytest.mark.parametrize("say", [remind, tell])
def test_the_second_is_refused_and_its_notice_is_not_there(stage: Stage, request_: Request, say: object) -> None:
    assert callable(say)
    say(stage, request_)
    with pytest.raises(StateRefused, match=f"{FOUNDER} was told about draft asked before"):
        say(stage, request_, "2")
    assert notices(stage, "asked") == 1


def test_nobody_is_reminded_after_the_verdict(stage: Stage, request_: Request) -> None:
    stage.clock.advance(3 * HOUR)
    cancel(stage, "asked")
    assert reminders(stage) == []
    with pytest.raises(LostRace):
        remind(stage, request_)
    assert notices(stage, "asked") == 0


def test_whose_reply_was_answered_with_the_end_is_not_told_of_it_again(stage: Stage, request_: Request) -> None:
    cancel(stage, "asked")
    for _ in range(2):
        stage.run(Room.INBOX, lambda tx: note_told(tx, request_, now=stage.clock.now))
    assert endings(stage) == []
    with pytest.raises(LostRace):
        tell(stage, request_)
    assert notices(stage, "asked") == 0


def test_what_one_approver_knows_the_other_is_still_told(stage: Stage, request_: Request) -> None:
    ask(stage, "asked", PARTNER)
    cancel(stage, "asked")
    tell(stage, request_)
    (telling,) = endings(stage)
    assert telling.request.approver == PARTNER


def test_a_reminder_is_due_from_three_quarters_of_the_time_to_its_end(stage: Stage, request_: Request) -> None:
    stage.clock.advance(3 * HOUR - 1)
    assert reminders(stage) == []
    stage.clock.advance(1)
    assert [one.request for one in reminders(stage)] == [request_]
    assert reminders(stage, shortest=4 * HOUR + 1) == []
    stage.clock.advance(HOUR)
    assert reminders(stage) == []


def test_a_reminder_counts_from_when_it_was_asked_about(stage: Stage) -> None:
    draft_id = stage.insert(ttl=4 * HOUR)
    stage.clock.advance(2 * HOUR)
    ask(stage, draft_id)
    stage.clock.advance(3 * HOUR // 2 - 1)
    assert reminders(stage) == []
    stage.clock.advance(1)
    assert len(reminders(stage)) == 1


def test_what_has_not_ended_is_nobody_s_news(stage: Stage) -> None:
    stage.register("w1")
    for name in ("approved", "claimed", "gap", "unsent"):
        ask(stage, stage.approved(name))
        stage.clock.advance(SECOND)
    ask(stage, stage.insert("pending"))
    claims = [stage.claim() for _ in range(4)]
    stage.finish(claims[0], Outcome.NOT_SENT)
    stage.release(claims[0])
    stage.enter_gap(claims[2])
    stage.finish(claims[3], Outcome.NOT_SENT)
    assert [stage.state(name) for name in ("approved", "claimed", "gap", "unsent", "pending")] == [
        "approved", "executing", "executing", "executing", "pending",
    ]  # fmt: skip
    assert endings(stage) == []


def test_what_has_ended_or_is_in_doubt_is_news_with_its_state(stage: Stage) -> None:
    stage.register("w1")
    for name in ("completed", "doubtful"):
        ask(stage, stage.approved(name))
        stage.clock.advance(SECOND)
    completed, doubtful = stage.claim(), stage.claim()
    for claim, outcome in ((completed, Outcome.ACCEPTED), (doubtful, Outcome.IN_DOUBT)):
        stage.enter_gap(claim)
        stage.finish(claim, outcome)
    stage.complete(completed)
    cancel(stage, "doubtful")
    ask(stage, stage.insert("cancelled"))
    cancel(stage, "cancelled")
    ask(stage, stage.insert("expired", ttl=SECOND))
    stage.clock.advance(SECOND)
    stage.run(Room.INBOX, lambda tx: expire_if_overdue(tx, "expired", State.PENDING, now=stage.clock.now))
    assert {(one.request.draft_id, one.state, one.stop_asked) for one in endings(stage)} == {
        ("completed", State.COMPLETED, False),
        ("doubtful", State.EXECUTING, True),
        ("cancelled", State.CANCELLED, False),
        ("expired", State.EXPIRED, False),
    }


def test_one_look_takes_a_bounded_number(stage: Stage) -> None:
    for _ in range(MOST_AT_ONCE + 1):
        draft_id = stage.insert()
        ask(stage, draft_id)
        cancel(stage, draft_id)
    assert len(endings(stage)) == MOST_AT_ONCE
