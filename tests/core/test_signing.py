"""Keys: one purpose's signature is no other's, old keys still verify, and no secret shows."""

from __future__ import annotations

import copy
import pickle
from itertools import permutations

import pytest

from outbox.core.signing import KeyRing, Purpose, Signature

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
RING = KeyRing([NEW, OLD])


@pytest.mark.parametrize("purpose", Purpose)
def test_a_signature_is_verified_under_its_own_purpose(purpose: Purpose) -> None:
    signature = RING.sign(purpose, b"payload")
    assert len(signature.octets) == 32
    assert RING.verify(purpose, b"payload", signature)


@pytest.mark.parametrize(("made", "claimed"), list(permutations(Purpose, 2)))
def test_a_signature_for_one_purpose_is_none_for_another(made: Purpose, claimed: Purpose) -> None:
    assert not RING.verify(claimed, b"payload", RING.sign(made, b"payload"))


def test_a_signature_is_for_its_payload_alone() -> None:
    signature = RING.sign(Purpose.DRAFT, b"payload")
    for payload in (b"", b"payload ", b"Payload", b"payload\0"):
        assert not RING.verify(Purpose.DRAFT, payload, signature)


def test_every_bit_of_a_signature_counts() -> None:
    signature = RING.sign(Purpose.DRAFT, b"payload")
    for position in range(256):
        octets = bytearray(signature.octets)
        octets[position // 8] ^= 1 << position % 8
        assert not RING.verify(Purpose.DRAFT, b"payload", Signature(signature.key_id, bytes(octets)))


@pytest.mark.parametrize("octets", [b"", b"\0" * 32, b"short", b"x" * 31, b"x" * 33])
def test_octets_of_any_other_shape_are_no_signature(octets: bytes) -> None:
    signature = RING.sign(Purpose.DRAFT, b"payload")
    assert not RING.verify(Purpose.DRAFT, b"payload", Signature(signature.key_id, octets))
    assert not RING.verify(
        Purpose.DRAFT, b"payload", Signature(signature.key_id, signature.octets + octets[:1] + b"\0")
    )


def test_the_newest_key_signs_and_an_older_one_still_verifies() -> None:
    before = KeyRing([OLD]).sign(Purpose.GRANT, b"payload")
    assert RING.verify(Purpose.GRANT, b"payload", before)
    after = RING.sign(Purpose.GRANT, b"payload")
    assert after == KeyRing([NEW]).sign(Purpose.GRANT, b"payload")
    assert not KeyRing([OLD]).verify(Purpose.GRANT, b"payload", after)


def test_a_key_that_was_retired_verifies_nothing() -> None:
    assert not KeyRing([NEW]).verify(Purpose.GRANT, b"payload", KeyRing([OLD]).sign(Purpose.GRANT, b"payload"))


def test_a_signature_under_the_wrong_key_id_is_refused() -> None:
    made, other = RING.sign(Purpose.DRAFT, b"payload"), KeyRing([OLD]).sign(Purpose.DRAFT, b"payload")
    for key_id in (
        other.key_id,
        "",
        "0" * 16,
        KeyRing([OTHER]).sign(Purpose.DRAFT, b"").key_id,
        made.key_id.upper() + "x",
    ):
        assert not RING.verify(Purpose.DRAFT, b"payload", Signature(key_id, made.octets))


def test_a_key_id_says_nothing_of_the_key_but_which_it_is() -> None:
    first, second = (KeyRing([key]).sign(Purpose.DRAFT, b"").key_id for key in (OLD, NEW))
    assert first != second
    assert len(first) == len(second) == 16
    assert OLD.hex()[:8] not in first


def test_the_octets_of_a_key_show_in_no_text_of_its_ring() -> None:
    for key in (OLD, NEW):
        for text in (repr(RING), str(RING), f"{RING}"):
            assert key.decode() not in text
            assert key.hex() not in text


def test_a_ring_leaves_its_process_in_no_form() -> None:
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            take(RING)
    assert not hasattr(RING, "__dict__")


@pytest.mark.parametrize("keys", [[], [b""], [b"x" * 31], [OLD, b"x" * 31], [b"x" * 31, OLD]])
def test_a_ring_of_short_keys_or_none_is_not_made(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32"):
        KeyRing(keys)
