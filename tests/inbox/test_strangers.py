"""Whoever else has the token changes nothing by it, and the approver it was made for hears of him, once a draft."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from outbox.core.lifecycle import State
from tests.house import FOUNDER, SECOND, House
from tests.inbox.letters import Asked, text_of

MALLORY = "mallory@evil.example"
PARTNER = "partner@acme.example"
HOME = "founder@home.example"


def reply(asked: Asked, text: str, *, request: EmailMessage | None = None, **given: str | None) -> str:
    """Reply a second later and look; why it did or did not count."""
    asked.house.clock.advance(SECOND)
    asked.house.reply(request or asked.request, text, **given)  # type: ignore[arg-type]
    asked.house.inbox()
    return asked.house.replies()[-1].why


def told(house: House, subject: str = "Somebody else replied") -> list[tuple[tuple[str, ...], EmailMessage]]:
    """What of this subject has left, with the envelope's recipients."""
    house.drain()
    letters = [(one.recipients, message_from_bytes(one.octets, policy=policy.default)) for one in house.relay.messages]
    return [(to, letter) for to, letter in letters if subject in str(letter["Subject"])]  # type: ignore[misc]


@pytest.mark.parametrize("text", ["Ship it", "Reject: no", "Stop", "what is this?"])
def test_a_stranger_with_the_token_changes_nothing_and_the_approver_hears_of_it(asked: Asked, text: str) -> None:
    assert reply(asked, text, sender=MALLORY) == f"from: {MALLORY} was not asked; {FOUNDER} was"
    assert asked.states() == ("pending", "pending")
    ((recipients, letter),) = told(asked.house)
    assert (recipients, letter["Cc"], letter["In-Reply-To"]) == ((FOUNDER,), None, None)
    assert f"| {MALLORY}" in text_of(letter)
    assert "what is this?" not in text_of(letter)


def test_the_approver_hears_of_strangers_once_a_draft_and_still_of_his_own_replies(asked: Asked) -> None:
    for number in range(5):
        reply(asked, "Ship it", sender=f"mallory{number}@evil.example")
        reply(asked, f"hm {number}")
    reply(asked, "Ship it", request=asked.other, sender=MALLORY)
    strangers = told(asked.house)
    assert {to for to, _ in strangers} == {(FOUNDER,)}
    assert [draft for draft in (asked.draft_id, asked.other_id) for _, one in strangers if draft in text_of(one)] == [
        asked.draft_id, asked.other_id,
    ]  # fmt: skip
    assert len(told(asked.house, "Your reply changed nothing")) == 3
    assert len(asked.house.replies()) == 11


@pytest.mark.parametrize(("text", "state"), [("Ship it", "approved"), ("Stop", "cancelled")])
def test_the_mail_that_tells_of_a_stranger_can_be_answered(asked: Asked, text: str, state: str) -> None:
    reply(asked, "Ship it", sender=MALLORY)
    ((_, letter),) = told(asked.house)
    reply(asked, text, request=letter)
    assert asked.states() == (state, "pending")


@pytest.mark.parametrize(
    "headers",
    [
        {"Auto_Submitted": "auto-replied"},
        {"Precedence": "bulk"},
        {"Return_Path": "<>"},
        {"List_Id": "<all.acme.example>"},
        {"From": None},
        {"From": f"{MALLORY}, {PARTNER}"},
        {"From": "undisclosed"},
    ],
    ids=str,
)
def test_nobody_hears_of_a_machine_or_of_who_has_no_one_address(asked: Asked, headers: dict[str, str | None]) -> None:
    reply(asked, "Ship it", **{"From": f"Mallory <{MALLORY}>"} | headers)
    assert told(asked.house) == []


def test_nobody_hears_of_a_replay(asked: Asked) -> None:
    reply(asked, "Ship it", Message_ID="<same@phone.example>")
    reply(asked, "Ship it", sender=MALLORY, Message_ID="<same@phone.example>")
    assert told(asked.house) == []


def test_who_is_no_approver_any_more_hears_of_nothing(asked: Asked) -> None:
    asked.house.set("approval", approvers=f'["{PARTNER}"]')
    before = asked.house.drafts(system=True)
    reply(asked, "Ship it", sender=MALLORY)
    reply(asked, "Ship it")
    made = [one for one in asked.house.drafts(system=True) if one not in before]
    assert not [one for one in made if FOUNDER in one.envelope.recipients]


def test_a_stranger_s_address_cannot_speak_in_our_name(asked: Asked) -> None:
    reply(asked, "Ship it", From='"Ship it\u202e <founder@acme.example>" <mallory@evil.example>')
    ((_, letter),) = told(asked.house)
    assert "founder@acme.example>" not in text_of(letter)
    assert f"| {MALLORY}" in text_of(letter)


# The approver's other addresses


@pytest.fixture
def at_home(asked: Asked) -> Asked:
    """The approver writes from home too."""
    asked.house.set(f'approver."{FOUNDER}"', also=f'["{HOME}"]')
    return asked


@pytest.mark.parametrize("sender", [HOME, HOME.title()])
def test_an_address_of_his_counts_and_the_grant_is_the_approver_s(at_home: Asked, sender: str) -> None:
    reply(at_home, "Ship it", sender=sender)
    assert at_home.grants() == [(at_home.draft_id, FOUNDER)]
    assert at_home.house.story(at_home.draft_id).draft.state is State.APPROVED
    assert told(at_home.house) == []


def test_what_he_wrote_from_home_is_answered_to_the_address_that_was_asked(at_home: Asked) -> None:
    reply(at_home, "what is this?", sender=HOME)
    ((recipients, _),) = told(at_home.house, "Your reply changed nothing")
    assert recipients == (FOUNDER,)


def test_an_address_that_was_taken_out_again_is_a_stranger_s(at_home: Asked) -> None:
    at_home.house.set(f'approver."{FOUNDER}"', also="[]")
    assert reply(at_home, "Ship it", sender=HOME).startswith("from: ")
    assert len(told(at_home.house)) == 1
