"""`outbox doctor`: one line each with what to do, before the first start and after it, for whoever runs it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import Done, Shell
from tests.house import APPROVAL, FOUNDER, House

LINE = {"check", "passed", "why", "todo"}
NOBODY = 65534


def findings(done: Done) -> list[dict[str, Any]]:
    """The lines of a run with --json, each of the documented form."""
    for line in done.lines:
        assert set(line) == LINE
        assert line["passed"] in {True, False, None}
        assert line["passed"] is not False or line["todo"], line
        assert all(line[name].isprintable() for name in ("check", "why", "todo"))
    return done.lines


def failed(done: Done) -> dict[str, str]:
    """What failed, and why."""
    return {line["check"]: line["why"] for line in findings(done) if line["passed"] is False}


def test_a_house_in_order_passes_with_its_warnings_and_sends_nothing(house: House) -> None:
    done = Shell(house.folder).run("doctor", "--json")
    assert (done.code, done.err) == (0, "")
    found = {line["check"]: line for line in findings(done)}
    assert {name for name, line in found.items() if line["passed"] is None and line["todo"]} == {
        "separation",
        "authenticity",
    }
    assert failed(done) == {}
    assert {"settings", "database", "clock", "drafter", "inbox", "mailbox", "relay", "relay-offers"} <= set(found)
    assert house.relay.connections == 1
    assert house.relay.messages == []
    assert house.rows("SELECT count(*) FROM drafts") == [(0,)]


def test_after_a_bare_init_it_says_what_is_missing_and_where_to_write_it(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.run("init")
    done = shell.run("doctor", "--json")
    assert done.code == 1
    missing = {line["why"]: line["todo"] for line in findings(done) if line["passed"] is False}
    for setting in ("policy.from_domains", "approval.approvers", "approval.address", "mailbox.url", "relay.host"):
        variable = "OUTBOX_" + setting.replace(".", "__").upper()
        assert missing[f"{setting} is not set"] == f"write it in outbox.toml or {variable}"
    wrong = sum(line["passed"] is False for line in done.lines)
    assert done.error == {
        "error": "check_failed",
        "message": f"{wrong} of {len(done.lines)} checks failed",
        "field": None,
    }


def test_before_init_it_says_to_run_it(tmp_path: Path) -> None:
    done = Shell(tmp_path).run("doctor", "--json")
    assert done.code == 1
    (settings,) = [line for line in findings(done) if line["check"] == "settings"]
    assert settings["passed"] is False
    assert "outbox init" in settings["todo"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[relay]\nport = 0\n", "config_invalid"),
        ("[relay]\nhots = 'x'\n", "config_unknown"),
        ("[relay\n", "config_invalid"),
        ("[approval]\nauthenticity = 'authentication-results'\n", "config_invalid"),
    ],
    ids=["a-bad-value", "an-unknown-name", "no-TOML", "a-contradiction"],
)
def test_settings_that_cannot_be_read_are_a_finding_and_then_the_error(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "outbox.toml").write_text(text)
    done = Shell(tmp_path).run("doctor", "--json")
    assert done.code == 78
    (line,) = findings(done)
    assert (line["check"], line["passed"]) == ("settings", False)
    assert done.error["error"] == error
    assert done.error["message"].startswith(line["why"])


def test_a_settings_file_that_is_named_and_missing_is_a_finding_too(tmp_path: Path) -> None:
    done = Shell(tmp_path).run("--config", "nowhere.toml", "doctor")
    assert done.code == 78
    assert done.out.startswith("FAIL  settings ")


def test_for_people_each_line_has_its_mark_and_what_to_do(house: House) -> None:
    (house.folder / "keys" / "grant.key").unlink()
    done = Shell(house.folder).run("doctor")
    assert done.code == 1
    lines = done.out.splitlines()
    assert {line.split()[0] for line in lines} == {"ok", "FAIL", "-"}
    (line,) = [line for line in lines if line.startswith("FAIL")]
    assert line.startswith("FAIL  key-grant ")
    assert " -> put it back from your copy" in line
    assert done.err == f"outbox: 1 of {len(lines)} checks failed\n"


@pytest.mark.parametrize("rooms", [("drafter",), ("worker",), ("drafter", "inbox"), ("drafter", "inbox", "worker")])
def test_only_the_named_rooms_are_looked_at(house: House, rooms: tuple[str, ...]) -> None:
    done = Shell(house.folder).run("doctor", "--json", *(word for room in rooms for word in ("--room", room)))
    checks = {line["check"] for line in findings(done)}
    assert checks & {"drafter", "inbox", "worker"} == set(rooms)
    assert "database" in checks
    assert house.relay.connections == ("worker" in rooms)


def test_a_drafter_s_folder_passes_and_says_what_was_not_looked_at(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.run("init", "--room", "drafter", "--from-domain", "acme.example", "--approver", FOUNDER)
    done = shell.run("doctor", "--json")
    assert done.code == 0
    found = {line["check"]: line for line in findings(done)}
    for name, user in (("inbox", "the user of the inbox"), ("relay", "the user of the worker")):
        assert (found[name]["passed"], found[name]["todo"]) == (None, "")
        assert f"run `outbox doctor` as {user}" in found[name]["why"]
    assert found["separation"]["passed"] is True


def test_no_secret_and_no_token_is_in_what_it_says(house: House) -> None:
    (house.folder / "relay.password").write_text("a-password-that-nobody-may-see")
    (house.folder / "relay.password").chmod(0o600)
    house.set("relay", username='"outbox"', password_file='"relay.password"')
    secrets = [(house.folder / "keys" / f"{name}.key").read_bytes().hex() for name in ("draft", "grant")]
    done = Shell(house.folder).run("doctor", "--send-test")
    assert done.code == 1  # this relay takes no login
    for secret in (*secrets, "a-password-that-nobody-may-see"):
        assert secret not in done.out + done.err


# The test message


def test_a_test_goes_to_the_operator_and_its_queue_id_is_said(house: House) -> None:
    house.set("operator", addresses='["ops@acme.example", "second@acme.example"]')
    done = Shell(house.folder).run("doctor", "--send-test", "--json")
    assert done.code == 0
    (line,) = [line for line in findings(done) if line["check"] == "relay-test"]
    assert line["passed"] is True
    assert "ops@acme.example was taken, queue id 000001" in line["why"]
    assert [(sent.sender, sent.recipients) for sent in house.relay.messages] == [(APPROVAL, ("ops@acme.example",))]


def test_no_address_can_be_given_for_a_test(house: House) -> None:
    done = Shell(house.folder).run("doctor", "--send-test", "stranger@elsewhere.example")
    assert done.code == 2
    assert house.relay.messages == []


def test_a_test_without_the_worker_is_wrong_usage(house: House) -> None:
    error = Shell(house.folder).fails(2, "doctor", "--room", "inbox", "--send-test")
    assert error["field"] == "--send-test"


# Terminals and users


def test_colours_are_for_terminals_alone(house: House) -> None:
    assert "\x1b[" not in Shell(house.folder).run("doctor", "--room", "drafter").out
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "outbox", "doctor", "--room", "drafter"],
        cwd=house.folder,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "\x1b[32mok" in shown


AS_NOBODY = f"""
import os, sys
import outbox.config, outbox.cli.doctor
import outbox.drafter.checks, outbox.inbox.checks, outbox.operator.checks, outbox.worker.checks
if os.getuid() == 0:  # else the mode of the folder keeps us out; nobody may not be able to read the interpreter
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
sys.argv = ["outbox", "doctor", "--json"]
outbox.cli.main()
"""


@pytest.fixture
def of_another_user() -> Iterator[Path]:
    """A folder that everybody may look into, with keys in it that only their owner may read."""
    folder = Path(tempfile.mkdtemp(prefix="doctor-"))
    folder.chmod(0o755)
    Shell(folder).run("init", "--from-domain", "acme.example", "--approver", FOUNDER)
    (folder / "keys").chmod(0o000)
    yield folder
    (folder / "keys").chmod(0o700)
    shutil.rmtree(folder)


def test_what_belongs_to_another_user_is_said_to_be_his(of_another_user: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", AS_NOBODY],
        cwd=of_another_user,
        env={name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "CREDENTIALS_"))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = {line["check"]: line for line in map(json.loads, ran.stdout.splitlines())}
    assert found, ran.stderr
    for name in ("key-draft", "key-grant"):
        assert (found[name]["passed"], found[name]["todo"]) == (None, "")
        assert "belongs to another user" in found[name]["why"]
    for name in ("drafter", "inbox", "relay"):
        assert (found[name]["passed"], found[name]["todo"]) == (None, "")
        assert "not looked at" in found[name]["why"]
    assert ran.returncode == 0, found
