"""What a verdict does to a draft, state by state; grants are right, and what came too late says why."""

from __future__ import annotations

from email import message_from_bytes, policy

import pytest

from outbox.clock import new_id
from outbox.core.grant import verify_grant
from outbox.core.lifecycle import Phase, Room, State
from outbox.store.claims import Claim, Heat, claim_if_cool, enter_gaps_if_held, insert_worker
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.rows import load_grants
from outbox.store.transition import LostRace
from outbox.store.writer import Writer
from tests.house import FOUNDER, HOUR, JANE, SECOND, House
from tests.inbox.letters import Asked, text_of

PARTNER = "partner@acme.example"


def answer(asked: Asked, text: str, **headers: str | None) -> tuple[bool, str]:
    """Reply a second later, look, and return whether it counted and why."""
    asked.house.clock.advance(SECOND)
    asked.house.reply(asked.request, text, **headers)  # type: ignore[arg-type]
    asked.house.inbox()
    last = asked.house.replies()[-1]
    return last.counted, last.why


def answers(house: House) -> list[str]:
    """The texts of the answers in the database, oldest first."""
    rows = house.rows(
        "SELECT octets FROM messages JOIN replies ON answer_id = messages.draft_id ORDER BY replies.received_at"
    )
    return [text_of(message_from_bytes(octets, policy=policy.default)) for (octets,) in rows]  # type: ignore[arg-type, misc]


def claimed(house: House) -> Claim:
    """Claim the draft that is due, as a worker does that then takes its time."""
    database, now = connect(house.place), house.clock.now
    writer = Writer(database, Chain(Room.WORKER, new_id(now), house.settings.grant_ring()))
    worker = new_id(now)
    writer.run(lambda tx: insert_worker(tx, worker, host="elsewhere", pid=1, now=now))
    heat = Heat("mail", 10, 900, 300)
    (found,), _ = writer.run(lambda tx: claim_if_cool(tx, heat, worker_id=worker, attempt_ids=[new_id(now)], now=now))
    writer.close()
    database.close()
    return found


def test_an_approval_makes_one_grant_that_verifies(asked: Asked) -> None:
    assert answer(asked, "Ship it") == (True, f"{FOUNDER} approved it")
    house = asked.house
    database = connect(house.place)
    with database.reading() as connection:
        ((grant, signature),) = load_grants(connection, asked.draft_id)
    database.close()
    draft = house.story(asked.draft_id).draft
    assert verify_grant(house.settings.grant_ring(), grant, signature)
    assert not verify_grant(house.settings.draft_ring(), grant, signature)
    assert (grant.draft_id, grant.digest, grant.approver, grant.channel) == (draft.id, draft.digest, FOUNDER, "reply")
    assert (grant.at, grant.expires_at) == (house.clock.now, house.clock.now + 24 * HOUR)
    assert draft.state is State.APPROVED


def test_the_grant_lives_as_long_as_the_settings_say(asked: Asked) -> None:
    asked.house.set("approval", grant_ttl='"90s"')
    answer(asked, "Ship it")
    (grant,) = asked.house.story(asked.draft_id).draft.grants
    assert grant.expires_at - grant.at == 90 * SECOND


def test_an_approval_spends_the_token_for_approving(asked: Asked) -> None:
    answer(asked, "Ship it")
    ((spent_at,),) = asked.house.rows("SELECT spent_at FROM requests WHERE draft_id = ?", asked.draft_id)
    assert spent_at == asked.house.clock.now
    counted, why = answer(asked, "Ship it")
    assert not counted
    assert "already" in why
    assert len(asked.grants()) == 1


def test_verdict_and_record_are_journalled_together(asked: Asked) -> None:
    answer(asked, "Ship it")
    actions = [one for (one,) in asked.house.rows("SELECT action FROM journal ORDER BY at DESC, seq DESC LIMIT 3")]
    assert sorted(map(str, actions)) == ["approve", "grant", "reply"]


def test_a_rejection_keeps_its_reason_for_the_agent(asked: Asked) -> None:
    assert answer(asked, "Don\u2019t send it: “free” is wrong")[0]
    rejection = asked.house.story(asked.draft_id).draft.rejection
    assert rejection is not None
    assert (rejection.approver, rejection.reason, rejection.at) == (FOUNDER, "“free” is wrong", asked.house.clock.now)
    assert asked.states() == ("rejected", "pending")
    assert asked.grants() == []


@pytest.mark.parametrize("text", ["Stop", "Cancel!", "hold"])
def test_stop_cancels_a_pending_draft_and_says_so(asked: Asked, text: str) -> None:
    assert answer(asked, text)[0]
    assert asked.states() == ("cancelled", "pending")
    assert "nothing was sent" in answers(asked.house)[0]


@pytest.mark.parametrize("text", ["Stop", "Reject: changed my mind", "No"])
def test_stop_and_reject_after_the_approval_cancel(asked: Asked, text: str) -> None:
    answer(asked, "Ship it")
    assert answer(asked, text)[0]
    assert asked.states() == ("cancelled", "pending")
    assert "nothing was sent" in answers(asked.house)[0]
    asked.house.drain()
    assert asked.house.relay.to(JANE) == []


