"""Where a drain spends its time: py-spy looks at every thread, and only at the one that holds the interpreter."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

from benchmarks import command
from benchmarks.command import CommandFailed
from benchmarks.contestants import IMPORTS, Outbox
from benchmarks.house import House, worker_command
from benchmarks.relays import best_sink
from benchmarks.results import Result
from benchmarks.run import Run

_RATE = 400  # looks a second
_SHOWN = 20


def profile(run: Run) -> Result:
    """The functions that the time is spent in, and those that it is spent under, in percent."""
    result = run.result("profile")
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise CommandFailed("py-spy is not installed (benchmarks/peers.txt)")
    contestant = Outbox()
    contestant.prepare(run, run.size(5000, 200))
    folder, kept = contestant.fresh(run), run.fresh()
    run.note_load(result)
    with best_sink() as relay:
        environment = House(folder).environment(port=relay.port) | IMPORTS
        words = [spy, "record", "--gil", "--function", "--rate", str(_RATE), "--format", "raw", "--output", str(kept)]
        command.run([*words, "--", *worker_command()], environment=environment)
    _count(result, kept.read_text())
    return result


def _count(result: Result, raw: str) -> None:
    """Lines are stacks, outermost first, with frames between semicolons, and how often each was seen."""
    itself: Counter[str] = Counter()
    under: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, looks = line.rpartition(" ")
        frames = stack.split(";")
        itself[frames[-1]] += int(looks)
        under.update(dict.fromkeys(frames, int(looks)))
    total = max(1, itself.total())
    for case, counted in (("itself", itself), ("with what it calls", under)):
        ours = counted if case == "itself" else Counter({name: n for name, n in counted.items() if "outbox/" in name})
        for name, seen in ours.most_common(_SHOWN):
            result.row(name, case).add(percent=seen / total * 100)
