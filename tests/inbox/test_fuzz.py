"""Whatever arrives: nothing raises, and nothing approves but an approving word that its author wrote, alone.

FUZZ_EXAMPLES, where it is set, is how many examples each test tries; they are then drawn anew each time.
"""

from __future__ import annotations

import base64
import os
import quopri
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from outbox.inbox.incoming import dated_at, message_id_of, only_author, parse_incoming, read_letter, why_automatic
from outbox.inbox.verdict import APPROVING, CANCELLING, REJECTING, Reading, Verdict, read_letter_verdict, read_verdict
from tests.house import APPROVAL, FOUNDER
from tests.inbox.fuzzing import targets
from tests.inbox.guarded import SIGNED, Guarded, published
from tests.inbox.letters import Asked, Letter, letters
from tests.relay.recording import RecordingRelay

ROOT = Path(__file__).parents[2]
_MANY = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def tried(examples: int) -> settings:
    """So many examples, always the same ones, unless more are asked for."""
    return settings(
        max_examples=_MANY or max(10, examples // 5),
        deadline=None,
        derandomize=not _MANY,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


WORDS = [*APPROVING, *REJECTING, *CANCELLING]
HEADS = [
    "on",
    "am",
    "le",
    "el",
    "from:",
    "von:",
    "sent",
    "get",
    "--",
    "-",
    "_",
    ">",
    "|",
    "wrote:",
    "schrieb",
    "15",
    "@",
]
PIECES = [
    *HEADS, *WORDS, "but", "fix", "price", "?", "!", ".", ":", "\u200b", "\u202e", "\u2028", "\x0b", "\x85", "\r", "\0",
]  # fmt: skip
texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*PIECES, " ", "\n", "\n\n", "\t", "\u00a0"]), max_size=30).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
)
approving = st.sampled_from(APPROVING)
# Words that are on no list, and some that begin what is on one.
ordinary = st.sampled_from(
    [
        "on", "am", "le", "el", "sent", "get", "from", "to", "subject", "fix", "the", "price", "first", "but", "not",
        "jane", "reflection", "please", "90", "page", "outbox", "wrote", "monday", "18.01.2027", "10:00",
    ]
)  # fmt: skip
remarks = st.lists(ordinary, min_size=1, max_size=8).map(" ".join)
OWN = 'The agent sales asks to send this mail. Reply "Ship it", and it is sent; else it is not.\n\nDear Jane,\n\nyes.\n'
ATTRIBUTIONS = [
    f"On Fri, 15 Jan 2027 at 08:00, Outbox <{APPROVAL}> wrote:",
    f"On Fri, Jan 15, 2027 at 8:00 AM Outbox <{APPROVAL}>\nwrote:",
    "Am 15.01.27 um 08:00 schrieb Outbox:",
    "Le 15/01/2027 à 08:00, Outbox a écrit :",
    f"El vie, 15 ene 2027 a las 8:00, Outbox (<{APPROVAL}>) escribió:",
]
BLOCKS = [
    f"From: Outbox <{APPROVAL}>\nSent: Friday, 15 January 2027 08:00\nTo: The Founder\nSubject: [outbox aaaaaa] x",
    f"Von: Outbox <{APPROVAL}>\nGesendet: Freitag, 15. Januar 2027 08:00\nAn: The Founder\nBetreff: [outbox aaaaaa] x",
]
RULES = ["", "________________________________\n", "-----Original Message-----\n"]
CLOSINGS = ["", "Sent from my iPhone\n\n", "Von meinem iPhone gesendet\n\n", "-- \nThe Founder\n\n"]


def marked(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines() or [""])


def is_alone(lines: list[str]) -> bool:
    """Written apart from the package: whether what an author wrote is an approving word and nothing more."""
    return len(lines) == 1 and normalised(lines[0]) in APPROVING


def normalised(line: str) -> str:
    """Written apart from the package: how a first line is compared."""
    plain = unicodedata.normalize("NFKC", line.replace("\u2018", "'").replace("\u2019", "'")).casefold()
    words = " ".join(plain.split()).removeprefix("¡")
    return words[:-1].rstrip() if words[-1:] in {".", "!"} else words


