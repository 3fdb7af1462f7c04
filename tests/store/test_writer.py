"""The writer thread: many transitions in one durable transaction, each with a result of its own, after COMMIT."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from outbox.core.errors import Code, PolicyRefused, StateRefused, Unavailable
from outbox.core.lifecycle import Room
from outbox.store.engine import Database, connect
from outbox.store.journal import Chain, Fact
from outbox.store.sqlite import BUSY_TIMEOUT, PRAGMAS
from outbox.store.verdicts import approve_if_pending
from outbox.store.writer import MOST_IN_ONE_COMMIT, CommitUnknown, Hooks, Transaction, Waiting, Writer
from tests.store.stage import RING, Stage, broken_links, journal_of

BOUND = 10.0  # seconds that anything here may take; none of it waits for time to pass


class Hold:
    """Work that keeps the writer's transaction open until the test lets it go."""

    def __init__(self) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()

    def __call__(self, _tx: Transaction) -> None:
        self.reached.set()
        assert self.let_go.wait(BOUND)


def note(words: str) -> Callable[[Transaction], str]:
    """Work that journals and returns `words`."""

    def work(tx: Transaction) -> str:
        tx.journal(words, now=1)
        return words

    return work


def together(writer: Writer, *works: Callable[[Transaction], object]) -> list[Future[object]]:
    """Submit so that all of it is done in one transaction."""
    hold = Hold()
    writer.submit(hold)
    assert hold.reached.wait(BOUND)
    futures = [writer.submit(work) for work in works]
    hold.let_go.set()
    return futures


def noted(stage: Stage) -> list[str]:
    """What a second connection sees in the journal."""
    return [str(action) for (action,) in stage.rows("SELECT action FROM journal ORDER BY seq")]


@pytest.fixture
def writer(stage: Stage) -> Writer:
    return stage.writer(Room.OPERATOR)


# One result each


def test_each_of_many_submits_from_many_threads_gets_its_own_result(stage: Stage, writer: Writer) -> None:
    words = [f"note-{number}" for number in range(400)]
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda word: writer.run(note(word)), words)) == words
    assert sorted(noted(stage)) == sorted(words)
    with stage.house.connection() as connection:
        assert broken_links(journal_of(connection)) == []


def test_more_than_one_commit_takes_is_done_in_the_next(stage: Stage, writer: Writer) -> None:
    words = [f"note-{number}" for number in range(2 * MOST_IN_ONE_COMMIT + 1)]
    futures = together(writer, *map(note, words))
    assert [future.result(BOUND) for future in futures] == words
    assert noted(stage) == words


def test_a_loser_fails_alone_and_leaves_no_row_behind(stage: Stage, writer: Writer) -> None:
    draft_id = stage.insert()
    first, second = stage.grant(draft_id), stage.grant(draft_id, approver="other@acme.example")
    before = len(noted(stage))
    won, lost, after = together(
        writer,
        lambda tx: approve_if_pending(tx, *first, now=stage.clock.now),
        lambda tx: approve_if_pending(tx, *second, now=stage.clock.now),
        note("after"),
    )
    assert won.result(BOUND) is None
    with pytest.raises(StateRefused, match="is approved already"):
        lost.result(BOUND)
    assert after.result(BOUND) == "after"
    assert stage.rows("SELECT id FROM grants") == [(first[0].id,)]
    with stage.house.connection() as connection:
        recorded = journal_of(connection)
    assert [row.entry.action for row in recorded][before:] == ["approve", "grant", "after"]
    assert broken_links(recorded) == []


def test_a_loser_that_had_journalled_takes_the_head_of_the_chain_back(stage: Stage, writer: Writer) -> None:
    def loser(tx: Transaction) -> None:
        tx.journal("lost", now=1)
        tx.journal("lost too", now=1)
        raise PolicyRefused(Code.USAGE, "no")

    futures = together(writer, note("a"), loser, note("b"), loser, note("c"))
    assert [type(future.exception(BOUND)) for future in futures] == [
        type(None),
        PolicyRefused,
        type(None),
        PolicyRefused,
        type(None),
    ]
    with stage.house.connection() as connection:
        recorded = journal_of(connection)
    assert [(row.entry.seq, row.entry.action) for row in recorded] == [(1, "a"), (2, "b"), (3, "c")]
    assert broken_links(recorded) == []


