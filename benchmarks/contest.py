"""The one way in which contestants are compared: each checked once to do the job, then timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.command import CommandFailed, Cost, cpu_of_tree
from benchmarks.contestants import Contestant, OutboxOnPostgres, Procrastinate
from benchmarks.postgres import NoPostgres
from benchmarks.relays import Acceptance, NotOnce, OwnSink, Sink, refuse_other_than_once
from benchmarks.results import Result, Row
from benchmarks.run import Run
from outbox.core.errors import OutboxError

MEASURED = (0.1, 0.9)  # of the messages: between these the rate at the sink is a steady one


def contest(
    run: Run,
    result: Result,
    case: str,
    contestants: Sequence[Contestant],
    count: int,
    sink: Callable[[], Sink],
    *,
    repetitions: int | None = None,
) -> None:
    """Let each drain `count` mails; who cannot is written down, and left out."""
    counts = isinstance(sink(), OwnSink)  # then every drain is checked, and none need be in vain
    able = [one for one in contestants if _prepared(run, result, case, one, count, checked=counts)]
    for repetition in range(run.repetitions if repetitions is None else repetitions):
        for one in able if repetition % 2 == 0 else reversed(able):
            run.say(f"{result.benchmark}: {case}: {one.name} ({repetition + 1})")
            run.note_load(result)
            try:
                _measure(run, result, case, one, count, sink)
            except (CommandFailed, NotOnce) as error:
                result.failed.append(f"{one.name}, {case}: {error}")


def _prepared(run: Run, result: Result, case: str, one: Contestant, count: int, *, checked: bool) -> bool:
    """Fill its queue; unless it is checked later, see that it does the job: our sink gets each mail exactly once."""
    run.say(f"{result.benchmark}: {case}: {one.name} is prepared")
    try:
        one.prepare(run, count)
        if one.checked and not checked:
            with OwnSink() as relay:
                one.drain(run, relay.port)
                refuse_other_than_once(relay, count)
    except (CommandFailed, NotOnce, NoPostgres, OutboxError) as error:
        result.failed.append(f"{one.name}, {case}: {error}")
        return False
    return True


def _measure(run: Run, result: Result, case: str, one: Contestant, count: int, sink: Callable[[], Sink]) -> None:
    row = result.row(one.name, case, remark=one.remark)
    server = run.postgres.pid if isinstance(one, Procrastinate | OutboxOnPostgres) else None
    before = cpu_of_tree(server) if server is not None else 0.0
    with sink() as relay:
        cost = one.drain(run, relay.port)
        if isinstance(relay, OwnSink) and one.checked:
            refuse_other_than_once(relay, count)
            row.add(steady_per_second=steady_rate(relay.acceptances()))
        _add(row, cost, count)
        if server is not None:
            row.add(server_cpu_per_1000=(cpu_of_tree(server) - before) / count * 1000)


def _add(row: Row, cost: Cost, count: int) -> None:
    row.add(
        per_second=count / cost.wall,
        seconds=cost.wall,
        cpu_per_1000=cost.cpu / count * 1000,
        peak_mb=cost.peak,
        early_mb=cost.early,
        late_mb=cost.late,
    )


def steady_rate(accepted: Sequence[Acceptance]) -> float:
    """Messages a second at the sink, once it is under way and before it runs out."""
    first, last = (int(len(accepted) * part) for part in MEASURED)
    if last - first < 2:
        first, last = 0, len(accepted) - 1
    return (last - first) / max(accepted[last].at - accepted[first].at, 1e-9)
