"""What a reply says: the first line decides, whole, and only if nothing but quotes and closings stands around it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from outbox.core.grant import without_tokens


class Verdict(StrEnum):
    """What a reply says."""

    APPROVE = "approve"
    REJECT = "reject"
    CANCEL = "cancel"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict, the reason given with a rejection, and why it was read so.

    `excerpt` are words of the reply, for the answer to who wrote them and for nobody else: `why` holds none.
    """

    verdict: Verdict
    reason: str | None
    why: str
    excerpt: str = ""


APPROVING = ("ship it", "send it", "approve", "approved", "yes", "ok to send", "lgtm", "go ahead")
REJECTING = ("reject", "no", "don't send", "do not send", "don't send it", "do not send it")
CANCELLING = ("cancel", "stop", "hold")
LONGEST_REASON = 2000
MOST_LINES = 20_000
_LONGEST_LINE = 4000
_LONGEST_SIGNATURE = 10
_NEAR = 4  # how many lines away the rest of an attribution or of a header block may stand
_QUOTES = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "＇": "'", "“": '"', "”": '"'})  # noqa: RUF001
_WORDS = "|".join(sorted(map(re.escape, REJECTING), key=len, reverse=True))
_REJECTION = re.compile(rf"(?:{_WORDS})[.!]?\s*:.*")
_COLON = re.compile("[:\uff1a\ufe55\ufe13]")
# "On <date>, <us> wrote:" as clients write it above a quote: a year or a time, our name or an address, and no more.
_ATTRIBUTION = re.compile(
    r"(?:on|am|le|el)\b(?=.*(?:\b(?:19|20)[0-9]{2}\b|\b[0-9]{1,2}[:.h][0-9]{2}\b))(?=.*(?:\boutbox\b|@)).*"
    r"(?:\bwrote|\bschrieb\b[^:]{0,200}|\ba écrit|\bescribió)\s?:"
)
_ORIGINAL = re.compile(
    r"-{2,}\s*(?:original message|forwarded message|ursprüngliche nachricht|message d'origine)\s*-{2,}"
)
_RULE = re.compile(r"_{20,}|-{20,}")
_LINKS = re.compile(r"<(?:mailto:|https?://)[^<>\s]{1,2000}>")  # which clients add when they make text of HTML
_HEADER = re.compile(
    r"\*?(?:from|von|de|sent|date|gesendet|datum|envoyé|enviado|fecha|to|an|à|para|cc|subject|betreff|objet|asunto)\s?:.*"
)
_FROM = re.compile(r"\*?(?:from|von|de)\s?:\*?\s.+")
_OTHERS = tuple(
    re.compile(rf"\*?(?:{names})\s?:\*?\s.+")
    for names in ("sent|date|gesendet|datum|envoyé|enviado|fecha", "to|an|à|para", "subject|betreff|objet|asunto")
)
_DEVICES = (
    "iphone|ipad|android(?: device| phone)?|(?:samsung )?galaxy(?: smartphone| tablet)?|mobile device|mobile|phone"
)
_MOBILE = re.compile(
    rf"(?:sent from my (?:{_DEVICES})|sent from (?:outlook|gmail|mail|yahoo mail|proton mail|fastmail|samsung mobile)"
    r"(?: (?:for|on) (?:ios|iphone|ipad|android|mac|windows|windows 10|mobile))?"
    r"|sent with (?:proton ?mail|shortwave|spark)(?: secure email)?"
    r"|get outlook for (?:ios|android)(?: ?<[^<>\s]{1,200}>)?"
    r"|von meinem (?:iphone|ipad|handy) gesendet|envoyé de mon (?:iphone|ipad)|enviado desde mi (?:iphone|ipad))\.?"
)


def read_verdict(text: str, closing: Sequence[str] = (), original: str = "") -> Reading:
    """Read a reply's plain text.

    `closing` are lines of the approver's own signature that may follow an approval; `original` is what we wrote to
    him, which he may quote without a mark.
    """
    lines = [line[: _LONGEST_LINE + 1].strip("\r") for line in text.split("\n", MOST_LINES)]
    if len(lines) > MOST_LINES or any(len(line) > _LONGEST_LINE for line in lines):
        return Reading(Verdict.UNCLEAR, None, "the text is too long")
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return Reading(Verdict.UNCLEAR, None, "there is no text")
    words = _plain(lines[first])
    if words in APPROVING:
        remark = _Reply(lines, {_plain(one) for one in closing}, _squeezed(original)).first_remark(first + 1)
        if remark is None:
            return Reading(Verdict.APPROVE, None, f'the first line is "{words}" and nothing was added')
        why = f'after "{words}" comes something else; an approval stands alone'
        return Reading(Verdict.UNCLEAR, None, why, _excerpt(remark))
    if words in CANCELLING:
        return Reading(Verdict.CANCEL, None, f'the first line is "{words}"')
    if words in REJECTING:
        return Reading(Verdict.REJECT, "", f'the first line is "{words}"')
    if _REJECTION.fullmatch(_folded(lines[first])):
        reason = without_tokens(_COLON.split(lines[first], maxsplit=1)[-1].strip())[:LONGEST_REASON]
        return Reading(Verdict.REJECT, reason, "the first line rejects, and says why")
    return Reading(Verdict.UNCLEAR, None, "the first line is not a verdict", _excerpt(lines[first]))


