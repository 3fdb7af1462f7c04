"""The words of HTML, for a person who decides on it. Nothing is left out but the names of tags.

What one reader hides another shows, so hidden words, comments and styles are shown too. Not a parser: it cuts at angle
brackets, in linear time, and what it does not understand stands there as it was written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

_TAG = re.compile(r"(<[^<>]{1,4096}>)")
_NAME = re.compile(r"</?\s*([A-Za-z][A-Za-z0-9:-]{0,40})")
_ATTRIBUTE = re.compile(r"""([A-Za-z][A-Za-z0-9:-]{0,40})\s*=\s*("[^"]*"|'[^']*'|[^\s>"']+)""")
_BREAKS = {"p", "div", "br", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "hr", "blockquote"}
_TARGETS = {"href", "src", "srcset", "action", "formaction", "data", "background", "poster", "url"}
_SPOKEN = {"alt", "title", "value", "placeholder", "label", "aria-label", "summary", "content"}
_HIDING = re.compile(
    r"<style|<script|\bhidden\b|display|visibility|font-size|(?<![-\w])color|opacity|position|clip|overflow|text-indent",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Words:
    """The words, a line for each block; `may_hide` where styles or scripts could keep some of them from a reader."""

    text: str
    may_hide: bool


def words_of_html(html: str) -> Words:
    """Read an HTML part for people: each tag's targets and spoken attributes stand where the tag stood."""
    pieces: list[str] = []
    tags = _TAG.split(html)
    for number, piece in enumerate(tags):
        pieces.append(_shown_tag(piece) if number % 2 else unescape(re.sub(r"\s+", " ", piece)))
    lines = [" ".join(line.split()) for line in "".join(pieces).split("\n")]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return Words(text, any(_HIDING.search(tag) for tag in tags[1::2]))


def _shown_tag(tag: str) -> str:
    name = _NAME.match(tag)
    if name is None:  # a comment, a declaration, or nothing that HTML knows
        return "" if tag.lower() == "<!doctype html>" else f" {unescape(tag)} "
    shown = "\n" if name[1].lower() in _BREAKS else ""
    for attribute, quoted in _ATTRIBUTE.findall(tag):
        value = unescape(quoted.strip("\"'"))
        if attribute.lower() in _TARGETS:
            shown += f" <{value}> "
        elif attribute.lower() in _SPOKEN and value:
            shown += f" [{value}] "
    return shown
