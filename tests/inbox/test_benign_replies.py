"""Replies as real clients write them are read as meant, and never as the opposite."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from outbox.core.lifecycle import State
from outbox.inbox.judgement import Judgement
from tests.inbox.letters import Asked, Letter, letters
from tests.seeds import seeds

STATES = {"approve": "approved", "reject": "rejected", "cancel": "cancelled", "unclear": "pending"}
REPLIES = letters("replies")
LISTED = [letter for letter in REPLIES if "closing" in letter.expected]
PLAIN = [letter for letter in REPLIES if letter not in LISTED]
SOME = {letter.name: letter for letter in REPLIES[::6]}


@pytest.fixture(scope="session")
def explained(asked_once: Asked) -> Callable[[Letter], Judgement]:
    explainer = asked_once.explainer()
    return lambda letter: explainer(letter.filled(asked_once))


@pytest.mark.parametrize("letter", PLAIN, ids=[letter.name for letter in PLAIN])
def test_a_reply_is_read_as_meant(letter: Letter, explained: Callable[[Letter], Judgement]) -> None:
    _is_as_expected(explained(letter), letter)


@pytest.mark.parametrize("letter", LISTED, ids=[letter.name for letter in LISTED])
def test_a_reply_is_unclear_until_its_closing_is_listed(asked: Asked, letter: Letter) -> None:
    octets = letter.filled(asked)
    assert asked.explain(octets).reading.verdict == "unclear"
    asked.house.set("approval", closing=str(letter.expected["closing"]))
    _is_as_expected(asked.explain(octets), letter)


def _is_as_expected(said: Judgement, letter: Letter) -> None:
    expected = letter.expected
    assert said.reading.verdict == expected["verdict"], said.why
    assert said.counts == (expected["verdict"] != "unclear"), said.why
    if "reason" in expected:
        assert said.reading.reason == expected["reason"]
    if "hint" in expected:
        assert list(said.reading.closing_hint) == expected["hint"]


@pytest.mark.parametrize("name", seeds(SOME, 3))
def test_the_inbox_does_what_was_read(asked: Asked, name: str) -> None:
    octets = SOME[name].filled(asked)
    said = asked.explain(octets)
    asked.house.deliver(octets)
    asked.house.inbox()
    (reply,) = asked.house.replies()
    assert (said.reading.verdict.value, said.counts) == (reply.verdict, reply.counted)
    assert asked.states() == (STATES[reply.verdict], "pending")
    assert reply.draft_id == asked.draft_id
    if reply.verdict == "reject":
        rejection = asked.house.story(asked.draft_id).draft.rejection
        assert rejection is not None
        assert rejection.reason == said.reading.reason


def test_the_corpus_is_as_large_as_it_claims() -> None:
    assert len(REPLIES) >= 150
    assert {letter.expected["verdict"] for letter in SOME.values()} == set(STATES)


def test_97_of_100_replies_are_read_as_their_writers_meant_them_and_the_rest_is_unclear() -> None:
    """That each is read as `verdict` says is shown above; `meant` is what its writer wanted, where that is more."""
    misread = [letter for letter in REPLIES if "meant" in letter.expected]
    assert all(letter.expected["verdict"] == "unclear" for letter in misread)
    assert len(misread) <= 0.03 * len(REPLIES)


def test_the_lines_of_the_hint_are_the_ones_that_let_the_approval_count(asked: Asked) -> None:
    letter = next(letter for letter in REPLIES if letter.name == "outlook-desktop-unknown-signature")
    octets = letter.filled(asked)
    hint = asked.explain(octets).reading.closing_hint
    asked.house.set("approval", closing=str(list(hint)))
    asked.house.deliver(octets)
    asked.house.inbox()
    assert asked.states() == ("approved", "pending")


def test_what_was_approved_by_a_real_reply_is_sent(asked: Asked) -> None:
    letter = next(letter for letter in REPLIES if letter.name == "outlook-ios")
    asked.house.deliver(letter.filled(asked))
    asked.house.inbox()
    asked.house.drain()
    assert asked.house.story(asked.draft_id).draft.state is State.COMPLETED
    assert len(asked.house.relay.to("jane@customer.example")) == 1
