"""What is composed: octets that any relay takes, and that any reader reads as what was given."""

from __future__ import annotations

import re

import pytest

from outbox.core.errors import Code, PolicyRefused
from outbox.core.message import Attachment
from tests.drafter.ledger import header_names, read_back, stored
from tests.house import JANE, SALES, House

TEXTS = {
    "plain": "Dear Jane,\n\nhere it is.",
    "leading dots": ".\n..\n.hidden\nend",
    "From lines": "From the start\n>From here\nFrom jane@x.example Fri Jan 15\n",
    "long line": "word " * 400,
    "long line without blanks": "a" * 5000,
    "long line beyond ascii": "\u00e9" * 5000,
    "emoji": "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "trailing blanks": "a  \nb\t\n \nc ",
    "only line ends before": "\n\n\ntext",
    "many line ends after": "text\n\n\n",
    "equals signs": "a=b =3D =\n=",
    "looks like a header": "Subject: other\nBcc: evil@x.example\n\nbody",
    "looks like a boundary": "--outbox-\n--\n-- \nsignature",
    "controls": "a\x00b\x0bc\x0cd\x1be\x7ff",
    "line separators of Unicode": "a\u2028b\u2029c\x85d\x1ce",
    "bidi": "\u202eevil\u202c",
    "soft line end at 76": "x" * 76 + "\n" + "y" * 77 + "\n" + "z" * 998,
}


