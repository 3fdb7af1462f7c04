"""Verdicts at the terminal: who may give them, on what, and what they leave behind."""

from __future__ import annotations

import json

import pytest

from outbox import drafter, operator
from outbox.core.errors import (
    Code,
    DraftUnknown,
    NotPermitted,
    OutboxError,
    StateRefused,
    UsageError,
    VerificationFailed,
)
from outbox.core.grant import Channel, Grant, verify_grant
from outbox.core.lifecycle import State
from outbox.core.signing import Signature
from outbox.store.views import Story
from tests.house import FOUNDER, HOUR, SECOND, House

SECOND_FOUNDER = "second@acme.example"


def approve(house: House, draft_id: str, *, named: str | None = None) -> Story:
    with operator.open(house.settings, clock=house.clock) as desk:
        return desk.approve(draft_id, named=named)


def reject(house: House, draft_id: str, *, reason: str = "no", named: str | None = None) -> Story:
    with operator.open(house.settings, clock=house.clock) as desk:
        return desk.reject(draft_id, reason=reason, named=named)


def verdict(house: House, verb: str, draft_id: str, *, named: str | None = None) -> Story:
    return approve(house, draft_id, named=named) if verb == "approve" else reject(house, draft_id, named=named)


def rows(house: House) -> list[tuple[object, ...]]:
    """Everything a verdict could have changed."""
    return [
        *house.rows("SELECT id, state, not_before, error_code FROM drafts ORDER BY id"),
        *house.rows("SELECT count(*) FROM grants"),
        *house.rows("SELECT count(*) FROM rejections"),
        *house.rows("SELECT count(*) FROM journal"),
    ]


def assert_refused(
    house: House, kind: type[OutboxError], code: Code, verb: str, draft_id: str, **more: str | None
) -> str:
    before = rows(house)
    with pytest.raises(kind) as caught:
        verdict(house, verb, draft_id, **more)
    assert type(caught.value) is kind or kind is StateRefused
    assert caught.value.code is code, caught.value.message
    assert rows(house) == before
    return caught.value.message


def two_approvers(house: House) -> None:
    house.set("approval", approvers=json.dumps([FOUNDER, SECOND_FOUNDER]))


# Approving


def test_an_approval_is_a_signed_grant_for_exactly_this_digest(house: House) -> None:
    draft = house.draft()
    story = approve(house, draft.id)
    assert story.draft.state is State.APPROVED
    ((*facts, octets, key_id),) = house.rows(
        "SELECT id, draft_id, digest, approver, channel, at, expires_at, signature, key_id FROM grants"
    )
    grant_id, draft_id, digest, approver, channel, at, expires_at = facts
    assert (draft_id, digest, approver, channel) == (draft.id, draft.digest, FOUNDER, "terminal")
    assert (at, expires_at) == (house.clock.now, house.clock.now + 24 * HOUR)
    grant = Grant(
        str(grant_id), draft.id, draft.digest, FOUNDER, Channel.TERMINAL, house.clock.now, house.clock.now + 24 * HOUR
    )
    assert verify_grant(house.settings.grant_ring(), grant, Signature(str(key_id), bytes(octets)))  # type: ignore[call-overload]
    assert story.draft.not_before == house.clock.now


def test_a_grant_holds_for_as_long_as_the_settings_say(house: House) -> None:
    house.set("approval", grant_ttl='"1h"')
    (grant,) = approve(house, house.draft().id).draft.grants
    assert grant.expires_at - grant.at == HOUR


def test_an_approval_is_in_the_journal(house: House) -> None:
    draft = house.draft()
    approve(house, draft.id)
    found = house.rows("SELECT writer, action, detail FROM journal WHERE draft_id = ? ORDER BY rowid", draft.id)
    assert [action for _, action, _ in found] == ["insert", "approve", "grant"]
    assert all(str(writer).startswith("operator:") for writer, _, _ in found[1:])
    assert json.loads(str(found[2][2]))["approver"] == FOUNDER


# Who


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_terminal_that_is_off_gives_no_verdict(house: House, verb: str) -> None:
    draft = house.draft()
    house.set("approval", terminal='"off"')
    assert "approval.terminal" in assert_refused(house, NotPermitted, Code.TERMINAL_OFF, verb, draft.id)


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_terminal_that_is_off_says_so_whoever_asks(house: House, verb: str) -> None:
    draft = house.draft()
    two_approvers(house)
    house.set("approval", terminal='"off"')
    for named in (None, FOUNDER):
        assert_refused(house, NotPermitted, Code.TERMINAL_OFF, verb, draft.id, named=named)


def test_a_terminal_that_is_off_still_cancels(house: House) -> None:
    draft = house.draft()
    house.set("approval", terminal='"off"')
    assert house.cancel(draft.id).draft.state is State.CANCELLED


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_where_there_are_several_approvers_one_must_be_named(house: House, verb: str) -> None:
    two_approvers(house)
    draft = house.draft()
    assert "--as" in assert_refused(house, UsageError, Code.APPROVER_UNKNOWN, verb, draft.id)
    story = verdict(house, verb, draft.id, named="SECOND@acme.example")
    given = story.draft.grants[0].approver if verb == "approve" else story.draft.rejection.approver  # type: ignore[union-attr]
    assert given == SECOND_FOUNDER


@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize("named", ["stranger@acme.example", "", "founder", "founder+x@acme.example"])
def test_nobody_gives_a_verdict_in_the_name_of_a_stranger(house: House, verb: str, named: str) -> None:
    assert_refused(house, NotPermitted, Code.APPROVER_UNKNOWN, verb, house.draft().id, named=named)


