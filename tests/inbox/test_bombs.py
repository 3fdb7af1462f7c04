"""Letters made to exhaust: each is taken within bounded time and memory, and what comes after it is read.

Every look is a process of its own that the kernel ends at 20 s of processor time, and that gets 1 GiB of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.inbox.explosion import Bunker, Ended
from tests.inbox.guarded import Guarded, published
from tests.inbox.letters import Asked
from tests.inbox.zone import Zone
from tests.seeds import seeds

MIB = 1024 * 1024
TEXT = b"Content-Type: text/plain; charset=utf-8\n\n"
FLOWED = b"Content-Type: text/plain; charset=utf-8; format=flowed\n\n"
HTML = b"Content-Type: text/html; charset=utf-8\n\n"
MIXED = b'Content-Type: multipart/mixed; boundary="b"\n\n'
ATTRIBUTION = b"On 15.01.2027 at 8:00, Outbox wrote:\n"
BLOCK = b"From: Outbox <approve@acme.example>\nSent: 15.01.2027\nTo: x\nSubject: [outbox aaaaaa] x\n"
WIDE = "\ufdfa".encode()  # eighteen characters, once it is compared


@pytest.fixture(scope="module")
def bunker() -> Iterator[Bunker]:
    with Bunker() as opened:
        yield opened


@pytest.fixture(scope="module")
def zone() -> Iterator[Zone]:
    with published() as served:
        yield served


def whole(ended: Ended) -> bool:
    """Whether it ended by itself, and well."""
    return ended.code == 0


def encoded(name: str, kind: bytes = TEXT) -> bytes:
    return b"Content-Transfer-Encoding: " + name.encode() + b"\n" + kind


def parts(part: bytes, count: int) -> bytes:
    return MIXED + (b"--b\n" + part + b"\n") * count + b"--b--\n"


def nested(depth: int, text: bytes) -> bytes:
    inner = [b'--b%d\nContent-Type: multipart/mixed; boundary="b%d"\n\n' % (n, n + 1) for n in range(depth)]
    head = b'Content-Type: multipart/mixed; boundary="b0"\n\n'
    return head + b"".join(inner) + b"--b%d\n" % depth + TEXT + text


BOMBS: dict[str, Callable[[], bytes]] = {
    # size
    "fifty megabytes of quotes": lambda: TEXT + b"Ship it\n\n" + b"> quoted line of the request\n" * (50 * MIB // 29),
    "fifty megabytes of one line": lambda: TEXT + b"Ship it" * (50 * MIB // 7),
    "fifty megabytes of attachments": lambda: parts(b"Content-Type: image/png\n\n" + b"A" * 5 * MIB, 10),
    "25 megabytes on the first line": lambda: TEXT + b"x" * 24 * MIB,
    "25 megabytes on the second line": lambda: TEXT + b"Ship it\n" + b"x" * 24 * MIB,
    "25 megabytes of NUL": lambda: TEXT + bytes(24 * MIB),
    "25 megabytes of every octet": lambda: TEXT + bytes(range(256)) * (24 * MIB // 256),
    # lines
    "lines with nothing": lambda: TEXT + b"Ship it\n" + b"\n" * 24 * MIB,
    "lines with one letter": lambda: TEXT + b"Ship it\n" + b"a\n" * 12 * MIB,
    "lines with one mark": lambda: TEXT + b"Ship it\n" + b">\n" * 12 * MIB,
    "lines that end with a carriage return": lambda: TEXT + b"Ship it\n" + b"\r" * 24 * MIB,
    "lines that flow": lambda: FLOWED + b"Ship it\n" + b"a \n" * 8 * MIB,
    "marks that flow": lambda: FLOWED + b"Ship it\n" + b">" * 24 * MIB,
    "lines of boundaries": lambda: MIXED + b"--b\n" * 6 * MIB,
    "lines like boundaries": lambda: MIXED + b"--b\n" + TEXT + b"Ship it\n" + b"--c\n" * 4 * MIB,
    "lines above the first part": lambda: MIXED + b"a\n" * 12 * MIB + b"--b\n" + TEXT + b"Ship it\n",
    "lines below the last part": lambda: MIXED + b"--b\n" + TEXT + b"Ship\n--b--\n" + b"a\n" * 12 * MIB,
    # parts
    "ten thousand parts": lambda: parts(TEXT + b"Ship it", 10_000),
    "half a million parts": lambda: MIXED + b"--b\n\n" * 500_000,
    "multiparts 3,000 deep": lambda: nested(3_000, b"Ship it\n"),
    "multiparts 45 deep with many lines": lambda: nested(45, b"hm\n" + b"x\n" * 12 * MIB),
    "multiparts 150 deep": lambda: nested(150, b"Ship it\n\nbut fix the price\n"),
    "messages in messages 3,000 deep": lambda: b"Content-Type: message/rfc822\n\n" * 3_000 + TEXT + b"Ship it\n",
    "messages in messages 150 deep": lambda: b"Content-Type: message/rfc822\n\n" * 150 + TEXT + b"Ship it\n",
    "a part with a million fields": lambda: MIXED + b"--b\n" + b"X: y\n" * 4 * MIB + b"\nhm\n--b--\n",
    "a part with one long field": lambda: MIXED + b"--b\nX: y\n" + b" y\n" * 8 * MIB + b"\nhm\n--b--\n",
    # parameters and encodings
    "a type with many parameters": lambda: b"Content-Type: text/plain" + b"; a*0=b" * 30_000 + b"\n\nhm\n",
    "a type with one long parameter": lambda: b'Content-Type: text/plain; a="' + b'\\"' * 100_000 + b'"\n\nhm\n',
    "base64 in pieces": lambda: encoded("base64") + b"AA " * 8 * MIB,
    "base64 in one piece": lambda: encoded("base64") + b"A" * 24 * MIB,
    "quoted-printable of nothing": lambda: encoded("quoted-printable") + b"=\n" * 12 * MIB,
    "quoted-printable of everything": lambda: encoded("quoted-printable") + b"=41" * 8 * MIB,
    "uuencode that never begins": lambda: encoded("x-uuencode") + b"begin 644 x\n" * 2 * MIB,
    "uuencode that never ends": lambda: encoded("x-uuencode") + b"begin 644 x\n" + b"!\n" * 12 * MIB,
    "a quadratic charset": lambda: b"Content-Type: text/plain; charset=punycode\n\n-" + b"a9" * 12 * MIB,
    "a charset with escapes": lambda: TEXT.replace(b"utf-8", b"iso-2022-jp") + b"\x1b$B" * 8 * MIB,
    "a charset with nothing in it": lambda: TEXT.replace(b"utf-8", b"gb18030") + b"\xff" * 24 * MIB,
    "a charset of 16 bits": lambda: TEXT.replace(b"utf-8", b"utf-16") + b"\xff\xfd" * 12 * MIB,
    # what is compared
    "attributions": lambda: TEXT + b"Ship it\nhm\n" + ATTRIBUTION * 600_000,
    "header blocks": lambda: TEXT + b"Ship it\nhm\n" + BLOCK * 250_000,
    "rules": lambda: TEXT + b"Ship it\nhm\n" + b"_" * 40 + b"\n" * 500_000,
    "signatures": lambda: TEXT + b"Ship it\nhm\n" + b"-- \n\n" * 9_000,
    "pictures": lambda: TEXT + b"Ship it\nhm\n" + b"[image: x]\n" * 19_000,
    "links": lambda: TEXT + b"Ship it\nhm\n" + (b"<http://" * 1_000 + b"\n") * 3_000,
    "wide characters on the first line": lambda: TEXT + WIDE * 1_300 + b"\n",
    "wide characters on every line": lambda: TEXT + b"Ship it\nhm\n" + (WIDE * 3_000 + b"\n") * 2_700,
    "marks that combine": lambda: TEXT + b"Ship it\nhm\n" + ("a" + "\u0301\u0327" * 4_000 + "\n").encode() * 1_500,
    # HTML
    "tags": lambda: HTML + b"hm" + b"<b>" * 600_000,
    "tags that never end": lambda: HTML + b"<p " * 600_000,
    "paragraphs": lambda: HTML + b"hm" + b"<p>" * 99_000,
    "tables in tables": lambda: HTML + b"hm" + b"<table><tr><td>" * 160 + b"</p></b></i>" * 30_000,
    "angle brackets": lambda: HTML + b"<" * MIB,
    "comments that never end": lambda: HTML + b"<!--" * 500_000,
    "tags that are none": lambda: HTML + b"<!x" * 600_000,
    "attributes": lambda: HTML + b"<p " + b"a=b " * 400_000 + b">hm",
    "attributes in quotes": lambda: HTML + b"<p a='" * 300_000,
    "entities": lambda: HTML + b"&amp;" * 400_000,
    "entities that are none": lambda: HTML + b"&" * 2_000_000,
    "classes": lambda: HTML + b"<blockquote class='" + b"a " * 900_000 + b"'>hm",
    "comments of a style that never end": lambda: HTML + b"<style>" + b"/*a" * 600_000 + b"</style>hm",
    "comments of a style attribute": lambda: HTML + b'<p style="' + b"/*a" * 600_000 + b'">hm',
    "brackets of a style": lambda: HTML + b"<style>" + b"[" * MIB + b"{display:none}</style>hm",
    "rules of a style": lambda: HTML + b"<style>" + b".a{color:red}" * 120_000 + b"</style>hm",
    "selectors of a style": lambda: HTML + b"<style>" + b"a,.b" * 400_000 + b"{display:none}</style>hm<a class=c>",
    "declarations": lambda: HTML + b"<p style='" + b"a:b;" * 400_000 + b"'>hm",
    "zeros": lambda: HTML + b"<p style='font:" + b"0" * MIB + b"'>hm",
    "line breaks": lambda: HTML + b"hm" + b"<br>" * 99_000,
    "line breaks as they stand": lambda: HTML + b"<pre>hm" + b"\n" * (2 * MIB - 100),
    "190 pages": lambda: parts(HTML + b"Ship it" + b"<p>x" * 30_000, 190),
    "190 pages with styles": lambda: parts(HTML + b"Ship it" + b"<p style='color:red;font-size:9px'>x" * 3_600, 190),
}  # fmt: skip


@pytest.mark.parametrize("bomb", seeds(BOMBS, 8))
def test_a_bomb_neither_approves_nor_stops_the_loop(asked: Asked, bunker: Bunker, bomb: str) -> None:
    octets = asked.letter(BOMBS[bomb]())
    file = asked.house.deliver(octets)
    asked.house.reply(asked.other, "Ship it")
    assert whole(ended := bunker.look(asked.house)), ended
    assert asked.states() == ("pending", "approved")
    said = {reply.counted: reply.why for reply in asked.house.replies()}
    assert said[False].startswith("verdict: ")
    assert file.read_bytes() == octets


REASONS: dict[str, Callable[[], bytes]] = {
    "one line of 24 megabytes": lambda: b"x" * 24 * MIB,
    "lines of one letter": lambda: b"x\n" * 190_000,
    "wide characters": lambda: WIDE * 8 * MIB,
    "wide characters below an attribution": lambda: ATTRIBUTION + b"\n" + WIDE * 8 * MIB,
    "wide characters below a header block": lambda: BLOCK + b"\n" + WIDE * 8 * MIB,
    "attributions of nothing": lambda: (ATTRIBUTION + b"x\n") * 9_000,
}


@pytest.mark.parametrize("reason", seeds(REASONS, 2))
def test_a_rejection_with_a_reason_that_exhausts_rejects(asked: Asked, bunker: Bunker, reason: str) -> None:
    asked.house.deliver(asked.letter(TEXT + b"Reject\n" + REASONS[reason]()))
    assert whole(ended := bunker.look(asked.house)), ended
    assert asked.states() == ("rejected", "pending")


HEADERS: dict[str, Callable[[], bytes]] = {
    "one long field": lambda: b"X-Long: " + b"x" * 200 * 1024,
    "one long reference": lambda: b"References: <" + b"x" * 200 * 1024 + b"@y>",
    "many references": lambda: b"References: " + b"<a@b>" * 40 * 1024,
    "many openings of references": lambda: b"References: " + b"<" * 200 * 1024,
    "a subject of encoded words": lambda: b"Subject: " + b"=?utf-8?q?a?= " * 14 * 1024,
    "a subject of halves of encoded words": lambda: b"Subject: " + b"=?utf-8?q?" * 20 * 1024,
    "recipients": lambda: b"Cc: " + b"approve+a@acme.example," * 8 * 1024,
    "halves of recipients": lambda: b"Cc: " + b"approve+," * 20 * 1024,
    "recipients in quotes that never end": lambda: b'Cc: "' + b'\\"' * 100 * 1024,
    "recipients in comments that never end": lambda: b"Cc: " + b"(" * 200 * 1024,
    "tokens that nobody made": lambda: b"Cc: " + b"approve+%s@acme.example," % (b"7" * 39) * 3_000 + b"a@b.example",
    "a date of blanks": lambda: b"Date: " + b" " * 200 * 1024,
}  # fmt: skip
AUTHORS: dict[str, Callable[[], bytes]] = {
    "blanks": lambda: b" " * 60_000 + b"x",
    "dots": lambda: b"." * 60_000,
    "addresses": lambda: b"a@b.example," * 5_000,
    "quotes": lambda: b'"\\' * 30_000,
    "comments": lambda: b"(" * 60_000,
    "angles": lambda: b"<a@" * 20_000,
    "groups": lambda: b"a:" * 30_000,
    "labels": lambda: b"a@" + "\u00fc.".encode() * 20_000,
    "combining marks": lambda: b"a" + "\u0301".encode() * 25_000 + b"@b.example",
}


def test_headers_made_to_exhaust_cost_no_more_together(asked: Asked, bunker: Bunker) -> None:
    for header in HEADERS.values():
        asked.house.deliver(asked.letter(header() + b"\n" + TEXT + b"hm\n", Message_ID=None))
    for author in AUTHORS.values():
        asked.house.deliver(asked.letter(b"From: " + author() + b"\n" + TEXT + b"Ship it\n", From=None))
    asked.house.reply(asked.other, "Ship it")
    assert whole(ended := bunker.look(asked.house)), ended
    assert asked.states() == ("pending", "approved")
    replies = asked.house.replies()
    assert len(replies) == len(HEADERS) + len(AUTHORS) + 1
    assert sum(reply.counted for reply in replies) == 1
    assert not any("could not be read" in reply.why for reply in replies)


STRANGERS = ["attributions", "half a million parts", "lines with one letter", "multiparts 45 deep with many lines"]


@pytest.mark.parametrize("bomb", seeds(STRANGERS, 2))
def test_a_stranger_who_guesses_no_token_cannot_keep_the_inbox_busy(asked: Asked, bunker: Bunker, bomb: str) -> None:
    """The token here has our form and nothing more: anyone who knows the approval address can send this."""
    made_up = f"approve+{asked.words()['TOKEN_FLIPPED']}@acme.example"
    octets = asked.letter(BOMBS[bomb](), To=made_up, In_Reply_To=None)
    for _ in range(20):
        asked.house.deliver(octets)
    assert whole(ended := bunker.look(asked.house)), ended
    assert asked.house.replies() == []  # a token that we did not make is none of ours


BODIES: dict[str, Callable[[], bytes]] = {
    "blanks": lambda: (b"> " + b" " * 9_000 + b"\n") * 2_700,
    "tabs and blanks": lambda: (b"> " + b"\t " * 4_500 + b"\n") * 2_700,
    "blanks at the ends of lines": lambda: (b">" + b" " * 1_300 + b"\n") * 19_000,
}


@pytest.mark.parametrize("kind", ["relaxed", "simple"])
@pytest.mark.parametrize("body", seeds(BODIES, 3))
def test_a_text_made_to_exhaust_who_checks_its_signature_costs_no_more(
    asked: Asked, bunker: Bunker, zone: Zone, body: str, kind: str
) -> None:
    """Whoever has the token can put any signature in the provider's name on any text."""
    guarded = Guarded.build(asked, "dkim", zone)
    field = guarded.proved(asked.letter(TEXT + b"Ship it\n"), header=kind, body=kind).partition(b"From:")[0]
    asked.house.deliver(field * 10 + asked.letter(TEXT + b"Ship it\n\n" + BODIES[body]()))
    guarded.approve_other()
    assert whole(ended := bunker.look(asked.house)), ended
    assert asked.states() == ("pending", "approved")
    said = {reply.counted: reply.why for reply in asked.house.replies()}
    assert said[False].startswith("authenticity: ")