def test_what_the_database_refuses_is_said_in_the_words_of_its_guard(stage: Stage, writer: Writer) -> None:
    draft_id = stage.insert()
    with pytest.raises(StateRefused, match="the database refused it: drafts are never deleted") as refused:
        writer.run(lambda tx: tx.connection.execute(text("DELETE FROM drafts")))
    assert refused.value.code is Code.STATE_CONFLICT
    assert stage.state(draft_id) == "pending"


def test_an_error_of_the_work_itself_comes_back_as_it_is(stage: Stage, writer: Writer) -> None:
    failure = ZeroDivisionError("mine")

    def work(_tx: Transaction) -> None:
        raise failure

    assert writer.submit(work).exception(BOUND) is failure
    assert writer.run(note("alive")) == "alive"
    assert noted(stage) == ["alive"]


def test_a_waiter_that_gave_up_does_not_stop_the_writer(stage: Stage, writer: Writer) -> None:
    hold = Hold()
    writer.submit(hold)
    assert hold.reached.wait(BOUND)
    given_up, other = writer.submit(note("given up")), writer.submit(note("other"))
    given_up.cancel()
    hold.let_go.set()
    assert other.result(BOUND) == "other"
    assert writer.submit(note("next")).result(BOUND) == "next"
    assert noted(stage)[-2:] == ["other", "next"]


def test_a_waiter_cannot_give_up_what_is_being_committed(writer: Writer) -> None:
    hold = Hold()
    running = writer.submit(hold)
    assert hold.reached.wait(BOUND)
    assert running.cancel() is False
    hold.let_go.set()
    assert running.result(BOUND) is None


def test_closing_does_first_what_was_submitted(stage: Stage) -> None:
    writer = stage.writer(Room.INBOX)
    futures = [writer.submit(note(f"note-{number}")) for number in range(50)]
    writer.close()
    assert [future.done() for future in futures] == [True] * 50
    assert len(noted(stage)) == 50


# After COMMIT


def test_no_waiter_is_woken_before_the_commit(stage: Stage, writer: Writer) -> None:
    last = Hold()
    first, second = together(writer, note("first"), last)
    assert last.reached.wait(BOUND)  # the first one's work is done, and its transaction still open
    assert not first.done()
    assert noted(stage) == []
    last.let_go.set()
    assert second.result(BOUND) is None
    assert first.result(BOUND) == "first"
    assert noted(stage) == ["first"]


def test_what_a_waiter_was_told_is_there_for_others_as_he_wakes(stage: Stage, writer: Writer) -> None:
    seen: list[list[str]] = []
    (future,) = together(writer, note("told"))
    future.add_done_callback(lambda _: seen.append(noted(stage)))
    future.result(BOUND)
    writer.run(note("later"))
    assert seen[0][0] == "told"


def dangling(draft_id: str) -> Callable[[Transaction], None]:
    """Work that is accepted, and whose COMMIT is not: the attempt it names is nowhere (a deferred foreign key)."""

    def work(tx: Transaction) -> None:
        tx.journal("dangling", now=1)
        tx.connection.execute(text("UPDATE drafts SET attempt_id = 'nowhere' WHERE id = :id"), {"id": draft_id})

    return work


def test_a_commit_that_fails_leaves_everybody_in_the_unknown(stage: Stage, writer: Writer) -> None:
    draft_id = stage.insert()
    before = noted(stage)
    futures = together(writer, note("before"), dangling(draft_id), note("after"))
    errors = [future.exception(BOUND) for future in futures]
    assert [type(error) for error in errors] == [CommitUnknown] * 3
    assert all(isinstance(error, Unavailable) and stage.database.name in str(error) for error in errors)
    assert noted(stage) == before
    assert stage.rows("SELECT attempt_id FROM drafts") == [(None,)]


def test_the_writer_goes_on_after_a_commit_that_failed(stage: Stage, writer: Writer) -> None:
    draft_id = stage.insert()
    assert writer.run(note("one")) == "one"
    (failed,) = together(writer, dangling(draft_id))
    assert isinstance(failed.exception(BOUND), CommitUnknown)
    assert writer.run(note("two")) == "two"
    with stage.house.connection() as connection:
        recorded = journal_of(connection)
    assert [row.entry.action for row in recorded] == ["insert", "one", "two"]
    assert broken_links(recorded) == []


