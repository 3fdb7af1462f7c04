"""docs/reference/settings.md describes every setting with its default, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from outbox import config
from outbox.config import Settings
from outbox.sections import parse_duration
from tests.contracts.markdown import ROOT, code, page, rows

PAGE = page("docs/reference/settings.md")
DOCUMENTED = {code(cells[0]): cells[1:] for cells in rows(PAGE)}
COMMANDS = {"", "every command", "draft", "inbox", "worker", "approve", "reject", "with a username"}


def defaults(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every setting's name and default; those of a table by address under the name ADDRESS."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from defaults(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
        if isinstance(value, dict):
            _, section = get_args(field.annotation)
            yield from defaults(section(), f"{prefix}{name}.ADDRESS.")


CODED = dict(defaults(Settings()))


def plain(value: object) -> object:
    """A default as TOML would say it."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def test_every_setting_is_documented_and_no_other() -> None:
    assert set(DOCUMENTED) == set(CODED)


@pytest.mark.parametrize("name", CODED)
def test_the_documented_default_is_the_default(name: str) -> None:
    kind, written, _, _ = DOCUMENTED[name]
    value = json.loads(code(written)) if written else None
    if kind == "duration":
        value = parse_duration(value)
    assert value == plain(CODED[name])


@pytest.mark.parametrize("name", CODED)
def test_who_needs_a_setting_is_said_in_names_of_commands(name: str) -> None:
    assert set(DOCUMENTED[name][2].split(", ")) <= COMMANDS


def test_each_setting_stands_under_its_section() -> None:
    for section, text in re.findall(r"^## \[(\w+)\]\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL):
        assert {code(cells[0]).partition(".")[0] for cells in rows(text)} == {section}


def test_the_environment_s_examples_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    examples = re.findall(r"^    (OUTBOX_\w+)=(.+)$", PAGE, re.MULTILINE)
    for variable, value in examples:
        monkeypatch.setenv(variable, value.strip("'"))
    monkeypatch.chdir(tmp_path)
    loaded = config.load()
    assert loaded.relay.port == 2525
    assert loaded.thermal.system.count == 120
    assert loaded.policy.from_domains == ("example.org",)
    assert len(examples) == 3


def test_only_config_reads_the_environment() -> None:
    reading = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "outbox").rglob("*.py")
        if re.search(r"\bos\.(environ|getenv)\b|from os import .*(environ|getenv)", file.read_text())
    }
    assert reading == {"outbox/config.py"}
