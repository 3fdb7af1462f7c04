"""`outbox init` makes a folder that works at once, overwrites nothing and says where keys lie together."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from tests.cli.shell import Shell

DRAFT = ("draft", "--from", "s@acme.example", "--to", "jane@x.example", "--subject", "Offer", "--text", "hi")


def modes(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*")}


def test_init_makes_settings_keys_a_database_and_a_state_folder(tmp_path: Path) -> None:
    done = Shell(tmp_path).run("init", "--dir", "box", "--from-domain", "acme.example", "--approver", "f@acme.example")
    assert (done.code, done.err) == (0, "")
    found = modes(tmp_path / "box")
    assert set(found) == {"outbox.toml", "keys", "keys/draft.key", "keys/grant.key", "outbox.db", "state"}
    assert {found[name] for name in ("keys/draft.key", "keys/grant.key", "outbox.db")} == {0o600}
    assert {found["keys"], found["state"]} == {0o700}
    keys = [(tmp_path / "box" / "keys" / name).read_bytes() for name in ("draft.key", "grant.key")]
    assert [len(key) for key in keys] == [32, 32]
    assert keys[0] != keys[1]


def test_init_says_in_one_line_that_the_keys_lie_together(tmp_path: Path) -> None:
    done = Shell(tmp_path).run("init")
    (line,) = [line for line in done.out.splitlines() if not line.startswith("made ")]
    assert "draft key and the grant key lie together" in line
    assert 'approval.terminal = "off"' in line


def test_what_init_made_can_be_used_at_once(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.run("init", "--from-domain", "acme.example", "--approver", "f@acme.example")
    drafted = shell.run(*DRAFT)
    assert (drafted.code, drafted.err) == (0, "")
    assert shell.run("approve", drafted.out.strip(), "--json").data["state"] == "approved"
    assert shell.run("db", "current").out == "0001\n"


def test_init_with_json_names_the_files_and_notes(tmp_path: Path) -> None:
    data = Shell(tmp_path).run("init", "--dir", "box", "--json").data
    assert set(data) == {"files", "notes"}
    assert data["files"] == [f"box/{name}" for name in ("outbox.toml", "keys/draft.key", "keys/grant.key", "outbox.db")]


def test_what_init_was_told_is_in_the_settings(tmp_path: Path) -> None:
    told = (
        "init --from-domain acme.example --from-domain b\u00fccher.example --approver f@acme.example "
        "--approver g@acme.example --address ask@acme.example --mailbox maildir:M --authenticity none "
        "--relay-host ::1 --relay-port 2525 --relay-security none"
    )
    assert Shell(tmp_path).run(*told.split()).code == 0
    written = tomllib.loads((tmp_path / "outbox.toml").read_text(encoding="utf-8"))
    assert written["policy"] == {"from_domains": ["acme.example", "b\u00fccher.example"]}
    assert written["approval"] == {
        "approvers": ["f@acme.example", "g@acme.example"],
        "address": "ask@acme.example",
        "authenticity": "none",
    }
    assert written["relay"] == {"host": "::1", "port": 2525, "security": "none"}
    assert written["mailbox"] == {"url": "maildir:M"}


@pytest.mark.parametrize("there", ["outbox.toml", "outbox.db", "keys/draft.key", "keys/grant.key"])
def test_init_overwrites_nothing_and_then_makes_nothing(tmp_path: Path, there: str) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / there).write_bytes(b"precious")
    shell = Shell(tmp_path)
    before = shell.snapshot()
    error = shell.fails(78, "init")
    assert error["error"] == "file_exists"
    assert there in error["message"]
    assert shell.snapshot() == before


def test_a_second_init_is_refused(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert shell.run("init").code == 0
    before = shell.snapshot()
    assert "overwrites nothing" in shell.says(78, "init")
    assert shell.snapshot() == before


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "outbox.toml").symlink_to(tmp_path / "elsewhere")
    error = Shell(tmp_path).fails(78, "init", "--dir", "box")
    assert error["error"] == "file_exists"
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for folder in ("file", "file/inner"):
        shell = Shell(tmp_path)
        assert folder.partition("/")[0] in shell.fails(78, "init", "--dir", folder)["message"]


@pytest.mark.parametrize(
    "flag",
    [
        ("--approver", "nobody"),
        ("--approver", "a@x.example,b@x.example"),
        ("--address", "nobody"),
        ("--from-domain", "not a domain"),
        ("--relay-port", "99999"),
        ("--relay-port", "0"),
        ("--authenticity", "magic"),
        ("--address", "a-local-part-over-24-octets@acme.example"),
        ("--address", "ask+tag@acme.example"),
    ],
    ids=" ".join,
)
def test_init_makes_no_settings_that_no_command_would_take(tmp_path: Path, flag: tuple[str, str]) -> None:
    shell = Shell(tmp_path)
    done = shell.run("init", *flag, "--json")
    assert done.code != 0
    assert set(done.error) == {"error", "message", "field"}
    assert shell.snapshot() == {}


def test_a_drafter_s_folder_has_no_grant_key_and_says_so(tmp_path: Path) -> None:
    done = Shell(tmp_path).run(
        "init", "--room", "drafter", "--from-domain", "acme.example", "--approver", "f@acme.example"
    )
    assert "no grant key" in done.out
    assert "lie together" not in done.out
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["draft.key"]
    assert "grant" not in tomllib.loads((tmp_path / "outbox.toml").read_text())["keys"]


def test_a_drafter_s_folder_can_draft_and_cancel_but_not_approve_or_reject(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.run("init", "--room", "drafter", "--from-domain", "acme.example", "--approver", "f@acme.example")
    draft_id = shell.run(*DRAFT).out.strip()
    for words in (("approve", draft_id), ("reject", draft_id, "--reason", "no")):
        done = shell.run(*words, "--json")
        assert done.code in {77, 78}
        assert done.error["error"] in {"key_missing", "not_permitted"}
        assert shell.run("show", draft_id, "--json").data["state"] == "pending"
    assert shell.run("cancel", draft_id, "--json").data["state"] == "cancelled"


def test_db_upgrade_makes_a_missing_database_that_only_its_owner_can_read(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.run("init")
    (tmp_path / "outbox.db").unlink()
    assert shell.run("db", "upgrade", "--json").data == {"revision": "0001"}
    assert shell.run("list").code == 0
    assert stat.S_IMODE((tmp_path / "outbox.db").stat().st_mode) == 0o600
