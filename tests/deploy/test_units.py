"""The systemd units: what systemd itself says of them, and the numbers and rights that must agree with the rest."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from outbox.core.errors import ConfigError, NotPermitted, TryLater, Unavailable, UsageError
from outbox.sections import RelaySettings, WorkerSettings
from outbox.store.engine import connect
from tests.contracts.markdown import ROOT, code, page, rows, sections
from tests.deploy.units import SERVICES, SYSTEMD, TIMERS, only, seconds, unit

PROGRAM = "/opt/outbox/bin/outbox"
KEYS = {  # docs/reference/privileges.md, and DESIGN's table of keys
    "outbox-worker.service": {"draft.key", "grant.key", "relay.password"},
    "outbox-inbox.service": {"grant.key", "mailbox.password"},
    "outbox-seal.service": {"draft.key", "grant.key"},
    "outbox-check.service": set(),
    "outbox-backup.service": set(),
    "outbox-failure@.service": set(),
}
ROOMS = [file for file in SERVICES if file.stem in {"outbox-worker", "outbox-inbox"}]
NEWER = re.compile(r"Unknown key (name )?'Restart(Steps|MaxDelaySec)'")  # systemd 254; others ignore the two
MOST_EXPOSED = 20  # tenths: 1.4 with systemd 252; newer ones look at more

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is missing: apt-get install systemd")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they are, but for the program, which is another one that is there."""
    for file in [*SERVICES, *TIMERS]:
        (tmp_path / file.name).write_text(file.read_text().replace(PROGRAM, "/bin/true"))
    return tmp_path


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *words], capture_output=True, text=True, check=False)


def complaints(folder: Path) -> list[str]:
    # a template is verified as one of its instances
    units = [str(file).replace("@.", "@outbox-worker.service.") for file in sorted(folder.iterdir())]
    said = analyze("verify", "--man=no", *units)
    lines = [line for line in said.stderr.splitlines() if not NEWER.search(line)]
    return [*lines, *([f"exit code {said.returncode}"] if said.returncode and not lines else [])]


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    assert complaints(installed) == []


@needs_systemd
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("WatchdogSec=5min", "WatchdogSec=soon"),
        ("NoNewPrivileges=yes", "NoNewPrivilege=yes"),
        ("ExecStart=/bin/true worker", "ExecStart=/nowhere/outbox worker"),
    ],
    ids=["a bad value", "a name that is none", "a program that is not there"],
)
def test_systemd_would_say_what_is_wrong_with_a_unit(installed: Path, before: str, after: str) -> None:
    file = installed / "outbox-worker.service"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    assert complaints(installed) != []


