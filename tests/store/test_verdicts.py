"""Verdicts move a pending draft once; whoever comes later is told where the draft is, not which constraint he hit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from outbox.core.errors import DraftUnknown, PolicyRefused, StateRefused
from outbox.core.grant import Channel, Request
from outbox.core.lifecycle import Room
from outbox.store.drafts import withdraw_if_not_sent
from outbox.store.notices import insert_request
from outbox.store.stop import cancel_if_not_sent
from outbox.store.transition import LostRace
from outbox.store.verdicts import (
    ReplyRecord,
    approve_if_pending,
    insert_reply_once,
    reject_if_pending,
    spend_request_once,
)
from tests.house import FOUNDER, HOUR, SECOND
from tests.store.stage import Stage


def reject(stage: Stage, draft_id: str) -> None:
    now = stage.clock.now
    stage.run(
        Room.OPERATOR,
        lambda tx: reject_if_pending(tx, draft_id, approver=FOUNDER, channel=Channel.TERMINAL, reason="no", now=now),
    )


def cancel(stage: Stage, draft_id: str) -> None:
    stage.run(Room.OPERATOR, lambda tx: cancel_if_not_sent(tx, draft_id, now=stage.clock.now))


def approve(stage: Stage, draft_id: str) -> None:
    stage.approve(draft_id)


VERDICTS: list[Callable[[Stage, str], None]] = [approve, reject]


@pytest.mark.parametrize("later", VERDICTS)
@pytest.mark.parametrize("earlier", [*VERDICTS, cancel])
def test_a_verdict_on_what_is_not_pending_any_more_says_so(
    stage: Stage, earlier: Callable[[Stage, str], None], later: Callable[[Stage, str], None]
) -> None:
    draft_id = stage.insert()
    earlier(stage, draft_id)
    before = stage.rows("SELECT state FROM drafts"), stage.rows("SELECT * FROM grants")
    with pytest.raises(StateRefused, match=f"draft {draft_id} is [a-z]+ already"):
        later(stage, draft_id)
    assert before == (stage.rows("SELECT state FROM drafts"), stage.rows("SELECT * FROM grants"))


@pytest.mark.parametrize("verdict", [reject, cancel])
def test_a_verdict_on_no_draft_at_all_says_so(stage: Stage, verdict: Callable[[Stage, str], None]) -> None:
    with pytest.raises(DraftUnknown, match="there is no draft nowhere"):
        verdict(stage, "nowhere")


def test_an_expired_draft_is_not_approved(stage: Stage) -> None:
    draft_id = stage.insert(ttl=SECOND)
    grant, signature = stage.grant(draft_id)
    stage.clock.advance(SECOND)
    with pytest.raises(LostRace):
        stage.run(Room.INBOX, lambda tx: approve_if_pending(tx, grant, signature, now=stage.clock.now))
    assert stage.rows("SELECT count(*) FROM grants") == [(0,)]


def test_a_grant_for_other_octets_does_not_approve(stage: Stage) -> None:
    draft_id, other = stage.insert(), stage.insert()
    grant, signature = stage.grant(draft_id)
    wrong = type(grant)(grant.id, other, grant.digest, grant.approver, grant.channel, grant.at, grant.expires_at)
    with pytest.raises(LostRace):
        stage.run(Room.INBOX, lambda tx: approve_if_pending(tx, wrong, signature, now=stage.clock.now))
    assert stage.rows("SELECT state FROM drafts") == [("pending",)] * 2


def test_a_reply_token_approves_once(stage: Stage) -> None:
    draft_id, now = stage.insert(), stage.clock.now
    request = Request(bytes(8), draft_id, bytes(32), FOUNDER, now + HOUR)
    carrier = stage.notice()
    stage.run(Room.INBOX, lambda tx: insert_request(tx, request, carrier, ask=1, now=now))
    stage.run(Room.INBOX, lambda tx: spend_request_once(tx, request.id, now=now))
    with pytest.raises(StateRefused, match="answered with an approval already"):
        stage.run(Room.INBOX, lambda tx: spend_request_once(tx, request.id, now=now))


def test_two_inboxes_that_ask_at_the_same_time_ask_once(stage: Stage) -> None:
    draft_id, now = stage.insert(), stage.clock.now
    asked = [(Request(bytes([n] * 8), draft_id, bytes(32), FOUNDER, now + HOUR), stage.notice()) for n in (1, 2)]
    stage.run(Room.INBOX, lambda tx: insert_request(tx, *asked[0], ask=1, now=now), "one")
    with pytest.raises(StateRefused):
        stage.run(Room.INBOX, lambda tx: insert_request(tx, *asked[1], ask=1, now=now), "two")
    assert stage.rows("SELECT count(*) FROM drafts WHERE kind = 'system'") == [(1,)]


def test_a_message_of_a_mailbox_is_recorded_once(stage: Stage) -> None:
    def reply(reply_id: str) -> ReplyRecord:
        return ReplyRecord(reply_id, "m", "1", bytes(32), 1, FOUNDER, "<1@x>", None, "unclear", counted=False, why="y")

    stage.run(Room.INBOX, lambda tx: insert_reply_once(tx, reply("one")))
    with pytest.raises(StateRefused):
        stage.run(Room.INBOX, lambda tx: insert_reply_once(tx, reply("two")))
    assert stage.rows("SELECT id FROM replies") == [("one",)]


def test_an_agent_withdraws_its_own_draft_only(stage: Stage) -> None:
    draft_id, now = stage.insert(agent="mine"), stage.clock.now
    with pytest.raises(DraftUnknown):
        stage.run(Room.DRAFTER, lambda tx: withdraw_if_not_sent(tx, draft_id, agent="other", now=now))
    assert stage.state(draft_id) == "pending"
    stage.run(Room.DRAFTER, lambda tx: withdraw_if_not_sent(tx, draft_id, agent="mine", now=now))
    assert stage.state(draft_id) == "cancelled"


def test_the_same_idempotency_key_names_the_same_draft(stage: Stage) -> None:
    first = stage.insert(key="k")
    assert stage.insert(key="k", run="2") == first
    assert stage.insert(key="k", agent="other") != first
    assert stage.rows("SELECT count(*) FROM messages") == [(2,)]


def test_an_idempotency_key_that_names_something_else_is_refused(stage: Stage) -> None:
    first = stage.insert(key="k")
    with stage.house.as_thief() as thief:
        thief.execute("UPDATE drafts SET fingerprint = randomblob(32)")
    with pytest.raises(PolicyRefused, match=first):
        stage.insert(key="k")
