"""Our own pages, read as far as tests need: sections, tables, lists and fences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r"(?:^<!-- (?P<remark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, the remark on the line before it, and its text."""

    language: str
    remark: str
    text: str


def page(name: str) -> str:
    """The text of a page, named from the checkout's top."""
    return (ROOT / name).read_text(encoding="utf-8")


def pages() -> list[Path]:
    """Every page there is."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def sections(text: str) -> dict[str, str]:
    """Heading of the second level to what stands below it, fences included."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without heads and rules."""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        after = lines[number + 1] if number + 1 < len(lines) else ""
        if line.startswith("|") and not set(line) <= set("|-: ") and not (after and set(after) <= set("|-: ")):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def code(cell: str) -> str:
    """What stands between backticks, if a cell is nothing else; else an empty text."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    return found[1] if found else ""


def fences(text: str) -> list[Fence]:
    """Every fenced block, in order."""
    return [Fence(one["language"], one["remark"] or "", one["text"]) for one in _FENCE.finditer(text)]
