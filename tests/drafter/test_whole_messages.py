"""A whole message (`--eml`) keeps its octets, less our own headers; what reads in two ways is refused."""

from __future__ import annotations

import pytest

from outbox.core.errors import Code, PolicyRefused
from tests.drafter.ledger import PLAIN, adopt, assert_not_adopted, header_names, read_back, stored
from tests.house import JANE, SALES, House

RICH = (
    f"X-First: one\r\nFrom: Sales <{SALES}>\r\nTo: Jane\r\n <{JANE}>\r\nSubject: Offer\r\n\tin two lines\r\n"
    "Message-ID: <own@acme.example>\r\nX-Odd:no blank\r\nx-odd:   twice  \r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\npreamble\r\n--b\r\n\r\n.leading dot\r\nFrom here\r\n'
    "--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\nepilogue\r\n"
)


def with_header(line: str) -> bytes:
    """The plain message with one more header field."""
    return f"{line}\n{PLAIN}".encode()


def test_the_octets_are_kept_after_our_own_headers(house: House) -> None:
    draft = adopt(house, RICH.encode())
    kept = RICH.replace("Message-ID: <own@acme.example>\r\n", "").encode()
    ours = f"Message-ID: <own@acme.example>\r\nX-Outbox-Draft: {draft.id}\r\n".encode()
    assert stored(house, draft.id) == ours + kept
    assert (draft.message_id, draft.subject) == ("<own@acme.example>", "Offer\tin two lines")


def test_a_message_without_a_message_id_gets_one(house: House) -> None:
    draft = adopt(house, PLAIN.encode())
    assert draft.message_id == f"<{draft.id}@acme.example>"
    assert read_back(stored(house, draft.id))["Message-ID"] == draft.message_id


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_become_crlf(house: House, end: str) -> None:
    draft = adopt(house, PLAIN.replace("\n", end).encode())
    octets = stored(house, draft.id)
    assert octets.endswith(PLAIN.split("\n", 1)[1].replace("\n", "\r\n").encode())
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")


def test_a_last_line_without_end_gets_one(house: House) -> None:
    draft = adopt(house, PLAIN.rstrip("\n").encode())
    assert stored(house, draft.id).endswith(b"here it is.\r\n")


@pytest.mark.parametrize(
    "line",
    [
        "Date: Fri, 15 Jan 2027 08:00:00 +0000",
        "DATE: x",
        f"Bcc: {JANE}",
        f"bcc:\n {JANE}",
        f"Return-Path: <{SALES}>",
        "Sender: other@evil.example",
        "Resent-From: other@evil.example",
        "Resent-Date: x",
        "Resent-To: evil@x.example",
        "resent-message-id: <x@x>",
        "Resent-Anything: x",
        "X-Outbox-Draft: 018f0000-0000-7000-8000-000000000000",
        "x-outbox-request: id=0; draft=0",
        "Date: a\nDate: b",
        "Sender: a@x.example\nSender: b@x.example",
    ],
)
def test_headers_that_are_ours_are_taken_out(house: House, line: str) -> None:
    draft = adopt(house, with_header(line))
    assert header_names(stored(house, draft.id)) == ["message-id", "x-outbox-draft", "from", "to", "subject"]
    assert read_back(stored(house, draft.id))["X-Outbox-Draft"] == draft.id


def test_a_body_of_8_bit_octets_is_kept(house: House) -> None:
    body = b"\xe9\xff caf\xc3\xa9\n"
    head = (
        PLAIN.split("\n\n", 1)[0] + "\nContent-Type: text/plain; charset=latin-1\nContent-Transfer-Encoding: 8bit\n\n"
    )
    draft = adopt(house, head.encode() + body)
    assert stored(house, draft.id).endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n"))


def test_a_line_of_998_octets_is_kept(house: House) -> None:
    draft = adopt(house, PLAIN.encode() + b"x" * 998 + b"\n")
    assert stored(house, draft.id).endswith(b"\r\n" + b"x" * 998 + b"\r\n")


