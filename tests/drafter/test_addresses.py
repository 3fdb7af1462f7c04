"""International addresses: the domain goes out as ASCII, the local part as it was given."""

from __future__ import annotations

import pytest

from outbox.core.errors import Code
from tests.drafter.ledger import PLAIN, adopt, assert_refused, read_back, stored
from tests.house import JANE, SALES, House


@pytest.mark.parametrize(
    ("given", "envelope"),
    [
        ("jane@b\u00fccher.example", "jane@xn--bcher-kva.example"),
        ("jane@B\u00dcCHER.example", "jane@xn--bcher-kva.example"),
        ("jane@bu\u0308cher.example", "jane@xn--bcher-kva.example"),
        ("jane@\u4f8b\u3048.example", "jane@xn--r8jz45g.example"),
        ("jane@stra\u00dfe.example", "jane@xn--strae-oqa.example"),  # IDNA 2008: not strasse.example
        ("jane@xn--bcher-kva.example", "jane@xn--bcher-kva.example"),
        ("Jane@Customer.EXAMPLE", "Jane@customer.example"),
    ],
)
def test_a_domain_goes_as_lower_case_ascii(house: House, given: str, envelope: str) -> None:
    draft = house.draft(to=(given,))
    assert draft.envelope.to == (envelope,)
    assert stored(house, draft.id).isascii()
    assert [one.addr_spec for one in read_back(stored(house, draft.id))["To"].addresses] == [envelope]


@pytest.mark.parametrize("local", ["j\u00e4ne", "\u7528\u6237", "jos\u00e9+news", "\u0438\u0432\u0430\u043d"])
def test_a_local_part_beyond_ascii_stays_as_it_is(house: House, local: str) -> None:
    address = f"{local}@customer.example"
    draft = house.draft(to=(address,))
    assert draft.envelope.to == (address,)
    assert f"To: {address}\r\n".encode() in stored(house, draft.id)


def test_a_header_of_a_whole_message_may_name_an_address_beyond_ascii(house: House) -> None:
    octets = PLAIN.replace(JANE, "j\u00e4ne@b\u00fccher.example").encode()
    draft = adopt(house, octets)
    assert draft.envelope.to == ("j\u00e4ne@xn--bcher-kva.example",)
    assert "To: j\u00e4ne@b\u00fccher.example\r\n".encode() in stored(house, draft.id)


def test_a_from_domain_beyond_ascii_is_known_in_either_form(house: House) -> None:
    house.set("policy", from_domains='["b\u00fccher.example"]')
    for sender in ("sales@b\u00fccher.example", "sales@xn--bcher-kva.example"):
        assert house.draft(sender=sender).envelope.sender == "sales@xn--bcher-kva.example"


def test_the_approval_address_is_known_in_either_form_of_its_domain(house: House) -> None:
    house.set("approval", address='"approve@b\u00fccher.example"')
    for address in ("Approve+x@B\u00dcCHER.example", "approve@xn--bcher-kva.example"):
        assert_refused(house, Code.APPROVAL_ADDRESS, to=(address,))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Jane Doe <jane@customer.example>", "Jane Doe"),
        ("Doe, Jane <jane@customer.example>", None),
        ('"Doe, Jane" <jane@customer.example>', "Doe, Jane"),
        ('"Jane \\"JD\\" Doe" <jane@customer.example>', 'Jane "JD" Doe'),
        ('"back\\\\slash" <jane@customer.example>', "back\\slash"),
        ("J\u00e4ne D\u00f6e <jane@customer.example>", "J\u00e4ne D\u00f6e"),
        ('"D\u00f6e, J\u00e4ne <evil@x.example>" <jane@customer.example>', "D\u00f6e, J\u00e4ne <evil@x.example>"),
        ('"evil@x.example, Jane" <jane@customer.example>', "evil@x.example, Jane"),
        ("\U0001f600 <jane@customer.example>", "\U0001f600"),
        ("<jane@customer.example>", ""),
        ("=?utf-8?q?J=C3=A4ne?= <jane@customer.example>", "=?utf-8?q?J=C3=A4ne?="),
    ],
)
def test_a_display_name_is_read_back_as_it_was_given(house: House, given: str, name: str | None) -> None:
    if name is None:
        assert_refused(house, Code.ADDRESS_INVALID, to=(given,))
        return
    draft = house.draft(to=(given,), sender=given.replace(JANE, SALES))
    message = read_back(stored(house, draft.id))
    assert [(one.display_name, one.addr_spec) for one in message["To"].addresses] == [(name, JANE)]
    assert [(one.display_name, one.addr_spec) for one in message["From"].addresses] == [(name, SALES)]
    assert draft.envelope.recipients == (JANE,)