def first_line(text: str) -> str:
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def read(text: str, own: str = OWN) -> Reading:
    return read_verdict(text, originals=[own], address=APPROVAL)


class TestAnyText:
    """No structure at all."""

    @tried(400)
    @given(texts, st.lists(st.text(max_size=20), max_size=3))
    def test_only_a_first_line_that_is_a_word_is_a_verdict(self, text: str, closing: list[str]) -> None:
        reading = read_verdict(text, closing, [OWN], address=APPROVAL)
        if reading.verdict is Verdict.APPROVE:
            assert normalised(first_line(text)) in APPROVING
            assert reading.reason is None
        if reading.verdict is Verdict.CANCEL:
            assert normalised(first_line(text)) in CANCELLING
        if reading.verdict is Verdict.REJECT:
            assert normalised(first_line(text)).startswith(REJECTING)
        assert reading.why

    @tried(300)
    @given(approving, texts, texts)
    def test_words_around_an_approving_word_take_it_away(self, word: str, before: str, after: str) -> None:
        if normalised(first_line(f"{before}{word}{after}")) not in APPROVING:
            assert read(f"{before}{word}{after}").verdict is not Verdict.APPROVE

    @tried(300)
    @given(texts)
    def test_quoting_a_text_takes_its_verdict_away(self, text: str) -> None:
        assert read(marked(text.replace("\r", "\n"))).verdict is Verdict.UNCLEAR

    @tried(300)
    @given(texts, texts)
    def test_more_text_below_never_makes_an_approval(self, text: str, more: str) -> None:
        if read(text).verdict is not Verdict.APPROVE and first_line(text):
            assert read(f"{text}\n{more}").verdict is not Verdict.APPROVE or ">" in more  # it makes heads of quotes


@dataclass(frozen=True)
class Written:
    """A reply in plain text, and the lines of it that its author wrote."""

    text: str
    own: tuple[str, ...]


@st.composite
def replies(draw: st.DrawFn, quoted: st.SearchStrategy[str] = texts) -> Written:
    """A verdict or not, quotes in the manner of clients anywhere, and remarks between them."""
    first = draw(st.one_of(approving, approving, st.sampled_from(WORDS), remarks))
    pieces, own = [first, draw(st.sampled_from(["", "", "\n"]))], [first]
    for kind in draw(st.lists(st.sampled_from(["remark", "marked", "block", "closing", "own"]), max_size=4)):
        if kind == "remark":
            own.append(draw(remarks))
            pieces.append(own[-1])
        elif kind == "closing":
            pieces.append(draw(st.sampled_from(CLOSINGS)))
        elif kind == "own":
            pieces.append(draw(st.sampled_from(RULES)) + draw(st.sampled_from(BLOCKS)) + f"\n\n{OWN}")
        else:
            head = draw(st.sampled_from(ATTRIBUTIONS if kind == "marked" else BLOCKS))
            pieces.append(f"{head}\n{marked(draw(quoted).replace(chr(13), ' '))}")
        pieces.append(draw(st.sampled_from(["", "", "\n"])))
    return Written("\n".join(pieces), tuple(own))


class TestPlainReplies:
    """Replies whose author's words are known, because they were put together from them."""

    @tried(600)
    @given(replies())
    def test_an_approval_is_an_approving_word_alone(self, reply: Written) -> None:
        if read(reply.text).verdict is Verdict.APPROVE:
            assert is_alone(list(reply.own)), reply.text

    @tried(300)
    @given(st.data())
    def test_whatever_stands_in_a_quote_never_matters(self, data: st.DataObject) -> None:
        """Two replies that differ in their quotes alone."""
        draws = data.draw(st.integers(0, 2**64 - 1))
        places = [data.draw(texts) for _ in range(2)]
        shapes = [_shape(draws, place) for place in places]
        assert read(shapes[0]) == read(shapes[1])

    @tried(200)
    @given(approving, remarks, st.sampled_from(ATTRIBUTIONS), st.sampled_from(["\n", "\n\n", "\n \n"]))
    def test_a_remark_below_an_approval_is_never_part_of_it(self, word: str, said: str, head: str, gap: str) -> None:
        assert read(f"{word}{gap}{said}").verdict is Verdict.UNCLEAR
        assert read(f"{word}{gap}{said}\n\n{head}\n> a\n").verdict is Verdict.UNCLEAR

    @tried(200)
    @given(approving, st.sampled_from([*ATTRIBUTIONS, *BLOCKS]), texts, st.sampled_from(CLOSINGS), st.booleans())
    def test_an_approval_above_a_quote_is_one(self, word: str, head: str, quoted: str, end: str, bare: bool) -> None:
        quote = OWN if bare and head in BLOCKS else marked(quoted.replace("\r", " "))
        assert read(f"\n{word}\n\n{end}{head}\n{quote}\n").verdict is Verdict.APPROVE


