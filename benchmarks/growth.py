"""What gets slower as the record grows: every draft in it was drafted, approved and sent for real."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from benchmarks import command
from benchmarks.contestants import IMPORTS
from benchmarks.house import House, worker_command
from benchmarks.mail import RECIPIENT, SENDER, text
from benchmarks.relays import best_sink
from benchmarks.results import Result
from benchmarks.run import Run
from benchmarks.timings import spread
from outbox import drafter
from outbox.clock import new_id, wall
from outbox.core.lifecycle import Gate, Room
from outbox.drafter.intake import Wanted
from outbox.store.claims import claim_if_cool, insert_worker
from outbox.store.heat import Heat

SIZES = (1_000, 100_000, 1_000_000)
HUGE = 10_000_000
QUICK = (100, 300)
_LIMITLESS = Heat(Gate.MAIL, 1_000_000, 900, 300)
_TOGETHER = 100_000  # drafts made at once
_LANES = 50


def growth(run: Run) -> Result:
    """One database that grows; each verb is tried at each size."""
    result = run.result("growth")
    house = House.build(run.fresh())
    there = 0
    for size in (*(QUICK if run.quick else SIZES), *([HUGE] if run.huge and not run.quick else [])):
        while there < size:
            part = min(size - there, _TOGETHER)
            run.say(f"growth: {there + part} of {size}")
            house.approved(part, first=there)
            _send(house)
            there += part
        run.note_load(result)
        _measure(run, result, house, size)
    return result


def _send(house: House) -> None:
    """Send what is approved. The window is short, and old claims are let go at once: what is measured is growth."""
    with best_sink() as relay:
        more = {"OUTBOX_THERMAL__WINDOW": "1", "OUTBOX_RELAY__RETRY": "[0]"} | IMPORTS
        command.run(worker_command(), environment=house.environment(port=relay.port, lanes=_LANES) | more)


def _measure(run: Run, result: Result, house: House, size: int) -> None:
    tries, case = run.size(500, 10), str(size)
    house.approved(tries, first=size)
    result.row("claim", case).add(**spread(claims(house, tries)))
    result.row("draft", case).add(**spread(_drafts(house, tries)))
    result.row("outbox list", case).add(**spread(_commands(house, run, "list")))
    result.row("outbox status", case).add(**spread(_commands(house, run, "status")))
    waits: list[float] = []
    ended = threading.Event()
    watcher = threading.Thread(target=_wait_for_lock, args=(house, waits, ended))
    watcher.start()
    began = time.monotonic()
    _outbox(house, "prune", "--older-than", "1s")
    taken = time.monotonic() - began
    ended.set()
    watcher.join()
    result.row("outbox prune", case, remark="what another writer waits meanwhile").add(seconds=taken, **spread(waits))
    result.row("the database", case).add(mb=house.database.stat().st_size / 1e6)


def claims(house: House, tries: int, together: int = 1) -> list[float]:
    """Seconds that each of `tries` transactions took which claimed so many drafts."""
    worker_id, taken = new_id(wall()), []
    with house.writing(Room.WORKER) as write:
        write(lambda tx: insert_worker(tx, worker_id, host=socket.gethostname(), pid=os.getpid(), now=wall()))
        for _ in range(tries):
            ids = [new_id(wall()) for _ in range(together)]
            began = time.monotonic()
            write(partial(claim_if_cool, heat=_LIMITLESS, worker_id=worker_id, attempt_ids=ids, now=wall()))
            taken.append(time.monotonic() - began)
    return taken


def _drafts(house: House, tries: int) -> list[float]:
    taken = []
    wanted = Wanted(sender=SENDER, to=(RECIPIENT,), subject="Offer", text=text())
    with drafter.open(house.settings) as room:
        for _ in range(tries):
            began = time.monotonic()
            room.draft(wanted)
            taken.append(time.monotonic() - began)
    return taken


def _commands(house: House, run: Run, *words: str) -> list[float]:
    """The whole process, from exec to exit."""
    return [_timed(lambda: _outbox(house, *words)) for _ in range(run.size(20, 2))]


def _timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def _outbox(house: House, *words: str) -> None:
    environment = house.environment(port=1) | IMPORTS
    started = command.start([sys.executable, "-P", "-m", "outbox", *words], environment=environment)
    started.wait(codes=(0, 1))  # status ends with 1 where something is amiss: claims were left open on purpose


def _wait_for_lock(house: House, waits: list[float], ended: threading.Event) -> None:
    with closing(sqlite3.connect(house.database, isolation_level=None, timeout=30)) as connection:
        while not ended.wait(0.005) or not waits:
            began = time.monotonic()
            connection.execute("BEGIN IMMEDIATE")
            waits.append(time.monotonic() - began)
            connection.execute("ROLLBACK")
