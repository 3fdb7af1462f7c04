"""Proof by DKIM: a signature of the From domain over the octets as they came, under rules of our own (RFC 6376).

dkimpy canonicalises and checks the signature. What it would let pass, or would take hours over, is held off before:
it sees one signature, the fields that we parsed, each once, and a body in which nothing is left to collapse. Its own
header parser and its own clock are not used.
"""

from __future__ import annotations

import logging
import re
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from outbox.core.address import domain as domain_of
from outbox.core.address import without_extension
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Unavailable
from outbox.inbox.boundary import bears_out
from outbox.inbox.incoming import LARGEST_MESSAGE, Incoming
from outbox.inbox.proof import Proof, Unproven
from outbox.inbox.signature import TRACE, UNREADABLE, Key, Signature, parse_key, parse_signature, why_not_modern

MOST_SIGNATURES = 10  # looked at
MOST_TRIED = 4  # for which DNS is asked
SMALLEST_RSA, LARGEST_RSA = 1024, 8192  # bit; RFC 8301 3.2
_LARGEST_EXPONENT = 2**32
_AHEAD = 3600  # seconds that the signer's clock may be before ours
_FIELD = re.compile(rb"([!-9;-~]{1,100}):(.*)", re.DOTALL)
# Fields that we act on: what stands twice can be read in two ways, and a signature covers the last one alone.
_ONCE = {
    "from", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references", "mime-version", "content-type",
    "content-transfer-encoding", "content-disposition",
}  # fmt: skip
_EMPTY = b"\r\n"
_RECIPIENTS = {"to", "cc"}
# Outside the tree of loggers, so that no settings let it write a stranger's text into the log.
_SILENT = logging.Logger("dkimpy", logging.CRITICAL + 1)  # noqa: LOG001  see above


class KeySource(Protocol):
    """Whoever knows the TXT records of a name, or raises Unavailable."""

    def txt(self, name: str) -> tuple[bytes, ...]:
        """Every TXT record of a name."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One header field as it stands, with CRLF line ends: its name, and everything after the colon."""

    name: bytes
    value: bytes

    @property
    def key(self) -> str:
        return self.name.decode("ascii").lower()


@dataclass(frozen=True, slots=True)
class _Signed:
    """A message with CRLF line ends, and what is asked of a signature of it; `now` in seconds UTC."""

    fields: tuple[_Field, ...]
    body: bytes
    author: str
    domains: frozenset[str]
    selectors: frozenset[str]
    naming: frozenset[str]
    addressed: frozenset[str]
    now: int


