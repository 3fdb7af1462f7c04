"""A disk that is full or read-only and a database that is locked: a clear error or a pause, never a wrong send."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outbox.core.errors import Code, Unavailable
from outbox.core.lifecycle import State
from tests.crash.faults_table import Tally, write
from tests.faults.disks import (
    HELD,
    PATIENCE,
    Limited,
    Mounted,
    can_mount,
    home_on,
    lines_of,
    mounted,
    wait_for,
    worker_of,
)
from tests.faults.truth import assert_the_promises_hold, rows_of
from tests.house import HOUR, SALES, House
from tests.worker.hand import draining, ended

MOUNTABLE = can_mount()
DISKS = ["no_file_grows", *(["no_space_left"] if MOUNTABLE else [])]
needs_a_mount = pytest.mark.skipif(not MOUNTABLE, reason="needs root and a file system of its own")


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Limited | Mounted]:
    if request.param == "no_file_grows":
        yield Limited(tmp_path / "disk")
        return
    with mounted(tmp_path / "disk") as made:
        yield made


# Full. On a server its disk is the ledger's alone: that has a test of its own.


@pytest.mark.sqlite
@pytest.mark.parametrize("moment", ["DATA", "dot", pytest.param("MAIL", marks=pytest.mark.torture)])
def test_a_disk_that_is_full_for_a_while_neither_sends_wrongly_nor_forgets(
    disk: Limited | Mounted, moment: str
) -> None:
    tally = Tally("full disk", faults=1)
    with home_on(disk.folder / "home", HELD[moment]) as (house, relay, draft_id), worker_of(house) as process:
        relay.wait_until_holding()
        disk.fill(process)
        relay.release()
        wait_for(process, str(house.database))
        sent = moment == "dot"
        assert relay.drafts[draft_id] == sent
        disk.empty(process)
        code, said = ended(process)
        assert code in {0, 69}, said
        assert "Traceback" not in said
        relay.settle()
        assert [row.state for row in rows_of(house)] == [State.COMPLETED if sent else State.APPROVED]
        house.clock.advance(HOUR)
        house.drain()
        assert [row.state for row in rows_of(house)] == [State.COMPLETED]
        assert_the_promises_hold(house, relay, tally)
    write([tally])


@pytest.mark.sqlite
def test_a_worker_that_dies_on_a_full_disk_with_an_outcome_in_its_hands_leaves_doubt(disk: Limited | Mounted) -> None:
    tally = Tally("full disk", faults=1)
    with home_on(disk.folder / "home", HELD["dot"]) as (house, relay, draft_id):
        with worker_of(house) as process:
            relay.wait_until_holding()
            disk.fill(process)
            relay.release()
            wait_for(process, str(house.database))
            process.kill()
            process.communicate()
        if isinstance(disk, Mounted):
            disk.empty()
        house.clock.advance(HOUR)
        house.drain()
        relay.settle()
        assert relay.drafts[draft_id] == 1
        (row,) = rows_of(house)
        assert row.state is State.COMPLETED or row.is_in_doubt  # the ledger may have had room for what was heard
        assert_the_promises_hold(house, relay, tally)
    write([tally])


@needs_a_mount
def test_a_worker_does_not_start_on_a_full_disk_and_says_which(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk, home_on(disk.folder / "home") as (house, relay, draft_id):
        disk.fill()
        with worker_of(house) as process:
            code, said = ended(process)
        assert code in {69, 78}, said
        assert str(disk.folder) in said.splitlines()[-1]
        assert "Traceback" not in said
        disk.empty()
        house.drain()
        assert relay.drafts[draft_id] == 1


def leave_no_room_for_a_gap(house: House, ledger: Path) -> None:
    """Send until the ledger's next line needs another page: a full file system still has the rest of this one."""
    page = 4096
    for number in range(40):
        house.set("thermal", count="1000")
        house.drain()
        line = max(map(len, lines_of(ledger)))
        if -ledger.stat().st_size % page < line:
            return
        house.approved(subject=f"Offer {number}")
    raise AssertionError("no line ended near the end of a page")


