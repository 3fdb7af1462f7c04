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
# "On <date>, Outbox <...> wrote:" as clients write it above a quote of ours: a date, our name, a verb, and no more.
_ATTRIBUTION = re.compile(
    r"(?:on|am|le|el)\b(?P<date>.{4,120}?)[\s,]*(?P<before>\bschrieb\s+)?[\"']?outbox\b[\"']?"
    r"(?:[\s,]*\(?[<\[][^<>\[\]]{1,400}[>\]]\)?)?[\s,]*(?P<after>wrote|schrieb|a écrit|escribió)?\s?:"
)
_MOMENT = re.compile(r"\b(?:19|20)[0-9]{2}\b|[0-9]{1,2}[:.h][0-9]{2}")
_DATE_WORDS = re.compile(
    r"mon.*|tue.*|wed.*|thu.*|fri.*|sat.*|sun.*|die?|di|mi|mit.*|do|don.*|fr|fre.*|sa|sam.*|so|son.*|lun.*|mar.*|mer.*"
    r"|jeu.*|ven.*|dim.*|mi[eé].*|jue.*|vie.*|s[aá]b.*|dom.*|jan.*|f[eé][bv].*|m[aä]r.*|apr.*|avr.*|ma[iy].*|jui?[nl].*"
    r"|aug.*|ao[uû]t.*|ago.*|sep.*|o[ck]t.*|nov.*|d[eé][cz].*|dic.*|ene.*|abr.*|at|um|uhr|à|a|las|de|del|m|am|pm|utc|gmt"
    r"|z|[a-z]{1,3}[sd]?t|st|nd|rd|th|greenwich|mean|time|standard|daylight|summer|central|european|eastern|pacific|mountain"
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


def read_verdict(text: str, closing: Sequence[str] = (), originals: Sequence[str] = ()) -> Reading:
    """Read a reply's plain text.

    `closing` are lines of the approver's own signature that may follow an approval; `originals` are the texts that we
    wrote to him, any of which he may quote without a mark.
    """
    lines = [line.strip("\r") for line in text.split("\n", MOST_LINES)]
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return Reading(Verdict.UNCLEAR, None, "there is no text")
    if len(lines[first]) > _LONGEST_LINE:
        return Reading(Verdict.UNCLEAR, None, "the first line is too long")
    words = _plain(lines[first])
    if words in APPROVING:
        return _approve_unless_more(words, lines, first + 1, closing, originals)
    if words in CANCELLING:
        return Reading(Verdict.CANCEL, None, f'the first line is "{words}"')
    if words in REJECTING:
        return Reading(Verdict.REJECT, "", f'the first line is "{words}"')
    if _REJECTION.fullmatch(_folded(lines[first])):
        reason = without_tokens(_COLON.split(lines[first], maxsplit=1)[-1].strip())[:LONGEST_REASON]
        return Reading(Verdict.REJECT, reason, "the first line rejects, and says why")
    return Reading(Verdict.UNCLEAR, None, "the first line is not a verdict", _excerpt(lines[first]))


def _approve_unless_more(
    words: str, lines: Sequence[str], position: int, closing: Sequence[str], originals: Sequence[str]
) -> Reading:
    if len(lines) > MOST_LINES or any(len(line) > _LONGEST_LINE for line in lines):
        return Reading(Verdict.UNCLEAR, None, f'what stands below "{words}" is too long to be read')
    reply = _Reply(lines, {_plain(one) for one in closing}, tuple(_squeezed(text) for text in originals))
    remark = reply.first_remark(position)
    if remark is None:
        return Reading(Verdict.APPROVE, None, f'the first line is "{words}" and nothing was added')
    why = f'after "{words}" comes something else; an approval stands alone'
    return Reading(Verdict.UNCLEAR, None, why, _excerpt(remark))


def _excerpt(line: str) -> str:
    return without_tokens(line.strip())[:200]


@dataclass(frozen=True, slots=True)
class _Reply:
    """The lines of a reply, the approver's closing lines, and each text of ours to him without its white space."""

    lines: Sequence[str]
    closing: set[str]
    originals: tuple[str, ...]

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
        """In a quote without marks, the first line that breaks the text of ours that it quotes from the beginning."""
        while position < len(self.lines) and _is_quote_head(self.lines[position]):
            position += 1
        quoted, candidates = "", self.originals
        for line in self.lines[position:]:
            quoted += _squeezed(_LINKS.sub("", line))
            fitting = tuple(original for original in candidates if original.startswith(quoted))
            if not fitting or (line.strip() and not _LINKS.sub("", line).strip()):
                return None if self._is_closing(line) and candidates else line
            candidates = fitting
        return None


def _is_quote_head(line: str) -> bool:
    folded = _folded(line)
    return not folded or any(pattern.fullmatch(folded) for pattern in (_ORIGINAL, _RULE, _HEADER))


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
        if _is_attribution(joined):
            following = _next_written(lines, number + 1)
            return count if following.startswith(">") else 0
    return 0


def _is_attribution(line: str) -> bool:
    found = _ATTRIBUTION.fullmatch(line)
    if found is None or not (found["before"] or found["after"]) or not _MOMENT.search(found["date"]):
        return False
    return all(_DATE_WORDS.fullmatch(word) for word in re.findall(r"[^\W\d_]+", found["date"]))


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
