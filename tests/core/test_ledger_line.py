"""A line of the ledger, written in one go and read with care: the one is what the other takes for its own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.canonical import VERSION, encode
from outbox.core.ledger_line import GENESIS, MAC_AT, Begun, Entered, Fenced, Forgotten, Heard, Line, parse, seal
from outbox.core.signing import KeyRing, Purpose, Signature

RING = KeyRing([bytes(range(32))])
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WHOLE = st.integers(0, 2**53 - 1)
LINES = st.one_of(
    st.builds(Begun, WORDS),
    st.builds(Entered, WORDS, WORDS, WORDS, st.lists(WORDS, max_size=3).map(tuple), WORDS, WHOLE, WHOLE),
    st.builds(
        Heard,
        WORDS,
        WORDS,
        st.none() | WHOLE,
        st.none() | WORDS,
        WORDS,
        st.none() | WORDS,
        st.lists(st.tuples(WORDS, WHOLE, WORDS), max_size=3).map(tuple),
        st.none() | st.tuples(WORDS, WORDS),
    ),
    st.builds(Fenced, WORDS, WHOLE, WORDS, WORDS),
    st.builds(Forgotten, WHOLE, WHOLE, WHOLE),
)


@given(LINES, st.binary(min_size=32, max_size=32))
def test_what_is_sealed_is_read_back(line: Line, previous: bytes) -> None:
    mac, text = seal(RING, line, previous)
    assert parse(RING, text, previous) == (line, mac)
    assert text.endswith(b'"}\n')
    assert text.count(b"\n") == 1
    assert bytes.fromhex(text[MAC_AT:][:64].decode()) == mac


@given(LINES)
def test_what_is_under_the_mac_is_canonical_json(line: Line) -> None:
    mac, text = seal(RING, line, GENESIS)
    fields = json.loads(text)
    signature = Signature(fields.pop("key"), bytes.fromhex(fields.pop("mac")))
    assert RING.verify(Purpose.LEDGER, encode({"version": VERSION, **fields, "previous": GENESIS.hex()}), signature)
    assert signature.octets == mac


@given(LINES, st.data())
def test_a_line_with_another_octet_is_none_of_ours(line: Line, data: st.DataObject) -> None:
    _, text = seal(RING, line, GENESIS)
    at = data.draw(st.integers(0, len(text) - 2))
    other = data.draw(st.integers(0, 255).filter(lambda octet: octet != text[at]))
    assert parse(RING, text[:at] + bytes([other]) + text[at + 1 :], GENESIS) in {None, parse(RING, text, GENESIS)}


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"[]\n", b"{}\n", b'{"is":[],"key":"","mac":""}\n', b"[" * 5000, b"\xff\n"]
)
def test_what_nobody_wrote_is_none_of_ours(text: bytes) -> None:
    assert parse(RING, text, GENESIS) is None


def test_a_line_after_another_is_none_of_ours() -> None:
    _, text = seal(RING, Begun("database"), GENESIS)
    assert parse(RING, text, bytes([1]) * 32) is None