def _shape(number: int, quoted: str) -> str:
    """The reply that a number stands for, with this in its quotes."""
    pieces = [WORDS[number % len(WORDS)]]
    for _ in range(3):
        number //= len(WORDS)
        head = [*ATTRIBUTIONS, *BLOCKS, ""][number % 8]
        pieces += ["", head, marked(quoted.replace("\r", " ")), ["", "but fix the price", "Stop"][number % 3]]
    return "\n".join(pieces)


BOXES = [
    "<div>{}</div>", "<p>{}</p>", "<div><div>{}</div></div>", "<table><tr><td>{}</td></tr></table>",
    '<div dir="ltr">{}</div>', "<ul><li>{}</li></ul>", "<center>{}</center>", '<p class="MsoNormal">{}</p>',
    '<div style="font-family:sans-serif;font-size:12pt;color:#222">{}</div>', "<!-- Stop --><div>{}</div>",
]  # fmt: skip
SPANS = [
    "{}",
    "<b>{}</b>",
    "<span>{}</span>",
    '<font size="2">{}</font>',
    '<a href="https://acme.example/">{}</a>',
    "<i>{}",
]
CONTAINERS = [
    '<blockquote type="cite">{}</blockquote>', '<blockquote class="gmail_quote" style="margin:0">{}</blockquote>',
    '<blockquote class="protonmail_quote" type="cite">{}</blockquote>', "<BLOCKQUOTE TYPE=CITE>{}</BLOCKQUOTE>",
    '<blockquote style="margin:0 0 0 .8ex;border-left:1px solid #ccc;padding-left:1ex">{}</blockquote>',
    '<blockquote type="cite"><div><blockquote type="cite">{}</blockquote></div></blockquote>',
    '<blockquote type="cite"><table><tr><td>{}</td></tr></table></blockquote>',
]  # fmt: skip
STRAY = [
    "",
    "",
    "</div>",
    "</span>",
    "</td>",
    "</b>",
    "<p>",
    "<td>",
    "</table>",
    "<li>",
    "</p>",
    "<tr>",
    "</h1>",
    "<form>",
]


@st.composite
def pages(draw: st.DrawFn) -> Written:
    """The same in HTML; stray tags stand in the quotes, and between the blocks."""
    body, own = [], []
    first = draw(st.one_of(approving, approving, remarks))
    for number, kind in enumerate(
        ["first", *draw(st.lists(st.sampled_from(["quote", "quote", "remark"]), max_size=4))]
    ):
        if kind == "quote":
            inner = "".join(
                draw(st.sampled_from(STRAY)) + draw(st.sampled_from(BOXES)).format(escape(said))
                for said in draw(st.lists(st.one_of(st.sampled_from(WORDS), remarks), max_size=3))
            )
            body.append(draw(st.sampled_from(CONTAINERS)).format(inner))
        else:
            own.append(first if number == 0 else draw(remarks))
            words = draw(st.sampled_from(SPANS)).format(escape(own[-1]))
            body.append(draw(st.sampled_from(BOXES)).format(words))
        body.append(draw(st.sampled_from(STRAY)))
    page = "\n".join(body) if draw(st.booleans()) else "".join(body)
    return Written(draw(st.sampled_from(["{}", "<html><head></head><body>{}</body></html>"])).format(page), tuple(own))


