"""The one thread that writes: it does whatever transitions wait in one transaction, and wakes their waiters.

Each runs under a savepoint of its own, so that a loser fails alone. A waiter hears nothing before COMMIT has returned;
where COMMIT itself fails its fate is unknown, every waiter gets CommitUnknown, and nobody acts on what was asked.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from outbox.core.errors import Code, OutboxError, StateRefused, Unavailable
from outbox.core.lifecycle import Room
from outbox.store.engine import Database
from outbox.store.journal import Chain

Result = TypeVar("Result")
MOST_IN_ONE_COMMIT = 256
LEFT_FREE = 0.0005  # seconds between back-to-back commits, so that another process's "stop" gets the lock


class CommitUnknown(Unavailable):
    """COMMIT did not return: what was asked may or may not be stored. Nobody may send on the strength of it."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a transition may use: the connection, and the journal of the room that writes."""

    connection: Connection
    chain: Chain

    @property
    def room(self) -> Room:
        """Whose transition this is."""
        return self.chain.room

    def journal(
        self,
        action: str,
        *,
        now: int,
        draft_id: str | None = None,
        attempt_id: str | None = None,
        detail: Mapping[str, str | int | None] | None = None,
    ) -> None:
        """Record what this transaction does."""
        self.chain.append(self.connection, action, now=now, draft_id=draft_id, attempt_id=attempt_id, detail=detail)


@dataclass(slots=True)
class _Job:
    work: Callable[[Transaction], Any]
    future: Future[Any]
    then: object | None = None
    result: Any = None
    error: Exception | None = None


class Writer:
    """Owns the write connection of one process. `submit` from any thread; `close` when the room is left.

    `after_commit` is given what the jobs of one transaction handed in with `then`, once COMMIT has returned and before
    anyone is woken; where it raises an OutboxError, those who handed it in get that error.
    """

    def __init__(
        self, database: Database, chain: Chain, after_commit: Callable[[Sequence[Any]], None] | None = None
    ) -> None:
        self._database = database
        self._chain = chain
        self._after_commit = after_commit
        self._has_ended = threading.Event()
        self._unsure = False  # whether the last COMMIT's fate is not known
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Transaction], Result], then: object | None = None) -> Future[Result]:
        """Ask for `work` in the next transaction; its result, or its own error, comes after COMMIT."""
        future: Future[Result] = Future()
        self._jobs.put(_Job(work, future, then))
        if self._has_ended.is_set():
            self._refuse_the_rest()
        return future

    @property
    def is_alive(self) -> bool:
        """Whether anything that is submitted would be done."""
        return not self._has_ended.is_set()

    def run(self, work: Callable[[Transaction], Result]) -> Result:
        """`submit`, and wait for it."""
        return self.submit(work).result()

    def close(self) -> None:
        """Do what was submitted, then stop."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        with ExitStack() as at_end:
            at_end.callback(self._refuse_the_rest)
            while True:
                first = self._jobs.get()
                if first is None:
                    return
                jobs, closing = self._waiting(first)
                with ExitStack() as unless_done:
                    unless_done.callback(_give_up, jobs)
                    self._commit(jobs)
                    unless_done.pop_all()
                if closing:
                    return
                if not self._jobs.empty():
                    time.sleep(LEFT_FREE)

    def _refuse_the_rest(self) -> None:
        """Nobody waits for a thread that has ended, whatever it ended by."""
        self._has_ended.set()
        with suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                _give_up([job] if job is not None else [])

    def _waiting(self, first: _Job) -> tuple[list[_Job], bool]:
        jobs = [first]
        while len(jobs) < MOST_IN_ONE_COMMIT:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, False
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _commit(self, jobs: list[_Job]) -> None:
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        try:
            with self._database.writer.connect() as connection, connection.begin():
                if self._unsure:
                    self._chain.resume(connection)
                    self._unsure = False
                for job in jobs:
                    self._attempt(connection, job)
        except (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError) as error:
            self._unsure = True
            unknown = CommitUnknown(Code.DATABASE_UNAVAILABLE, f"{self._database.path}: {_words(error)}")
            for job in jobs:
                job.future.set_exception(unknown)
            return
        self._follow(jobs)
        for job in jobs:
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)

    def _follow(self, jobs: Sequence[_Job]) -> None:
        followed = [job for job in jobs if job.error is None and job.then is not None]
        if not followed or self._after_commit is None:
            return
        try:
            self._after_commit([job.then for job in followed])
        except OutboxError as error:
            if len(followed) == 1 or error.code is not Code.POSSIBLY_SENT:
                for job in followed:
                    job.error = error
                return
            for job in followed:  # one that is refused does not take the others with it
                self._follow([job])

    def _attempt(self, connection: Connection, job: _Job) -> None:
        before = self._chain.seq, self._chain.head
        savepoint = connection.begin_nested()
        try:
            job.result = job.work(Transaction(connection, self._chain))
            savepoint.commit()
        except Exception as error:  # noqa: BLE001  the waiter's own: it is raised there, and the others go on
            savepoint.rollback()  # where even that fails, as on a full disk, the whole COMMIT is unknown
            self._chain.seq, self._chain.head = before
            job.error = _in_words(error, self._database.path)


def _give_up(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(CommitUnknown(Code.DATABASE_UNAVAILABLE, "the writer has ended; start again"))


def _in_words(error: Exception, path: Path) -> Exception:
    """What the database said, in the words of the tree; anything else as it is."""
    if isinstance(error, IntegrityError):
        return StateRefused(Code.STATE_CONFLICT, f"the database refused it: {str(error.orig).removeprefix('outbox: ')}")
    if isinstance(error, SQLAlchemyError):
        return Unavailable(Code.DATABASE_UNAVAILABLE, f"{path}: {_words(error)}")
    return error


def _words(error: BaseException) -> str:
    """SQLite's own words; where undoing a statement failed too, those about the statement."""
    if isinstance(error.__context__, DBAPIError):
        return _words(error.__context__)
    return str(error.orig) if isinstance(error, DBAPIError) else str(error).partition("\n")[0]
