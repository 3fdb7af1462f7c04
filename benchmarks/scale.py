"""Several workers on one PostgreSQL, with a relay that is slow: as many times faster as there are workers?"""

from __future__ import annotations

from benchmarks.contest import contest
from benchmarks.contestants import OutboxOnPostgres
from benchmarks.growth import claims
from benchmarks.house import House
from benchmarks.relays import OwnSink
from benchmarks.results import Result
from benchmarks.run import Run
from benchmarks.timings import spread

WORKERS = (1, 2, 4, 8)
SLOW = 0.1  # seconds for each reply, those of a pipelined group together
_LANES = 10


def scale(run: Run) -> Result:
    """1, 2, 4 and 8 workers with 10 lanes each."""
    result = run.result("scale")
    for workers in WORKERS[: 2 if run.quick else None]:
        count = workers * _LANES * run.size(50, 3)
        contest(
            run,
            result,
            str(workers),
            [OutboxOnPostgres(lanes=_LANES, workers=workers)],
            count,
            lambda: OwnSink(reply_delay=SLOW),
        )
    held = result.row("a claim of ten, with its COMMIT", "the gate is locked")
    for _ in range(run.repetitions):
        held.add(**spread(claims(_queue(run), run.size(100, 5), _LANES)))
    return result


def _queue(run: Run) -> House:
    """A database of its own, with enough to claim."""
    one = OutboxOnPostgres()
    one.prepare(run, run.size(100, 5) * _LANES)
    return House(one.fresh(run))
