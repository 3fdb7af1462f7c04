"""A seal: where every chain of the journal stood, under a MAC, to be kept where the database is not.

One line of canonical JSON. Each names the one before it by its digest, so that none can be taken out of their file.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from outbox.core.canonical import VERSION, encode, sha256
from outbox.core.errors import Code, VerificationFailed
from outbox.core.signing import KeyRing, Purpose, Signature

FIRST = bytes(32)  # what the first seal names as the one before it
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest row of one chain: its writer, its seq and its MAC."""

    writer: str
    seq: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """What the journal was: `rows` rows up to `place`, and the head of each chain that grew since the seal before.

    `at` in microseconds UTC; `database` is the identity of the database; `previous` the digest of the seal before.
    """

    number: int
    at: int
    database: str
    rows: int
    place: int
    previous: bytes
    heads: tuple[Head, ...]

    def fields(self) -> dict[str, object]:
        """Its JSON object, without the MAC."""
        return {
            "version": VERSION,
            "seal": self.number,
            "at": self.at,
            "database": self.database,
            "rows": self.rows,
            "place": self.place,
            "previous": self.previous.hex(),
            "heads": [[head.writer, head.seq, head.mac.hex()] for head in self.heads],
        }


@dataclass(frozen=True, slots=True)
class SignedSeal:
    """A seal and its MAC under the grant key."""

    seal: Seal
    signature: Signature

    def line(self) -> bytes:
        """Its line in the file, without the line end."""
        return encode(self.seal.fields() | {"key_id": self.signature.key_id, "mac": self.signature.octets.hex()})

    @property
    def digest(self) -> bytes:
        """SHA-256 over its line: what the next seal, the journal and the operator's mail say of it."""
        return sha256(self.line())


def sign_seal(ring: KeyRing, seal: Seal) -> SignedSeal:
    """Put the grant key's MAC under a seal."""
    return SignedSeal(seal, ring.sign(Purpose.SEAL, encode(seal.fields())))


def verify_seal(ring: KeyRing, signed: SignedSeal) -> bool:
    """Whether the grant key made this seal, word for word."""
    return ring.verify(Purpose.SEAL, encode(signed.seal.fields()), signed.signature)


def parse_seal(line: bytes) -> SignedSeal:
    """A seal's line, read back. Raises VerificationFailed for anything that `SignedSeal.line` does not write."""
    try:
        signed = _parse(line)
    except (ValueError, KeyError, TypeError, RecursionError):
        signed = None
    if signed is None or not _is_well_formed(signed) or signed.line() != line.strip():
        raise VerificationFailed(Code.JOURNAL_BROKEN, "it is no seal of an outbox's")
    return signed


def _parse(line: bytes) -> SignedSeal:
    found = json.loads(line)
    seal = Seal(
        number=found["seal"],
        at=found["at"],
        database=found["database"],
        rows=found["rows"],
        place=found["place"],
        previous=_octets(found["previous"]),
        heads=tuple(Head(writer, seq, _octets(mac)) for writer, seq, mac in found["heads"]),
    )
    return SignedSeal(seal, Signature(found["key_id"], _octets(found["mac"])))


def _octets(text: str) -> bytes:
    if not _HEX.fullmatch(text):
        raise ValueError("not 32 octets in hexadecimal")
    return bytes.fromhex(text)


def _is_well_formed(signed: SignedSeal) -> bool:
    seal = signed.seal
    numbers = (seal.number, seal.at, seal.rows, seal.place, *(head.seq for head in seal.heads))
    words = (seal.database, signed.signature.key_id, *(head.writer for head in seal.heads))
    return all(type(number) is int for number in numbers) and all(isinstance(word, str) for word in words)
