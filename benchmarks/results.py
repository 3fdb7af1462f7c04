"""What a run found, as it is kept: one JSON file for each benchmark, every sample in it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.machine import Machine

KEPT = Path(__file__).parent / "results"


@dataclass(slots=True)
class Row:
    """One contestant in one case: figures by name (the unit is in the name), a sample for each repetition.

    A limit is a row too: nothing can be faster than it on this machine.
    """

    contestant: str
    case: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    is_limit: bool = False
    remark: str = ""

    def add(self, **figures: float) -> None:
        """One repetition's."""
        for name, value in figures.items():
            self.samples.setdefault(name, []).append(value)

    def figure(self, name: str) -> float | None:
        """The median, or None where it was not measured."""
        found = self.samples.get(name)
        return median(found) if found else None


@dataclass(slots=True)
class Result:
    """One benchmark of one run. `loads` are the load averages (1 minute) before each measurement."""

    benchmark: str
    quick: bool
    machine: Machine
    rows: list[Row] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def row(self, contestant: str, case: str, *, is_limit: bool = False, remark: str = "") -> Row:
        """That row, made where it is not there yet."""
        for row in self.rows:
            if (row.contestant, row.case) == (contestant, case):
                return row
        self.rows.append(Row(contestant, case, is_limit=is_limit, remark=remark))
        return self.rows[-1]

    def find(self, contestant: str, case: str, name: str) -> float | None:
        """The median of one figure, or None where it was not measured."""
        for row in self.rows:
            if (row.contestant, row.case) == (contestant, case):
                return row.figure(name)
        return None

    def write(self, folder: Path) -> None:
        """Keep it, figures to four digits: nothing here is more exact than that."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = asdict(self)
        for row in kept["rows"]:
            row["samples"] = {name: [float(f"{one:.4g}") for one in values] for name, values in row["samples"].items()}
        (folder / f"{self.benchmark}.json").write_text(json.dumps(kept, indent=1) + "\n")


def read(folder: Path, names: Iterable[str]) -> dict[str, Result]:
    """Those of the named benchmarks that were run."""
    found = {}
    for name in names:
        file = folder / f"{name}.json"
        if file.exists():
            kept = json.loads(file.read_text())
            kept["machine"] = Machine(**kept["machine"])
            kept["rows"] = [Row(**row) for row in kept["rows"]]
            found[name] = Result(**kept)
    return found
