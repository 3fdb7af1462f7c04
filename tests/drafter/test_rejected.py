"""What an approver rejected is not asked for again in the same words, unless the agent says why, and he reads that."""

from __future__ import annotations

import pytest

from outbox import operator
from outbox.core.errors import Code, PolicyRefused
from outbox.core.lifecycle import State
from outbox.drafter.intake import LONGEST_REASON
from tests.drafter.ledger import PLAIN, adopt, assert_not_adopted, assert_refused
from tests.house import FOUNDER, SECOND, House

WHY = "the price was corrected in the list"


def reject(house: House, draft_id: str, reason: str = "the price is wrong") -> None:
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.reject(draft_id, reason=reason, named=None)
    house.clock.advance(SECOND)


@pytest.fixture
def rejected(house: House) -> str:
    """The id of a draft that was rejected."""
    draft = house.draft()
    reject(house, draft.id)
    return draft.id


def test_the_same_is_refused_with_the_reason_that_was_given(house: House, rejected: str) -> None:
    refused = assert_refused(house, Code.ALREADY_REJECTED)
    assert refused.field == "resubmit"
    for words in (FOUNDER, rejected, "the price is wrong", "--resubmit"):
        assert words in refused.message


def test_it_is_refused_to_every_agent_and_under_every_key(house: House, rejected: str) -> None:
    for given in ({"agent": "another"}, {"idempotency_key": "a"}, {"ttl": 60}):
        assert rejected in assert_refused(house, Code.ALREADY_REJECTED, **given).message


def test_a_whole_message_is_refused_too(house: House) -> None:
    reject(house, adopt(house, PLAIN.encode()).id)
    assert_not_adopted(house, Code.ALREADY_REJECTED, PLAIN.encode())
    assert adopt(house, PLAIN.encode(), resubmit=WHY).resubmitted == WHY


@pytest.mark.parametrize("other", [{"text": "another"}, {"to": ("bob@customer.example",)}, {"subject": "Other"}])
def test_other_words_or_other_people_are_no_repetition(house: House, rejected: str, other: dict[str, object]) -> None:
    assert house.draft(**other).id != rejected


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_what_was_not_rejected_may_be_drafted_again(house: House, end: str) -> None:
    draft = house.draft(ttl=60)
    if end == "cancelled":
        house.cancel(draft.id)
    else:
        house.clock.advance(60 * SECOND)
        house.inbox()
    assert house.story(draft.id).draft.state == end
    house.draft()


def test_the_newest_reason_is_the_one_that_is_said(house: House, rejected: str) -> None:
    again = house.draft(resubmit=WHY)
    reject(house, again.id, "and Jane is on leave")
    said = assert_refused(house, Code.ALREADY_REJECTED).message
    assert "and Jane is on leave" in said
    assert again.id in said
    assert rejected not in said


def test_a_reason_of_several_lines_is_said_in_one(house: House) -> None:
    draft = house.draft()
    reject(house, draft.id, "first\nsecond\u202e")
    assert "first" in assert_refused(house, Code.ALREADY_REJECTED).message


# With a reason


def test_with_a_reason_it_is_asked_for_again(house: House, rejected: str) -> None:
    again = house.draft(resubmit=f"  {WHY} ")
    assert (again.state, again.resubmitted) == (State.PENDING, WHY)
    assert again.id != rejected
    assert again.fingerprint == house.story(rejected).draft.fingerprint


@pytest.mark.parametrize("reason", ["", "  ", "x" * (LONGEST_REASON + 1), "a\nb", "a\0b", "\ud800"], ids=ascii)
def test_a_reason_that_says_nothing_or_cannot_be_written_is_refused(house: House, reason: str) -> None:
    with pytest.raises(PolicyRefused) as refused:
        house.draft(resubmit=reason)
    assert refused.value.field == "resubmit"
    assert house.drafts() == []


@pytest.mark.usefixtures("rejected")
def test_a_reason_is_no_part_of_what_an_idempotency_key_names(house: House) -> None:
    first = house.draft(resubmit=WHY, idempotency_key="again")
    assert house.draft(resubmit="for another reason", idempotency_key="again").id == first.id
    assert house.draft(idempotency_key="again").id == first.id
    assert house.story(first.id).draft.resubmitted == WHY


def test_a_key_whose_draft_was_rejected_is_not_used_again_with_a_reason(house: House) -> None:
    """Else an agent that says why would be given the rejected draft, and wait for it."""
    first = house.draft(idempotency_key="offer")
    reject(house, first.id)
    assert house.draft(idempotency_key="offer").id == first.id
    refused = assert_refused(house, Code.IDEMPOTENCY_CONFLICT, idempotency_key="offer", resubmit=WHY)
    assert first.id in refused.message
