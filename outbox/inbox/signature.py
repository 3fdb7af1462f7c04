"""What a DKIM-Signature field and a key record say (RFC 6376 3.5 and 3.6.1), parsed strictly and within limits."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from outbox.core.canonical import sha256
from outbox.inbox.incoming import Incoming
from outbox.inbox.proof import Unproven

TRACE = {"received"}  # Purelymail signs it; every relay adds one on top, and the signature still holds
MOST_NOTED = 20  # signatures of one message
_LONGEST_FIELD = 8192
_LONGEST_RECORD = 4096
_MOST_NAMES = 100
_LONGEST_SIGNATURE = 1024  # octets: RSA of 8192 bit
_SHA256 = 32
_ED25519_KEY, _ED25519_SIGNATURE = 32, 64
_BLANKS = re.compile(rb"[ \t\r\n]{200}")  # dkimpy removes b= with an expression that is cubic in them
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")
_LABELS = r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})"
_SELECTOR = re.compile(rf"(?=.{{1,100}}\Z){_LABELS}*")
_DOMAIN = re.compile(rf"(?=.{{1,150}}\Z){_LABELS}+")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,100}")
_SECONDS = re.compile(r"[0-9]{1,12}")
_CANONICALIZATION = re.compile(r"(relaxed|simple)(?:/(relaxed|simple))?")
UNREADABLE = Unproven("its DKIM signature cannot be read")


@dataclass(frozen=True, slots=True)
class Signature:
    """One DKIM-Signature. Domain, selector and names of signed fields are in lower case; times are in seconds UTC.

    `canonicalization` is that of header and body; `identity` is what i= says, or "@" and the domain.
    """

    algorithm: str
    domain: str
    selector: str
    identity: str
    signed: tuple[str, ...]
    canonicalization: tuple[str, str]
    has_length: bool
    signed_at: int | None
    expires_at: int | None
    octets: bytes
    body_digest: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """A published key. `strict` forbids an i= of a subdomain, `testing` forbids to rely on it; `record` is its text."""

    kind: str
    octets: bytes
    strict: bool
    testing: bool
    record: str = field(default="", compare=False)


def parse_signature(value: bytes) -> Signature | Unproven:
    """The value of one DKIM-Signature field, folded as it came, or why it proves nothing."""
    if len(value) > _LONGEST_FIELD or _BLANKS.search(value):
        return UNREADABLE
    tags = _tags(value)
    if tags is None or tags.get("v") != "1" or "dns/txt" not in _listed(tags.get("q", "dns/txt")):
        return UNREADABLE
    algorithm, domain, selector = (tags.get(name, "") for name in "ads")
    names = _listed(tags.get("h", "").lower())
    octets, body_digest = _decoded(tags.get("b", "")), _decoded(tags.get("bh", ""))
    canonicalization = _CANONICALIZATION.fullmatch(tags.get("c", "simple/simple"))
    times = [tags.get(name) for name in "tx"]
    well_formed = (
        _DOMAIN.fullmatch(domain)
        and _SELECTOR.fullmatch(selector)
        and len(names) <= _MOST_NAMES
        and all(_FIELD_NAME.fullmatch(name) for name in names)
        and all(time is None or _SECONDS.fullmatch(time) for time in times)
    )
    if not well_formed or canonicalization is None or not octets or not body_digest:
        return UNREADABLE
    signed_at, expires_at = (None if time is None else int(time) for time in times)
    return Signature(
        algorithm=algorithm,
        domain=domain.lower(),
        selector=selector.lower(),
        identity=tags.get("i") or f"@{domain}",
        signed=tuple(names),
        canonicalization=(canonicalization[1], canonicalization[2] or "simple"),
        has_length="l" in tags,
        signed_at=signed_at,
        expires_at=expires_at,
        octets=octets,
        body_digest=body_digest,
    )


def signature_digests(incoming: Incoming) -> tuple[bytes, ...]:
    """SHA-256 over what each DKIM signature in a message covers, and itself without b=: the same is the same letter.

    Not over b=: an RSA signature can be written in many ways. White space is left out, which may change on the way.
    """
    digests = []
    for value in incoming.values({"dkim-signature"})[:MOST_NOTED]:
        tags = _tags(value[:_LONGEST_FIELD].encode("utf-8", "replace"))
        if tags is None:
            continue
        names = _listed(tags.pop("h", "").lower())[:_MOST_NAMES]
        tags.pop("b", None)
        covered = [(name, *incoming.values({name})) for name in dict.fromkeys(names) if name not in TRACE]
        whole = repr((sorted(tags.items()), names, covered))
        digests.append(sha256("".join(whole.split()).encode("utf-8", "replace")))
    return tuple(dict.fromkeys(digests))


def why_not_modern(signature: Signature) -> str | None:
    """Why its algorithm proves nothing (RFC 8301, RFC 8463), or None."""
    if signature.algorithm == "rsa-sha1":
        return "uses rsa-sha1, which anyone can forge by now"
    if signature.algorithm not in {"rsa-sha256", "ed25519-sha256"}:
        return "uses an algorithm that is not known"
    is_rsa = signature.algorithm == "rsa-sha256"
    fits = len(signature.octets) <= _LONGEST_SIGNATURE if is_rsa else len(signature.octets) == _ED25519_SIGNATURE
    return None if fits and len(signature.body_digest) == _SHA256 else "does not have the size that it must have"


def parse_key(records: tuple[bytes, ...], algorithm: str) -> Key | Unproven:
    """The one key in a selector's TXT records, fit for an algorithm such as rsa-sha256; or why there is none."""
    if any(len(record) > _LONGEST_RECORD for record in records):
        return Unproven("has a key that cannot be read")
    keys = [(tags, record) for record in records if (tags := _tags(record)) is not None and "p" in tags]
    if len(keys) != 1:
        return Unproven("has no key in DNS" if not keys else "has more than one key in DNS")
    ((tags, record),) = keys
    kind, digest = algorithm.split("-")
    octets = _decoded(tags["p"])
    if not tags["p"]:
        return Unproven("has a key that was revoked")
    if tags.get("v", "DKIM1") != "DKIM1" or octets is None:
        return Unproven("has a key that cannot be read")
    if tags.get("k", "rsa") != kind or digest not in _listed(tags.get("h", digest)):
        return Unproven("has a key that is for other algorithms")
    if not {"*", "email"} & set(_listed(tags.get("s", "*"))):
        return Unproven("has a key that is not for mail")
    if kind == "ed25519" and len(octets) != _ED25519_KEY:
        return Unproven("has a key that cannot be read")
    flags = _listed(tags.get("t", ""))
    return Key(kind, octets, strict="s" in flags, testing="y" in flags, record=record.decode("ascii"))


def _tags(value: bytes) -> dict[str, str] | None:
    """A tag list (RFC 6376 3.2), or None where it is none, or has a tag twice."""
    try:
        text = value.decode("ascii").strip()
    except UnicodeDecodeError:
        return None
    tags: dict[str, str] = {}
    for spec in text.removesuffix(";").split(";"):
        name, equals, said = spec.partition("=")
        name = name.strip()
        if not equals or name in tags or not _TAG.fullmatch(name):
            return None
        tags[name] = said.strip()
    return tags


def _listed(value: str) -> list[str]:
    return [item.strip() for item in value.split(":")]


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except binascii.Error:
        return None
