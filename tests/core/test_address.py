"""Hostile addresses are refused in time that grows with their length and no faster."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.address import Mailbox, parse_address, parse_mailbox, parse_mailboxes, without_extension
from outbox.core.errors import Code, PolicyRefused

LONG = 60_000  # characters; what takes quadratic time at this length takes minutes
HOSTILE = {
    "blanks": " " * LONG,
    "blanks before": " " * LONG + "b c",
    "blanks between": "a" + " " * LONG + "b",
    "blanks after": "a@x.example" + " " * LONG + "b",
    "tabs before": "\t" * LONG + "b c",
    "dots": "." * LONG,
    "dots in domain": "a@" + "." * LONG,
    "labels": "a@" + "a." * (LONG // 2) + "example",
    "ats": "@" * LONG,
    "open quotes": '"' + "a" * LONG,
    "quotes": '"' * LONG,
    "escapes": '"' + "\\" * LONG,
    "escaped quotes": '"' + '\\"' * (LONG // 2),
    "quoted, then blanks": '"a"' + " " * LONG + "b",
    "angles": "<" * LONG,
    "closing angles": ">" * LONG,
    "name and angles": "a <" * (LONG // 3),
    "colons": "a:" * (LONG // 2),
    "parentheses": "(" * LONG,
    "beyond ascii": "\u00e9" * LONG,
    "domain beyond ascii": "a@" + "\u00e9" * LONG + ".example",
    "combining": "a\u0301\u0323" * (LONG // 3) + "@x.example",
    "one label beyond ascii": "a@" + "\u4f8b" * 20_000,
    "encoded words": "=?utf-8?q?a?= " * (LONG // 14),
    "group": "a " * (LONG // 2) + ":;",
    "group of blanks": " " * LONG + ":;x",
}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_one_hostile_mailbox_is_refused_in_time(text: str) -> None:
    with pytest.raises(PolicyRefused):
        parse_mailbox(text, "to")


@pytest.mark.timeout(5)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_read_in_time(text: str) -> None:
    with suppress(PolicyRefused):
        parse_mailboxes(f"a@x.example,{text}", "To")


@pytest.mark.timeout(5)
@pytest.mark.parametrize("text", ["," * LONG, "a@x.example," * (LONG // 12), '",' * (LONG // 2), '\\",' * (LONG // 3)])
def test_a_header_of_many_parts_is_read_in_time(text: str) -> None:
    with suppress(PolicyRefused):
        parse_mailboxes(text, "To")


def test_a_header_over_64_kib_is_not_looked_into() -> None:
    with pytest.raises(PolicyRefused) as caught:
        parse_mailboxes("a@x.example," * 6000, "To")
    assert caught.value.code is Code.MESSAGE_MALFORMED


def test_an_error_quotes_at_most_a_hundred_characters() -> None:
    with pytest.raises(PolicyRefused) as caught:
        parse_address("\x1b" * 5000, "to")
    assert len(caught.value.message) < 1000
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("value", "mailboxes"),
    [
        ("a@x.example", [("", "a@x.example")]),
        ("a@x.example, b@y.example", [("", "a@x.example"), ("", "b@y.example")]),
        ('"Doe, J." <a@x.example>,Bob <b@y.example>', [("Doe, J.", "a@x.example"), ("Bob", "b@y.example")]),
        ('"a\\",b" <a@x.example>', [('a",b', "a@x.example")]),
        ("undisclosed-recipients:;", []),
        ("undisclosed recipients: ;", []),
    ],
)
def test_a_header_is_its_mailboxes(value: str, mailboxes: list[tuple[str, str]]) -> None:
    assert parse_mailboxes(value, "To") == tuple(Mailbox(*one) for one in mailboxes)


@pytest.mark.parametrize(
    "value", ["", " ", ",", "a@x.example,", ",a@x.example", "a@x.example,,b@y.example", "g: a@x.example;"]
)
def test_an_empty_place_in_a_header_is_no_mailbox(value: str) -> None:
    with pytest.raises(PolicyRefused):
        parse_mailboxes(value, "To")


@given(st.text(max_size=60))
def test_any_text_is_one_address_or_refused(text: str) -> None:
    with suppress(PolicyRefused):
        address = parse_address(text, "to")
        assert address.count("@") == 1
        assert address.isprintable()
        assert not set(address) & set(' \t\r\n\0,;<>()"\\')
        assert parse_address(address, "to") == address


@pytest.mark.parametrize("address", ["approve@x.example", "Approve+a+b@X.example", "approve+@x.example"])
def test_a_mailbox_is_compared_without_extension_and_case(address: str) -> None:
    assert without_extension(address) == "approve@x.example"
