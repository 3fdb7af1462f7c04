"""How fast a full queue is drained: near, far away, on a slow disk, and with a long one behind it."""

from __future__ import annotations

from benchmarks.contest import contest
from benchmarks.contestants import (
    Contestant,
    Outbox,
    OutboxOnPostgres,
    SmtpSource,
    huey,
    mailer,
    plain,
    post_office_as_shipped,
    post_office_at_its_best,
    procrastinate,
)
from benchmarks.machine import commits_per_second, syncs_per_second
from benchmarks.relays import OwnSink, best_sink, smtp_program
from benchmarks.results import Result
from benchmarks.run import Run
from benchmarks.shim import slow_disk

FAR = 0.05  # seconds until what is sent to a relay is answered
SLOW_DOT = 0.02
FAR_LANES = (1, 10, 50)
DOT_LANES = (10, 50, 100)
SLOW_DISK = 2000  # microseconds that an fsync takes


def drain(run: Run) -> Result:
    """Everybody drains the same queue into the same sink."""
    result = run.result("drain")
    count = run.size(5000, 200)
    contestants: list[Contestant] = [
        Outbox(),
        Outbox(lanes=100, label="outbox, 100 lanes"),
        Outbox(workers=2),
        OutboxOnPostgres(),
        OutboxOnPostgres(workers=2),
        post_office_as_shipped(),
        post_office_at_its_best(),
        post_office_at_its_best(processes=2),
        mailer(),
        huey(),
        procrastinate(),
        plain(),
        plain(compose=True),
    ]
    if smtp_program("smtp-source") is not None:
        contestants.append(SmtpSource())
    contest(run, result, str(count), contestants, count, best_sink)
    limits(run, result)
    return result


def limits(run: Run, result: Result) -> None:
    """What the disk can do at most, once for each repetition."""
    for _ in range(run.repetitions):
        row = result.row("fdatasync of 4 KB", "disk", is_limit=True)
        row.add(per_second=syncs_per_second(run.folder, 0.2 if run.quick else 1.0))
        row = result.row("one-row commits of SQLite", "disk", is_limit=True)
        row.add(per_second=commits_per_second(run.folder, 0.2 if run.quick else 1.0))


def backlog(run: Run) -> Result:
    """A queue of 5,000 against one of 100,000."""
    result = run.result("backlog")
    short, long = run.size(5000, 100), run.size(100_000, 400)
    for count in (short, long):
        contest(run, result, str(count), [Outbox()], count, best_sink)
    contest(run, result, str(long), [post_office_as_shipped()], long, best_sink, repetitions=1)
    limits(run, result)
    return result


def far(run: Run) -> Result:
    """A relay that is 50 ms away, with as many connections for each."""
    result = run.result("far")
    for lanes in FAR_LANES[: 2 if run.quick else None]:
        count = lanes * run.size(40, 2)
        contestants = [Outbox(lanes=lanes), plain(lanes), *_with_threads(lanes)]
        contest(run, result, str(lanes), contestants, count, lambda: OwnSink(reply_delay=FAR))
    return result


def dot(run: Run) -> Result:
    """A relay that takes 20 ms to answer the dot."""
    result = run.result("dot")
    for lanes in DOT_LANES[: 1 if run.quick else None]:
        count = lanes * run.size(200, 4)
        contestants = [Outbox(lanes=lanes), plain(lanes), *(_with_threads(lanes) if lanes <= 50 else [])]
        contest(run, result, str(lanes), contestants, count, lambda: OwnSink(dot_delay=SLOW_DOT))
    return result


def _with_threads(threads: int) -> list[Contestant]:
    return [post_office_at_its_best(threads=threads), huey(threads)]


def slow(run: Run) -> Result:
    """A disk whose fsync takes 2 ms more, beside what it can commit one at a time."""
    result = run.result("slow")
    count = run.size(5000, 100)
    with slow_disk(SLOW_DISK) as environment:
        contestants: list[Contestant] = [
            Outbox(environment=environment),
            Outbox(lanes=100, label="outbox, 100 lanes", environment=environment),
            Outbox(lanes=1, label="outbox, one lane", environment=environment),
        ]
        contest(run, result, "2 ms", contestants, count, best_sink)
        for _ in range(run.repetitions):
            row = result.row("one-row commits of SQLite", "2 ms", is_limit=True)
            row.add(per_second=_commits(run, environment))
    return result


def _commits(run: Run, environment: dict[str, str]) -> float:
    """As many as that disk commits in a second, measured in a process that has it."""
    import os
    import subprocess
    import sys

    seconds = 0.2 if run.quick else 1.0
    code = (
        "import sys; from pathlib import Path; from benchmarks.machine import commits_per_second as measured; "
        "print(measured(Path(sys.argv[1]), float(sys.argv[2])))"
    )
    words = [sys.executable, "-c", code, str(run.folder), str(seconds)]
    from benchmarks.contestants import IMPORTS

    done = subprocess.run(words, env={**os.environ, **environment, **IMPORTS}, capture_output=True, check=True)
    return float(done.stdout)
