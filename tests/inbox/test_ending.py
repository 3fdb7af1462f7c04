"""Whoever was asked hears how it ended: once, briefly, in the thread of his request, as far as the settings ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from outbox import inbox, operator
from outbox.clock import new_id
from outbox.core.evidence import Evidence
from outbox.core.lifecycle import Room, State
from outbox.store.evidence import insert_evidence
from tests.house import FOUNDER, HOUR, JANE, SECOND, House
from tests.inbox.letters import Asked, text_of, token_of
from tests.inbox.lookout import look_together
from tests.relay.scripted import Fin, Hold, Keep, Phase, Say, Script, ScriptedRelay
from tests.worker.hand import draining, writing
from tests.worker.test_fence import backed_up, restore

PARTNER = "partner@acme.example"
NEWS = ("Sent", "Not sent", "Not sent again", "Not known whether sent", "Expired", "Rejected", "Stopped", "Cancelled")


def reply(asked: Asked, text: str, **given: str | None) -> None:
    """Reply a second later, and look."""
    asked.house.clock.advance(SECOND)
    asked.house.reply(asked.request, text, **given)  # type: ignore[arg-type]
    asked.house.inbox()


def news(house: House, draft_id: str, to: str = FOUNDER) -> list[EmailMessage]:
    """Look twice more, and send; what an approver was told of a draft's end, as he got it."""
    house.clock.advance(SECOND)
    house.inbox()
    house.inbox()
    house.drain()
    letters = [message_from_bytes(one.octets, policy=policy.default) for one in house.relay.to(to)]
    told = [one for one in letters if str(one["Subject"]).partition("] ")[2].startswith(tuple(f"{n}: " for n in NEWS))]
    return [one for one in told if f"Draft {draft_id}" in text_of(one)]  # type: ignore[arg-type, misc]


def ended_as(what: str, letter: EmailMessage) -> bool:
    return str(letter["Subject"]).partition("] ")[2] == f"{what}: Offer"


@contextmanager
def through(asked: Asked, *scripts: Script) -> Iterator[ScriptedRelay]:
    """A relay that does as it is told takes the other one's place."""
    with ScriptedRelay(*scripts) as relay:
        asked.house.relay = relay  # type: ignore[assignment]
        asked.house.set("relay", port=str(relay.port))
        yield relay


def test_what_was_sent_is_confirmed_with_queue_id_message_id_and_time(asked: Asked) -> None:
    reply(asked, "Ship it")
    asked.house.drain()
    (sent,) = asked.house.relay.to(JANE)
    (letter,) = news(asked.house, asked.draft_id)
    assert ended_as("Sent", letter)
    message_id = str(message_from_bytes(sent.octets)["Message-ID"])
    for words in ("The relay took it at 2027-01-15 08:00:01 UTC", "Queue id    000001", f"Message-ID  {message_id}"):
        assert words in text_of(letter)
    assert len(text_of(letter).splitlines()) < 15


def test_what_the_relay_refused_is_told_with_its_words(asked: Asked) -> None:
    asked.house.relay.refuse[JANE] = "550 5.1.1 no such user"
    reply(asked, "Ship it")
    asked.house.drain()
    (letter,) = news(asked.house, asked.draft_id)
    assert ended_as("Not sent", letter)
    assert "no such user" in text_of(letter)


def test_what_is_in_doubt_is_told_and_settled_later_it_is_not_told_again(asked: Asked) -> None:
    reply(asked, "Ship it")
    with through(asked, {Phase.DOT: [Keep(), Fin()]}):
        asked.house.drain()
        (letter,) = news(asked.house, asked.draft_id)
    assert ended_as("Not known whether sent", letter)
    assert "may have been sent, and may not" in text_of(letter)
    assert asked.states()[0] == "executing"


def test_what_was_restored_and_may_have_left_is_not_called_unsent(asked: Asked) -> None:
    house = asked.house
    copy = backed_up(house)
    house.approve(asked.draft_id)
    house.drain()
    restore(house, copy)
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.accept_fence(note="restored")
    (letter,) = news(house, asked.draft_id)
    assert len(house.relay.to(JANE)) == 1
    assert_says_that_it_may_have_left(letter)


def test_what_evidence_proves_sent_is_not_called_unsent(asked: Asked) -> None:
    house, at = asked.house, asked.house.clock()
    house.approve(asked.draft_id)
    found = Evidence("delivery-report", True, "delivered: 250")
    with writing(house, Room.INBOX) as writer:
        writer.run(
            lambda tx: insert_evidence(
                tx, found, evidence_id=new_id(at), draft_id=asked.draft_id, attempt_id=None, now=at
            )
        )
    house.drain()
    (letter,) = news(house, asked.draft_id)
    assert house.relay.to(JANE) == []
    assert_says_that_it_may_have_left(letter)


