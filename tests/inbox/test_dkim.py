"""Proof by DKIM: what real signatures of real letters prove, and what they do not; keys come from a real DNS server."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import dkim
import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.errors import Code, Unavailable
from outbox.inbox.dkim import canonical_body, verify_dkim
from outbox.inbox.dns import Resolver
from outbox.inbox.incoming import LARGEST_MESSAGE, parse_incoming
from outbox.inbox.proof import Proof, Unproven
from tests.inbox.signing import FIELDS, SIGNED_AT, Signer, ed25519_key, rsa_key
from tests.inbox.zone import Zone

FOUNDER = "founder@acme.example"
SECOND = 1_000_000
NAMING = frozenset({"to", "in-reply-to", "references"})
LETTER = b"""From: The Founder <founder@acme.example>
To: Approvals <approve+token@acme.example>
Subject: Re: [outbox 7f3k2a] Offer
Date: Fri, 15 Jan 2027 08:00:00 +0000
Message-ID: <answer@mail.acme.example>
In-Reply-To: <request@acme.example>
References: <draft@acme.example>
 <request@acme.example>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Ship it

On Fri, 15 Jan 2027 Approvals wrote:
> | Dear Jane,
> |   here it is.
"""
RSA = Signer("acme.example", "s1", rsa_key(2048))
ED25519 = Signer("acme.example", "e1", ed25519_key())
SHORT = Signer("acme.example", "short", rsa_key(512))
LEAST = Signer("acme.example", "least", rsa_key(1024))
MAILER = Signer("mailer.example", "m1", ed25519_key("mailer"))
BELOW = Signer("mail.acme.example", "b1", ed25519_key("below"))
SIGNERS = (RSA, ED25519, SHORT, LEAST, MAILER, BELOW)


@dataclass
class Desk:
    """Looks at letters, with a zone to ask for keys."""

    zone: Zone
    resolver: Resolver = field(init=False)

    def __post_init__(self) -> None:
        self.resolver = Resolver((self.zone.address,), timeout=2.0)

    def verify(
        self,
        octets: bytes,
        *,
        author: str = FOUNDER,
        domains: tuple[str, ...] = (),
        selectors: tuple[str, ...] = (),
        naming: frozenset[str] = NAMING,
        addressed: frozenset[str] = frozenset({"to"}),
        now: int = SIGNED_AT * SECOND,
    ) -> Proof | Unproven:
        return verify_dkim(
            parse_incoming(octets),
            author=author,
            domains=frozenset(domains),
            selectors=frozenset(selectors),
            naming=naming,
            addressed=addressed,
            resolver=self.resolver,
            now=now,
        )

    def why(self, octets: bytes, **how: object) -> str:
        """Why a letter proves nothing."""
        found = self.verify(octets, **how)  # type: ignore[arg-type]
        assert isinstance(found, Unproven)
        assert found.why[0].islower()
        assert found.why.isprintable()
        assert not found.why.endswith(".")
        assert len(found.why) < 800
        return found.why


@pytest.fixture(scope="module")
def zone() -> Iterator[Zone]:
    with Zone() as served:
        yield served


@pytest.fixture
def desk(zone: Zone) -> Desk:
    zone.heal()
    for signer in SIGNERS:
        zone.publish(signer.name, signer.record())
    return Desk(zone)


def with_crlf(octets: bytes) -> bytes:
    return octets.replace(b"\n", b"\r\n")


def replaced(octets: bytes, old: bytes, new: bytes) -> bytes:
    assert octets.count(old) == 1, old
    return octets.replace(old, new)


# What is proof


@pytest.mark.parametrize("signer", [RSA, LEAST, ED25519], ids=["rsa-2048", "rsa-1024", "ed25519"])
@pytest.mark.parametrize("header", ["relaxed", "simple"])
@pytest.mark.parametrize("body", ["relaxed", "simple"])
@pytest.mark.parametrize("letter", [LETTER, with_crlf(LETTER)], ids=["from a Maildir", "from IMAP"])
def test_a_signature_of_the_from_domain_is_proof(
    desk: Desk, signer: Signer, header: str, body: str, letter: bytes
) -> None:
    octets = signer.sign(letter, header=header, body=body)
    assert desk.verify(octets) == Proof("dkim", "acme.example", signer.selector)
    assert desk.zone.asked == [(signer.name, "TXT", "udp")]


@pytest.mark.parametrize("letter", [LETTER, with_crlf(LETTER)], ids=["from a Maildir", "from IMAP"])
def test_a_signature_that_dkimpy_itself_made_is_proof(desk: Desk, letter: bytes) -> None:
    made = dkim.sign(letter, b"s1", b"acme.example", RSA.key.private)
    octets = (made if b"\r\n" in letter else made.replace(b"\r\n", b"\n")) + letter
    assert desk.verify(octets, now=int(time.time() * SECOND)) == Proof("dkim", "acme.example", "s1")


def test_the_signed_message_of_rfc_8463_is_proof_by_both_its_signatures(zone: Zone) -> None:
    """RFC 8463, appendix A.3: octets and keys that others made."""
    signatures = (
        b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
""",
        b"""DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
""",
    )
    letter = b"""From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
"""
    zone.publish(
        "brisbane._domainkey.football.example.com",
        b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    )
    zone.publish(
        "test._domainkey.football.example.com",
        b"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY"
        b"/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kr"
        b"yOTIKT+l/K4w3QIDAQAB",
    )
    for octets, selector in zip(signatures, ("brisbane", "test"), strict=True):
        found = Desk(zone).verify(octets + letter, author="joe@football.example.com")
        assert found == Proof("dkim", "football.example.com", selector)


