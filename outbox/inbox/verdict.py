"""What a reply says: the first line decides, whole, and only if nothing but quotes and closings stands around it.

What counts as quote or closing is in quoting.py; docs/adr/0015-how-a-reply-is-read.md has the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from outbox.core.grant import without_tokens
from outbox.inbox.incoming import Letter
from outbox.inbox.lines import folded, is_picture, plain, without_links
from outbox.inbox.quoting import LONGEST_LINE, MOST_REMARKS, OwnText, Remarks, Reply, closing_forms


class Verdict(StrEnum):
    """What a reply says."""

    APPROVE = "approve"
    REJECT = "reject"
    CANCEL = "cancel"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict, the reason given with a rejection, and why it was read so.

    `excerpt` are words of the reply, for the answer to who wrote them and for nobody else: `why` holds none. `code` are
    the six digits that stood with an approval. `closing_hint` are the lines that, in `approval.closing`, would have let
    the approval count: there only where they look like a signature.
    """

    verdict: Verdict
    reason: str | None
    why: str
    excerpt: str = ""
    code: str | None = None
    closing_hint: tuple[str, ...] = ()


# English, German, French, Spanish. A word that means something else in another of them is in no list ("si").
APPROVING = (
    "ship it", "send it", "approve", "approved", "yes", "ok to send", "lgtm", "go ahead",
    "ja", "senden", "absenden", "abschicken", "versenden", "freigeben", "freigegeben", "genehmigt",
    "oui", "envoyer", "envoyez", "envoie", "approuver", "approuvé", "approuve", "bon pour envoi", "vas-y", "allez-y",
    "sí", "enviar", "envíalo", "envíelo", "aprobar", "aprobado", "aprobada", "adelante",
)  # fmt: skip
REJECTING = (
    "reject", "no", "don't send", "do not send", "don't send it", "do not send it",
    "ablehnen", "abgelehnt", "nein", "nicht senden", "nicht absenden", "nicht abschicken", "nicht versenden",
    "refuser", "refusé", "rejeter", "rejeté", "non", "ne pas envoyer", "n'envoyez pas", "n'envoie pas",
    "rechazar", "rechazado", "rechazada", "no enviar", "no lo envíes", "no lo envíe",
)  # fmt: skip
CANCELLING = (
    "cancel", "stop", "hold", "stopp", "stoppen", "halt", "anhalten", "abbrechen",
    "annuler", "annulez", "arrêter", "arrêtez", "arrête", "cancelar", "cancela", "detener", "parar", "para",
)  # fmt: skip
LONGEST_REASON = 2000
MOST_LINES = 20_000
_LONGEST_FIRST_LINE = 4000
_LONGEST_WORD = 60
_LONGEST_CLOSING = 80
_COLON = re.compile("[:\uff1a\ufe55\ufe13]")
_CODE = re.compile(r"([0-9]{3})[ \u00a0]?([0-9]{3})")
_CODE_BEHIND = re.compile(r"[ \t\u00a0][0-9]{3}[ \u00a0]?[0-9]{3}\Z")
_DISAGREE = "its plain and its HTML part say different things"


@dataclass(frozen=True, slots=True)
class Words:
    """The first lines that are a verdict, as they are compared."""

    approving: frozenset[str]
    rejecting: frozenset[str]
    cancelling: frozenset[str]

    def with_more(self, approve: Sequence[str], reject: Sequence[str], cancel: Sequence[str]) -> Words:
        """These and the settings' own. Raises ValueError naming a word that is empty, too long, or in two lists."""
        lists = [self.approving, self.rejecting, self.cancelling]
        for number, more in enumerate((approve, reject, cancel)):
            for word in more:
                form = _word(word)
                if not form or len(form) > _LONGEST_WORD or form.startswith(">"):
                    raise ValueError(
                        f"{word[:_LONGEST_WORD]!r} is no word: one line of up to {_LONGEST_WORD} characters"
                    )
                if any(form in others for n, others in enumerate(lists) if n != number):
                    raise ValueError(f"{word!r} would stand in two lists")
                lists[number] |= {form}
        return Words(*lists)


BUILT_IN = Words(frozenset(APPROVING), frozenset(REJECTING), frozenset(CANCELLING))


@dataclass(frozen=True, slots=True)
class _Rules:
    """Everything but the text that a reading depends on."""

    words: Words
    with_code: bool
    closing: frozenset[str]
    own: tuple[OwnText, ...]
    address: str


def read_letter_verdict(
    letter: Letter,
    closing: Sequence[str] = (),
    originals: Sequence[str] = (),
    *,
    words: Words = BUILT_IN,
    with_code: bool = False,
    address: str = "",
) -> Reading:
    """Read what a letter says, its plain and its HTML part by the same rules; where they differ it is unclear.

    The other arguments are those of `read_verdict`.
    """
    rules = _Rules(words, with_code, closing_forms(closing), tuple(map(OwnText.of, originals)), address)
    parts = [part for part in (letter.plain, letter.html) if part is not None]
    if not parts:
        return Reading(Verdict.UNCLEAR, None, letter.why)
    readings = [_read(part, rules) for part in parts]
    reading = readings[0]
    if letter.doubt and reading.verdict is not Verdict.UNCLEAR:
        return Reading(Verdict.UNCLEAR, None, letter.doubt)
    if any((other.verdict, other.code) != (reading.verdict, reading.code) for other in readings):
        doubtful = next((one for one in readings if one.verdict is Verdict.UNCLEAR), Reading(Verdict.UNCLEAR, None, ""))
        return replace(doubtful, why=_DISAGREE)
    hints = [other.closing_hint for other in readings]
    together = tuple(dict.fromkeys(line for hint in hints for line in hint))
    return replace(reading, closing_hint=together if all(hints) and len(together) <= MOST_REMARKS else ())