def assert_says_that_it_may_have_left(letter: EmailMessage) -> None:
    assert ended_as("Not sent again", letter)
    assert "Nothing was sent" not in text_of(letter)
    assert "whether it left before, only the operator knows" in text_of(letter)


def test_a_rejection_is_confirmed_with_its_reason(asked: Asked) -> None:
    reply(asked, "Reject: the price is wrong")
    (letter,) = news(asked.house, asked.draft_id)
    assert ended_as("Rejected", letter)
    assert "| the price is wrong" in text_of(letter)
    assert FOUNDER in text_of(letter)


def test_what_was_cancelled_at_the_terminal_is_told(asked: Asked) -> None:
    asked.house.cancel(asked.draft_id)
    (letter,) = news(asked.house, asked.draft_id)
    assert ended_as("Cancelled", letter)


def test_what_nobody_answered_in_time_is_told(asked: Asked) -> None:
    asked.house.clock.advance(24 * HOUR)
    (letter,) = news(asked.house, asked.draft_id)
    assert ended_as("Expired", letter)
    assert "Nobody answered in time" in text_of(letter)
    assert len(news(asked.house, asked.other_id)) == 1


def test_what_was_approved_and_did_not_leave_in_time_is_told(asked: Asked) -> None:
    reply(asked, "Ship it")
    asked.house.clock.advance(24 * HOUR)
    (letter,) = news(asked.house, asked.draft_id)
    assert ended_as("Not sent", letter)
    assert "It was approved, and its time passed" in text_of(letter)


# Stop


@pytest.mark.parametrize("approved", [False, True], ids=["pending", "approved"])
def test_a_stop_that_came_in_time_is_answered_at_once_and_not_told_again(asked: Asked, approved: bool) -> None:
    if approved:
        reply(asked, "Ship it")
    reply(asked, "Stop")
    assert news(asked.house, asked.draft_id) == []
    answers = [one for one in asked.house.relay.to(FOUNDER) if b"Stopped: the draft is cancelled" in one.octets]
    assert len(answers) == 1


@pytest.mark.parametrize("confirm", ["all", "none"])
@pytest.mark.parametrize(
    ("script", "what", "words"),
    [
        ({Phase.MAIL: [Hold(), Say(b"250 2.1.0 Ok\r\n")]}, "Stopped", "The stop came in time: nothing was sent."),
        ({Phase.DOT: [Hold(), Keep(), Say(b"250 2.0.0 Ok: queued as 4A2C\r\n")]}, "Sent", "The stop came too late."),
        ({Phase.DOT: [Hold(), Keep(), Fin()]}, "Not known whether sent", "may have been sent, and may not"),
    ],
    ids=["in time", "too late", "in doubt"],
)
def test_who_stops_what_is_being_sent_hears_which_it_was_whatever_he_asked_to_hear(
    asked: Asked, script: Script, what: str, words: str, confirm: str
) -> None:
    asked.house.set("approval", confirm=f'"{confirm}"')
    reply(asked, "Ship it")
    with through(asked, script) as relay:
        with draining(asked.house):
            relay.wait_until_holding()
            reply(asked, "Stop")
        (letter,) = news(asked.house, asked.draft_id)
        assert ended_as(what, letter)
        assert words in text_of(letter)
        answers = [one for one in relay.to(FOUNDER) if b"It is being sent at this moment" in one.octets]
        assert len(answers) == 1


# Where it stands


def test_the_news_stands_below_the_founder_s_reply_in_the_thread_of_the_request(asked: Asked) -> None:
    reply(asked, "Ship it", Message_ID="<yes@phone.example>")
    asked.house.drain()
    (letter,) = news(asked.house, asked.draft_id)
    assert letter["In-Reply-To"] == "<yes@phone.example>"
    assert str(letter["References"]).split() == [str(asked.request["Message-ID"]), "<yes@phone.example>"]
    assert token_of(letter) == token_of(asked.request)
    assert str(letter["Subject"]).startswith(f"[outbox {token_of(asked.request)[:6]}] ")
    assert (letter["To"], letter["Cc"], letter["Auto-Submitted"]) == (FOUNDER, None, "auto-generated")


def test_where_nobody_replied_the_news_stands_below_the_request(asked: Asked) -> None:
    asked.house.clock.advance(24 * HOUR)
    (letter,) = news(asked.house, asked.draft_id)
    assert letter["In-Reply-To"] == letter["References"] == asked.request["Message-ID"]


