"""The one thread that writes: it does whatever transitions wait in one transaction, and has their waiters woken.

Each runs under a savepoint of its own, so that a loser fails alone; those of one kind are done together first, and one
by one only where that fails. A waiter hears nothing before COMMIT has returned; where COMMIT itself fails its fate is
unknown, every waiter gets CommitUnknown, and nobody acts on what was asked.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from outbox.core.errors import Code, StateRefused, Unavailable
from outbox.core.lifecycle import Room
from outbox.store.dialect import refuse_ended
from outbox.store.engine import Database, first_line
from outbox.store.following import Follower
from outbox.store.journal import Chain, Fact, detail_text
from outbox.store.waiting import Batch, Batches, CommitUnknown, Waiter, Waiting, Work, give_up_all, waiting_now

Result = TypeVar("Result")
LEFT_FREE = 0.0005  # seconds between back-to-back commits, so that another process's "stop" gets the lock


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a transition may use: the connection, and the journal of the room that writes."""

    connection: Connection
    chain: Chain
    undone: int = 0  # how often anything of this writer was undone: what was counted before may not be so

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
        self.journal_many([Fact(action, draft_id, attempt_id, detail_text(detail or {}))], now=now)

    def journal_many(self, facts: Sequence[Fact], *, now: int) -> None:
        """Record many things of one kind that this transaction does."""
        self.chain.append(facts, now=now)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a room does around a transaction.

    `before_begin` is given what came with `first`, in the writer's thread; `after_commit` what came with `then`, in a
    thread of its own, once COMMIT has returned and before those with whom it came are woken: where that raises an
    OutboxError, they get it.
    """

    before_begin: Callable[[Sequence[Any]], None]
    after_commit: Callable[[Sequence[Any]], None]


class Writer:
    """Owns the write connection of one process. `submit` from any thread; `close` when the room is left."""

    def __init__(self, database: Database, chain: Chain, hooks: Hooks | None = None) -> None:
        self._database, self._chain, self._hooks = database, chain, hooks
        self._follower = Follower(hooks.after_commit) if hooks is not None else None
        self._has_ended = threading.Event()
        self._undone = 0
        self._unsure = False  # whether the last COMMIT's fate is not known
        self._batches: Batches = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Transaction], Result]) -> Future[Result]:
        """Ask for `work` in the next transaction; its result, or its own error, comes after COMMIT."""
        future: Future[Result] = Future()
        self.submit_all([Waiting(_alone, work, future)], _settle)
        return future

    def submit_all(self, asked: Sequence[Waiting], wake: Callable[[Sequence[Waiting]], None]) -> None:
        """Ask for many in one transaction; `wake` is called with those that are stored, in a thread of the writer's.

        That is once for those that nothing comes after, and once for the others.
        """
        self._batches.put(Batch(asked, wake))
        if not self.is_alive:
            give_up_all(self._batches)

    @property
    def is_alive(self) -> bool:
        """Whether anything that is submitted would be done."""
        return not self._has_ended.is_set() and (self._follower is None or self._follower.is_alive)

    def run(self, work: Callable[[Transaction], Result]) -> Result:
        """`submit`, and wait for it."""
        return self.submit(work).result()

    def close(self) -> None:
        """Do what was submitted, then stop."""
        self._batches.put(None)
        self._thread.join()
        if self._follower is not None:
            self._follower.close()

    def _run(self) -> None:
        with ExitStack() as at_end:
            at_end.callback(give_up_all, self._batches)
            at_end.callback(self._has_ended.set)
            while (first := self._batches.get()) is not None:
                batches, closing = waiting_now(self._batches, first)
                with ExitStack() as unless_done:
                    for batch in batches:
                        unless_done.callback(batch.give_up)
                    self._commit(
                        [
                            one
                            for batch in batches
                            for one in batch.asked
                            if _is_wanted(one.waiter) or one.first is not None
                        ]
                    )
                    for batch in batches:
                        self._end(batch)
                    unless_done.pop_all()
                if closing:
                    return
                if not self._batches.empty():
                    time.sleep(LEFT_FREE)

    def _end(self, batch: Batch) -> None:
        if self._follower is None:
            batch.end()
        elif (followed := batch.end_but_followed()) is not None:
            self._follower.follow(followed)

    def _commit(self, asked: Sequence[Waiting]) -> None:
        if self._hooks is not None and (lines := [one.first for one in asked if one.first is not None]):
            self._hooks.before_begin(lines)
        try:
            if not self._commit_all(asked):
                with self._transaction() as connection:
                    for work, together in _by_work(asked):
                        self._attempt(connection, work, together)
        except (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError) as error:
            self._unsure = True
            self._undone += 1
            unknown = CommitUnknown(Code.DATABASE_UNAVAILABLE, f"{self._database.name}: {_words(error)}")
            for one in asked:
                one.error = unknown

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._database.writer.connect() as connection, connection.begin():
            if self._unsure:
                self._chain.resume(connection)
                self._unsure = False
            yield connection
            refuse_ended(connection)
            self._chain.write(connection)

    def _commit_all(self, asked: Sequence[Waiting]) -> bool:
        """Do what can be done together without a savepoint; False where anything was refused, and all of it undone.

        What is like no other's is not done twice.
        """
        if any(one.work is _alone for one in asked):
            return False
        before = self._chain.mark
        try:
            with self._transaction() as connection:
                before = self._chain.mark  # after a COMMIT of unknown fate it is only now where it was stored
                for work, together in _by_work(asked):
                    if self._tried(connection, work, together) is not None:
                        raise _UndoneError  # noqa: TRY301  it is what rolls back
        except _UndoneError:
            self._chain.go_back(before)
            return False
        return True

    def _attempt(self, connection: Connection, work: Work, asked: Sequence[Waiting]) -> None:
        before = self._chain.mark
        connection.exec_driver_sql("SAVEPOINT outbox")
        error = self._tried(connection, work, asked)
        if error is not None:  # where it cannot be undone, as on a full disk, the fate of the whole COMMIT is unknown
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT outbox")
            self._chain.go_back(before)
        connection.exec_driver_sql("RELEASE SAVEPOINT outbox")
        if error is not None and len(asked) == 1:
            asked[0].error = _in_words(error, self._database.name)
        elif error is not None:
            for one in asked:
                self._attempt(connection, work, [one])

    def _tried(self, connection: Connection, work: Work, asked: Sequence[Waiting]) -> Exception | None:
        """Do it, and keep the results; what was raised is the waiter's own."""
        try:
            results = work(Transaction(connection, self._chain, self._undone), [one.item for one in asked])
        except Exception as error:  # noqa: BLE001  it is raised where it was asked for, and the others go on
            self._undone += 1
            return error
        for one, result in zip(asked, results, strict=True):
            one.result, one.is_done = result, True
        return None