def _excerpt(line: str) -> str:
    return without_tokens(line.strip())[:200]


@dataclass(frozen=True, slots=True)
class _Reply:
    """The lines of a reply, the approver's closing lines, and what we wrote to him without its white space."""

    lines: Sequence[str]
    closing: set[str]
    original: str

    def first_remark(self, position: int) -> str | None:
        """The first line from `position` that is neither blank, quoted, a signature nor a known closing."""
        lines = self.lines
        while position < len(lines):
            line = lines[position]
            if line == "-- ":
                position = self._past_signature(position + 1)
            elif _begins_unmarked_quote(lines, position):
                return self._first_not_ours(position)
            elif attribution := _attribution_lines(lines, position):
                position += attribution
            elif not line.strip() or line.startswith(">") or self._is_closing(line):
                position += 1
            else:
                return line
        return None

    def _is_closing(self, line: str) -> bool:
        return _plain(line) in self.closing or _MOBILE.fullmatch(_folded(line)) is not None

    def _past_signature(self, position: int) -> int:
        """Where a "-- " signature ends: at a blank line or a quote, or after ten lines; it cannot hide a letter."""
        end = min(position + _LONGEST_SIGNATURE, len(self.lines))
        for number in range(position, end):
            line = self.lines[number]
            if not line.strip() or line.startswith(">") or _begins_unmarked_quote(self.lines, number):
                return number
        return end

    def _first_not_ours(self, position: int) -> str | None:
        """In a quote without marks, the first line that we did not write: a remark between the quoted lines."""
        for line in self.lines[position:]:
            folded = _folded(line)
            quoting = _ORIGINAL.fullmatch(folded) or _RULE.fullmatch(folded) or _HEADER.fullmatch(folded)
            if quoting or self._is_closing(line) or _squeezed(_LINKS.sub("", line)) in self.original:
                continue
            return line
        return None


def _squeezed(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text.translate(_QUOTES)).casefold().split())


def _attribution_lines(lines: Sequence[str], position: int) -> int:
    """How many lines from here are "On ... wrote:" right above a quote; clients wrap it over up to three."""
    joined = ""
    for count in range(1, _NEAR):
        number = position + count - 1
        if number >= len(lines) or not lines[number].strip() or lines[number].startswith(">"):
            return 0
        line = _folded(lines[number])
        if count > 1 and line.startswith(("on ", "am ", "le ", "el ")):
            return 0  # it begins here, and what stands above is a remark
        joined = f"{joined} {line}".strip()
        if _ATTRIBUTION.fullmatch(joined):
            following = _next_written(lines, number + 1)
            return count if following.startswith(">") else 0
    return 0


def _begins_unmarked_quote(lines: Sequence[str], position: int) -> bool:
    """Outlook's quotes have no ">": a rule, or nothing, and then From with at least two of Sent, To, Subject."""
    start = position
    plain = _folded(lines[position])
    if _ORIGINAL.fullmatch(plain) or _RULE.fullmatch(plain):
        start = next((n for n in range(position + 1, min(position + _NEAR, len(lines))) if lines[n].strip()), position)
    if not _FROM.fullmatch(_folded(lines[start])):
        return False
    block = [_folded(line) for line in lines[start + 1 : start + 1 + 2 * _NEAR] if line.strip()][: _NEAR + 1]
    return sum(any(other.fullmatch(line) for line in block) for other in _OTHERS) >= 2


def _next_written(lines: Sequence[str], position: int) -> str:
    return next((line for line in lines[position : position + _NEAR] if line.strip()), "")


def _folded(line: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", line.translate(_QUOTES)).casefold().split())


def _plain(line: str) -> str:
    folded = _folded(line)
    return folded[:-1].rstrip() if folded.endswith((".", "!")) else folded