def test_no_token_of_the_thread_is_in_the_database(asked: Asked) -> None:
    reply(asked, "Ship it")
    asked.house.drain()
    assert len(news(asked.house, asked.draft_id)) == 1
    rows = asked.house.rows("SELECT octets FROM messages")
    assert not any(token_of(asked.request).encode() in octets for (octets,) in rows)  # type: ignore[operator]


def test_an_answer_to_the_news_changes_nothing_and_is_told_so(asked: Asked) -> None:
    reply(asked, "Reject: no")
    (letter,) = news(asked.house, asked.draft_id)
    asked.house.reply(letter, "Ship it")
    asked.house.inbox()
    assert asked.states() == ("rejected", "pending")
    assert "that is final" in asked.house.replies()[-1].why


# Once


def test_it_is_told_once_however_many_inboxes_look_at_once(asked: Asked) -> None:
    asked.house.clock.advance(24 * HOUR)
    rooms = [inbox.open(asked.house.settings, clock=asked.house.clock) for _ in range(3)]
    threads = [threading.Thread(target=room.once) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for room in rooms:
        room.close()
    look_together(asked.house, processes=2)
    assert len(news(asked.house, asked.draft_id)) == len(news(asked.house, asked.other_id)) == 1


# Who hears of it


@pytest.mark.parametrize(
    ("confirm", "heard"),
    [
        ("all", {"sent", "refused", "rejected", "expired"}),
        ("problems", {"refused", "expired"}),
        ("none", set()),
    ],
)
def test_the_settings_say_what_is_told(asked: Asked, confirm: str, heard: set[str]) -> None:
    house = asked.house
    house.set("approval", confirm=f'"{confirm}"')
    house.relay.refuse["nobody@customer.example"] = "550 5.1.1 no such user"
    drafts = {
        "sent": asked.draft_id,
        "rejected": asked.other_id,
        "refused": house.draft(to=("nobody@customer.example",)).id,
        "expired": house.draft(subject="Never mind", ttl=60).id,
    }
    house.inbox()
    house.drain()
    reply(asked, "Ship it")
    house.reply(asked.other, "No")
    house.reply(house.request_for(drafts["refused"]), "Ship it")
    house.inbox()
    house.drain()
    house.clock.advance(60 * SECOND)
    house.inbox()
    house.set("approval", confirm='"all"')  # later is too late
    assert {name for name, draft_id in drafts.items() if news(house, draft_id)} == heard
    assert [house.story(one).draft.state for one in drafts.values()] == [
        State.COMPLETED, State.REJECTED, State.FAILED, State.EXPIRED,
    ]  # fmt: skip


def test_who_is_no_approver_any_more_hears_nothing_and_the_others_do(house: House) -> None:
    house.set("approval", approvers=f'["{FOUNDER}", "{PARTNER}"]')
    draft = house.draft()
    house.inbox()
    house.drain()
    house.set("approval", approvers=f'["{PARTNER}"]')
    house.cancel(draft.id)
    house.inbox()
    told = [one.envelope.recipients for one in house.drafts(system=True) if "Cancelled: " in one.subject]
    assert told == [(PARTNER,)]
    assert len(news(house, draft.id, PARTNER)) == 1


def test_each_approver_hears_who_rejected_it(house: House) -> None:
    house.set("approval", approvers=f'["{FOUNDER}", "{PARTNER}"]')
    draft = house.draft()
    house.inbox()
    house.drain()
    (sent,) = house.relay.to(PARTNER)
    house.reply(message_from_bytes(sent.octets, policy=policy.default), "No", sender=PARTNER)  # type: ignore[arg-type]
    house.inbox()
    for approver in (FOUNDER, PARTNER):
        (letter,) = news(house, draft.id, approver)
        assert f"{PARTNER} rejected it" in text_of(letter)


def test_who_was_never_asked_hears_nothing(house: House) -> None:
    draft = house.approved()
    house.drain()
    assert news(house, draft.id) == []
    assert house.relay.to(FOUNDER) == []


def test_a_row_that_was_altered_keeps_nobody_else_from_hearing(asked: Asked) -> None:
    for draft_id in (asked.draft_id, asked.other_id):
        asked.house.cancel(draft_id)
    with asked.house.as_thief() as thief:
        thief.execute("UPDATE messages SET octets = x'00' WHERE draft_id = ?", (asked.draft_id,))
    assert news(asked.house, asked.draft_id) == []
    assert len(news(asked.house, asked.other_id)) == 1
    alerts = [one for one in asked.house.drafts(system=True) if "] digest_mismatch:" in one.subject]
    assert len(alerts) == 1