class _UndoneError(Exception):
    """Something in a transaction was refused: all of it is rolled back, and done again one by one."""


def _is_wanted(waiter: Waiter) -> bool:
    """Whether anybody still waits; from here on one who waits in a thread cannot give it up."""
    return waiter.set_running_or_notify_cancel() if isinstance(waiter, Future) else not waiter.cancelled()


def _alone(tx: Transaction, works: Sequence[Callable[[Transaction], Any]]) -> Sequence[Any]:
    """Work that is like no other's."""
    return [work(tx) for work in works]


def _by_work(
    asked: Sequence[Waiting],
) -> Sequence[tuple[Work, Sequence[Waiting]]]:
    """What can be done together, in the order in which it was first asked for; what locks a gate comes last.

    Else one worker that has a gate may wait for a row that counts, and another the other way round.
    """
    alone: list[tuple[Work, Sequence[Waiting]]] = []
    together: dict[object, list[Waiting]] = {}
    for one in asked:
        if one.work is _alone:
            alone.append((one.work, [one]))
        elif one.work in together:
            together[one.work].append(one)
        else:
            together[one.work] = [one]
            alone.append((one.work, together[one.work]))
    return sorted(alone, key=lambda each: each[1][0].is_last)


def _settle(asked: Sequence[Waiting]) -> None:
    """Wake one who waits in a thread."""
    for one in asked:
        future = one.waiter
        if isinstance(future, Future) and not future.cancelled():
            if one.error is None:
                future.set_result(one.result)
            else:
                future.set_exception(one.error)


def _in_words(error: Exception, name: str) -> Exception:
    """What the database said, in the words of the tree; anything else as it is."""
    if isinstance(error, IntegrityError):
        return StateRefused(
            Code.STATE_CONFLICT, f"the database refused it: {first_line(error).removeprefix('outbox: ')}"
        )
    if isinstance(error, SQLAlchemyError):
        return Unavailable(Code.DATABASE_UNAVAILABLE, f"{name}: {_words(error)}")
    return error


def _words(error: BaseException) -> str:
    """The database's own words; where undoing a statement failed too, those about the statement."""
    if isinstance(error.__context__, DBAPIError):
        return _words(error.__context__)
    return first_line(error)