def test_a_transaction_that_the_database_ended_by_itself_is_unknown_to_everybody(stage: Stage, writer: Writer) -> None:
    ends = "ROLLBACK" if stage.kind == "postgresql" else "INSERT OR ROLLBACK INTO gate (name) VALUES ('mail')"

    def rolls_back(tx: Transaction) -> None:
        tx.connection.execute(text(ends))

    futures = together(writer, note("before"), rolls_back, note("after"))
    assert [type(future.exception(BOUND)) for future in futures] == [CommitUnknown] * 3
    assert noted(stage) == []
    assert writer.run(note("next")) == "next"
    with stage.house.connection() as connection:
        assert broken_links(journal_of(connection)) == []


# The lock

ANOTHER_PROCESS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=float(sys.argv[2]))
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO workers VALUES (?, 'elsewhere', 1, 1, NULL, NULL, 0)", (str(number),))
    connection.execute("COMMIT")
"""


@pytest.mark.sqlite
def test_another_process_gets_its_writes_in_under_back_to_back_load(stage: Stage, writer: Writer) -> None:
    stop, busy = threading.Event(), threading.Semaphore(0)

    def load() -> None:
        while not stop.is_set():
            writer.run(note("load"))
            busy.release()

    with ThreadPoolExecutor(8) as threads:
        loads = [threads.submit(load) for _ in range(8)]
        try:
            assert all(busy.acquire(timeout=BOUND) for _ in range(50))
            arguments = [str(stage.path), str(BUSY_TIMEOUT / 1000), "30"]
            subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, *arguments], timeout=60, check=True)
        finally:
            stop.set()
        for one in loads:
            one.result(BOUND)
    assert stage.rows("SELECT count(*) FROM workers") == [(30,)]


@pytest.mark.sqlite
def test_a_write_transaction_takes_the_lock_as_it_begins(stage: Stage, writer: Writer) -> None:
    hold = Hold()
    writer.submit(hold)
    assert hold.reached.wait(BOUND)
    with (
        closing(sqlite3.connect(stage.path, isolation_level=None, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")
    hold.let_go.set()


def test_readers_go_on_while_a_write_is_open(stage: Stage, writer: Writer) -> None:
    writer.run(note("before"))
    hold = Hold()
    writer.submit(hold)
    assert hold.reached.wait(BOUND)
    assert stage.read(lambda connection: connection.execute(text("SELECT count(*) FROM journal")).scalar_one()) == 1
    hold.let_go.set()


def test_a_reader_sees_one_moment(stage: Stage, writer: Writer) -> None:
    def look(connection: Connection) -> tuple[int, int]:
        count = text("SELECT count(*) FROM journal")
        before = connection.execute(count).scalar_one()
        writer.run(note("meanwhile"))
        return before, connection.execute(count).scalar_one()

    assert stage.read(look) == (0, 0)
    assert noted(stage) == ["meanwhile"]


# Connections


def pragma(connection: Connection, name: str) -> object:
    return connection.execute(text(f"PRAGMA {name}")).scalar_one()


@pytest.mark.sqlite
def test_the_pragmas_are_in_force_on_the_writing_connection(stage: Stage) -> None:
    with stage.database.writer.connect() as connection:
        assert {name: pragma(connection, name) for name in PRAGMAS} == PRAGMAS


@pytest.mark.sqlite
def test_the_pragmas_are_in_force_on_every_reading_connection(stage: Stage) -> None:
    both = threading.Barrier(2)

    def look() -> tuple[dict[str, object], object]:
        with stage.database.reader.connect() as connection:
            both.wait(BOUND)  # so that these are two connections
            return {name: pragma(connection, name) for name in PRAGMAS}, pragma(connection, "query_only")

    with ThreadPoolExecutor(2) as threads:
        looks = [threads.submit(look) for _ in range(2)]
        assert [one.result(BOUND) for one in looks] == [(PRAGMAS, 1)] * 2


def test_a_thread_may_look_while_it_is_looking(stage: Stage) -> None:
    with stage.database.reading() as one, stage.database.reading() as two:
        looks = [each.execute(text("SELECT count(*) FROM journal")).scalar_one() for each in (one, two, one)]
    assert looks == [0, 0, 0]


# In a process of its own: a connection closed under its user takes the whole process with it.
MANY_READERS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sqlalchemy import text
from outbox.store.engine import connect

database, together = connect(Path(sys.argv[1])), threading.Barrier(12)

def look():
    try:
        with database.reading() as connection:
            for _ in range(20):
                together.wait(10)
                connection.execute(text("SELECT count(*) FROM drafts")).scalar_one()
    except BaseException:
        together.abort()
        raise

with ThreadPoolExecutor(12) as threads:
    for one in [threads.submit(look) for _ in range(12)]:
        one.result()
"""


