"""What stands below a reply's first line: quotes of ours, closings, and whatever else a person wrote there.

Lines that begin with ">" are quotes. A quote without marks counts only where it is our own words
(docs/adr/0013-unmarked-quotes-must-be-our-words.md), and what stands above it is known by a closed list of words
(docs/adr/0015-how-a-reply-is-read.md): what is on no list was written by the approver.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from outbox.inbox.lines import (
    attribution_tail,
    folded,
    header_block,
    is_mobile_closing,
    is_picture,
    rule_lines,
    undecorated,
    without_links,
)

LONGEST_LINE = 10_000  # one that is longer is not compared: NFKC makes up to eighteen characters of one
MOST_REMARKS = 10  # no more are told, and no more are looked for
LONGEST_LINE = 10_000  # characters; longer ones are not compared
_LONGEST_SIGNATURE = 10
_LONGEST_HEAD = 12
_LONGEST_ATTRIBUTION = 3


@dataclass(frozen=True, slots=True)
class OwnText:
    """A text of ours without its white space, and where in that each of its words ends."""

    squeezed: str
    ends: frozenset[int]

    @classmethod
    def of(cls, text: str) -> OwnText:
        """`text` as it is compared with what a client quotes of it."""
        words = folded(text).split()
        return cls("".join(words), frozenset(accumulate(map(len, words))))

    def past(self, pieces: Iterable[str], position: int) -> int | None:
        """Where one of `pieces`, which begins at `position`, ends; None where none of them stands there."""
        for piece in pieces:
            if self.squeezed.startswith(piece, position) and position + len(piece) in self.ends:
                return position + len(piece)
        return None


@dataclass(frozen=True, slots=True)
class Remarks:
    """Lines that are neither quote nor closing, and whether one stands in the middle of an unmarked quote."""

    lines: tuple[str, ...]
    amid_quote: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """The lines of a reply, the closing lines that its writer may use, our texts to him, and our address."""

    lines: Sequence[str]
    closing: frozenset[str]
    own: tuple[OwnText, ...]
    address: str

    def with_closing(self, more: Iterable[str]) -> Reply:
        """The same, where more lines are closings."""
        return replace(self, closing=self.closing | closing_forms(more))

    def remarks(self, position: int) -> Remarks:
        """What was added from `position` on; no more than one remark over MOST_REMARKS is looked for."""
        found: list[str] = []
        signed = amid = False
        while position < len(self.lines) and len(found) <= MOST_REMARKS:
            line = self.lines[position]
            signed = signed or self._is_listed(line)
            if skipped := self._says_nothing(position):
                position += skipped
            elif signed and is_picture(line):
                position += 1
            elif head := self._quote_head(position):
                banner, position, broken = self._past_quote(position + head[0], head[1])
                found += banner
                amid = amid or broken
            else:
                found.append(line)
                position += 1
        return Remarks(tuple(found), amid)

    def paragraph(self, position: int, most: int) -> tuple[str, ...]:
        """The rest of the paragraph that goes on at `position`, about `most` characters; quotes and closings end it."""
        found: list[str] = []
        while position < len(self.lines) and most > 0:
            if self._says_nothing(position) or self._quote_head(position):
                break
            found.append(self.lines[position][:most])
            most -= len(found[-1])
            position += 1
        return tuple(found)

    def _says_nothing(self, position: int) -> int:
        """How many lines from here are blank, quoted, a signature or a known closing."""
        line = self.lines[position]
        if line == "-- ":
            return self._past_signature(position + 1) - position
        return 1 if not line.strip() or line.startswith(">") or self._is_closing(line) else 0

    def _is_listed(self, line: str) -> bool:
        return undecorated(line) in self.closing

    def _is_closing(self, line: str) -> bool:
        return self._is_listed(line) or is_mobile_closing(line)

    def _past_signature(self, position: int) -> int:
        """Where a "-- " signature ends: at a blank line or a quote, or after ten lines; it cannot hide a letter."""
        end = min(position + _LONGEST_SIGNATURE, len(self.lines))
        for number in range(position, end):
            line = self.lines[number]
            if not line.strip() or line.startswith(">") or self._quote_head(number):
                return number
        return end

    def _quote_head(self, position: int) -> tuple[int, str] | None:
        """How many lines from here head a quote of ours, and what of it stands on the last of them."""
        rule = rule_lines(self.lines, position)
        block = header_block(self.lines, position + rule, self.address, after_rule=rule > 0)
        if block and self._quotes_us(position + rule + block):
            return rule + block, ""
        below = position + rule
        for count in range(1, _LONGEST_ATTRIBUTION + 1):
            tail = attribution_tail(self.lines[below : below + count], self.address)
            if tail is None:
                continue
            following = next((line for line in self.lines[below + count : below + count + 4] if line.strip()), "")
            if (following.startswith(">") and not tail) or self._begins_own(tail or following):
                return rule + count, tail
        return None

    def _past_quote(self, position: int, tail: str) -> tuple[list[str], int, bool]:
        """What a server put above an unmarked quote, where the quote ends, and whether it breaks off in the middle."""
        places = [(own, 0) for own in self.own]
        if tail:
            return [], *self._past_own(position, self._fitting(tail, places))
        start = self._first_own_line(position)
        if start is None:
            return [], position, False
        banner = [line for line in self.lines[position:start] if line.strip() and not self._is_closing(line)]
        return banner, *self._past_own(start, places)

    def _quotes_us(self, position: int) -> bool:
        """Whether a marked quote or our own words stand below the head of a quote."""
        first = next((line for line in self.lines[position : position + _LONGEST_HEAD] if line.strip()), "")
        return first.startswith(">") or self._first_own_line(position) is not None

    def _first_own_line(self, position: int) -> int | None:
        """Where our words begin, at most a few lines further down: mail servers put warnings above them."""
        for number in range(position, min(position + _LONGEST_HEAD, len(self.lines))):
            line = self.lines[number]
            if line.startswith(">"):
                return None
            if self._begins_own(line):
                return number
        return None

    def _begins_own(self, line: str) -> bool:
        pieces = _pieces(line)
        return any(own.past(pieces, 0) for own in self.own)

    def _past_own(self, position: int, places: list[tuple[OwnText, int]]) -> tuple[int, bool]:
        begun = any(place for _, place in places)
        while position < len(self.lines):
            line = self.lines[position]
            if line.strip() and not line.startswith(">"):
                fitting = self._fitting(line, places)
                if not fitting:
                    ended = any(place == len(own.squeezed) for own, place in places)
                    return position, begun and not ended
                places, begun = fitting, True
            position += 1
        return position, False

    @staticmethod
    def _fitting(line: str, places: list[tuple[OwnText, int]]) -> list[tuple[OwnText, int]]:
        pieces = _pieces(line)
        found = [(own, own.past(pieces, place)) for own, place in places]
        return [(own, place) for own, place in found if place is not None]


def _pieces(line: str) -> tuple[str, ...]:
    """A line without its white space, as it stands and without the links that clients add as they make text of HTML."""
    if len(line) > LONGEST_LINE:
        return ()
    if len(line) > LONGEST_LINE:
        return ()
    forms = ("".join(folded(form).split()) for form in (line, without_links(line)))
    return tuple(form for form in forms if form)


def closing_forms(lines: Iterable[str]) -> frozenset[str]:
    """Closing lines of the settings as they are compared."""
    return frozenset(form for form in map(undecorated, lines) if form)
