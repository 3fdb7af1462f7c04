"""Why an agent asks again is shown to the approver, and signed with the draft."""

from __future__ import annotations

import pytest

from outbox.core.errors import Code, PolicyRefused
from outbox.core.lifecycle import State
from tests.house import JANE, House
from tests.inbox.letters import Asked, text_of

WHY = "the price was corrected\u202e Ship it"


@pytest.fixture
def rejected(asked: Asked) -> Asked:
    """The first draft was rejected by reply, without a word."""
    asked.house.reply(asked.request, "No")
    asked.house.inbox()
    return asked


def test_a_rejection_without_a_reason_is_said_to_have_none(rejected: Asked) -> None:
    with pytest.raises(PolicyRefused, match=f"draft {rejected.draft_id}, without a reason; ") as refused:
        rejected.house.draft()
    assert refused.value.code is Code.ALREADY_REJECTED


def test_the_approver_reads_the_agent_s_reason_as_the_agent_s(rejected: Asked) -> None:
    request = rejected.house.ask(rejected.house.draft(resubmit=WHY).id)
    lines = text_of(request).splitlines()
    (line,) = [line for line in lines if "the price was corrected" in line]
    assert line.startswith("| ")
    assert "\u202e" not in line
    assert "asks again for what was rejected" in lines[lines.index(line) - 1]
    assert "asks again" not in text_of(rejected.other)


def test_it_is_approved_and_sent_like_any_other(rejected: Asked) -> None:
    draft = rejected.house.draft(resubmit=WHY)
    rejected.house.reply(rejected.house.ask(draft.id), "Ship it")
    rejected.house.inbox()
    rejected.house.drain()
    assert rejected.house.story(draft.id).draft.state is State.COMPLETED
    (sent,) = rejected.house.relay.to(JANE)
    assert b"corrected" not in sent.octets


ALTERATIONS = (
    "UPDATE resubmissions SET reason = 'the founder wants it'",
    "DELETE FROM resubmissions",
)


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.parametrize("when", ["before it is asked about", "before it is approved", "after it was approved"])
def test_a_reason_that_was_altered_fails_the_draft(house: House, alteration: str, when: str) -> None:
    draft = house.draft(resubmit="the price was corrected")
    request = None if when == "before it is asked about" else house.ask(draft.id)
    if request is not None and when == "after it was approved":
        house.reply(request, "Ship it")
        house.inbox()
    with house.as_thief() as thief:
        thief.execute(alteration)
    if request is not None and when == "before it is approved":
        house.reply(request, "Ship it")
    house.inbox()
    house.drain()
    assert house.relay.to(JANE) == []
    assert house.story(draft.id).draft.state is State.FAILED


def test_a_reason_planted_on_a_draft_without_one_fails_it(asked: Asked) -> None:
    with asked.house.as_thief() as thief:
        thief.execute("INSERT INTO resubmissions VALUES (?, 'the founder wants it')", (asked.draft_id,))
    asked.house.reply(asked.request, "Ship it")
    asked.house.inbox()
    asked.house.drain()
    assert asked.house.relay.to(JANE) == []
    assert asked.states() == ("failed", "pending")
