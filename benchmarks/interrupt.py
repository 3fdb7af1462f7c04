"""How long a person and an agent wait while the worker drains as fast as it can: pause, cancel, draft."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial

from benchmarks.command import CommandFailed, start
from benchmarks.contestants import IMPORTS
from benchmarks.house import House, worker_command
from benchmarks.mail import RECIPIENT, SENDER, text
from benchmarks.relays import best_sink
from benchmarks.results import Result
from benchmarks.run import Run
from benchmarks.timings import spread
from outbox import drafter, operator
from outbox.drafter.intake import Wanted

_BETWEEN = 0.01  # seconds between two tries
_RESUMED = 0.3  # seconds after which it drains again as fast as it can
_UNDER_WAY = 1.5  # seconds after which a worker that was started drains
_LOOKED = 20  # tries between looks at whether there is anything left to drain
_FEWEST = 5  # tries that show anything


def interrupt(run: Run) -> Result:
    """Each verb again and again, in a process of its own, until enough tries are made or the queue is empty."""
    result = run.result("interrupt")
    house = House.build(run.fresh())
    tries, backlog = run.size(200, 5), run.size(60_000, 600)
    house.approved(backlog)
    pending = [one.id for one in house.draft(tries, first=backlog)]
    for repetition in range(run.repetitions):
        run.say(f"interrupt ({repetition + 1})")
        run.note_load(result)
        with best_sink() as relay:
            for interruption in (_draft_and_cancel, _pause):
                copy = house.copy(run.fresh())
                started = start(worker_command(drain=False), environment=copy.environment(port=relay.port) | IMPORTS)
                time.sleep(_UNDER_WAY / (2 if run.quick else 1))
                try:
                    taken = interruption(copy, pending)
                finally:
                    started.kill()
                    shutil.rmtree(copy.folder)
                _add(result, taken)
    return result


def _add(result: Result, taken: dict[str, list[float]]) -> None:
    for verb, seconds in taken.items():
        if len(seconds) < _FEWEST:
            raise CommandFailed(f"the queue was empty after {len(seconds)} tries of {verb}: that shows nothing")
        result.row(verb, "full drain").add(**spread(seconds), tries=len(seconds))


def _timed(taken: list[float], call: Callable[[], object]) -> None:
    began = time.monotonic()
    call()
    taken.append(time.monotonic() - began)


def _is_over(house: House, tried: int) -> bool:
    return tried % _LOOKED == 0 and not house.count("approved")


def _draft_and_cancel(house: House, pending: list[str]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {"draft": [], "cancel": []}
    wanted = Wanted(sender=SENDER, to=(RECIPIENT,), subject="Offer", text=text())
    with drafter.open(house.settings) as agent, operator.open(house.settings) as desk:
        for tried, draft_id in enumerate(pending):
            if _is_over(house, tried):
                break
            _timed(taken["draft"], lambda: agent.draft(wanted))
            _timed(taken["cancel"], partial(desk.cancel, draft_id))
            time.sleep(_BETWEEN)
    return taken


def _pause(house: House, pending: list[str]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {"pause": []}
    with operator.open(house.settings) as desk:
        for tried in range(min(len(pending), 50)):
            if _is_over(house, tried):
                break
            _timed(taken["pause"], lambda: desk.pause(reason="a benchmark"))
            desk.resume()
            time.sleep(_RESUMED)
    return taken
