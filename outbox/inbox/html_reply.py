"""The text of a reply's HTML part, as its reader sees it, with "> " before each line of a marked quote.

Not a parser of every page: what mail clients write for a reply is read, in one pass and with limits, and what could be
shown in two ways is not read at all (docs/adr/0015-how-a-reply-is-read.md).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from outbox.core.errors import Code, PolicyRefused
from outbox.core.html import unescape
from outbox.inbox.html_styles import Look, Sheet, read_attributes

LARGEST = 2 * 1024 * 1024
MOST_TOKENS = 100_000
MOST_DEEP = 300
# A tag that every reader takes for one (WHATWG HTML 13.2.5); what fits no such tag makes the part unreadable.
_TAG = re.compile(
    r"""<(?P<end>/?)(?P<name>[A-Za-z][^ \t\n\f\r/>]*+)(?P<attributes>(?:[ \t\n\f\r/]++"""
    r"""|[^ \t\n\f\r"'<>/=]++(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+(?:"[^"]*+"|'[^']*+'|[^ \t\n\f\r"'<>=`]++))?+)*+)>"""
)
_TAG_END = re.compile(">")
_COMMENT = re.compile(r"<!--(?:-?>)?")
_COMMENT_END = re.compile(r"--!?>")
_LONG_NUMBER = re.compile(r"&#[0-9a-fA-FxX]{9}")
_RAW_END = {name: re.compile(rf"</{name}(?=[ \t\n\f\r/>])", re.IGNORECASE) for name in ("style", "title")}
_SPACE = re.compile(r"[ \t\n\f\r]+")
_VOID = {"area", "base", "br", "col", "hr", "img", "link", "meta", "param", "source", "track", "wbr"}
_ROOTS = {"html", "head", "body"}  # their end tags end nothing
_CELLS = {"td", "th", "caption"}
_ROWS = {"colgroup", "tbody", "thead", "tfoot", "tr"}
_FRAMES = _ROWS | {"table"}  # a browser moves words that stand in these and in no cell
_SPACED = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "pre"}
_BLOCKS = _ROOTS | _CELLS | _ROWS | _SPACED | {
    "address", "article", "aside", "blockquote", "center", "dd", "div", "dt", "fieldset", "figcaption", "figure",
    "footer", "header", "hr", "li", "main", "nav", "section", "table",
}  # fmt: skip
# What readers show in different ways, or what shows words that are no text; no mail client writes it for a reply.
_BEYOND = {
    "applet", "bdo", "button", "canvas", "datalist", "details", "dialog", "embed", "form", "frame", "frameset",
    "iframe", "input", "listing", "marquee", "math", "noembed", "noframes", "noscript", "object", "optgroup", "option",
    "plaintext", "script", "select", "slot", "svg", "template", "textarea", "xmp",
}  # fmt: skip
_QUOTE_CLASS = re.compile(r"(?:gmail|protonmail|tutanota|front|spark|superhuman)[_-](?:block)?quote|iosymail|cite2?")
_QUOTE_IDS = {"blockquote_zmail", "isreplycontent", "iosymail", "qt"}
_BAR = re.compile(r"border-(?:left|inline-start)(?:-style)?[ \t\n]*+:(?![^;]{0,100}\bnone\b|[ \t\n]*+0)")
_EMOJI = re.compile(r"[^\w\s]{1,16}")
_PIXEL = re.compile(r"\s*[0-3](?:px)?\s*")
_UNSEEN = re.compile("[\\s\u00ad\u034f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]+")


@dataclass(frozen=True, slots=True)
class _Tag:
    name: str
    ends: bool
    attributes: str


def text_of_html(html: str) -> str:
    """The words of the HTML part of a reply, a line for each block, with "> " before those of a marked quote.

    Raises PolicyRefused(message_malformed) where readers could see something else than this text: hidden words, tags
    that are none to some, or more of anything than a reply has.
    """
    tokens, sheets = _tokens(html)
    page = _Page(Sheet.of(sheets))
    for token in tokens:
        if isinstance(token, str):
            page.add_text(unescape(token))
        elif token.ends:
            page.close(token.name)
        else:
            page.open(token.name, read_attributes(token.attributes) if token.attributes else {})
    return page.text()


def _unreadable(why: str) -> PolicyRefused:
    return PolicyRefused(Code.MESSAGE_MALFORMED, f"its HTML part {why}")


def _tokens(html: str) -> tuple[list[str | _Tag], list[str]]:
    """The texts and tags of a page, and its style sheets; comments and titles are left out."""
    if len(html) > LARGEST or _LONG_NUMBER.search(html):
        raise _unreadable("is larger than what is read")
    tokens: list[str | _Tag] = []
    sheets: list[str] = []
    position = 0
    while (start := html.find("<", position)) >= 0:
        if start > position:
            tokens.append(html[position:start])
        following = html[start + 1 : start + 2]
        if found := _COMMENT.match(html, start):
            position = found.end() if found[0].endswith(">") else _past(_COMMENT_END.search(html, found.end()))
        elif following in {"!", "?"} or (following == "/" and not _is_letter(html[start + 2 : start + 3])):
            position = _past(_TAG_END.search(html, start))
        elif following == "/" or _is_letter(following):
            tag, position = _read_tag(html, start)
            tokens.append(tag)
            if not tag.ends and (ending := _RAW_END.get(tag.name)):
                end = _past(ending.search(html, position))
                sheets += [html[position:end]] if tag.name == "style" else []
                position = end - len(f"</{tag.name}")
        else:
            tokens.append("<")
            position = start + 1
        if len(tokens) > MOST_TOKENS:
            raise _unreadable("has more tags than are read")
    tokens.append(html[position:])
    return tokens, sheets


def _is_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()


def _past(found: re.Match[str] | None) -> int:
    if found is None:
        raise _unreadable("has a tag or a comment without an end")
    return found.end()


def _read_tag(html: str, start: int) -> tuple[_Tag, int]:
    found = _TAG.match(html, start)
    if found is None:
        raise _unreadable("has a tag that could be read in two ways")
    return _Tag(found["name"].lower(), bool(found["end"]), found["attributes"]), found.end()


@dataclass(frozen=True, slots=True)
class _Open:
    """An element that is open."""

    name: str
    look: Look
    quote: bool


class _Page:
    """Puts lines together from texts and tags, with the elements that are open as a browser would have them."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self._open: list[_Open] = []
        self._places: defaultdict[str, list[int]] = defaultdict(list)  # of each name in `_open`, and of "block"
        self._quotes = 0
        self._lines: list[str] = []
        self._line: list[str] = []
        self._below_picture = False

    def text(self) -> str:
        self._break()
        return "\n".join(self._lines)

    @property
    def _look(self) -> Look:
        return self._open[-1].look if self._open else Look()

    def add_text(self, text: str) -> None:
        look = self._look
        if not look.shows and not self._quotes:
            if _UNSEEN.sub("", text):
                raise _unreadable("has words that are struck out, or that its reader does not see")
            return
        if self._is_in_frame() and _SPACE.sub("", text):
            raise _unreadable("has words in a table, in none of its cells")
        if not look.preformatted:
            self._line.append(text)
            return
        first, *others = text.split("\n")
        self._line.append(first)
        for line in others:
            self._end_line()
            self._line.append(line)

    def open(self, name: str, attributes: Mapping[str, str]) -> None:
        if name in _BEYOND:
            raise _unreadable(f"has an element that is not read: {name}")
        if name in _ROOTS and self._open:
            return  # a browser takes no second one
        framed = self._is_in_frame()
        if (framed and name not in _CELLS | _ROWS | {"col", "style"}) or (name == "col" and not framed):
            raise _unreadable("has a table that is none")
        if name in _BLOCKS:
            self._close_implied(name)
            self._break(spaced=name in _SPACED)
        if name == "br" and (self._line or not self._below_picture):
            self._end_line()
        elif name == "img":
            self._add_picture(attributes)
        if name in _VOID or name in _RAW_END:
            return
        if len(self._open) >= MOST_DEEP:
            raise _unreadable("is nested beyond reason")
        quote = name == "blockquote" and _is_marked(attributes)
        self._quotes += quote
        for kind in (name, "block") if name in _BLOCKS else (name,):
            self._places[kind].append(len(self._open))
        self._open.append(_Open(name, self._look.below(name, attributes, self._sheet), quote))

    def _add_picture(self, attributes: Mapping[str, str]) -> None:
        alternative = attributes.get("alt", "").strip()
        if _EMOJI.fullmatch(alternative):
            self.add_text(alternative)
        elif attributes.get("src") and not any(
            _PIXEL.fullmatch(attributes.get(one, "")) for one in ("width", "height")
        ):
            if self._look.below("img", attributes, self._sheet).hidden:
                return
            self._break()
            self._line.append("[image]")
            self._break()
            self._below_picture = True  # the line break after it is its own

    def _close_implied(self, name: str) -> None:
        """Close what this start tag ends without saying so (WHATWG HTML 13.2.6.4.7 and following)."""
        if name in _CELLS | _ROWS:
            ended = _CELLS if name in {"td", "th"} else _CELLS | ({"tr", "colgroup"} if name == "tr" else _ROWS)
            table = self._last("table")
            inside = [place for place in map(self._last, ended) if place > table]
            if inside:
                self._pop_to(min(inside), implied=True)
            if not self._is_in_frame():
                raise _unreadable("has a table that is none")
            return
        if self._last("p") > self._barrier():
            self._pop_to(self._last("p"), implied=True)
        alike = {"li"} if name == "li" else {"dd", "dt"} if name in {"dd", "dt"} else set()
        if alike and (place := self._last_but_wrappers()) >= 0 and self._open[place].name in alike:
            self._pop_to(place, implied=True)

    def close(self, name: str) -> None:
        if name in {"br", "p"} and not self._places[name]:
            self._break(spaced=name == "p")  # a browser makes an element of it
        if name in {"tr", "tbody"} and self._last(name) < self._last("table") < self._barrier():
            self._pop_to(self._barrier())  # the row was implied; its cell ends with it
        if name in _ROOTS or not self._places[name]:
            return
        place = self._last(name)
        if name not in _BLOCKS:
            if place > self._last("block"):
                self._pop_to(place)
        elif place > self._reach(name):
            self._pop_to(place)

    def _is_in_frame(self) -> bool:
        return bool(self._open) and self._open[-1].name in _FRAMES

    def _last(self, name: str) -> int:
        places = self._places[name]
        return places[-1] if places else -1

    def _last_but_wrappers(self) -> int:
        """The place of the innermost block that is more than a wrapper of others."""
        blocks = reversed(self._places["block"])
        return next((place for place in blocks if self._open[place].name not in {"address", "div", "p"}), -1)

    def _reach(self, name: str) -> int:
        """The place that an end tag of this name cannot reach beyond."""
        if name == "table":
            return -1
        if name in _CELLS | _ROWS:
            return self._last("table")
        return max(self._barrier(), self._last("ul"), self._last("ol")) if name == "li" else self._barrier()

    def _barrier(self) -> int:
        return max(self._last(name) for name in ("table", *_CELLS))

    def _pop_to(self, place: int, *, implied: bool = False) -> None:
        spaced = self._open[place].name in _SPACED
        seen_around = self._open[place - 1].look.shows if place else True
        if any(one.name in _BLOCKS for one in self._open[place:]):
            self._break(spaced=spaced)
        while len(self._open) > place:
            ended = self._open.pop()
            for kind in (ended.name, "block") if ended.name in _BLOCKS else (ended.name,):
                self._places[kind].pop()
            self._quotes -= ended.quote
            if not ended.look.shows and seen_around and (implied or len(self._open) > place):
                raise _unreadable("hides words up to an end that is not there")

    def _break(self, *, spaced: bool = False) -> None:
        """End the line if there is anything on it; a paragraph has a blank line above and below."""
        if _SPACE.sub("", "".join(self._line)):
            self._end_line()
        self._line.clear()
        if spaced and self._lines and self._lines[-1].strip("> "):
            self._end_line()

    def _end_line(self) -> None:
        line = _SPACE.sub(" ", "".join(self._line))
        self._line.clear()
        self._below_picture = False
        words = line.strip(" \u00a0")
        if words == "--" and line.endswith((" ", "\u00a0")):
            words = "-- "  # the mark of a signature (RFC 3676 4.3)
        indented = any(one.name == "blockquote" for one in self._open)
        if words and indented and not self._quotes and not any(self._lines):
            raise _unreadable("begins with a blockquote, which may be somebody else's words")
        self._lines.append(f"> {words}" if self._quotes else words)


def _is_marked(attributes: Mapping[str, str]) -> bool:
    """Whether a blockquote is a quote and not an indented paragraph."""
    classes = attributes.get("class", "").lower().split()
    return (
        attributes.get("type", "").lower() == "cite"
        or "cite" in attributes
        or any(map(_QUOTE_CLASS.fullmatch, classes))
        or attributes.get("id", "").lower() in _QUOTE_IDS
        or _BAR.search(attributes.get("style", "").lower()) is not None
    )