def normal(text: str) -> str:
    """Text as every mail has it: LF, and one at the end."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_is_read_back_as_it_was_given(house: House, text: str) -> None:
    octets = stored(house, house.draft(text=text).id)
    assert read_back(octets).get_content().replace("\r\n", "\n") == normal(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_html_and_text_are_read_back_side_by_side(house: House, text: str) -> None:
    html = f"<p>{text}</p>"
    message = read_back(stored(house, house.draft(text=text, html=html).id))
    assert message.get_content_type() == "multipart/alternative"
    plain, rich = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert plain is not None
    assert rich is not None
    assert plain.get_content().replace("\r\n", "\n") == normal(text)
    assert rich.get_content().replace("\r\n", "\n") == normal(html)


@pytest.mark.parametrize("given", ["a\rb", "a\r\nb", "a\nb", "a\r\n"])
def test_every_line_end_in_text_is_one_line_end(house: House, given: str) -> None:
    octets = stored(house, house.draft(text=given).id)
    assert octets.split(b"\r\n\r\n", 1)[1] == normal(given).replace("\n", "\r\n").encode()


def test_a_message_is_made_of_short_7_bit_lines_that_end_in_crlf(house: House) -> None:
    draft = house.draft(
        to=(f"\u00c4nne <{JANE}>",),
        subject="Angebot f\u00fcr Jane " * 9,
        text="\n".join(TEXTS.values()),
        html="<p>\u00e9</p>" * 1000,
        attachments=(Attachment("\u00e9.pdf", "application/pdf", bytes(range(256)) * 40),),
        references=tuple(f"<{'r' * 60}{number}@x.example>" for number in range(40)),
    )
    octets = stored(house, draft.id)
    assert octets.isascii()
    assert b"\0" not in octets
    assert octets.endswith(b"\r\n")
    assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    "given",
    [
        {"to": (f"{'a' * 1200} <{JANE}>",)},
        {"to": (f"{'ab ' * 500} <{JANE}>",)},
        {"to": (f"{chr(0xE9) * 1200} <{JANE}>",)},
        {"attachments": (Attachment("a" * 1200, "text/plain", b"x"),)},
        {"attachments": (Attachment("\u00e9" * 1200, "text/plain", b"x"),)},
        {"references": ("<" + "a" * 299 + "@" + "b" * 299 + ">",) * 30},
    ],
    ids=["name", "name with blanks", "name beyond ascii", "file name", "file name beyond ascii", "references"],
)
def test_no_value_makes_a_line_that_relays_refuse(house: House, given: dict[str, object]) -> None:
    try:
        draft = house.draft(**given)  # type: ignore[arg-type]
    except PolicyRefused:
        return  # a refusal is as good
    longest = max(map(len, stored(house, draft.id).split(b"\r\n")))
    assert longest <= 998


def test_the_headers_are_exactly_these(house: House) -> None:
    draft = house.draft(
        cc=("bob@customer.example",), bcc=("eve@customer.example",), in_reply_to="<a@x>", references=("<a@x>",)
    )
    octets = stored(house, draft.id)
    assert [name for name in header_names(octets) if not name.startswith(("content-", "mime-"))] == [
        "from",
        "to",
        "cc",
        "subject",
        "message-id",
        "in-reply-to",
        "references",
        "x-outbox-draft",
    ]
    assert b"eve@" not in octets
    message = read_back(octets)
    assert (message["X-Outbox-Draft"], message["Message-ID"]) == (draft.id, draft.message_id)
    assert draft.message_id == f"<{draft.id}@acme.example>"
    assert (message["In-Reply-To"], message["References"]) == ("<a@x>", "<a@x>")
    assert (message["From"], message["To"], message["Cc"]) == (SALES, JANE, "bob@customer.example")


def test_a_message_id_may_be_given_without_its_brackets(house: House) -> None:
    draft = house.draft(in_reply_to="a@x.example", references=("b@x.example", "<c@x.example>"))
    message = read_back(stored(house, draft.id))
    assert (message["In-Reply-To"], message["References"]) == ("<a@x.example>", "<b@x.example> <c@x.example>")


def test_boundaries_are_made_from_the_draft_s_id(house: House) -> None:
    draft = house.draft(html="<p>x</p>", attachments=(Attachment("a.txt", "text/plain", b"x"),))
    octets = stored(house, draft.id)
    assert set(re.findall(rb'boundary="([^"]+)"', octets)) == {f"outbox-{draft.id}-{part}".encode() for part in "am"}
    other = house.draft(html="<p>x</p>", attachments=(Attachment("a.txt", "text/plain", b"x"),))
    assert stored(house, other.id).replace(other.id.encode(), draft.id.encode()) == octets


def test_what_is_stored_is_what_the_digest_and_the_columns_say(house: House) -> None:
    draft = house.draft(subject="Angebot f\u00fcr Jane")
    ((subject, message_id),) = house.rows("SELECT subject, message_id FROM drafts WHERE id = ?", draft.id)
    message = read_back(stored(house, draft.id))
    assert (str(message["Subject"]), str(message["Message-ID"])) == (subject, message_id)


SUBJECTS = [
    "Offer",
    "Angebot f\u00fcr Jane",
    "\U0001f600",
    "a  b   c",
    "Re: [x] =?utf-8?q?not_decoded?=",
    "=?x?q?y?= =?z?q?w?=",
    "word " * 39 + "end",
    "a" * 200,
    "\u00e9" * 200,
    "\u4f8b " * 99 + "x",
    "tab\tinside",
    "Subject: inside",
    "a, b; c: d",
    '100 % "quoted" \\ <angle>',
    "a" + " " * 120 + "b",
    "\u00e9" + " " * 120 + "b",
    "f\u00fcr " * 49,
    "a =? b ?= c",
    "\u202eabc",
    "no\u00a0break",
]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_is_read_back_as_it_was_given(house: House, subject: str) -> None:
    draft = house.draft(subject=subject)
    assert draft.subject == subject
    found = str(read_back(stored(house, draft.id))["Subject"])
    assert found == subject


def test_a_control_character_is_refused_or_kept_but_never_replaced(house: House) -> None:
    for subject in ("next\x85line", "control\x9bsequence"):
        try:
            draft = house.draft(subject=subject)
        except PolicyRefused as refused:
            assert refused.code is Code.HEADER_INJECTION  # noqa: PT017  a refusal is as good
            continue
        assert draft.subject == subject


NAMES = [
    "a.txt",
    "with blanks.txt",
    "\u00dcbersicht \U0001f600.pdf",
    'quo"ted.txt',
    "back\\slash.txt",
    "semi;colon.txt",
    "comma, and (comment).txt",
    "100%.txt",
    "per%41cent.txt",
    "a='b'.txt",
    "utf-8''x.txt",
    "a" * 250,
    "\u00e9" * 120,
    ".",
    "..",
    "../../etc/passwd",
    "<angle>.txt",
    "tab\tinside.txt",
    "=?utf-8?q?x?=.txt",
    "'single'.txt",
    "many   blanks   inside.txt",
    "long name with blanks " * 8 + ".txt",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_attachment_is_read_back_octet_by_octet_under_its_name(house: House, name: str) -> None:
    octets = bytes(range(256)) * 3 + b"\r\n\n\r.\r\n--outbox"
    draft = house.draft(attachments=(Attachment(name, "application/x-thing", octets),))
    (part,) = read_back(stored(house, draft.id)).iter_attachments()
    assert part.get_filename() == name
    assert part.get_content() == octets
    assert part.get_content_type() == "application/x-thing"


def test_an_attached_text_keeps_its_line_ends(house: House) -> None:
    octets = b"a\nb\r\nc\rd"
    draft = house.draft(attachments=(Attachment("a.txt", "text/plain", octets), Attachment("none", "a/b", b"")))
    first, second = read_back(stored(house, draft.id)).iter_attachments()
    assert (first.get_payload(decode=True), second.get_payload(decode=True)) == (octets, b"")
