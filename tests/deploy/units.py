"""What stands in deploy/, read as far as the tests need."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contracts.markdown import ROOT

DEPLOY = ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
SERVICES = sorted(SYSTEMD.glob("*.service"))
TIMERS = sorted(SYSTEMD.glob("*.timer"))
_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}


def unit(file: Path) -> dict[str, list[str]]:
    """Every setting of a unit file with its values, in order; an empty value takes back those before."""
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name] = [*found.get(name, []), value] if value else []
    return found


def only(settings: dict[str, list[str]], name: str) -> str:
    """The value of a setting that stands there once."""
    (value,) = settings[name]
    return value


def seconds(span: str) -> int:
    """A time span as these files write it: 30, 690s, 5min."""
    found = re.fullmatch(r"(\d+)(s|min|h)?", span)
    assert found is not None, span
    return int(found[1]) * _UNITS[found[2] or ""]


def tree(text: str) -> dict[str, object]:
    """A compose file: mappings and lists of plain scalars, by indentation. No more of YAML than that."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found, rest = _mapping(lines, 0)
    assert rest == [], f"not understood: {rest[0]}"
    return found


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _mapping(lines: list[str], depth: int) -> tuple[dict[str, object], list[str]]:
    found: dict[str, object] = {}
    while lines and _depth(lines[0]) == depth and not lines[0].lstrip().startswith("- "):
        name, colon, value = lines[0].strip().partition(":")
        assert colon, lines[0]
        assert name not in found, f"{name} stands there twice"
        lines = lines[1:]
        if value:
            found[name] = value.strip().strip('"')
        elif lines and _depth(lines[0]) > depth:
            found[name], lines = _below(lines, _depth(lines[0]))
        else:
            found[name] = None
    return found, lines


def _below(lines: list[str], depth: int) -> tuple[object, list[str]]:
    if not lines[0].lstrip().startswith("- "):
        return _mapping(lines, depth)
    listed = []
    while lines and _depth(lines[0]) == depth and lines[0].lstrip().startswith("- "):
        listed.append(lines[0].strip().removeprefix("- "))
        lines = lines[1:]
    return listed, lines
