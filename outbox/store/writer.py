"""The one thread that writes: it does whatever transitions wait in one transaction, and wakes their waiters.

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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from outbox.core.errors import Code, OutboxError, StateRefused, Unavailable
from outbox.core.lifecycle import Room
from outbox.store.dialect import refuse_ended
from outbox.store.engine import Database, first_line
from outbox.store.journal import Chain, Fact, detail_text

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


Work = Callable[[Transaction, Sequence[Any]], Sequence[Any]]  # for items, a result each


class Waiter(Protocol):
    """Whoever waits for a one, and may have given it up before it was begun."""

    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        ...


@dataclass(slots=True)
class Waiting:
    """One transition that is asked for: `work` does it for `item`, and for the items of others that ask the same.

    `work` returns a result for each item, in their order, or raises: then each is done alone. `first` goes to
    `before_begin`, `then` to `after_commit`; what locks a gate `is_last` in its transaction. What became of it is in
    `result` or `error`, after COMMIT.
    """

    work: Work
    item: Any
    waiter: Waiter
    first: object | None = None
    then: object | None = None
    is_last: bool = False
    result: Any = None
    error: Exception | None = None


@dataclass(slots=True)
class _Batch:
    """What one waiter asks for, or many, who are woken together."""

    asked: Sequence[Waiting]
    wake: Callable[[Sequence[Waiting]], None]
    is_over: bool = False

    def end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.wake(self.asked)

    def give_up(self) -> None:
        if not self.is_over:
            for one in self.asked:
                one.error = CommitUnknown(Code.DATABASE_UNAVAILABLE, "the writer has ended; start again")
            self.end()


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a room does around a transaction, in the writer's thread.

    `before_begin` is given what came with `first`; `after_commit` what came with `then`, once COMMIT has returned and
    before anyone is woken: where that raises an OutboxError, those with whom it came get it.
    """

    before_begin: Callable[[Sequence[Any]], None]
    after_commit: Callable[[Sequence[Any]], None]


class Writer:
    """Owns the write connection of one process. `submit` from any thread; `close` when the room is left."""

    def __init__(self, database: Database, chain: Chain, hooks: Hooks | None = None) -> None:
        self._database, self._chain, self._hooks = database, chain, hooks
        self._has_ended = threading.Event()
        self._undone = 0
        self._unsure = False  # whether the last COMMIT's fate is not known
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Transaction], Result]) -> Future[Result]:
        """Ask for `work` in the next transaction; its result, or its own error, comes after COMMIT."""
        future: Future[Result] = Future()
        self.submit_all([Waiting(_alone, work, future)], _settle)
        return future

    def submit_all(self, asked: Sequence[Waiting], wake: Callable[[Sequence[Waiting]], None]) -> None:
        """Ask for many in one transaction; `wake` is called once, in the writer's thread, when all are done."""
        self._batches.put(_Batch(asked, wake))
        if self._has_ended.is_set():
            self._refuse_the_rest()

    @property
    def is_alive(self) -> bool:
        """Whether anything that is submitted would be done."""
        return not self._has_ended.is_set()

    def run(self, work: Callable[[Transaction], Result]) -> Result:
        """`submit`, and wait for it."""
        return self.submit(work).result()

    def close(self) -> None:
        """Do what was submitted, then stop."""
        self._batches.put(None)
        self._thread.join()

    def _run(self) -> None:
        with ExitStack() as at_end:
            at_end.callback(self._refuse_the_rest)
            while True:
                first = self._batches.get()
                if first is None:
                    return
                batches, closing = self._waiting(first)
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
                        batch.end()
                    unless_done.pop_all()
                if closing:
                    return
                if not self._batches.empty():
                    time.sleep(LEFT_FREE)

    def _refuse_the_rest(self) -> None:
        """Nobody waits for a thread that has ended, whatever it ended by."""
        self._has_ended.set()
        with suppress(queue.Empty):
            while True:
                batch = self._batches.get_nowait()
                if batch is not None:
                    batch.give_up()

    def _waiting(self, first: _Batch) -> tuple[list[_Batch], bool]:
        batches, count = [first], len(first.asked)
        while count < MOST_IN_ONE_COMMIT:
            try:
                batch = self._batches.get_nowait()
            except queue.Empty:
                return batches, False
            if batch is None:
                return batches, True
            batches.append(batch)
            count += len(batch.asked)
        return batches, False

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
            return
        self._follow([one for one in asked if one.error is None and one.then is not None])

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

    def _follow(self, asked: Sequence[Waiting]) -> None:
        if not asked or self._hooks is None:
            return
        try:
            self._hooks.after_commit([one.then for one in asked])
        except OutboxError as error:
            if len(asked) == 1 or error.code is not Code.POSSIBLY_SENT:
                for one in asked:
                    one.error = error
                return
            for one in asked:  # one that is refused does not take the others with it
                self._follow([one])

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
            one.result = result
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
