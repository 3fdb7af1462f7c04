"""docs/reference/schema.md names every table, index and trigger, and no other."""

from __future__ import annotations

import re

from outbox.store.schema import REVISION, metadata
from outbox.store.triggers import TRIGGERS
from tests.contracts.markdown import code, page, rows, sections

PAGE = page("docs/reference/schema.md")
SECTIONS = sections(PAGE)


def test_every_table_is_described_and_no_other() -> None:
    assert {code(cells[0]) for cells in rows(SECTIONS["Tables"])} == set(metadata.tables)


def test_every_index_is_named() -> None:
    named = set(re.findall(r"`(\w+_\w+)`", SECTIONS["Tables"])) - set(metadata.tables)
    assert named == {str(index.name) for table in metadata.tables.values() for index in table.indexes}


def test_every_trigger_is_described_and_no_other() -> None:
    bullets = re.findall(r"^- ((?:`\w+`(?:, )?)+):", SECTIONS["What each trigger refuses"], re.MULTILINE)
    documented = [name for bullet in bullets for name in re.findall(r"`(\w+)`", bullet)]
    assert sorted(documented) == sorted(trigger.split()[2] for trigger in TRIGGERS)


def test_the_page_is_about_this_revision() -> None:
    assert f"revision `{REVISION}`" in PAGE