@pytest.mark.parametrize(
    "octets",
    [
        PLAIN.encode() + b"x" * 999,
        PLAIN.encode() + b"bare \r here\n",
        PLAIN.encode() + b"\r",
        PLAIN.encode() + b"\0",
        PLAIN.encode() + b"\r\r\n",
        with_header("X-Nul: a\0b"),
        with_header("X-Bare: a\rb"),
        with_header("X: " + "x" * 996),
        b"",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"only text",
        b"only text\n\nmore",
        b" folded: first\n" + PLAIN.encode(),
        b"From jane@x.example Fri Jan 15 08:00:00 2027\n" + PLAIN.encode(),
        with_header("no colon"),
        with_header(": nameless"),
        with_header("X Y: z"),
        with_header("X\tY: z"),
        with_header("Subject : two"),
        with_header("X-\u00e9: z"),
        with_header("Message-ID: "),
        with_header("Message-ID: no brackets"),
        with_header("Message-ID: <a@x> <b@x>"),
        with_header("Message-ID: <a@x> trailing"),
        b"\n" + PLAIN.encode(),
        with_header("X" * 77 + ": z"),
    ],
)
def test_what_is_no_clean_message_is_refused(untouched: House, octets: bytes) -> None:
    assert_not_adopted(untouched, Code.MESSAGE_MALFORMED, octets)


@pytest.mark.parametrize(
    "line",
    [
        f"From: {SALES}",
        f"FROM: {SALES}",
        "To: bob@customer.example",
        "to: bob@customer.example",
        "Subject: other",
        "subject: other",
        "Cc: a@x.example\nCc: b@x.example",
        "Reply-To: a@x.example\nReply-To: b@x.example",
        "Message-ID: <a@x>\nMessage-ID: <b@x>",
        "Content-Type: text/plain\nContent-Type: text/html",
        "In-Reply-To: <a@x>\nIn-Reply-To: <b@x>",
        "References: <a@x>\nReferences: <b@x>",
        "MIME-Version: 1.0\nMIME-Version: 1.0",
        "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64",
    ],
)
def test_a_header_that_may_stand_once_is_refused_twice(untouched: House, line: str) -> None:
    assert_not_adopted(untouched, Code.MESSAGE_MALFORMED, with_header(line))


@pytest.mark.parametrize("author", [f"{SALES}, ceo@acme.example", "", "friends:;"])
def test_a_message_has_exactly_one_author(untouched: House, author: str) -> None:
    octets = PLAIN.replace(f"From: {SALES}", f"From: {author}").encode()
    refused = assert_not_adopted(untouched, Code.ADDRESS_INVALID if not author else Code.MESSAGE_MALFORMED, octets)
    assert refused.field == "From"


def test_the_envelope_is_what_the_headers_say(house: House) -> None:
    octets = with_header(
        'Cc: Bob <bob@customer.example>,\n\t"Eve, A." <eve@customer.example>\nBcc: Mallory <m@customer.example>'
    )
    envelope = adopt(house, octets).envelope
    assert (envelope.sender, envelope.to) == (SALES, (JANE,))
    assert envelope.cc == ("bob@customer.example", "eve@customer.example")
    assert envelope.bcc == ("m@customer.example",)


def test_a_message_to_hidden_recipients_alone_is_taken(house: House) -> None:
    octets = PLAIN.replace(f"To: {JANE}", f"To: undisclosed-recipients:;\nBcc: {JANE}").encode()
    envelope = adopt(house, octets).envelope
    assert (envelope.to, envelope.bcc) == ((), (JANE,))


def test_a_second_bcc_header_is_refused_so_that_no_recipient_is_lost(untouched: House) -> None:
    octets = with_header("Bcc: a@customer.example\nBcc: b@customer.example")
    assert_not_adopted(untouched, Code.MESSAGE_MALFORMED, octets)


def test_a_recipient_header_that_does_not_parse_is_refused(untouched: House) -> None:
    for name in ("To", "Cc", "Bcc", "Reply-To"):
        base = PLAIN.replace(f"To: {JANE}\n", "") if name == "To" else PLAIN
        assert_not_adopted(untouched, Code.ADDRESS_INVALID, f"{name}: a@x.example b@y.example\n{base}".encode())


