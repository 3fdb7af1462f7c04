"""The worker's door: claim what can be sent now, send it, stop when told to or when it runs hot."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from functools import partial
from types import TracebackType
from typing import Self

from outbox.alerts import Alerts
from outbox.clock import Clock, new_id, wall
from outbox.config import Settings, required
from outbox.core.errors import Code, OutboxError, TryLater, Unavailable
from outbox.core.lifecycle import Gate, Outcome, Room
from outbox.overdue import expire_overdue
from outbox.sections import GateSettings
from outbox.store.claims import Claim, Heat, Tripped, claim_if_cool, end_worker_once, insert_worker, is_due
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.selftest import refuse_untrustworthy
from outbox.store.writer import Writer
from outbox.transport.smtp import Relay, SmtpTransport
from outbox.worker.circuit import Circuit
from outbox.worker.lane import Ended, Lane
from outbox.worker.lock import WorkerLock
from outbox.worker.recovery import Recovery
from outbox.worker.verification import Verifier

log = logging.getLogger("outbox.worker")
POLL = 0.25  # seconds between looks at the database
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SWEEP = 10.0  # seconds between looks for dead workers and overdue drafts


class Worker:
    """Claims approved drafts and sends each at most once. Use as a context manager."""

    def __init__(self, settings: Settings, *, clock: Clock = wall) -> None:
        host = required(settings.relay.host, "relay.host")
        verifier = Verifier(*settings.rings(), settings.rules(), settings.approvers, settings.operators)
        transport = SmtpTransport(_relay(settings, host))
        self._clock, self._lanes, self._stop_timeout = clock, settings.relay.lanes, settings.worker.stop_timeout
        self._heats = (_heat(Gate.SYSTEM, settings.thermal.system), _heat(Gate.MAIL, settings.thermal))
        self._database = connect(settings.database_path)
        refuse_untrustworthy(self._database)
        self._id = new_id(clock())
        self._lock = WorkerLock(settings.state_dir, self._id)
        self._writer = Writer(self._database, Chain(Room.WORKER, self._id, verifier.grant_ring))
        self._alerts = Alerts(settings, Room.WORKER, verifier.grant_ring, self._writer, clock)
        self._circuit = Circuit()
        self._tripped: set[str] = set()  # gates that the last look for a draft found open
        self._lane = Lane(
            transport=transport,
            verifier=verifier,
            database=self._database,
            writer=self._writer,
            alerts=self._alerts,
            retry=settings.relay.retry,
            clock=clock,
        )
        self._recovery = Recovery(
            database=self._database,
            writer=self._writer,
            alerts=self._alerts,
            state_dir=settings.state_dir,
            own_id=self._id,
            release_proven=settings.reconcile.auto_release == "proven",
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
        try:
            self._writer.run(lambda tx: end_worker_once(tx, self._id, now=self._clock()))
            self._recovery.recover(ended=self._id)
        except OutboxError as error:
            log.warning("%s", error, extra={"action": "close"})
        self._writer.close()
        self._database.close()
        self._lock.release()

    def run(self, *, drain: bool = False) -> None:
        """Work until SIGTERM or SIGINT; with `drain`, until nothing is approved and due.

        After a drain, raises TryLater where the thermal cutout left some waiting, Unavailable where the relay refuses
        everything (login, certificate).
        """
        asyncio.run(self._run(drain))

    async def _run(self, drain: bool) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        signals = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
        for number in signals:
            loop.add_signal_handler(number, stop.set)
        tasks: set[asyncio.Task[Ended]] = set()
        swept = float("-inf")
        try:
            while not stop.is_set():
                if loop.time() - swept >= SWEEP:
                    self._stop_where_presumed_dead()
                    await self._sweep()
                    swept = loop.time()
                await self._fill(tasks, drain=drain)
                if drain and not tasks:
                    break
                await self._wait(tasks, stop)
        finally:
            await self._finish(tasks)
            for number in signals:
                loop.remove_signal_handler(number)
        if drain and not stop.is_set():
            self._raise_for_waiting()

    async def _fill(self, tasks: set[asyncio.Task[Ended]], *, drain: bool) -> None:
        """Claim exactly what can be sent now. A drain ends where the database fails, else it is tried again."""
        while len(tasks) < self._lanes and not self._circuit.is_open:
            try:
                claim = await self._claim()
            except OutboxError as error:
                if drain:
                    raise
                log.error("%s", error, extra={"action": "claim", "code": error.code.value})
                return
            if claim is None:
                return
            tasks.add(asyncio.create_task(self._lane.attempt(claim)))

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
                    await self._tell_tripped(heat)
        return None

    async def _tell_tripped(self, heat: Heat) -> None:
        message = (
            f"thermal cutout: {heat.count} transmissions within {heat.window} s; "
            f"nothing of gate {heat.gate} is sent for {heat.cooldown} s at least"
        )
        await asyncio.to_thread(self._alerts.tell, Code.THERMAL, message, by_mail=heat.gate != Gate.SYSTEM)

    async def _wait(self, tasks: set[asyncio.Task[Ended]], stop: asyncio.Event) -> None:
        """Until an attempt ends, a stop is asked for, or it is time to look again."""
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([*tasks, stopping], timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        done = {task for task in tasks if task.done()}
        tasks -= done
        for task in done:
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
            message = f"nothing more is claimed for now, the relay refuses everything: {ended.report.text}"
            await asyncio.to_thread(self._alerts.tell, Code.CIRCUIT_OPEN, message)

    async def _finish(self, tasks: set[asyncio.Task[Ended]]) -> None:
        """Wait for what is under way; what takes longer than `worker.stop_timeout` is aborted where it stands."""
        if not tasks:
            return
        done, late = await asyncio.wait(tasks, timeout=self._stop_timeout)
        for task in done:
            await self._note(task)
        while late:  # again and again: a library below may swallow one cancellation
            for task in late:
                task.cancel()
            _, late = await asyncio.wait(late, timeout=POLL)

    async def _sweep(self) -> None:
        try:
            await asyncio.to_thread(self._recovery.recover)
            await asyncio.to_thread(self._expire)
        except (OutboxError, OSError) as error:
            log.error("%s", error, extra={"action": "sweep"})

    def _stop_where_presumed_dead(self) -> None:
        """Without its lock a worker counts as dead, and others let go of what it holds."""
        if not self._lock.is_held:
            raise Unavailable(Code.PRESUMED_DEAD, "this worker's lock file was taken away; start it again")

    def _expire(self) -> None:
        expire_overdue(self._database, self._writer, self._alerts, now=self._clock())

    def _raise_for_waiting(self) -> None:
        if self._circuit.is_open:
            raise Unavailable(Code.CIRCUIT_OPEN, "the relay refuses everything; what is approved waits")
        if self._tripped:
            gates = ", ".join(sorted(self._tripped))
            raise TryLater(Code.THERMAL, f"the thermal cutout is open; approved drafts wait (gate {gates})")


def open(settings: Settings, *, clock: Clock = wall) -> Worker:
    """Enter the room. Raises ConfigError or Unavailable where a setting, key or the database is not as needed."""
    return Worker(settings, clock=clock)


def _relay(settings: Settings, host: str) -> Relay:
    return Relay(
        host=host,
        port=settings.relay.port,
        security=settings.relay_security,
        timeout=settings.relay.timeout,
        final_timeout=settings.relay.final_timeout,
        username=settings.relay.username,
        password=settings.relay_password(),
    )


def _heat(gate: str, limits: GateSettings) -> Heat:
    return Heat(gate, limits.count, limits.window, limits.cooldown)
