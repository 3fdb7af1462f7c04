"""`outbox draft --eml-dir` and `--mbox`: a line for each message, and nothing drafted twice."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.shell import TIMEOUT, Shell
from tests.house import House

PLAIN = "From: sales@acme.example\nTo: jane@customer.example\nSubject: {}\n\nDear Jane\n"
MARK = "From sales@acme.example Fri Jan 15 08:00:00 2027\n"


@pytest.fixture
def mails(shell: Shell) -> Path:
    folder = shell.folder / "mails"
    folder.mkdir()
    for name in ("b", "a", "c"):
        (folder / f"{name}.eml").write_text(PLAIN.format(f"Offer {name}"))
    return folder


@pytest.fixture
def mbox(shell: Shell) -> Path:
    file = shell.folder / "sent.mbox"
    file.write_text("".join(f"{MARK}{PLAIN.format(f'Offer {number}')}\n" for number in range(3)))
    return file


def count(house: House) -> int:
    return int(str(house.rows("SELECT count(*) FROM drafts")[0][0]))


def test_each_file_of_a_folder_is_one_line(shell: Shell, unsent: House, mails: Path) -> None:
    done = shell.run("draft", "--eml-dir", mails, "--agent", "importer", "--ttl", "2h")
    assert done.code == 0
    ids, names = zip(*(line.split("  ") for line in done.out.splitlines()), strict=True)
    assert names == ("a.eml", "b.eml", "c.eml")
    assert done.err == "3 drafted, 0 there already, 0 refused\n"
    assert [(one.id, one.agent) for one in sorted(unsent.drafts(), key=lambda one: one.subject)] == [
        (draft_id, "importer") for draft_id in ids
    ]


def test_a_second_run_drafts_nothing_twice(shell: Shell, unsent: House, mails: Path) -> None:
    first = shell.run("draft", "--eml-dir", mails).out.splitlines()
    (mails / "d.eml").write_text(PLAIN.format("Offer d"))
    again = shell.run("draft", "--eml-dir", mails)
    assert again.out.splitlines()[:3] == [f"{line}  (was there already)" for line in first]
    assert again.err == "1 drafted, 3 there already, 0 refused\n"
    assert count(unsent) == 4


def test_another_idempotency_key_drafts_them_again(shell: Shell, unsent: House, mails: Path) -> None:
    for key in ("march", "april", "april"):
        assert shell.run("draft", "--eml-dir", mails, "--idempotency-key", key).code == 0
    assert count(unsent) == 6


def test_other_recipients_are_other_drafts(shell: Shell, unsent: House, mails: Path) -> None:
    for words in ((), ("--to", "bob@customer.example"), ("--to", "bob@customer.example")):
        assert shell.run("draft", "--eml-dir", mails, *words).code == 0
    assert count(unsent) == 6


def test_json_is_an_object_a_line_with_its_file(shell: Shell, mails: Path) -> None:
    done = shell.run("draft", "--eml-dir", mails, "--json")
    assert [(one["file"], one["subject"], one["state"], one["is_new"]) for one in done.lines] == [
        (f"{name}.eml", f"Offer {name}", "pending", True) for name in "abc"
    ]
    listed = shell.run("list", "--json").lines
    assert {one["id"] for one in listed} == {one["id"] for one in done.lines}
    assert set(done.lines[0]) == {"file", "is_new"} | set(listed[0])
    assert done.err == ""


def test_a_refused_file_is_named_and_the_others_are_drafted(shell: Shell, unsent: House, mails: Path) -> None:
    (mails / "bad.eml").write_text(PLAIN.format("x").replace("acme", "evil"))
    (mails / "folder").mkdir()
    done = shell.run("draft", "--eml-dir", mails, "--json")
    assert done.code == 1
    assert len(done.lines) == count(unsent) == 3
    refused = [json.loads(line) for line in done.err.splitlines()]
    assert [(one.get("file"), one["error"]) for one in refused] == [
        ("bad.eml", "from_domain"), ("folder", "file_unreadable"), (None, "some_refused"),
    ]  # fmt: skip
    assert refused[-1]["message"].startswith("3 drafted, 0 there already, 2 refused; ")


def test_a_refusal_in_words_names_file_and_code(shell: Shell, mails: Path) -> None:
    (mails / "bad.eml").write_text(PLAIN.format(""))
    done = shell.run("draft", "--eml-dir", mails)
    assert done.code == 1
    first, last = done.err.splitlines()
    assert first == "outbox: bad.eml: the subject is empty (subject_empty)"
    assert last.startswith("outbox: 3 drafted, 0 there already, 1 refused; ")


def test_each_message_of_an_mbox_is_one_line(shell: Shell, unsent: House, mbox: Path) -> None:
    done = shell.run("draft", "--mbox", mbox)
    assert (done.code, done.err) == (0, "3 drafted, 0 there already, 0 refused\n")
    assert [line.split("  ")[1] for line in done.out.splitlines()] == [f"sent.mbox:{number}" for number in (1, 2, 3)]
    assert shell.run("draft", "--mbox", mbox).err == "0 drafted, 3 there already, 0 refused\n"
    assert count(unsent) == 3


def test_more_than_one_batch_is_drafted_whole(shell: Shell, unsent: House) -> None:
    file = shell.folder / "many.mbox"
    file.write_text("".join(f"{MARK}{PLAIN.format(f'Offer {number}')}\n" for number in range(300)))
    assert shell.run("draft", "--mbox", file).err == "300 drafted, 0 there already, 0 refused\n"
    assert count(unsent) == 300


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--eml-dir", "mails", "--mbox", "sent.mbox"), "--mbox"),
        (("--eml", "x", "--eml-dir", "mails"), "--eml-dir"),
        (("--eml-dir", "mails", "--subject", "x"), "--subject"),
        (("--mbox", "sent.mbox", "--text", "x"), "--text"),
    ],
)
def test_flags_that_contradict_each_other_are_a_mistake(shell: Shell, words: tuple[str, ...], field: str) -> None:
    refused = shell.fails(2, "draft", *words)
    assert (refused["error"], refused["field"]) == ("usage", field)


@pytest.mark.parametrize(("flag", "name"), [("--eml-dir", "none"), ("--mbox", "none"), ("--mbox", "outbox.toml")])
def test_what_cannot_be_read_is_a_mistake(shell: Shell, flag: str, name: str) -> None:
    refused = shell.fails(2, "draft", flag, name)
    assert (refused["error"], refused["field"]) == ("file_unreadable", flag)


def test_an_empty_folder_is_nothing_to_draft(shell: Shell) -> None:
    (shell.folder / "empty").mkdir()
    done = shell.run("draft", "--eml-dir", "empty")
    assert (done.code, done.out, done.err) == (0, "", "0 drafted, 0 there already, 0 refused\n")


def test_a_bar_is_drawn_where_stderr_is_a_terminal_and_stdout_stays_clean(shell: Shell, mails: Path) -> None:
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    words = [sys.executable, "-m", "outbox", "draft", "--eml-dir", str(mails)]
    done = subprocess.run(
        words,
        cwd=shell.folder,
        env=kept | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=TIMEOUT,
        check=False,
    )
    os.close(theirs)
    drawn = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "100%" in drawn
    assert [line.split("  ")[1] for line in done.stdout.decode().splitlines()] == ["a.eml", "b.eml", "c.eml"]
