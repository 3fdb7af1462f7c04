"""DKIM signatures of every kind, good and bad, by keys that openssl makes once for each process."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import dkim
import nacl.signing
from dkim.canonicalization import CanonicalizationPolicy
from dkim.crypto import RSASSA_PKCS1_v1_5_sign, parse_pem_private_key

SIGNED_AT = 1_800_000_000  # the hand-set clock of tests/house.py, in seconds
FIELDS = ("from", "to", "subject", "date", "message-id", "in-reply-to", "references", "mime-version", "content-type")


@dataclass(frozen=True)
class RsaKey:
    """An RSA key as openssl gives it, private as PEM and public as DER."""

    private: bytes
    public: bytes
    kind: str = "rsa"

    def sign(self, digest: hashlib._Hash) -> bytes:
        return bytes(RSASSA_PKCS1_v1_5_sign(digest, parse_pem_private_key(self.private)))


@dataclass(frozen=True)
class Ed25519Key:
    """An Ed25519 key, private as its seed."""

    private: bytes
    public: bytes
    kind: str = "ed25519"

    def sign(self, digest: hashlib._Hash) -> bytes:
        return nacl.signing.SigningKey(self.private).sign(digest.digest()).signature


Key = RsaKey | Ed25519Key


@cache
def rsa_key(bits: int, name: str = "") -> RsaKey:
    """A key of this size; another one for each name."""
    del name
    private = _openssl("genrsa", str(bits))
    return RsaKey(private, _openssl("rsa", "-pubout", "-outform", "DER", given=private))


@cache
def ed25519_key(name: str = "") -> Ed25519Key:
    """A key; another one for each name."""
    key = nacl.signing.SigningKey(hashlib.sha256(b"tests " + name.encode()).digest())
    return Ed25519Key(bytes(key), bytes(key.verify_key))


def _openssl(*arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True).stdout


@dataclass(frozen=True)
class Signer:
    """Signs for one domain with one selector."""

    domain: str
    selector: str
    key: Key

    @property
    def name(self) -> str:
        """Where its key is published."""
        return f"{self.selector}._domainkey.{self.domain}".lower()

    def record(self, **tags: str | None) -> bytes:
        """The key record, with tags set or, by None, left out."""
        said = {"v": "DKIM1", "k": self.key.kind, "p": base64.b64encode(self.key.public).decode()} | tags
        return "; ".join(f"{name}={value}" for name, value in said.items() if value is not None).encode()

    def field(
        self,
        octets: bytes,
        *,
        fields: Iterable[str] = FIELDS,
        header: str = "relaxed",
        body: str = "relaxed",
        algorithm: str = "",
        **tags: str | None,
    ) -> bytes:
        """The DKIM-Signature field for a message with LF or CRLF line ends, CRLF at its own.

        `tags` are set or, by None, left out, before the whole is signed.
        """
        pairs, text = split(octets)
        policy = CanonicalizationPolicy.from_c_value(f"{header}/{body}".encode())
        algorithm = algorithm or f"{self.key.kind}-sha256"
        make = {"sha256": hashlib.sha256, "sha1": hashlib.sha1}[algorithm.rpartition("-")[2]]
        covered = policy.canonicalize_body(text)
        if tags.get("l"):
            covered = covered[: int(str(tags["l"]))]
        said: dict[str, str | None] = {
            "v": "1", "a": algorithm, "c": f"{header}/{body}", "d": self.domain, "s": self.selector,
            "t": str(SIGNED_AT), "h": ":".join(fields), "bh": base64.b64encode(make(covered).digest()).decode(),
        }  # fmt: skip
        said |= tags
        listed = [f" {name}={value}" for name, value in said.items() if value is not None]
        unsigned = ";\r\n\t".join([*listed, " b="]).encode()
        own = policy.canonicalize_headers([(b"DKIM-Signature", unsigned)])
        names = [name.strip().lower().encode() for name in (said["h"] or "").split(":")]
        chosen = dkim.select_headers(policy.canonicalize_headers(pairs), names)
        digest = make()
        for name, value in [*chosen, (own[0][0], own[0][1].rstrip())]:
            digest.update(name + b":" + value)
        signature = base64.b64encode(self.key.sign(digest))
        return b"DKIM-Signature:" + unsigned + re.sub(rb"(.{1,70})", rb"\r\n\t\1", signature) + b"\r\n"

    def sign(self, octets: bytes, **how: object) -> bytes:
        """The message with its signature on top, with the line ends that it has."""
        field = self.field(octets, **how)  # type: ignore[arg-type]
        return (field if b"\r\n" in octets else field.replace(b"\r\n", b"\n")) + octets


def split(octets: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Header fields and text, with CRLF line ends."""
    head, _, text = octets.replace(b"\r\n", b"\n").partition(b"\n\n")
    pairs = [line.partition(b":")[::2] for line in re.split(rb"\n(?![ \t])", head)]
    return [(name, value.replace(b"\n", b"\r\n") + b"\r\n") for name, value in pairs], text.replace(b"\n", b"\r\n")
