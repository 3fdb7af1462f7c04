"""What nobody has answered when three quarters of its time are over is asked about once more, in the same thread."""

from __future__ import annotations

import threading
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from outbox import inbox
from outbox.core.lifecycle import State
from tests.house import FOUNDER, HOUR, SECOND, House
from tests.inbox.letters import Asked, text_of, token_of

LATER = 18 * HOUR  # of the 24 that a draft has
PARTNER = "partner@acme.example"


def reminders(house: House, draft_id: str, to: str = FOUNDER) -> list[EmailMessage]:
    """Look twice, and send; the reminders of one draft that an approver got so far."""
    house.inbox()
    house.inbox()
    house.drain()
    letters = [message_from_bytes(one.octets, policy=policy.default) for one in house.relay.to(to)]
    asking = [one for one in letters if "] Expires soon, send this? " in str(one["Subject"])]
    return [one for one in asking if f"Draft {draft_id}" in text_of(one)]  # type: ignore[arg-type, misc]


def test_it_comes_once_when_three_quarters_of_the_time_are_over(asked: Asked) -> None:
    asked.house.clock.advance(LATER - 1)
    assert reminders(asked.house, asked.draft_id) == []
    asked.house.clock.advance(1)
    assert len(reminders(asked.house, asked.draft_id)) == 1
    assert len(reminders(asked.house, asked.other_id)) == 1
    asked.house.clock.advance(5 * HOUR)
    assert len(reminders(asked.house, asked.draft_id)) == 1


def test_it_shows_the_whole_draft_again_in_the_thread_of_the_request(asked: Asked) -> None:
    asked.house.clock.advance(LATER)
    (letter,) = reminders(asked.house, asked.draft_id)
    assert text_of(letter) == text_of(asked.request)
    assert letter["In-Reply-To"] == letter["References"] == asked.request["Message-ID"]
    assert token_of(letter) == token_of(asked.request)
    assert [part.get_filename() for part in letter.iter_attachments()] == ["message.eml"]


@pytest.mark.parametrize(
    ("text", "state"), [("Ship it", "approved"), ("Reject: no", "rejected"), ("Stop", "cancelled")]
)
def test_it_can_be_answered(asked: Asked, text: str, state: str) -> None:
    asked.house.clock.advance(LATER)
    (letter,) = reminders(asked.house, asked.draft_id)
    asked.house.reply(letter, text)
    asked.house.inbox()
    assert asked.states() == (state, "pending")


def test_the_request_can_still_be_answered_after_it(asked: Asked) -> None:
    asked.house.clock.advance(LATER)
    reminders(asked.house, asked.draft_id)
    asked.house.reply(asked.request, "Ship it")
    asked.house.inbox()
    assert asked.states() == ("approved", "pending")


@pytest.mark.parametrize("text", ["Ship it", "Reject: no", "Stop"])
def test_who_has_answered_gets_none(asked: Asked, text: str) -> None:
    asked.house.reply(asked.request, text)
    asked.house.inbox()
    asked.house.clock.advance(LATER)
    assert reminders(asked.house, asked.draft_id) == []


def test_who_asked_back_gets_one_all_the_same(asked: Asked) -> None:
    asked.house.reply(asked.request, "what is this?")
    asked.house.inbox()
    asked.house.clock.advance(LATER)
    assert len(reminders(asked.house, asked.draft_id)) == 1


def test_what_lives_for_less_than_an_hour_is_not_reminded_of(house: House) -> None:
    short, hour = house.draft(ttl=3599), house.draft(subject="Longer", ttl=3600)
    house.inbox()
    house.clock.advance(50 * 60 * SECOND)
    assert reminders(house, short.id) == []
    assert len(reminders(house, hour.id)) == 1


def test_what_has_expired_is_not_reminded_of(asked: Asked) -> None:
    asked.house.clock.advance(24 * HOUR)
    assert reminders(asked.house, asked.draft_id) == []


def test_each_approver_is_reminded_and_who_is_none_any_more_is_not(house: House) -> None:
    house.set("approval", approvers=f'["{FOUNDER}", "{PARTNER}"]')
    draft = house.draft()
    house.inbox()
    house.drain()
    house.set("approval", approvers=f'["{PARTNER}"]')
    house.clock.advance(LATER)
    assert len(reminders(house, draft.id, PARTNER)) == 1
    made = [one.envelope.recipients for one in house.drafts(system=True) if "Expires soon" in one.subject]
    assert made == [(PARTNER,)]


def test_inboxes_that_look_at_once_send_one(asked: Asked) -> None:
    asked.house.clock.advance(LATER)
    rooms = [inbox.open(asked.house.settings, clock=asked.house.clock) for _ in range(3)]
    threads = [threading.Thread(target=room.once) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for room in rooms:
        room.close()
    assert len(reminders(asked.house, asked.draft_id)) == 1


def test_who_was_asked_about_something_else_is_not_reminded_of_this(asked: Asked) -> None:
    with asked.house.as_thief() as thief:
        thief.execute("UPDATE requests SET digest = zeroblob(32) WHERE draft_id = ?", (asked.draft_id,))
    asked.house.clock.advance(LATER)
    assert reminders(asked.house, asked.draft_id) == []
    assert len(reminders(asked.house, asked.other_id)) == 1
    assert asked.states() == ("pending", "pending")


def test_a_draft_that_was_altered_meanwhile_is_not_shown_again_and_fails(asked: Asked) -> None:
    with asked.house.as_thief() as thief:
        thief.execute("UPDATE drafts SET agent = 'somebody' WHERE id = ?", (asked.draft_id,))
    asked.house.clock.advance(LATER)
    assert reminders(asked.house, asked.draft_id) == []
    assert asked.house.story(asked.draft_id).draft.state is State.FAILED
    assert len(reminders(asked.house, asked.other_id)) == 1
