"""The worker's door: claim what can be sent now, send it, stop when told to or when it runs hot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from outbox.agreement import open_ledger
from outbox.alerts import Alerts
from outbox.clock import Clock, ClockWatch, new_id, wall
from outbox.config import Settings
from outbox.core.errors import Code, ConfigError, OutboxError, StateRefused, TryLater, Unavailable
from outbox.core.lifecycle import Gate, Room
from outbox.ledger import Heard, LedgerRefused
from outbox.outage import Outage
from outbox.overdue import expire_overdue
from outbox.store.changes import Changes
from outbox.store.claims import Tripped, end_worker_once
from outbox.store.engine import connect
from outbox.store.heat import Heat
from outbox.store.journal import Chain
from outbox.store.selftest import refuse_untrustworthy
from outbox.store.writer import Hooks, Writer
from outbox.supervisor import StopSignals, Supervisor
from outbox.switches import Switches
from outbox.transport.outcome import NotSent
from outbox.transport.smtp import SmtpTransport
from outbox.worker.circuit import Circuit
from outbox.worker.claiming import Claiming, heat_of, words_of_cutout
from outbox.worker.hold import Hold
from outbox.worker.lane import Lane
from outbox.worker.recovery import Recovery
from outbox.worker.standing import Standing
from outbox.worker.submission import relay_of
from outbox.worker.turn import Turn
from outbox.worker.verification import Verifier

Result = TypeVar("Result")
log = logging.getLogger("outbox.worker")
POLL = 0.25  # seconds between looks at the database
_BELIEVED = 1.0  # seconds for which claims go on while the loop itself is held up
_REPORTED = 1.0  # seconds between reports of how many are being sent
_SLICE = 1.0  # seconds between signs of life to the supervisor while stopping
_IN_VAIN = 1.0  # seconds of rest that a drain does not wait for
SWEEP = 10.0  # seconds between looks for dead workers and overdue drafts


class Worker:
    """Claims approved drafts and sends each at most once. Use as a context manager."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock = wall,
        steady: Clock | None = None,
        machine: Callable[[], int] = time.time_ns,
    ) -> None:
        relay = relay_of(settings)
        verifier = Verifier(*settings.rings(), settings.rules(), settings.approvers, settings.operators)
        self._transport = SmtpTransport(relay, lanes=settings.relay.lanes)
        self._has_login = bool(settings.relay.username) or settings.relay_security != "none"
        self._supervisor = Supervisor(settings.supervision)
        self._clock, self._machine, self._stop_timeout = clock, machine, settings.worker.stop_timeout
        if self._stop_timeout < settings.relay.final_timeout:
            words = (
                "worker.stop_timeout is shorter than relay.final_timeout: a stop may leave in doubt what is being sent"
            )
            log.warning(words, extra={"action": "stop-timeout"})
        self._id = new_id(clock())
        self._database = connect(settings.database_place, Room.WORKER)
        with ExitStack() as unless_entered:
            unless_entered.callback(self._database.close)
            refuse_untrustworthy(self._database)
            self._standing = Standing(self._database, settings.state_dir, self._id)  # a fence looks for it
            unless_entered.callback(self._standing.release)
            ring = settings.record_ring("grant")
            self._ledger = open_ledger(settings.state_dir, ring, self._database, worker_id=self._id, now=clock())
            unless_entered.pop_all()
        chain = Chain(Room.WORKER, self._id, verifier.grant_ring)
        self._writer = Writer(self._database, chain, Hooks(self._keep_heard, self._ledger.append))
        self._turn = Turn(self._writer)
        self._switches = Switches(settings.state_dir, by_environment=settings.is_paused)
        self._watch = ClockWatch(clock, steady)
        self._alerts = Alerts(settings, Room.WORKER, verifier.grant_ring, self._writer, clock)
        self._circuit, self._outage = Circuit(), Outage(self._alerts, clock, "worker")
        self._wake, self._changes = asyncio.Event(), Changes(self._database)
        self._glancing: asyncio.Handle
        self._hold = Hold(self._database, self._switches, self._watch, self._changes, self._standing.presence)
        self._reported, self._reported_at = "", float("-inf")
        self._claiming = self._claiming_for(settings, self._lane_for(settings, verifier))
        self._recovery = self._recovery_for(settings)
        self._writer.run(lambda tx: self._standing.register(tx, now=clock()))

    def _lane_for(self, settings: Settings, verifier: Verifier) -> Lane:
        return Lane(
            transport=self._transport,
            verifier=verifier,
            database=self._database,
            writer=self._writer,
            turn=self._turn,
            ledger=self._ledger,
            switches=self._switches,
            alerts=self._alerts,
            retry=settings.relay.retry,
            clock=self._clock,
            watch=self._watch,
            archive=settings.policy.archive,
            return_path=settings.relay.return_path,
        )

    def _claiming_for(self, settings: Settings, lane: Lane) -> Claiming:
        return Claiming(
            database=self._database,
            turn=self._turn,
            lane=lane,
            transport=self._transport,
            circuit=self._circuit,
            switches=self._switches,
            heats=(heat_of(Gate.SYSTEM, settings.thermal.system), heat_of(Gate.MAIL, settings.thermal)),
            lanes=settings.relay.lanes,
            worker_id=self._id,
            clock=self._clock,
            wake=self._rouse,
        )

    def _recovery_for(self, settings: Settings) -> Recovery:
        return Recovery(
            database=self._database,
            writer=self._writer,
            ledger=self._ledger,
            alerts=self._alerts,
            state_dir=settings.state_dir,
            ledger_name=self._standing.ledger_name,
            own_id=self._id,
            release_proven=settings.reconcile.auto_release == "proven",
            retry=settings.relay.retry,
            clock=self._clock,
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
        self._changes.close()
        self._database.close()
        self._ledger.close()
        self._standing.release(keep_file=not has_ended)  # so that others see that it is dead

    def run(self, *, drain: bool = False) -> None:
        """Work until SIGTERM or SIGINT; with `drain`, until nothing is approved and due.

        After a drain, raises TryLater where the thermal cutout left some waiting, Unavailable where the relay refuses
        everything (login, certificate).
        """
        asyncio.run(self._run(drain))

    async def _run(self, drain: bool) -> None:
        loop, swept = asyncio.get_running_loop(), float("-inf")
        stop, self._wake = asyncio.Event(), asyncio.Event()
        self._hold.forget()
        self._claiming.begin()

        def ask_to_stop() -> None:
            stop.set()
            self._wake.set()

        with StopSignals(lambda: loop.call_soon_threadsafe(ask_to_stop)):
            self._glancing = loop.call_soon(self._glance, loop)
            self._changes.follow(lambda descriptor: loop.add_reader(descriptor, self._glance, loop), loop.remove_reader)
            try:
                await self._start(drain=drain)
                while not stop.is_set():
                    self._refuse_to_go_on()
                    if loop.time() - swept >= SWEEP:
                        await self._sweep()
                        swept = loop.time()
                    await self._look(drain=drain)
                    if not (drain and self._claiming.is_idle):
                        await self._wait()
                    await self._note_ended()
                    if drain and (self._claiming.is_idle or self._is_in_vain):
                        break
            finally:
                self._glancing.cancel()
                self._changes.unfollow()
                await self._finish()
        if drain and not stop.is_set():
            self._raise_for_waiting()

    @property
    def _is_in_vain(self) -> bool:
        """Whether the relay is gone: whoever waits for a drain does not wait for it."""
        return self._transport.rest > _IN_VAIN and not self._claiming.attempts

    async def _start(self, *, drain: bool) -> None:
        """A worker that stays is not ready before its relay lets it in: a login refused is said at once, by its end."""
        if drain:
            return
        examined = await self._transport.examine() if self._has_login else None
        if isinstance(examined, NotSent) and examined.halt:
            raise ConfigError(Code.RELAY_LOGIN, f"{examined.why}; `outbox doctor --room worker` says more")
        self._supervisor.ready("waiting for approved drafts")

    def _glance(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the loop where somebody else has committed, it may be an approval; and look again when it may be so."""
        if self._changes.came():
            self._hold.stir()
            self._wake.set()
        self._glancing.cancel()
        pause = self._changes.pause
        self._glancing = loop.call_later(max(pause, POLL) if self._claiming.is_busy else pause, self._glance, loop)

    def _rouse(self) -> None:
        self._wake.set()

    async def _look(self, *, drain: bool) -> None:
        """Claim what can be sent; where the database fails, a drain ends and the loop tries again, ever more rarely."""
        try:
            await self._hold_or_go_on()
            self._claiming.look()
        except (Unavailable, StateRefused) as error:
            if drain:
                raise
            await self._alive_while(asyncio.to_thread(self._outage.failed, error))
        else:
            if self._outage.words and not self._claiming.is_failing:
                await self._alive_while(asyncio.to_thread(self._outage.worked))
        self._supervisor.alive()
        self._report()

    def _report(self) -> None:
        """Say what it does, to the supervisor and in the state file: at once where that is new, else now and then."""
        under_way = len(self._claiming.attempts)
        held = self._hold.reason.message if self._hold.reason else None
        state, kind = held or f"{under_way} being sent", held or str(bool(under_way))
        now = time.monotonic()
        if kind == self._reported and now - self._reported_at < _REPORTED:
            return
        self._reported, self._reported_at = kind, now
        self._supervisor.status(state)
        self._alerts.state.write({"state": state, "worker": self._id, "under_way": under_way})

    def _refuse_to_go_on(self) -> None:
        """Raise where others may believe this worker dead, or its ledger is not to be trusted any more."""
        self._standing.refuse_presumed_dead()
        if not self._writer.is_alive:
            raise Unavailable(Code.DATABASE_UNAVAILABLE, "the thread that writes has ended; start again")
        self._database.refuse_replaced()
        self._ledger.catch_up()

    def _keep_heard(self, lines: Sequence[Heard]) -> None:
        """Write down what the relay said before it is stored; where that fails, the database is told all the same."""
        try:
            self._ledger.append(lines)
        except OutboxError as error:
            log.error("%s", error, extra={"action": "ledger"})

    async def _hold_or_go_on(self) -> None:
        self._claiming.believed_till = time.monotonic() + _BELIEVED
        before, is_news = self._hold.look()
        if is_news:
            await self._alive_while(asyncio.to_thread(self._note_hold, before))
        self._claiming.is_held = self._hold.reason is not None

    def _note_hold(self, before: TryLater | None) -> None:
        hold = self._hold.reason
        log.warning("%s", hold.message if hold else "it goes on", extra={"action": "hold"})
        if hold is not None and hold.code is Code.CLOCK_JUMPED and (before is None or before.code is not hold.code):
            self._alerts.tell(hold.code, hold.message)

    async def _tell_tripped(self, heat: Heat, tripped: Tripped) -> None:
        words, by_mail = words_of_cutout(heat, tripped), heat.gate != Gate.SYSTEM
        await asyncio.to_thread(self._alerts.tell, Code.THERMAL, words, by_mail=by_mail)

    async def _wait(self) -> None:
        """Until an attempt ends, a claim is answered, a stop is asked for, or it is time to look again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(POLL, self._outage.pause)):
                await self._wake.wait()
        self._wake.clear()

    async def _note_ended(self) -> None:
        """Tell what came of what has ended; what went wrong in recording it does not end the loop."""
        ended, self._claiming.ended = self._claiming.ended, []
        for task in ended:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("an attempt was not recorded", exc_info=error, extra={"action": "attempt"})
        halted, self._claiming.halted = self._claiming.halted, None
        if halted is not None:
            message = f"nothing more is claimed for now, the next draft would fare no better: {halted}"
            await asyncio.to_thread(partial(self._alerts.tell, Code.CIRCUIT_OPEN, message, lasts=True))
        elif ended and not self._circuit.is_broken:
            self._alerts.over(Code.CIRCUIT_OPEN)
        while self._claiming.news:
            await self._alive_while(self._tell_tripped(*self._claiming.news.pop()))

    async def _finish(self) -> None:
        """Wait for what is under way; what takes longer than `worker.stop_timeout` is aborted where it stands."""
        self._claiming.stop()
        try:
            await self._wait_for_the_last()
            await self._note_ended()
        finally:
            await self._transport.close()

    async def _wait_for_the_last(self) -> None:
        late = set(self._claiming.attempts)
        if late:
            self._supervisor.stopping(f"waiting for {len(late)} being sent")
        loop = asyncio.get_running_loop()
        until = loop.time() + self._stop_timeout
        while late and loop.time() < until:
            _, late = await asyncio.wait(late, timeout=min(_SLICE, until - loop.time()))
            self._supervisor.alive()
        while late:  # again and again: a library below may swallow one cancellation
            for task in late:
                task.cancel()
            _, late = await asyncio.wait(late, timeout=POLL)

    async def _sweep(self) -> None:
        """Look after dead workers and overdue drafts: not by a clock that jumped, whose instants would be stored."""
        if self._watch.jumped() is not None:
            return
        try:
            if not await self._alive_while(asyncio.to_thread(self._hold.compare_clocks, self._machine)):
                return
            look = partial(self._recovery.recover, under_way=self._claiming.under_way)
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
        held = self._hold.now()
        if held is not None and self._claiming.is_due():
            raise held
        if self._is_in_vain and self._claiming.is_due():
            raise Unavailable(Code.CIRCUIT_OPEN, "the relay cannot be reached; what is approved waits")
        if self._claiming.tripped:
            gates = ", ".join(sorted(self._claiming.tripped))
            raise TryLater(Code.THERMAL, f"the thermal cutout is open; approved drafts wait (gate {gates})")


def open(
    settings: Settings,
    *,
    clock: Clock = wall,
    steady: Clock | None = None,
    machine: Callable[[], int] = time.time_ns,
) -> Worker:
    """Enter the room. Raises ConfigError or Unavailable where a setting, key, ledger or database is not as needed.

    `steady` is a clock that nobody sets, in microseconds: what `clock` is held against. `machine`, in nanoseconds, is
    held against a server's.
    """
    return Worker(settings, clock=clock, steady=steady, machine=machine)
