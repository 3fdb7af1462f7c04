"""The one table that every fault run prints: what was done to the worker, and what became of the messages.

A run appends its rows to the file that TORTURE_TABLE names, as JSON lines, so that `make torture` can print
one table of all runs at its end: `python -m tests.crash.faults_table FILE`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

NAMED_BY = "TORTURE_TABLE"  # not OUTBOX_: a setting that is none is an error


@dataclass(slots=True)
class Tally:
    """One row. Counts; `duplicates` and `lost` are 0 where the promise holds."""

    name: str
    faults: int = 0
    messages: int = 0
    accepted: int = 0
    duplicates: int = 0
    in_doubt: int = 0
    provably_unsent: int = 0
    lost: int = 0

    def add(self, other: Tally) -> None:
        """Add the other's counts to this row's."""
        for column in COLUMNS:
            setattr(self, column, getattr(self, column) + getattr(other, column))


COLUMNS = tuple(field.name for field in fields(Tally) if field.name != "name")


def render(rows: Iterable[Tally]) -> str:
    """The table as text, rows of one name added up, with a last line that sums it."""
    merged: dict[str, Tally] = {}
    total = Tally("total")
    for row in rows:
        merged.setdefault(row.name, Tally(row.name)).add(row)
        total.add(row)
    heads = ["run", *(column.replace("_", " ") for column in COLUMNS)]
    lines = [[row.name, *(f"{getattr(row, column):,}" for column in COLUMNS)] for row in (*merged.values(), total)]
    widths = [max(len(line[n]) for line in (heads, *lines)) for n in range(len(heads))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in (heads, ["-" * width for width in widths], *lines)
    )


def write(rows: Iterable[Tally]) -> None:
    """Print the table, and add its rows to the file that the environment names, if it names one."""
    rows = list(rows)
    print(f"\n{render(rows)}")  # noqa: T201  the table is what a run is for
    if (name := os.environ.get(NAMED_BY)) is not None:
        lines = "".join(f"{json.dumps(asdict(row))}\n" for row in rows)
        with Path(name).open("ab", buffering=0) as file:  # one write, so that two test processes do not mix lines
            file.write(lines.encode())


def read(file: Path) -> list[Tally]:
    """The rows that runs have added to a file."""
    return [Tally(**json.loads(line)) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    print(render(read(Path(sys.argv[1]))))  # noqa: T201  the same
