"""What names a request: the token in the recipient and in the thread, which agree, and the tag in the subject."""

from __future__ import annotations

import pytest

from outbox.core.lifecycle import State
from tests.house import APPROVAL, FOUNDER, HOUR, House
from tests.inbox.letters import Asked, token_of

ALONE = "its address alone names the request"
DISAGREE = "its tokens do not agree"
SHIP, STOP = b"\nShip it\n", b"\nStop\n"


def named(asked: Asked, body: bytes = SHIP, **headers: str | None) -> tuple[bool | None, str]:
    """What the check of the token comes to."""
    check = asked.explain(asked.letter(body, **headers)).checks[0]
    assert check.name == "token"
    return check.passed, check.why


def other_address(asked: Asked) -> str:
    return str(asked.other["Reply-To"])


def test_the_recipient_and_the_thread_together_name_the_request(asked: Asked) -> None:
    assert named(asked) == (True, f"it names draft {asked.draft_id} and {FOUNDER}")


@pytest.mark.parametrize("field", ["In_Reply_To", "References"])
def test_the_thread_names_it_in_a_message_to_the_approval_address(asked: Asked, field: str) -> None:
    thread = {"In_Reply_To": None, field: str(asked.request["Message-ID"])}
    assert named(asked, To=APPROVAL, **thread)[0]
    assert not named(asked, To="cfo@acme.example", **thread)[0]


@pytest.mark.parametrize("field", ["In_Reply_To", "References"])
def test_an_address_alone_in_another_thread_can_refuse_and_not_approve(asked: Asked, field: str) -> None:
    """Somebody else's mail, with another question, may have had our address in its Reply-To."""
    thread = {"In_Reply_To": None, field: "<lunch@friend.example>"}
    passed, why = named(asked, Subject="Re: Lunch?", **thread)
    assert not passed
    assert why.startswith(ALONE)
    assert named(asked, STOP, Subject="Re: Lunch?", **thread)[0]
    assert named(asked, Subject=f"Re: {asked.request['Subject']}", **thread)[0]


def test_an_address_alone_names_it_where_there_is_no_thread(asked: Asked) -> None:
    assert named(asked, In_Reply_To=None)[0]


def test_another_case_is_the_same_token(asked: Asked) -> None:
    assert named(asked, To=str(asked.request["Reply-To"]).upper())[0]


def test_carriers_that_name_two_requests_name_none(asked: Asked) -> None:
    other, request = other_address(asked), str(asked.request["Reply-To"])
    for disagreeing in (
        {"To": other},
        {"Cc": other},
        {"To": f"{request}, {other}"},
        {"References": str(asked.other["Message-ID"])},
        {"Delivered_To": other},
        {"X_Original_To": other},
        {"To": f'"{other}" <{request}>'},
    ):
        assert named(asked, **disagreeing) == (False, DISAGREE), disagreeing
        assert named(asked, STOP, **disagreeing) == (False, DISAGREE), disagreeing


@pytest.mark.parametrize("field", ["Delivered_To", "X_Original_To", "Envelope_To"])
def test_a_field_that_anybody_on_the_way_adds_names_nothing(asked: Asked, field: str) -> None:
    passed, why = named(asked, To="cfo@acme.example", In_Reply_To=None, **{field: str(asked.request["Reply-To"])})
    assert (passed, why) == (False, "the token is not in an address of To or Cc that can be read plainly")


@pytest.mark.parametrize(
    "to",
    ['"{0}" <cfo@acme.example>', "cfo@acme.example ({0})", "{0}@evil.example", "x{0}", "<{0}> <cfo@acme.example>"],
    ids=["display name", "comment", "another host", "another local part", "two addresses in one"],
)
def test_a_token_beside_the_address_is_no_recipient(asked: Asked, to: str) -> None:
    assert not named(asked, To=to.format(asked.request["Reply-To"]), In_Reply_To=None)[0]
    assert not named(asked, STOP, To=to.format(asked.request["Reply-To"]), In_Reply_To=None)[0]


