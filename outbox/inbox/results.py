"""Proof by Authentication-Results (RFC 8601): what a mail server of ours wrote about a message as it came in.

SECURITY. A sender writes any header he likes, also Authentication-Results and Received in our server's name; what he
cannot do is put a line above those that our server puts on top. So the header is walked from the top, and nothing
counts at or below the border: the first Received that shows the message coming from anywhere but one of our own hosts.
What cannot be read, or not be told apart, is the border. Below the topmost field of our server's name the next Received
is the border in any case: a server stamps a message once, as it comes in.

What this cannot see: whoever can hand the server a message that it neither stamps nor takes for one from outside (a
program on the mail host itself, or in its private network) can write what he likes. So can whoever may write to the
mailbox. Where that could be an agent, `dkim` or `code` is right. Servers that stamp below their own Received, where a
sender's own first line would stand too, cannot be used with it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from outbox.core.address import domain, parse_address
from outbox.core.errors import PolicyRefused
from outbox.inbox.incoming import Incoming
from outbox.inbox.proof import Proof, Unproven

LONGEST_FIELD = 16 * 1024
MOST_STAMPS = 50  # Authentication-Results that are looked at in one header; the most seen is seven
_LONGEST_HOST = 253
_INSTEAD = 'set approval.authenticity to "dkim" or "code"'
_LEXEME = (
    r"(?P<blank>[ \t]+)"
    r'|(?P<quoted>"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~])*")'
    r"|(?P<mark>[{marks}])"
    r'|(?P<word>[^\x00-\x20\x7f()"\\{marks}]+)'
)
_STAMP_LEXEME, _HOP_LEXEME = (re.compile(_LEXEME.replace("{marks}", marks)) for marks in (";=", ";"))
_BRACKET = re.compile(r"[()\\]")
# Every dmarc= that a reader could take for a finding, wherever it stands: none may be hidden from the parser.
_DMARC = re.compile(r"(?<![\w.-])dmarc\s*(?:/\s*[0-9]+\s*)?=", re.IGNORECASE)
_HOST = re.compile(r"(?:[a-z0-9-]{1,63}\.)*[a-z0-9-]{1,63}")
_ADDRESS = re.compile(r"\[(?:IPv6:)?([^\s\[\]]+)\]", re.IGNORECASE)
_HELO = re.compile(r"\b(?:helo|ehlo)\b", re.IGNORECASE)
_DATE = re.compile(
    r"(?:[A-Za-z]{3}, )?[0-9]{1,2} [A-Za-z]{3} [0-9]{4} [0-9]{2}:[0-9]{2}(?::[0-9]{2})? (?:[+-][0-9]{4}|[A-Za-z]{1,5})"
)
_CLAUSES = ("from", "by", "via", "with", "id", "for")  # RFC 5321 section 4.4, in this order
# RFC 3848 and 6531. A final A is a login: a submission, which comes from outside wherever it comes from. Nobody logs
# in to LMTP from outside (RFC 2033 section 5).
_PASSED_ON_WITH = {"", "smtp", "smtps", "esmtp", "esmtps", "utf8smtp", "utf8smtps"}
_DELIVERED_WITH = {f"{utf8}lmtp{extra}" for utf8 in ("", "utf8") for extra in ("", "s", "a", "sa")}
# Not ipaddress's is_private, which takes the documentation's networks and others in.
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10")
)


@dataclass(frozen=True, slots=True)
class _Lexeme:
    """A word, a quoted text without its quotes, a comment without its parentheses, or a mark.

    `joined` is true where neither blank nor comment stands before it.
    """

    kind: str
    text: str
    joined: bool


@dataclass(frozen=True, slots=True)
class _Resinfo:
    """What a server says of one method: "pass" and so on, and every header.from that it gives."""

    method: str
    says: str
    header_from: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stamp:
    """One Authentication-Results: the server's name, or "" where it leaves it out; None where the rest is no such."""

    server: str
    resinfos: tuple[_Resinfo, ...] | None