@pytest.mark.sqlite
def test_a_dozen_threads_may_look_at_the_same_time(stage: Stage) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MANY_READERS, str(stage.path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_commit_is_synced_and_conflicts_cannot_go_round_the_triggers() -> None:
    assert (PRAGMAS["journal_mode"], PRAGMAS["synchronous"]) == ("wal", 2)
    assert (PRAGMAS["recursive_triggers"], PRAGMAS["foreign_keys"]) == (1, 1)


def test_a_reading_connection_cannot_write(stage: Stage) -> None:
    with stage.database.reader.connect() as connection, pytest.raises(DBAPIError, match=r"read-?only"):
        connection.execute(text("UPDATE gate SET until = 1, tripped_at = 1"))


def write(database: Database, *, fail: bool) -> None:
    with database.writer.begin() as connection:
        connection.execute(text("INSERT INTO workers VALUES ('w', 'here', 1, 1, NULL, NULL, 0)"))
        if fail:
            raise ZeroDivisionError


def test_commit_commits_and_rollback_rolls_back(stage: Stage) -> None:
    with pytest.raises(ZeroDivisionError):
        write(stage.database, fail=True)
    assert stage.rows("SELECT id FROM workers") == []
    write(stage.database, fail=False)
    assert stage.rows("SELECT id FROM workers") == [("w",)]


def test_a_commit_outlives_its_connection(stage: Stage) -> None:
    write(stage.database, fail=False)
    stage.close()
    reopened = connect(stage.house.place)
    with reopened.reading() as connection:
        assert connection.execute(text("SELECT id FROM workers")).scalars().all() == ["w"]
    reopened.close()


# A thread that ended


@pytest.mark.timeout(20)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_writer_whose_thread_has_ended(stage: Stage) -> None:
    """Out of memory between COMMIT and waking: whoever waits, and whoever comes later, is told that it is unknown."""

    def ends(_lines: Sequence[object]) -> None:
        raise MemoryError

    database = connect(stage.house.place)
    writer = Writer(database, Chain(Room.OPERATOR, "writer", RING), Hooks(ends, ends))
    hold = Hold()
    held = writer.submit(hold)
    assert hold.reached.wait(BOUND)
    ended = threading.Event()
    asked = [Waiting(lambda _, items: items, word, Future(), then="line") for word in ("first", "second")]
    writer.submit_all(asked, lambda _: ended.set())
    waits = writer.submit(note("third"))
    hold.let_go.set()
    assert held.result(BOUND) is None
    assert ended.wait(BOUND)
    for error in (*(one.error for one in asked), waits.exception(BOUND), writer.submit(note("late")).exception(BOUND)):
        assert isinstance(error, CommitUnknown)
    assert not writer.is_alive
    writer.close()
    database.close()


def test_a_chain_that_meets_what_a_hung_commit_stored_after_all_is_taken_up_again(stage: Stage) -> None:
    """A COMMIT that was given up may still be stored: what comes next meets its rows, once."""
    writer = stage.writer(Room.OPERATOR)
    writer.run(note("one"))
    late = connect(stage.house.place)
    hung = Chain(Room.OPERATOR, "1", RING)
    with late.writer.begin() as connection:
        hung.resume(connection)
        hung.append([Fact("hung")], now=1)
        hung.write(connection)
    late.close()
    with pytest.raises(CommitUnknown):
        writer.run(note("two"))
    writer.run(note("three"))
    assert noted(stage) == ["one", "hung", "three"]
    with stage.house.connection() as connection:
        assert broken_links(journal_of(connection)) == []
