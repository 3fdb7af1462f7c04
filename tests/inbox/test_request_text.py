"""What the approver is shown: everything that would leave, in a form that cannot speak in the outbox's name."""

from __future__ import annotations

import hashlib
import unicodedata
from base64 import encodebytes
from email.message import EmailMessage

import pytest

from outbox import drafter
from outbox.core.errors import PolicyRefused
from outbox.core.message import Attachment
from outbox.drafter.intake import Overrides
from tests.house import JANE, SALES, House
from tests.inbox.letters import text_of

HEAD = f"From: {SALES}\r\nTo: {JANE}\r\nSubject: Offer\r\n"


def adopted(house: House, octets: bytes, **over: object) -> str:
    """The id of a draft of a whole message."""
    with drafter.open(house.settings, clock=house.clock) as room:
        return room.adopt(octets, Overrides(**over)).draft.id  # type: ignore[arg-type]


def fenced_part(text: str) -> list[str]:
    """The lines from the first that is the agent's to the last."""
    lines = text.splitlines()
    theirs = [number for number, line in enumerate(lines) if line.startswith("|")]
    return lines[theirs[0] : theirs[-1] + 1]


def shown(house: House, **given: object) -> tuple[EmailMessage, str]:
    """Draft, ask, and return the request and its text."""
    request = house.ask(house.draft(**given).id)  # type: ignore[arg-type]
    return request, text_of(request)


def test_every_envelope_recipient_subject_expiry_and_digest_are_shown(house: House) -> None:
    cc = tuple(f"cc{number}@customer.example" for number in range(3))
    draft = house.draft(to=(f"Jane Doe <{JANE}>", "second@customer.example"), cc=cc, bcc=("secret@board.example",))
    text = text_of(house.ask(draft.id))
    for address in (*draft.envelope.recipients, SALES):
        assert [line for line in text.splitlines() if line.endswith(f" {address}")], address
    assert "    Bcc      secret@board.example" in text
    assert "    Subject  Offer" in text
    assert "    Expires  2027-01-16 08:00:00 UTC" in text
    assert f"Draft {draft.id}" in text
    assert f"Digest {draft.digest.hex()}" in text
    assert "The agent python asks" in text


def test_it_says_how_to_answer(house: House) -> None:
    _, text = shown(house)
    for words in ("eply to this mail", "Only the first line counts", "Ship it ", "Reject: your reason", "Stop "):
        assert words in text


def test_the_whole_text_is_shown_with_a_prefix_on_every_line(house: House) -> None:
    lines = [f"line {number}" for number in range(3000)]
    _, text = shown(house, text="\n".join(lines))
    assert fenced_part(text) == [f"| {line}" for line in lines]


IMPOSTURES = (
    "Ship it",
    "Ship it\n\nReply to this mail. Only the first line counts.\n\nDraft 1\nDigest 2",
    "\n\n\nShip it",
    "> Ship it\n| Ship it\n| | Ship it",
    "a\r\nShip it\r\nb",
    "a\rShip it",
    "a\u2028Ship it\u2029Ship it",
    "a\u0085Ship it\u000bShip it\u000cShip it",
    "a\u001eShip it\u001dShip it\u001cShip it",
    "-- \nShip it",
    "The exact message is attached.\n\nAttachment:\n    contract.pdf",
    "\u202eti pihS\u202c\u2066Ship it\u2069",
)


@pytest.mark.parametrize("text", IMPOSTURES, ids=lambda text: ascii(text)[:50])
def test_no_line_of_the_agent_s_stands_without_its_prefix(house: House, text: str) -> None:
    octets = f"{HEAD}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
    plain = text_of(house.ask(adopted(house, octets + _base64("harmless"))))
    bad = text_of(house.ask(adopted(house, octets + _base64(text))))
    ours = [line for line in plain.splitlines() if not line.startswith("|")]
    remaining = [line for line in bad.splitlines() if not line.startswith("|")]
    assert len(remaining) == len(ours)
    assert [line[:30] for line in remaining[:-2]] == [line[:30] for line in ours[:-2]]


def _base64(text: str) -> bytes:
    return encodebytes(text.encode()).replace(b"\n", b"\r\n")


# What readers do not see, or what turns the order of what they see: format characters, fillers, variation selectors.
UNSEEN = [
    chr(code)
    for code in range(0x110000)
    if (unicodedata.category(chr(code)) in {"Cf", "Cc", "Zl", "Zp"} and chr(code) not in "\t\n\r")
    and not 0x600 <= code <= 0x605
    and code not in {0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}  # these are seen: signs above numbers
    and not 0x13430 <= code <= 0x1345F
]


def test_characters_that_are_not_seen_are_written_out(house: House) -> None:
    _, text = shown(
        house, text="\n".join(f"x{ord(character):05X} [{character}]" for character in UNSEEN if character != "\0")
    )
    hidden = [line for line in fenced_part(text) if "<U+" not in line]
    assert hidden == []


def test_the_request_s_own_subject_cannot_be_turned_round(house: House) -> None:
    request, _ = shown(house, subject="Offer \u202egnihtyna\u202c")
    assert "\u202e" not in str(request["Subject"])


def test_an_html_part_is_shown_as_words_with_its_links(house: House) -> None:
    html = (
        '<h1>Offer</h1><p>See <a href="https://evil.example/x">our site</a></p><div>Ship it</div><script>x()</script>'
    )
    _, text = shown(house, html=html)
    assert "Its HTML part" in text
    below = text.partition("Its HTML part")[2]
    for line in ("| Offer", "| See <https://evil.example/x> our site", "| Ship it"):
        assert line in below.splitlines()


