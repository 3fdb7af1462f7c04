"""Claims exactly what can be sent now, and begins an attempt for each claim.

Whenever outcomes go to the writer, claims for the places that they left free go with them, in the same transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from outbox.clock import Clock, new_id
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import OutboxError, Unavailable
from outbox.core.lifecycle import Gate, Outcome
from outbox.sections import GateSettings
from outbox.store.claims import Claim, Tripped, claim_if_cool, is_due
from outbox.store.engine import Database
from outbox.store.heat import Headroom, Heat
from outbox.store.writer import Transaction
from outbox.switches import Switches
from outbox.transport.smtp import SmtpTransport
from outbox.worker.circuit import Circuit
from outbox.worker.ending import Ended
from outbox.worker.lane import Lane
from outbox.worker.turn import Turn

FRUITLESS = 0.25  # seconds until it is tried again to claim what is due and could not be claimed
_IN_A_ROW = 3  # claims that find nothing before that: another one may have been quicker


@dataclass(frozen=True, slots=True)
class _Found:
    """What one asking came to."""

    claims: list[Claim]
    tripped: list[tuple[Heat, Tripped]]


def heat_of(gate: str, limits: GateSettings) -> Heat:
    """A gate's limits, as the store takes them."""
    return Heat(gate, limits.count, limits.window, limits.cooldown)


