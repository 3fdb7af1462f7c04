"""What is fuzzed, with what must hold for every input, and the letters that it begins with.

Nothing in here needs atheris: tests/inbox/test_fuzz.py holds that every seed passes.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from outbox.inbox.dkim import canonical_body, verify_dkim
from outbox.inbox.incoming import dated_at, message_id_of, only_author, parse_incoming, read_letter, why_automatic
from outbox.inbox.proof import Proof
from outbox.inbox.results import verify_results
from outbox.inbox.verdict import APPROVING, CANCELLING, REJECTING, Verdict, read_letter_verdict
from tests.house import APPROVAL, FOUNDER, SECOND
from tests.inbox.guarded import SIGNED, signers
from tests.inbox.letters import CORPUS
from tests.inbox.signing import SIGNED_AT, Signer

TOKEN = "abcdefghijklm" + "n" * 26
OWN = 'The agent sales asks to send this mail. Reply "Ship it", and it is sent; else it is not.\n\nDear Jane,\n\nyes.\n'
NAMING = frozenset({"to", "in-reply-to", "references", "subject"})
WORDS = {
    "APPROVER": FOUNDER,
    "REPLY_TO": f"approve+{TOKEN}@acme.example",
    "REQUEST_ID": f"<{TOKEN}.01a3185c-5000-7d35-9c85-9f5b325d386e@acme.example>",
    "SUBJECT": "[outbox abcdef] Send this? Offer",
    "DATE": "Fri, 15 Jan 2027 08:00:00 +0000",
    "TOKEN": TOKEN,
}
# What our server writes on top of a forgery, and the border below which nothing counts.
FAILED = b"""Authentication-Results: mx.acme.example; dmarc=fail header.from=acme.example
Received: from out.evil.example (out.evil.example [203.0.113.66])
\tby mx.acme.example with ESMTPS; Fri, 15 Jan 2027 08:00:00 +0000
"""
MARKS = [
    *APPROVING, *REJECTING, *CANCELLING, "Content-Type: ", "Content-Transfer-Encoding: ", "multipart/mixed",
    "text/html", "text/plain", "; boundary=", "; charset=", "; format=flowed", "; delsp=yes", "base64",
    "quoted-printable", "\n--", "\n>", "\n-- \n", "<blockquote type=cite>", "</blockquote>", "<table>", "<td>",
    "<style>", "display:none", "<!--", "-->", "&#8203;", "dmarc=pass", "header.from=", "DKIM-Signature: ", "bh=", "l=0",
    "Outbox wrote:", "On 15.01.2027 at 08:00", "From: Outbox", "Sent: ", "Subject: ",
]  # fmt: skip


def _filled(octets: bytes) -> bytes:
    for word, value in WORDS.items():
        octets = octets.replace(b"{{" + word.encode() + b"}}", value.encode())
    return re.sub(rb"\{\{[A-Z_]+\}\}", b"x", octets)


@cache
def _letters() -> tuple[bytes, ...]:
    files = sorted(file for folder in ("replies", "hostile") for file in (CORPUS / folder).glob("*.eml"))
    return tuple(_filled(file.read_bytes()) for file in files)


@cache
def _signed() -> tuple[bytes, ...]:
    """Some of them with the signatures that providers make."""
    plain = [octets for octets in _letters() if b"\r" not in octets and octets.count(b"\nFrom:") + 1 == 1][::12]
    kinds = [("relaxed", "relaxed"), ("simple", "simple"), ("relaxed", "simple")]
    return tuple(
        signer.sign(octets, fields=SIGNED[like], header=kinds[number % 3][0], body=kinds[number % 3][1])
        for number, octets in enumerate(plain)
        for signer in (signers()["provider"], signers()["rsa"])
        for like in sorted(SIGNED)
    )


def _normalised(line: str) -> str:
    plain = unicodedata.normalize("NFKC", line.replace("\u2018", "'").replace("\u2019", "'")).casefold()
    words = " ".join(plain.split()).removeprefix("¡")
    return words[:-1].rstrip() if words[-1:] in {".", "!"} else words


def read(octets: bytes) -> None:
    """Nothing raises, and nothing approves but a first line that is an approving word, in each of its parts."""
    incoming = parse_incoming(octets)
    only_author(incoming)
    message_id_of(incoming)
    dated_at(incoming)
    why_automatic(incoming)
    letter = read_letter(incoming)
    for with_code in (False, True):
        reading = read_letter_verdict(letter, originals=[OWN], address=APPROVAL, with_code=with_code)
        if reading.verdict is Verdict.APPROVE and reading.code is None:
            for text in (letter.plain, letter.html):
                first = next((line for line in (text or "Yes").split("\n") if line.strip()), "")
                assert _normalised(first) in APPROVING, first


class Keys:
    """The keys that those who sign have published."""

    def __init__(self, *known: Signer) -> None:
        self._records = {signer.name: (signer.record(),) for signer in known}

    def txt(self, name: str) -> tuple[bytes, ...]:
        """See KeySource."""
        return self._records.get(name, ())


@cache
def _keys() -> Keys:
    return Keys(*signers().values())


@cache
def _bodies() -> frozenset[bytes]:
    """Every text that was ever signed, as relaxed signatures see it."""
    return frozenset(_canonical(octets) for octets in _signed())


def _canonical(octets: bytes) -> bytes:
    body = octets.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
    return canonical_body(body.replace(b"\n", b"\r\n"), relaxed=True)


def is_proved(octets: bytes) -> bool:
    """Whether it is signed as a reply of the approver's has to be."""
    found = verify_dkim(
        parse_incoming(octets),
        author=FOUNDER,
        domains=frozenset(),
        selectors=frozenset(),
        naming=NAMING,
        addressed=frozenset({"to"}),
        resolver=_keys(),
        now=SIGNED_AT * SECOND,
    )
    return isinstance(found, Proof)


def verify_signature(octets: bytes) -> None:
    """Nothing raises, and only a text that was signed is proved."""
    assert not is_proved(octets) or _canonical(octets) in _bodies()


def verify_stamps(octets: bytes) -> None:
    """Nothing raises, and nothing that a sender writes below what our server wrote is proof."""
    for whole, provable in ((octets, True), (FAILED + octets, False)):
        found = verify_results(
            parse_incoming(whole), author=FOUNDER, authserv_id="mx.acme.example", received_by=("mx.acme.example",)
        )
        assert provable or not isinstance(found, Proof), found


TARGETS = {"read": read, "signature": verify_signature, "stamps": verify_stamps}


def seeds(target: str) -> tuple[bytes, ...]:
    """What a target begins with."""
    return _signed() if target == "signature" else _letters()
