"""The reply token: 39 characters that only the grant key makes, in one spelling, for one request."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.grant import TOKEN_CHARACTERS, Request, placeholder, reply_token, split_token
from outbox.core.signing import KeyRing, Purpose

RING = KeyRing([b"g" * 32])
REQUEST = Request(
    bytes(range(8)), "018f0000-0000-7000-8000-000000000000", b"d" * 32, "founder@acme.example", 1_800_000_000
)
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def verifies(token: str, request: Request = REQUEST, ring: KeyRing = RING) -> bool:
    """Whether a token answers `request`: as the inbox looks at it, by id first and then by MAC."""
    parts = split_token(token)
    return parts is not None and parts[0] == request.id and ring.verify_reply_mac(request.canonical(), parts[1])


def test_a_token_is_39_lower_case_characters_and_verifies() -> None:
    token = reply_token(RING, REQUEST)
    assert len(token) == TOKEN_CHARACTERS == 39
    assert set(token) <= set(ALPHABET)
    assert verifies(token)


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=32, max_size=32))
def test_every_request_s_token_goes_round(request_id: bytes, digest: bytes) -> None:
    request = replace(REQUEST, id=request_id, digest=digest)
    assert verifies(reply_token(RING, request), request)


def test_case_does_not_matter() -> None:
    token = reply_token(RING, REQUEST)
    assert verifies(token.upper())
    assert verifies(token.swapcase())
    assert verifies("".join(c.upper() if n % 2 else c for n, c in enumerate(token)))


@pytest.mark.parametrize("position", range(39))
def test_a_token_with_any_one_character_changed_is_none(position: int) -> None:
    token = reply_token(RING, REQUEST)
    for character in set(ALPHABET + "018=9-_ +/\u0131\u017f\u212a") - {token[position]}:
        assert not verifies(token[:position] + character + token[position + 1 :]), character


def test_every_other_spelling_is_refused() -> None:
    token = reply_token(RING, REQUEST)
    for spelling in (
        "",
        token[:-1],
        token + "a",
        token + "=",
        f" {token}",
        f"{token}\n",
        f"{token[:13]}={token[13:]}",
        token[1:],
    ):
        assert split_token(spelling) is None


def test_the_bits_that_base32_ignores_have_one_spelling() -> None:
    token = reply_token(RING, REQUEST)
    accepted = {
        token[:position] + character + token[position + 1 :]
        for position in (12, 38)
        for character in ALPHABET
        if split_token(token[:position] + character + token[position + 1 :]) == split_token(token)
    }
    assert accepted == {token}


@given(st.text(alphabet=string.printable + "\u0131\u017f\u212a\u00e9", min_size=39, max_size=39))
def test_any_other_39_characters_are_no_token(text: str) -> None:
    assert not verifies(text)


@pytest.mark.parametrize(
    "changed",
    [
        {"draft_id": "018f0000-0000-7000-8000-000000000001"}, {"digest": b"e" * 32}, {"approver": "other@acme.example"},
        {"expires_at": 1_800_000_001}, {"id": bytes(8)},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_a_token_is_for_exactly_what_was_asked(changed: dict[str, object]) -> None:
    assert not verifies(reply_token(RING, REQUEST), replace(REQUEST, **changed))  # type: ignore[arg-type]


def test_a_token_of_another_key_is_none_and_of_an_older_key_is_one() -> None:
    old = KeyRing([b"o" * 32])
    assert not verifies(reply_token(old, REQUEST))
    assert verifies(reply_token(old, REQUEST), ring=KeyRing([b"g" * 32, b"o" * 32]))


def test_a_token_is_made_under_a_purpose_of_its_own() -> None:
    mac = split_token(reply_token(RING, REQUEST))[1]  # type: ignore[index]
    for purpose in set(Purpose) - {Purpose.REPLY}:
        assert RING.sign(purpose, REQUEST.canonical()).octets[:16] != mac


def test_what_stands_in_stored_octets_is_never_a_token() -> None:
    assert len(placeholder(REQUEST.id)) == 39
    assert split_token(placeholder(REQUEST.id)) is None


@pytest.mark.parametrize("mac", [b"", b"\0" * 16, b"short"])
def test_a_mac_of_any_other_shape_is_refused(mac: bytes) -> None:
    assert not RING.verify_reply_mac(REQUEST.canonical(), mac)
