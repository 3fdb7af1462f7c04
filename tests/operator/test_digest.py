"""Approving by digest at the terminal: what was shown is what is granted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from outbox import operator
from outbox.core.errors import Code, StateRefused
from outbox.core.lifecycle import State
from tests.house import House


def approve(house: House, named: str) -> State:
    with operator.open(house.settings, verdicts=True, clock=house.clock) as desk:
        return desk.approve(named, named=None).draft.state


def test_with_its_digest_only_what_was_shown_is_granted(house: House) -> None:
    draft, other = house.draft(), house.draft(text="Something else.")
    with pytest.raises(StateRefused) as refused:
        approve(house, f"{draft.id}@{other.digest.hex()}")
    assert refused.value.code is Code.DIGEST_MISMATCH
    assert approve(house, f"{draft.id}@{draft.digest.hex()}") is State.APPROVED


@pytest.mark.parametrize("digits", [0, 1, 8, 31])
def test_too_few_digits_grant_nothing(house: House, digits: int) -> None:
    draft = house.draft()
    with pytest.raises(StateRefused):
        approve(house, f"{draft.id}@{draft.digest.hex()[:digits]}")
    assert house.story(draft.id).draft.state is State.PENDING


def test_half_a_digest_is_enough_and_its_case_does_not_matter(house: House) -> None:
    draft = house.draft()
    assert approve(house, f"{draft.id}@{draft.digest.hex()[:32].upper()}") is State.APPROVED


def test_show_says_where_a_row_is_not_what_its_digest_was_taken_over(house: House) -> None:
    draft, untouched = house.draft(), house.draft()
    with house.as_thief() as thief:
        thief.execute("UPDATE drafts SET envelope = replace(envelope, 'jane@', 'john@') WHERE id = ?", (draft.id,))
    said = {one: show(house, one) for one in (draft.id, untouched.id)}
    assert f"beware, draft {draft.id}" in said[draft.id]
    assert said[untouched.id] == ""


def show(house: House, draft_id: str) -> str:
    words = [sys.executable, "-m", "outbox", "--config", str(house.folder / "outbox.toml"), "show", draft_id]
    return subprocess.run(words, capture_output=True, text=True, check=True).stderr
