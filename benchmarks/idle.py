"""What a worker costs that has nothing to do, and how long it takes to start."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks import command
from benchmarks.command import cpu_of_tree, memory, start
from benchmarks.contestants import IMPORTS
from benchmarks.house import House, worker_command
from benchmarks.relays import best_sink
from benchmarks.results import Result
from benchmarks.run import Run

_SETTLED = 3.0  # seconds for a worker to have started


def idle(run: Run) -> Result:
    """60 s of nothing, and some starts."""
    result = run.result("idle")
    for repetition in range(run.repetitions):
        run.say(f"idle ({repetition + 1})")
        run.note_load(result)
        house = House.build(run.fresh())
        with best_sink() as relay:
            worker = start(worker_command(drain=False), environment=house.environment(port=relay.port) | IMPORTS)
            time.sleep(_SETTLED)
            _measure(result, worker.process.pid, run.size(60, 3))
            worker.stop()
        for words in (("--version",), ("status",), ("worker", "--drain")):
            for _ in range(run.size(5, 2)):
                cost = command.run(
                    [sys.executable, "-P", "-m", "outbox", *words], environment=house.environment(port=1) | IMPORTS
                )
                result.row(f"outbox {' '.join(words)}", "whole process").add(ms=cost.wall * 1000)
        for _ in range(run.size(5, 2)):
            row = result.row("python -c pass", "whole process", is_limit=True)
            row.add(ms=command.run([sys.executable, "-c", "pass"]).wall * 1000)
    return result


def _measure(result: Result, pid: int, seconds: float) -> None:
    cpu, wakes, written = cpu_of_tree(pid), _wakes(pid), _written(pid)
    time.sleep(seconds)
    result.row("idle worker", f"{seconds:.0f} s").add(
        cpu_percent=(cpu_of_tree(pid) - cpu) / seconds * 100,
        wakes_per_second=(_wakes(pid) - wakes) / seconds,
        written_bytes=_written(pid) - written,
        resident_mb=memory(pid)[0],
    )


def _wakes(pid: int) -> int:
    """How often its threads have slept and woken up."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for line in (thread / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def _written(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes"):
            return int(line.split()[1])
    return 0
