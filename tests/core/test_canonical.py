"""Canonical bytes: every field of a draft, a grant and a request is in them, and no two share any."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from outbox.core.canonical import canonical, digest, encode
from outbox.core.draft import Draft, Envelope, Thread, uuid7
from outbox.core.grant import Channel, Grant, Request, sign_grant, verify_grant
from outbox.core.signing import KeyRing

DRAFT = Draft(
    id="018f0000-0000-7000-8000-000000000000",
    kind="email",
    agent="bot",
    envelope=Envelope("s@acme.example", ("a@x.example",), ("b@x.example",), ("c@x.example",)),
    message=b"Subject: x\r\n\r\nhi\r\n",
    created_at=1_800_000_000_000_000,
    expires_at=1_800_086_400_000_000,
    thread=Thread("<a@x>", ("<b@x>",)),
)
DRAFT_CHANGES = {
    "id": "018f0000-0000-7000-8000-000000000001",
    "kind": "other",
    "agent": "bot2",
    "envelope": replace(DRAFT.envelope, sender="t@acme.example"),
    "message": b"Subject: x\r\n\r\nhI\r\n",
    "created_at": DRAFT.created_at + 1,
    "expires_at": DRAFT.expires_at + 1,
    "thread": Thread("<a@x>"),
    "resubmitted": "the price was corrected",
}
GRANT = Grant("g", DRAFT.id, b"d" * 32, "founder@acme.example", Channel.REPLY, 1, 2)
GRANT_CHANGES = {
    "id": "h", "draft_id": "other", "digest": b"e" * 32, "approver": "x@acme.example", "channel": Channel.TERMINAL,
    "at": 0, "expires_at": 3,
}  # fmt: skip
REQUEST = Request(bytes(8), DRAFT.id, b"d" * 32, "founder@acme.example", 2)
REQUEST_CHANGES = {
    "id": b"1" * 8, "draft_id": "other", "digest": b"e" * 32, "approver": "x@acme.example", "expires_at": 3,
}  # fmt: skip


def test_these_tables_name_every_field() -> None:
    for value, changes in ((DRAFT, DRAFT_CHANGES), (GRANT, GRANT_CHANGES), (REQUEST, REQUEST_CHANGES)):
        assert {field.name for field in fields(value)} == set(changes)


@pytest.mark.parametrize("name", DRAFT_CHANGES)
def test_each_field_of_a_draft_changes_its_digest(name: str) -> None:
    assert digest(replace(DRAFT, **{name: DRAFT_CHANGES[name]})) != digest(DRAFT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope("s@acme.example", ("a@x.example", "b@x.example"), (), ("c@x.example",)),
        Envelope("s@acme.example", ("a@x.example",), ("b@x.example", "c@x.example"), ()),
        Envelope("s@acme.example", ("a@x.example",), ("c@x.example",), ("b@x.example",)),
        Envelope("s@acme.example", ("a@x.example",), ("b@x.example",), ()),
        Envelope("s@acme.example", ("A@x.example",), ("b@x.example",), ("c@x.example",)),
        Envelope("s@acme.example", ("a@x.example,b@x.example",), (), ("c@x.example",)),
    ],
)
def test_each_place_in_the_envelope_changes_the_digest(envelope: Envelope) -> None:
    assert digest(replace(DRAFT, envelope=envelope)) != digest(DRAFT)


@pytest.mark.parametrize(
    "thread", [Thread(None, ("<b@x>",)), Thread("<b@x>", ("<a@x>",)), Thread("<a@x>", ("<b@x>", "<c@x>"))]
)
def test_each_part_of_the_thread_changes_the_digest(thread: Thread) -> None:
    assert digest(replace(DRAFT, thread=thread)) != digest(DRAFT)


def test_every_octet_of_the_message_changes_the_digest() -> None:
    seen = {digest(DRAFT)}
    for position in range(len(DRAFT.message)):
        octets = bytearray(DRAFT.message)
        octets[position] ^= 1
        seen.add(digest(replace(DRAFT, message=bytes(octets))))
    assert len(seen) == len(DRAFT.message) + 1


@pytest.mark.parametrize("name", GRANT_CHANGES)
def test_each_field_of_a_grant_breaks_its_signature(name: str) -> None:
    ring = KeyRing([b"g" * 32])
    signature = sign_grant(ring, GRANT)
    assert verify_grant(ring, GRANT, signature)
    assert not verify_grant(ring, replace(GRANT, **{name: GRANT_CHANGES[name]}), signature)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", REQUEST_CHANGES)
def test_each_field_of_a_request_changes_its_bytes(name: str) -> None:
    assert replace(REQUEST, **{name: REQUEST_CHANGES[name]}).canonical() != REQUEST.canonical()  # type: ignore[arg-type]


def test_canonical_bytes_name_their_version() -> None:
    for octets in (canonical(DRAFT), GRANT.canonical(), REQUEST.canonical()):
        assert json.loads(octets)["version"] == 1


def test_a_draft_a_grant_and_a_request_share_no_bytes() -> None:
    assert len({canonical(DRAFT), GRANT.canonical(), REQUEST.canonical()}) == 3
    assert set(json.loads(GRANT.canonical())) != set(json.loads(REQUEST.canonical()))


def test_the_same_facts_are_the_same_bytes_in_any_order() -> None:
    assert (
        encode({"b": 1, "a": [2, "\u00e9"]})
        == encode({"a": [2, "\u00e9"], "b": 1})
        == '{"a":[2,"\u00e9"],"b":1}'.encode()
    )


def test_the_canonical_form_of_version_1_stays_as_it_is() -> None:
    # Signatures in databases are over these bytes; a change needs a new version.
    assert digest(DRAFT).hex() == "2db065621facacb99a54fdd6d4eada449937273eb5eb6e4591eb33f3db65f61f"


def test_ids_sort_by_time_and_say_their_version() -> None:
    early, late = uuid7(1_800_000_000_000_000, b"\xff" * 10), uuid7(1_800_000_000_001_000, bytes(10))
    assert early < late
    assert early == "01a3185c-5000-7fff-bfff-ffffffffffff"
    for size in (9, 11):
        with pytest.raises(ValueError, match="10"):
            uuid7(0, bytes(size))