@needs_a_mount
@pytest.mark.parametrize("moment", ["DATA", pytest.param("dot", marks=pytest.mark.torture)])
def test_where_only_the_ledger_s_disk_is_full_no_dot_follows_and_nothing_heard_is_forgotten(
    tmp_path: Path, moment: str
) -> None:
    tally = Tally("full disk", faults=1)
    with mounted(tmp_path / "disk") as disk, home_on(tmp_path / "home") as (house, relay, _):
        house.set("database", state_dir=f'"{disk.folder}/state"')
        leave_no_room_for_a_gap(house, disk.folder / "state" / "ledger")
        held = house.approved(subject="Held").id
        relay.scripts = [*({} for _ in range(relay.connections)), HELD[moment]]
        before = relay.dots_of(SALES)
        with worker_of(house) as process:
            relay.wait_until_holding()
            disk.fill()
            relay.release()
            code, said = ended(process, PATIENCE)
            assert "Traceback" not in said
            assert code in {0, 69}, said
        relay.settle()
        assert relay.drafts[held] == (moment == "dot")
        assert relay.dots_of(SALES) - before == (moment == "dot")
        disk.empty()
        house.clock.advance(HOUR)
        house.drain()
        assert relay.drafts[held] == 1
        assert_the_promises_hold(house, relay, tally)
    write([tally])


# Read-only


@needs_a_mount
def test_a_read_only_disk_is_one_line_and_nothing_is_sent(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk, home_on(disk.folder / "home") as (house, relay, draft_id):
        subprocess.run(["mount", "-o", "remount,ro", disk.folder], check=True)
        with worker_of(house) as process:
            code, said = ended(process)
        assert code in {69, 78}, said
        assert str(disk.folder) in said.splitlines()[-1]
        assert "Traceback" not in said
        assert relay.messages == []
        subprocess.run(["mount", "-o", "remount,rw", disk.folder], check=True)
        house.drain()
        assert relay.drafts[draft_id] == 1


# Locked


@contextmanager
def locked(house: House) -> Iterator[None]:
    """Another writer holds the database."""
    with house.connection() as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def said_of_a_lock(house: House) -> str:
    return "database is locked" if house.url is None else "due to lock timeout"


@pytest.mark.parametrize("moment", ["DATA", "dot"])
def test_a_database_that_is_locked_for_a_moment_delays_and_nothing_more(tmp_path: Path, moment: str) -> None:
    with home_on(tmp_path / "home", HELD[moment]) as (house, relay, draft_id):
        with draining(house):
            relay.wait_until_holding()
            with locked(house):
                relay.release()
                relay.pause(0)
                assert relay.drafts[draft_id] == (moment == "dot")
        assert [row.state for row in rows_of(house)] == [State.COMPLETED]
        assert relay.drafts[draft_id] == 1


@pytest.mark.torture
@pytest.mark.parametrize("moment", HELD)
def test_a_database_that_stays_locked_sends_nothing_and_keeps_what_was_heard(tmp_path: Path, moment: str) -> None:
    tally = Tally("locked database", faults=1)
    with home_on(tmp_path / "home", HELD[moment]) as (house, relay, draft_id):
        with worker_of(house) as process:
            relay.wait_until_holding()
            with locked(house):
                relay.release()
                wait_for(process, said_of_a_lock(house))
                assert relay.drafts[draft_id] == (moment == "dot")
            code, said = ended(process, PATIENCE)
            assert code in {0, 69}, said
        house.clock.advance(HOUR)
        house.drain()
        assert relay.drafts[draft_id] == 1
        assert_the_promises_hold(house, relay, tally)
    write([tally])


@pytest.mark.torture
def test_a_drain_of_a_locked_database_is_one_line(tmp_path: Path) -> None:
    with home_on(tmp_path / "home") as (house, relay, draft_id):
        with locked(house), pytest.raises(Unavailable, match=said_of_a_lock(house)) as told:
            house.drain()
        assert told.value.code is Code.DATABASE_UNAVAILABLE
        assert relay.messages == []
        house.drain()
        assert relay.drafts[draft_id] == 1