PARTS = b"""MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="=_part-7"

--=_part-7
Content-Type: text/plain; charset=utf-8

Ship it

--=_part-7
Content-Type: text/html; charset=utf-8

<div>Ship it</div>

--=_part-7--
"""
WITH_PARTS = LETTER.partition(b"MIME-Version")[0] + PARTS
RECEIVED = b"Received: by smtp.mailer.example; Fri, 15 Jan 2027 08:00:01 +0000\n"
PROVIDERS = {  # what they sign, as seen in 2026
    "Gmail": (
        "to:subject:message-id:date:from:in-reply-to:references:mime-version:from:to:cc:subject:date:message-id:reply-to",
        {"x": str(SIGNED_AT + 604800), "darn": "acme.example"},
    ),
    "Microsoft": ("From:Date:Subject:Message-ID:Content-Type:MIME-Version:X-MS-Exchange-SenderADCheck", {}),
    "Yahoo": ("From:To:Cc:Subject:Date:In-Reply-To:References:From:Subject:Reply-To", {}),
    "iCloud": ("From:Date:Subject:MIME-Version:Content-Type:Message-Id:To:x-icloud-hme", {}),
    "Fastmail": (
        "cc:content-type:content-type:date:from:from:in-reply-to:message-id:mime-version:references:subject:to:to",
        {"x": str(SIGNED_AT + 86400)},
    ),
    "Proton": (
        "Date:To:From:Cc:Subject:Message-ID:In-Reply-To:References:Feedback-ID:From:To:Feedback-ID:BIMI-Selector",
        {"x": str(SIGNED_AT + 259200)},
    ),
    "GMX": ("X-UI-Sender-Class:From:To:Cc:Subject:Date:In-Reply-To:References", {"i": FOUNDER}),
    "Purelymail": ("Feedback-ID:Received:From:To:Subject:Date", {"t": None, "c": None}),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("letter", [LETTER, WITH_PARTS], ids=["plain text", "plain text and HTML"])
def test_what_a_provider_signs_is_proof(desk: Desk, provider: str, letter: bytes) -> None:
    names, tags = PROVIDERS[provider]
    way = "simple" if provider == "Purelymail" else "relaxed"
    body = "simple" if provider in {"Purelymail", "GMX"} else "relaxed"
    octets = RSA.sign(RECEIVED + letter, fields=names.split(":"), header=way, body=body, **tags)
    assert desk.verify(RECEIVED * 3 + octets, naming=NAMING | {"subject"}) == Proof("dkim", "acme.example", "s1")


def test_a_domain_that_is_listed_for_the_approver_may_sign_for_him(desk: Desk) -> None:
    octets = MAILER.sign(LETTER)
    assert desk.verify(octets, domains=("mailer.example",)) == Proof("dkim", "mailer.example", "m1")


def test_the_case_of_domain_and_selector_does_not_matter(desk: Desk) -> None:
    octets = RSA.sign(LETTER, d="ACME.Example", s="S1")
    assert desk.verify(octets, selectors=("s1",)) == Proof("dkim", "acme.example", "s1")


def test_an_international_domain_signs_in_its_ascii_form(desk: Desk) -> None:
    signer = Signer("xn--bcher-kva.example", "s1", ed25519_key())
    desk.zone.publish(signer.name, signer.record())
    found = desk.verify(signer.sign(LETTER), author="founder@xn--bcher-kva.example")
    assert found == Proof("dkim", "xn--bcher-kva.example", "s1")


def test_a_selector_that_is_an_alias_at_the_provider_is_followed(desk: Desk) -> None:
    desk.zone.publish(RSA.name)
    desk.zone.publish("acme.dkim.mailer.example", RSA.record())
    desk.zone.alias(RSA.name, "acme.dkim.mailer.example")
    assert isinstance(desk.verify(RSA.sign(LETTER)), Proof)


def test_one_good_signature_among_bad_ones_is_proof(desk: Desk) -> None:
    octets = ED25519.sign(LETTER)
    bad = (
        MAILER.field(LETTER) + RSA.field(LETTER + b"more\n") + SHORT.field(LETTER, l="5") + b"DKIM-Signature: what\r\n"
    )
    assert desk.verify(bad.replace(b"\r\n", b"\n") + octets) == Proof("dkim", "acme.example", "e1")


def test_a_field_that_is_not_there_may_be_signed(desk: Desk) -> None:
    assert isinstance(desk.verify(RSA.sign(LETTER, fields=[*FIELDS, "cc", "reply-to", "x-none"])), Proof)


def test_one_field_that_names_the_request_is_enough(desk: Desk) -> None:
    octets = RSA.sign(LETTER, fields=("from", "date", "in-reply-to"))
    assert isinstance(desk.verify(octets), Proof)


@pytest.mark.parametrize(
    "record", [{"k": None}, {"v": None}, {"h": "sha1:sha256"}, {"s": "email"}, {"t": "s"}, {"n": "a"}]
)
def test_a_key_record_may_say_less_or_more(desk: Desk, record: dict[str, str | None]) -> None:
    desk.zone.publish(RSA.name, RSA.record(**record))
    assert isinstance(desk.verify(RSA.sign(LETTER)), Proof)


def test_other_records_beside_the_key_do_not_matter(desk: Desk) -> None:
    desk.zone.publish(RSA.name, b"v=spf1 -all", RSA.record(), b"\xff")
    assert isinstance(desk.verify(RSA.sign(LETTER)), Proof)


# What is no proof, and needs no question to DNS

STATIC: dict[str, tuple[dict[str, object], str]] = {
    "a body length": ({"l": "9"}, "a body length"),
    "the whole length": ({"l": "100000"}, "a body length"),
    "no From": ({"fields": ("to", "date", "subject")}, "leaves out From"),
    "no Date": ({"fields": ("from", "to", "subject")}, "leaves out Date"),
    "From alone": ({"fields": ("from",)}, "leaves out Date"),
    "no name of the request": (
        {"fields": ("from", "date", "subject", "message-id")},
        "leaves out every field that names the request (In-Reply-To, References, To)",
    ),
    "a name that is not there": ({"fields": ("from", "date", "cc", "reply-to")}, "leaves out every field"),
    "another domain": ({"d": "mailer.example"}, "no signature of acme.example: d=mailer.example"),
    "a domain below": ({"d": "mail.acme.example"}, "no signature of acme.example: d=mail.acme.example"),
    "the domain above": ({"d": "example"}, "cannot be read"),
    "a domain that ends the same": ({"d": "notacme.example"}, "d=notacme.example"),
    "a domain with a final dot": ({"d": "acme.example."}, "cannot be read"),
    "a domain with a blank": ({"d": "acme. example"}, "cannot be read"),
    "an address as domain": ({"d": FOUNDER}, "cannot be read"),
    "a domain beyond ASCII": ({"d": "äcme.example"}, "cannot be read"),
    "past its time": ({"x": str(SIGNED_AT - 1)}, "has expired"),
    "past before it was signed": ({"x": str(SIGNED_AT + 50), "t": str(SIGNED_AT + 60)}, "has expired"),
    "from the future": ({"t": str(SIGNED_AT + 7200)}, "is dated in the future"),
    "a time that is none": ({"t": "soon"}, "cannot be read"),
    "an end that is none": ({"x": "-1"}, "cannot be read"),
    "SHA-1": ({"algorithm": "rsa-sha1"}, "uses rsa-sha1"),
    "an unknown algorithm": ({"a": "rsa-md5"}, "an algorithm that is not known"),
    "an algorithm that is its key's no more": ({"a": "ed25519-sha256"}, "size"),
    "another version": ({"v": "2"}, "cannot be read"),
    "no version": ({"v": None}, "cannot be read"),
    "no selector": ({"s": None}, "cannot be read"),
    "a selector that is a path": ({"s": "a/../b"}, "cannot be read"),
    "a selector with an empty label": ({"s": "a..b"}, "cannot be read"),
    "a selector of 300 letters": ({"s": "a" * 300}, "cannot be read"),
    "no fields": ({"h": None}, "cannot be read"),
    "a field with a blank inside": ({"h": "from:da te:to"}, "cannot be read"),
    "an unknown canonicalisation": ({"c": "relaxed/nowsp"}, "cannot be read"),
    "another way to ask": ({"q": "http/get"}, "cannot be read"),
    "no body digest": ({"bh": ""}, "cannot be read"),
    "a body digest that is no base64": ({"bh": "!!!!"}, "cannot be read"),
    "a body digest of another size": ({"bh": "AAAA"}, "size"),
    "a user of another domain": ({"i": "founder@mailer.example"}, "is for another domain"),
    "a user of a domain that ends the same": ({"i": "@notacme.example"}, "is for another domain"),
    "another account of the domain": ({"i": "mallory@acme.example"}, "names another account"),
}


@pytest.mark.parametrize("case", STATIC)
def test_a_signature_that_breaks_a_rule_proves_nothing_and_dns_is_not_asked(desk: Desk, case: str) -> None:
    how, why = STATIC[case]
    assert why in desk.why(RSA.sign(LETTER, **how))
    assert desk.zone.asked == []


@pytest.mark.parametrize(
    "signature",
    {
        "empty": b"",
        "no tags": b"hello",
        "a tag twice": b"v=1; a=rsa-sha256; d=acme.example; d=mailer.example; s=s1; h=from; bh=AAAA; b=AAAA",
        "tags of nothing": b";;;;",
        "octets": bytes(range(128, 256)),
        "no b": b"v=1; a=rsa-sha256; d=acme.example; s=s1; h=from:to:date; bh=AAAA",
    }.items(),
    ids=lambda case: case[0],
)
def test_what_is_no_signature_proves_nothing(desk: Desk, signature: tuple[str, bytes]) -> None:
    assert desk.why(b"DKIM-Signature: " + signature[1] + b"\n" + LETTER) == "its DKIM signature cannot be read"
    assert desk.zone.asked == []


def test_a_letter_without_a_signature_proves_nothing(desk: Desk) -> None:
    assert desk.why(LETTER) == "it has no DKIM signature"
    assert (
        desk.why(replaced(RSA.sign(LETTER), b"DKIM-Signature:", b"X-Google-DKIM-Signature:"))
        == "it has no DKIM signature"
    )


def test_a_real_signature_of_another_domain_proves_nothing(desk: Desk) -> None:
    assert desk.why(MAILER.sign(LETTER)) == "no signature of acme.example: d=mailer.example"
    assert desk.why(BELOW.sign(LETTER)) == "no signature of acme.example: d=mail.acme.example"
    assert desk.zone.asked == []


def test_the_parent_of_the_from_domain_may_not_sign_for_it(desk: Desk) -> None:
    assert desk.why(RSA.sign(LETTER), author="founder@mail.acme.example").startswith(
        "no signature of mail.acme.example"
    )
    assert desk.zone.asked == []


def test_only_pinned_selectors_count(desk: Desk) -> None:
    assert isinstance(desk.verify(RSA.sign(LETTER), selectors=("s1", "s2")), Proof)
    desk.zone.heal()
    why = desk.why(RSA.sign(LETTER), selectors=("s2",))
    assert why == "its signature by acme.example is by selector s1, which is not one of his"
    assert desk.zone.asked == []


def test_an_extension_of_his_own_account_is_his(desk: Desk) -> None:
    assert isinstance(desk.verify(RSA.sign(LETTER, i="Founder+phone@Acme.Example")), Proof)


def test_a_signature_is_believed_until_its_time_is_over(desk: Desk) -> None:
    octets = RSA.sign(LETTER, x=str(SIGNED_AT + 86400))
    assert isinstance(desk.verify(octets, now=(SIGNED_AT + 86399) * SECOND), Proof)
    assert desk.why(octets, now=(SIGNED_AT + 86401) * SECOND).endswith("has expired (x=)")


@pytest.mark.parametrize("years", [-20, 20])
def test_time_is_what_the_caller_says_and_not_what_the_wall_says(desk: Desk, years: int) -> None:
    at = SIGNED_AT + years * 365 * 86400
    assert isinstance(desk.verify(RSA.sign(LETTER, t=str(at), x=str(at + 60)), now=at * SECOND), Proof)


def test_a_letter_without_a_date_proves_nothing_though_its_absence_is_signed(desk: Desk) -> None:
    letter = replaced(LETTER, b"Date:", b"X-Date:")
    assert "leaves out Date" in desk.why(RSA.sign(letter))


# Fields that stand twice, and lines that can be read in two ways


@pytest.mark.parametrize(
    "name",
    ["From", "To", "Cc", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "MIME-Version", "Content-Type"],
)
@pytest.mark.parametrize("is_above", [True, False], ids=["above", "below"])
def test_a_field_that_was_added_a_second_time_makes_the_letter_worthless(desk: Desk, name: str, is_above: bool) -> None:
    letter = replaced(LETTER, b"Subject:", b"Cc: jane@customer.example\nSubject:")
    octets = RSA.sign(letter, fields=("from", "to", "date"))
    added = name.encode() + b": founder@acme.example\n"
    octets = added + octets if is_above else replaced(octets, b"\n\nShip", b"\n" + added + b"\nShip")
    assert desk.why(octets) == f"the message has its {name.title()} field twice"
    assert desk.zone.asked == []


def test_a_signed_field_of_any_name_may_not_stand_twice(desk: Desk) -> None:
    octets = RSA.sign(b"X-Case: 1\n" + LETTER, fields=[*FIELDS, "x-case"])
    assert isinstance(desk.verify(octets), Proof)
    assert "covers X-Case, which the message has twice" in desk.why(b"X-Case: 2\n" + octets)


AMBIGUOUS = {
    "a text inside a field, after a lone CR": b"X-Note: a\rContent-Type: text/plain\r\rShip it\r\r\n",
    "a field inside a field, after a lone CR": b"X-Note: a\rSubject: other\n",
    "a blank before the colon": b"Subject : other\n",
    "a line that dkimpy passes over": b"From : mallory@evil.example\n",
    "a line of a mailbox file": b"From mallory@evil.example Fri Jan 15 08:00:00 2027\n",
    "a line that is no field": b"Hello there\n",
    "a field without a name": b": nothing\n",
    "a name beyond ASCII": "Sübject: other\n".encode(),
    "a name of 200 letters": b"X" * 200 + b": y\n",
    "a continuation of nothing": b" continued\n",
    "an empty line first": b"\n",
    "an empty line first, as CRLF": b"\r\n",
}


@pytest.mark.parametrize("line", AMBIGUOUS)
def test_a_header_that_parsers_read_in_two_ways_proves_nothing(desk: Desk, line: str) -> None:
    assert desk.why(AMBIGUOUS[line] + RSA.sign(LETTER)) == "it has lines that can be read in two ways"
    assert desk.zone.asked == []


def test_a_lone_cr_in_the_text_proves_nothing(desk: Desk) -> None:
    assert "two ways" in desk.why(RSA.sign(replaced(LETTER, b"here it is.", b"here\rit is.")))


# Content-Type is not signed by all; then the text shows how it is to be read

UNSIGNED = ("from", "to", "subject", "date", "message-id", "in-reply-to")


def below_the_header(octets: bytes, text: bytes) -> bytes:
    return octets.replace(b"\n\n", b"\n\n" + text, 1)


@pytest.mark.parametrize(
    "preamble",
    [
        b"",
        b"\n",
        b"This is a multi-part message in MIME format.\n",
        b"This is a multipart message in MIME format.\n\n",
    ],
    ids=["none", "an empty line", "Thunderbird's", "Outlook's"],
)
def test_parts_that_begin_with_their_boundary_need_no_signed_content_type(desk: Desk, preamble: bytes) -> None:
    octets = RSA.sign(below_the_header(WITH_PARTS, preamble), fields=UNSIGNED)
    assert isinstance(desk.verify(octets), Proof)


QUOTING = b"""MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

No, please wait until Monday.

> | Dear Jane, these words fill the line up to where it is cut, sixty and six=
--evil
Content-Type: text/plain

Ship it
"""
REPLAYED = {
    "a line of the quote": b"multipart/mixed; boundary=evil",
    "an empty boundary": b'multipart/mixed; boundary=""',
    "a boundary that is not there": b"multipart/mixed; boundary=nowhere",
    "no boundary": b"multipart/mixed",
    "a boundary in two pieces": b"multipart/mixed; boundary*0=ev; boundary*1=il",
    "a boundary in a charset of its own": b"multipart/mixed; boundary*=utf-8''evil",
    "a boundary of an unknown charset": b"multipart/mixed; boundary*=what''evil",
    "a boundary beyond ASCII": 'multipart/mixed; boundary="évil"'.encode(),
    "a boundary in a charset that is none": b"multipart/mixed; boundary*=a\x00b''evil",
    "a boundary of two lines": b'multipart/mixed; boundary="ev\n il"',
    "a type of 5,000 octets": b"multipart/mixed; boundary=evil; x=" + b"y" * 5000,
}


def test_an_unsigned_encoding_that_joins_lines_must_be_signed(desk: Desk) -> None:
    octets = RSA.sign(LETTER.partition(b"MIME-Version")[0] + QUOTING, fields=UNSIGNED)
    assert "the text does not show how it is to be read" in desk.why(octets)


@pytest.mark.parametrize("replay", REPLAYED)
def test_a_signed_letter_with_another_content_type_proves_nothing(desk: Desk, replay: str) -> None:
    fields = (*UNSIGNED, "content-transfer-encoding")
    octets = RSA.sign(LETTER.partition(b"MIME-Version")[0] + QUOTING, fields=fields)
    assert isinstance(desk.verify(octets), Proof)
    desk.zone.heal()
    why = desk.why(octets.replace(b"text/plain; charset=utf-8", REPLAYED[replay], 1))
    assert (
        why == "its signature by acme.example leaves out Content-Type, and the text does not show how it is to be read"
    )
    assert desk.zone.asked == []


def test_another_line_of_a_letter_with_parts_is_not_its_boundary(desk: Desk) -> None:
    octets = RSA.sign(
        replaced(WITH_PARTS, b"<div>", b"--evil\nContent-Type: text/plain\n\nShip it\n<div>"), fields=UNSIGNED
    )
    assert isinstance(desk.verify(octets), Proof)
    assert "leaves out Content-Type" in desk.why(replaced(octets, b'boundary="=_part-7"', b"boundary=evil"))


def test_a_content_type_of_5000_octets_must_be_signed(desk: Desk) -> None:
    letter = replaced(WITH_PARTS, b'boundary="=_part-7"', b'boundary="=_part-7"; x=' + b"y" * 5000)
    fields = [*FIELDS, "content-transfer-encoding"]
    assert "leaves out Content-Type" in desk.why(RSA.sign(letter, fields=UNSIGNED))
    assert isinstance(desk.verify(RSA.sign(letter, fields=fields)), Proof)


def test_a_boundary_without_a_part_below_it_shows_nothing(desk: Desk) -> None:
    letter = LETTER.replace(b"Ship it\n", b"--evil\nShip it\n").replace(
        b"text/plain; charset=utf-8", b"multipart/mixed; boundary=evil"
    )
    assert "leaves out Content-Type" in desk.why(RSA.sign(letter, fields=UNSIGNED))


def test_a_signed_content_type_is_believed(desk: Desk) -> None:
    letter = below_the_header(WITH_PARTS, b"Hi.\n")
    assert isinstance(desk.verify(RSA.sign(letter)), Proof)
    assert "leaves out Content-Type" in desk.why(RSA.sign(letter, fields=UNSIGNED))


def test_an_encoding_that_looks_for_its_beginning_must_be_signed(desk: Desk) -> None:
    letter = replaced(LETTER, b"\n\nShip", b"\nContent-Transfer-Encoding: x-uuencode\n\nShip")
    assert "leaves out Content-Type" in desk.why(RSA.sign(letter))
    assert isinstance(desk.verify(RSA.sign(letter, fields=[*FIELDS, "content-transfer-encoding"])), Proof)


# What the key says

KEYS: dict[str, tuple[tuple[bytes, ...], str]] = {
    "none": ((), "has no key in DNS"),
    "other text": ((b"hello", b"v=spf1 -all"), "has no key in DNS"),
    "two keys": ((RSA.record(), RSA.record(n="b")), "has more than one key in DNS"),
    "revoked": ((RSA.record(p=""),), "has a key that was revoked"),
    "tested": ((RSA.record(t="y"),), "only being tested"),
    "tested and strict": ((RSA.record(t="s:y"),), "only being tested"),
    "another version": ((RSA.record(v="DKIM2"),), "cannot be read"),
    "another kind": ((RSA.record(k="ed25519"),), "for other algorithms"),
    "SHA-1 alone": ((RSA.record(h="sha1"),), "for other algorithms"),
    "for another service": ((RSA.record(s="tlsrpt"),), "not for mail"),
    "a tag twice": ((RSA.record() + b"; k=rsa",), "has no key in DNS"),
    "no base64": ((RSA.record(p="!!!!"),), "cannot be read"),
    "base64 with something else in it": ((RSA.record().replace(b"p=", b"p=!"),), "cannot be read"),
    "no key inside": ((RSA.record(p="AAAA"),), "cannot be read"),
    "half a key": ((RSA.record(p=base64.b64encode(RSA.key.public[:100]).decode()),), "cannot be read"),
    "another key": ((Signer("acme.example", "s1", rsa_key(2048, "another")).record(),), "does not verify"),
    "60 kB": ((RSA.record(n="a" * 60_000),), "cannot be read"),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_key_that_is_not_fit_proves_nothing(desk: Desk, case: str) -> None:
    records, why = KEYS[case]
    desk.zone.publish(RSA.name, *records)
    assert why in desk.why(RSA.sign(LETTER))


def test_a_short_rsa_key_proves_nothing(desk: Desk) -> None:
    assert "has an RSA key of 512 bit; 1024 to 8192 are accepted" in desk.why(SHORT.sign(LETTER))


def der(*numbers: int) -> str:
    """An RSAPublicKey of these numbers, as p= has it."""

    def item(tag: int, octets: bytes) -> bytes:
        return bytes([tag, 0x82]) + len(octets).to_bytes(2, "big") + octets

    inside = b"".join(item(2, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in numbers)
    return base64.b64encode(item(0x30, inside)).decode()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("bits", "exponent", "why"),
    [
        (8193, 65537, "RSA key of 8193 bit"),
        (16000, 65537, "RSA key of 16000 bit"),
        (8192, 2**8000 + 1, "cannot be used"),
        (2048, 1, "cannot be used"),
        (2048, 65536, "cannot be used"),
        (2048, 0, "cannot be used"),
    ],
)
def test_an_rsa_key_that_would_take_long_or_prove_nothing_is_not_used(
    desk: Desk, bits: int, exponent: int, why: str
) -> None:
    desk.zone.publish(RSA.name, RSA.record(p=der(2 ** (bits - 1) + 1, exponent)))
    assert why in desk.why(RSA.sign(LETTER))


def test_a_key_that_forbids_subdomains_forbids_them(desk: Desk) -> None:
    octets = RSA.sign(LETTER, i="@mail.acme.example")
    assert isinstance(desk.verify(octets), Proof)
    desk.zone.publish(RSA.name, RSA.record(t="s"))
    assert "is for a subdomain" in desk.why(octets)


def test_a_signature_by_one_kind_of_key_is_none_by_the_other(desk: Desk) -> None:
    desk.zone.publish(ED25519.name, RSA.record())
    assert "for other algorithms" in desk.why(ED25519.sign(LETTER))
    desk.zone.publish(ED25519.name, RSA.record(k="ed25519"))
    assert "cannot be read" in desk.why(ED25519.sign(LETTER))


# DNS does not answer


def test_a_failure_of_dns_means_try_again(desk: Desk) -> None:
    octets = RSA.sign(LETTER)
    desk.zone.fail(RSA.name)
    with pytest.raises(Unavailable) as caught:
        desk.verify(octets)
    assert caught.value.code is Code.DNS_UNAVAILABLE
    desk.zone.heal()
    assert isinstance(desk.verify(octets), Proof)


@pytest.mark.timeout(30)
def test_silence_of_dns_means_try_again(zone: Zone, desk: Desk) -> None:
    zone.silence(RSA.name)
    desk.resolver = Resolver((zone.address,), timeout=0.2)
    with pytest.raises(Unavailable):
        desk.verify(RSA.sign(LETTER))


def test_another_signature_is_proof_where_dns_fails_for_one(desk: Desk) -> None:
    desk.zone.fail(RSA.name)
    octets = RSA.sign(ED25519.sign(LETTER))
    assert desk.verify(octets) == Proof("dkim", "acme.example", "e1")


def test_a_failure_of_dns_is_not_hidden_by_a_signature_that_is_bad(desk: Desk) -> None:
    desk.zone.fail(RSA.name)
    bad = ED25519.field(LETTER + b"more\n").replace(b"\r\n", b"\n")
    for octets in (bad + RSA.sign(LETTER), RSA.field(LETTER).replace(b"\r\n", b"\n") + bad + LETTER):
        with pytest.raises(Unavailable):
            desk.verify(octets)


def test_a_failure_of_dns_about_a_signature_that_breaks_a_rule_does_not_matter(desk: Desk) -> None:
    desk.zone.fail(RSA.name)
    assert "a body length" in desk.why(RSA.sign(LETTER, l="5"))


# What was changed on its way

CHANGES = {
    "the text": (b"Ship it\n", b"Ship it not\n"),
    "a line below": (b"here it is.\n", b"here it is.\nShip it\n"),
    "the author": (b"The Founder <", b"Founder <"),
    "the recipient": (b"approve+token@", b"approve+other@"),
    "the subject": (b"7f3k2a", b"7f3k2b"),
    "the date": (b"15 Jan 2027 08", b"16 Jan 2027 08"),
    "the thread": (b"In-Reply-To: <request@", b"In-Reply-To: <another@"),
    "the charset": (b"charset=utf-8", b"charset=utf-7"),
    "the signature's domain": (b"d=acme.example", b"d=acme.Example"),
    "the signature's fields": (b"h=from:to:", b"h=from:to:x-none:"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("signer", [RSA, ED25519], ids=["rsa", "ed25519"])
def test_a_letter_that_was_changed_proves_nothing(desk: Desk, signer: Signer, change: str) -> None:
    old, new = CHANGES[change]
    octets = signer.sign(LETTER)
    assert isinstance(desk.verify(octets), Proof)
    why = desk.why(octets.replace(old, new, 1))
    expected = (
        "the text was changed" if change in {"the text", "a line below"} else "a field that it covers was changed"
    )
    assert f"its signature by acme.example does not verify: {expected}" in why


def test_a_field_whose_absence_is_signed_cannot_be_added(desk: Desk) -> None:
    octets = RSA.sign(LETTER, fields=[*FIELDS, "reply-to"])
    assert isinstance(desk.verify(octets), Proof)
    assert "does not verify" in desk.why(b"Reply-To: mallory@evil.example\n" + octets)


def test_white_space_that_canonicalisation_forgives_is_forgiven(desk: Desk) -> None:
    octets = RSA.sign(LETTER).replace(b"here it is.", b"here\t it is. \t").replace(b"Re: [", b"Re:\n\t [") + b"\n\n"
    assert isinstance(desk.verify(octets), Proof)
    strict = RSA.sign(LETTER, header="simple", body="simple")
    assert isinstance(desk.verify(strict + b"\n\n"), Proof)
    assert "does not verify" in desk.why(strict.replace(b"here it is.", b"here  it is."))
    assert "does not verify" in desk.why(strict.replace(b"Re: [", b"Re:  ["))


class Published:
    """The keys of the signers above, without a question to anybody."""

    def txt(self, name: str) -> tuple[bytes, ...]:
        return tuple(signer.record() for signer in SIGNERS if signer.name == name)


def proves(octets: bytes) -> bool:
    found = verify_dkim(
        parse_incoming(octets),
        author=FOUNDER,
        domains=frozenset(),
        selectors=frozenset(),
        naming=NAMING,
        addressed=frozenset({"to"}),
        resolver=Published(),
        now=SIGNED_AT * SECOND,
    )
    return isinstance(found, Proof)


SEALED = {
    way: ED25519.sign(LETTER, header=way, body=way, fields=[*FIELDS, "content-transfer-encoding", "cc", "reply-to"])
    for way in ("relaxed", "simple")
}
BELOW_SIGNATURE = {way: octets.index(b"From:") for way, octets in SEALED.items()}
WRITTEN = {  # octets of a value or of the text that no canonicalisation takes away
    way: [place for place in range(BELOW_SIGNATURE[way], len(octets)) if octets[place] not in b" \t\r\n"]
    for way, octets in SEALED.items()
}


@given(data=st.data(), way=st.sampled_from(sorted(SEALED)))
def test_no_octet_of_a_signed_letter_can_be_changed(data: st.DataObject, way: str) -> None:
    octets = SEALED[way]
    assert proves(octets)
    place = data.draw(st.sampled_from(WRITTEN[way]))
    octet = data.draw(st.integers(0, 255).filter(lambda one: one not in b" \t\r\n" and one != octets[place]))
    changed = octets[:place] + bytes([octet]) + octets[place + 1 :]
    is_name_in_another_case = way == "relaxed" and changed.lower() == octets.lower() and _is_in_a_name(octets, place)
    assert proves(changed) == is_name_in_another_case


def _is_in_a_name(octets: bytes, place: int) -> bool:
    head = octets.partition(b"\n\n")[0]
    line = octets[octets.rfind(b"\n", 0, place) + 1 : place]
    return place < len(head) and b":" not in line and not line.startswith(b" ")


@given(data=st.data(), way=st.sampled_from(sorted(SEALED)))
def test_no_octet_of_a_signed_letter_can_be_taken_out_or_doubled(data: st.DataObject, way: str) -> None:
    octets = SEALED[way]
    place = data.draw(st.sampled_from(WRITTEN[way]))
    times = data.draw(st.sampled_from([0, 2]))
    assert not proves(octets[:place] + octets[place : place + 1] * times + octets[place + 1 :])


LINES = st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b".", b"  ", b"\r\n\r\n"]), max_size=30).map(b"".join)


@given(body=LINES)
def test_our_canonicalisation_says_what_dkimpy_s_says(body: bytes) -> None:
    assert canonical_body(body, relaxed=False) == Simple.canonicalize_body(body)
    relaxed = canonical_body(body, relaxed=True)
    assert relaxed == (Relaxed.canonicalize_body(body) or b"\r\n")
    assert Simple.canonicalize_body(relaxed) == relaxed


@pytest.mark.parametrize("way", ["relaxed", "simple"])
@pytest.mark.parametrize("text", [b"", b"\n", b"\n\n\n", b" \n\t\n"], ids=["nothing", "a line", "lines", "blanks"])
def test_a_letter_without_a_text_can_be_signed(desk: Desk, way: str, text: bytes) -> None:
    head = LETTER.partition(b"\n\n")[0] + b"\n\n"
    assert isinstance(desk.verify(ED25519.sign(head + text, body=way)), Proof)


# Bombs

BOMB = replaced(LETTER, b"Dear Jane", b"Dear x y Jane")
EXPANDED = {
    "80,000 blanks": b"x" + b" " * 80_000 + b"y",
    "2 MB of blanks": b"x" + b" " * 2_000_000 + b"y",
    "20 MB of blanks and tabs": b"x" + b" \t" * 10_000_000 + b"y",
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("bomb", EXPANDED)
def test_blanks_take_no_time(desk: Desk, bomb: str) -> None:
    assert isinstance(desk.verify(replaced(RSA.sign(BOMB), b"x y", EXPANDED[bomb])), Proof)
    assert "does not verify" in desk.why(replaced(RSA.sign(BOMB, body="simple"), b"x y", EXPANDED[bomb]))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("line", [b"\r\n", b" \r\n", b"\n"], ids=["CRLF", "a blank and CRLF", "LF"])
@pytest.mark.parametrize("count", [100_000, 6_000_000])
def test_empty_lines_take_no_time(desk: Desk, line: bytes, count: int) -> None:
    assert isinstance(desk.verify(RSA.sign(with_crlf(LETTER)) + line * count), Proof)
    assert "does not verify" in desk.why(RSA.sign(with_crlf(LETTER)) + line * count + b"x\r\n")


@pytest.mark.timeout(30)
def test_a_letter_over_25_mib_is_not_looked_at(desk: Desk) -> None:
    octets = RSA.sign(LETTER)
    assert isinstance(desk.verify(octets + b"\n" * (LARGEST_MESSAGE - len(octets))), Proof)
    assert desk.why(octets + b"\n" * (LARGEST_MESSAGE - len(octets) + 1)) == "the message is over 25 MiB"


@pytest.mark.timeout(30)
def test_ten_thousand_signatures_are_not_looked_at(desk: Desk) -> None:
    assert "two ways" in desk.why(b"DKIM-Signature: x\n" * 10_000 + RSA.sign(LETTER))
    good = RSA.sign(LETTER)
    assert isinstance(desk.verify(b"DKIM-Signature: x\n" * 9 + good), Proof)
    assert "cannot be read" in desk.why(b"DKIM-Signature: x\n" * 10 + good)


def test_dns_is_asked_four_times_for_a_message_at_most(desk: Desk) -> None:
    signers = [Signer("acme.example", f"s{number}", ed25519_key()) for number in range(20, 29)]
    fields = b"".join(signer.field(LETTER) for signer in signers).replace(b"\r\n", b"\n")
    assert "has no key in DNS" in desk.why(fields + LETTER)
    assert [name for name, _, _ in desk.zone.asked] == [signer.name for signer in signers[:4]]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("said", "is_read"),
    [
        ([("b" + " " * 180 + "x")] * 35, True),
        (["b" + " b" * 3_000], True),
        (["b" + " " * 150 + "b" + " " * 180], True),
        ([" " * 5_000], False),
        (["\r\n " * 2_000], False),
        (["x" * 9_000], False),
    ],
    ids=["many runs", "many tags", "two runs", "one run", "one run of lines", "over 8 KiB"],
)
def test_blanks_in_a_signature_take_no_time(said: list[str], is_read: bool) -> None:
    assert proves(RSA.sign(LETTER, **{f"z{number}": value for number, value in enumerate(said)})) == is_read


@pytest.mark.timeout(30)
@pytest.mark.parametrize("header", ["relaxed", "simple"])
def test_a_signed_field_of_many_lines_takes_no_time(desk: Desk, header: str) -> None:
    letter = replaced(
        LETTER, b"References: <draft@acme.example>\n", b"References: <draft@acme.example>\n" + b" x\n" * 80_000
    )
    assert isinstance(desk.verify(ED25519.sign(letter, header=header)), Proof)


@pytest.mark.timeout(30)
def test_a_signature_that_covers_more_than_a_hundred_fields_is_not_read(desk: Desk) -> None:
    flood = b"".join(b"X-%d: y\n" % number for number in range(900))
    covered = ("from", "to", "date", *(f"x-{number}" for number in range(97)))
    assert isinstance(desk.verify(ED25519.sign(flood + LETTER, fields=covered)), Proof)
    assert "cannot be read" in desk.why(ED25519.sign(flood + LETTER, fields=(*covered, "x-97")))


@given(octets=st.binary(max_size=300), place=st.sampled_from(["above", "signature", "inside", "instead"]))
def test_no_octets_break_the_look_at_a_letter(octets: bytes, place: str) -> None:
    sealed = SEALED["relaxed"]
    made = {
        "above": octets + sealed,
        "signature": b"DKIM-Signature: v=1; d=acme.example; " + octets + b"\n" + LETTER,
        "inside": sealed.replace(b"s=e1", b"s=e1; " + octets, 1),
        "instead": octets,
    }
    proves(made[place])


@given(record=st.binary(max_size=200) | st.binary(max_size=100).map(lambda key: b"k=rsa; p=" + base64.b64encode(key)))
def test_no_key_record_breaks_the_look_at_a_letter(record: bytes) -> None:
    class Strange:
        def txt(self, _name: str) -> tuple[bytes, ...]:
            return (record,)

    found = verify_dkim(
        parse_incoming(RSA_SEALED),
        author=FOUNDER,
        domains=frozenset(),
        selectors=frozenset(),
        naming=NAMING,
        addressed=frozenset({"to"}),
        resolver=Strange(),
        now=SIGNED_AT * SECOND,
    )
    assert isinstance(found, Unproven)


RSA_SEALED = RSA.sign(LETTER)