@dataclass(frozen=True, slots=True)
class _Hop:
    """One Received: who came, as he called himself and as the server saw him, and whom to, and how."""

    peer: str
    seen: tuple[str, ...]
    by: str
    protocol: str


@dataclass(frozen=True, slots=True)
class _Walk:
    """The stamps above the border, None for each that cannot be read; the border; the stamps below it."""

    above: tuple[_Stamp | None, ...]
    border: str | None
    below: tuple[_Stamp | None, ...]


def verify_results(
    incoming: Incoming, *, author: str, authserv_id: str, received_by: tuple[str, ...]
) -> Proof | Unproven:
    """Proof that our mail server found DMARC to pass for the domain of `author`, the one address in From.

    `authserv_id` and `received_by` are host names in lower case, in which "*" stands for characters of one label: the
    server that stamps, and every host of ours that passes mail on; without any, those that stamp.
    """
    if not incoming.whole:
        return Unproven("its header is too long, or not a header, to be relied on")
    walk = _walk(incoming, authserv_id, received_by or (authserv_id,))
    if walk.border is None:
        return Unproven(
            "no Received shows where it came in from outside, so what its sender wrote cannot be told apart"
        )
    if len(walk.above) > MOST_STAMPS:
        return Unproven(f"more than {MOST_STAMPS} Authentication-Results stand above {_border(walk)}")
    if None in walk.above:
        return Unproven(f"an Authentication-Results above {_border(walk)} cannot be read")
    stamps = [stamp for stamp in walk.above if stamp is not None and _matches(stamp.server, (authserv_id,))]
    if not stamps:
        return Unproven(_why_none(walk, authserv_id))
    return _judge_stamps(stamps, domain(author).lower())


def _judge_stamps(stamps: list[_Stamp], author_domain: str) -> Proof | Unproven:
    """Every dmarc in every field of ours says pass for this domain, and at least one does."""
    found = False
    for stamp in stamps:
        if stamp.resinfos is None:
            return Unproven(f"the Authentication-Results of {stamp.server} cannot be read")
        for resinfo in stamp.resinfos:
            if resinfo.method != "dmarc":
                continue
            if resinfo.says != "pass":
                return Unproven(f"{stamp.server} says dmarc={_shown(resinfo.says)}, not dmarc=pass")
            if len(resinfo.header_from) != 1:
                return Unproven(f"{stamp.server} says dmarc=pass with {len(resinfo.header_from)} header.from, not one")
            if not _is_domain(resinfo.header_from[0], author_domain):
                return Unproven(
                    f"{stamp.server} says dmarc=pass for {_shown(resinfo.header_from[0])}, not for {author_domain}"
                )
            found = True
    if found:
        return Proof("authentication-results", author_domain, "")
    return Unproven(f"{stamps[0].server} says nothing of dmarc, and nothing else it says proves a From; {_INSTEAD}")


def _is_domain(said: str, author_domain: str) -> bool:
    if said.isascii():
        return said.lower() == author_domain
    if len(said) > _LONGEST_HOST:
        return False
    try:  # RFC 8616: it may be in Unicode
        return domain(parse_address(f"a@{said}", "header.from")) == author_domain
    except PolicyRefused:
        return False


def _walk(incoming: Incoming, authserv_id: str, hosts: tuple[str, ...]) -> _Walk:
    above: list[_Stamp | None] = []
    below: list[_Stamp | None] = []
    border, stamped = None, False
    for name, value in incoming.fields:
        if name == "authentication-results":
            stamps = above if border is None else below
            if len(stamps) <= MOST_STAMPS:
                stamps.append(stamp := _parse_stamp(value))
                stamped = stamped or (stamp is not None and _matches(stamp.server, (authserv_id,)))
        elif name == "received" and border is None and (stamped or not _is_inside(_parse_hop(value), hosts)):
            border = value
    return _Walk(tuple(above), border, tuple(below))