def read_octets(octets: bytes) -> Reading:
    return read_letter_verdict(read_letter(parse_incoming(octets)), originals=[OWN], address=APPROVAL)


def html_letter(page: str) -> bytes:
    return f"Content-Type: text/html; charset=utf-8\n\n{page}".encode()


class TestPages:
    """Replies in HTML alone."""

    @tried(600)
    @given(pages())
    def test_an_approval_is_an_approving_word_alone(self, page: Written) -> None:
        if read_octets(html_letter(page.text)).verdict is Verdict.APPROVE:
            assert is_alone(list(page.own)), page.text

    @tried(200)
    @given(approving, st.sampled_from(BOXES), st.sampled_from(CONTAINERS), texts)
    def test_an_approval_above_a_quote_is_one(self, word: str, box: str, container: str, quoted: str) -> None:
        inner = escape(quoted.replace("\0", ""))
        assert read_octets(html_letter(box.format(word) + container.format(inner))).verdict is Verdict.APPROVE

    @tried(200)
    @given(st.lists(st.sampled_from([*BOXES, *CONTAINERS, *STRAY, *SPANS]), max_size=8), texts)
    def test_a_page_of_quotes_alone_says_nothing(self, boxes: list[str], text: str) -> None:
        inner = "".join(box.format(escape(text.replace("\0", ""))) for box in boxes)
        assert read_octets(html_letter(f"<blockquote type=cite>{inner}")).verdict is Verdict.UNCLEAR


ENCODINGS = ["8bit", "base64", "quoted-printable"]
FILES = [
    'Content-Type: image/png; name="a.png"\nContent-Transfer-Encoding: base64\n\niVBORw0KGgo=\n',
    'Content-Type: text/plain\nContent-Disposition: attachment; filename="Ship it.txt"\n\nShip it\n',
    "Content-Type: message/rfc822\n\nFrom: founder@acme.example\nSubject: Ship it\n\nShip it\n",
    "Content-Type: application/pgp-signature\n\nShip it\n",
]


def part_of(text: str, kind: str, encoding: str) -> str:
    octets = text.encode()
    body = {
        "8bit": text,
        "base64": base64.encodebytes(octets).decode(),
        "quoted-printable": quopri.encodestring(octets).decode(),
    }[encoding]
    return f"Content-Type: text/{kind}; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n\n{body}\n"


@st.composite
def whole_letters(draw: st.DrawFn) -> tuple[bytes, list[Written]]:
    """A letter with parts, and what its author wrote in each of them that is text."""
    kind = draw(st.sampled_from(["alternative", "mixed", "related", "signed"]))
    written, parts = [], []
    for subtype in draw(
        st.sampled_from([["plain"], ["html"], ["plain", "html"], ["html", "plain"], ["plain", "plain"]])
    ):
        text = draw(replies() if subtype == "plain" else pages())
        assume("\r" not in text.text and "\n--b" not in text.text)
        written.append(replace(text, own=tuple(text.own)))
        parts.append(part_of(text.text, subtype, draw(st.sampled_from(ENCODINGS))))
    parts += draw(st.lists(st.sampled_from(FILES), max_size=2))
    head = f'MIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary="b"\n\n'
    body = "".join(f"--b\n{part}\n" for part in parts)
    return (head + body + "--b--\n").encode("utf-8", "replace"), written


class TestWholeLetters:
    """Several parts."""

    @tried(400)
    @given(whole_letters())
    def test_an_approval_is_an_approving_word_alone_in_every_part(self, letter: tuple[bytes, list[Written]]) -> None:
        octets, written = letter
        if read_octets(octets).verdict is Verdict.APPROVE:
            assert all(is_alone(list(one.own)) for one in written), octets


