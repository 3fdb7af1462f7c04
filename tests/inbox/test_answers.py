"""A reply that changed nothing is answered to the approver alone, three times a draft at most, saying what would."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from tests.house import FOUNDER, HOUR, SECOND, House
from tests.inbox.letters import Asked, text_of, token_of


def sent_answers(house: House) -> list[tuple[tuple[str, ...], EmailMessage]]:
    """The answers that have left, with the envelope's recipients."""
    house.drain()
    letters = [(one.recipients, message_from_bytes(one.octets, policy=policy.default)) for one in house.relay.messages]
    return [(to, letter) for to, letter in letters if "Your reply" in str(letter["Subject"])]  # type: ignore[misc]


def reply(asked: Asked, text: str, **given: str | None) -> None:
    asked.house.clock.advance(SECOND)
    asked.house.reply(asked.request, text, **given)  # type: ignore[arg-type]
    asked.house.inbox()


def test_an_unclear_reply_is_answered_with_what_would_count(asked: Asked) -> None:
    reply(asked, "hm, what is this?", Message_ID="<question@phone.example>")
    ((recipients, letter),) = sent_answers(asked.house)
    assert recipients == (FOUNDER,)
    assert (letter["To"], letter["Cc"]) == (FOUNDER, None)
    text = text_of(letter)
    for words in ("hm, what is this?", "Ship it", "Reject: your reason", "Stop", asked.draft_id):
        assert words in text
    assert letter["In-Reply-To"] == "<question@phone.example>"
    assert letter["References"] == "<question@phone.example>"
    assert (letter["Auto-Submitted"], letter["X-Auto-Response-Suppress"]) == ("auto-generated", "All")


def test_an_approval_with_a_remark_is_told_which_line_was_too_much(asked: Asked) -> None:
    reply(asked, "Ship it\nbut fix the price first")
    ((_, letter),) = sent_answers(asked.house)
    assert "but fix the price first" in text_of(letter)


def test_the_answer_can_itself_be_answered(asked: Asked) -> None:
    reply(asked, "what is this?")
    ((_, letter),) = sent_answers(asked.house)
    assert token_of(letter) == token_of(asked.request)
    asked.house.reply(letter, "Ship it")
    asked.house.inbox()
    assert asked.states() == ("approved", "pending")


def test_the_answer_to_an_answer_that_quotes_it_is_no_verdict(asked: Asked) -> None:
    reply(asked, "what is this?")
    ((_, letter),) = sent_answers(asked.house)
    asked.house.reply(letter, text_of(letter))
    asked.house.inbox()
    assert asked.states() == ("pending", "pending")


def test_a_draft_is_answered_at_most_three_times(asked: Asked) -> None:
    for number in range(5):
        reply(asked, f"hm {number}")
    assert len(sent_answers(asked.house)) == 3
    assert len(asked.house.replies()) == 5
    reply(asked, "Ship it")
    assert asked.states() == ("approved", "pending")


def test_the_answers_to_one_draft_are_not_counted_against_another(asked: Asked) -> None:
    for number in range(4):
        reply(asked, f"hm {number}")
    asked.house.reply(asked.other, "hm")
    asked.house.inbox()
    assert len(sent_answers(asked.house)) == 4


@pytest.mark.parametrize(
    "headers",
    [
        {"Auto_Submitted": "auto-replied"},
        {"Precedence": "bulk"},
        {"X_Auto_Response_Suppress": "All"},
        {"List_Id": "<all.acme.example>"},
        {"Return_Path": "<>"},
        {"Content_Type": "multipart/report; boundary=x"},
        {"From": "Mallory <mallory@evil.example>"},
        {"From": None},
        {"From": f"{FOUNDER}, mallory@evil.example"},
        {"To": "approve@acme.example", "In_Reply_To": None},
    ],
    ids=" ".join,
)
def test_neither_machines_nor_strangers_are_answered(asked: Asked, headers: dict[str, str | None]) -> None:
    reply(asked, "what is this?", **headers)
    assert sent_answers(asked.house) == []


def test_a_replay_is_not_answered(asked: Asked) -> None:
    reply(asked, "what is this?", Message_ID="<same@phone.example>")
    reply(asked, "what is this?", Message_ID="<same@phone.example>")
    assert len(sent_answers(asked.house)) == 1


def test_a_reply_that_is_dated_wrong_is_told_so(asked: Asked) -> None:
    reply(asked, "Ship it", Date=None)
    ((_, letter),) = sent_answers(asked.house)
    assert "no readable Date" in text_of(letter)


def test_an_approval_that_counts_is_not_answered(asked: Asked) -> None:
    reply(asked, "Ship it")
    assert sent_answers(asked.house) == []


def test_a_reply_that_came_too_late_is_told_so(asked: Asked) -> None:
    asked.house.clock.advance(25 * HOUR)
    reply(asked, "Ship it")
    ((recipients, letter),) = sent_answers(asked.house)
    assert recipients == (FOUNDER,)
    assert "changed nothing" in text_of(letter)


def test_what_a_reply_says_cannot_speak_in_our_name(asked: Asked) -> None:
    reply(asked, "x\u2028Ship it to everyone\u202e", Message_ID=None)
    ((_, letter),) = sent_answers(asked.house)
    assert letter["In-Reply-To"] is None
    lines = [line for line in text_of(letter).splitlines() if "to everyone" in line]
    assert lines
    assert all(line.startswith("| ") for line in lines)
    assert "\u202e" not in text_of(letter)


@pytest.mark.parametrize(
    "message_id", ["<a\x01b@mail.example>", "<=?utf-8?q?=0D=0A?=@mail.example>", "<a\u2028b@mail.example>"], ids=ascii
)
def test_a_reply_with_a_strange_message_id_is_recorded_and_holds_nobody_up(asked: Asked, message_id: str) -> None:
    reply(asked, "what is this?", Message_ID=message_id)
    asked.house.reply(asked.other, "Ship it")
    asked.house.inbox()
    assert asked.states() == ("pending", "approved")
    assert len(asked.house.replies()) == 2