def test_a_draft_without_plain_text_says_so_and_shows_the_html(house: House) -> None:
    _, text = shown(house, text=None, html="<p>only here</p>")
    assert "it has no plain text part" in text
    assert "| only here" in text


# Each of these shows "PAY 9000" in a browser or mail client.
SEEN_BY_READERS = (
    "<p>PAY 9000</p>",
    "<html><head><body>PAY 9000</body></html>",
    "<html><head><head></head><body>PAY 9000</body></html>",
    "<p>a</p><head>PAY 9000",
    "<!-- --!>PAY 9000<!-- -->",
    "<!-->PAY 9000<!-- -->",
    "<!--->PAY 9000<!-- -->",
    "<![CDATA[>PAY 9000]]>",
    "<title/>a</title><p>PAY 9000</p>",
    "<svg><title>a</svg><p>PAY 9000</p>",
    "<table><tr><td>PAY 9000",
    "<p>PAY&#32;9000",
    "<p>PAY&nbsp;9000",
    "PAY <b>9000</b>",
    '<img src="cid:x" alt="PAY 9000">',
    '<input value="PAY 9000">',
)


@pytest.mark.parametrize("html", SEEN_BY_READERS)
def test_no_html_that_readers_see_is_kept_from_the_approver(house: House, html: str) -> None:
    _, text = shown(house, text="Nothing to pay.", html=html)
    assert "PAY 9000" in text.partition("Its HTML part")[2].replace("\u00a0", " ")


def test_each_attachment_is_shown_with_name_size_and_digest(house: House) -> None:
    files = (
        Attachment("offer.pdf", "application/pdf", b"%PDF-1.7 " + bytes(range(256))),
        Attachment("Preisliste für Jane.csv", "text/csv", b"a;b\r\n1;2\r\n"),
        Attachment("empty.bin", "application/octet-stream", b""),
    )
    _, text = shown(house, attachments=files)
    for file in files:
        assert f"    {file.name}\n    {file.media_type}, {len(file.octets)} octets" in text
        assert f"sha256 {hashlib.sha256(file.octets).hexdigest()}" in text


def test_where_headers_and_envelope_disagree_is_said(house: House) -> None:
    octets = (HEAD + "Cc: named@customer.example\r\n\r\nHello\r\n").encode()
    draft = adopted(house, octets, sender="other@acme.example", to=("hidden@evil.example",), cc=())
    text = text_of(house.ask(draft))
    assert "    To       hidden@evil.example" in text
    beware = "\n".join(line for line in text.splitlines() if line.startswith("    Beware"))
    assert f"The From header says {SALES}; the envelope's sender is other@acme.example." in beware
    assert "Not named in To or Cc, but would receive it: hidden@evil.example." in beware
    assert f"would not receive it: {JANE}, named@customer.example." in beware


def test_where_headers_and_envelope_agree_nothing_is_said_of_it(house: House) -> None:
    _, text = shown(house, cc=("cc@customer.example",), bcc=("bcc@board.example",))
    assert "Beware" not in text


def test_a_bcc_of_a_whole_message_is_shown_and_not_sent_as_a_header(house: House) -> None:
    draft = adopted(house, (HEAD + "Bcc: bcc@board.example\r\n\r\nHello\r\n").encode())
    request = house.ask(draft)
    assert "    Bcc      bcc@board.example" in text_of(request)
    assert b"\r\nBcc:" not in house.relay.messages[-1].octets


def test_every_text_part_is_shown(house: House) -> None:
    part = "--b\r\nContent-Type: text/{kind}\r\n\r\n{words}\r\n"
    parts = [("plain", "first"), ("html", "<p>second</p>"), ("plain", "third"), ("html", "<p>fourth</p>")]
    body = "".join(part.format(kind=kind, words=words) for kind, words in parts) + "--b--\r\n"
    octets = f'{HEAD}Content-Type: multipart/mixed; boundary="b"\r\n\r\n{body}'.encode()
    text = text_of(house.ask(adopted(house, octets)))
    for words in ("first", "second", "third", "fourth"):
        assert f"| {words}" in text.splitlines()


def test_a_text_that_clients_show_in_place_of_the_html_is_named(house: House) -> None:
    plain = "--b\r\nContent-Type: text/plain\r\n\r\na\r\n"
    body = f"{plain}--b\r\nContent-Type: text/x-amp-html\r\n\r\n<p>evil</p>\r\n--b--\r\n"
    octets = f'{HEAD}Content-Type: multipart/alternative; boundary="b"\r\n\r\n{body}'.encode()
    text = text_of(house.ask(adopted(house, octets)))
    assert "| [text/x-amp-html]" in text
    assert "| <p>evil</p>" in text


@pytest.mark.parametrize("charset", ["charset*=utf-8'en'x", 'charset="a\0b"', "charset=undefined", "charset=x-klingon"])
def test_a_charset_that_nobody_knows_is_shown_or_refused_and_never_a_crash(house: House, charset: str) -> None:
    octets = f"{HEAD}Content-Type: text/plain; {charset}\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n".encode()
    try:
        draft = adopted(house, octets)
    except PolicyRefused:
        return
    assert fenced_part(text_of(house.ask(draft)))


@pytest.mark.parametrize("html", ["<![foo[ a", "<!", "<![", "<!--", "<!doctype [ <!x", "&#x110000;&#0;", "<a" * 5000])
def test_html_that_no_parser_likes_is_shown_or_refused_and_never_a_crash(house: House, html: str) -> None:
    try:
        draft = house.draft(html=f"<p>a</p>{html}")
    except PolicyRefused:
        return
    assert "Its HTML part" in text_of(house.ask(draft.id))
