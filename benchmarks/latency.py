"""How long it takes from an approval to the relay's acceptance, with a worker that otherwise has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.command import start
from benchmarks.contestants import IMPORTS
from benchmarks.house import House, worker_command
from benchmarks.relays import NotOnce, OwnSink
from benchmarks.results import Result
from benchmarks.run import Run
from benchmarks.timings import spread
from outbox import operator

RATES = (1, 10, 100)  # approvals a second
_SETTLED = 3.0  # seconds for the worker to have started, and to have nothing to do
_PATIENCE = 30.0  # seconds for the last to be accepted


def latency(run: Run) -> Result:
    """Approvals at a steady rate, by the operator's desk: from when it is asked, which is before its commit."""
    result = run.result("latency")
    for rate in RATES:
        count = max(run.size(20 * rate, 2 * rate), run.size(60, 3))
        house = House.build(run.fresh())
        ids = [one.id for one in house.draft(count)]
        with OwnSink() as relay:
            worker = start(worker_command(drain=False), environment=house.environment(port=relay.port) | IMPORTS)
            try:
                time.sleep(_SETTLED)
                for repetition in range(run.repetitions if rate > 1 else 1):
                    part = ids[repetition * count // run.repetitions : (repetition + 1) * count // run.repetitions]
                    run.say(f"latency: {rate}/s ({repetition + 1})")
                    run.note_load(result)
                    _measure(result, house, relay, part if rate > 1 else ids, rate)
            finally:
                worker.stop()
    return result


def _measure(result: Result, house: House, relay: OwnSink, ids: Sequence[str], rate: int) -> None:
    since, asked, stored = relay.count, [], []
    with operator.open(house.settings, verdicts=True) as desk:
        began = time.monotonic()
        for place, draft_id in enumerate(ids):
            time.sleep(max(0.0, began + place / rate - time.monotonic()))
            asked.append(time.monotonic())
            desk.approve(draft_id, named=None)
            stored.append(time.monotonic())
    until = time.monotonic() + _PATIENCE
    while relay.count < since + len(ids) and time.monotonic() < until:
        time.sleep(0.01)
    accepted = sorted(relay.acceptances(since), key=lambda one: one.number)
    if len(accepted) != len(ids):
        raise NotOnce(f"of {len(ids)} approved {len(accepted)} were accepted")
    seconds = [one.at - at for one, at in zip(accepted, asked, strict=True)]
    case = f"{rate}/s"
    result.row("approval to acceptance", case).add(**spread(seconds))
    taken = [after - before for after, before in zip(stored, asked, strict=True)]
    result.row("of that, the approval itself", case, remark="verify, commit, read back").add(**spread(taken))
