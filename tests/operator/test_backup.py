"""A backup is one moment of the database, whole, and is made while others write."""

from __future__ import annotations

import os
import resource
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outbox.core.errors import Code, ConfigError, OutboxError, Unavailable
from outbox.operator.backup import backup
from tests.house import House
from tests.operator.stuck import Stuck, stuck_in

pytestmark = pytest.mark.sqlite  # `outbox backup` is for files


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    return stuck_in(tmp_path)


def tables(file: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row, table by table."""
    with sqlite3.connect(file) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    connection.close()
    return rows


def others(file: Path) -> list[str]:
    """What a backup left beside itself."""
    return [one.name for one in file.parent.iterdir() if one.name.startswith(file.name) and one != file]


def refused(house: House, file: Path) -> OutboxError:
    """A refusal that left no half file."""
    before = file.is_symlink() or file.is_file()
    with pytest.raises(OutboxError) as told:
        backup(house.settings, file)
    assert (file.is_symlink() or file.is_file()) == before
    assert not file.parent.is_dir() or others(file) == []
    return told.value


def test_a_backup_has_every_row_and_the_same_identity(stuck: Stuck, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    octets = backup(stuck.house.settings, file)
    assert octets == file.stat().st_size
    assert tables(file) == tables(stuck.house.database)
    assert len(tables(file)["identity"]) == 1


def test_a_backup_is_one_file_that_only_its_owner_reads(stuck: Stuck, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    before = os.umask(0)
    try:
        backup(stuck.house.settings, file)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600
    assert others(file) == []
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_backup_put_back_is_an_outbox(stuck: Stuck, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    backup(stuck.house.settings, file)
    for ending in ("", "-wal", "-shm"):
        Path(f"{stuck.house.database}{ending}").unlink(missing_ok=True)
    file.rename(stuck.house.database)
    assert stuck.case("gap").finding == "unknown"
    stuck.house.draft()


def test_what_is_there_already_is_never_written_over(stuck: Stuck, tmp_path: Path) -> None:
    file, target = tmp_path / "backup.db", tmp_path / "precious"
    file.write_bytes(b"last night's")
    told = refused(stuck.house, file)
    assert isinstance(told, ConfigError)
    assert told.code is Code.FILE_EXISTS
    assert file.read_bytes() == b"last night's"
    file.unlink()
    file.symlink_to(target)
    assert refused(stuck.house, file).code is Code.FILE_EXISTS
    assert not target.exists()


@pytest.mark.parametrize("where", ["nowhere/backup.db", "outbox.toml/backup.db"])
def test_where_no_file_can_be_made_it_says_so(stuck: Stuck, tmp_path: Path, where: str) -> None:
    told = refused(stuck.house, tmp_path / where)
    assert isinstance(told, Unavailable)
    assert where in told.message


def test_a_full_disk_leaves_no_half_file(stuck: Stuck, tmp_path: Path) -> None:
    """The kernel's limit on a file's size stands for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        assert isinstance(refused(stuck.house, tmp_path / "backup.db"), Unavailable)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    backup(stuck.house.settings, tmp_path / "backup.db")


def test_a_database_of_another_revision_can_be_backed_up(stuck: Stuck, tmp_path: Path) -> None:
    """That is what is asked for before `outbox db upgrade`."""
    with stuck.house.connection() as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    backup(stuck.house.settings, tmp_path / "backup.db")
    assert tables(tmp_path / "backup.db")["alembic_version"] == [("0001",)]


def test_where_there_is_no_database_none_is_made(stuck: Stuck, tmp_path: Path) -> None:
    stuck.house.database.unlink()
    assert refused(stuck.house, tmp_path / "backup.db").code is Code.DATABASE_MISSING


@pytest.mark.parametrize(
    "megabytes",
    [
        3,
        pytest.param(200, marks=pytest.mark.torture),
    ],
)
def test_a_backup_made_while_a_writer_writes_is_sound_and_ends(stuck: Stuck, tmp_path: Path, megabytes: int) -> None:
    house, file = stuck.house, tmp_path / "backup.db"
    with house.connection() as connection:
        connection.execute("CREATE TABLE ballast (octets BLOB)")
        connection.execute(
            "INSERT INTO ballast WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "SELECT zeroblob(1000000) FROM n",
            (megabytes,),
        )
        connection.execute("CREATE TABLE numbers (number INTEGER)")
    with writing_on(house) as writer:
        backup(house.settings, file)
        assert writer.is_alive(), "it ended only because the writer did"
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        numbers = [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]
    connection.close()
    assert numbers == list(range(1, len(numbers) + 1))


@contextmanager
def writing_on(house: House) -> Iterator[threading.Thread]:
    """A writer that commits a number after the other, as fast as it can, for half a minute at most."""
    begun, ends = threading.Event(), threading.Event()

    def write() -> None:
        until = time.monotonic() + 30
        with house.connection() as connection:
            number = 0
            while not ends.is_set() and time.monotonic() < until:
                number += 1
                connection.execute("INSERT INTO numbers VALUES (?)", (number,))
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(30)
    try:
        yield writer
    finally:
        ends.set()
        writer.join()