def read_verdict(
    text: str,
    closing: Sequence[str] = (),
    originals: Sequence[str] = (),
    *,
    words: Words = BUILT_IN,
    with_code: bool = False,
    address: str = "",
) -> Reading:
    """Read a reply's text.

    `closing` are lines of the approver's own signature that may follow an approval; `originals` are the texts that we
    wrote to him, any of which he may quote without a mark; `address` is ours. `with_code` takes six digits behind or
    below an approving word for his one-time code; without it they are a remark.
    """
    return _read(text, _Rules(words, with_code, closing_forms(closing), tuple(map(OwnText.of, originals)), address))


def _read(text: str, rules: _Rules) -> Reading:
    lines = [line.strip("\r") for line in text.split("\n", MOST_LINES)]
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return Reading(Verdict.UNCLEAR, None, "there is no text")
    if len(lines[first]) > _LONGEST_FIRST_LINE:
        return Reading(Verdict.UNCLEAR, None, "the first line is too long")
    reply = Reply(lines, rules.closing, rules.own, rules.address)
    line, code = _split_code(lines[first]) if rules.with_code else (lines[first], None)
    words, known = _word(line), rules.words
    if words in known.approving:
        return _approve_unless_more(words, reply, first + 1, code, with_code=rules.with_code)
    if words in known.cancelling:
        return Reading(Verdict.CANCEL, None, f'the first line is "{words}"')
    if words in known.rejecting:
        reason = _reason(reply, first + 1, "", with_code=rules.with_code)
        return Reading(Verdict.REJECT, reason, f'the first line is "{words}"')
    head, *rest = _COLON.split(lines[first], maxsplit=1)
    if rest and _word(head) in known.rejecting:
        reason = _reason(reply, first + 1, rest[0], with_code=rules.with_code)
        return Reading(Verdict.REJECT, reason, "the first line rejects, and says why")
    if folded(line).startswith("-----begin pgp "):
        why = "it is signed with PGP inside its text, which is not read; PGP/MIME is"
        return Reading(Verdict.UNCLEAR, None, why)
    return Reading(Verdict.UNCLEAR, None, "the first line is not a verdict", _excerpt(lines[first]))


def _word(line: str) -> str:
    return plain(line).removeprefix("¡")


def _split_code(line: str) -> tuple[str, str | None]:
    """A line without the six digits at its end, and those; a mail client may have made a link of them."""
    shown = without_links(line).rstrip()
    found = _CODE_BEHIND.search(shown)
    return (shown[: found.start()], _digits(found[0])) if found is not None else (line, None)


def _code_below(lines: Sequence[str], position: int) -> tuple[str | None, int]:
    """The code on the next line that is not blank, and where the rest begins."""
    number = next((n for n in range(position, len(lines)) if lines[n].strip()), position)
    shown = without_links(lines[number]).strip() if number < len(lines) else ""
    return (_digits(shown), number + 1) if _CODE.fullmatch(shown) else (None, position)


def _digits(text: str) -> str:
    return "".join(text.split())


def _reason(reply: Reply, position: int, begun: str, *, with_code: bool) -> str:
    """The rest of the paragraph that a rejection begins, without what is not seen and without a one-time code."""
    lines = [begun, *reply.paragraph(position, LONGEST_REASON)]
    said = " ".join(" ".join(line for line in lines if not (with_code and _CODE.fullmatch(line.strip()))).split())
    return without_tokens("".join(character for character in said if character.isprintable()))[:LONGEST_REASON]


def _approve_unless_more(words: str, reply: Reply, position: int, code: str | None, *, with_code: bool) -> Reading:
    if len(reply.lines) > MOST_LINES or any(len(line) > LONGEST_LINE for line in reply.lines):
        return Reading(Verdict.UNCLEAR, None, f'what stands below "{words}" is too long to be read')
    if with_code and code is None:
        code, position = _code_below(reply.lines, position)
    remarks = reply.remarks(position)
    if not remarks.lines:
        return Reading(Verdict.APPROVE, None, f'the first line is "{words}" and nothing was added', code=code)
    why = f'after "{words}" comes something else; an approval stands alone'
    excerpt, hint = _excerpt(remarks.lines[0]), _closing_hint(remarks, reply, position)
    return Reading(Verdict.UNCLEAR, None, why, excerpt, closing_hint=hint)


def _closing_hint(remarks: Remarks, reply: Reply, position: int) -> tuple[str, ...]:
    """The lines that would have to be listed; none where they do not look like a signature, or would not be enough."""
    lines = tuple(dict.fromkeys(line.strip() for line in remarks.lines if not is_picture(line)))
    if remarks.amid_quote or len(remarks.lines) > MOST_REMARKS:
        return ()
    if any(len(line) > _LONGEST_CLOSING or without_tokens(line) != line for line in lines):
        return ()
    return () if reply.with_closing(lines).remarks(position).lines else lines


def _excerpt(line: str) -> str:
    return without_tokens(line.strip())[:200]