def verify_dkim(
    incoming: Incoming,
    *,
    author: str,
    domains: frozenset[str],
    selectors: frozenset[str],
    naming: frozenset[str],
    addressed: frozenset[str],
    resolver: KeySource,
    now: int,
) -> Proof | Unproven:
    """Whether the domain of `author`, the one address in From, or one of `domains` signed this message; `now` in µs.

    Signed must be From, Date, one of the fields `naming` (those that name the request) and the whole body, and where To
    or Cc is signed, one of `addressed` (those with the approval address): mail to somebody else is no answer. DNS is
    asked only about a signature that keeps every other rule. Raises Unavailable(dns_unavailable) where it did not
    answer and no other signature is proof: then the message is to be looked at again.
    """
    parsed = _parse(incoming)
    if isinstance(parsed, Unproven):
        return parsed
    fields, body = parsed
    accepted = domains | {domain_of(author).lower()}
    signed = _Signed(fields, body, author, accepted, selectors, naming, addressed, now // MICROSECONDS)
    candidates, why_not = _candidates(signed)
    unavailable: Unavailable | None = None
    for field, signature in candidates[:MOST_TRIED]:
        try:
            key = _key_of(signature, resolver)
        except Unavailable as error:
            unavailable = error
            continue
        if isinstance(key, Unproven):
            why: str | None = key.why
        elif (why := _why_changed(field, signature, signed, key)) is None:
            return Proof("dkim", signature.domain, signature.selector, key.record)
        why_not = Unproven(f"its signature by {signature.domain} {why}")
    if unavailable is not None:
        raise unavailable
    return why_not


def why_replayable(incoming: Incoming, *, author: str, naming: frozenset[str], addressed: frozenset[str]) -> str | None:
    """Why a signature that some server found to be right may be that of another mail of the author's, or None.

    Looked at are the signatures that DMARC could have gone by: those of a domain that ends as the author's does.
    """
    parsed = _parse(incoming)
    if isinstance(parsed, Unproven):
        return parsed.why
    fields, body = parsed
    signed = _Signed(fields, body, author, frozenset(), frozenset(), naming, addressed, 0)
    for field in fields:
        if field.key != "dkim-signature":
            continue
        signature = parse_signature(field.value)
        if isinstance(signature, Unproven):
            return signature.why
        if not _may_be_aligned(signature.domain, domain_of(author).lower()):
            continue
        why = "has a body length (l=)" if signature.has_length else _why_fields_are_open(signature, signed)
        why = why or _why_parts_are_open(signature, signed)
        if why is not None:
            return f"its signature by {signature.domain} {why}"
    return None


def _may_be_aligned(one: str, other: str) -> bool:
    """Whether two domains could belong to one organisation (RFC 7489 3.1.1): the last two labels are the same."""
    return one.split(".")[-2:] == other.split(".")[-2:]


def _parse(incoming: Incoming) -> tuple[tuple[_Field, ...], bytes] | Unproven:
    """Header fields and body, where every parser that reads this message sees the same ones.

    The email package ends a line at a lone CR, and so it can find a text inside a header field; dkimpy and we do not.
    dkimpy passes over lines that begin with "From ", "From : him" too; we read a blank before the colon.
    """
    if len(incoming.octets) > LARGEST_MESSAGE:
        return Unproven(f"the message is over {LARGEST_MESSAGE // 2**20} MiB")
    octets = incoming.octets.replace(b"\r\n", b"\n")
    head, _, body = octets.partition(b"\n\n")
    ambiguous = Unproven("it has lines that can be read in two ways")
    if not incoming.whole or b"\r" in octets:
        return ambiguous
    found = [_FIELD.fullmatch(line) for line in re.split(rb"\n(?![ \t])", head.removesuffix(b"\n"))]
    fields = tuple(_Field(field[1], field[2].replace(b"\n", b"\r\n") + b"\r\n") for field in found if field is not None)
    if len(fields) != len(found) or [field.key for field in fields] != [name for name, _ in incoming.fields]:
        return ambiguous
    counted = Counter(field.key for field in fields)
    twice = next((name for name in sorted(_ONCE) if counted[name] > 1), None)
    if twice is not None:
        return Unproven(f"the message has its {twice.title()} field twice")
    return fields, body.replace(b"\n", b"\r\n")


def _candidates(signed: _Signed) -> tuple[list[tuple[_Field, Signature]], Unproven]:
    """The signatures that keep every rule but those that need the key, and why the others do not count."""
    fields = [field for field in signed.fields if field.key == "dkim-signature"][:MOST_SIGNATURES]
    why_not = Unproven("it has no DKIM signature") if not fields else UNREADABLE
    candidates, strangers = [], []
    for field in fields:
        signature = parse_signature(field.value)
        if isinstance(signature, Unproven):
            continue
        if signature.domain not in signed.domains:
            strangers.append(signature.domain)
            continue
        why = _why_against_the_rules(signature, signed)
        if why is None:
            candidates.append((field, signature))
        else:
            why_not = Unproven(f"its signature by {signature.domain} {why}")
    if strangers and why_not == UNREADABLE:
        listed = ", ".join(f"d={domain}" for domain in dict.fromkeys(strangers[:3]))
        why_not = Unproven(f"no signature of {' or '.join(sorted(signed.domains)[:3])}: {listed}")
    return candidates, why_not


def _why_against_the_rules(signature: Signature, signed: _Signed) -> str | None:
    if signature.has_length:
        return "has a body length (l=), so that text can be added to it"
    if signed.selectors and signature.selector not in {selector.lower() for selector in signed.selectors}:
        return f"is by selector {signature.selector}, which is not one of his"
    return (
        why_not_modern(signature)
        or _why_not_of_its_time(signature, signed.now)
        or _why_of_another(signature, signed.author)
        or _why_fields_are_open(signature, signed)
        or _why_parts_are_open(signature, signed)
    )


def _why_not_of_its_time(signature: Signature, now: int) -> str | None:
    if signature.signed_at is not None and signature.signed_at > now + _AHEAD:
        return "is dated in the future"
    if signature.expires_at is not None and signature.expires_at <= max(now, signature.signed_at or 0):
        return "has expired (x=)"
    return None


def _why_of_another(signature: Signature, author: str) -> str | None:
    """Providers such as GMX write the account that sent it into i=; it may not be another one of the same domain."""
    local, _, host = signature.identity.rpartition("@")
    host = host.lower()
    if not f".{host}".endswith(f".{signature.domain}"):
        return "is for another domain (i=)"
    is_an_account = local != "" and host == domain_of(author).lower()
    if is_an_account and without_extension(signature.identity) != without_extension(author):
        return "names another account as the sender (i=)"
    return None


def _why_fields_are_open(signature: Signature, signed: _Signed) -> str | None:
    counted = Counter(field.key for field in signed.fields)
    covered = {name for name in signature.signed if counted[name]}
    missing = next((name for name in ("from", "date") if name not in covered), None)
    if missing is not None:
        return f"leaves out {missing.title()}"
    if not covered & signed.naming:
        named = ", ".join(name.title() for name in sorted(signed.naming)[:5])
        return f"leaves out every field that names the request ({named})"
    recipients = covered & _RECIPIENTS
    if recipients and not recipients & signed.addressed:
        return "covers recipients that the approval address is none of"
    twice = next((name for name in sorted(covered - TRACE) if counted[name] > 1), None)
    return f"covers {twice[:40].title()}, which the message has twice" if twice is not None else None


def _why_parts_are_open(signature: Signature, signed: _Signed) -> str | None:
    names = {"content-type", "content-transfer-encoding"} - set(signature.signed)
    content = [field for field in signed.fields if field.key.startswith("content-")]
    head = b"".join(b"%b:%b" % (field.name, field.value) for field in content)
    if bears_out(head, signed.body, names):
        return None
    return "leaves out Content-Type, and the text does not show how it is to be read"


def _key_of(signature: Signature, resolver: KeySource) -> Key | Unproven:
    """The key to check a signature with, or why none may be relied on. Raises Unavailable where DNS does not answer."""
    key = parse_key(resolver.txt(key_name(signature.domain, signature.selector)), signature.algorithm)
    if isinstance(key, Unproven):
        return key
    if key.testing:
        return Unproven("has a key that is only being tested (t=y)")
    if key.strict and domain_of(signature.identity).lower() != signature.domain:
        return Unproven("is for a subdomain (i=), which its key forbids")
    why = _why_not_this_strong(key) if key.kind == "rsa" else None
    return key if why is None else Unproven(why)


def key_name(domain: str, selector: str) -> str:
    """Where a domain publishes the key of a selector (RFC 6376 3.6.2.1)."""
    return f"{selector}._domainkey.{domain}"


def _why_not_this_strong(key: Key) -> str | None:
    from dkim.crypto import UnparsableKeyError, parse_public_key  # type: ignore[import-untyped]

    try:
        parsed = parse_public_key(key.octets)
    except (UnparsableKeyError, AssertionError, IndexError):
        return "has a key that cannot be read"
    bits, exponent = parsed["modulus"].bit_length(), parsed["publicExponent"]
    if not SMALLEST_RSA <= bits <= LARGEST_RSA:
        return f"has an RSA key of {bits} bit; {SMALLEST_RSA} to {LARGEST_RSA} are accepted"
    if not 3 <= exponent <= _LARGEST_EXPONENT or not exponent % 2:
        return "has a key that cannot be used"
    return None


def _why_changed(field: _Field, signature: Signature, signed: _Signed, key: Key) -> str | None:
    import dkim  # type: ignore[import-untyped]

    header, body = signature.canonicalization
    checker = dkim.DKIM(logger=_SILENT, minkey=SMALLEST_RSA)
    checker.headers = [[one.name, one.value] for one in signed.fields if one.key in signature.signed]
    checker.body = canonical_body(signed.body, relaxed=body == "relaxed")
    if checker.body != _EMPTY:
        body = "simple"  # what is relaxed already is left as it is by this one, in linear time
    tags = {
        b"a": signature.algorithm.encode(),
        b"b": b64encode(signature.octets),
        b"bh": b64encode(signature.body_digest),
        b"c": f"{header}/{body}".encode(),
        b"d": signature.domain.encode(),
        b"s": signature.selector.encode(),
    }
    record = b"v=DKIM1; k=%b; p=%b" % (key.kind.encode(), b64encode(key.octets))
    names = [name.encode() for name in signature.signed]
    try:
        # Not verify(): it reads t= and x= by the clock on the wall, in a header that it has parsed itself.
        holds = checker.verify_sig(tags, names, (field.name, field.value), lambda _name, **_limits: record)
    except dkim.ValidationError:
        return "does not verify: the text was changed on its way"
    except dkim.DKIMException:
        return "has a key that cannot be used"
    return None if holds else "does not verify: a field that it covers was changed on its way, or its key was"


def canonical_body(body: bytes, *, relaxed: bool) -> bytes:
    """A body with CRLF line ends, canonicalised (RFC 6376 3.4.3 and 3.4.4) but for an empty one, in linear time.

    dkimpy 1.1.8 is quadratic in runs of blanks: 80,000 take it 5 seconds, 2 MB of them for ever.
    """
    if relaxed:
        body = body.replace(b"\t", b" ")
        while b"  " in body:
            body = body.replace(b"  ", b" ")
        body = body.replace(b" \r\n", b"\r\n")
    return body.rstrip(b"\r\n") + _EMPTY
