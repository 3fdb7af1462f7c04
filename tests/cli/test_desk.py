"""The desk at the command line: flags, keys of the contract, exit codes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from outbox.core.draft import Envelope
from outbox.lock import WorkerLock
from outbox.store.rows import envelope_text
from tests.cli.shell import Shell
from tests.house import JANE, SALES
from tests.operator.stuck import (
    APPROVED,
    CLAIMED,
    CLAIMED_IN_LEDGER,
    COMPLETED,
    DOUBT,
    FRESH,
    GAP,
    GAP_ACCEPTED,
    GAP_REFUSED,
    PENDING,
    Stuck,
    entered,
    stuck_in,
    write_in_ledger,
)

CASE = {  # CONTRACT
    "id", "since", "phase", "finding", "worker", "message_id", "recipients", "last_reply", "evidence",
}  # fmt: skip
WHY = ("--note", "seen in the log")


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    return stuck_in(tmp_path)


@pytest.fixture
def shell(stuck: Stuck) -> Shell:
    return Shell(stuck.house.folder)


def test_reconcile_lists_what_is_at_executing_by_the_contracts_keys(stuck: Stuck, shell: Shell) -> None:
    found = {line["id"]: line for line in shell.run("reconcile", "--json").lines}
    assert set(found) == {stuck.drafts[n] for n in (CLAIMED, GAP, GAP_ACCEPTED, GAP_REFUSED, DOUBT, FRESH)}
    for line in found.values():
        assert set(line) >= CASE
        assert set(line["worker"]) >= {"id", "alive", "last_seen"}
        assert line["recipients"] == [JANE]
        assert line["message_id"] == f"<{line['id']}@acme.example>"
        assert line["since"].endswith("Z")
        assert line["worker"]["last_seen"].endswith("Z")
        assert line["worker"]["alive"] is False
    phases = {name: found[stuck.drafts[name]]["phase"] for name in (CLAIMED, GAP, DOUBT)}
    assert phases == {CLAIMED: "claimed", GAP: "gap", DOUBT: "done"}
    findings = {name: found[stuck.drafts[name]]["finding"] for name in (CLAIMED, GAP, GAP_ACCEPTED)}
    assert findings == {CLAIMED: "not_sent", GAP: "unknown", GAP_ACCEPTED: "sent"}
    assert found[stuck.drafts[DOUBT]]["last_reply"] == "the relay's words"
    assert found[stuck.drafts[GAP]]["last_reply"] is None


def test_reconcile_of_one_draft_looks_for_evidence_and_keeps_it(stuck: Stuck, shell: Shell) -> None:
    stuck.house.set("reconcile", command='"echo 250 queued as 4711"')
    case = shell.run("reconcile", stuck.drafts[GAP], "--json").data
    assert case["finding"] == "sent"
    (found,) = [one for one in case["evidence"] if one["found"]]
    assert {"source", "found", "detail"} <= set(found)
    assert found["source"] == "command"
    text = shell.run("reconcile", stuck.drafts[GAP]).out
    assert "4711" in text
    assert f"outbox reconcile {stuck.drafts[GAP]} --sent --note" in text


def test_what_to_do_is_said_with_each_draft(stuck: Stuck, shell: Shell) -> None:
    text = shell.run("reconcile").out
    assert f"outbox reconcile {stuck.drafts[CLAIMED]} --release" in text
    assert f"outbox reconcile {stuck.drafts[GAP_ACCEPTED]} --sent" in text
    assert "wait until" in text
    assert text.count("UNKNOWN") == 3
    lock = WorkerLock(stuck.house.settings.state_dir, stuck.worker_id)
    assert "wait: its worker lives" in shell.run("reconcile").out
    lock.release()


def test_nothing_that_a_terminal_would_act_on_is_shown(stuck: Stuck, shell: Shell) -> None:
    evil = "\x1b[2J\x9b31m\u202e"
    told = shell.run("reconcile", stuck.drafts[GAP], "--not-sent", "--note", f"no\n{evil}")
    with stuck.house.as_thief() as thief:
        envelope = envelope_text(Envelope(SALES, (evil,)))
        thief.execute("UPDATE drafts SET envelope = ?, subject = ?, message_id = ?", (envelope, evil, evil))
        thief.execute("UPDATE attempts SET text = ?, queue_id = ?", (evil, evil))
    said = told.out + shell.run("reconcile").out + shell.run("show", stuck.drafts[GAP]).out + shell.run("status").out
    assert JANE not in shell.run("reconcile").out
    assert [line for line in said.split("\n") if not line.isprintable()] == []


def test_where_nothing_is_at_executing_it_says_so(shell: Shell, stuck: Stuck) -> None:
    for name in (CLAIMED, GAP_REFUSED):
        assert shell.run("reconcile", stuck.drafts[name], "--not-sent", *WHY).code == 0
    for name in (GAP, GAP_ACCEPTED, DOUBT, FRESH):
        assert shell.run("reconcile", stuck.drafts[name], "--sent", *WHY, "--now").code == 0
    done = shell.run("reconcile")
    assert (done.code, done.out) == (0, "Nothing is at executing.\n")
    assert shell.run("reconcile", "--json").out == ""
    assert shell.run("reconcile", "--all-proven", "--json").out == ""


@pytest.mark.parametrize(
    ("name", "words", "code", "error"),
    [
        (GAP, ["--sent"], 2, "usage"),
        (FRESH, ["--sent", *WHY], 75, "answer_possible"),
        (GAP, ["--release"], 1, "not_proven"),
        (PENDING, ["--sent", *WHY], 1, "state_conflict"),
        ("no-such-draft", [], 1, "draft_unknown"),
        (GAP, ["--all-proven"], 2, "usage"),
        (None, ["--sent", *WHY], 2, "usage"),
        (None, ["--all-proven", "--sent", *WHY], 2, "usage"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else str(given),
)
def test_a_refusal_has_its_code(
    stuck: Stuck, shell: Shell, name: str | None, words: list[str], code: int, error: str
) -> None:
    named = [stuck.drafts.get(name, name)] if name is not None else []
    assert shell.fails(code, "reconcile", *named, *words)["error"] == error


def test_while_its_worker_lives_nothing_is_settled(stuck: Stuck, shell: Shell) -> None:
    lock = WorkerLock(stuck.house.settings.state_dir, stuck.worker_id)
    told = shell.fails(75, "reconcile", stuck.drafts[GAP], "--sent", *WHY, "--now")
    lock.release()
    assert told["error"] == "worker_alive"


def test_a_settlement_is_shown_with_its_draft(stuck: Stuck, shell: Shell) -> None:
    settled = shell.run("reconcile", stuck.drafts[GAP], "--sent", *WHY, "--json").data
    assert settled["state"] == "completed"
    assert set(settled["settlement"]) == {"as", "by", "note", "at"}
    assert (settled["settlement"]["as"], settled["settlement"]["note"]) == ("sent", "seen in the log")
    assert shell.fails(1, "reconcile", stuck.drafts[GAP], "--sent", *WHY)["error"] == "state_conflict"
    assert "seen in the log" in shell.run("show", stuck.drafts[GAP]).out


def test_all_that_is_proven_is_settled_at_once(stuck: Stuck, shell: Shell) -> None:
    settled = {line["id"]: line["settled"] for line in shell.run("reconcile", "--all-proven", "--json").lines}
    expected = {CLAIMED: "released", GAP_ACCEPTED: "sent", GAP_REFUSED: "released"}
    assert settled == {stuck.drafts[name]: end for name, end in expected.items()}


def test_status_check_says_by_its_exit_code_whether_anything_is_wrong(shell: Shell) -> None:
    done = shell.run("status", "--check", "--json")
    assert done.code == 1
    assert done.error["error"] == "alerts_open"
    assert {alert["code"] for alert in done.data["alerts"]} == {"in_doubt", "worker_dead"}
    assert shell.run("status").code == 0


def test_status_check_is_quiet_where_all_is_well(unsent: object, tmp_path: Path) -> None:
    del unsent
    done = Shell(tmp_path).run("status", "--check")
    assert (done.code, done.err) == (0, "")
    assert "ALERT" not in done.out


def test_a_pause_is_durable_seen_and_taken_back_once(stuck: Stuck, shell: Shell) -> None:
    assert shell.run("pause", "--reason", "the relay is ill", "--json").data == {"paused": True}
    assert shell.fails(1, "pause")["error"] == "state_conflict"
    told = shell.run("status", "--json").data
    assert (told["paused"], told["pause_reason"]) == (True, "the relay is ill")
    assert "the relay is ill" in shell.run("worker", "--drain").err
    assert shell.run("worker", "--drain").code == 75
    assert stuck.state(APPROVED) == ("approved", None)
    assert shell.run("resume", "--json").data == {"paused": False}
    assert shell.fails(1, "resume")["error"] == "state_conflict"


def test_a_backup_is_made_once(stuck: Stuck, shell: Shell) -> None:
    made = shell.run("backup", "backup.db", "--json").data
    file = stuck.house.folder / "backup.db"
    assert made == {"file": "backup.db", "octets": file.stat().st_size}
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    connection.close()
    assert shell.fails(78, "backup", "backup.db")["error"] == "file_exists"
    shell.fails(69, "backup", "nowhere/backup.db")


def test_a_redraft_prints_its_id(stuck: Stuck, shell: Shell) -> None:
    shell.run("cancel", stuck.drafts[PENDING])
    new = shell.run("redraft", stuck.drafts[PENDING]).out.strip()
    assert shell.run("redraft", stuck.drafts[PENDING], "--json").data["id"] == new
    assert shell.fails(1, "redraft", stuck.drafts[COMPLETED])["error"] == "may_duplicate"
    assert shell.run("redraft", stuck.drafts[COMPLETED], "--may-duplicate", "--json").data["state"] == "pending"
    assert shell.fails(1, "redraft", stuck.drafts[GAP])["error"] == "state_conflict"
    (stuck.house.folder / "keys" / "draft.key").unlink()
    shell.fails(78, "redraft", stuck.drafts[PENDING])


def test_after_a_restore_no_worker_starts_until_the_fence_is_accepted(tmp_path: Path) -> None:
    stuck = stuck_in(tmp_path, ahead=True)
    shell = Shell(tmp_path)
    write_in_ledger(stuck.house, entered(stuck.claim(CLAIMED), stuck.house.clock()))
    assert "outbox fence accept" in shell.says(78, "worker", "--drain")
    assert shell.fails(2, "fence", "accept")["error"] == "usage"
    accepted = shell.run("fence", "accept", "--note", "last night's backup", "--json").data
    assert set(accepted) == {"in_doubt", "cancelled", "why", "aside"}
    assert accepted["cancelled"] == 2
    assert stuck.attempt(CLAIMED_IN_LEDGER) == ("done", "in_doubt")
    assert shell.fails(1, "fence", "accept", "--note", "again")["error"] == "state_conflict"
    assert shell.run("worker", "--drain").code == 0