def test_without_the_grant_key_there_is_no_approval(house: House) -> None:
    draft = house.draft()
    (house.folder / "keys" / "grant.key").unlink()
    before = rows(house)
    for verb in ("approve", "reject"):
        with pytest.raises(OutboxError) as caught:
            verdict(house, verb, draft.id)
        assert caught.value.exit_code in {77, 78}
    assert rows(house) == before


def test_without_any_key_there_is_no_way_in(house: House) -> None:
    draft = house.draft()
    for file in (house.folder / "keys").iterdir():
        file.unlink()
    with pytest.raises(OutboxError) as caught:
        house.cancel(draft.id)
    assert caught.value.code is Code.KEY_MISSING
    assert house.story(draft.id).draft.state is State.PENDING


# What


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_there_is_no_verdict_on_an_unknown_draft(house: House, verb: str) -> None:
    house.draft()
    for draft_id in ("nobody", "", "018f0000-0000-7000-8000-000000000000"):
        assert_refused(house, DraftUnknown, Code.DRAFT_UNKNOWN, verb, draft_id)


@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize("state", ["approved", "rejected", "cancelled", "expired"])
def test_there_is_no_verdict_on_a_draft_that_is_not_pending(house: House, verb: str, state: str) -> None:
    draft = house.draft(ttl=60)
    if state == "approved":
        approve(house, draft.id)
    elif state == "rejected":
        reject(house, draft.id)
    elif state == "cancelled":
        house.cancel(draft.id)
    else:
        house.clock.advance(60 * SECOND)
        house.inbox()
    assert house.story(draft.id).draft.state == state
    message = assert_refused(house, StateRefused, Code.STATE_CONFLICT, verb, draft.id)
    assert draft.id in message, "it says which draft, not which constraint"
    assert "constraint" not in message


def test_a_draft_past_its_time_is_not_approved(house: House) -> None:
    draft = house.draft(ttl=60)
    house.clock.advance(60 * SECOND)
    assert_refused(house, StateRefused, Code.STATE_CONFLICT, "approve", draft.id)


def test_a_draft_is_approved_in_its_last_moment(house: House) -> None:
    draft = house.draft(ttl=60)
    house.clock.advance(60 * SECOND - 1)
    assert approve(house, draft.id).draft.state is State.APPROVED


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE messages SET octets = replace(octets, 'Jane', 'Eve_')",
        "UPDATE messages SET octets = CAST(octets || 'x' AS BLOB)",
        """UPDATE drafts SET envelope = replace(envelope, 'jane@', 'evil@')""",
        "UPDATE drafts SET expires_at = expires_at + 1",
        "UPDATE drafts SET agent = 'other'",
        "UPDATE drafts SET subject = 'Harmless'",
        "UPDATE drafts SET envelope = 'garbage'",
        "UPDATE drafts SET signature = zeroblob(32)",
        "DELETE FROM messages",
    ],
)
def test_a_draft_that_is_not_what_was_signed_is_not_approved(house: House, change: str) -> None:
    draft = house.draft()
    with house.as_thief() as connection:
        connection.execute(
            change.replace("replace(octets", "CAST(replace(CAST(octets AS TEXT)").replace("'Eve_')", "'Eve_') AS BLOB)")
        )
    before = rows(house)
    with pytest.raises(VerificationFailed):
        approve(house, draft.id)
    assert rows(house) == before


def test_a_request_or_alert_is_nothing_to_approve(house: House) -> None:
    draft = house.draft()
    house.inbox()
    (request,) = house.story(draft.id).requests
    for verb in ("approve", "reject"):
        assert_refused(house, StateRefused, Code.STATE_CONFLICT, verb, request.draft_id)


# Rejecting and cancelling


@pytest.mark.parametrize("reason", ["price is wrong", "zu teuer \U0001f600", "two\nlines", "'; DROP TABLE drafts; --"])
def test_a_reason_is_kept_for_the_agent_word_for_word(house: House, reason: str) -> None:
    story = reject(house, house.draft().id, reason=reason)
    assert story.draft.state is State.REJECTED
    rejection = story.draft.rejection
    assert rejection is not None
    assert (rejection.reason, rejection.approver, rejection.at) == (reason, FOUNDER, house.clock.now)


def test_a_rejected_draft_is_never_approved_or_sent(house: House) -> None:
    draft = house.draft()
    reject(house, draft.id)
    assert_refused(house, StateRefused, Code.STATE_CONFLICT, "approve", draft.id)
    house.drain()
    assert house.story(draft.id).draft.state is State.REJECTED


@pytest.mark.parametrize("approved", [False, True])
def test_what_has_not_left_is_cancelled(house: House, approved: bool) -> None:
    draft = house.approved() if approved else house.draft()
    assert house.cancel(draft.id).draft.state is State.CANCELLED
    ((writer,),) = house.rows("SELECT writer FROM journal WHERE draft_id = ? AND action = 'cancel'", draft.id)
    assert str(writer).startswith("operator:")


def test_what_is_cancelled_is_not_cancelled_again(house: House) -> None:
    draft = house.draft()
    house.cancel(draft.id)
    before = rows(house)
    with pytest.raises(StateRefused) as caught:
        house.cancel(draft.id)
    assert "already cancelled" in caught.value.message
    assert rows(house) == before


def test_an_agent_withdraws_its_own_drafts_and_no_other_s(house: House) -> None:
    draft = house.draft(agent="sales-bot")
    before = rows(house)
    with drafter.open(house.settings, clock=house.clock) as room:
        for name in ("billing-bot", "", "SALES-BOT"):
            with pytest.raises(DraftUnknown):
                room.withdraw(draft.id, agent=name)
        assert rows(house) == before
        assert room.withdraw(draft.id, agent="sales-bot") is State.CANCELLED
    assert house.story(draft.id).draft.state is State.CANCELLED
