"""`outbox init` makes a folder that works at once, overwrites nothing and says where keys lie together."""

from __future__ import annotations

import base64
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from outbox import config
from outbox.operator.providers import PROVIDERS
from outbox.store.schema import REVISION
from tests.cli.shell import Done, Shell
from tests.cli.terminal import on_terminal
from tests.cli.test_enrol import qr_code
from tests.contracts.markdown import fences, page
from tests.house import FOUNDER

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
    assert shell.run("db", "current").out == f"{REVISION}\n"


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
    assert shell.run("db", "upgrade", "--json").data == {"revision": REVISION}
    assert shell.run("list").code == 0
    assert stat.S_IMODE((tmp_path / "outbox.db").stat().st_mode) == 0o600


def made_for(folder: Path, provider: str, address: str, *more: str) -> tuple[Done, Shell]:
    shell = Shell(folder)
    done = shell.run("init", "--provider", provider, address, *more)
    assert (done.code, done.err) == (0, "")
    return done, shell


def written(folder: Path) -> dict[str, dict[str, object]]:
    return tomllib.loads((folder / "outbox.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_s_settings_are_whole_and_read_without_any_environment(tmp_path: Path, name: str) -> None:
    _, shell = made_for(tmp_path, name, FOUNDER)
    assert shell.run("db", "current").out == f"{REVISION}\n"
    settings = config.load(tmp_path / "outbox.toml")
    assert settings.policy.from_domains == ("acme.example",)
    assert (settings.approval.approvers, settings.approval.address) == ((FOUNDER,), FOUNDER)
    assert settings.mailbox.url == f"imaps://imap.{name}.com:993/INBOX"
    assert (settings.relay.host, settings.relay.port, settings.relay.security) == (f"smtp.{name}.com", 465, "tls")
    assert (settings.mailbox.username, settings.relay.username) == (FOUNDER, FOUNDER)
    assert not settings.mailbox.dedicated
    assert "\n# " not in (tmp_path / "outbox.toml").read_text().partition("[")[2]  # nothing waits to be filled in


@pytest.mark.parametrize("name", PROVIDERS)
def test_one_account_for_both_has_a_code_and_its_secret_is_made(tmp_path: Path, name: str) -> None:
    done, shell = made_for(tmp_path, name, FOUNDER)
    secret = tmp_path / "keys" / f"{FOUNDER}.code"
    assert written(tmp_path)["approval"]["authenticity"] == "code"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert f"made keys/{FOUNDER}.code" in done.out
    assert f"`outbox enrol {FOUNDER}`" in done.out
    assert shell.run("enrol", FOUNDER, "--json").data["made"] is False


@pytest.mark.parametrize("name", PROVIDERS)
def test_an_approver_elsewhere_is_believed_by_his_domain_s_signature(tmp_path: Path, name: str) -> None:
    _, _ = made_for(tmp_path, name, "outbox@acme.example", "--approver", "founder@home.example")
    assert written(tmp_path)["approval"] == {
        "approvers": ["founder@home.example"],
        "address": "outbox@acme.example",
        "authenticity": "dkim",
    }
    assert list((tmp_path / "keys").glob("*.code")) == []


@pytest.mark.parametrize(
    ("provider", "address", "approver"),
    [
        ("gmail", "founder@gmail.com", "f.ounder+work@googlemail.com"),
        ("fastmail", "founder@acme.example", "Founder+x@acme.example"),
        ("purelymail", "outbox@acme.example", "founder@acme.example"),
    ],
)
def test_an_approver_whose_replies_would_carry_no_signature_has_a_code(
    tmp_path: Path, provider: str, address: str, approver: str
) -> None:
    _, shell = made_for(tmp_path, provider, address, "--approver", approver, "--approver", "other@home.example")
    assert written(tmp_path)["approval"]["authenticity"] == "code"
    for one in (approver, "other@home.example"):
        assert shell.run("enrol", one, "--json").data["made"] is False


def test_two_users_of_one_domain_at_fastmail_sign_what_they_write(tmp_path: Path) -> None:
    made_for(tmp_path, "fastmail", "outbox@acme.example", "--approver", FOUNDER)
    assert written(tmp_path)["approval"]["authenticity"] == "dkim"


def test_what_is_said_beside_the_provider_wins(tmp_path: Path) -> None:
    more = ("--from-domain", "mail.acme.example", "--approver", "other@home.example", "--authenticity", "code")
    made_for(tmp_path, "fastmail", "outbox@acme.example", *more)
    assert written(tmp_path)["policy"] == {"from_domains": ["mail.acme.example"]}
    assert written(tmp_path)["approval"]["authenticity"] == "code"
    assert (tmp_path / "keys" / "other@home.example.code").exists()


def test_codes_without_a_provider_have_their_secrets_too(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    done = shell.run("init", "--authenticity", "code", "--approver", FOUNDER, "--approver", FOUNDER)
    assert done.out.count(f"made keys/{FOUNDER}.code") == 1
    assert shell.run("enrol", FOUNDER, "--json").data["made"] is False


def test_no_secret_is_printed_where_stdout_is_no_terminal(tmp_path: Path) -> None:
    for words in ((), ("--json",)):
        folder = tmp_path / f"box{len(words)}"
        folder.mkdir()
        done, _ = made_for(folder, "fastmail", FOUNDER, *words)
        secret = (folder / "keys" / f"{FOUNDER}.code").read_text().strip()
        assert len(base64.b32decode(secret)) == 20
        assert secret not in done.out.replace(" ", "")
        assert f"keys/{FOUNDER}.code" in done.out


def test_on_a_terminal_the_secret_of_this_very_account_is_shown(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    done = on_terminal(
        shell, "init", "--provider", "fastmail", FOUNDER, "--approver", FOUNDER, "--approver", "o@b.example"
    )
    assert (done.code, done.err) == (0, "")
    secret = (tmp_path / "keys" / f"{FOUNDER}.code").read_text().strip()
    assert qr_code(secret) in done.out
    assert done.out.count("scan this") == 1  # the other approver is not at this terminal
    assert " ".join(secret[start : start + 4] for start in range(0, 32, 4)) in done.out


def test_init_says_where_an_app_password_is_made_and_beware(tmp_path: Path) -> None:
    done, _ = made_for(tmp_path, "gmail", FOUNDER)
    assert "https://myaccount.google.com/apppasswords" in done.out
    assert "Gmail puts its own address" in done.out
    data = Shell(tmp_path).run("init", "--dir", "box", "--provider", "gmail", FOUNDER, "--json").data
    assert any("apppasswords" in note for note in data["notes"])


@pytest.mark.parametrize("folder", ["", "a box"])
def test_the_command_that_init_names_puts_the_password_where_both_rooms_find_it(tmp_path: Path, folder: str) -> None:
    done, _ = made_for(tmp_path, "fastmail", FOUNDER, *(("--dir", folder) if folder else ()))
    (command,) = [line.strip() for line in done.out.splitlines() if line.strip().startswith("(umask")]
    subprocess.run(["sh", "-c", command], input=b"an app password\n", cwd=tmp_path, check=True)
    settings = config.load(tmp_path / folder / "outbox.toml")
    assert settings.relay_password() == settings.mailbox_password() == "an app password"


def test_a_secret_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / f"{FOUNDER}.code").write_bytes(b"precious")
    shell = Shell(tmp_path)
    before = shell.snapshot()
    error = shell.fails(78, "init", "--provider", "fastmail", FOUNDER)
    assert error["error"] == "file_exists"
    assert shell.snapshot() == before


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--provider", "fastmail"), "ADDRESS"),
        ((FOUNDER,), "ADDRESS"),
        (("--provider", "fastmail", "nobody"), "ADDRESS"),
        (("--provider", "fastmail", FOUNDER, "--address", FOUNDER), "--address"),
        (("--provider", "fastmail", FOUNDER, "--mailbox", "maildir:M"), "--mailbox"),
        (("--provider", "fastmail", FOUNDER, "--relay-host", "127.0.0.1"), "--relay-host"),
        (("--provider", "fastmail", FOUNDER, "--relay-port", "25"), "--relay-port"),
        (("--provider", "fastmail", FOUNDER, "--relay-security", "none"), "--relay-security"),
        (("--provider", "fastmail", FOUNDER, "--room", "drafter"), "--room"),
        (("--provider", "hotmail", FOUNDER), None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_contradicts_a_provider_is_refused_and_nothing_is_made(
    tmp_path: Path, words: tuple[str, ...], field: str | None
) -> None:
    shell = Shell(tmp_path)
    assert shell.fails(2, "init", *words)["field"] == field
    assert shell.snapshot() == {}


@pytest.mark.parametrize(
    "words",
    [
        ("a-local-part-over-24-octets@acme.example",),
        ("ask+tag@acme.example",),
        (FOUNDER, "--authenticity", "dkim"),
        (FOUNDER, "--authenticity", "authentication-results"),
        (FOUNDER, "--approver", "/etc/founder@acme.example", "--authenticity", "code"),
        (FOUNDER, "--approver", "nobody"),
    ],
    ids=" ".join,
)
def test_a_provider_s_settings_that_no_command_would_take_are_not_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    shell = Shell(tmp_path)
    shell.fails(78, "init", "--provider", "fastmail", *words)
    assert shell.snapshot() == {}


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_commands_of_a_provider_s_page_do_what_it_says(tmp_path: Path, name: str) -> None:
    shell = Shell(tmp_path)
    for fence in fences(page(f"docs/howto/{name}.md")):
        assert fence.language == "sh"
        if not fence.remark.startswith("not run: "):
            done = shell.run(*fence.text.split()[1:])
            assert (done.code, done.err) == (0, "")
    found = {
        one: written(tmp_path / one)["approval"]["authenticity"]
        for one in ("separate", "own")
        if (tmp_path / one).exists()
    }
    assert found.pop("own", "code") == "code"
    assert found == {"separate": "code" if name == "purelymail" else "dkim"}
