"""After a restore that the operator vouches for: what has left stays gone, what waited is cancelled, and it goes on."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from outbox.agreement import disagreement
from outbox.clock import Clock, new_id
from outbox.config import Settings
from outbox.core.errors import Code, StateRefused, TryLater, UsageError
from outbox.core.lifecycle import SYSTEM_KIND, Phase, State
from outbox.core.signing import KeyRing
from outbox.ledger import NAME, Fenced, Ledger, LedgerRefused
from outbox.ledger_id import ledger_id
from outbox.lock import WorkerLock, living
from outbox.operator.settling import person
from outbox.store.engine import Database
from outbox.store.identity import identity_of, is_attempt, newest_gap
from outbox.store.open_attempts import workers_not_ended
from outbox.store.presence import present
from outbox.store.settlements import (
    Gone,
    Held,
    cancel_restored,
    doubt_approved,
    doubt_open,
    give_up_system,
    held,
    insert_fence,
    waiting,
)
from outbox.store.transition import LostRace
from outbox.store.writer import Transaction, Writer


@dataclass(frozen=True, slots=True)
class FenceReport:
    """How many drafts were put in doubt and cancelled, why that was needed, and where a bad ledger is kept."""

    in_doubt: int
    cancelled: int
    why: str
    aside: Path | None


class Fence:
    """One acceptance: cancel, then doubt, each draft in a transaction of its own, and the ledger's fence at the end.

    Where it breaks off it can be run again. Where the ledger agreed (`even_so`) a worker may start meanwhile, as it
    might have before.
    """

    def __init__(self, settings: Settings, database: Database, writer: Writer, clock: Clock) -> None:
        self._settings, self._database, self._writer, self._clock = settings, database, writer, clock
        self._ring: KeyRing = settings.record_ring("grant")
        self._run_id = new_id(clock())

    def accept(self, note: str | None, *, even_so: bool = False) -> FenceReport:
        """Vouch for the database as it is; `even_so` where ledger and database agree, and it was restored all the same.

        Raises TryLater while a worker lives, on whichever host, StateRefused where there is nothing to accept.
        """
        if not note:
            raise UsageError(Code.USAGE, "say why with --note: it is kept in the ledger", field="--note")
        lock = WorkerLock(self._settings.state_dir, self._run_id)
        try:
            self._refuse_beside_others()
            return self._accept(self._why(even_so=even_so), note)
        finally:
            lock.release()

    def _accept(self, why: LedgerRefused | None, note: str) -> FenceReport:
        with self._database.reading() as connection:
            named = identity_of(connection)
        folder = self._settings.state_dir
        own = ledger_id(folder) if self._database.is_server else None
        believed = why is None or why.code is Code.LEDGER_AHEAD
        ledger = Ledger.open(folder, self._ring, named.id) if believed else None
        by, now, host = person(), self._clock(), socket.gethostname()
        self._writer.run(
            lambda tx: insert_fence(
                tx, worker_id=self._run_id, host=host, pid=os.getpid(), ledger=own, by=by, note=note, now=now
            )
        )
        counted = self._cancel_and_doubt(ledger, own)
        aside = None
        if ledger is None:
            aside = self._set_aside(folder / NAME)
            ledger = Ledger.begin(folder, self._ring, named.id)
        with self._database.reading() as connection:
            newest = newest_gap(connection)
        ledger.append([Fenced(self._run_id, max(self._clock(), newest + 1), by, note)])
        ledger.close()
        words = why.message if why is not None else "it was asked for"
        return FenceReport(counted["in doubt"], counted["cancelled"], words, aside)

    def _why(self, *, even_so: bool) -> LedgerRefused | None:
        why = disagreement(self._settings.state_dir, self._ring, self._database)
        if why is None and not (even_so and (self._settings.state_dir / NAME).exists()):
            raise StateRefused(
                Code.STATE_CONFLICT,
                "the ledger and the database agree, and workers start; if it was restored all the same, say --even-so: "
                "that cancels what waits in it",
            )
        return why

    def _set_aside(self, file: Path) -> Path | None:
        if not file.exists():
            return None
        aside = file.with_name(f"{NAME}.{self._run_id}.bad")
        file.rename(aside)
        return aside

    def _refuse_beside_others(self) -> None:
        others = [one for one in living(self._settings.state_dir) if one != self._run_id]
        if others:
            words = f"worker {others[0]} lives, or another fence is under way; stop every worker of this outbox first"
            raise TryLater(Code.WORKER_ALIVE, words)
        if self._database.is_server:
            self._refuse_beside_other_hosts()

    def _refuse_beside_other_hosts(self) -> None:
        """A worker that no lock can show to live is not waited for: of one in a backup no end is ever written."""
        with self._database.reading() as connection:
            registered = workers_not_ended(connection)
            there = present(connection, [one.id for one in registered])
        for one in registered:
            if one.id in there:
                words = f"worker {one.id} on {one.host} lives; stop the workers of every host first"
                raise TryLater(Code.WORKER_ALIVE, words)

    def _cancel_and_doubt(self, ledger: Ledger | None, own: str | None) -> Counter[str]:
        """With no ledger to believe, what is open may have been sent, and nothing that waits is sent any more.

        What is open of a worker with another ledger than `own` is left to that one, which can tell.
        """
        counted: Counter[str] = Counter()
        gone: dict[str, Gone] = {}
        left = {draft_id for draft_id, _, _ in self._waiting()}
        while waits := [one for one in self._waiting() if one[0] in left]:  # an inbox may approve meanwhile
            for draft_id, kind, state in waits:
                found = _gone(ledger, draft_id)
                if found is not None and state is State.APPROVED and kind != SYSTEM_KIND and self._is_new(found):
                    gone[draft_id] = found
                    left.discard(draft_id)
                else:
                    counted["cancelled"] += self._cancel(draft_id, state, found)
        for found in gone.values():
            counted["in doubt"] += self._run(
                partial(doubt_approved, gone=found, worker_id=self._run_id, now=self._clock())
            )
        with self._database.reading() as connection:
            open_rows = [row for row in held(connection) if row.phase != Phase.DONE.value]
        for row in open_rows:
            counted["in doubt"] += self._doubt(row, ledger, own)
        return counted

    def _is_new(self, gone: Gone) -> bool:
        """Whether its attempt is none of this database's: one that is was closed as not sent, and stays so."""
        with self._database.reading() as connection:
            return not is_attempt(connection, gone.attempt_id)

    def _waiting(self) -> list[tuple[str, str, State]]:
        with self._database.reading() as connection:
            return waiting(connection)

    def _doubt(self, row: Held, ledger: Ledger | None, own: str | None) -> bool:
        gone = _gone(ledger, row.draft_id)
        if gone is None and row.ledger not in (None, own):
            return False  # that ledger can tell, and this one cannot
        if gone is None and ledger is not None and not ledger.index.has_forgotten(row.expires_at):
            return False  # by the ledger it did not leave: a worker looks after it

        def work(tx: Transaction) -> None:
            now = self._clock()
            doubt_open(tx, row, gone=gone, now=now)
            if row.kind == SYSTEM_KIND:
                give_up_system(tx, row, now=now)

        return self._run(work) and row.kind != SYSTEM_KIND

    def _cancel(self, draft_id: str, state: State, gone: Gone | None) -> bool:
        why = "it waited in a database that was restored from a backup"
        if gone is not None:
            why = f"the database was restored; by the ledger attempt {gone.attempt_id} may have sent it"
        return self._run(partial(cancel_restored, draft_id=draft_id, state=state, why=why, now=self._clock()))

    def _run(self, work: Callable[[Transaction], object]) -> bool:
        """Whether it could be done: what moved meanwhile is looked at again. Any other refusal ends the fence."""
        try:
            self._writer.run(work)
        except LostRace:
            return False
        return True


def _gone(ledger: Ledger | None, draft_id: str) -> Gone | None:
    found = ledger.possibly_sent(draft_id) if ledger is not None else None
    return Gone(draft_id, found.attempt, bytes.fromhex(found.wire_digest), found.at) if found is not None else None