@pytest.mark.parametrize("text", ["Stop", "No"])
def test_stop_while_it_is_being_sent_holds_until_the_gap_and_the_answer_says_so(asked: Asked, text: str) -> None:
    answer(asked, "Ship it")
    claim = claimed(asked.house)
    assert claim.draft_id == asked.draft_id
    assert answer(asked, text)[0]
    draft = asked.house.story(asked.draft_id).draft
    assert (draft.state, draft.stop_asked_at) == (State.EXECUTING, asked.house.clock.now)
    assert "being sent at this moment" in answers(asked.house)[0]
    database = connect(asked.house.place)
    writer = Writer(database, Chain(Room.WORKER, new_id(1), asked.house.settings.grant_ring()))
    with pytest.raises(LostRace, match="stopped"):
        writer.run(lambda tx: enter_gaps_if_held(tx, [(claim, bytes(32))], now=asked.house.clock.now))
    writer.close()
    database.close()
    assert asked.house.story(asked.draft_id).attempts[0].phase == Phase.CLAIMED


def test_a_second_stop_while_it_is_being_sent_changes_nothing_more(asked: Asked) -> None:
    answer(asked, "Ship it")
    claimed(asked.house)
    answer(asked, "Stop")
    first = asked.house.story(asked.draft_id).draft.stop_asked_at
    answer(asked, "Stop")
    assert asked.house.story(asked.draft_id).draft.stop_asked_at == first


def test_an_approval_while_it_is_being_sent_does_not_take_the_stop_back(asked: Asked) -> None:
    answer(asked, "Ship it")
    claimed(asked.house)
    answer(asked, "Stop")
    assert not answer(asked, "Ship it")[0]
    assert asked.house.story(asked.draft_id).draft.stop_asked_at is not None


@pytest.mark.parametrize("final", ["completed", "rejected", "cancelled", "expired"])
@pytest.mark.parametrize("text", ["Ship it", "Reject: too late", "Stop"])
def test_a_reply_to_a_final_draft_does_not_count_and_says_why(asked: Asked, final: str, text: str) -> None:
    match final:
        case "completed":
            answer(asked, "Ship it")
            asked.house.drain()
        case "rejected":
            answer(asked, "No")
        case "cancelled":
            asked.house.cancel(asked.draft_id)
        case _:
            asked.house.clock.advance(25 * HOUR)
    before = asked.house.rows("SELECT * FROM drafts WHERE id = ?", asked.draft_id) if final != "expired" else None
    counted, why = answer(asked, text)
    assert not counted
    assert why
    assert asked.states()[0] == final
    assert before is None or asked.house.rows("SELECT * FROM drafts WHERE id = ?", asked.draft_id) == before
    assert "Your reply changed nothing" in answers(asked.house)[-1]


def test_an_approval_after_the_draft_s_time_does_not_count(asked: Asked) -> None:
    asked.house.clock.advance(25 * HOUR)
    assert not answer(asked, "Ship it")[0]
    assert asked.states() == ("expired", "expired")
    assert asked.grants() == []


def test_an_approval_in_time_is_read_before_the_draft_expires(asked: Asked) -> None:
    asked.house.clock.advance(24 * HOUR - 2 * SECOND)
    assert answer(asked, "Ship it")[0]


def test_an_approver_who_was_removed_from_the_settings_does_not_count(asked: Asked) -> None:
    asked.house.set("approval", approvers=f'["{PARTNER}"]')
    for text in ("Ship it", "No", "Stop", "hm"):
        counted, why = answer(asked, text)
        assert not counted
        assert "not an approver any more" in why
    assert asked.states() == ("pending", "pending")
    assert answers(asked.house) == []


def test_an_approver_cannot_answer_the_other_s_request(house: House) -> None:
    house.set("approval", approvers=f'["{FOUNDER}", "{PARTNER}"]')
    draft = house.draft()
    house.ask(draft.id)
    for sent in house.relay.messages:
        request = message_from_bytes(sent.octets, policy=policy.default)
        (recipient,) = sent.recipients
        other = PARTNER if recipient == FOUNDER else FOUNDER
        house.reply(request, "Ship it", sender=other)  # type: ignore[arg-type]
    house.inbox()
    assert house.story(draft.id).draft.state is State.PENDING
    assert [reply.why.partition(":")[0] for reply in house.replies()] == ["from", "from"]


def test_either_approver_can_approve_his_own_request(house: House) -> None:
    house.set("approval", approvers=f'["{FOUNDER}", "{PARTNER}"]')
    draft = house.draft()
    house.ask(draft.id)
    (request,) = [message_from_bytes(one.octets, policy=policy.default) for one in house.relay.to(PARTNER)]
    house.reply(request, "Ship it", sender=PARTNER.upper())  # type: ignore[arg-type]
    house.inbox()
    assert [grant.approver for grant in house.story(draft.id).draft.grants] == [PARTNER]


def test_a_draft_approved_at_the_terminal_is_not_approved_again_by_reply(asked: Asked) -> None:
    asked.house.approve(asked.draft_id)
    counted, why = answer(asked, "Ship it")
    assert not counted
    assert "UNIQUE" not in why  # words for the approver, not SQLite's
    assert len(asked.grants()) == 1
