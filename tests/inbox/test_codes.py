"""One-time codes: the RFC's own numbers, the time they are good for, and secrets that are secrets."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.inbox.codes import GRACE, STEP, Matched, match_code, parse_secret
from tests.house import SECOND

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
# RFC 6238 appendix B, SHA-1: seconds and the code of eight digits, of which six are shown here.
RFC_VECTORS = [
    (59, "94287082"),
    (1111111109, "07081804"),
    (1111111111, "14050471"),
    (1234567890, "89005924"),
    (2000000000, "69279037"),
    (20000000000, "65353130"),
]
NOW = 1234567890 * SECOND
CODE = "005924"


@pytest.mark.parametrize(("seconds", "code"), RFC_VECTORS)
def test_the_vectors_of_rfc_6238_match(seconds: int, code: str) -> None:
    at = seconds * SECOND
    assert match_code(RFC_SECRET, code[2:], since=at, until=at) == Matched(seconds // 30)


def test_a_code_is_good_from_its_grace_to_one_moment_ahead() -> None:
    first = NOW // (STEP * SECOND) * STEP * SECOND
    matched = Matched(first // (STEP * SECOND))
    last = first + STEP * SECOND - 1
    assert match_code(RFC_SECRET, CODE, since=first, until=first) == matched
    assert match_code(RFC_SECRET, CODE, since=last, until=last + GRACE * SECOND) == matched
    assert match_code(RFC_SECRET, CODE, since=first - GRACE * SECOND, until=first) == matched
    assert match_code(RFC_SECRET, CODE, since=last + 1, until=last + GRACE * SECOND) is None
    assert match_code(RFC_SECRET, CODE, since=first - GRACE * SECOND, until=first - 1) is None


def test_no_time_at_all_has_no_code() -> None:
    assert match_code(RFC_SECRET, CODE, since=NOW + GRACE * SECOND, until=NOW - GRACE * SECOND) is None


def test_time_before_1970_is_left_out() -> None:
    assert match_code(RFC_SECRET, "287082", since=-GRACE * SECOND, until=59 * SECOND) == Matched(1)


def test_the_newest_of_two_steps_with_one_code_counts() -> None:
    """A code may come again; the later one is the one that was not taken yet."""
    shown = {}
    for step in range(20_000):
        at = step * STEP * SECOND
        code = code_at(at)
        if code in shown:
            assert match_code(RFC_SECRET, code, since=shown[code], until=at) == Matched(step)
            return
        shown[code] = at
    raise AssertionError("no code came twice")


def code_at(at: int) -> str:
    from pyotp import TOTP

    return TOTP(RFC_SECRET).at(at // SECOND)


@pytest.mark.parametrize("written", ["005 924", " 005924 ", "\t005924", "005924\t"])
def test_blanks_around_and_in_the_middle_are_forgiven(written: str) -> None:
    assert match_code(RFC_SECRET, written, since=NOW, until=NOW) is not None


@pytest.mark.parametrize(
    "written",
    [
        "",
        "00592",
        "0059240",
        "89005924",
        "00 5924",
        "005  924",
        "005-924",
        "0 0 5 9 2 4",
        "005924\n",
        "005924\n005924",
        "005\u00a0924",
        "\u0660\u0660\u0665\u0669\u0662\u0664",
        "\uff10\uff10\uff15\uff19\uff12\uff14",
        "00592\u2084",
        "+05924",
        "5924",
        "code 005924",
    ],
)
def test_anything_but_six_ascii_digits_is_no_code(written: str) -> None:
    assert match_code(RFC_SECRET, written, since=NOW, until=NOW) is None


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_text_raises_and_none_matches_but_the_code(written: str) -> None:
    found = match_code(RFC_SECRET, written, since=NOW, until=NOW)
    assert (found is not None) == (written.strip(" \t") in {CODE, "005 924"})


@given(st.integers(min_value=0, max_value=999_999))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_another_code_does_not_match(number: int) -> None:
    code = f"{number:06}"
    assert (match_code(RFC_SECRET, code, since=NOW, until=NOW) is not None) == (code == CODE)


def test_twelve_codes_of_a_million_are_good_at_once() -> None:
    """What the odds beside GRACE are made of."""
    good = {
        code_at(step * STEP * SECOND)
        for step in range((NOW - GRACE * SECOND) // (STEP * SECOND), (NOW + STEP * SECOND) // (STEP * SECOND) + 1)
    }
    assert len(good) == 12
    for code in good:
        assert match_code(RFC_SECRET, code, since=NOW - GRACE * SECOND, until=NOW + STEP * SECOND) is not None


@pytest.mark.parametrize(
    "octets",
    [
        RFC_SECRET.encode(),
        RFC_SECRET.lower().encode(),
        f"{RFC_SECRET}\n".encode(),
        f"  {RFC_SECRET}\r\n".encode(),
        b"GEZD GNBV GY3T QOJQ\tGEZD GNBV GY3T QOJQ",
        b"gezdgnbvgy3tqojq\ngezdgnbvgy3tqojq\n",
    ],
)
def test_blanks_and_case_of_a_secret_are_forgiven(octets: bytes) -> None:
    assert parse_secret(octets) == RFC_SECRET


def test_padding_is_left_away() -> None:
    padded = base64.b32encode(bytes(16))
    assert padded.endswith(b"=")
    assert parse_secret(padded) == padded.decode().rstrip("=")


@pytest.mark.parametrize("size", [16, 17, 18, 19, 20, 32, 64])
def test_a_parsed_secret_makes_the_codes_of_its_octets(size: int) -> None:
    raw = bytes(range(size))
    secret = parse_secret(base64.b32encode(raw).lower())
    assert base64.b32decode(secret + "=" * (-len(secret) % 8)) == raw
    assert match_code(secret, "000000", since=NOW, until=NOW) in {None, Matched(NOW // (STEP * SECOND))}


SECRETS_THAT_ARE_NONE = {
    "nothing": b"",
    "only-blanks": b" \n ",
    "too-short": base64.b32encode(bytes(range(15))),
    "80-bits-as-old-phones": base64.b32encode(bytes(range(10))),
    "digits-that-base32-has-not": b"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQ018",
    "raw-octets": bytes(range(128, 160)),
    "a-whole-uri": b"otpauth://totp/Outbox?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
    "half-of-a-group": b"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQA",
    "padding-in-the-middle": b"GEZDGNBVGY3TQOJQ====GEZDGNBVGY3TQOJQ",
    "longer-than-any-secret": b"A" * 4096,
}


@pytest.mark.parametrize("octets", SECRETS_THAT_ARE_NONE.values(), ids=SECRETS_THAT_ARE_NONE)
def test_what_is_no_secret_is_refused_without_repeating_it(octets: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it (is|has) ") as caught:
        parse_secret(octets)
    text = octets.decode("latin-1").strip()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not text or text[:8].lower() not in str(caught.value).lower()