def test_a_subject_with_the_tag_of_another_request_names_none(asked: Asked) -> None:
    assert named(asked, Subject=f"Re: {asked.other['Subject']}") == (False, "its subject names another request")
    assert named(asked, Subject=f"Re: {asked.request['Subject']} and {asked.other['Subject']}")[0]


def test_an_agent_s_subject_cannot_look_like_a_tag(house: House) -> None:
    draft = house.draft(subject="[outbox aaaaaa] Offer [OUTBOX bbbbbb]")
    request = house.ask(draft.id)
    assert str(request["Subject"]).lower().count("[outbox") == 1
    house.reply(request, "Ship it")
    house.inbox()
    assert house.story(draft.id).draft.state is State.APPROVED


def test_a_token_in_the_text_alone_leaves_no_trace(asked: Asked) -> None:
    text = f"\nShip it\n\n{asked.request['Reply-To']} {asked.request['Message-ID']}\n"
    asked.house.deliver(asked.letter(text.encode(), To=APPROVAL, In_Reply_To=None))
    asked.house.inbox()
    assert asked.house.replies() == []


def test_a_token_that_we_never_made_leaves_no_trace(asked: Asked) -> None:
    token = token_of(asked.request)
    forged = token[:-1] + ("a" if token[-1] != "a" else "b")
    asked.house.deliver(asked.letter(SHIP, To=f"approve+{forged}@acme.example", In_Reply_To=None))
    asked.house.inbox()
    assert asked.house.replies() == []


def test_a_request_that_has_expired_names_nothing_any_more(asked: Asked) -> None:
    asked.house.clock.advance(24 * HOUR)
    asked.house.reply(asked.request, "Ship it")
    asked.house.inbox()
    (reply,) = asked.house.replies()
    assert (reply.counted, reply.why) == (False, f"token: the request for draft {asked.draft_id} has expired")


def test_our_own_mail_that_comes_back_is_left_unrecorded(asked: Asked) -> None:
    """As in a mailbox that is the approver's too, or by a rule that copies what it sends on."""
    asked.house.reply(asked.request, "what is this?")
    asked.house.inbox()
    asked.house.drain()
    assert len(asked.house.relay.messages) == 1
    request = asked.request.as_bytes()
    for octets in (request, asked.house.relay.messages[0].octets):
        asked.house.deliver(b"Delivered-To: " + str(asked.request["Reply-To"]).encode() + b"\n" + octets)
    asked.house.inbox()
    assert len(asked.house.replies()) == 1
    assert asked.states() == ("pending", "pending")


# Plain addressing


@pytest.fixture
def plain(house: House) -> Asked:
    """Two drafts asked about where the mailbox has no extensions."""
    house.set("approval", addressing='"plain"')
    draft, other = house.draft(), house.draft(subject="Another offer")
    request = house.ask(draft.id)
    return Asked(house, draft.id, request, other.id, house.request_for(other.id))


def test_with_plain_addressing_the_tag_and_the_thread_name_it_together(plain: Asked) -> None:
    assert str(plain.request["Reply-To"]) == APPROVAL
    subject = f"Re: {plain.request['Subject']}"
    assert named(plain, Subject=subject)[0]
    assert named(plain, Subject=f"Re: {plain.other['Subject']}") == (False, "its subject names another request")
    for subject_alone in (None, "Re: Lunch?"):
        assert named(plain, Subject=subject_alone)[1].startswith("with plain addressing the subject must keep [outbox ")
    assert not named(plain, Subject=subject, In_Reply_To=None)[0]
    assert not named(plain, Subject=subject, To="cfo@acme.example")[0]


def test_with_plain_addressing_a_reply_is_read_and_answered(plain: Asked) -> None:
    plain.house.reply(plain.request, "what is this?")
    plain.house.reply(plain.other, "Ship it")
    plain.house.inbox()
    assert plain.states() == ("pending", "approved")
    plain.house.drain()
    assert sum(b"Your reply changed nothing" in one.octets for one in plain.house.relay.to(FOUNDER)) == 1
