"""What a reply says: the first line decides, whole, and only if nothing but quotes and closings stands around it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a reply says."""

    APPROVE = "approve"
    REJECT = "reject"
    CANCEL = "cancel"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict, the reason given with a rejection, and why it was read so."""

    verdict: Verdict
    reason: str | None
    why: str


APPROVING = ("ship it", "send it", "approve", "approved", "yes", "ok to send", "lgtm", "go ahead")
REJECTING = ("reject", "no", "don't send", "do not send", "don't send it", "do not send it")
CANCELLING = ("cancel", "stop", "hold")
LONGEST_REASON = 2000
_LONGEST_LINE = 1000
_MOST_LINES = 20_000
_LONGEST_SIGNATURE = 10
_QUOTES = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "＇": "'", "“": '"', "”": '"'})  # noqa: RUF001
_REASON = re.compile(
    rf"(?P<word>{'|'.join(sorted(map(re.escape, REJECTING), key=len, reverse=True))})[.!]?\s*:\s*(?P<reason>.*)"
)
_ATTRIBUTION = re.compile(r"(?=.*[0-9@])(?:on|am|le|el)\b.{0,300}(?:wrote|schrieb|a écrit|escribió)(?:\s.{0,200})?:")
_ORIGINAL = re.compile(
    r"-{2,}\s*(?:original message|forwarded message|ursprüngliche nachricht|message d'origine)\s*-{2,}"
)
_RULE = re.compile(r"_{20,}|-{20,}")
_OUTLOOK = re.compile(r"\*?(?:from|von|de):\*?\s.*")
_MOBILE = re.compile(
    r"(?:sent from my (?:iphone|ipad|android(?: device| phone)?|(?:samsung )?galaxy(?: smartphone)?|mobile|phone)"
    r"|sent from (?:outlook|gmail|mail|yahoo mail|proton mail|fastmail|samsung mobile)(?: (?:for|on) [a-z0-9 ]{1,30})?"
    r"|sent with (?:proton ?mail|shortwave|spark)(?: secure email)?"
    r"|get outlook for (?:ios|android)(?: ?<[^<>\s]{1,200}>)?"
    r"|von meinem (?:iphone|ipad|handy) gesendet|envoyé de mon (?:iphone|ipad)|enviado desde mi (?:iphone|ipad))\.?"
)


def read_verdict(text: str, closing: Sequence[str] = ()) -> Reading:
    """Read a reply's plain text. `closing` are lines of the approver's own signature that may follow an approval."""
    if len(text) > _LONGEST_LINE * _MOST_LINES:
        return Reading(Verdict.UNCLEAR, None, "the text is too long")
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return Reading(Verdict.UNCLEAR, None, "there is no text")
    line = lines[first].strip()
    if len(line) > _LONGEST_LINE + LONGEST_REASON:
        return Reading(Verdict.UNCLEAR, None, "the first line is too long")
    words = _plain(line)
    if words in APPROVING:
        return _approve_unless_more(words, lines[first + 1 :], {_plain(one) for one in closing})
    if words in CANCELLING:
        return Reading(Verdict.CANCEL, None, f'the first line is "{words}"')
    if words in REJECTING:
        return Reading(Verdict.REJECT, "", f'the first line is "{words}"')
    found = _REASON.fullmatch(_folded(line))
    if found is not None:
        reason = line.partition(":")[2].strip()[:LONGEST_REASON]
        return Reading(Verdict.REJECT, reason, f'the first line begins with "{found["word"]}:"')
    return Reading(Verdict.UNCLEAR, None, f"the first line, {line[:60]!a}, is not a verdict")


def _approve_unless_more(words: str, rest: Sequence[str], closing: set[str]) -> Reading:
    remark = _first_remark(rest, closing)
    if remark is not None:
        return Reading(Verdict.UNCLEAR, None, f'after "{words}" comes {remark[:60]!a}; an approval stands alone')
    return Reading(Verdict.APPROVE, None, f'the first line is "{words}" and nothing was added')


def _first_remark(lines: Sequence[str], closing: set[str]) -> str | None:
    """The first line that is neither blank, quoted, a signature, an attribution nor a known closing."""
    position = 0
    while position < len(lines):
        line = lines[position]
        plain = _folded(line.strip())
        if line.rstrip() == "--":
            position = _past_signature(lines, position + 1)
            continue
        if _begins_unmarked_quote(lines, position):
            return None
        attribution = _attribution_lines(lines, position)
        if attribution:
            position += attribution
            continue
        if plain and not line.startswith(">") and _plain(line) not in closing and not _MOBILE.fullmatch(plain):
            return line.strip()
        position += 1
    return None


def _past_signature(lines: Sequence[str], position: int) -> int:
    """Where a "-- " signature ends: at the next quote, or after ten lines, so that it cannot hide a letter."""
    end = position
    while end < len(lines) and end - position < _LONGEST_SIGNATURE and not lines[end].startswith(">"):
        if _attribution_lines(lines, end) or _begins_unmarked_quote(lines, end):
            break
        end += 1
    return end


def _attribution_lines(lines: Sequence[str], position: int) -> int:
    """How many lines from here are "On ... wrote:" above a quote; clients wrap it over up to three."""
    joined = ""
    for count in range(1, 4):
        if position + count > len(lines):
            return 0
        joined = f"{joined} {_folded(lines[position + count - 1].strip())}".strip()
        if len(joined) > _LONGEST_LINE:
            return 0
        if _ATTRIBUTION.fullmatch(joined):
            after = next((line for line in lines[position + count :] if line.strip()), "")
            return count if after.startswith(">") else 0
    return 0


def _begins_unmarked_quote(lines: Sequence[str], position: int) -> bool:
    """Outlook's quotes have no ">": a rule or "Original Message", then From, Sent, To, Subject."""
    plain = _folded(lines[position].strip())
    if not _ORIGINAL.fullmatch(plain) and not _RULE.fullmatch(plain):
        return False
    after = next((line for line in lines[position + 1 :] if line.strip()), "")
    return bool(_OUTLOOK.match(_folded(after.strip())[:_LONGEST_LINE]))


def _folded(line: str) -> str:
    return " ".join(
        unicodedata.normalize("NFKC", line[: _LONGEST_LINE + LONGEST_REASON].translate(_QUOTES)).casefold().split()
    )


def _plain(line: str) -> str:
    folded = _folded(line.strip())
    return folded[:-1].rstrip() if folded.endswith((".", "!")) else folded
