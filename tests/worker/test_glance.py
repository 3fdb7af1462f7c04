"""A glance at a ledger: its newest lines, which are enough to see that all is well, and lead to all of it if not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from outbox.agreement import disagreement
from outbox.core.errors import Code
from outbox.core.ledger_line import Line
from outbox.ledger import NAME, Entered, Ledger, LedgerRefused
from outbox.store.engine import connect
from tests.house import House
from tests.worker.hand import ledger_of
from tests.worker.test_forgetting import DATABASE, LIVE, RING, append, heard, sent
from tests.worker.test_forgetting import folder as folder  # noqa: PLC0414  the fixture

WINDOW = 4000  # octets


def glance(folder: Path, octets: int = WINDOW) -> Ledger:
    return Ledger.open(folder, RING, DATABASE, read_only=True, newest=octets)


def long(folder: Path, count: int = 40) -> bytes:
    append(folder, *(line for n in range(count) for line in sent(str(n), expires_at=LIVE)))
    return (folder / NAME).read_bytes()


def test_a_glance_knows_the_newest_and_whose_it_is(folder: Path) -> None:
    size = len(long(folder))
    with closing(glance(folder)) as ledger:
        assert ledger.size == size
        assert ledger.possibly_sent("draft 39") is not None
        assert ledger.possibly_sent("draft 0") is None
        assert ledger.index.database == DATABASE


@pytest.mark.parametrize("octets", [1, 100, 10**6])
def test_where_no_line_begins_in_it_or_all_do_a_glance_reads_what_there_is(folder: Path, octets: int) -> None:
    size = len(long(folder))
    with closing(glance(folder, octets)) as ledger:
        assert ledger.size == size


def test_an_altered_line_within_it_is_seen_and_one_before_it_is_left_to_who_reads_all(folder: Path) -> None:
    whole = long(folder)
    (folder / NAME).write_bytes(whole.replace(b'"draft 0"', b'"draft 9"', 1))
    glance(folder).close()
    with pytest.raises(LedgerRefused):
        Ledger.open(folder, RING, DATABASE, read_only=True)
    (folder / NAME).write_bytes(whole.replace(b'"draft 39"', b'"draft 93"', 1))
    with pytest.raises(LedgerRefused, match="is not what was written"):
        glance(folder)


@pytest.mark.parametrize("line", [0, -10], ids=["the first", "the one before"])
def test_what_a_glance_begins_with_is_verified(folder: Path, line: int) -> None:
    lines = long(folder).splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"mac":"', b'"mac":"z', 1)[: len(lines[line]) - 1] + b"\n"
    (folder / NAME).write_bytes(b"".join(lines))
    octets = sum(map(len, lines[line + 1 :])) + 1 if line else WINDOW
    with pytest.raises(LedgerRefused):
        glance(folder, octets)


def test_of_another_database_a_glance_is_refused(folder: Path) -> None:
    long(folder)
    with pytest.raises(LedgerRefused, match="another database"):
        Ledger.open(folder, RING, "11" * 16, read_only=True, newest=WINDOW)


def refused(house: House) -> LedgerRefused | None:
    with closing(connect(house.place)) as database:
        return disagreement(house.settings.state_dir, house.settings.grant_ring(), database, at_a_glance=True)


def gap(house: House, name: str) -> Entered:
    return Entered(f"draft {name}", f"attempt {name}", "d" * 64, (), "0" * 64, house.clock())


def long_since(house: House, *lines: Line) -> None:
    """What left, and far behind it the newest lines."""
    house.approved()
    house.drain()
    with ledger_of(house) as ledger:
        ledger.append(lines)
    assert (house.settings.state_dir / NAME).stat().st_size > 64 * 1024


def test_what_left_long_before_the_newest_lines_is_not_missed(house: House) -> None:
    long_since(house, *(heard(str(n)) for n in range(400)))
    assert refused(house) is None


def test_what_is_told_of_a_ledger_that_is_ahead_is_told_of_all_of_it(house: House) -> None:
    long_since(house, *(gap(house, str(n)) for n in range(400)))
    found = refused(house)
    assert found is not None
    assert found.code is Code.LEDGER_AHEAD
    assert "has 400 attempts" in found.message


def test_where_the_newest_lines_name_no_gap_the_others_are_read(house: House) -> None:
    """A database of before the first mail, and at the ledger's end only what was heard of the last ones."""
    with ledger_of(house) as ledger:
        ledger.append([gap(house, "left"), *(heard(str(n)) for n in range(400))])
    found = refused(house)
    assert found is not None
    assert found.code is Code.LEDGER_AHEAD
