"""What a dead worker left behind: provably unsent attempts are let go, the others stay in front of the operator."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from outbox.alerts import Alerts, never_left
from outbox.clock import Clock
from outbox.core.errors import Code, StateRefused
from outbox.core.lifecycle import Gate, Outcome, Phase, State
from outbox.store.claims import Claim, Report, end_worker_once, fail_if_held, finish_if_open, release_if_held
from outbox.store.engine import Database
from outbox.store.views import OpenAttempt, abandoned, workers_not_ended
from outbox.store.writer import Transaction, Writer
from outbox.worker.lock import is_alive

Result = TypeVar("Result")
log = logging.getLogger("outbox.worker")
_UNSENT = Report(Outcome.NOT_SENT, None, None, "its worker ended before the final dot")
_DOUBTFUL = Report(Outcome.IN_DOUBT, None, None, "its worker ended in the gap")


class Recovery:
    """Looks after the attempts of this host's workers that have ended."""

    def __init__(
        self,
        *,
        database: Database,
        writer: Writer,
        alerts: Alerts,
        state_dir: Path,
        own_id: str,
        release_proven: bool,
        clock: Clock,
    ) -> None:
        self._database, self._writer, self._alerts = database, writer, alerts
        self._state_dir, self._own_id = state_dir, own_id
        self._release_proven, self._clock = release_proven, clock

    def recover(self, *, ended: str | None = None) -> None:
        """Find dead workers, and let go of what they, or the worker `ended`, provably did not send."""
        with self._database.reading() as connection:
            candidates = workers_not_ended(connection)
        died = [worker_id for worker_id, host in candidates if self._is_dead(worker_id, host)]
        for worker_id in died:
            self._run(partial(end_worker_once, worker_id=worker_id, now=self._clock()))
        with self._database.reading() as connection:
            left = abandoned(connection)
        for attempt in left:
            self._look_after(attempt, newly=attempt.worker_id in (*died, ended))

    def _is_dead(self, worker_id: str, host: str) -> bool:
        """A lock that is free says so whatever the host is called now; without a file only this host can tell."""
        if worker_id == self._own_id:
            return False
        alive = is_alive(self._state_dir, worker_id)
        return host == socket.gethostname() if alive is None else not alive

    def _look_after(self, attempt: OpenAttempt, *, newly: bool) -> None:
        if attempt.phase == Phase.CLAIMED and self._release_proven:
            if self._run(lambda tx: self._let_go(tx, attempt)) is State.EXPIRED:
                by_mail = attempt.gate != Gate.SYSTEM
                self._alerts.tell(*never_left(attempt.draft_id), draft_id=attempt.draft_id, by_mail=by_mail)
        elif attempt.phase == Phase.GAP and attempt.gate == Gate.SYSTEM:
            self._run(lambda tx: self._give_up(tx, attempt))
        elif attempt.phase == Phase.GAP and newly:
            message = f"draft {attempt.draft_id}: its worker died in the gap; it may have been sent"
            self._alerts.tell(Code.IN_DOUBT, message, draft_id=attempt.draft_id)

    def _let_go(self, tx: Transaction, attempt: OpenAttempt) -> State:
        claim, now = Claim(attempt.draft_id, attempt.attempt_id, attempt.gate), self._clock()
        finish_if_open(tx, claim, _UNSENT, now=now)
        return release_if_held(tx, claim, not_before=now, now=now)

    def _give_up(self, tx: Transaction, attempt: OpenAttempt) -> None:
        claim, now = Claim(attempt.draft_id, attempt.attempt_id, attempt.gate), self._clock()
        finish_if_open(tx, claim, _DOUBTFUL, now=now)
        fail_if_held(tx, claim, code=Code.IN_DOUBT, message=_DOUBTFUL.text, now=now)

    def _run(self, work: Callable[[Transaction], Result]) -> Result | None:
        try:
            return self._writer.run(work)
        except StateRefused as lost:
            log.info("%s", lost, extra={"action": "lost"})
            return None