class Claiming:
    """Keeps as many attempts under way as there are lanes, as long as something is due and nothing holds it back."""

    def __init__(
        self,
        *,
        database: Database,
        turn: Turn,
        lane: Lane,
        transport: SmtpTransport,
        circuit: Circuit,
        switches: Switches,
        heats: tuple[Heat, ...],
        lanes: int,
        worker_id: str,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._database, self._turn, self._lane, self._transport = database, turn, lane, transport
        self._circuit, self._heats, self._lanes, self._switches = circuit, heats, lanes, switches
        self._worker_id, self._clock, self._wake = worker_id, clock, wake
        self._headroom = Headroom()
        self._asked = self._sending = 0  # places that a claim was asked for, and those where one is being sent
        self._has_more = False  # whether the last look found something due that was not claimed
        self._is_dry = self._has_stopped = False
        self._fruitless = 0  # claims in a row that found nothing,
        self._fruitless_till = 0.0  # and till when, by time.monotonic(), none is asked for after them
        self._error: BaseException | None = None
        self.is_failing = False  # whether the last claim failed
        self.believed_till = 0.0  # by time.monotonic(): till when what follows is to be believed
        self.is_held = True  # by a person or the clock: nothing is claimed
        self.under_way: set[str] = set()  # attempts, from the moment when their claims are asked for
        self.attempts: set[asyncio.Task[None]] = set()
        self.ended: list[asyncio.Task[None]] = []  # attempts that nobody has looked at since
        self.tripped: set[str] = set()  # gates that the last claim found open
        self.news: list[tuple[Heat, Tripped]] = []  # cutouts that have just tripped,
        self.halted: str | None = None  # and why the circuit has just opened, of which nobody was told
        turn.before_submit = self._fill

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way and, by the last look, nothing more can be claimed now."""
        return self._error is None and self._is_dry and not self.attempts and not self._asked

    @property
    def is_busy(self) -> bool:
        """Whether more is due than there are lanes, and each outcome takes a claim along."""
        is_well = self._error is None and time.monotonic() <= self.believed_till
        return is_well and self._has_more and bool(self.attempts)

    def is_due(self) -> bool:
        """Whether anything is approved and due. Raises Unavailable."""
        now = self._clock()
        with self._database.reading() as connection:
            return any(is_due(connection, heat.gate, now=now) for heat in self._heats)

    def look(self) -> None:
        """Ask for claims where something is due. Raises what the last asking ended with, or Unavailable."""
        if (error := self._error) is not None:
            self._error = None
            raise error
        if self.is_held or self._circuit.is_open:
            self._is_dry = True
            return
        if not self._has_more and self._free > 0:
            is_due = self.is_due()
            self._has_more = is_due and time.monotonic() >= self._fruitless_till
            self._is_dry = not is_due
            self.is_failing = self.is_failing and is_due
            if not is_due:
                self.tripped = set()
        self._fill()

    def begin(self) -> None:
        """Claim, as soon as it is known that nothing holds it back."""
        self._has_stopped = False

    def stop(self) -> None:
        """Claim nothing more."""
        self.is_held = self._has_stopped = True

    @property
    def _free(self) -> int:
        unstored = max(0, len(self.attempts) - self._lanes)  # more than what was just sent and is being stored
        return min(self._lanes, self._transport.places) - max(self._sending, unstored) - self._asked

    def _fill(self) -> None:
        count = self._free
        if count <= 0 or not self._has_more or not self._may_claim():
            return
        now = self._clock()
        attempt_ids = [new_id(now) for _ in range(count)]
        self._asked += count
        self.under_way.update(attempt_ids)
        self._turn.ask(self._claim, attempt_ids, is_last=True).add_done_callback(partial(self._take, attempt_ids))

    def _may_claim(self) -> bool:
        """Whether nothing holds it back. The loop that looks may be held up: its word is believed for a moment."""
        if self.is_held or time.monotonic() > self.believed_till or self._switches.thrown() is not None:
            return False
        return not self._circuit.is_open and self._transport.rest <= 0

    def _claim(self, tx: Transaction, asked: Sequence[Sequence[str]]) -> list[_Found]:
        found = [_Found([], []) for _ in asked]
        for heat in self._heats:  # all of one gate first: gates are locked in one order
            for one, attempt_ids in zip(found, asked, strict=True):
                self._claim_through(tx, heat, attempt_ids, one)
        return found

    def _claim_through(self, tx: Transaction, heat: Heat, attempt_ids: Sequence[str], found: _Found) -> None:
        now, left = self._clock(), attempt_ids[len(found.claims) :]
        if not left or (heat.gate == Gate.SYSTEM and not is_due(tx.connection, heat.gate, now=now)):
            return
        claims, tripped = claim_if_cool(
            tx, heat, worker_id=self._worker_id, attempt_ids=left, now=now, headroom=self._headroom
        )
        found.claims.extend(claims)
        if tripped is not None:
            found.tripped.append((heat, tripped))

    def _take(self, attempt_ids: Sequence[str], future: asyncio.Future[_Found]) -> None:
        self._asked -= len(attempt_ids)
        self._error = None if future.cancelled() else future.exception()
        self.is_failing = self._error is not None
        claims = [] if future.cancelled() or self.is_failing else self._found(future.result())
        self._has_more = len(claims) == len(attempt_ids)
        self._is_dry = bool(self.tripped)  # else the next look says
        self.under_way.difference_update(attempt_ids[len(claims) :])
        self._fruitless = 0 if claims or self.is_failing else self._fruitless + 1
        if self._fruitless >= _IN_A_ROW or (self._fruitless and self.tripped):
            self._fruitless_till = time.monotonic() + FRUITLESS
        if claims and not self._has_stopped:  # where it is held meanwhile, the gap is not entered
            self._begin(claims)
        self._wake_unless_busy()

    def _found(self, found: _Found) -> list[Claim]:
        self.tripped = {heat.gate for heat, _ in found.tripped}
        self.news += [(heat, tripped) for heat, tripped in found.tripped if tripped.newly]
        return found.claims

    def _begin(self, claims: Sequence[Claim]) -> None:
        try:
            loaded = self._lane.load(claims)
            unread = None
        except Unavailable as error:
            unread = error
        except OutboxError as error:
            self._error = error
            return
        for claim in claims:
            attempt = self._lane.attempt(claim, unread or loaded[claim.draft_id], self._free_one)
            task = asyncio.create_task(attempt)
            self._sending += 1
            self.attempts.add(task)
            task.add_done_callback(partial(self._end, claim.attempt_id))

    def _free_one(self, ended: Ended | None) -> None:
        """Learn about the relay from how an attempt ended."""
        self._sending -= 1
        if ended is None or (ended.report.outcome is Outcome.NOT_SENT and not ended.halt):
            return  # nothing was learnt
        if self._circuit.note(halted=ended.halt):
            self.halted = ended.report.text
            self._wake()

    def _end(self, attempt_id: str, task: asyncio.Task[None]) -> None:
        self.attempts.discard(task)
        self.under_way.discard(attempt_id)
        self._is_dry = False  # it may be due again
        self.ended.append(task)
        self._wake_unless_busy()

    def _wake_unless_busy(self) -> None:
        """While each outcome takes a claim along there is nothing to look for; now and then the loop looks anyway."""
        if not self.is_busy:
            self._wake()


def words_of_cutout(heat: Heat, tripped: Tripped) -> str:
    """What an operator is told of a cutout that has just tripped."""
    hour = f"{datetime.fromtimestamp(tripped.until // MICROSECONDS, UTC):%H:%M:%S} UTC"
    return (
        f"thermal cutout: {heat.count} transmissions within {heat.window} s; "
        f"nothing of gate {heat.gate} is sent until {hour} at least"
    )
