"""The worker's door: claim what can be sent now, send it, stop when told to or when it runs hot."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Collection, Coroutine
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from outbox.agreement import open_ledger
from outbox.alerts import Alerts
from outbox.clock import Clock, ClockWatch, new_id, wall
from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, ConfigError, OutboxError, StateRefused, TryLater, Unavailable
from outbox.core.lifecycle import Gate, Outcome, Room
from outbox.ledger import LedgerRefused
from outbox.lock import WorkerLock
from outbox.outage import Outage
from outbox.overdue import expire_overdue
from outbox.sections import GateSettings
from outbox.store.claims import Claim, Tripped, claim_if_cool, end_worker_once, insert_worker, is_due
from outbox.store.engine import connect
from outbox.store.heat import Heat
from outbox.store.instants import newest_instant_of_workers
from outbox.store.journal import Chain
from outbox.store.pause import standing_pause
from outbox.store.selftest import refuse_untrustworthy
from outbox.store.writer import Writer
from outbox.supervisor import StopSignals, Supervisor
from outbox.switches import Switches
from outbox.transport.outcome import NotSent
from outbox.transport.smtp import SmtpTransport
from outbox.worker.circuit import Circuit
from outbox.worker.ending import Ended
from outbox.worker.lane import Lane
from outbox.worker.recovery import Recovery
from outbox.worker.submission import relay_of
from outbox.worker.verification import Verifier

Result = TypeVar("Result")
log = logging.getLogger("outbox.worker")
POLL = 0.25  # seconds between looks at the database
_SLICE = 1.0  # seconds between signs of life to the supervisor while stopping
SWEEP = 10.0  # seconds between looks for dead workers and overdue drafts


class Worker:
    """Claims approved drafts and sends each at most once. Use as a context manager."""

    def __init__(self, settings: Settings, *, clock: Clock = wall, steady: Clock | None = None) -> None:
        relay = relay_of(settings)
        verifier = Verifier(*settings.rings(), settings.rules(), settings.approvers, settings.operators)
        self._transport = SmtpTransport(relay)
        self._has_login = bool(settings.relay.username) or settings.relay_security != "none"
        self._supervisor = Supervisor(settings.supervision)
        self._clock, self._lanes, self._stop_timeout = clock, settings.relay.lanes, settings.worker.stop_timeout
        if self._stop_timeout < settings.relay.final_timeout:
            words = (
                "worker.stop_timeout is shorter than relay.final_timeout: a stop may leave in doubt what is being sent"
            )
            log.warning(words, extra={"action": "stop-timeout"})
        self._heats = (_heat(Gate.SYSTEM, settings.thermal.system), _heat(Gate.MAIL, settings.thermal))
        self._database = connect(settings.database_path)
        refuse_untrustworthy(self._database)
        self._id = new_id(clock())
        self._lock = WorkerLock(settings.state_dir, self._id)  # before the ledger: a fence looks for it
        with ExitStack() as unless_agreed:
            unless_agreed.callback(self._lock.release)
            self._ledger = open_ledger(settings.state_dir, settings.record_ring("grant"), self._database)
            unless_agreed.pop_all()
        chain = Chain(Room.WORKER, self._id, verifier.grant_ring)
        self._writer = Writer(self._database, chain, self._ledger.append)
        self._switches = Switches(settings.state_dir, by_environment=settings.is_paused)
        self._watch = ClockWatch(clock, steady)
        self._held: TryLater | None = None  # why nothing is claimed, where a person or the clock says so
        self._alerts = Alerts(settings, Room.WORKER, verifier.grant_ring, self._writer, clock)
        self._circuit = Circuit()
        self._outage = Outage(self._alerts, clock, "worker")
        self._tripped: set[str] = set()  # gates that the last look for a draft found open
        self._lane = Lane(
            transport=self._transport,
            verifier=verifier,
            database=self._database,
            writer=self._writer,
            ledger=self._ledger,
            switches=self._switches,
            alerts=self._alerts,
            retry=settings.relay.retry,
            clock=clock,
            watch=self._watch,
            archive=settings.policy.archive,
            return_path=settings.relay.return_path,
        )
        self._recovery = Recovery(
            database=self._database,
            writer=self._writer,
            ledger=self._ledger,
            alerts=self._alerts,
            state_dir=settings.state_dir,
            own_id=self._id,
            release_proven=settings.reconcile.auto_release == "proven",
            retry=settings.relay.retry,
            clock=clock,
        )
        self._writer.run(
            lambda tx: insert_worker(tx, self._id, host=socket.gethostname(), pid=os.getpid(), now=clock())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the room: from here on this worker counts as ended, and what it provably did not send is let go."""
        has_ended = False
        try:
            self._writer.run(lambda tx: end_worker_once(tx, self._id, now=self._clock()))
            has_ended = True
            if self._watch.jumped() is None:
                self._recovery.recover(ended=self._id)
        except OutboxError as error:
            log.warning("%s", error, extra={"action": "close"})
        self._writer.close()
        self._database.close()
        self._ledger.close()
        self._lock.release(keep_file=not has_ended)  # so that others see that it is dead

    def run(self, *, drain: bool = False) -> None:
        """Work until SIGTERM or SIGINT; with `drain`, until nothing is approved and due.

        After a drain, raises TryLater where the thermal cutout left some waiting, Unavailable where the relay refuses
        everything (login, certificate).
        """
        asyncio.run(self._run(drain))

    async def _run(self, drain: bool) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        tasks: dict[asyncio.Task[Ended], str] = {}
        swept = float("-inf")
        with StopSignals(lambda: loop.call_soon_threadsafe(stop.set)):
            try:
                await self._start(drain=drain)
                while not stop.is_set():
                    self._refuse_to_go_on()
                    if loop.time() - swept >= SWEEP:
                        await self._sweep(tasks.values())
                        swept = loop.time()
                    await self._look(tasks, drain=drain)
                    if drain and not tasks:
                        break
                    await self._wait(tasks, stop)
            finally:
                await self._finish(tasks)
        if drain and not stop.is_set():
            self._raise_for_waiting()

    async def _start(self, *, drain: bool) -> None:
        """A worker that stays is not ready before its relay lets it in: a login refused is said at once, by its end."""
        if drain:
            return
        examined = await self._transport.examine() if self._has_login else None
        if isinstance(examined, NotSent) and examined.halt:
            raise ConfigError(Code.RELAY_LOGIN, f"{examined.why}; `outbox doctor --room worker` says more")
        self._supervisor.ready("waiting for approved drafts")

    async def _look(self, tasks: dict[asyncio.Task[Ended], str], *, drain: bool) -> None:
        """Claim what can be sent; where the database fails, a drain ends and the loop tries again, ever more rarely."""
        try:
            await self._fill(tasks)
        except (Unavailable, StateRefused) as error:
            if drain:
                raise
            await self._alive_while(asyncio.to_thread(self._outage.failed, error))
        else:
            if self._outage.words:
                await self._alive_while(asyncio.to_thread(self._outage.worked))
        self._supervisor.alive()
        state = self._held.message if self._held else f"{len(tasks)} being sent"
        self._supervisor.status(state)
        self._alerts.state.write({"state": state, "worker": self._id, "under_way": len(tasks)})

    def _refuse_to_go_on(self) -> None:
        """Raise where others may believe this worker dead, or its ledger is not to be trusted any more."""
        if not self._lock.is_held:  # others let go of what it holds
            raise Unavailable(Code.PRESUMED_DEAD, "this worker's lock file was taken away; start it again")
        if not self._writer.is_alive:
            raise Unavailable(Code.DATABASE_UNAVAILABLE, "the thread that writes has ended; start again")
        self._database.refuse_replaced()
        self._ledger.catch_up()

    async def _fill(self, tasks: dict[asyncio.Task[Ended], str]) -> None:
        """Claim exactly what can be sent now."""
        hold = self._hold()
        if not _is_same(hold, self._held):
            await self._alive_while(asyncio.to_thread(self._note_hold, hold))
        self._held = hold
        while self._held is None and len(tasks) < self._lanes and not self._circuit.is_open:
            claim = await self._claim()
            if claim is None:
                return
            tasks[asyncio.create_task(self._lane.attempt(claim))] = claim.attempt_id

    def _hold(self) -> TryLater | None:
        """Why nothing may be claimed now, where a person or the clock says so."""
        if (thrown := self._switches.thrown()) is not None:
            return TryLater(Code.PAUSED, f"paused: {thrown}; what is approved waits")
        with self._database.reading() as connection:
            pause = standing_pause(connection)
            newest = newest_instant_of_workers(connection)
        if pause is not None:
            return TryLater(Code.PAUSED, f"paused by {pause.by}: {pause.reason}; `outbox resume` ends it")
        if (jump := self._watch.jumped(newest)) is not None:
            return TryLater(Code.CLOCK_JUMPED, f"{jump}; nothing is claimed or expired until that is mended")
        return None

    def _note_hold(self, hold: TryLater | None) -> None:
        before = self._held
        log.warning("%s", hold.message if hold else "it goes on", extra={"action": "hold"})
        if hold is not None and hold.code is Code.CLOCK_JUMPED and (before is None or before.code is not hold.code):
            self._alerts.tell(hold.code, hold.message)

    async def _claim(self) -> Claim | None:
        self._tripped.clear()
        for heat in self._heats:
            now = self._clock()
            with self._database.reading() as connection:
                if not is_due(connection, heat.gate, now=now):
                    continue
            found = await asyncio.wrap_future(
                self._writer.submit(
                    partial(claim_if_cool, heat=heat, worker_id=self._id, attempt_id=new_id(now), now=now)
                )
            )
            if isinstance(found, Claim):
                return found
            if isinstance(found, Tripped):
                self._tripped.add(heat.gate)
                if found.newly:
                    await self._tell_tripped(heat, found.until)
        return None

    async def _tell_tripped(self, heat: Heat, until: int) -> None:
        hour = f"{datetime.fromtimestamp(until // MICROSECONDS, UTC):%H:%M:%S} UTC"
        message = (
            f"thermal cutout: {heat.count} transmissions within {heat.window} s; "
            f"nothing of gate {heat.gate} is sent until {hour} at least"
        )
        await asyncio.to_thread(self._alerts.tell, Code.THERMAL, message, by_mail=heat.gate != Gate.SYSTEM)

    async def _wait(self, tasks: dict[asyncio.Task[Ended], str], stop: asyncio.Event) -> None:
        """Until an attempt ends, a stop is asked for, or it is time to look again: later, where looking fails."""
        stopping = asyncio.create_task(stop.wait())
        timeout = max(POLL, self._outage.pause)
        await asyncio.wait([*tasks, stopping], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in [task for task in tasks if task.done()]:
            del tasks[task]
            await self._note(task)

    async def _note(self, task: asyncio.Task[Ended]) -> None:
        """Learn about the relay from how an attempt ended; what went wrong in recording it does not end the loop."""
        if (error := task.exception()) is not None:
            log.error("an attempt was not recorded", exc_info=error, extra={"action": "attempt"})
            return
        ended = task.result()
        if ended.report.outcome is Outcome.NOT_SENT and not ended.halt:
            return  # nothing was learnt about the relay
        if self._circuit.note(halted=ended.halt):
            message = f"nothing more is claimed for now, the next draft would fare no better: {ended.report.text}"
            await asyncio.to_thread(partial(self._alerts.tell, Code.CIRCUIT_OPEN, message, lasts=True))
        elif not ended.halt:
            self._alerts.over(Code.CIRCUIT_OPEN)

    async def _finish(self, tasks: dict[asyncio.Task[Ended], str]) -> None:
        """Wait for what is under way; what takes longer than `worker.stop_timeout` is aborted where it stands."""
        if not tasks:
            return
        self._supervisor.stopping(f"waiting for {len(tasks)} being sent")
        loop = asyncio.get_running_loop()
        until, late = loop.time() + self._stop_timeout, set(tasks)
        while late and loop.time() < until:
            done, late = await asyncio.wait(late, timeout=min(_SLICE, until - loop.time()))
            self._supervisor.alive()
            for task in done:
                await self._note(task)
        while late:  # again and again: a library below may swallow one cancellation
            for task in late:
                task.cancel()
            _, late = await asyncio.wait(late, timeout=POLL)

    async def _sweep(self, under_way: Collection[str]) -> None:
        """Look after dead workers and overdue drafts: not by a clock that jumped, whose instants would be stored."""
        if self._watch.jumped() is not None:
            return
        try:
            look = partial(self._recovery.recover, under_way=tuple(under_way))
            await self._alive_while(asyncio.to_thread(look))
            await self._alive_while(asyncio.to_thread(self._expire))
        except LedgerRefused:
            raise
        except (OutboxError, OSError) as error:
            log.error("%s", error, extra={"action": "sweep"})

    async def _alive_while(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for what may take long (an alert's command), and go on telling the supervisor that this one lives."""
        task = asyncio.create_task(work)
        while not task.done():
            await asyncio.wait([task], timeout=_SLICE)
            self._supervisor.alive()
        return task.result()

    def _expire(self) -> None:
        expire_overdue(self._database, self._writer, self._alerts, now=self._clock())

    def _raise_for_waiting(self) -> None:
        if self._circuit.is_open:
            raise Unavailable(Code.CIRCUIT_OPEN, "nothing can be sent now (the alert says why); what is approved waits")
        if self._held is not None and self._is_due():
            raise self._held
        if self._tripped:
            gates = ", ".join(sorted(self._tripped))
            raise TryLater(Code.THERMAL, f"the thermal cutout is open; approved drafts wait (gate {gates})")

    def _is_due(self) -> bool:
        now = self._clock()
        with self._database.reading() as connection:
            return any(is_due(connection, heat.gate, now=now) for heat in self._heats)


def open(settings: Settings, *, clock: Clock = wall, steady: Clock | None = None) -> Worker:
    """Enter the room. Raises ConfigError or Unavailable where a setting, key, ledger or database is not as needed.

    `steady` is a clock that nobody sets, in microseconds: what `clock` is held against.
    """
    return Worker(settings, clock=clock, steady=steady)


def _is_same(hold: TryLater | None, before: TryLater | None) -> bool:
    """Whether that was said already; of a clock the words change with every second."""
    if hold is None or before is None:
        return hold is before
    return hold.code is before.code and (hold.code is Code.CLOCK_JUMPED or hold.message == before.message)


def _heat(gate: str, limits: GateSettings) -> Heat:
    return Heat(gate, limits.count, limits.window, limits.cooldown)
