"""The words of HTML, for a person who decides on it. Nothing is left out but the names of tags.

What one reader hides another shows, so hidden words, comments and styles are shown too. Not a parser: it cuts at angle
brackets, in linear time, and what it does not understand stands there as it was written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape as unescape_all

_TAG = re.compile(r"(<[^<>]{1,4096}>)")
_NO_CHARACTER = re.compile(r"&#(?:[0-9]{8}|[xX][0-9a-fA-F]{7})")  # unescape raises beyond 4300 digits
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s>"'=`]+)"""
_FLAGS = "hidden|disabled|checked|nowrap|noshade|compact|reversed|selected|readonly"
_GIVEN = rf"[A-Za-z][A-Za-z0-9:._-]{{0,80}}\s*=\s*{_VALUE}"
# A tag that every reader takes for one, and whose attributes can be told apart. Others are shown as they are written.
_PLAIN_TAG = re.compile(rf"</?(?P<name>[A-Za-z][A-Za-z0-9:]{{0,40}})(?:\s+(?:{_GIVEN}|{_FLAGS}))*\s*/?>", re.IGNORECASE)
_ATTRIBUTE = re.compile(rf"\s([A-Za-z][A-Za-z0-9:._-]{{0,80}})\s*=\s*({_VALUE})")
_BREAKS = {"p", "div", "br", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "hr", "blockquote"}
_TARGETS = {"href", "src", "srcset", "action", "formaction", "data", "background", "poster", "url"}
_SPOKEN = {"alt", "title", "value", "placeholder", "label", "aria-label", "summary", "content"}
# Elements in which some readers show tags as words.
_VERBATIM = re.compile(r"<(?:xmp|plaintext|textarea|listing|noembed|noframes|noscript|iframe|svg|math)", re.IGNORECASE)
_RESTYLING = re.compile(
    r"<(?:style|script|link|template|font)|\s(?:style|class|hidden|color|bgcolor|width|height)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Words:
    """The words, a line for each block; `may_hide` where styles or scripts could keep some from a reader."""

    text: str
    may_hide: bool


def words_of_html(html: str) -> Words:
    """Read an HTML part for people: each tag's targets and spoken attributes stand where the tag stood."""
    pieces = _TAG.split(html)
    verbatim = _VERBATIM.search(html) is not None
    shown = [
        _shown_tag(piece, verbatim=verbatim) if number % 2 else unescape(re.sub(r"\s+", " ", piece))
        for number, piece in enumerate(pieces)
    ]
    lines = [" ".join(line.split()) for line in "".join(shown).split("\n")]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return Words(text, any(_RESTYLING.search(tag) for tag in pieces[1::2]))


def unescape(text: str) -> str:
    """`text` with its character references replaced; what is no number of a character stays as it is."""
    return unescape_all(_NO_CHARACTER.sub(lambda found: f"&amp;{found[0][1:]}", text))


def _shown_tag(tag: str, *, verbatim: bool) -> str:
    found = _PLAIN_TAG.fullmatch(tag)
    if tag.lower() == "<!doctype html>":
        return ""
    if found is None or verbatim:
        return f" {unescape(tag)} "
    shown = "\n" if found["name"].lower() in _BREAKS else ""
    for attribute, quoted in _ATTRIBUTE.findall(tag):
        name, value = attribute.lower().rpartition(":")[2], unescape(quoted.strip("\"'"))
        if name in _TARGETS:
            shown += f" <{value}> "
        elif name in _SPOKEN and value:
            shown += f" [{value}] "
    return shown
