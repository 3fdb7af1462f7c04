"""What every room stands on: keys, database, state folder, permissions, disk, clock, each found wrong where it is."""

from __future__ import annotations

import os
import secrets
import sqlite3
from pathlib import Path

import pytest

from outbox.core.finding import Finding
from outbox.operator.checks import EARLIEST, check
from tests.house import HOUR, SECOND, House

ROOMY = 10**12  # octets
DAY = 24 * HOUR


def found(house: House, *, free: int = ROOMY) -> list[Finding]:
    findings = list(check(house.settings, clock=house.clock, free=lambda _folder: free))
    for one in findings:
        assert one.passed is not False or one.todo, one
    return findings


def marks(house: House, name: str) -> list[str]:
    """The marks of one check."""
    return [one.mark for one in found(house) if one.check == name]


def only(house: House, name: str) -> Finding:
    (finding,) = [one for one in found(house) if one.check == name]
    return finding


def test_a_house_in_order_has_one_warning_and_that_is_about_its_keys(house: House) -> None:
    house.clock.now = _file_system_time(house)
    assert {one.check: one.mark for one in found(house)} == {
        "settings": "ok",
        "key-draft": "ok",
        "key-grant": "ok",
        "separation": "warn",
        "permissions": "ok",
        "database": "ok",
        "database-integrity": "ok",
        "database-revision": "ok",
        "database-guards": "ok",
        "state": "ok",
        "clock": "ok",
        "disk": "ok",
    }


def _file_system_time(house: House) -> int:
    return int((house.folder / "outbox.toml").stat().st_mtime) * SECOND


def test_looking_changes_no_file(house: House) -> None:
    before = _files(house)
    found(house)
    assert _files(house) == before


def _files(house: House) -> dict[str, bytes]:
    return {
        str(file): file.read_bytes()
        for file in house.folder.rglob("*")
        if file.is_file() and not file.name.endswith(("-wal", "-shm"))
    }


# Settings and keys


def test_without_a_settings_file_and_an_environment_init_is_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outbox import config

    monkeypatch.chdir(tmp_path)
    settings, *_ = check(config.load())
    assert settings.passed is False
    assert "outbox init" in settings.todo


@pytest.mark.parametrize("name", ["draft", "grant"])
def test_a_key_that_is_listed_and_missing_is_a_failure(house: House, name: str) -> None:
    (house.folder / "keys" / f"{name}.key").unlink()
    finding = only(house, f"key-{name}")
    assert finding.passed is False
    assert f"{name}.key" in finding.why
    assert "your copy" in finding.todo


def test_a_key_that_nobody_listed_is_none_of_this_user_s_business(house: House) -> None:
    file = house.folder / "outbox.toml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("grant =")))
    (house.folder / "keys" / "grant.key").unlink()
    finding = only(house, "key-grant")
    assert finding.mark == "-"
    assert "elsewhere" in finding.why
    assert marks(house, "separation") == ["ok"]


@pytest.mark.parametrize(
    ("octets", "mode", "words"),
    [(b"x" * 31, 0o600, "31 octets"), (b"x" * 32, 0o640, "0640"), (b"x" * 32, 0o604, "0604")],
    ids=["short", "group-reads", "others-read"],
)
def test_a_key_that_no_room_would_take_is_a_failure(house: House, octets: bytes, mode: int, words: str) -> None:
    file = house.folder / "keys" / "draft.key"
    file.write_bytes(octets)
    file.chmod(mode)
    finding = only(house, "key-draft")
    assert finding.passed is False
    assert words in finding.why


def test_a_key_in_both_rings_is_a_failure(house: House) -> None:
    shared = secrets.token_bytes(32)
    for name in ("draft", "grant"):
        (house.folder / "keys" / f"{name}.key").write_bytes(shared)
    finding = only(house, "separation")
    assert finding.passed is False
    assert "keys.draft lists too" in finding.why
    assert finding.todo == "make another"


def test_one_user_with_both_keys_is_told_of_the_terminal_until_it_is_closed(house: House) -> None:
    assert 'approval.terminal = "off"' in only(house, "separation").todo
    house.set("approval", terminal='"off"')
    finding = only(house, "separation")
    assert finding.mark == "warn"
    assert "terminal" not in finding.todo


# Permissions


@pytest.mark.parametrize(
    "name", ["outbox.toml", pytest.param("outbox.db", marks=pytest.mark.sqlite), "keys", "state", "."]
)
def test_what_every_user_can_write_is_a_failure(house: House, name: str) -> None:
    path = house.folder / name
    path.chmod(path.stat().st_mode | 0o002)
    findings = [one for one in found(house) if one.check == "permissions"]
    assert [one.mark for one in findings] == ["FAIL"]
    assert findings[0].todo == f"chmod o-w {house.settings.path(Path(name)) if name != '.' else house.folder}"


