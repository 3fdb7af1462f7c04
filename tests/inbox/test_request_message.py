"""The request as a message: its token, its headers, and the exact draft that it carries."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from outbox import drafter
from outbox.drafter.intake import Overrides
from tests.house import APPROVAL, FOUNDER, JANE, SALES, House
from tests.inbox.letters import text_of, token_of

HEAD = f"From: {SALES}\r\nTo: {JANE}\r\nSubject: Offer\r\n"
MIB = 1024 * 1024


def stored(house: House, draft_id: str) -> bytes:
    ((octets,),) = house.rows("SELECT octets FROM messages WHERE draft_id = ?", draft_id)
    assert isinstance(octets, bytes)
    return octets


def sent_request(house: House, draft_id: str) -> tuple[bytes, EmailMessage]:
    """The request's octets as the relay got them, and parsed."""
    request = house.ask(draft_id)
    (octets,) = [one.octets for one in house.relay.messages if str(request["Message-ID"]).encode() in one.octets]
    return octets, request


def adopted(house: House, octets: bytes) -> str:
    with drafter.open(house.settings, clock=house.clock) as room:
        return room.adopt(octets, Overrides()).draft.id


def attached_by_hand(octets: bytes) -> bytes:
    """The message/rfc822 part's octets between its header and its delimiter's CRLF (RFC 2046 5.1.1)."""
    found = re.search(rb'boundary="([^"]+)"', octets)
    assert found is not None
    delimiter = b"\r\n--" + found[1]
    parts = octets.split(delimiter)
    (part,) = [one for one in parts if one.startswith(b"\r\nContent-Type: message/rfc822")]
    return part.partition(b"\r\n\r\n")[2]


def database_octets(house: House) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(house.folder.glob("outbox.db*")))


def every_file(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file() and "Maildir" not in file.parts)


def test_the_reply_address_is_the_approval_address_with_a_token_of_39_characters(house: House) -> None:
    request = house.ask(house.draft().id)
    token = token_of(request)
    assert re.fullmatch(r"[a-z2-7]{39}", token)
    assert request["Reply-To"] == f"approve+{token}@acme.example"
    assert request["From"] == f'"Outbox" <{APPROVAL}>' or str(request["From"]) == f"Outbox <{APPROVAL}>"
    assert request["To"] == FOUNDER


def test_the_longest_approval_address_leaves_room_for_the_token(house: House) -> None:
    house.set("approval", address='"approvals-for-acme-24oct@acme.example"')
    request = house.ask(house.draft().id)
    assert len(str(request["Reply-To"]).partition("@")[0].encode()) == 64


def test_the_message_id_carries_the_token_and_the_subject_a_tag(house: House) -> None:
    request = house.ask(house.draft(subject="Angebot für Jane").id)
    token = token_of(request)
    assert str(request["Message-ID"]).startswith(f"<{token}.")
    found = re.fullmatch(r"\[outbox ([a-z2-7]{6})\] Send this\? Angebot für Jane", str(request["Subject"]))
    assert found is not None
    assert token.startswith(found[1])


def test_the_tag_of_the_subject_has_no_authority(house: House) -> None:
    request = house.ask(house.draft().id)
    house.reply(request, "Ship it", To=APPROVAL, In_Reply_To=None)
    house.inbox()
    assert house.replies() == []


def test_automatic_answers_are_asked_not_to_come(house: House) -> None:
    request = house.ask(house.draft().id)
    assert request["Auto-Submitted"] == "auto-generated"
    assert request["X-Auto-Response-Suppress"] == "All"


def test_the_token_stands_in_the_mail_and_nowhere_else(house: House) -> None:
    draft = house.draft()
    octets, request = sent_request(house, draft.id)
    token = token_of(request).encode()
    assert octets.count(token) == 2
    for line in octets.split(b"\r\n"):
        assert token not in line or line.startswith((b"Reply-To: ", b"Message-ID: "))
    assert token not in every_file(house.folder)
    assert token.upper() not in every_file(house.folder)


def test_the_stored_octets_hold_a_placeholder_and_are_else_what_is_sent(house: House) -> None:
    draft = house.draft()
    octets, request = sent_request(house, draft.id)
    (carrier,) = [one for one in house.drafts(system=True) if one.about == draft.id]
    token = token_of(request)
    held = token[:13] + "0" * 26
    kept = stored(house, carrier.id)
    assert kept.count(held.encode()) == 2
    assert octets.partition(b"\r\n")[2] == kept.replace(held.encode(), token.encode())


@pytest.mark.parametrize("text", ["Ship it", "what is this?", "Stop", "Reject: no"])
def test_no_answer_brings_the_token_into_the_database(house: House, text: str) -> None:
    request = house.ask(house.draft().id)
    house.reply(request, text)
    house.inbox()
    house.drain()
    assert token_of(request).encode() not in every_file(house.folder)


def test_a_reply_whose_first_line_names_the_token_does_not_bring_it_into_the_database(house: House) -> None:
    """As where a client puts the address it answers on top of the quote."""
    request = house.ask(house.draft().id)
    house.reply(request, f"{request['Reply-To']} wrote:\n> what is this?")
    house.inbox()
    assert len(house.replies()) == 1
    assert token_of(request).encode() not in database_octets(house)


def test_a_reply_whose_second_line_names_the_token_does_not_bring_it_into_the_database(house: House) -> None:
    request = house.ask(house.draft().id)
    house.reply(request, f"Ship it\n{request['Reply-To']}")
    house.inbox()
    assert token_of(request).encode() not in database_octets(house)


