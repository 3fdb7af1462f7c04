"""Houses that ask for proof, and hostile letters as they arrive there: signed, and then tampered with."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pyotp import TOTP

from outbox.inbox.judgement import Judgement
from outbox.inbox.room import explain
from tests.house import FOUNDER, SECOND
from tests.inbox.letters import Asked, Letter
from tests.inbox.signing import Signer, ed25519_key, rsa_key
from tests.inbox.zone import Zone

KINDS = ("none", "dkim", "results", "code", "plain")
SECRET = base64.b32encode(b"a secret of the approver").decode().rstrip("=")
# What providers sign (FACTS.md): all of it; none of the fields of the thread, nor To; no Content-Type.
SIGNED = {
    "all": (
        "from", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references", "mime-version",
        "content-type", "content-transfer-encoding",
    ),
    "microsoft": ("from", "date", "subject", "message-id", "content-type", "mime-version"),
    "gmail": (
        "to", "subject", "message-id", "date", "from", "in-reply-to", "references", "mime-version", "from", "to", "cc",
        "subject", "date", "message-id", "reply-to",
    ),
    "yahoo": ("date", "from", "subject", "references", "from", "subject"),
    "icloud": ("from", "content-type", "mime-version", "subject", "message-id", "date", "to"),
}  # fmt: skip
_STAMPS = """\
Authentication-Results: mx.acme.example; dmarc=pass (p=none dis=none) header.from=acme.example
Received: from out.acme.example (out.acme.example [203.0.113.7])
\tby mx.acme.example (Postfix) with ESMTPS id 4A2C; {date}
"""


@cache
def signers() -> dict[str, Signer]:
    """Who signs, by the name that expected.toml says. "provider" signs for the approver, and for his whole domain."""
    return {
        "provider": Signer("acme.example", "s1", ed25519_key()),
        "relay": Signer("acme.example", "relay", ed25519_key("relay")),
        "weak": Signer("acme.example", "weak", rsa_key(512)),
        "rsa": Signer("acme.example", "rsa", rsa_key(2048)),
        "tested": Signer("acme.example", "tested", ed25519_key("tested")),
        "revoked": Signer("acme.example", "revoked", ed25519_key("revoked")),
        "lost": Signer("acme.example", "lost", ed25519_key("lost")),
        "thief": Signer("acme.example", "s1", ed25519_key("thief")),
        "below": Signer("mail.acme.example", "b1", ed25519_key("below")),
        "above": Signer("example", "a1", ed25519_key("above")),
        "longer": Signer("acme.example.evil.example", "l1", ed25519_key("longer")),
        "evil": Signer("evil.example", "e1", ed25519_key("evil")),
        "list": Signer("lists.example", "l1", ed25519_key("list")),
    }


@contextmanager
def published() -> Iterator[Zone]:
    """A DNS server that knows the keys of those who sign, but for the lost one and the thief's."""
    with Zone() as zone:
        for name, signer in signers().items():
            if name not in {"lost", "thief"}:
                zone.publish(signer.name, signer.record(**_RECORDS.get(name, {})))
        yield zone


_RECORDS: dict[str, dict[str, str | None]] = {"tested": {"t": "y"}, "revoked": {"p": ""}}


@dataclass(frozen=True)
class Guarded:
    """A house that has asked, and that believes replies by `kind`: none, dkim, results, code or plain addressing."""

    asked: Asked
    kind: str

    @classmethod
    def build(cls, asked: Asked, kind: str, zone: Zone) -> Guarded:
        house = asked.house
        match kind:
            case "dkim":
                house.set("approval", authenticity='"dkim"')
                house.set("dns", nameservers=f'["{zone.address}"]')
            case "results":
                house.set("approval", authenticity='"authentication-results"', authserv_id='"mx.acme.example"')
            case "code":
                house.set("approval", authenticity='"code"')
                _write_secret(house.folder / "keys" / f"{FOUNDER}.code")
            case "plain":
                house.set("approval", addressing='"plain"')
        return cls(asked, kind)

    def octets_of(self, letter: Letter) -> bytes:
        """A letter of the corpus as its sender hands it over."""
        expected = letter.expected
        for section, name, value in expected.get("set", ()):
            self.asked.house.set(section.replace("APPROVER", FOUNDER), **{name: value})
        octets = self._filled(letter.filled(self.asked).decode("latin-1"))
        for how in expected.get("sign", ()):
            octets = self._signed(octets, **how)
        for old, new in expected.get("edit", ()):
            was, becomes = self._filled(self._worded(old)), self._filled(self._worded(new))
            assert was in octets, old
            octets = octets.replace(was, becomes, 1)
        return octets

    def _worded(self, text: str) -> str:
        for word, value in self.asked.words().items():
            text = text.replace("{{" + word + "}}", value)
        return text

    def _filled(self, text: str) -> bytes:
        at = self.asked.house.clock.now // SECOND
        for word, moment in (("CODE", at), ("OLD_CODE", at - 600), ("CODE_TO_COME", at + 600)):
            text = text.replace("{{" + word + "}}", TOTP(SECRET).at(moment))
        return text.encode("latin-1")

    @staticmethod
    def _signed(octets: bytes, *, by: str = "provider", like: str = "all", **how: str) -> bytes:
        fields = tuple(how.pop("fields").split()) if "fields" in how else SIGNED[like]
        return signers()[by].sign(octets, fields=fields, **how)

    def proved(self, octets: bytes, **how: str) -> bytes:
        """What the approver's own provider, or our own server, makes of a reply of his."""
        if self.kind == "dkim":
            return self._signed(octets, **how)
        return (_STAMPS.format(date=self.asked.date()).encode() if self.kind == "results" else b"") + octets

    def approve_other(self) -> None:
        """The approver answers the other request, as he should."""
        self.asked.house.clock.advance(60 * SECOND)  # a code that somebody has shown is good no more
        code = self._filled("\n{{CODE}}").decode() if self.kind == "code" else ""
        file = self.asked.house.reply(self.asked.other, f"Ship it{code}")
        file.write_bytes(self.proved(file.read_bytes()))

    def explain(self, octets: bytes) -> Judgement:
        """What the inbox would make of it."""
        return explain(self.asked.house.settings, octets, clock=self.asked.house.clock)


def _write_secret(file: Path) -> None:
    file.write_text(SECRET)
    file.chmod(0o600)