@pytest.mark.parametrize("name", ["outbox.toml", "keys"])
def test_settings_and_keys_that_a_group_can_write_are_a_warning(house: House, name: str) -> None:
    path = house.folder / name
    path.chmod(path.stat().st_mode | 0o020)
    finding = only(house, "permissions")
    assert finding.mark == "warn"
    assert finding.todo == f"chmod g-w {path}"


def test_a_folder_in_which_others_can_replace_nothing_may_be_open(house: House) -> None:
    house.folder.chmod(0o1777)
    assert marks(house, "permissions") == ["ok"]


@pytest.mark.sqlite  # it is about the file's mode
def test_a_database_that_the_rooms_group_can_write_is_as_it_should_be(house: House) -> None:
    house.database.chmod(0o660)
    assert marks(house, "permissions") == ["ok"]


# The database


def test_a_missing_database_is_a_failure_and_the_rest_is_looked_at(house: House) -> None:
    if house.url is None:
        house.database.unlink()
    else:
        house.set("database", url=f'"{house.url.replace(house.name, "outbox_of_nobody")}"')
    findings = {one.check: one for one in found(house)}
    assert findings["database"].passed is False
    assert ("outbox init" if house.url is None else "docs/howto/postgresql.md") in findings["database"].todo
    assert findings["state"].passed is True


def test_a_database_of_another_revision_says_how_to_upgrade_it(house: House) -> None:
    with house.connection() as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    finding = only(house, "database-revision")
    assert finding.passed is False
    assert "outbox db upgrade" in finding.todo
    assert marks(house, "database-guards") == []


def test_a_guard_that_is_gone_is_a_failure(house: House) -> None:
    with house.connection() as connection:
        connection.execute("DROP TRIGGER drafts_edges")
    finding = only(house, "database-guards")
    assert finding.passed is False
    assert "drafts_edges" in finding.why


@pytest.mark.sqlite
def test_a_file_that_is_no_database_is_a_failure(house: House) -> None:
    house.database.write_bytes(b"not a database at all, but long enough to be looked at " * 100)
    finding = only(house, "database")
    assert finding.passed is False
    assert "not a database" in finding.why


@pytest.mark.sqlite  # a server's pages are its own to check
def test_a_damaged_page_is_found(house: House) -> None:
    for number in range(20):
        house.draft(subject=f"Offer {number}", text="Dear Jane,\n" + "here it is.\n" * 200)
    with sqlite3.connect(house.database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'drafts_message_id'").fetchone()
    connection.close()
    with house.database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(os.urandom(size))
    finding = only(house, "database-integrity")
    assert finding.passed is False
    assert "backup" in finding.todo


# State folder, clock, disk


def test_a_state_folder_that_is_not_there_yet_is_no_fault(house: House) -> None:
    (house.folder / "state").rmdir()
    assert marks(house, "state") == ["-"]


def test_a_state_folder_that_is_a_file_is_a_failure(house: House) -> None:
    (house.folder / "state").rmdir()
    (house.folder / "state").write_text("")
    finding = only(house, "state")
    assert finding.passed is False
    assert "Not a directory" in finding.why


def test_a_clock_of_years_ago_is_a_failure(house: House) -> None:
    house.clock.now = EARLIEST - SECOND
    findings = [one for one in found(house) if one.check == "clock"]
    assert [one.mark for one in findings if "years ago" in one.why] == ["FAIL"]


@pytest.mark.parametrize(("behind", "mark"), [(4 * 60 * SECOND, "ok"), (6 * 60 * SECOND, "FAIL"), (DAY, "FAIL")])
def test_a_clock_behind_the_database_is_a_failure_beyond_the_grace(house: House, behind: int, mark: str) -> None:
    house.draft()
    house.clock.advance(-behind)
    (finding,) = [one for one in found(house) if one.check == "clock" and "dated" not in one.why]
    assert finding.mark == mark


@pytest.mark.parametrize("apart", [HOUR, -HOUR], ids=["behind", "ahead"])
def test_a_file_system_with_another_clock_is_a_warning(house: House, apart: int) -> None:
    house.clock.now = _file_system_time(house) + apart
    (finding,) = [one for one in found(house) if one.check == "clock" and "dated" in one.why]
    assert finding.mark == "warn"
    assert ("behind" if apart > 0 else "ahead") in finding.why


@pytest.mark.parametrize(
    ("free", "mark"), [(100_000_000, "ok"), (99_999_999, "warn"), (20_000_000, "warn"), (19_999_999, "FAIL")]
)
def test_a_full_disk_is_a_warning_first_and_then_a_failure(house: House, free: int, mark: str) -> None:
    assert [one.mark for one in found(house, free=free) if one.check == "disk"] == [mark]
