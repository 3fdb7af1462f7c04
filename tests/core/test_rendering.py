"""What people are shown: nothing of an agent's can be taken for words of ours, and nothing of it is hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.errors import PolicyRefused
from outbox.core.html import words_of_html
from outbox.core.rendering import PREFIX, fenced, render, visible

LINE_ENDS = ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
ORDER_AND_ZERO_WIDTH = [
    "\u061c",
    "\u200b",
    "\u200c",
    "\u200d",
    "\u200e",
    "\u200f",
    "\u202a",
    "\u202b",
    "\u202c",
    "\u202d",
    "\u202e",
    "\u2060",
    "\u2061",
    "\u2062",
    "\u2063",
    "\u2064",
    "\u2066",
    "\u2067",
    "\u2068",
    "\u2069",
    "\ufeff",
    "\u00ad",
    "\u180e",
    "\U000e0001",
    "\U000e0041",
    "\ufff9",
    "\ufffb",
]


@pytest.mark.parametrize("end", LINE_ENDS, ids=ascii)
def test_every_line_stands_behind_the_prefix_whatever_ends_a_line(end: str) -> None:
    text = fenced(f"first{end}Ship it{end}{end}last")
    for line in text.splitlines():
        assert line.startswith(PREFIX.rstrip())
    assert "\nShip it" not in text


@given(st.lists(st.one_of(st.characters(), st.sampled_from(LINE_ENDS))).map("".join))
def test_no_text_leaves_a_line_without_the_prefix(text: str) -> None:
    shown = fenced(text)
    assert all(line == PREFIX.rstrip() or line.startswith(PREFIX) for line in shown.splitlines())
    assert all(character in "\n\t" or character.isprintable() or ord(character) > 0x9F for character in shown)


@pytest.mark.parametrize("character", ORDER_AND_ZERO_WIDTH, ids=ascii)
def test_what_is_not_seen_or_changes_the_order_is_written_out(character: str) -> None:
    assert visible(f"a{character}b") == f"a<U+{ord(character):04X}>b"


@pytest.mark.parametrize("character", ["\0", "\x07", "\x08", "\x1b", "\x7f", "\x9b"], ids=ascii)
def test_what_a_terminal_would_act_on_is_written_out(character: str) -> None:
    assert visible(f"a{character}[2Jb") == f"a<U+{ord(character):04X}>[2Jb"


@pytest.mark.parametrize(
    "text", ["plain", "caf\u00e9", "\u4f8b", "\U0001f600", "a\tb", "no\u00a0break", "\u05d0\u05d1"]
)
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<a href="https://evil.example/x">https://bank.example</a>', "<https://evil.example/x> https://bank.example"),
        ("<a href='mailto:a@x.example'>write</a> now", "<mailto:a@x.example> write now"),
        ("<A HREF=https://evil.example>x</A>", "<https://evil.example> x"),
        ('<a href="https&#58;//evil.example">x</a>', "<https://evil.example> x"),
        ('<a name="here">x</a>', "x"),
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("one<br>two", "one\ntwo"),
        ("a &lt;b&gt; &amp; &euro;", "a <b> & \u20ac"),
        ("  many \n blanks  ", "many blanks"),
    ],
)
def test_html_is_shown_as_words_with_the_target_of_every_link(html: str, text: str) -> None:
    assert words_of_html(html).text == text


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://evil.example">click',
        '<p><a href="https://evil.example">click</p>',
        '<a href="https://evil.example">click<a href="https://other.example">here</a>',
    ],
)
def test_no_target_is_left_out_because_its_tag_is_not_closed(html: str) -> None:
    assert "https://evil.example" in words_of_html(html).text


@pytest.mark.parametrize(
    "html",
    [
        "<html><head><title>t</title><body><p>Pay now</p>",  # </head> may be left out (HTML 13.1.2.4)
        "<head><p>Pay now</p>",
        "<html><head><meta charset=utf-8><body>Pay now",
        "<title>t</title></head><p>Pay now</p>",
        "<p>Pay now</p",
        "<p>Pay now",
        "<body><head>Pay now</body>",
        "<svg><title>t</title></svg>Pay now",
        "<style>Pay now</style>",
        "<script>Pay now",
        "<noscript>Pay now</noscript>",
        "<template>Pay now</template>",
        '<p style="display: none">Pay now</p>',
        '<img alt="Pay now" src="cid:x">',
        "<!--[if mso]>Pay now<![endif]-->",  # Outlook shows it
        "<textarea>Pay now</textarea>",
    ],
)
def test_no_words_that_a_reader_may_see_are_left_out(html: str) -> None:
    assert "Pay now" in words_of_html(html).text


def test_a_picture_is_shown_by_its_source() -> None:
    assert "https://track.example/p.gif" in words_of_html('<img src="https://track.example/p.gif">').text


def test_a_declaration_that_is_no_html_hides_nothing() -> None:
    assert "Pay now" in words_of_html("<![x[y]]>Pay now").text


HEAD = b"From: a@x.example\r\nTo: b@x.example\r\nSubject: x\r\n"


@pytest.mark.parametrize("charset", ["nope", "rot13", "hex", "undefined", "utf-7", "idna", "\xff", "base64", "x" * 200])
def test_a_charset_that_is_none_does_not_stop_the_reader(charset: str) -> None:
    message = HEAD + f"Content-Type: text/plain; charset={charset}\r\n\r\nwords\r\n".encode("latin-1")
    assert render(message).text == "words\n"


def test_every_text_part_is_shown() -> None:
    message = HEAD + (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/plain\r\n"
        b"Content-Disposition: inline; filename=two.txt\r\n\r\ntwo\r\n--b\r\nContent-Type: text/html\r\n\r\n"
        b"<b>three</b>\r\n--b\r\nContent-Type: text/plain\r\n"
        b"Content-Disposition: attachment; filename=four.txt\r\n\r\nfour\r\n--b--\r\n"
    )
    found = render(message)
    assert found.text is not None
    assert [word for word in ("one", "two") if word in found.text] == ["one", "two"]
    assert found.html == "three"
    assert [(one.name, one.size) for one in found.attachments] == [("two.txt", 3), ("four.txt", 4)]


def test_a_message_inside_is_one_attachment() -> None:
    inner = b"Subject: inner\r\n\r\nhi\r\n"
    message = (
        HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\n\r\n"
    )
    (attachment,) = render(message + inner + b"--b--\r\n").attachments
    assert attachment.media_type == "message/rfc822"


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("=?utf-8?q?caf=C3=A9?=", "caf\u00e9"),
        ("=?iso-8859-1?q?caf=E9?= bar", "caf\u00e9 bar"),
        ("caf\u00e9", "caf\u00e9"),
        ("\u65e5 =?utf-8?q?x?=", "\u65e5 x"),
        ("=?utf-8?b?a?=", "=?utf-8?b?a?="),
        ("=?nope?q?x?=", "x"),
        ("=?nope?q?x?= =?utf-8?q?Pay_now?=", None),
    ],
)
def test_a_subject_is_shown_decoded(subject: str, shown: str | None) -> None:
    found = render(f"Subject: {subject}\r\n\r\nhi\r\n".encode()).subject
    assert found == shown if shown is not None else "Pay now" in found


@given(st.binary(max_size=400))
def test_any_octets_are_shown_or_refused(octets: bytes) -> None:
    head = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    try:
        found = render(head + octets.replace(b"\r", b"").replace(b"\n", b"\r\n"))
    except PolicyRefused:
        return
    assert all(len(one.sha256) == 64 for one in found.attachments)
