"""A finding is one printable line, and a server's words in it carry no secret."""

from __future__ import annotations

import base64

import pytest

from outbox.core.errors import Code, ConfigError
from outbox.core.finding import LONGEST, Finding, failed, without_forms, without_secrets

PASSWORD = "correct horse battery"


@pytest.mark.parametrize(
    ("passed", "todo", "mark"),
    [(True, "", "ok"), (False, "mend it", "FAIL"), (None, "look at it", "warn"), (None, "", "-")],
)
def test_the_mark_says_whether_it_passed_and_what_is_wanted(passed: bool | None, todo: str, mark: str) -> None:
    assert Finding("relay", passed, "it answers", todo).mark == mark


def test_both_sentences_are_kept_to_one_printable_line() -> None:
    finding = Finding("relay", False, "a\r\nb\x1b[31m\u202ec", "d" * 5000)
    assert finding.why == "a b [31m c"
    assert len(finding.todo) == LONGEST
    assert finding.todo.endswith("...")


def test_an_error_says_what_to_do_behind_its_semicolon() -> None:
    missing = ConfigError(Code.SETTING_MISSING, "relay.host is not set; write it in outbox.toml")
    assert failed("relay", missing, "else this") == Finding(
        "relay", False, "relay.host is not set", "write it in outbox.toml"
    )
    bare = ConfigError(Code.KEY_MISSING, "there is no file")
    assert failed("relay", bare, "else this") == Finding("relay", False, "there is no file", "else this")


@pytest.mark.parametrize("prefix", ["", "u", "us", "user", "\0user\0", "user\0user\0"])
@pytest.mark.parametrize("suffix", ["", "x", "xy", "xyz"])
def test_a_secret_is_found_wherever_it_stands_in_base64(prefix: str, suffix: str) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        blob = encode(f"{prefix}{PASSWORD}{suffix}".encode()).decode()
        assert without_forms(f"you said <{blob}>", [PASSWORD]) == "you said <(left out)>"


@pytest.mark.parametrize("secret", ["pässwörd", "a+b(c", "x" * 64, "seven77"])
def test_any_secret_is_taken_out_in_clear_in_hex_and_in_base64(secret: str) -> None:
    for form in (secret, secret.upper(), secret.encode().hex(), base64.b64encode(secret.encode()).decode()):
        cleaned = without_secrets(f"535 no: {form} is wrong", [None, "", secret])
        assert cleaned == "535 no: (left out) is wrong"


def test_a_long_blob_goes_although_no_secret_is_known_and_plain_words_stay() -> None:
    token = base64.b64encode(b'{"status":"401","schemes":"bearer"}').decode()
    words = "334 {} see https://support.example/mail/?p=BadCredentials 0123456789abcdef-0123456789abcdef"
    assert without_secrets(words.format(token), []) == words.format("(left out)")
    assert without_forms(words.format(token), []) == words.format(token)


@pytest.mark.timeout(20)
def test_a_flood_of_words_is_cut_before_it_is_searched() -> None:
    assert len(without_secrets("a" * 10_000_000, ["a" * 30])) < 5000
    assert len(without_secrets("a " * 10_000_000, ["aaaa"])) < 5000