@needs_systemd
@pytest.mark.parametrize("name", [file.name for file in SERVICES])
def test_a_service_is_exposed_as_little_as_said(installed: Path, name: str) -> None:
    ran = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(installed / name))
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_systemd
def test_a_service_without_its_cage_would_be_exposed(installed: Path) -> None:
    file = installed / "outbox-worker.service"
    file.write_text(re.sub(r"^(Protect|Private|Restrict|SystemCall).*\n", "", file.read_text(), flags=re.MULTILINE))
    ran = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(file))
    assert ran.returncode != 0


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is missing")
def test_systemd_makes_the_users_and_the_group_that_the_units_name(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\n")
    file = str(SYSTEMD / "outbox.sysusers.conf")
    ran = subprocess.run(["systemd-sysusers", f"--root={tmp_path}", file], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    users, groups = (
        {line.partition(":")[0] for line in (tmp_path / "etc" / name).read_text().splitlines()}
        for name in ("passwd", "group")
    )
    assert {only(unit(file), "User") for file in SERVICES if "@" not in file.name} <= users
    assert {"outbox", "outbox-state", *users} == groups


def test_each_folder_that_a_unit_writes_is_made_for_who_writes_it() -> None:
    lines = (SYSTEMD / "outbox.tmpfiles.conf").read_text().splitlines()
    made = {words[1]: words[2:5] for line in lines if (words := line.split())[0] == "d"}
    assert made["/etc/outbox/keys"] == ["0700", "root", "root"]
    assert made["/var/lib/outbox"] == ["2770", "root", "outbox"]
    assert made["/var/lib/outbox-state"] == ["1775", "outbox-worker", "outbox-state"]
    for file in SERVICES:
        settings = unit(file)
        folders = " ".join(settings.get("ReadWritePaths", [])).split()
        groups = {*settings.get("Group", []), *settings.get("SupplementaryGroups", [])}
        for folder in folders:
            mode, owner, group = made[folder]
            assert group in groups if mode[2] == "7" else owner == only(settings, "User"), (file.name, folder)


def test_sqlite_s_other_files_take_the_database_s_mode_whatever_the_umask(tmp_path: Path) -> None:
    file = tmp_path / "outbox.db"
    file.touch()
    file.chmod(0o660)
    before = os.umask(0o077)
    try:
        database = connect(file)
        with database.writer.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE one (x)")
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
        database.close()
    finally:
        os.umask(before)
    assert modes == {"outbox.db": 0o660, "outbox.db-wal": 0o660, "outbox.db-shm": 0o660}


def test_there_is_a_unit_for_each_room_and_each_timer_has_its_service() -> None:
    assert {file.name for file in SERVICES} == KEYS.keys()
    assert len(ROOMS) == 2
    assert {file.stem for file in TIMERS} == {"outbox-backup", "outbox-check", "outbox-seal"}
    assert {file.stem for file in TIMERS} <= {file.stem for file in SERVICES}


@pytest.mark.parametrize("file", SERVICES, ids=lambda file: file.name)
def test_each_service_has_the_keys_of_its_room_and_no_other(file: Path) -> None:
    assert {value.partition(":")[0] for value in unit(file).get("LoadCredential", [])} == KEYS[file.name]


@pytest.mark.parametrize("file", SERVICES, ids=lambda file: file.name)
def test_each_service_is_caged_and_none_is_root(file: Path) -> None:
    settings = unit(file)
    for name, value in (
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
    ):
        assert only(settings, name) == value
    assert settings["CapabilityBoundingSet"] == []
    assert settings.get("User", ["root"]) != ["root"] or only(settings, "DynamicUser") == "yes"


def test_the_two_rooms_are_two_users_of_one_group() -> None:
    assert len({only(unit(file), "User") for file in ROOMS}) == 2
    assert {only(unit(file), "Group") for file in ROOMS} == {"outbox"}


@pytest.mark.parametrize("file", [file for file in SERVICES if "@" not in file.name], ids=lambda file: file.name)
def test_what_fails_starts_the_unit_that_tells(file: Path) -> None:
    assert only(unit(file), "OnFailure") == "outbox-failure@%n.service"


@pytest.mark.parametrize("file", ROOMS, ids=lambda file: file.name)
def test_a_room_says_when_it_is_ready_and_that_its_loop_turns(file: Path) -> None:
    settings = unit(file)
    assert only(settings, "Type") == "notify"
    assert seconds(only(settings, "WatchdogSec")) >= 60
    assert only(settings, "KillMode") == "mixed"


def test_systemd_waits_longer_for_the_worker_than_the_worker_for_the_relay() -> None:
    settings = unit(SYSTEMD / "outbox-worker.service")
    assert seconds(only(settings, "TimeoutStopSec")) >= WorkerSettings().stop_timeout + 30
    assert WorkerSettings().stop_timeout > RelaySettings().final_timeout


@pytest.mark.parametrize("file", ROOMS, ids=lambda file: file.name)
def test_what_a_restart_does_not_mend_is_not_restarted(file: Path) -> None:
    settings = unit(file)
    never = {int(number) for number in only(settings, "RestartPreventExitStatus").split()}
    assert only(settings, "Restart") == "on-failure"
    assert never == {UsageError.exit_code, NotPermitted.exit_code, ConfigError.exit_code, 128 + 2, 128 + 15}
    assert never.isdisjoint({Unavailable.exit_code, TryLater.exit_code, 1})
    assert seconds(only(settings, "RestartSec")) >= 10
    assert only(settings, "StartLimitIntervalSec") == "0"


def test_the_page_s_table_is_what_the_units_do() -> None:
    table = rows(sections(page("docs/howto/systemd.md"))["Exit codes, and who starts it again"])
    down = {int(number) for row in table if row[2] == "stays down, failed" for number in re.findall(r"\b\d+\b", row[0])}
    again = {row[0].partition(",")[0] for row in table if row[2].startswith("again")}
    prevented = only(unit(SYSTEMD / "outbox-worker.service"), "RestartPreventExitStatus")
    assert down == {int(number) for number in prevented.split()}
    assert again == {"69", "1"}


def test_the_exit_codes_are_those_of_the_errors_page() -> None:
    documented = {row[0] for row in rows(sections(page("docs/reference/errors.md"))["Exit codes"])}
    told = {row[0] for row in rows(sections(page("docs/howto/systemd.md"))["Exit codes, and who starts it again"])}
    numbers = {number for cell in told for number in re.findall(r"\d+", cell)}
    assert numbers - {"130", "143"} <= documented


def test_the_page_names_the_folders_that_the_units_write() -> None:
    named = {code(cell) for row in rows(page("docs/howto/systemd.md")) for cell in row[1:2]}
    for folder in ("/etc/outbox/keys", "/var/lib/outbox", "/var/lib/outbox-state", "/var/backups/outbox"):
        assert folder in named


def test_every_command_of_a_unit_is_a_command_of_ours() -> None:
    commands = {
        re.sub(r"\s+(\"|--).*", "", found)
        for file in SERVICES
        for found in re.findall(rf"{PROGRAM} ([^'\n]+)", file.read_text())
    }
    assert commands == {"worker", "inbox", "status", "backup", "journal verify", "journal seal"}
    documented = page("docs/reference/commands.md")
    missing = {command for command in commands if f"\n## outbox {command}\n" not in documented}
    assert missing == set()


def test_no_file_of_deploy_is_forgotten_here() -> None:
    known = {*SERVICES, *TIMERS, SYSTEMD / "outbox.sysusers.conf", SYSTEMD / "outbox.tmpfiles.conf"}
    assert {file for file in SYSTEMD.rglob("*") if file.is_file()} == known
    assert (ROOT / "deploy" / "container" / "compose.yaml").is_file()
