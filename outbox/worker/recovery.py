"""What a worker left behind: the provably unsent is let go, what was heard is stored, a person is told of the rest."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Collection, Container
from pathlib import Path
from typing import TypeVar

from outbox.alerts import Alerts, never_left
from outbox.clock import Clock
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, StateRefused, Unavailable
from outbox.core.lifecycle import Gate, Outcome, Phase, State
from outbox.ledger import Ledger
from outbox.lock import is_alive
from outbox.store.claims import (
    Claim,
    Report,
    end_absent_worker,
    end_worker_once,
    fail_if_held,
    finish_if_open,
    finish_if_unsent,
    release_if_held,
)
from outbox.store.engine import Database
from outbox.store.open_attempts import (
    OpenAttempt,
    Registered,
    abandoned,
    count_ended_as,
    open_attempts_of,
    was_alerted,
    workers_not_ended,
)
from outbox.store.presence import present
from outbox.store.writer import Transaction, Writer
from outbox.worker.ending import Conclusion, Ended, as_heard, conclude

MOST_DEATHS = 10  # of workers that held a draft, after which it has failed
Result = TypeVar("Result")
log = logging.getLogger("outbox.worker")
_UNSENT = Report(Outcome.NOT_SENT, None, None, "its worker ended before the final dot")
_STOPPED = Report(Outcome.NOT_SENT, None, None, "its worker was stopped before the final dot")
_DOUBTFUL = Report(Outcome.IN_DOUBT, None, None, "its worker ended in the gap")


class Recovery:
    """Looks after the attempts of this host's workers that have ended, and after those that this one lost sight of.

    On a server those of another ledger, as a rule another host's, are left to whoever has that: only there can it be
    known whether they were in the gap. Such a worker lives while it holds its lock on the server.
    """

    def __init__(
        self,
        *,
        database: Database,
        writer: Writer,
        ledger: Ledger,
        alerts: Alerts,
        state_dir: Path,
        own_id: str,
        release_proven: bool,
        retry: tuple[int, ...],
        clock: Clock,
        ledger_name: str | None = None,
    ) -> None:
        self._database, self._writer, self._ledger, self._alerts = database, writer, ledger, alerts
        self._state_dir, self._ledger_name, self._own_id = state_dir, ledger_name, own_id
        self._missed: set[str] = set()  # workers of other hosts whose locks nobody held at the last look
        self._release_proven, self._retry, self._clock = release_proven, retry, clock

    def recover(self, *, ended: str | None = None, under_way: Container[str] = ()) -> None:
        """Find dead workers, and let go of what they, or the worker `ended`, provably did not send.

        `under_way` are the attempts of this worker that it knows of: a claim whose COMMIT was stored although it
        reported a failure is not among them.
        """
        with self._database.reading() as connection:
            candidates = workers_not_ended(connection)
        buried = [one.id for one in candidates if self._is_dead(one) and self._bury(one.id)]
        self._bury_elsewhere([one for one in candidates if self._is_elsewhere(one) and one.visible])
        self._ledger.catch_up()
        with self._database.reading() as connection:
            left = abandoned(connection, self._ledger_name)
            own = () if ended is not None else open_attempts_of(connection, self._own_id)
        lost = [one for one in own if one.attempt_id not in under_way and self._is_over(one)]
        if lost:  # what ended since it was read is forgotten by its lane, and closed in its row
            with self._database.reading() as connection:
                still = {one.attempt_id: one for one in open_attempts_of(connection, self._own_id)}
            lost = [still[one.attempt_id] for one in lost if one.attempt_id in still]
        for attempt in (*left, *lost):
            try:
                self._look_after(attempt, stopped=attempt.worker_id == ended)
            except Unavailable as error:  # the others are looked after all the same
                log.error("%s", error, extra={"action": "recover", "draft": attempt.draft_id})
        for worker_id in buried:
            self._tell_of(worker_id, left)

    def _is_elsewhere(self, worker: Registered) -> bool:
        return worker.ledger is not None and worker.ledger != self._ledger_name

    def _is_dead(self, worker: Registered) -> bool:
        """A lock that is free says so whatever the host is called now; without a file only this host can tell."""
        if worker.id == self._own_id or self._is_elsewhere(worker):
            return False
        alive = is_alive(self._state_dir, worker.id)
        return worker.host == socket.gethostname() if alive is None else not alive

    def _bury(self, worker_id: str, end: Callable[..., None] = end_worker_once) -> bool:
        def work(tx: Transaction) -> bool:
            end(tx, worker_id, now=self._clock())
            return True

        return bool(self._run(work))

    def _bury_elsewhere(self, workers: Collection[Registered]) -> None:
        """End those whose locks were free at the last look too: one whose session broke has it again by then."""
        before, self._missed = self._missed, set()
        if not workers:
            return
        with self._database.reading() as connection:
            there = present(connection, [one.id for one in workers])
        self._missed = {one.id for one in workers if one.id not in there}
        for one in workers:
            if one.id in self._missed & before and self._bury(one.id, end_absent_worker):
                words = (
                    f"worker {one.id} of {one.host} is gone; what it held waits for a worker there, or for "
                    "`outbox reconcile`"
                )
                self._alerts.tell(Code.WORKER_DEAD, words)

    def _tell_of(self, worker_id: str, left: Collection[OpenAttempt]) -> None:
        """One death, one mail: where something is in doubt by it, that has been mailed."""
        held = [one for one in left if one.worker_id == worker_id]
        in_gap = [one for one in held if one.phase == Phase.GAP and one.gate != Gate.SYSTEM]
        by_mail = not any(self._is_told(one) for one in in_gap)
        words = f"worker {worker_id} died; what it held ({len(held)}) is looked after"
        self._alerts.tell(Code.WORKER_DEAD, words, by_mail=by_mail)

    def _is_over(self, attempt: OpenAttempt) -> bool:
        """Of an attempt of this worker that no lane has: whether nothing more can come of it."""
        return attempt.phase == Phase.CLAIMED or self._ledger.heard(attempt.attempt_id, attempt.draft_id) is not None

    def _look_after(self, attempt: OpenAttempt, *, stopped: bool) -> None:
        heard = self._ledger.heard(attempt.attempt_id, attempt.draft_id)
        in_ledger = self._ledger.entered(attempt.attempt_id, attempt.draft_id) is not None
        if attempt.phase == Phase.GAP and heard is not None:
            self._tell(attempt, self._run(lambda tx: self._store(tx, attempt, as_heard(heard))))
        elif attempt.phase == Phase.CLAIMED and not in_ledger:
            if self._release_proven:
                self._tell(attempt, self._run(lambda tx: self._let_go(tx, attempt, stopped=stopped)))
        elif attempt.gate == Gate.SYSTEM and attempt.phase == Phase.GAP:
            self._run(lambda tx: self._give_up(tx, attempt))
        elif not self._is_told(attempt):
            words = f"draft {attempt.draft_id}: its worker ended in the gap; it may have been sent"
            self._alerts.tell(Code.IN_DOUBT, words, draft_id=attempt.draft_id)

    def _is_told(self, attempt: OpenAttempt) -> bool:
        """Whether operators were written that it is in doubt: a row says so, so no restart forgets or repeats it."""
        with self._database.reading() as connection:
            return was_alerted(connection, attempt.draft_id, Code.IN_DOUBT)

    def _store(self, tx: Transaction, attempt: OpenAttempt, ended: Ended) -> tuple[Code, str] | None:
        now = self._clock()
        return conclude(tx, [Conclusion(_claim(attempt), ended, not_before=now, now=now)])[0]

    def _tell(self, attempt: OpenAttempt, alert: tuple[Code, str] | None) -> None:
        if alert is not None:
            self._alerts.tell(*alert, draft_id=attempt.draft_id, by_mail=attempt.gate != Gate.SYSTEM)

    def _let_go(self, tx: Transaction, attempt: OpenAttempt, *, stopped: bool) -> tuple[Code, str] | None:
        """Back to approved; ever later where workers die of it, and in the end it fails."""
        claim, now = _claim(attempt), self._clock()
        deaths = count_ended_as(tx.connection, attempt.draft_id, _UNSENT.text)
        finish_if_unsent(tx, claim, _STOPPED if stopped else _UNSENT, now=now)
        if not stopped and deaths + 1 >= MOST_DEATHS:
            words = f"draft {attempt.draft_id}: {deaths + 1} workers ended while they held it; it was not sent"
            fail_if_held(tx, claim, code=Code.WORKER_FAILED, message=words, now=now)
            return Code.WORKER_FAILED, words
        pause = self._retry[min(deaths, len(self._retry)) - 1] * MICROSECONDS if deaths and not stopped else 0
        state = release_if_held(tx, claim, not_before=now + pause, now=now)
        return never_left(attempt.draft_id) if state is State.EXPIRED else None

    def _give_up(self, tx: Transaction, attempt: OpenAttempt) -> None:
        claim, now = _claim(attempt), self._clock()
        finish_if_open(tx, [(claim, _DOUBTFUL)], now=now)
        fail_if_held(tx, claim, code=Code.IN_DOUBT, message=_DOUBTFUL.text, now=now)

    def _run(self, work: Callable[[Transaction], Result]) -> Result | None:
        try:
            return self._writer.run(work)
        except StateRefused as lost:
            log.info("%s", lost, extra={"action": "lost"})
            return None


def _claim(attempt: OpenAttempt) -> Claim:
    return Claim(attempt.draft_id, attempt.attempt_id, attempt.gate)
