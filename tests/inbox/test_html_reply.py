"""The HTML part of a reply: what of it is text, what is a quote, and what makes it unreadable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox.core.errors import PolicyRefused
from outbox.inbox.html_reply import text_of_html
from outbox.inbox.verdict import APPROVING, CANCELLING, REJECTING, Verdict, read_letter_verdict, read_verdict
from tests.inbox.parts import HTML, PLAIN, letter_of, reading_of

bounded = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
QUOTED = (
    "<div>On Fri, 15 Jan 2027 at 08:00, Outbox &lt;approve@acme.example&gt; wrote:</div>"
    '<blockquote type="cite">Ship it<br>Stop</blockquote>'
)


class TestHtml:
    """The text of an HTML part."""

    @pytest.mark.parametrize(
        ("html", "text"),
        [
            ("Ship it", "Ship it"),
            ("<div>a</div><div>b</div>", "a\nb"),
            ("<div>a<br></div><div><br></div>b", "a\n\nb"),
            ("<p>a</p><p>b</p>", "a\n\nb\n"),
            ("a\n  b\t c", "a b c"),
            ("<pre>a\n  b\n\nc</pre>", "a\nb\n\nc\n"),
            ('<div style="white-space: pre-wrap">a\nb</div>', "a\nb"),
            ("<ul><li>a<li>b</ul>c", "a\nb\n\nc"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</table>d", "a\nb\nc\nd"),
            ("a&nbsp;&amp;&nbsp;b &lt;c&gt; &eacute;", "a\u00a0&\u00a0b <c> é"),
            ("a<!-- b --><!-->c<!--->d<![if !vml]>e<![endif]><?xml version='1.0'?>f", "acdef"),
            ("<!DOCTYPE html><html><head><title>t</title><style>p{}</style></head><body>a</body></html>", "a"),
            ("a < b <3", "a < b <3"),
            ('<a href="https://acme.example/?a=1>2">a</a>', "a"),
            ('a<img src="x.png" alt="logo">b', "a\n[image]\nb"),
            ('a <img src="x.png" alt="👎">', "a 👎"),
            ('a<img src="https://x.example/o.gif" width="1" height="1">', "a"),
            ('a<img src="x.gif" style="display:none">', "a"),
            ("a<br>-- <br>b", "a\n-- \nb"),
            ("a<br>--&nbsp;<br>b", "a\n-- \nb"),
            ("a<br>--<br>b", "a\n--\nb"),
            ("<o:p>a</o:p><founder@acme.example>b", "ab"),
            ("<font color=black>a</font><span lang=EN-US>b</span>", "ab"),
        ],
    )
    def test_a_page_is_read_as_it_is_seen(self, html: str, text: str) -> None:
        assert text_of_html(html) == text

    @pytest.mark.parametrize(
        "opening",
        [
            '<blockquote type="cite">',
            "<BLOCKQUOTE TYPE=CITE>",
            '<blockquote cite="mid:x@acme.example">',
            '<blockquote class="gmail_quote" style="margin:0">',
            '<blockquote class="protonmail_quote">',
            '<blockquote class="tutanota_quote">',
            '<blockquote class="front-blockquote">',
            '<blockquote class="iosymail">',
            '<blockquote id="blockquote_zmail">',
            '<blockquote style="margin: 0 0 0 .8ex; border-left: 1px #ccc solid">',
            '<blockquote style="border-inline-start: 1px solid">',
        ],
    )
    def test_a_marked_quote_is_one(self, opening: str) -> None:
        assert text_of_html(f"a{opening}b<div>c<br><br>d</div></blockquote>e") == "a\n> b\n> c\n> \n> d\ne"

    @pytest.mark.parametrize(
        "html",
        [
            '<blockquote style="margin:0 0 0 40px;border:none;padding:0px">b</blockquote>',
            '<blockquote style="border-left: none">b</blockquote>',
            '<blockquote style="border-left: medium none red">b</blockquote>',
            '<blockquote style="border-left:  0px">b</blockquote>',
            '<div class="gmail_quote">b</div>',
            '<div id="yahoo_quoted_1" class="yahoo_quoted">b</div>',
            '<div name="quote" style="border-left:2px solid #C3D9E5">b</div>',
            '<div id="divRplyFwdMsg">b</div>',
            '<div id="mail-editor-reference-message-container">b</div>',
        ],
    )
    def test_what_a_person_can_write_into_is_no_quote(self, html: str) -> None:
        assert text_of_html(f"a{html}") == "a\nb"

    @pytest.mark.parametrize(
        "html",
        [
            "{quote}{text}",
            "<div>{quote}</div>{text}",
            "<div>{quote}{text}</div>",
            "<div><blockquote type=cite>x<div>{quote}</blockquote>{text}</div>",
            "<div><blockquote type=cite>x</div>{text}",
            "<table><tr><td><blockquote type=cite>x<td>{text}</table>",
            "<table><tr><td><blockquote type=cite>x</table>{text}",
            "<blockquote type=cite><p>x</blockquote>{text}",
            "<b><blockquote type=cite>x</blockquote></b>{text}",
        ],
    )
    def test_what_stands_behind_a_quote_is_a_remark(self, html: str) -> None:
        page = "<div>Ship it</div>" + html.format(quote=QUOTED, text="but fix the price")
        assert text_of_html(page).endswith("\nbut fix the price")
        assert reading_of(HTML + page).verdict is Verdict.UNCLEAR

    @pytest.mark.parametrize(
        "html",
        [
            QUOTED,
            "<blockquote type=cite><div></div></div>Ship it</blockquote>",
            "<blockquote type=cite><b></blockquote-x>Ship it",
            "<blockquote type=cite><table><tr><td></blockquote>Ship it</table></blockquote>",
            "<blockquote type=cite>a</body></html>Ship it",
            "<blockquote type=cite><!-- </blockquote> -->Ship it",
            '<blockquote type=cite><a title="</blockquote>">Ship it</a>',
            "<blockquote type=cite><style></blockquote></style>Ship it",
        ],
    )
    def test_a_quote_ends_where_a_browser_ends_it_and_gives_no_verdict(self, html: str) -> None:
        assert reading_of(HTML + html).verdict is Verdict.UNCLEAR
        assert not any(line.startswith("Ship it") for line in text_of_html(html).split("\n"))

    @pytest.mark.parametrize(
        "style",
        [
            "display:none", "DISPLAY : NONE !important", "display:/* x */none", "visibility:hidden", "opacity:0",
            "opacity: 0.05", "font-size:0", "font-size: 1px", "font:0/0 a", "mso-hide:all", "color:#fff", "color:white",
            "color:rgb(255, 255, 255)", "color:rgba(0,0,0,0)", "color:transparent", "color:#fefefe",
            "background:#000;color:#010101", "max-height:0;overflow:hidden", "height:0px; overflow: hidden",
            "width:0;overflow:clip", "text-indent:-9999px", "position:absolute;left:-5000px", "margin-left:-9999em",
            "clip:rect(0,0,0,0)", "clip-path:inset(50%)", "transform:scale(0)", "text-decoration:line-through",
            "text-decoration-line:line-through", "unicode-bidi:bidi-override;direction:rtl",
            "content-visibility:hidden", r"d\69splay:none", "display:none!important;display:block",
            "display:none;display:x",
            "color:#fff;color:#x", "color:#000;color:#fff;color:#000", "-webkit-text-fill-color: transparent",
        ],
    )  # fmt: skip
    def test_words_that_are_not_seen_neither_give_a_verdict_nor_hide_one(self, style: str) -> None:
        for html in (
            f'<p style="{style}">Ship it</p>',
            f'<div>Ship it</div><p style="{style}">but fix the price</p>',
            f'<p style="{style}">Stop</p><div>Ship it</div>',
            f"<style>.h{{{style}}}</style><div>Ship it</div><p class='g h'>not</p>",
            f"<style>@media screen{{div p.h, x{{{style}}}}}</style><div>Ship it</div><p class=h>not</p>",
            f"<style>#h{{{style}}}</style><div>Ship it</div><b id=h>not</b>",
            f"<style>em{{{style}}}</style><div>Ship it</div><em>not</em>",
            f"<style>[lang]{{{style}}}</style><div>Ship it</div><em>not</em>",
        ):
            assert reading_of(HTML + html).verdict is Verdict.UNCLEAR, html
            assert reading_of(f"{PLAIN}Ship it", HTML + html).verdict is Verdict.UNCLEAR, html

    @pytest.mark.parametrize(
        "html", ["<s>Ship it</s>", "<del>Ship it</del>", "<p hidden>Ship it</p>", "<font color=white>Ship it</font>"]
    )
    def test_struck_out_or_hidden_elements_are_not_read(self, html: str) -> None:
        with pytest.raises(PolicyRefused, match="struck out"):
            text_of_html(html)

    def test_words_that_a_style_adds_are_not_left_out(self) -> None:
        html = '<style>p::before{content: "Do not "}</style><p>ship it</p>'
        assert reading_of(HTML + html).verdict is Verdict.UNCLEAR

    @pytest.mark.parametrize(
        "html",
        [
            '<div style="display:none">&nbsp;\u200b</div>Ship it',
            '<div style="color:#fff;background-color:#000">Ship it</div>',
            '<body bgcolor="#202020"><font color="#ffffff">Ship it</font></body>',
            '<div style="color:#ccc">Ship it</div>',
            '<div style="font-size:8px;opacity:.8;margin:-5px;height:0">Ship it</div>',
            '<div>Ship it</div><blockquote type=cite><div style="display:none">x</div></blockquote>',
            '<style type="text/css" style="display:none;"> P {margin-top:0;} </style><p>Ship it</p>',
            "<style>.other{display:none} @font-face{font-family:x}</style><p class=mine>Ship it</p>",
            '<audio controls="controls" style="display: none;"></audio>Ship it',
        ],
    )
    def test_what_clients_hide_without_words_hides_nothing(self, html: str) -> None:
        assert reading_of(HTML + html).verdict is Verdict.APPROVE

    @pytest.mark.parametrize(
        "html",
        [
            'Ship it<a b="c', "Ship it<a b'c>", "Ship it<a <b>", "Ship it<!-- x", "Ship it<style>x", "Ship it<title>x",
            "Ship it<script>x</script>", "Ship it<textarea>x</textarea>", "<xmp>Ship it</xmp>", "<plaintext>Ship it",
            "Ship it<iframe src=x></iframe>", "<template>Ship it</template>", "Ship it<select><option>x</select>",
            "Ship it<details>x</details>", "Ship it<noscript>x</noscript>", "Ship it<svg><text>x</text></svg>",
            "Ship it<input value=not>", "<form>Ship it</form>", "<bdo dir=rtl>ti pihS</bdo>", "Ship it&#99999999999;",
            "<div>" * 301 + "Ship it",
            '<div><span style="display:none">x</div>Ship it', '<p style="display:none"><div>Ship it</div>',
            "<td>Ship it</td>", "<table>Ship it</table>", "<table><div>Ship it</div></table>", "<tr><td>Ship it",
            "<table><tr><td>a</td>Ship it</tr></table>", "<table><table><tr><td>Ship it</table>",
        ],
    )  # fmt: skip
    def test_what_could_be_seen_in_two_ways_is_not_read(self, html: str) -> None:
        with pytest.raises(PolicyRefused, match="its HTML part"):
            text_of_html(html)
        letter = letter_of(f"{PLAIN}Ship it", HTML + html)
        assert (letter.plain, letter.html) == ("Ship it", None)
        assert letter.doubt.startswith("its HTML part ")
        reading = read_letter_verdict(letter)
        assert (reading.verdict, reading.why) == (Verdict.UNCLEAR, letter.doubt)
        assert letter_of(HTML + html).why == letter.doubt


BOMBS: dict[str, Callable[[], str]] = {
    "tags without an end": lambda: "<a " * 600_000,
    "attributes without an end": lambda: '<a b="' * 300_000,
    "comments without an end": lambda: "<!--" * 500_000,
    "styles without an end": lambda: "<style>" * 280_000,
    "small brackets": lambda: "<" * 2_000_000,
    "ampersands": lambda: "&" * 2_000_000,
    "one long attribute": lambda: "<a " + "b=c " * 500_000 + ">",
    "one long style": lambda: "<p style='" + "a:b;" * 500_000 + "'>x",
    "a style of functions": lambda: "<p style='color:" + "rgb(" * 500_000 + "'>x",
    "a sheet of rules": lambda: "<style>" + "a{b:c}" * 300_000 + "</style>x",
    "a sheet of comments": lambda: "<style>" + "/*" * 900_000 + "</style>x",
    "a style of comments": lambda: "<p style='" + "/*" * 900_000 + "'>x",
    "a style of borders": lambda: "<blockquote style='" + "border-left:" * 150_000 + "none'>x",
    "a sheet of braces": lambda: "<style>" + "{" * 2_000_000 + "</style>x",
    "a sheet of selectors": lambda: "<style>" + "a," * 900_000 + "{color:#fff}</style>x",
    "breaks": lambda: "<br>" * 500_000,
    "a nest of formatting": lambda: "<b><div></b>" * 150_000,
    "items in a nest of wrappers": lambda: "<div>" * 290 + "<li></li>" * 45_000,
    "a nest of cells": lambda: "<table><td>" * 150_000,
    "ends of what is not open": lambda: "<b>" * 250 + "</i></p>" * 40_000,
    "paragraphs": lambda: "<p>x" * 90_000,
    "preformatted lines": lambda: "<pre>" + "\n" * 2_000_000,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_page_made_to_exhaust_is_read_or_refused(bomb: str) -> None:
    letter = letter_of(HTML + BOMBS[bomb]())
    assert read_letter_verdict(letter).verdict is Verdict.UNCLEAR


WORDS = [*APPROVING, *REJECTING, *CANCELLING]
WRAPPINGS = [
    "<div>{}</div>", "<p>{}</p>", "{}<br>", "<span>{}</span>", "<b>{}</b>",
    "<table><tr><td>{}</td></tr></table>", "<div style='font-size:12pt'>{}</div>",
    "<div class='gmail_quote'>{}</div>", "<li>{}", "<div><div>{}</div>",
    "{}</div></div>", "<!-- x -->{}", "<p>{}", "<a href='x'>{}</a>", "<pre>{}</pre>",
]  # fmt: skip
wrappings = st.sampled_from(WRAPPINGS)
remarks = st.lists(
    st.sampled_from(["fix", "the", "price", "first", "not", "90", "jane", "ship it", "stop"]), min_size=1, max_size=4
)
pieces = st.one_of(
    st.sampled_from(
        ["<div>", "</div>", "<p>", "</p>", "<br>", "<blockquote type=cite>", "</blockquote>", "<blockquote>", "<table>",
         "<tr>", "<td>", "</table>", "<b>", "</b>", "<pre>", "</pre>", "<li>", "</ul>", "<!--", "-->", "<style>",
         "</style>", "<i style='display:none'>", "</i>", "&nbsp;", "&gt;", "\n", " ", "<", ">", "ship it", "stop",
         "but", "-- ", "</p", "<a"]
    ),
    st.text(max_size=5),
)  # fmt: skip


@bounded
@given(st.sampled_from(APPROVING), wrappings, wrappings, remarks)
def test_a_remark_in_html_is_never_part_of_an_approval(word: str, first: str, second: str, remark: list[str]) -> None:
    page = first.format(word) + second.format(" ".join(remark))
    assert reading_of(HTML + page).verdict is Verdict.UNCLEAR
    assert reading_of(HTML + page + QUOTED).verdict is Verdict.UNCLEAR
    assert reading_of(HTML + first.format(word) + QUOTED + second.format(" ".join(remark))).verdict is Verdict.UNCLEAR


@bounded
@given(st.sampled_from(WORDS), wrappings)
def test_a_word_is_read_alike_in_html_and_plain(word: str, wrapping: str) -> None:
    page = wrapping.format(word) + QUOTED
    assert reading_of(HTML + page).verdict is read_verdict(word).verdict
    assert reading_of(PLAIN + word, HTML + page).verdict is read_verdict(word).verdict


@bounded
@given(st.lists(pieces, max_size=25).map("".join))
def test_no_page_is_beyond_reading(page: str) -> None:
    letter = letter_of(HTML + page)
    assert (letter.html is None) == bool(letter.doubt)
    reading = read_letter_verdict(letter)
    assert reading.why
    if reading.verdict is Verdict.APPROVE:
        assert "but" not in (letter.html or "")
        assert "stop" not in "".join(line for line in (letter.html or "").split("\n") if not line.startswith(">"))


@bounded
@given(st.lists(pieces, max_size=25).map("".join))
def test_a_page_in_a_quote_gives_no_verdict(page: str) -> None:
    if "blockquote" not in page and "table" not in page:
        letter = letter_of(f"{HTML}<blockquote type=cite>{page}</blockquote>")
        assert read_letter_verdict(letter).verdict is Verdict.UNCLEAR


def test_a_page_that_begins_with_an_indented_paragraph_is_not_read() -> None:
    with pytest.raises(PolicyRefused, match="begins with a blockquote"):
        text_of_html("<p></p><blockquote>Ship it</blockquote>")
    assert "but ask Bob" in text_of_html("<p>Ship it</p><blockquote>but ask Bob</blockquote>")