HIDDEN = (
    "Auto-Submitted: auto-replied",
    "Precedence: bulk",
    "From: mallory@evil.example",
    "Date: Mon, 1 Jan 2024 00:00:00 +0000",
)
FLOODS = {"many": b"X-Flood: x\n" * 1_100, "long": b"X-Flood: " + b"x" * 300 * 1024 + b"\n"}


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_of_headers_hides_nothing_from_the_checks(asked: Asked, flood: bytes, hidden: str) -> None:
    asked.house.deliver(asked.letter(flood + hidden.encode() + b"\n" + TEXT + b"Ship it\n"))
    asked.house.inbox()
    assert asked.states() == ("pending", "pending")
    (reply,) = asked.house.replies()
    assert not reply.counted


def test_a_reason_that_is_no_character_does_not_stop_the_loop(asked: Asked) -> None:
    asked.house.deliver(asked.letter(b"Content-Type: text/plain; charset=utf-7\n\nReject: +2AA-\n"))
    asked.house.reply(asked.other, "Ship it")
    asked.house.inbox()
    assert asked.states()[1] == "approved"
    assert len(asked.house.replies()) == 2


def test_a_stop_with_a_strange_message_id_stops(asked: Asked) -> None:
    asked.house.deliver(asked.letter(TEXT + b"Stop\n", Message_ID="<a\x01b@mail.example>"))
    asked.house.inbox()
    assert asked.states() == ("cancelled", "pending")