def test_a_message_id_or_author_that_is_the_token_does_not_bring_it_into_the_database(house: House) -> None:
    """As where somebody forwards the request by hand, or answers from the reply address."""
    request = house.ask(house.draft().id)
    token = token_of(request)
    house.reply(request, "what is this?", Message_ID=f"<{token}@phone.example>")
    house.reply(request, "what is this?", sender=str(request["Reply-To"]))
    house.inbox()
    assert token.encode() not in database_octets(house)


def test_no_text_of_the_agent_s_gets_the_token_into_what_it_wrote(house: House) -> None:
    """The request's id, and so its placeholder, is drawn after the draft; a guess of every form stays as it is."""
    held = "0" * 26
    lines = (
        f"Reply-To: approve+{'a' * 13}{held}@acme.example",
        f"Message-ID: <{'a' * 13}{held}.x@acme.example>",
        "X-Outbox-Request: id=0000000000000000; draft=x; digest=x; expires=1; approver=x",
        "",
        held,
    )
    draft = house.draft(text="\r\n".join(lines), subject=f"Reply-To: {held}", agent=f"Message-ID: {held}")
    octets, request = sent_request(house, draft.id)
    token = token_of(request).encode()
    head, _, body = octets.partition(b"\r\n\r\n")
    assert token not in body
    assert head.count(token) == 2
    assert head.lower().count(b"\r\nreply-to:") == 1
    assert head.lower().count(b"\r\nx-outbox-request:") == 1


def test_a_draft_that_carries_our_header_is_not_filled_in(house: House) -> None:
    """The worker fills tokens into system drafts alone."""
    first = house.draft()
    _, request = sent_request(house, first.id)
    held = f"{token_of(request)[:13]}{'0' * 26}"
    head = f"X-Outbox-Request: {request['X-Outbox-Request']}\r\nMessage-ID: <{held}.x@acme.example>\r\n"
    draft = adopted(house, (HEAD + head.replace("\n ", " ") + "\r\nHello\r\n").encode())
    house.approve(draft)
    house.drain()
    (sent,) = house.relay.to(JANE)
    assert token_of(request).encode() not in sent.octets


@pytest.mark.parametrize(
    "text", ["Dear Jane", "Grüße\nund Küsse " * 200, "From the start\n.\n..\n\n\n-- \nx"], ids=ascii
)
def test_the_attached_message_is_exactly_what_is_stored(house: House, text: str) -> None:
    draft = house.draft(text=text, html="<p>ä</p>")
    octets, request = sent_request(house, draft.id)
    assert attached_by_hand(octets) == stored(house, draft.id)
    assert "The exact message is attached." in text_of(request)


def test_an_agent_s_own_message_is_attached_exactly(house: House) -> None:
    body = "pre\r\n--zz\r\n\r\na\r\n--zz--\r\nepi\r\n\r\n"
    head = f"X-Odd:   spaces  \r\n{HEAD}Content-Type: multipart/mixed; boundary=zz\r\n"
    draft = adopted(house, f"{head}\r\n{body}".encode())
    sent, _ = sent_request(house, draft)
    assert attached_by_hand(sent) == stored(house, draft)


def test_what_is_sent_later_is_what_was_attached(house: House) -> None:
    draft = house.draft()
    octets, request = sent_request(house, draft.id)
    house.reply(request, "Ship it")
    house.inbox()
    house.drain()
    (sent,) = house.relay.to(JANE)
    assert sent.octets.partition(b"\r\n")[2] == attached_by_hand(octets)


def test_an_8_bit_message_goes_along_as_a_file_with_the_same_octets(house: House) -> None:
    draft = adopted(house, f"{HEAD}Content-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n".encode())
    octets, request = sent_request(house, draft)
    assert octets.isascii()
    (part,) = [one for one in request.walk() if one.get_filename() == "message.eml"]
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_payload(decode=True) == stored(house, draft)


def test_a_message_beyond_a_mebibyte_is_named_by_its_digests_instead(house: House) -> None:
    draft = house.draft(text="x" * 70 + "\n" + ("y" * 70 + "\n") * (MIB // 71))
    octets, request = sent_request(house, draft.id)
    assert len(stored(house, draft.id)) > MIB
    assert [one.get_content_type() for one in request.walk()] == ["text/plain"]
    text = text_of(request)
    assert f"{len(stored(house, draft.id))} octets" in text
    assert draft.digest.hex() in text
    assert octets.isascii()


def test_a_message_of_just_a_mebibyte_is_still_attached(house: House) -> None:
    draft = adopted(house, f"{HEAD}\r\n".encode() + (b"z" * 62 + b"\r\n") * (MIB // 64 - 8))
    octets, _ = sent_request(house, draft)
    assert len(stored(house, draft)) <= MIB
    assert attached_by_hand(octets) == stored(house, draft)


def test_a_request_has_no_link_that_acts(house: House) -> None:
    octets, _ = sent_request(house, house.draft().id)
    assert b"http" not in octets.lower()
    assert b"list-unsubscribe" not in octets.lower()


def test_the_request_is_one_plain_text_and_one_attachment(house: House) -> None:
    _, request = sent_request(house, house.draft().id)
    message = message_from_bytes(bytes(request), policy=policy.default)
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "message/rfc822"]
