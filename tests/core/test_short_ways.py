"""What has a short way for the usual case: it ends where the long way ends, octet for octet, refusal for refusal."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
from email import message_from_bytes
from email.encoders import encode_base64
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from enum import StrEnum

import pytest
import rfc8785
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st
from itsdangerous import Signer
from itsdangerous.encoding import base64_decode

from outbox.core import message, rendering
from outbox.core.address import NOT_PLAIN, Mailbox, parse_address, parse_mailboxes
from outbox.core.canonical import encode
from outbox.core.errors import OutboxError, PolicyRefused
from outbox.core.message import Attachment, Content, normalise_lines, split_headers
from outbox.core.signing import KeyRing, Purpose, Signature


class Word(StrEnum):
    """A str that is no plain one."""

    ONE = "one"


TEXT = st.text(max_size=20) | st.text(st.characters(min_codepoint=0, max_codepoint=0x7F), max_size=20)
NAMES = st.sampled_from(["id", "to", "at", "a\u00e9", "\U0001f600", "\ufb01", "", '"', "\ud800"]) | TEXT
NUMBERS = st.integers(-(2**54), 2**54) | st.sampled_from([2**53, 2**53 - 1, -(2**53), 1 - 2**53])
SCALARS = TEXT | NUMBERS | st.none() | st.booleans() | st.floats() | st.sampled_from([Word.ONE, b"octets", "\udfff"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def outcome(work, *given):
    """What it returns, or that it refuses."""
    try:
        return work(*given)
    except (OutboxError, rfc8785.CanonicalizationError, UnicodeEncodeError):
        return "refused"


@given(st.dictionaries(NAMES, VALUES, max_size=8))
@example({"\U0001f600": 1, "\ufb01": 2})  # in UTF-16 they stand the other way round
@example({"a": {Word.ONE: True}})
@example({1: "a"})
def test_canonical_bytes_are_those_of_rfc_8785(fields) -> None:
    assert outcome(encode, fields) == outcome(rfc8785.dumps, fields)


@pytest.mark.parametrize("purpose", Purpose)
@given(payload=st.binary(max_size=200), key=st.binary(min_size=32, max_size=100))
def test_a_mac_is_the_one_that_itsdangerous_makes(purpose, payload, key) -> None:
    signer = Signer(key, salt=purpose.encode(), key_derivation="hmac", digest_method=hashlib.sha256)
    made = signer.get_signature(payload)
    ring = KeyRing([key])
    assert ring.sign(purpose, payload).octets == base64_decode(made)
    assert ring.verify(purpose, payload, Signature(ring.sign(purpose, b"").key_id, base64_decode(made)))
    assert signer.verify_signature(payload, made)


def test_a_ring_makes_the_same_mac_twice() -> None:
    ring = KeyRing([b"k" * 32])
    assert ring.sign(Purpose.JOURNAL, b"one") == ring.sign(Purpose.JOURNAL, b"one")


def as_validated(text: str) -> str:
    """The address as email-validator alone says it."""
    try:
        parsed = validate_email(text, check_deliverability=False, test_environment=True, strict=True)
    except EmailNotValidError:
        return "refused"
    return f"{parsed.local_part}@{(parsed.ascii_domain or parsed.domain).lower()}"


LOCAL = st.text(st.sampled_from("ab9_-+.!#$%&'*/=?^`{|}~A\u00e9 \"\n"), max_size=8)
LABEL = st.text(st.sampled_from("abx9-nA\u00e9_"), max_size=6)
TOP = st.sampled_from(["example", "com", "c", "9", "a9", "xn--p1ai", "EXAMPLE", "example\n", *SPECIAL_USE_DOMAIN_NAMES])
ADDRESSES = st.builds(
    lambda local, labels, top: f"{local}@{'.'.join([*labels, top])}", LOCAL, st.lists(LABEL, max_size=3), TOP
)
LONGEST_DOMAIN = ".".join(["b" * 63, "b" * 63, "b" * 51, "example"])


@given(ADDRESSES)
@example("sales@acme.example")
@example("Sales@acme.example")
@example("a" * 64 + "@acme.example")
@example("a" * 65 + "@acme.example")
@example("a@" + "b" * 63 + ".example")
@example("a@" + "b" * 64 + ".example")
@example("a" * 64 + "@" + LONGEST_DOMAIN)
@example("a" * 63 + "@" + LONGEST_DOMAIN)
@example("a" * 62 + "@" + LONGEST_DOMAIN)
@example("a@ab--c.example")
@example("a@a-b.example")
@example("a@-b.example")
@example("a@b-.example")
@example("a@b.-.example")
@example("a@test")
@example("a@b.test")
@example("a@example")
@example("a@@b.example")
@example("a@b.example\n")
@example("a@b.example.")
def test_an_address_is_what_email_validator_says(text: str) -> None:
    assert outcome(parse_address, text, "to") == as_validated(text)


@given(st.lists(st.sampled_from([",", '"', "\\", " ", "a@x.example", "Jane <b@y.example>", '"Doe, J." <c@z.example>'])))
def test_a_header_without_quotes_is_split_as_one_with_them(parts: list[str]) -> None:
    quoted = '"," <q@x.example>'
    alone, beside = (
        outcome(parse_mailboxes, "".join(parts), "To"),
        outcome(parse_mailboxes, f"{''.join(parts)},{quoted}", "To"),
    )
    if '"' not in "".join(parts) and "\\" not in "".join(parts) and alone not in {"refused", ()}:
        assert beside == (*alone, Mailbox(",", "q@x.example"))


def normal_lines(octets: bytes) -> bytes | str:
    """The rule, line by line."""
    lines = octets.replace(b"\r\n", b"\n").split(b"\n")
    if b"\0" in octets or any(b"\r" in line or len(line) > 998 for line in lines):
        return "refused"
    return b"".join(line + b"\r\n" for line in (lines[:-1] if not lines[-1] else lines))


PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\0", b"a", b"\xff", b"b" * 997, b"c" * 998, b"d" * 999, b"e" * 1000, b"f" * 500]
)


@given(st.lists(PIECES, max_size=12).map(b"".join))
@example(b"a" * 998 + b"\r\n")
@example(b"a" * 999 + b"\r\n")
@example(b"a\r\n" * 400 + b"a" * 998 + b"\r\n")
@example(b"a\r\n" * 400 + b"a" * 999 + b"\r\n")
@example(b"a\r\n" * 333 + b"\r\n")
@example(b"\r\r\n\n")
@example(b"\r\n\r\n")
def test_lines_are_normal_whichever_way_they_are_looked_at(octets: bytes) -> None:
    if octets:
        assert outcome(normalise_lines, octets) == normal_lines(octets)


FIELDS = st.sampled_from(
    [
        b"Subject: Offer",
        b"Subject: =?utf-8?q?Angebot=21?=",
        b"subject: second",
        b"MIME-Version: 1.0",
        b"Content-Type: text/plain",
        b"content-type: Text/Plain; charset=UTF-8",
        b'Content-Type: text/plain; charset="us-ascii"',
        b'Content-Type: text/plain; charset="utf-8"',
        b"Content-Type: text/plain\r\n ; charset=latin-1",
        b"Content-Type: text/plain; name=a.txt",
        b"Content-Type: text/html",
        b"Content-Type : text/html",
        b"Content-Type:text/html",
        b"Content-Type: text/plain\nContent-Type: text/html",
        b"X: a\nContent-Type: text/html",
        b"X: a\rContent-Type: text/html",
        b"X: a\x0bContent-Type: text/html",
        b'Content-Type: multipart/mixed; boundary="b"',
        b"Content-Type: message/rfc822",
        b"Content-Transfer-Encoding: 7bit",
        b"Content-Transfer-Encoding: 8bit",
        b"Content-Transfer-Encoding: quoted-printable",
        b"Content-Transfer-Encoding: quoted-printable ",
        b"Content-Transfer-Encoding: base64",
        b"Content-Disposition: attachment",
        b"From a stranger",
        b" folded",
        b"X-\xff: a",
        b"X: \xff",
        b"",
    ]
)
BODIES = st.lists(
    st.sampled_from(
        [
            b"Dear Jane,", b"\r\n", b"\n", b"\r", b"=20", b"=C3=A9", b"=\r\n", b"=XX", b"\xc3\xa9", b"\xff", b" ",
            b"Content-Type: message/rfc822\r\n", b"--b\r\n", b"boundary=x", b"\x0c", b"From me\r\n", b"aGk=", b".\r\n",
            b"\xed\xa0\x80", b"\0", b"&amp;", b"<p>",
        ]
    ),
    max_size=8,
).map(b"".join)  # fmt: skip
MESSAGES = st.builds(lambda fields, body: b"\r\n".join([*fields, b"", body]), st.lists(FIELDS, max_size=5), BODIES)


@given(MESSAGES)
@example(b"Subject: x\r\nContent-Type: text/plain\r\n\r\n")
@example(b"Subject: x\r\n\r\nhi\r\n")
@example(b"Subject: x\r\n")
@example(b"Subject: x\r\n\r\n" + b"boundary=" * 51)
@example(b"Subject: x\r\n\r\n" + b"--x\r\n" * 6000)
@example(b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=\r\nb=20\r\n")
@example(b'Content-Type: text/plain; charset="us-ascii"\r\n\r\n\xc3\xa9\r\n')
def test_a_plain_text_is_read_as_the_email_package_reads_it(octets: bytes) -> None:
    assert outcome(rendering.render, octets) == outcome(rendering._rendered, octets)


def test_the_usual_messages_take_the_short_way() -> None:
    sender, to = Mailbox("", "sales@acme.example"), (Mailbox("", "jane@customer.example"),)
    for text in ("Dear Jane,\n", "Gr\u00fc\u00dfe\n", "a" * 500):
        octets = message.compose(Content(sender, to, (), "Offer", text), "018f", "<018f@acme.example>")
        assert rendering._plain_text(octets) == rendering._rendered(octets).text == f"{text.rstrip()}\n"


PHRASES = [
    "Dear Jane,", "\n", "\r\n", "\r", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u00e9", "{}", ".", "From me",
    "x" * 75, "y" * 76, "z" * 77, " ",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PHRASES), min_size=1, max_size=8).map("".join)


OCTETS = st.binary(max_size=200) | st.sampled_from(
    [b"", b"a" * 57, b"a" * 58, b"From: x\r\n\r\nhi\r\n", b"\n", b"\xff"]
)
ATTACHMENTS = st.builds(
    Attachment,
    st.sampled_from(["a.txt", 'a "b".txt', "\u00e9.pdf", "a;b", "n" * 90]),
    st.sampled_from(["text/plain", "application/pdf", "message/rfc822", "message/x", "image/png"]),
    OCTETS,
)


def as_the_email_package_writes(content: Content, boundary: str) -> bytes:
    """A body without any short way: RFC 2045 and 2046 by the standard library alone."""
    readable = []
    for text, kind in ((content.text, "plain"), (content.html, "html")):
        if text:
            lines = message._lines(text)
            short = lines.isascii() and "\0" not in lines and all(len(line) <= 76 for line in lines.split("\n"))
            readable.append(MIMEText(lines, kind, "us-ascii" if short else message._QUOTED_PRINTABLE))
    whole = readable[0] if len(readable) == 1 else MIMEMultipart("alternative", f"{boundary}-a", readable)
    if content.attachments:
        parts = [attached(one) for one in content.attachments]
        whole = MIMEMultipart("mixed", f"{boundary}-m", [whole, *parts])
    for part in list(whole.walk())[1:]:
        del part["MIME-Version"]
    return bytes(whole.as_bytes(policy=message._WIRE))


def attached(attachment: Attachment) -> MIMEBase:
    part = MIMEBase(*attachment.media_type.split("/"))
    if attachment.media_type == "message/rfc822" and attachment.octets.isascii():
        part.set_payload(attachment.octets.decode())
    else:
        part.set_payload(attachment.octets)
        encode_base64(part)
    is_plain = attachment.name.isascii() and '"' not in attachment.name
    name = attachment.name if is_plain else ("utf-8", "", attachment.name)
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part


@given(text=st.none() | TEXTS, html=st.none() | TEXTS, attachments=st.lists(ATTACHMENTS, max_size=3))
def test_a_body_is_written_as_the_email_package_writes_it(text, html, attachments) -> None:
    if text or html:
        content = Content(Mailbox("", "a@x.example"), (), (), "s", text, html, tuple(attachments))
        short, long = message._body(content, "outbox-018f"), as_the_email_package_writes(content, "outbox-018f")
        assert outcome(normalise_lines, short) == outcome(normalise_lines, long)


BASE64 = st.lists(
    st.sampled_from(
        [
            b"QUJD", b"QUI=", b"QQ==", b"QR==", b"=", b"==", b"Q", b"A", b"+/", b"-_", b"\r\n", b" ", b"\t", b"\x0c",
            b"\x1d", b"\x00", b"\xc3\xa9", b"\xa0", b"\x85",
        ]
    ),
    max_size=8,
).map(b"".join)  # fmt: skip


@given(BASE64)
@example(b"QUJD\r\nQUI=\r\n")
@example(b"QU JD")
def test_base64_is_decoded_as_the_email_package_does(octets: bytes) -> None:
    head = b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    part = message_from_bytes(head + octets)
    joined = "".join(str(part._payload).split())
    strict = len(joined) % 4 == 0 and re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", joined)
    assert outcome(rendering._octets, part) == (part.get_payload(decode=True) if strict else "refused")


RUN = (b"QUJD" * 19 + b"\r\n") * 256
LINES = (
    b"\r\n", b"QUI=\r\n", b"--b\r\n", b"--b--\r\n", b"--c\r\n", b"Content-Type: application/pdf\r\n", b" folded\r\n",
    b"Content-Transfer-Encoding: base64\r\n", b"Content-Type: text/plain\r\n", b"Content-Type: message/rfc822\r\n",
    b'Content-Type: multipart/mixed; boundary="b"\r\n', b"Content-Type: multipart/mixed; boundary=c\r\n",
    b"Content-Type:\r\n", b"=outbox-run-0=\r\n", b"text \xc3\xa9\r\n",
)  # fmt: skip
RUNS = (RUN, RUN[:-78], RUN + RUN, RUN[:-2], RUN.replace(b"\r", b""))
BLOCKS = st.lists(st.sampled_from(RUNS) | st.sampled_from(LINES), max_size=12).map(b"".join)


@given(BLOCKS)
@example(RUN)
@example(b"Subject: x\r\n" + RUN)
@example(b"Subject: x\r\n\r\n" + RUN + b"x\r\n" + RUN)
@example(b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\n' + RUN + b"--b\r\n\r\n" + RUN + b"--b--\r\n")
@example(
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + RUN + b"--b\r\n" + RUN + b"\r\n" + RUN + b"--b--\r\n" + RUN
)
@example(b"Content-Type:\r\nmessage/" + RUN)
def test_long_base64_is_read_as_short_base64_is(octets: bytes) -> None:
    def read(leaves):
        return [(part.items(), part._payload) for part in leaves]

    opaque = rendering._MESSAGE_TYPE.sub(rb"\1x-message/", octets)
    assert outcome(read, rendering.leaves(octets)) == outcome(read, rendering._parts(opaque))


def test_a_large_attachment_is_read_in_bounded_memory() -> None:
    sender, to = Mailbox("", "sales@acme.example"), (Mailbox("", "jane@customer.example"),)
    large = Attachment("a.pdf", "application/pdf", bytes(range(256)) * 4 * 2**10)
    content = Content(sender, to, (), "Offer", "hi", None, (large,))
    octets = message.compose(content, "018f", "<018f@acme.example>")
    tracemalloc.start()
    try:
        (summary,) = rendering.render(octets).attachments
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert summary.size == len(large.octets)
    assert most < 5 * len(octets)


def test_a_header_block_that_was_read_before_is_read_the_same_again() -> None:
    short, long = b"Subject: x\r\n\r\nhi", b"Subject: x\r\n" + b"X: y\r\n" * 3000 + b"\r\nhi"
    for octets in (short, long):
        first = split_headers(octets)
        assert split_headers(octets + b" again") == first
        assert first[0] == ("Subject", "x")
    for broken in (b"no colon\r\n\r\n", b"a b: c\r\n\r\n"):
        for _ in range(2):
            with pytest.raises(PolicyRefused):
                split_headers(broken)


def test_the_names_that_the_library_looks_at_closely_take_no_short_way() -> None:
    assert {name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES} == NOT_PLAIN
