"""Which settings are django-post-office's and huey's best in one process, so that they compete at them."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.contest import contest
from benchmarks.contestants import Contestant, huey, post_office_at_its_best
from benchmarks.relays import best_sink
from benchmarks.results import Result
from benchmarks.run import Run

BATCHES = (100, 1000, 5000)
THREADS = (1, 2, 3, 5, 10, 20)


def tune(run: Run) -> Result:
    """Every batch size with every number of threads; and huey's threads."""
    result = run.result("tune")
    count = run.size(5000, 100)
    contestants: list[Contestant] = []
    for threads in THREADS[: 2 if run.quick else None]:
        for batch in BATCHES[: 2 if run.quick else None]:
            one = post_office_at_its_best(threads=threads, batch=batch)
            contestants.append(replace(one, name=f"django-post-office, BATCH_SIZE {batch}, {threads} threads"))
        contestants.append(replace(huey(threads), name=f"huey, {threads} threads"))
    contest(run, result, str(count), contestants, count, best_sink)
    return result
