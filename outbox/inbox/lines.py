"""One line of a reply as it is compared, and whether it heads a quote, closes a letter or stands for a picture.

All of it is closed lists of words: what is on none of them was written by the approver.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

_QUOTES = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "＇": "'", "“": '"', "”": '"', "«": '"', "»": '"'})  # noqa: RUF001
_LINKS = re.compile(r"[<\[](?:mailto:|https?://|tel:)[^<>\[\]\s]{1,2000}[>\]]|\( ?https?://[^()\s]{1,2000} ?\)")
_MARKDOWN = re.compile(r"\[([^\[\]]{1,200})\]\( ?(?:https?://|mailto:)[^()\s]{1,2000} ?\)")
_ORIGINAL = re.compile(
    r"-{2,} ?(?:original message|forwarded message|ursprüngliche nachricht|originalnachricht|message d'origine"
    r"|message original|mensaje original|oorspronkelijk bericht|messaggio originale|mensagem original) ?-{2,}"
)
_RULE = re.compile(r"_{20,}|-{20,}")
_FROM = re.compile(r"\*?(?:from|von|de|da|van)(?: ?(?P<colon>:)\*? ?| )(?P<author>.*)")
_FIELDS = tuple(
    re.compile(rf"\*?(?:{names})(?: ?(?P<colon>:).*| .*)")
    for names in (
        "sent|date|gesendet(?: am)?|datum|envoyé(?: le)?|enviado(?: el| em)?|fecha|inviato|data|verzonden|enviada em",
        "to|an|à|para|a|aan",
        "subject|betreff|objet|asunto|oggetto|onderwerp|assunto",
        "cc|kopie|copie|copia|importance|wichtigkeit|importancia",
    )
)
_LONGEST_HEAD = 12  # lines
_LONGEST_FIELD = 1000
_LONGEST_RULE = 200
_ADDRESSES_ALONE = len(_FIELDS) + 1  # a field that is wrapped
_ADDRESS = re.compile(r"[<(]?[^\s<>()@]{1,320}@[^\s<>()@]{1,320}[>)]?[;,]?")
_NAMED = re.compile(r"""["'<(\[]?\boutbox\b["'>)\]]?(?:,? ?[<(\[]{1,2} ?[^\s<>()\[\]]{1,400} ?[>)\]]{1,2})?""")
_DAY = re.compile(r"\b(?:19|20)[0-9]{2}\b|\b[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}\b")
_HOUR = re.compile(r"\b[0-9]{1,2} ?[:.h] ?[0-9]{2}\b")
_WORD = re.compile(r"[^\W\d_]+")
_PUNCTUATION = re.compile(r"""[\s\d.,:;/()+'"–-]*""")  # noqa: RUF001  an en dash
_WROTE = frozenset(_WORD.findall("wrote schrieb geschrieben écrit escribió schreef scritto escreveu by von par por"))
_DATE_WORDS = frozenset(
    _WORD.findall(
        # English, German, French, Spanish, Dutch, Italian, Portuguese
        "monday mon tuesday tue tues wednesday wed thursday thu thur thurs friday fri saturday sat sunday sun "
        "january jan february feb march mar april apr may june jun july jul august aug september sep sept october "
        "oct november nov december dec montag mo dienstag di mittwoch mi donnerstag do freitag fr samstag sa "
        "sonnabend sonntag so januar jänner jän februar märz mär mrz mai juni juli oktober okt dezember dez lundi "
        "lun mardi mercredi mer jeudi jeu vendredi ven samedi sam dimanche dim janvier janv février févr fév mars "
        "avril avr juin juillet juil août aoû septembre octobre novembre décembre déc lunes martes miércoles mié "
        "jueves jue viernes vie sábado sáb domingo dom enero ene febrero marzo abril abr mayo junio julio agosto "
        "ago septiembre setiembre octubre noviembre diciembre dic maandag ma dinsdag woensdag wo donderdag "
        "vrijdag vr zaterdag za zondag zo januari februari maart mrt mei augustus lunedì martedì mercoledì "
        "giovedì gio venerdì sabato sab domenica gennaio gen febbraio aprile maggio mag giugno giu luglio lug "
        "settembre set ottobre ott dicembre segunda terça quarta quinta sexta feira seg ter qua qui sex janeiro "
        "fevereiro fev março maio junho julho setembro outubro out novembro dezembro "
        # what joins them
        "on am hat folgendes le el il op em giorno alle ore om às um uhr at à a las la de del dem den der du the ha p "
        "m pm h st nd rd th utc gmt z est edt cst cdt mst mdt pst pdt bst ist cet cest eet eest wet west mez mesz msk "
        "jst aest aedt greenwich mean time standard daylight summer central european eastern western pacific mountain "
        "british "
    )
)
_ATTRIBUTING = _WROTE | _DATE_WORDS
_BEGINNINGS = _DATE_WORDS - {"p", "m", "st", "nd", "rd", "th", "ha"}
_PICTURE = re.compile(r"\[(?:image|inline image|cid|bild|photo|imagen|foto)\b[^\[\]]{0,200}\]")
_DEVICE = (
    r"(?:iphone|ipad|android(?:[ -](?:device|phone|gerät|mobiltelefon))?|(?:samsung )?galaxy(?: smartphone| tablet)?"
    r"|(?:google )?pixel(?: [0-9a-z]{1,3})?(?: pro)?|huawei(?: phone)?|xiaomi(?: phone)?|mobile(?: device| phone)?"
    r"|smartphone|phone|tablet|handy|mobiltelefon|téléphone|appareil android|móvil|teléfono|dispositivo android|mac)"
)
_SYSTEM = r"(?:ios|iphone|ipad|android|mac|macos|windows(?: 1[01])?|mobile|desktop)"
_CLIENT = (
    r"(?:outlook|gmail|mail|yahoo mail|aol(?: mail)?|the all new aol app|proton ?mail|fastmail|samsung mobile"
    r"|samsung email|superhuman|mailspring|missive|spark|shortwave|hey|front|zoho mail|tuta(?:nota)?(?: mail)?"
    r"|em client|k-9 mail|thunderbird|(?:gmx|web\.de)(?: mail)?(?: app)?|correo|courrier)"
)
_MOBILE = re.compile(
    rf"sent (?:from|with|via) (?:my {_DEVICE}|(?:the )?{_CLIENT}(?: mobile)?(?: secure email)?"
    rf"(?: (?:for |on )?{_SYSTEM})?(?: mobile)?)|get outlook for {_SYSTEM}"
    r"|sent from mailspring ?, the best free email app for work"
    r"|sent from my android device with k-9 mail\. please excuse my brevity"
    rf"|von meinem {_DEVICE} gesendet|gesendet (?:von|mit)(?: meinem {_DEVICE}|(?: der)? {_CLIENT}"
    rf"(?: sichere e-mail)?(?: (?:für|auf) {_SYSTEM})?)|(?:holen sie sich )?outlook für {_SYSTEM}"
    r"(?: (?:beziehen|herunterladen|abrufen))?"
    rf"|diese (?:nachricht|e-mail) wurde von meinem {_DEVICE} mit {_CLIENT} gesendet"
    rf"|envoyé (?:de|depuis|à partir de|avec)(?: mon {_DEVICE}|(?: l'application)? {_CLIENT}"
    rf"(?: (?:pour|sur) {_SYSTEM})?)|(?:obtenir|obtenez|télécharger|téléchargez) outlook pour {_SYSTEM}"
    rf"|enviado (?:desde|con)(?: mi {_DEVICE}| {_CLIENT}(?: (?:para|en) {_SYSTEM})?)"
    rf"|(?:obtener|obtenga|descargar) outlook para {_SYSTEM}"
)


def attribution_tail(lines: Sequence[str], address: str) -> str | None:
    """What stands behind "On ... wrote:" on the same line, or None where these lines are no attribution.

    `address` is ours; some clients name it instead of our name.
    """
    if any(len(line) > _LONGEST_FIELD or line.startswith(">") for line in lines):
        return None
    parts = [_with_our_name(line, address) for line in lines]
    if not parts or not all(parts) or (len(parts) > 1 and not _is_wrapped_date(parts)):
        return None
    head, _, tail = lines[0].partition(":  ") if len(lines) == 1 else ("", "", "")
    if tail.strip() and _is_attribution(_with_our_name(head, address) + ":"):
        return tail
    return "" if _is_attribution(" ".join(parts)) else None


def _with_our_name(line: str, address: str) -> str:
    """A folded line without links, and with "outbox" in place of our address."""
    words = folded(_LINKS.sub("", line))
    return _extended(address).sub("outbox", words) if address else words


def _is_attribution(line: str) -> bool:
    """Whether this is "On <date>, Outbox <...> wrote:" as some client writes it: our name, and no other word."""
    plain = line.strip("- ")
    if not (line.endswith(":") or (line.endswith("---") and line.startswith("---"))):
        return False
    rest, names = _NAMED.subn(" ", plain)
    if not names and plain.endswith(" you wrote:"):
        rest, names = plain.removesuffix("you wrote:") + "wrote", 1
    words = set(_WORD.findall(rest))
    return (
        names == 1
        and _DAY.search(rest) is not None
        and _HOUR.search(rest) is not None
        and bool(words & _WROTE)
        and words <= _ATTRIBUTING
        and _PUNCTUATION.fullmatch(_WORD.sub("", rest)) is not None
    )


def folded(line: str) -> str:
    """A line as it is compared: NFKC, without case, each run of white space one blank."""
    return " ".join(unicodedata.normalize("NFKC", line.translate(_QUOTES)).casefold().split())


def plain(line: str) -> str:
    """The same without one full stop or exclamation mark at its end."""
    words = folded(line)
    return words[:-1].rstrip() if words.endswith((".", "!")) else words


def is_picture(line: str) -> bool:
    """Whether a client wrote this line in a picture's place."""
    return len(line) <= _LONGEST_FIELD and _PICTURE.fullmatch(folded(line)) is not None


def without_links(line: str) -> str:
    """A line without the links that clients add as they make text of HTML."""
    return _LINKS.sub("", line)


def is_mobile_closing(line: str) -> bool:
    """Whether a client put this line below what its user wrote: "Sent from my iPhone" and kin."""
    return _MOBILE.fullmatch(undecorated(line)) is not None


def undecorated(line: str) -> str:
    """A line without what one of its two parts, plain and HTML, has more: links, and marks of bold and italics."""
    return plain(_LINKS.sub("", _MARKDOWN.sub(r"\1", line)).strip(" \t\u00a0*_")) if len(line) <= _LONGEST_FIELD else ""


@lru_cache(maxsize=8)
def _extended(address: str) -> re.Pattern[str]:
    local, _, host = folded(address).rpartition("@")
    return re.compile(rf"(?<![\w.+-]){re.escape(local)}(?:\+[\w=.-]{{0,64}})?@{re.escape(host)}(?![\w-])")


def _is_wrapped_date(parts: Sequence[str]) -> bool:
    """Whether a client broke these lines: the whole date on the first, and each break behind our name or a comma.

    Else "On 18.01.2027 at 10:00" above "On 2027-01-15, Outbox wrote:" would be one attribution, and no remark.
    """
    first = _WORD.search(parts[0])
    whole = first is not None and first[0] in _BEGINNINGS and _DAY.search(parts[0]) and _HOUR.search(parts[0])
    undated = not any(_DAY.search(part) or _HOUR.search(part) for part in parts[1:])
    return bool(whole) and undated and all("outbox" in part or part.endswith(",") for part in parts[:-1])


def rule_lines(lines: Sequence[str], position: int) -> int:
    """How many lines from here are a rule, with the blank ones below it."""
    line = folded(lines[position]) if len(lines[position]) <= _LONGEST_RULE else ""
    if not (_ORIGINAL.fullmatch(line) or _RULE.fullmatch(line)):
        return 0
    count = 1
    while count < 4 and position + count < len(lines) and not lines[position + count].strip():
        count += 1
    return count


def header_block(lines: Sequence[str], position: int, address: str, *, after_rule: bool) -> int:
    """How many lines from here are From and at least two of Sent, To, Subject, as Outlook and others head a quote.

    From must be us, by name or `address`: else it may be what the approver wants another to be.
    """
    kinds: list[int] = []
    for line in lines[position : position + _LONGEST_HEAD]:
        if len(line) > _LONGEST_FIELD:
            break
        kind = _kind_of_field(_with_our_name(line, address), after_rule=after_rule)
        if kind is None or (kind < len(_FIELDS) and kind in kinds):
            break  # a second Subject was written by the approver
        kinds.append(kind)
    return len(kinds) if 0 in kinds and len({1, 2, 3}.intersection(kinds)) >= 2 else 0


def _kind_of_field(line: str, *, after_rule: bool) -> int | None:
    """0 for From, 1 to 3 for Sent, To and Subject, more for what else may stand there, None for anything else."""
    for kind, pattern in enumerate((_FROM, *_FIELDS)):
        found = pattern.fullmatch(line)
        if found is not None and (found["colon"] or after_rule):  # eM Client leaves the colons out, below its rule
            return kind if kind > 0 or _NAMED.fullmatch(found["author"]) else None
    return _ADDRESSES_ALONE if line and all(map(_ADDRESS.fullmatch, line.split())) else None
