"""How it stands: figures, workers, and what is wrong now."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outbox.agreement import disagreement
from outbox.clock import Clock
from outbox.config import Settings
from outbox.core.draft import DAY, MICROSECONDS
from outbox.core.errors import Code, OutboxError
from outbox.core.finding import one_line
from outbox.core.lifecycle import Gate, Room, State
from outbox.lock import is_alive
from outbox.sections import GateSettings
from outbox.state_file import read_state
from outbox.store.engine import Database
from outbox.store.figures import (
    WorkerRow,
    count_in_doubt,
    counts_by_state,
    oldest_approved,
    tampered_since,
    working,
)
from outbox.store.heat import Heat, Heating, heating
from outbox.store.pause import Pause, standing_pause
from outbox.store.schema import REVISION
from outbox.switches import Switches

_TAMPERED = [
    Code.ROW_UNREADABLE, Code.DIGEST_MISMATCH, Code.SIGNATURE_INVALID, Code.GRANT_MISSING, Code.GRANT_INVALID,
    Code.SYSTEM_RECIPIENT, Code.POSSIBLY_SENT,
]  # fmt: skip
_LATELY = DAY * MICROSECONDS
_PATIENCE = 300 * MICROSECONDS  # for a worker to come


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """Something that is wrong now: a stable code, and words for people."""

    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker that has not said goodbye; instants in microseconds UTC."""

    id: str
    host: str
    pid: int
    started_at: int
    last_seen: int
    is_alive: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What `outbox status` says. System drafts are left out of `states`."""

    states: dict[State, int]
    in_doubt: int
    oldest_approved: int | None
    pause: Pause | None
    switch: str | None
    alerts: tuple[OpenAlert, ...]
    thermal: Heating
    thermal_system: Heating
    workers: tuple[WorkerView, ...]
    revision: str


def status(settings: Settings, database: Database, *, clock: Clock) -> Status:
    """Look at everything once."""
    now = clock()
    switch = Switches(settings.state_dir, by_environment=settings.is_paused).thrown()
    with database.reading() as connection:
        workers = tuple(_worker(settings, row) for row in working(connection))
        in_doubt = count_in_doubt(connection)
        thermal = heating(connection, _heat(Gate.MAIL, settings.thermal), now=now)
        tampered = tampered_since(connection, [code.value for code in _TAMPERED], now - _LATELY)
        waits = oldest_approved(connection)
        alerts = (
            *_in_doubt(in_doubt),
            *_dead(workers),
            *_tripped(thermal),
            *_unattended(waits, workers, now),
            *(OpenAlert(Code(code), words) for _, code, words in tampered),
            *_told_by_rooms(settings.state_dir),
            *_ledger(settings, database),
        )
        return Status(
            states=counts_by_state(connection),
            in_doubt=in_doubt,
            oldest_approved=waits,
            pause=standing_pause(connection),
            switch=switch,
            alerts=alerts,
            thermal=thermal,
            thermal_system=heating(connection, _heat(Gate.SYSTEM, settings.thermal.system), now=now),
            workers=workers,
            revision=REVISION,
        )


def _worker(settings: Settings, row: WorkerRow) -> WorkerView:
    alive = is_alive(settings.state_dir, row.id, bury=False)
    lives = row.host != socket.gethostname() if alive is None else alive
    return WorkerView(row.id, row.host, row.pid, row.started_at, row.last_seen, lives)


def _heat(gate: Gate, limits: GateSettings) -> Heat:
    return Heat(gate, limits.count, limits.window, limits.cooldown)


def _in_doubt(number: int) -> Iterator[OpenAlert]:
    if number:
        what = "1 draft is" if number == 1 else f"{number} drafts are"
        yield OpenAlert(Code.IN_DOUBT, f"{what} in doubt; `outbox reconcile` shows what is known")


def _dead(workers: tuple[WorkerView, ...]) -> Iterator[OpenAlert]:
    for worker in workers:
        if not worker.is_alive:
            words = f"worker {worker.id} (pid {worker.pid}) died, and no worker has come since to look after it"
            yield OpenAlert(Code.WORKER_DEAD, words)


def _unattended(waits: int | None, workers: tuple[WorkerView, ...], now: int) -> Iterator[OpenAlert]:
    if waits is not None and now - waits > _PATIENCE and not any(worker.is_alive for worker in workers):
        yield OpenAlert(Code.NO_WORKER, "approved drafts wait, and no worker runs; `outbox worker` sends them")


def _tripped(thermal: Heating) -> Iterator[OpenAlert]:
    if thermal.is_open:
        yield OpenAlert(Code.THERMAL, f"the thermal cutout is open: {thermal.used} of {thermal.limit} places are taken")


def _told_by_rooms(state_dir: Path) -> Iterator[OpenAlert]:
    """What the rooms' state files say is wrong for as long as it lasts."""
    for room in (Room.WORKER, Room.INBOX):
        said = read_state(state_dir / f"{room}.json").get("open")
        for one in said if isinstance(said, list) else []:
            try:
                yield OpenAlert(Code(one["code"]), one_line(one["message"]))
            except (KeyError, TypeError, ValueError, AttributeError):
                continue


def _ledger(settings: Settings, database: Database) -> Iterator[OpenAlert]:
    """Whether a worker would refuse to start, where this user can see that."""
    if not settings.has_key("grant"):
        return
    try:
        why: OutboxError | None = disagreement(settings.state_dir, settings.record_ring("grant"), database)
    except OutboxError as error:
        why = error
    if why is not None:
        yield OpenAlert(why.code, why.message)