FIELDS = [
    "From", "To", "Cc", "Date", "Message-ID", "In-Reply-To", "References", "Content-Type", "Subject", "Return-Path",
    "Content-Transfer-Encoding", "Auto-Submitted", "Delivered-To", "MIME-Version", "X-", " ", ":",
]  # fmt: skip
VALUES = [
    FOUNDER, f"<{FOUNDER}>", f'"a" <{FOUNDER}>', "a@b.example, c@d.example", "<>", "", "{{REPLY_TO}}", "{{REQUEST_ID}}",
    "{{OTHER_REPLY_TO}}", "{{DATE}}", "Fri, 99 Foo 2027", "0", "9" * 30, "<a@b>", "<a b@c>", "text/plain",
    "text/plain; charset=utf-7", "text/plain; charset=undefined", "text/plain; charset=idna",
    "text/plain; charset*=utf-8'en'x", "text/plain; charset*0=u; charset*1=tf-8", 'text/plain; charset="\0"',
    "text/html", 'multipart/mixed; boundary="b"', "multipart/alternative; boundary=b", "multipart/mixed",
    "message/rfc822", "multipart/digest; boundary=b", "multipart/mixed; boundary*=utf-8''b", "text/plain; boundary",
    "multipart/mixed; boundary*=\0''b", "/", ";;;=", "base64", "quoted-printable", "x-uuencode", "7bit", "8bit",
    "\x80\xff", "=?utf-8?q?=0D=0A?=", "\x01", "auto-replied", "no",
]  # fmt: skip
LINES = [
    "", "--b", "--b--", "Ship it", "> Ship it", "U2hpcCBpdA==", "=53hip it", "=", "begin 644 x", "-- ", "+2AA-", "\xe9",
    " folded", "\tfolded", "From x", " ", "<p>", "<blockquote type=cite>",
]  # fmt: skip
fields = st.builds(lambda name, value: f"{name}: {value}", st.sampled_from(FIELDS), st.sampled_from(VALUES))
TYPES = [value for value in VALUES if "/" in value]
bodies = st.one_of(
    st.binary(max_size=60), st.sampled_from(["Ship it", "Grüße", "--b\n\nShip it\n--b--"]).map(str.encode)
)
typed = st.builds(
    lambda kind, coding, body: (
        f"Content-Type: {kind}\nContent-Transfer-Encoding: {coding}\n\n".encode("latin-1") + body
    ),
    st.sampled_from(TYPES),
    st.sampled_from(["7bit", "8bit", "base64", "quoted-printable", "x-uuencode", "?"]),
    bodies,
)
lined = st.lists(st.one_of(fields, st.sampled_from(LINES)), max_size=25)
raw = st.one_of(
    typed,
    st.binary(max_size=400),
    lined.map(lambda some: "\n".join(some).encode("latin-1")),
    lined.map(lambda some: "\r\n".join(some).encode("utf-8")),
)


class TestAnyOctets:
    """What is no letter, or half of one."""

    @tried(500)
    @given(raw)
    def test_reading_never_raises(self, octets: bytes) -> None:
        incoming = parse_incoming(octets)
        author, why = only_author(incoming)
        assert (author is None) == bool(why)
        letter = read_letter(incoming)
        assert (letter.plain is None and letter.html is None) == bool(letter.why)
        read_letter_verdict(letter)
        message_id_of(incoming)
        dated_at(incoming)
        why_automatic(incoming)

    @tried(200)
    @given(raw)
    def test_judging_never_raises_and_believes_the_approver_alone(self, asked: Asked, octets: bytes) -> None:
        for word, value in asked.words().items():
            octets = octets.replace(b"{{" + word.encode() + b"}}", value.encode())
        judgement = asked.explain(octets)
        if judgement.counts:
            assert judgement.request is not None
            assert judgement.sender == FOUNDER
            assert judgement.reading.verdict is not Verdict.UNCLEAR

    @tried(100)
    @given(st.integers(0, 38), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
    def test_a_token_with_any_character_changed_is_none_of_ours(self, asked: Asked, at: int, character: str) -> None:
        token = asked.words()["TOKEN"]
        changed = token[:at] + character + token[at + 1 :]
        to = f"approve+{changed}@acme.example"
        octets = asked.letter(b"\nShip it\n", To=to, In_Reply_To=None, Subject=f"Re: {asked.request['Subject']}")
        assert asked.explain(octets).counts == (changed == token)


@pytest.fixture(scope="module")
def another(asked_once: Asked, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Asked]]:
    """Builds a house that has asked, for each example one."""

    def build() -> Asked:
        folder = tmp_path_factory.mktemp("another") / "house"
        house = asked_once.house.copied(folder, relay)
        return replace(asked_once, house=house)

    with RecordingRelay() as relay:
        yield build


