"""Every test that a page names is there."""

from __future__ import annotations

import re

import pytest

from tests.contracts.markdown import ROOT

NAMED = re.compile(r"`(?:tests/)?([a-z_]+/test_\w+\.py)::(test_\w+)`")
PAGES = {
    str(file.relative_to(ROOT)): found
    for file in sorted((ROOT / "docs").rglob("*.md"))
    if (found := NAMED.findall(file.read_text(encoding="utf-8")))
}


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    missing = [
        f"{file}::{name}" for file, name in PAGES[page] if f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []


def test_the_threat_model_names_tests() -> None:
    assert len(PAGES["docs/explanation/threat-model.md"]) > 50