def test_what_is_said_beside_the_message_takes_the_place_of_its_headers(house: House) -> None:
    octets = with_header("Cc: cc@customer.example\nBcc: bcc@customer.example")
    draft = adopt(
        house,
        octets,
        sender="bounce@acme.example",
        to=("list@customer.example",),
        cc=(),
        bcc=("archive@customer.example",),
        agent="importer",
        ttl=60,
    )
    envelope = draft.envelope
    assert (envelope.sender, envelope.to) == ("bounce@acme.example", ("list@customer.example",))
    assert (envelope.cc, envelope.bcc) == ((), ("archive@customer.example",))
    assert (draft.agent, draft.expires_at - draft.created_at) == ("importer", 60_000_000)
    message = read_back(stored(house, draft.id))
    assert (message["From"], message["To"], message["Cc"]) == (SALES, JANE, "cc@customer.example")


def test_each_override_stands_alone(house: House) -> None:
    octets = with_header("Cc: cc@customer.example\nBcc: bcc@customer.example")
    envelope = adopt(house, octets, to=("list@customer.example",)).envelope
    assert (envelope.to, envelope.cc, envelope.bcc) == (
        ("list@customer.example",),
        ("cc@customer.example",),
        ("bcc@customer.example",),
    )
    assert envelope.sender == SALES


def test_the_thread_of_a_message_is_signed_with_it(house: House) -> None:
    octets = with_header("In-Reply-To: <a@x.example>\nReferences: <r@x.example>\n <a@x.example>")
    draft = adopt(house, octets)
    ((thread,),) = house.rows("SELECT thread_references FROM drafts WHERE id = ?", draft.id)
    assert thread == '{"in_reply_to":"<a@x.example>","references":["<r@x.example>","<a@x.example>"]}'


def test_a_header_over_64_kib_is_refused(untouched: House) -> None:
    recipients = ",\n ".join(f"person{number}@customer.example" for number in range(3000))
    assert_not_adopted(untouched, Code.MESSAGE_MALFORMED, PLAIN.replace(JANE, recipients).encode())


def test_a_message_of_more_than_200_parts_is_refused(house: House) -> None:
    head = PLAIN.split("\n\n", 1)[0] + "\nContent-Type: multipart/mixed; boundary=b\n\n"
    part = "--b\nContent-Type: text/plain\n\nhi\n"
    adopt(house, f"{head}{part * 150}--b--\n".encode())
    assert_not_adopted(house, Code.MESSAGE_MALFORMED, f"{head}{part * 201}--b--\n".encode())


@pytest.mark.timeout(20)
def test_a_message_nested_a_thousand_deep_is_refused(untouched: House) -> None:
    head = PLAIN.split("\n\n", 1)[0]
    nested = "".join(f"\nContent-Type: multipart/mixed; boundary=b{depth}\n\n--b{depth}" for depth in range(1000))
    assert_not_adopted(untouched, Code.MESSAGE_MALFORMED, f"{head}{nested}\n\nhi\n".encode())


@pytest.mark.timeout(20)
def test_parts_that_name_no_content_type_are_counted_too(untouched: House) -> None:
    head = PLAIN.split("\n\n", 1)[0] + "\nContent-Type: multipart/mixed; boundary=b\n\n"
    assert_not_adopted(untouched, Code.MESSAGE_MALFORMED, (head + "--b\n\nhi\n" * 5000 + "--b--\n").encode())


@pytest.mark.timeout(15)
@pytest.mark.parametrize(
    "html", ["<a " * 30_000, "<!--" * 20_000, "a<![x[b", "<!DOCTYPE [<!x", "&#x110000;&#99999999999;", "<" * 60_000]
)
def test_hostile_html_is_taken_or_refused_in_time(house: House, html: str) -> None:
    broken = "\n".join(html[start : start + 900] for start in range(0, len(html), 900))
    try:
        draft = house.draft(html=f"<p>words</p>{broken}")
    except PolicyRefused:
        return  # a refusal is as good
    assert draft.state == "pending"
