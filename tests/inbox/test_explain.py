"""`outbox inbox explain` says every check, changes nothing, and agrees with what the inbox then does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli import zygote
from tests.house import FOUNDER, HOUR, SECOND
from tests.inbox.letters import Asked, letters
from tests.seeds import seeds

CHECKS = ["token", "from", "authenticity", "automatic", "replay", "fresh", "verdict"]
ALL = [*letters("replies"), *letters("hostile")]
CHARSETS = {letter.name: letter for letter in ALL if "charset" in letter.name}


def outbox(asked: Asked, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    words = ["--config", str(asked.house.folder / "outbox.toml"), *arguments]
    return subprocess.CompletedProcess(words, *zygote.run(words, Path.cwd(), dict(os.environ), given))


def everything(folder: Path) -> dict[str, str]:
    """The digest of every file."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("one_in", [8, pytest.param(1, marks=pytest.mark.torture)])
def test_explaining_the_whole_corpus_changes_no_octet_of_the_folder(asked: Asked, one_in: int) -> None:
    explain = asked.explainer()
    filled = [letter.filled(asked) for letter in ALL[::one_in] if "charset" not in letter.name]  # see below for those
    before = everything(asked.house.folder)
    for octets in filled:
        explain(octets)
    assert everything(asked.house.folder) == before


@pytest.mark.parametrize("name", seeds(CHARSETS, 4))
def test_a_charset_is_no_reason_to_crash(asked: Asked, name: str) -> None:
    judgement = asked.explain(CHARSETS[name].filled(asked))
    assert [check.name for check in judgement.checks] == CHECKS


def test_every_check_is_there_in_order_with_its_reason(asked: Asked) -> None:
    judgement = asked.explain(asked.letter(b"\nShip it\n"))
    assert [check.name for check in judgement.checks] == CHECKS
    assert {check.name: check.passed for check in judgement.checks} == dict.fromkeys(CHECKS, True) | {
        "authenticity": None
    }
    assert all(check.why for check in judgement.checks)
    assert judgement.counts


def test_a_letter_that_is_no_letter_is_explained_too(asked: Asked) -> None:
    for octets in (b"", b"\n", b"\0", b"\xff" * 1000, b"From", b": x\n\n", b"From:" * 1000, bytes(range(256))):
        judgement = asked.explain(octets)
        assert not judgement.counts
        assert [check.name for check in judgement.checks] == CHECKS


def test_the_command_prints_the_contract_s_keys(asked: Asked, tmp_path: Path) -> None:
    file = tmp_path / "reply.eml"
    file.write_bytes(asked.letter(b"\nReject: too dear\n"))
    before = everything(asked.house.folder)
    done = outbox(asked, "inbox", "explain", str(file), "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    said = json.loads(done.stdout)
    assert set(said) == {"draft", "verdict", "reason", "counts", "checks"}
    assert (said["draft"], said["verdict"], said["reason"], said["counts"]) == (
        asked.draft_id, "reject", "too dear", True,
    )  # fmt: skip
    assert [check["check"] for check in said["checks"]] == CHECKS
    assert all(set(check) == {"check", "passed", "why"} for check in said["checks"])
    assert everything(asked.house.folder) == before


def test_the_command_reads_standard_input_and_speaks_to_people(asked: Asked) -> None:
    done = outbox(asked, "inbox", "explain", "-", given=asked.letter(b"\nShip it\n", From="mallory@evil.example"))
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert all(check in text for check in CHECKS)
    assert f"mallory@evil.example was not asked; {FOUNDER} was" in text
    assert "changes nothing" in text


def test_a_letter_without_a_token_names_no_draft(asked: Asked) -> None:
    done = outbox(asked, "inbox", "explain", "-", "--json", given=b"From: a@b.example\n\nShip it\n")
    said = json.loads(done.stdout)
    assert (done.returncode, said["draft"], said["counts"]) == (0, None, False)


def test_a_file_that_is_not_there_is_one_line_and_wrong_usage(asked: Asked) -> None:
    done = outbox(asked, "inbox", "explain", "/no/such/file")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)


def test_what_was_read_before_is_explained_as_a_replay(asked: Asked) -> None:
    octets = asked.house.reply(asked.request, "Ship it").read_bytes()
    assert asked.explain(octets).counts
    asked.house.inbox()
    assert asked.explain(octets).why.startswith("replay:")


@pytest.mark.parametrize("state", ["approved", "rejected", "cancelled", "completed", "expired"])
@pytest.mark.parametrize("text", seeds(["Ship it", "Reject: no", "Stop"], 3))
def test_explain_agrees_with_the_inbox_whatever_state_the_draft_is_in(asked: Asked, state: str, text: str) -> None:
    match state:
        case "rejected":
            asked.house.reply(asked.request, "No")
            asked.house.inbox()
        case "cancelled":
            asked.house.cancel(asked.draft_id)
        case "expired":
            asked.house.clock.advance(25 * HOUR)
            asked.house.inbox()
        case _:
            asked.house.reply(asked.request, "Ship it")
            asked.house.inbox()
    if state == "completed":
        asked.house.drain()
    assert asked.states()[0] == state
    asked.house.clock.advance(SECOND)
    said = asked.explain(asked.house.reply(asked.request, text).read_bytes())
    asked.house.inbox()
    assert said.counts == asked.house.replies()[-1].counted
