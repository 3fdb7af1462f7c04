"""kill -9 in mid-drain, again and again: what came twice, what never came, and what a person had to do."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import CommandFailed, Started
from benchmarks.contestants import (
    Contestant,
    Outbox,
    huey,
    mailer,
    post_office_as_shipped,
    post_office_at_its_best,
    procrastinate,
)
from benchmarks.postgres import NoPostgres
from benchmarks.relays import OwnSink
from benchmarks.results import Result
from benchmarks.run import Run

KILLS = 20
_LOOKED = 0.002  # seconds between looks at the sink
_BOUND = 120.0  # seconds for a drain to get under way
_MOST_DRAINS = 6  # at the end, until nothing more comes
_SEED = 5


@dataclass(slots=True)
class Steps:
    """What a person had to do before it went on, and the most that one kill left in doubt."""

    manual: int = 0
    in_doubt: int = 0


def kills(run: Run) -> Result:
    """The same kills for each: after a random number of messages, the same for all."""
    result = run.result("kills")
    count, number = run.size(5000, 200), run.size(KILLS, 3)
    contestants: list[Contestant] = [
        Outbox(environment={"OUTBOX_RELAY__RETRY": "[1]"}),
        post_office_as_shipped(),
        post_office_at_its_best(),
        mailer(),
        huey(),
        procrastinate(),
    ]
    for one in contestants[: 2 if run.quick else None]:
        run.say(f"kills: {one.name}")
        run.note_load(result)
        try:
            _kill(run, result, one, count, number)
        except (CommandFailed, NoPostgres) as error:
            result.failed.append(f"{one.name}: {error}")
    return result


def _kill(run: Run, result: Result, one: Contestant, count: int, number: int) -> None:
    dice = random.Random(_SEED)
    one.prepare(run, count)
    folder = one.fresh(run)
    steps = Steps()
    with OwnSink() as relay:
        killed = 0
        for _ in range(number):
            wanted = int(count / (number + 5) * dice.uniform(0.2, 1.8)) + 1
            before = one.in_doubt(folder)
            killed += _once(one, folder, relay, wanted, steps)
            steps.in_doubt = max(steps.in_doubt, one.in_doubt(folder) - before)
        for _ in range(_MOST_DRAINS):
            _drain(one, folder, relay, steps)
            if not one.waiting(folder):
                break
            time.sleep(2)  # what was let go waits for its time
        numbers = relay.numbers()
    in_doubt, waiting = one.in_doubt(folder), one.waiting(folder)
    result.row(one.name, f"{number} kills", remark=one.remark).add(
        kills=killed,
        duplicates=sum(numbers.values()) - len(numbers),
        silent_losses=max(0, count - len(numbers) - in_doubt - waiting),
        in_doubt=in_doubt,
        in_doubt_of_one=steps.in_doubt,
        manual_steps=steps.manual,
        waiting=waiting,
    )


def _once(one: Contestant, folder: Path, relay: OwnSink, wanted: int, steps: Steps) -> int:
    """One start and one kill; 0 where it ended before. A start that does nothing asks for a person first."""
    for _ in range(2):
        before = relay.count
        (started,) = one.start(folder, relay.port)
        _wait(started, relay, before + wanted)
        ended = started.process.poll() is not None
        progressed = relay.count > before
        started.kill()
        if progressed or not ended:
            return int(not ended)
        if not one.mend(folder):
            return 0
        steps.manual += 1
    return 0


def _drain(one: Contestant, folder: Path, relay: OwnSink, steps: Steps) -> None:
    """To its end; once more where a stale lock kept it from beginning."""
    before = relay.count
    (started,) = one.start(folder, relay.port)
    started.wait(codes=range(256))
    if relay.count == before and one.mend(folder):
        steps.manual += 1
        (started,) = one.start(folder, relay.port)
        started.wait(codes=range(256))


def _wait(started: Started, relay: OwnSink, until: int) -> None:
    ends = time.monotonic() + _BOUND
    while relay.count < until and started.process.poll() is None:
        if time.monotonic() > ends:
            started.kill()
            raise CommandFailed(f"{' '.join(started.words)} sends nothing")
        time.sleep(_LOOKED)
