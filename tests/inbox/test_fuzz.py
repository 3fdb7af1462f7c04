"""Whatever arrives: nothing raises, and nothing approves but a first line that is one of the words, alone."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox.inbox.incoming import dated_at, message_id_of, only_author, parse_incoming, plain_text, why_automatic
from outbox.inbox.verdict import APPROVING, CANCELLING, REJECTING, Verdict, read_verdict
from tests.inbox.letters import Asked, Letter, letters

bounded = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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
    *HEADS,
    *WORDS,
    "but",
    "fix",
    "price",
    "?",
    "!",
    ".",
    ":",
    "\u200b",
    "\u202e",
    "\u2028",
    "\x0b",
    "\x85",
    "\r",
    "\0",
]
texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*PIECES, " ", "\n", "\n\n", "\t", "\u00a0"]), max_size=30).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
)
quotes = st.sampled_from(
    [
        "",
        "\n> Ship it\n",
        "\n\nOn Fri, 15 Jan 2027 at 08:00, Outbox <approve@acme.example> wrote:\n> a\n",
        "\n\nOn Fri, Jan 15, 2027 at 8:00 AM Outbox <approve@acme.example>\nwrote:\n\n> a\n",
        "\n\nAm 15.01.27 um 08:00 schrieb Outbox:\n> a\n",
        "\n\nLe 15/01/2027 à 08:00, Outbox a écrit :\n> a\n",
        "\n\nSent from my iPhone\n\n> On 15 Jan 2027, at 08:00, Outbox wrote:\n> a\n",
        "\n-- \nThe Founder\n",
        "\n\n________________________________\nFrom: Outbox <a@b.example>\nSent: Friday\nTo: x\nSubject: y\n\na\n",
    ]
)
ordinary = st.sampled_from(
    ["on", "am", "le", "el", "fix", "the", "price", "first", "but", "not", "jane", "reflection", "please", "90", "page"]
)
remarks = st.lists(ordinary, min_size=1, max_size=8).map(" ".join)


def normalised(line: str) -> str:
    """Written apart from the package: how a first line is compared."""
    plain = unicodedata.normalize("NFKC", line.replace("\u2018", "'").replace("\u2019", "'")).casefold()
    words = " ".join(plain.split())
    return words[:-1].rstrip() if words[-1:] in {".", "!"} else words


def first_line(text: str) -> str:
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


@bounded
@given(texts, st.lists(st.text(max_size=20), max_size=3))
def test_only_a_first_line_that_is_an_approving_word_approves(text: str, closing: list[str]) -> None:
    reading = read_verdict(text, closing)
    if reading.verdict is Verdict.APPROVE:
        assert normalised(first_line(text)) in APPROVING
        assert reading.reason is None
    if reading.verdict is Verdict.CANCEL:
        assert normalised(first_line(text)) in CANCELLING
    if reading.verdict is Verdict.REJECT:
        assert normalised(first_line(text)).startswith(REJECTING)
    assert reading.why


@bounded
@given(st.sampled_from(APPROVING), remarks, quotes, st.sampled_from(["\n", "\n\n", "\n \n"]))
def test_a_remark_below_an_approval_is_never_part_of_it(word: str, remark: str, quote: str, gap: str) -> None:
    assert read_verdict(f"{word}{gap}{remark}{quote}").verdict is Verdict.UNCLEAR


def quote_of(quote: str) -> str:
    """What an unmarked quote quotes: the text below its header block."""
    return quote.partition("Subject: y\n")[2]


@bounded
@given(st.sampled_from(APPROVING), quotes, st.sampled_from(["\n", "\n\n"]))
def test_an_approval_above_a_quote_is_one(word: str, quote: str, gap: str) -> None:
    assert read_verdict(f"{gap}{word}{quote}", originals=[quote_of(quote)]).verdict is Verdict.APPROVE


@bounded
@given(st.sampled_from(APPROVING), texts, texts)
def test_words_around_an_approving_word_on_its_line_are_unclear_or_refuse(word: str, before: str, after: str) -> None:
    reading = read_verdict(f"{before}{word}{after}")
    if normalised(first_line(f"{before}{word}{after}")) not in APPROVING:
        assert reading.verdict is not Verdict.APPROVE


@bounded
@given(texts)
def test_quoting_a_text_takes_its_verdict_away(text: str) -> None:
    quoted = "\n".join(f"> {line}" for line in text.split("\n"))
    assert read_verdict(quoted).verdict is Verdict.UNCLEAR


@bounded
@given(texts, texts)
def test_more_text_below_never_makes_an_approval(text: str, more: str) -> None:
    if read_verdict(text).verdict is not Verdict.APPROVE and first_line(text):
        after = read_verdict(f"{text}\n{more}")
        assert after.verdict is not Verdict.APPROVE or ">" in more  # a quote can make "On ... wrote:" an attribution


FIELDS = [
    "From",
    "To",
    "Cc",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Content-Type",
    "Subject",
    "Content-Transfer-Encoding",
    "Auto-Submitted",
    "Return-Path",
    "Delivered-To",
    "MIME-Version",
    "X-",
    " ",
    ":",
]
VALUES = [
    "founder@acme.example",
    "<founder@acme.example>",
    '"a" <founder@acme.example>',
    "a@b.example, c@d.example",
    "<>",
    "",
    "{{REPLY_TO}}",
    "{{REQUEST_ID}}",
    "{{OTHER_REPLY_TO}}",
    "{{DATE}}",
    "Fri, 99 Foo 2027",
    "0",
    "9" * 30,
    "<a@b>",
    "<a b@c>",
    "text/plain",
    "text/plain; charset=utf-7",
    "text/plain; charset=undefined",
    "text/plain; charset=idna",
    "text/plain; charset*=utf-8'en'x",
    "text/plain; charset*0=u; charset*1=tf-8",
    'text/plain; charset="\0"',
    "text/html",
    'multipart/mixed; boundary="b"',
    "multipart/alternative; boundary=b",
    "multipart/mixed",
    "message/rfc822",
    "multipart/digest; boundary=b",
    "multipart/mixed; boundary*=utf-8''b",
    "text/plain; boundary",
    "/",
    ";;;=",
    "base64",
    "quoted-printable",
    "x-uuencode",
    "7bit",
    "8bit",
    "\x80\xff",
    "=?utf-8?q?=0D=0A?=",
    "\x01",
    "auto-replied",
    "no",
]
LINES = [
    "",
    "--b",
    "--b--",
    "Ship it",
    "> Ship it",
    "U2hpcCBpdA==",
    "=53hip it",
    "=",
    "begin 644 x",
    "-- ",
    "+2AA-",
    "\xe9",
    " folded",
    "\tfolded",
    "From x",
]
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
raw = st.one_of(
    typed,
    st.binary(max_size=400),
    st.lists(st.one_of(fields, st.sampled_from(LINES)), max_size=25).map(
        lambda some: "\n".join(some).encode("latin-1")
    ),
    st.lists(st.one_of(fields, st.sampled_from(LINES)), max_size=25).map(
        lambda some: "\r\n".join(some).encode("utf-8")
    ),
)


@bounded
@given(raw)
def test_reading_a_letter_never_raises(octets: bytes) -> None:
    incoming = parse_incoming(octets)
    author, why = only_author(incoming)
    assert (author is None) == bool(why)
    written = plain_text(incoming)
    assert (written.text is None) == bool(written.why)
    message_id_of(incoming)
    dated_at(incoming)
    why_automatic(incoming)


@settings(bounded, max_examples=150)
@given(raw)
def test_judging_a_letter_never_raises_and_believes_the_approver_alone(asked: Asked, octets: bytes) -> None:
    for word, value in asked.words().items():
        octets = octets.replace(b"{{" + word.encode() + b"}}", value.encode())
    judgement = asked.explain(octets)
    if judgement.counts:
        assert judgement.request is not None
        assert judgement.sender == "founder@acme.example"
        assert judgement.reading.verdict is not Verdict.UNCLEAR


GOOD = [one for one in letters("replies") if one.expected["verdict"] == "approve"]


@settings(bounded, max_examples=150)
@given(st.sampled_from(GOOD), st.integers(0, 2**20), st.binary(min_size=1, max_size=3))
def test_a_damaged_reply_never_counts_for_another_draft(asked: Asked, letter: Letter, at: int, junk: bytes) -> None:
    octets = letter.filled(asked)
    at %= len(octets)
    judgement = asked.explain(octets[:at] + junk + octets[at + len(junk) :])
    if judgement.counts:
        assert judgement.request is not None
        assert judgement.request.draft_id == asked.draft_id
        assert judgement.sender == "founder@acme.example"


@settings(bounded, max_examples=100)
@given(st.integers(0, 38), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_token_with_any_character_changed_is_none_of_ours(asked: Asked, at: int, character: str) -> None:
    token = asked.words()["TOKEN"]
    changed = token[:at] + character + token[at + 1 :]
    octets = asked.letter(b"\nShip it\n", To=f"approve+{changed}@acme.example", In_Reply_To=None)
    assert asked.explain(octets).counts == (changed == token)


@pytest.mark.parametrize("word", APPROVING)
def test_every_approving_word_survives_its_own_normalisation(word: str) -> None:
    assert normalised(word) == word
