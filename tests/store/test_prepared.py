"""Prepared changes: however many rows go into one statement, each is changed by what was given for it, and counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import Update, insert, literal, update

from outbox.core.errors import StateRefused
from outbox.core.lifecycle import Room
from outbox.store.prepared import Given, PreparedChange
from outbox.store.schema import workers
from outbox.store.writer import Transaction
from tests.store.stage import Stage

SIZES = [1, 2, 3, 31, 32, 33, 70]
BEGIN = PreparedChange(insert(workers), "id", "host", "pid", "started_at")


def _end(given: Given) -> Update:
    here = workers.c.host == literal("it's here")
    return update(workers).where(here, workers.c.id == given["id"], workers.c.ended_at.is_(None)).values(
        ended_at=given["at"]
    )  # fmt: skip


END = PreparedChange(_end, "id", "at")


def begun(stage: Stage, count: int) -> int:
    rows = [(f"w{number}", "it's here", number, 1000 + number) for number in range(count)]
    return stage.run(Room.WORKER, lambda tx: BEGIN.many(tx.connection, rows))


def ended(stage: Stage, numbers: Sequence[int]) -> int:
    rows = [(f"w{number}", 5000 + number) for number in numbers]
    return stage.run(Room.WORKER, lambda tx: END.many(tx.connection, rows))


@pytest.mark.parametrize("count", SIZES)
def test_each_row_gets_what_was_given_for_it(stage: Stage, count: int) -> None:
    assert begun(stage, count) == count
    assert ended(stage, range(count)) == count
    assert sorted(stage.rows("SELECT pid, id, started_at, ended_at FROM workers")) == [
        (number, f"w{number}", 1000 + number, 5000 + number) for number in range(count)
    ]


def test_a_row_that_is_not_there_any_more_is_not_counted_and_the_others_are(stage: Stage) -> None:
    begun(stage, 40)
    assert ended(stage, [17]) == 1
    assert ended(stage, range(45)) == 39
    assert stage.rows("SELECT count(*) FROM workers WHERE ended_at IS NULL") == [(0,)]


def test_a_row_that_is_named_twice_is_counted_once(stage: Stage) -> None:
    begun(stage, 3)
    assert ended(stage, [0, 1, 1, 2]) == 3


def test_where_one_of_many_is_refused_none_is_stored(stage: Stage) -> None:
    def twice(tx: Transaction) -> None:
        BEGIN.many(tx.connection, [(f"w{number % 20}", "here", number, 1) for number in range(40)])

    with pytest.raises(StateRefused):
        stage.run(Room.WORKER, twice)
    assert stage.rows("SELECT count(*) FROM workers") == [(0,)]