class TestTheLoop:
    """A whole mailbox."""

    @tried(15)
    @given(st.lists(raw, min_size=5, max_size=25))
    def test_whatever_lies_in_the_mailbox_what_comes_after_it_is_read(
        self, another: Callable[[], Asked], some: list[bytes]
    ) -> None:
        asked = another()
        for number, octets in enumerate(some):
            ours = f"To: {asked.request['Reply-To']}\nFrom: {FOUNDER}\n".encode() if number % 2 else b""
            asked.house.deliver(ours + octets)
        asked.house.reply(asked.other, "Ship it")
        asked.house.inbox()
        assert asked.states()[1] == "approved"
        assert not any("could not be read" in reply.why for reply in asked.house.replies())


@pytest.fixture(scope="module")
def proving(asked_once: Asked, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A house that believes DKIM, in which nothing is ever taken."""
    folder = tmp_path_factory.mktemp("proving") / "house"
    with published() as zone, RecordingRelay() as relay:
        house = asked_once.house.copied(folder, relay)
        yield Guarded.build(replace(asked_once, house=house), "dkim", zone)


CORPUS = [*letters("replies"), *(one for one in letters("hostile") if not {"house", "set"} & one.expected.keys())]
# Letters whose words do not approve: not where their header alone says so, which not every provider signs, and not
# where an approval stands in them under another encoding, which nobody writes.
CODED = ("base64", "charset", "content-t", "flowed", "quoted-printable")
NEVER = [
    one
    for one in CORPUS
    if not one.name.startswith(CODED)
    if "approve" not in one.expected.get("verdict", "approve")
    or str(one.expected.get("why", "")).startswith("verdict:")
]
GOOD = [one for one in CORPUS if one.expected.get("verdict") == "approve"]
CONTENT = [
    "text/plain", "text/html", "text/plain; format=flowed; delsp=yes", "text/plain; charset=utf-16", "multipart/mixed",
    'multipart/mixed; boundary="b"', "text/plain; charset=cp037", "message/rfc822", "multipart/digest; boundary=b",
]  # fmt: skip
# What a signature lets pass: fields that it does not cover, and blanks where they end a line (RFC 6376 3.4.4).
ADDED = [
    "Content-Type: {content}", "Content-Transfer-Encoding: base64", "Content-Transfer-Encoding: quoted-printable",
    "Content-Disposition: inline", "Delivered-To: {{{{REPLY_TO}}}}", "X-Original-To: {{{{REPLY_TO}}}}",
    "Cc: {{{{REPLY_TO}}}}", "To: {{{{REPLY_TO}}}}", "Subject: Re: {{{{SUBJECT}}}}", "In-Reply-To: {{{{REQUEST_ID}}}}",
    "References: {{{{REQUEST_ID}}}}", "Date: {{{{DATE}}}}", "From: {{{{APPROVER}}}}", "Message-ID: <new@mail.example>",
]  # fmt: skip


@st.composite
def tampering(draw: st.DrawFn) -> list[tuple[str, int, str]]:
    """What somebody does to a letter that he holds: a verb, a place, and what for."""
    added = st.sampled_from(ADDED).map(lambda line: line.format(content=CONTENT[draw(st.integers(0, 8))]))
    return draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("add"), st.just(0), added),
                st.tuples(st.just("drop"), st.integers(0, 30), st.just("")),
                st.tuples(st.just("blank"), st.integers(0, 200), st.sampled_from([" ", "\t", "  "])),
                st.tuples(st.just("double"), st.integers(0, 200), st.just("")),
            ),
            min_size=1,
            max_size=5,
        )
    )


def tampered(asked: Asked, octets: bytes, steps: list[tuple[str, int, str]]) -> bytes:
    """`octets` after that; the verbs leave a signature whole that does not cover what they change."""
    head, _, body = octets.partition(b"\n\n")
    lines, texts_below = head.split(b"\n"), body.split(b"\n")
    for verb, place, value in steps:
        if verb == "add":
            for word, filled in asked.words().items():
                value = value.replace("{{" + word + "}}", filled)  # noqa: PLW2901  once for each word
            name = value.partition(":")[0].lower().encode()
            lines = [value.encode(), *(line for line in lines if not line.lower().startswith(name + b":"))]
        elif verb == "drop":
            del lines[place % len(lines)]
        elif verb == "blank":
            texts_below[place % len(texts_below)] += value.encode()
        else:
            texts_below[place % len(texts_below)] = texts_below[place % len(texts_below)].replace(b" ", b" \t ")
    return b"\n".join(lines) + b"\n\n" + b"\n".join(texts_below)


class TestTampering:
    """What somebody makes of letters that he gets hold of, here and there with a good signature."""

    @tried(150)
    @given(st.sampled_from(NEVER), st.sampled_from(sorted(SIGNED)), tampering())
    def test_a_signed_letter_that_does_not_approve_never_will(
        self, proving: Guarded, letter: Letter, like: str, steps: list[tuple[str, int, str]]
    ) -> None:
        asked = proving.asked
        octets = tampered(asked, proving.proved(letter.filled(asked).replace(b"\r\n", b"\n"), like=like), steps)
        said = proving.explain(octets)
        assert not (said.counts and said.reading.verdict is Verdict.APPROVE), octets.decode("utf-8", "replace")

    @tried(80)
    @given(st.sampled_from(GOOD), st.sampled_from(sorted(SIGNED)), tampering())
    def test_a_signed_approval_counts_for_its_own_draft_or_not_at_all(
        self, proving: Guarded, letter: Letter, like: str, steps: list[tuple[str, int, str]]
    ) -> None:
        asked = proving.asked
        turned = [(verb, place, value.replace("{{", "{{OTHER_")) for verb, place, value in steps]
        octets = tampered(asked, proving.proved(letter.filled(asked).replace(b"\r\n", b"\n"), like=like), turned)
        said = proving.explain(octets)
        if said.counts:
            assert said.request is not None
            assert said.request.draft_id == asked.draft_id

    @tried(200)
    @given(st.sampled_from(GOOD), st.integers(0, 2**20), st.binary(min_size=1, max_size=3))
    def test_a_damaged_reply_never_counts_for_another_draft(
        self, asked: Asked, letter: Letter, at: int, junk: bytes
    ) -> None:
        octets = letter.filled(asked)
        at %= len(octets)
        judgement = asked.explain(octets[:at] + junk + octets[at + len(junk) :])
        if judgement.counts:
            assert judgement.request is not None
            assert judgement.request.draft_id == asked.draft_id
            assert judgement.sender == FOUNDER

    @tried(150)
    @given(
        st.lists(st.sampled_from(CORPUS), min_size=2, max_size=2),
        st.lists(st.integers(0, 10**6), min_size=4, max_size=4),
    )
    def test_letters_cut_and_put_together_again_never_raise(
        self, asked: Asked, two: list[Letter], places: list[int]
    ) -> None:
        first, second = (letter.filled(asked) for letter in two)
        cuts = [first[: places[0] % len(first)], second[places[1] % len(second) :], first[places[2] % len(first) :]]
        incoming = parse_incoming(bytes(chain.from_iterable(cuts)))
        read_letter_verdict(read_letter(incoming))
        only_author(incoming)
        why_automatic(incoming)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_every_letter_that_make_fuzz_begins_with_passes(target: str) -> None:
    for seed in targets.seeds(target):
        targets.TARGETS[target](seed)


def test_some_letters_that_make_fuzz_begins_with_are_proved() -> None:
    assert sum(targets.is_proved(seed) for seed in targets.seeds("signature")) > 100


@pytest.mark.parametrize("word", APPROVING)
def test_every_approving_word_survives_its_own_normalisation(word: str) -> None:
    assert normalised(word) == word


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_many_more_examples_drawn_anew_pass_too() -> None:
    """This file in a process of its own, so that FUZZ_EXAMPLES holds for it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=600", __file__]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"FUZZ_EXAMPLES": "500"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:]