def _is_inside(hop: _Hop | None, hosts: tuple[str, ...]) -> bool:
    """Whether a Received shows nothing but one of our hosts passing the message on to another one.

    What a host calls itself (HELO) is its own choice; what counts is the address that our server saw, in brackets. A
    name without a dot says nothing at all, and is let pass (Fastmail's hosts call each other so).
    """
    if hop is None or any(_HELO.search(comment) for comment in hop.seen):
        return False  # Exim and qmail write what the client said of itself into the comment
    addresses = [found for part in (hop.peer, *hop.seen) for found in _ADDRESS.findall(part)]
    if not all(_is_private(address) for address in addresses):
        return False
    if hop.protocol in _DELIVERED_WITH:
        return True
    named = _matches(hop.by, hosts) and (_matches(hop.peer, hosts) or "." not in hop.peer)
    return named and bool(addresses) and hop.protocol in _PASSED_ON_WITH


def _is_private(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in _PRIVATE)


def _matches(host: str, patterns: tuple[str, ...]) -> bool:
    if len(host) > _LONGEST_HOST or not _HOST.fullmatch(host):
        return False
    expressions = ("[a-z0-9-]*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return any(re.fullmatch(expression, host) for expression in expressions)


def _parse_stamp(value: str) -> _Stamp | None:
    """One Authentication-Results (RFC 8601 section 2.2), or None where not even its server's name can be read."""
    lexemes = _lex(value, _STAMP_LEXEME)
    if lexemes is None:
        return None
    head, *groups = _split([lexeme for lexeme in lexemes if lexeme.kind != "comment"])
    if not head or head[0].kind == "mark" or (len(head) > 1 and head[1].kind == "mark"):
        return _Stamp("", None)
    parsed = [_parse_resinfo(group) for group in groups if group and not _is_none(group)]
    resinfos = tuple(resinfo for resinfo in parsed if resinfo is not None)
    dmarcs = [resinfo for resinfo in resinfos if resinfo.method == "dmarc"]
    # A From has one finding. One that stands in a comment or in quotes is somebody's attempt at a second.
    plain = len(resinfos) == len(parsed) and len(dmarcs) == len(_DMARC.findall(value)) <= 1
    version_known = [lexeme.text for lexeme in head[1:]] in ([], ["1"])
    return _Stamp(_lower(head[0].text), resinfos if plain and version_known else None)


def _is_none(group: list[_Lexeme]) -> bool:
    return len(group) == 1 and group[0].kind == "word" and group[0].text.lower() == "none"


def _parse_resinfo(group: list[_Lexeme]) -> _Resinfo | None:
    """`method=result` and its properties; the values of those may hold what RFC 8601 would have in quotes."""
    pairs: list[tuple[str, str, bool]] = []
    position = 0
    while position < len(group):
        if [lexeme.kind for lexeme in group[position : position + 2]] != ["word", "mark"]:
            return None
        name, start = _lower(group[position].text), position + 2
        position = start
        while position < len(group) and (position == start or group[position].joined):
            position += 1
        value = group[start:position]
        pairs.append((name, "".join(part.text for part in value), any(part.kind == "quoted" for part in value)))
    method, says, quoted = pairs[0]
    keyword, slash, version = method.partition("/")
    if quoted or (slash and version != "1"):
        return None
    return _Resinfo(keyword, _lower(says), tuple(text for name, text, _ in pairs[1:] if name == "header.from"))


def _parse_hop(value: str) -> _Hop | None:
    """One Received, or None where it is not exactly what RFC 5321 section 4.4 says."""
    lexemes = _lex(value, _HOP_LEXEME)
    groups = _split(lexemes) if lexemes is not None else []
    if len(groups) != 2 or not _is_date(groups[1]):
        return None
    clauses: dict[str, str] = {}
    seen: list[str] = []
    clause = ""
    for lexeme in groups[0]:
        if lexeme.kind == "comment" and clauses.get(clause):
            seen += [lexeme.text] if clause == "from" else []
        elif clause == "for" and lexeme.joined:
            continue  # <"a b"@c.example>
        elif lexeme.kind != "word":
            return None
        elif clause and not clauses[clause]:
            clauses[clause] = lexeme.text
        elif _follows(lexeme.text.lower(), clause):
            clause = lexeme.text.lower()
            clauses[clause] = ""
        else:
            return None
    if not clauses.get("by") or not clauses[clause]:
        return None
    return _Hop(_lower(clauses.get("from", "")), tuple(seen), _lower(clauses["by"]), clauses.get("with", "").lower())


def _follows(word: str, clause: str) -> bool:
    return word in _CLAUSES and (not clause or _CLAUSES.index(word) > _CLAUSES.index(clause))


def _is_date(group: list[_Lexeme]) -> bool:
    return _DATE.fullmatch(" ".join(lexeme.text for lexeme in group if lexeme.kind != "comment")) is not None


def _lex(value: str, expression: re.Pattern[str]) -> list[_Lexeme] | None:
    """The parts of a structured field (RFC 5322 section 3.2), each looked at once; None where it is not one."""
    lexemes: list[_Lexeme] = []
    position, joined = 0, False
    while position < len(value) <= LONGEST_FIELD:
        if value[position] == "(":
            end = _comment_end(value, position)
            if end is None:
                return None
            lexemes.append(_Lexeme("comment", value[position + 1 : end - 1], joined=False))
            position, joined = end, False
            continue
        found = expression.match(value, position)
        if found is None or found.lastgroup is None:
            return None
        position = found.end()
        if found.lastgroup == "blank":
            joined = False
            continue
        text = re.sub(r"\\(.)", r"\1", found[0][1:-1]) if found.lastgroup == "quoted" else found[0]
        lexemes.append(_Lexeme(found.lastgroup, text, joined))
        joined = True
    return lexemes if len(value) <= LONGEST_FIELD else None


def _comment_end(value: str, start: int) -> int | None:
    """Behind the parenthesis that closes the one at `start`: comments nest, and a backslash takes its character in."""
    depth, position = 0, start
    while (found := _BRACKET.search(value, position)) is not None:
        position = found.end()
        if found[0] == "\\":
            position += 1
            continue
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return position
    return None


def _split(lexemes: list[_Lexeme]) -> list[list[_Lexeme]]:
    """What stands between semicolons."""
    groups: list[list[_Lexeme]] = [[]]
    for lexeme in lexemes:
        if lexeme.kind == "mark" and lexeme.text == ";":
            groups.append([])
        else:
            groups[-1].append(lexeme)
    return groups


def _why_none(walk: _Walk, authserv_id: str) -> str:
    """What to do where no field of our server's name stands above the border."""
    if any(stamp is not None and not stamp.server for stamp in walk.above):
        return (
            "this server leaves its name out of Authentication-Results, so that they cannot be told from forged ones"
            f" and authentication-results cannot be used with it; {_INSTEAD}"
        )
    if any(stamp is not None and _matches(stamp.server, (authserv_id,)) for stamp in walk.below):
        return (
            f"the Authentication-Results of {authserv_id} stands only below {_border(walk)}, where its sender could"
            " have written it; if both hosts of this Received are yours, list them in approval.received_by, and if your"
            f" server always stamps below its own Received, {_INSTEAD}"
        )
    others = sorted({_shown(stamp.server) for stamp in walk.above if stamp is not None})[:3]
    names = f"; those of {', '.join(others)} do: is approval.authserv_id right?" if others else ""
    return f"no Authentication-Results of {authserv_id} stands above {_border(walk)}{names}"


def _border(walk: _Walk) -> str:
    hop = _parse_hop(walk.border or "")
    if hop is None:
        return "the border (a Received that is not of the usual form)"
    return f"the border (Received: {f'from {_shown(hop.peer)} ' if hop.peer else ''}by {_shown(hop.by)})"


def _shown(text: str) -> str:
    """Foreign text in a sentence of ours: short, and nothing in it that is not seen as it is."""
    return re.sub(r"[^!-~]", "?", text[:60])


def _lower(text: str) -> str:
    """In lower case where it is ASCII: elsewhere that could make another word of it (the Kelvin sign becomes a k)."""
    return text.lower() if text.isascii() else text
