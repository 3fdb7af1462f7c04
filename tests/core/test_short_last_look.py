"""The last look before a connection has short ways for the usual draft: they say what the long ways say."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from outbox.core import canonical as canonical_bytes
from outbox.core import policy
from outbox.core.address import Mailbox, is_plain, parse_address, without_extension
from outbox.core.canonical import VERSION, canonical, digest, encode, envelope_fields, envelope_json
from outbox.core.draft import MICROSECONDS, Draft, Envelope, Thread
from outbox.core.errors import OutboxError
from outbox.core.grant import Channel, Grant
from outbox.core.headers import usual_fields
from outbox.core.message import Content, compose, is_normal, normalise_lines, split_headers
from outbox.core.policy import (
    Policy,
    form_violations,
    kind_violations,
    raise_first,
    refuse_form,
    refuse_violations,
    standing_violations,
)
from outbox.core.signed import SignedDraft, derived, sign_draft, verify_draft
from outbox.core.signing import KeyRing, Purpose

TEXT = st.text(max_size=12) | st.sampled_from(
    ["", '"\\', "\x00\x1f\x7f", "\u2028", "\U0001f600", "\ud800", "a@b.example"]
)
WHOLE = st.integers(-(2**54), 2**54) | st.sampled_from([2**53, 2**53 - 1, 1 - 2**53, True, False, 1.0, None, "1"])
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
ODD = TEXT | st.sampled_from([None, 1, b"a", True])
ENVELOPES = st.builds(Envelope, ODD, TEXTS | st.just((1,)), TEXTS, TEXTS)
THREADS = st.builds(Thread, ODD, TEXTS)


def outcome(work, *given):
    """What it returns, or that it refuses and why."""
    try:
        return work(*given)
    except OutboxError as error:
        return type(error), error.code, error.message, error.field


@given(st.builds(Draft, ODD, ODD, ODD, ENVELOPES, st.binary(max_size=9), WHOLE, WHOLE, THREADS, st.none() | ODD))
def test_a_draft_is_written_as_its_fields_are(draft: Draft) -> None:
    assert outcome(canonical, draft) == outcome(encode, canonical_bytes._draft_fields(draft))


def test_the_fields_of_a_draft_are_all_signed() -> None:
    draft = Draft("i", "k", "a", Envelope("s", ("t",), ("c",), ("b",)), b"m", 1, 2, Thread("r", ("q",)), "again")
    fields = {
        "version": VERSION, "id": "i", "kind": "k", "agent": "a", "created_at": 1, "expires_at": 2,
        "envelope": {"from": "s", "to": ["t"], "cc": ["c"], "bcc": ["b"]}, "resubmitted": "again",
        "message_sha256": hashlib.sha256(b"m").hexdigest(), "thread": {"in_reply_to": "r", "references": ["q"]},
    }  # fmt: skip
    assert canonical(draft) == rfc8785.dumps(fields)
    del fields["resubmitted"]
    assert canonical(dataclasses.replace(draft, resubmitted=None)) == rfc8785.dumps(fields)


@given(ENVELOPES)
def test_an_envelope_is_written_as_its_fields_are(envelope: Envelope) -> None:
    assert outcome(envelope_json, envelope) == outcome(lambda: encode(envelope_fields(envelope)).decode())


@given(st.builds(Grant, ODD, ODD, st.binary(max_size=4), ODD, st.sampled_from(Channel), WHOLE, WHOLE))
def test_a_grant_is_written_as_its_fields_are(grant: Grant) -> None:
    fields = {
        "version": VERSION, "id": grant.id, "draft": grant.draft_id, "digest": grant.digest.hex(),
        "approver": grant.approver, "channel": grant.channel.value, "at": grant.at, "expires_at": grant.expires_at,
    }  # fmt: skip
    assert outcome(grant.canonical) == outcome(encode, fields)


@given(key=st.binary(min_size=32, max_size=100), payload=st.binary(max_size=300))
def test_a_mac_is_that_of_the_standard_library(key: bytes, payload: bytes) -> None:
    derived_key = hmac.digest(key, Purpose.SEAL.encode(), "sha256")
    made = KeyRing([key]).sign(Purpose.SEAL, payload).octets
    assert made == hmac.digest(derived_key, payload, "sha256")


LINES = st.sampled_from(
    [
        b"From: sales@acme.example", b"from: x@acme.example", b"To: jane@customer.example", b"Subject: Offer",
        b"Subject: =?utf-8?q?Angebot=21?=", b"SUBJECT: twice", b"Message-ID: <a@acme.example>", b"Message-ID:",
        b"X-Outbox-Draft: 018f", b"x-outbox-draft: 018f", b"X-Outbox-Draft: 0190", b"X: a\r\n folded\r\n\tagain",
        b"Subject:\r\n Offer ", b"Sub\r\n ject: Offer", b"X: \xff", b"X\xff: a", b"X: a\nSubject: b",
        b"X: a\rSubject: b",
        b"no colon", b": no name", b" space", b"A b: c", b"", b"X:\x1c a\x0b", b"X" * 76 + b": a", b"X" * 77 + b": a",
        b"X-Outbox-Draft:018f\t", b"X: \r\n \r\n", b"\r",
    ]
)  # fmt: skip
HEADS = st.lists(LINES, max_size=8).map(b"\r\n".join)
MESSAGES = st.builds(
    lambda head, end: head + end, HEADS, st.sampled_from([b"\r\n\r\nhi\r\n", b"\r\n", b"", b"\r\n\r\n"])
)


@given(MESSAGES | st.binary(max_size=40))
@example(b"From: a\r\nX-Outbox-Draft: 018f\r\n\r\n")
@example(b"X: a\r\n\r\n b")
@example(b"\r\n X: a")
def test_usual_fields_are_those_that_are_split(octets: bytes) -> None:
    fields = usual_fields(octets)
    if fields is not None:
        assert list(fields.items()) == [(name.lower(), value) for name, value in split_headers(octets)]


@given(MESSAGES, st.sampled_from(["Offer", "Angebot!", "", "twice"]), st.sampled_from(["<a@acme.example>", ""]))
def test_what_a_message_says_is_compared_whichever_way_it_is_read(octets: bytes, subject: str, name: str) -> None:
    ring = KeyRing([b"k" * 32])
    draft = Draft("018f", "email", "a", Envelope("sales@acme.example", ()), octets, 1, 2)
    taken = digest(draft)
    signed = SignedDraft(draft, subject, name, taken, b"", ring.sign(Purpose.DRAFT, taken))

    def agrees() -> bool:
        headers = split_headers(octets)
        ids = [value for field, value in headers if field.lower() == "x-outbox-draft"]
        return derived(draft) == (subject, name) and ids == ["018f"]

    verified, agreed = outcome(verify_draft, ring, signed), outcome(agrees)
    if agreed is True:
        assert verified == usual_fields(octets)
    elif agreed is False:
        assert verified[1] == "digest_mismatch"
    else:
        assert verified == agreed


LONG = "a" * 65 + "@acme.example"
SEEN = st.sampled_from(
    [
        "sales@acme.example", "jane@customer.example", "jack@customer.example", "approve@acme.example",
        "Approve+018f@acme.example", "approve@ACME.example", "approve@customer.example", "bounces@acme.example",
        "archive@acme.example", "a\u03a3+1@acme.example", "A\u03a3@acme.example", "\u00e9@acme.example",
        "approve+\u00e9@acme.example", "x@other.test", "no address",
        LONG,
        "a@b.example\n", "",
    ]
)  # fmt: skip
NAMED = st.sampled_from(["{}", " {} ", "Jane <{}>", '"Doe, J." <{}>', "{}, jack@customer.example", "list:;", "{},", ""])
FIELDS = st.builds(
    lambda name, form, address: f"{name}: {form.replace('{}', address)}",
    st.sampled_from(["From", "To", "Cc", "Reply-To", "to", "X-To"]), NAMED, SEEN,
)  # fmt: skip
BODIES = st.sampled_from(
    [b"hi\r\n", b"hi", b"hi\n", b"\0\r\n", b"x" * 998 + b"\r\n", b"x" * 999 + b"\r\n", b"a\rb\r\n"]
)
DRAFTS = st.builds(
    lambda kind, sender, to, fields, body, ttl: Draft(
        "018f", kind, "a", Envelope(sender, tuple(to[:2]), tuple(to[2:])),
        "\r\n".join([*fields, "Subject: x", "", ""]).encode() + body, 0, ttl,
    ),
    st.sampled_from(["email"] * 5 + ["Venture-Kill", "system", "telegram", "", "EMAIL"]),
    SEEN, st.lists(SEEN, max_size=4), st.lists(FIELDS, max_size=4), st.just(b"hi\r\n") | BODIES,
    st.sampled_from([MICROSECONDS] * 4 + [MICROSECONDS - 1, 60 * MICROSECONDS, 60 * MICROSECONDS + 1, -1]),
)  # fmt: skip
POLICIES = st.builds(
    Policy,
    st.sampled_from([frozenset({"acme.example"}), frozenset({"acme.example", "customer.example"}), frozenset()]),
    st.sampled_from(
        [
            None,
            "approve@acme.example",
            "Approve@acme.example",
            "a\u03a3@acme.example",
            "\u00e9@acme.example",
            "approve+x@acme.example",
        ]
    ),
    max_recipients=st.sampled_from([1, 2, 10]),
    max_ttl=st.just(60),
    refuse_kinds=st.sampled_from([frozenset(), frozenset({"EMAIL"}), frozenset({"telegram"})]),
    return_path=st.sampled_from([None, "bounces@acme.example", "approve@acme.example"]),
    archive=st.sampled_from([None, "archive@acme.example"]),
)
PLAIN = "From: sales@acme.example\r\nTo: jane@customer.example\r\n\r\nhi\r\n"
USUAL = Draft(
    "018f", "email", "a", Envelope("sales@acme.example", ("jane@customer.example",)), PLAIN.encode(), 0, 10**6
)
ACME = Policy(frozenset({"acme.example"}), "approve@acme.example")


@given(DRAFTS, POLICIES)
@example(USUAL, ACME)
def test_a_draft_is_refused_as_rule_by_rule(draft: Draft, rules: Policy) -> None:
    asked = outcome(lambda: raise_first(standing_violations(draft, rules)))
    assert outcome(refuse_violations, draft, rules, usual_fields(draft.message)) == asked
    assert outcome(refuse_violations, draft, rules, None) == asked
    assert outcome(refuse_form, draft) == outcome(lambda: raise_first(form_violations(draft)))


ONE_WRONG = {
    "kind": dataclasses.replace(USUAL, kind="venture_kill"),
    "sender's domain": dataclasses.replace(USUAL, envelope=Envelope("sales@acme.test", USUAL.envelope.to)),
    "sender approves": dataclasses.replace(USUAL, envelope=Envelope("approve@acme.example", USUAL.envelope.to)),
    "recipient approves": dataclasses.replace(
        USUAL, envelope=Envelope("sales@acme.example", ("approve+1@acme.example",))
    ),
    "no recipient": dataclasses.replace(USUAL, envelope=Envelope("sales@acme.example", ())),
    "many recipients": dataclasses.replace(USUAL, envelope=Envelope("sales@acme.example", USUAL.envelope.to * 11)),
    "no address": dataclasses.replace(USUAL, envelope=Envelope("sales@acme.example", ("jane",))),
    "bare LF": dataclasses.replace(USUAL, message=USUAL.message + b"x\n"),
    "lives too long": dataclasses.replace(USUAL, expires_at=31 * 86400 * MICROSECONDS),
    "lives too shortly": dataclasses.replace(USUAL, expires_at=MICROSECONDS - 1),
    **{
        f"{name} says {address}": dataclasses.replace(USUAL, message=f"{name}: {address}\r\n\r\nhi\r\n".encode())
        for name in ("From", "To", "Cc", "Reply-To")
        for address in ("approve@acme.example", "Jane <APPROVE+2@acme.example>", "no address")
    },
    "From says another domain": dataclasses.replace(USUAL, message=b"From: x@acme.test\r\n\r\nhi\r\n"),
}


@pytest.mark.parametrize("wrong", ONE_WRONG)
def test_one_wrong_thing_is_never_usual(wrong: str) -> None:
    draft = ONE_WRONG[wrong]
    asked = outcome(lambda: raise_first(standing_violations(draft, ACME)))
    assert asked is not None
    assert outcome(refuse_violations, draft, ACME, usual_fields(draft.message)) == asked


@given(SEEN, POLICIES)
def test_an_approval_address_is_known_by_its_mailbox(address: str, rules: Policy) -> None:
    approval = rules.approval_address
    assert rules.is_approval(address) == (
        approval is not None and without_extension(address) == without_extension(approval)
    )


@given(TEXT | st.just("email"), POLICIES)
def test_a_kind_is_allowed_where_no_rule_is_against_it(kind: str, rules: Policy) -> None:
    assert rules.allows_kind(kind) == (not any(kind_violations(kind, rules)))


@given(SEEN, BODIES)
def test_what_is_plain_or_normal_stays_as_it_is(address: str, octets: bytes) -> None:
    assert not is_plain(address) or parse_address(address, "to") == address
    assert is_normal(octets) == (outcome(normalise_lines, octets) == octets)


def test_the_usual_draft_takes_the_short_ways() -> None:
    jane, sales = Mailbox("", "jane@customer.example"), Mailbox("", "sales@acme.example")
    message = compose(Content(sales, (jane,), (), "Offer", "Dear Jane,\n"), "018f", "<018f@acme.example>")
    draft = dataclasses.replace(USUAL, message=message)
    signed = sign_draft(KeyRing([b"k" * 32]), draft, b"")
    fields = verify_draft(KeyRing([b"k" * 32]), signed)
    assert fields is not None
    assert policy._is_usual(draft, ACME, fields)
    assert policy._is_in_form(draft, draft.envelope.recipients)
    assert canonical_bytes._canonical(draft).encode() == canonical(draft)
