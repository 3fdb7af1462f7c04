"""Whether the words of a reply's HTML part can be seen: what its styles hide, shrink, strike out or paint over.

Meant for what mail clients write; a rule that is not understood and could hide words counts as one that does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from outbox.core.html import unescape

Colour = tuple[int, int, int]
_TRANSPARENT: Colour = (-1, -1, -1)
_BLACK: Colour = (0, 0, 0)
_WHITE: Colour = (255, 255, 255)
_MOST_RULES = 5000
_MOST_COLOURS = 20  # looked at in one style
_LEAST_CONTRAST = 24  # of 255, in the colour that differs most; light grey on white has more
_ATTRIBUTE = re.compile(
    r"""([^ \t\n\f\r"'<>/=]++)(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+("[^"]*+"|'[^']*+'|[^ \t\n\f\r"'<>=`]++))?+"""
)
_SIZE = re.compile(r"(-?)([0-9]{0,9}(?:\.[0-9]{1,9})?)(px|pt|em|rem|ex|%|in|cm|mm|pc|vw|vh)?")
_NO_FONT = re.compile(r"(?<![\w.#])0+(?:\.0+)?(?:px|pt|em|rem|%)?(?![\w.%])")
_FAR = re.compile(r"-[0-9]{3,}|-[0-9]{2,}(?:\.[0-9]+)?(?:em|rem|in|cm|vw|vh)")
_HEX = re.compile(r"#([0-9a-f]{8}|[0-9a-f]{6}|[0-9a-f]{3,4})(?![0-9a-f])")
_RGB = re.compile(r"rgba?\( ?([0-9]{1,3})[ ,]+([0-9]{1,3})[ ,]+([0-9]{1,3})(?:[ ,/]+([0-9.]{1,8})(%?))? ?\)")
_NAMED = re.compile(
    r"\b(?:black|transparent|(?:ghost|floral|navajo)?white(?:smoke)?|snow|ivory|azure|seashell|mintcream)\b"
)
_COMPOUND = re.compile(r"[\s>+~]+")
_BRACKETS = re.compile(r"\[[^\]]*(?:\]|\Z)")  # one that does not end takes the rest, once
_SELECTORS = re.compile(r"([.#]?)([A-Za-z_][\w-]*)")


def read_attributes(text: str) -> dict[str, str]:
    """The attributes of one start tag, names in lower case; of two of the same name the first counts."""
    found: dict[str, str] = {}
    for name, value in _ATTRIBUTE.findall(text):
        quoted = value[:1] in {'"', "'"}
        found.setdefault(name.lower(), unescape(value[1:-1] if quoted else value))
    return found


@dataclass(frozen=True, slots=True)
class Sheet:
    """The elements, classes and ids that a style sheet hides; `all` where it could be any."""

    elements: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    all: bool = False

    @classmethod
    def of(cls, sheets: Iterable[str]) -> Sheet:
        """Read style sheets for what they hide, on any screen or none."""
        sets: dict[str, set[str]] = {"": set(), ".": set(), "#": set()}
        everything = False
        text = _without_comments("\n".join(sheets)).replace("<!--", "").replace("-->", "")
        rules = text.split("}", _MOST_RULES)
        if len(rules) > _MOST_RULES:
            return cls(all=True)
        for block in rules:
            selectors, _, declarations = block.rpartition("{")
            selectors = selectors.rpartition("{")[2].strip()
            if selectors.startswith("@") or Look().below("", {"style": declarations}).shows:
                continue
            for selector in selectors.split(","):
                last = _COMPOUND.split(_BRACKETS.sub("", selector).strip())[-1].partition(":")[0]
                named = _SELECTORS.findall(last)
                everything = everything or not named
                for kind, name in [one for one in named if one[0]] or named:
                    sets[kind].add(name.lower())
        return cls(frozenset(sets[""]), frozenset(sets["."]), frozenset(sets["#"]), everything)

    def hides(self, name: str, attributes: Mapping[str, str]) -> bool:
        """Whether a rule of the sheet could hide this element."""
        if not (self.elements or self.classes or self.ids or self.all):
            return False
        classes = attributes.get("class", "").lower().split()
        identity = attributes.get("id", "").lower()
        return self.all or name in self.elements or identity in self.ids or not self.classes.isdisjoint(classes)


@dataclass(frozen=True, slots=True)
class Look:
    """How words in an element look: their colour, the one behind them, whether lines break as in the source."""

    ink: Colour = _BLACK
    ground: Colour = _WHITE
    hidden: bool = False
    preformatted: bool = False

    @property
    def shows(self) -> bool:
        """Whether a reader sees the words, and sees them as meant."""
        return not self.hidden and _contrast(self.ink, self.ground) >= _LEAST_CONTRAST

    def below(self, name: str, attributes: Mapping[str, str], sheet: Sheet = Sheet()) -> Look:
        """How words look in an element of this name and with these attributes inside of this one."""
        look = self
        if name in {"s", "strike", "del"} or "hidden" in attributes or sheet.hides(name, attributes):
            look = replace(look, hidden=True)
        if name == "pre":
            look = replace(look, preformatted=True)
        ground, ink = attributes.get("bgcolor", ""), attributes.get("color", "") or attributes.get("text", "")
        if ground or ink:
            look = _painted(look, [ink.lower()] if name in {"font", "body"} else [], [ground.lower()])
        style = attributes.get("style", "")
        return _styled(look, style) if style else look


def _contrast(ink: Colour, ground: Colour) -> int:
    return max(abs(a - b) for a, b in zip(ink, ground, strict=True))


def _painted(look: Look, inks: Iterable[str], grounds: Iterable[str]) -> Look:
    """`look` in these colours. Of several values for one property readers may take any: each must show the words."""
    written = [colour for colour in map(_colour, inks) if colour is not None][:_MOST_COLOURS]
    behind = [colour for colour in map(_colour, grounds) if colour not in {None, _TRANSPARENT}][:_MOST_COLOURS]
    pairs = [(ink, ground) for ink in written or [look.ink] for ground in behind or [look.ground] if ground is not None]
    hidden = _TRANSPARENT in written or any(_contrast(*pair) < _LEAST_CONTRAST for pair in pairs[:-1])
    return replace(look, ink=pairs[-1][0], ground=pairs[-1][1], hidden=look.hidden or hidden)


def _styled(look: Look, style: str) -> Look:
    declared = _declarations(style)
    inks = [value for name, value in declared if name in {"color", "-webkit-text-fill-color"}]
    look = _painted(look, inks, [value for name, value in declared if name in {"background", "background-color"}])
    for name, value in declared:
        if name == "white-space":
            look = replace(look, preformatted=value.startswith(("pre", "break-spaces")))
    return replace(look, hidden=True) if "\\" in style or _hides(declared) else look


def _without_comments(text: str) -> str:
    first, *others = text.split("/*")
    return first + "".join(part.partition("*/")[2] for part in others)


def _declarations(style: str) -> list[tuple[str, str]]:
    pairs = (part.partition(":") for part in _without_comments(style).lower().split(";"))
    return [(name.strip(), " ".join(value.partition("!")[0].split())) for name, _, value in pairs]


def _hides(declared: Iterable[tuple[str, str]]) -> bool:
    """Whether these declarations keep words from a reader, move them out of sight, strike them out or turn them."""
    sides = [value for name, value in declared if name in {"height", "max-height", "width", "max-width"}]
    clipped = any(name == "overflow" and value.startswith(("hidden", "clip")) for name, value in declared)
    return (clipped and any(map(_is_tiny, sides))) or any(
        name in _HIDING and _HIDING[name](value) for name, value in declared
    )


def _is_tiny(size: str) -> bool:
    found = _SIZE.fullmatch(size)
    if found is None or not found[2]:
        return False
    least = {"px": 2.0, "pt": 2.0, "em": 0.2, "rem": 0.2, "%": 20.0}.get(found[3] or "px", 0.0)
    return bool(found[1]) or float(found[2]) <= least


def _is_faint(opacity: str) -> bool:
    found = _SIZE.fullmatch(opacity)
    return found is not None and found[2] != "" and float(found[2]) <= (10.0 if found[3] == "%" else 0.1)


def _colour(value: str) -> Colour | None:
    """A colour, _TRANSPARENT, or None where the value names none that is known."""
    if found := _HEX.search(value):
        digits = found[1]
        if len(digits) < 6:
            digits = "".join(digit * 2 for digit in digits)
        if digits[6:] == "00":
            return _TRANSPARENT
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
    if found := _RGB.search(value):
        if found[4] and not found[4].strip("0."):
            return _TRANSPARENT
        return int(found[1]), int(found[2]), int(found[3])
    named = _NAMED.search(value)
    return {"black": _BLACK, "transparent": _TRANSPARENT}.get(named[0], _WHITE) if named else None


def _moves_away(value: str) -> bool:
    return _FAR.search(value) is not None


# Each property that can keep words from a reader, and whether it does so with a value.
_HIDING: Mapping[str, Callable[[str], bool]] = {
    "display": lambda value: value == "none",
    "visibility": lambda value: value in {"hidden", "collapse"},
    "content-visibility": lambda value: value == "hidden",
    "mso-hide": lambda value: value == "all",
    "content": lambda value: value not in {"none", "normal"},  # words that a style adds
    "transform": lambda value: value != "none",
    "clip": lambda value: value != "auto",
    "clip-path": lambda value: value != "none",
    "unicode-bidi": lambda value: "override" in value,
    "text-decoration": lambda value: "line-through" in value,
    "text-decoration-line": lambda value: "line-through" in value,
    "font-size": _is_tiny,
    "font": lambda value: _NO_FONT.search(value) is not None,
    "opacity": _is_faint,
    "left": _moves_away,
    "right": _moves_away,
    "top": _moves_away,
    "bottom": _moves_away,
    "text-indent": _moves_away,
    "margin": _moves_away,
    "margin-left": _moves_away,
    "margin-right": _moves_away,
    "margin-top": _moves_away,
}
