"""What the first line says, and what may stand below it: the table in tests/corpus/verdicts."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from outbox.inbox.verdict import APPROVING, CANCELLING, REJECTING, Verdict, read_verdict
from tests.inbox.letters import CORPUS

CASES: list[dict[str, Any]] = tomllib.loads((CORPUS / "verdicts" / "lines.toml").read_text(encoding="utf-8"))["case"]


@pytest.mark.parametrize("case", CASES, ids=[case.get("name") or ascii(case["text"])[:60] for case in CASES])
def test_a_text_is_read_as_meant(case: dict[str, Any]) -> None:
    text = case["text"].replace("\r\n", "\n").replace("\r", "\n")  # as every text part is read
    reading = read_verdict(text, case.get("closing", ()), [case.get("original", "")])
    assert reading.verdict == case["verdict"], reading.why
    assert case.get("reason") is None or reading.reason == case["reason"]


def test_the_words_are_those_of_the_contract() -> None:
    assert set(APPROVING) == {
        "ship it", "send it", "approve", "approved", "yes", "ok to send", "lgtm", "go ahead",
    }  # fmt: skip
    assert set(REJECTING) == {"reject", "no", "don't send", "do not send", "don't send it", "do not send it"}
    assert set(CANCELLING) == {"cancel", "stop", "hold"}


def test_an_approval_with_a_remark_says_which_remark() -> None:
    reading = read_verdict("Ship it\nbut fix the price first")
    assert (reading.excerpt, "price" in reading.why) == ("but fix the price first", False)


def test_a_reason_is_kept_up_to_its_limit_and_no_further() -> None:
    reading = read_verdict("Reject: " + "x " * 1250)
    assert (reading.verdict, len(reading.reason or "")) == (Verdict.REJECT, 2000)


def test_a_line_beyond_reason_is_unclear() -> None:
    assert read_verdict("no " * 5000).verdict is Verdict.UNCLEAR
    assert read_verdict("Reject: " + "x" * 100_000).verdict is Verdict.UNCLEAR
    assert read_verdict("Ship it\n" + "x" * 100_000).verdict is Verdict.UNCLEAR
