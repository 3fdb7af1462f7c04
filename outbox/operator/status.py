"""How it stands: figures, workers, and what is wrong now."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from outbox.clock import Clock, wall
from outbox.config import Settings
from outbox.core.draft import DAY, MICROSECONDS
from outbox.core.errors import Code, OutboxError
from outbox.core.finding import one_line
from outbox.core.lifecycle import Gate, Room, State
from outbox.ledger import NAME
from outbox.ledger_id import known_ledger_id
from outbox.lock import is_alive, living
from outbox.state_file import read_state
from outbox.store.figures import (
    Heating,
    Paused,
    WorkerRow,
    count_in_doubt,
    counts_by_state,
    heating,
    needs_ledger,
    oldest_approved,
    standing_pause,
    tampered_since,
    working,
)
from outbox.store.looking import REVISION, Look, looking
from outbox.store.server import Server
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
    pause: Paused | None
    switch: str | None
    alerts: tuple[OpenAlert, ...]
    thermal: Heating
    thermal_system: Heating
    workers: tuple[WorkerView, ...]
    revision: str


def status(settings: Settings, *, clock: Clock = wall) -> Status:
    """Look at everything once. Raises ConfigError or Unavailable where the database is not as needed."""
    now = clock()
    switch = Switches(settings.state_dir, by_environment=settings.is_paused).thrown()
    limits, system_limits = settings.thermal, settings.thermal.system
    with looking(settings.database_place) as look:
        workers = _workers(settings, look)
        in_doubt = count_in_doubt(look)
        thermal = heating(look, Gate.MAIL, count=limits.count, window=limits.window, now=now)
        tampered = tampered_since(look, [code.value for code in _TAMPERED], now - _LATELY)
        waits = oldest_approved(look)
        alerts = (
            *_in_doubt(in_doubt),
            *_dead(workers),
            *_tripped(thermal),
            *_unattended(waits, workers, now),
            *(OpenAlert(Code(code), words) for _, code, words in tampered),
            *_told_by_rooms(settings.state_dir),
            *_ledger(settings, is_needed=needs_ledger(look)),
        )
        return Status(
            states=counts_by_state(look),
            in_doubt=in_doubt,
            oldest_approved=waits,
            pause=standing_pause(look),
            switch=switch,
            alerts=alerts,
            thermal=thermal,
            thermal_system=heating(look, Gate.SYSTEM, count=system_limits.count, window=system_limits.window, now=now),
            workers=workers,
            revision=REVISION,
        )


def _workers(settings: Settings, look: Look) -> tuple[WorkerView, ...]:
    rows = working(look)
    if not isinstance(settings.database_place, Server):
        return tuple(_view(row, lives=_lives(settings, row)) for row in rows)
    from outbox.store.presence import HELD, key_of

    own, held = known_ledger_id(settings.state_dir), {int(key) for (key,) in look(HELD, {})}
    return tuple(
        _view(
            row,
            lives=_lives(settings, row) if row.ledger in (None, own) else not row.visible or key_of(row.id) in held,
        )
        for row in rows
    )


def _lives(settings: Settings, row: WorkerRow) -> bool:
    alive = is_alive(settings.state_dir, row.id, bury=False)
    return row.host != socket.gethostname() if alive is None else alive


def _view(row: WorkerRow, *, lives: bool) -> WorkerView:
    return WorkerView(row.id, row.host, row.pid, row.started_at, row.last_seen, lives)


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


def _ledger(settings: Settings, *, is_needed: bool) -> Iterator[OpenAlert]:
    """Whether a worker would refuse to start, where this user can see that; one that lives here has not refused.

    Of a ledger its newest lines are looked at: `outbox doctor` and the worker read all of it.
    """
    is_new = not is_needed and not (settings.state_dir / NAME).exists()
    if is_new or not settings.has_key("grant") or living(settings.state_dir):
        return
    from outbox.agreement import disagreement
    from outbox.store.engine import connect

    with closing(connect(settings.database_place, Room.OPERATOR)) as database:
        try:
            ring = settings.record_ring("grant")
            why: OutboxError | None = disagreement(settings.state_dir, ring, database, at_a_glance=True)
        except OutboxError as error:
            why = error
    if why is not None:
        yield OpenAlert(why.code, why.message)
