"""docs/howto/approve-by-reply.md lists every word of a verdict, in its language and under what it does."""

from __future__ import annotations

from collections import defaultdict

import pytest

from outbox.inbox.verdict import APPROVING, CANCELLING, REJECTING, read_verdict
from tests.contracts.markdown import page, rows, sections

TABLE = rows(sections(page("docs/howto/approve-by-reply.md"))["The words"])
DOES = {"is sent": APPROVING, "is rejected": REJECTING, "is stopped": CANCELLING}


def documented() -> dict[str, list[str]]:
    """What a word does, to the words of all languages; an empty cell repeats the one above."""
    found: dict[str, list[str]] = defaultdict(list)
    does = ""
    for cell, _, words in TABLE:
        does = cell or does
        found[does] += words.split(", ")
    return found


@pytest.mark.parametrize("does", DOES)
def test_every_word_is_listed_under_what_it_does(does: str) -> None:
    assert sorted(documented()[does]) == sorted(DOES[does])


def test_each_listed_line_is_read_as_what_it_is_listed_under() -> None:
    read = {does: {read_verdict(word).verdict.value for word in words} for does, words in documented().items()}
    assert read == {"is sent": {"approve"}, "is rejected": {"reject"}, "is stopped": {"cancel"}}
