"""`python -m benchmarks [NAMES] [--quick] [--huge] [--out DIR]`, and `python -m benchmarks report [--out DIR]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import results
from benchmarks.command import CommandFailed
from benchmarks.drafting import drafting
from benchmarks.drain import backlog, dot, drain, far, slow
from benchmarks.growth import growth
from benchmarks.idle import idle
from benchmarks.interrupt import interrupt
from benchmarks.kills import kills
from benchmarks.latency import latency
from benchmarks.postgres import NoPostgres
from benchmarks.profiling import profile
from benchmarks.relays import NotOnce
from benchmarks.results import Result
from benchmarks.run import REPETITIONS, Run
from benchmarks.scale import scale
from benchmarks.tune import tune
from benchmarks.verdicts import lines, table
from outbox.core.errors import OutboxError

BENCHMARKS: dict[str, Callable[[Run], Result]] = {
    "drain": drain,
    "backlog": backlog,
    "slow": slow,
    "far": far,
    "dot": dot,
    "kills": kills,
    "latency": latency,
    "interrupt": interrupt,
    "drafting": drafting,
    "growth": growth,
    "scale": scale,
    "idle": idle,
    "profile": profile,
}
ON_REQUEST: dict[str, Callable[[Run], Result]] = {"tune": tune}
QUICK = Path(".bench-quick")
DOCS = Path(__file__).parents[1] / "docs"


def main() -> int:
    """Run what is named, everything if nothing is; say how each line of "done when" stands."""
    told = _arguments()
    for name in [name for name in os.environ if name.startswith("OUTBOX_")]:
        del os.environ[name]  # a developer's own outbox is not this one
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else what was changed last would be compiled at each start
    folder = told.out or (QUICK if told.quick else results.KEPT)
    if told.names == ["report"]:
        write_docs(folder)
        return 0
    known = BENCHMARKS | ON_REQUEST
    with Run(quick=told.quick, huge=told.huge, repetitions=told.repeat or (1 if told.quick else REPETITIONS)) as run:
        for name in told.names or BENCHMARKS:
            try:
                result = known[name](run)
            except (CommandFailed, NoPostgres, NotOnce, OutboxError) as error:
                result = run.result(name)
                result.failed.append(f"it ended early: {error}")
            result.write(folder)
            for words in result.failed:
                print(f"benchmarks: {name}: {words}", file=sys.stderr)
    if folder == results.KEPT:
        write_docs(folder)
    found = lines(results.read(folder, BENCHMARKS))
    print(table([line for line in found if not told.names or line.found is not None] or found))
    return 0


def write_docs(folder: Path) -> None:
    """Write docs/benchmarks.md and its plots; what draws them is imported here."""
    from benchmarks.report import write

    write(folder, DOCS)


def _arguments() -> argparse.Namespace:
    names = [*BENCHMARKS, *ON_REQUEST, "report"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; all but tune if none: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small, once: whether it runs, not how fast it is")
    parser.add_argument("--huge", action="store_true", help="growth up to 10,000,000 drafts")
    parser.add_argument("--repeat", type=int, help=f"repetitions of each; {REPETITIONS} if not said")
    parser.add_argument("--out", type=Path, help="where results are kept")
    told = parser.parse_args()
    unknown = set(told.names) - set(names)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    return told


if __name__ == "__main__":
    sys.exit(main())
