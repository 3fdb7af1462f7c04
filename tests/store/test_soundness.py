"""A look through the whole file ends in time, and the newest instant is that of drafts and workers."""

from __future__ import annotations

from contextlib import closing

import pytest
from sqlalchemy import text

from outbox.store.engine import connect
from outbox.store.soundness import first_fault, newest_instant
from tests.house import HOUR, House

COUNT = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) SELECT count(*) FROM c"


def test_a_new_database_has_no_fault_and_no_instant(house: House) -> None:
    with closing(connect(house.place)) as database:
        assert first_fault(database, seconds=10) is None
        assert newest_instant(database) is None


def test_a_look_that_takes_too_long_is_given_up_and_the_connection_goes_on(house: House) -> None:
    for _ in range(10):
        house.draft(text="Dear Jane,\n" * 10)
    with closing(connect(house.place)) as database:
        with pytest.raises(TimeoutError):
            first_fault(database, seconds=-1)
        with database.reading() as connection:
            assert connection.execute(text(COUNT)).scalar_one() == 100_000
        assert first_fault(database, seconds=10) is None


def test_the_newest_instant_is_of_a_draft_or_of_a_worker_that_came_or_went(house: House) -> None:
    house.draft()
    drafted = house.clock.now
    with closing(connect(house.place)) as database:
        assert newest_instant(database) == drafted
        house.clock.advance(HOUR)
        house.drain()
        assert newest_instant(database) == house.clock.now
