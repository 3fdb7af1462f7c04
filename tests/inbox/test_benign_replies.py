"""Replies as real clients write them are read as meant, and never as the opposite."""

from __future__ import annotations

import pytest

from outbox.core.lifecycle import State
from tests.inbox.letters import Asked, Letter, letters

STATES = {"approve": "approved", "reject": "rejected", "cancel": "cancelled", "unclear": "pending"}
REPLIES = letters("replies")


@pytest.mark.parametrize("letter", REPLIES, ids=[letter.name for letter in REPLIES])
def test_a_reply_is_read_as_meant(asked: Asked, letter: Letter) -> None:
    """`verdict` may list several where a client leaves no way to tell; explain and inbox always agree."""
    octets = letter.filled(asked)
    wanted = letter.expected["verdict"]
    said = asked.explain(octets)
    asked.house.deliver(octets)
    asked.house.inbox()
    (reply,) = asked.house.replies()
    assert reply.verdict in ([wanted] if isinstance(wanted, str) else wanted), reply.why
    assert (said.reading.verdict.value, said.counts) == (reply.verdict, reply.counted)
    assert reply.counted == (reply.verdict != "unclear"), reply.why
    assert asked.states() == (STATES[reply.verdict], "pending")
    assert reply.draft_id == asked.draft_id
    if "reason" in letter.expected:
        rejection = asked.house.story(asked.draft_id).draft.rejection
        assert rejection is not None
        assert rejection.reason == letter.expected["reason"]


def test_the_corpus_is_as_large_as_it_claims() -> None:
    assert len(REPLIES) >= 30
    assert sum(letter.expected["verdict"] == "approve" for letter in REPLIES) >= 30


def test_a_closing_line_of_the_settings_may_follow_an_approval(asked: Asked) -> None:
    text = "Ship it\n\nBest regards,\nThe Founder"
    asked.house.reply(asked.request, text)
    asked.house.inbox()
    assert asked.states() == ("pending", "pending")
    asked.house.set("approval", closing='["Best regards,", "The Founder"]')
    asked.house.reply(asked.request, text)
    asked.house.inbox()
    assert asked.states() == ("approved", "pending")


def test_what_was_approved_by_a_real_reply_is_sent(asked: Asked) -> None:
    letter = next(letter for letter in REPLIES if letter.name == "outlook-ios")
    asked.house.deliver(letter.filled(asked))
    asked.house.inbox()
    asked.house.drain()
    assert asked.house.story(asked.draft_id).draft.state is State.COMPLETED
    assert len(asked.house.relay.to("jane@customer.example")) == 1
