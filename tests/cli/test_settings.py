"""Settings fail closed: each wrong one is one line that names it, exit 78, and nothing was opened or made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.house import JANE, SALES, House

OFFER = ("draft", "--from", SALES, "--to", JANE, "--subject", "Offer", "--text", "Dear Jane")
APPROVE = ("approve", "018f0000-0000-7000-8000-000000000000")
COMMANDS = {
    "draft": OFFER,
    "worker": ("worker", "--drain"),
    "inbox": ("inbox", "--once"),
    "approve": APPROVE,
    "explain": ("inbox", "explain", "-"),
    "list": ("list",),
}


def refused(shell: Shell, name: str, **environment: str) -> dict[str, str | None]:
    """The command is refused with 78 and leaves every file as it was; the error names no traceback but a field."""
    before = shell.snapshot()
    command = COMMANDS[name]
    if name in {"worker", "inbox"}:  # they print nothing, so they take no --json
        line = shell.says(78, *command, **environment)
        found: dict[str, str | None] = {"error": None, "message": line, "field": None}
    else:
        found = shell.fails(78, *command, **environment)
    assert shell.snapshot() == before
    return found


# Settings that a command needs


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("draft", "policy.from_domains"),
        ("worker", "policy.from_domains"),
        ("worker", "approval.approvers"),
        ("worker", "relay.host"),
        ("inbox", "approval.approvers"),
        ("inbox", "approval.address"),
        ("inbox", "mailbox.url"),
        ("approve", "approval.approvers"),
        ("explain", "approval.address"),
        ("explain", "approval.approvers"),
    ],
)
def test_a_setting_that_is_needed_is_asked_for_before_anything_is_opened(shell: Shell, name: str, setting: str) -> None:
    shell.without(setting)
    (shell.folder / "outbox.db").unlink()  # who opens it first says that it is missing
    assert setting in str(refused(shell, name)["message"])


def test_a_missing_setting_has_its_code_and_field(shell: Shell) -> None:
    shell.without("policy.from_domains")
    found = refused(shell, "draft")
    assert (found["error"], found["field"]) == ("setting_missing", "policy.from_domains")
    assert "OUTBOX_POLICY__FROM_DOMAINS" in str(found["message"])


def test_an_empty_list_is_a_missing_setting(shell: Shell) -> None:
    assert refused(shell, "draft", OUTBOX_POLICY__FROM_DOMAINS="[]")["error"] == "setting_missing"


def test_what_only_looks_needs_the_database_alone(unsent: House, shell: Shell) -> None:
    draft = unsent.draft()
    (shell.folder / "outbox.toml").write_text('[database]\nurl = "sqlite:///outbox.db"\n')
    for file in (shell.folder / "keys").iterdir():
        file.unlink()
    for words in (
        ("list",),
        ("show", draft.id),
        ("show", draft.id, "--eml"),
        ("replies",),
        ("db", "current"),
        ("db", "upgrade"),
    ):
        assert shell.run(*words).code == 0, words


def test_what_only_looks_does_not_stumble_over_a_key_that_is_wrong(unsent: House, shell: Shell) -> None:
    draft = unsent.draft()
    for file in (shell.folder / "keys").iterdir():
        file.chmod(0o644)
    for words in (("list",), ("show", draft.id), ("show", draft.id, "--eml")):
        assert shell.run(*words).code == 0, words


def test_drafting_needs_from_domains_the_draft_key_and_the_database_alone(shell: Shell) -> None:
    (shell.folder / "outbox.toml").write_text('[policy]\nfrom_domains = ["acme.example"]\n')
    (shell.folder / "keys" / "grant.key").unlink()
    drafted = shell.run(*OFFER)
    assert (drafted.code, drafted.err) == (0, "")
    assert shell.run("cancel", drafted.out.strip()).code == 0


def test_approving_needs_approvers_and_no_relay_mailbox_or_domain(unsent: House, shell: Shell) -> None:
    draft = unsent.draft()
    (shell.folder / "outbox.toml").write_text('[approval]\napprovers = ["founder@acme.example"]\n')
    assert shell.run("approve", draft.id, "--json").data["state"] == "approved"


def test_the_worker_needs_no_mailbox_and_no_approval_address(shell: Shell) -> None:
    for setting in ("approval.address", "mailbox.url", "approval.authenticity"):
        shell.without(setting)
    assert shell.run("worker", "--drain").code == 0


# Keys


@pytest.mark.parametrize(
    ("name", "key"),
    [("draft", "draft"), ("worker", "draft"), ("worker", "grant"), ("inbox", "grant"), ("explain", "grant")],
)
def test_a_missing_key_is_named(shell: Shell, name: str, key: str) -> None:
    (shell.folder / "keys" / f"{key}.key").unlink()
    (shell.folder / "outbox.db").unlink()
    assert f"keys.{key}" in str(refused(shell, name)["message"])


@pytest.mark.parametrize(
    ("octets", "mode", "code"),
    [
        (b"x" * 31, 0o600, "key_short"),
        (b"", 0o600, "key_short"),
        (b"x" * 32, 0o640, "key_exposed"),
        (b"x" * 32, 0o604, "key_exposed"),
        (b"x" * 32, 0o660, "key_exposed"),
        (b"x" * 32, 0o602, "key_exposed"),
        (None, 0o700, "secret_unreadable"),
    ],
    ids=["short", "empty", "group reads", "others read", "group writes", "others write", "folder"],
)
def test_a_key_that_is_short_or_exposed_is_refused(shell: Shell, octets: bytes | None, mode: int, code: str) -> None:
    file = shell.folder / "keys" / "draft.key"
    file.unlink()
    if octets is None:
        file.mkdir()
    else:
        file.write_bytes(octets)
    file.chmod(mode)
    found = refused(shell, "draft")
    assert (found["error"], found["field"]) == (code, "keys.draft")
    assert "xxxx" not in str(found["message"])


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_that_its_owner_alone_reads_is_taken(shell: Shell, mode: int) -> None:
    (shell.folder / "keys" / "draft.key").chmod(mode)
    assert shell.run(*OFFER).code == 0


def test_an_exposed_key_anywhere_in_the_list_is_refused(shell: Shell) -> None:
    old = shell.folder / "keys" / "old.key"
    old.write_bytes(b"o" * 32)
    old.chmod(0o644)
    found = refused(shell, "draft", OUTBOX_KEYS__DRAFT='["keys/draft.key", "keys/old.key"]')
    assert found["error"] == "key_exposed"
    assert "old.key" in str(found["message"])


def test_a_grant_key_that_is_exposed_is_refused_by_who_needs_it(unsent: House, shell: Shell) -> None:
    draft = unsent.draft()
    (shell.folder / "keys" / "grant.key").chmod(0o644)
    assert shell.fails(78, "approve", draft.id)["error"] == "key_exposed"
    assert unsent.story(draft.id).draft.state == "pending"


def test_keys_may_lie_in_the_credentials_directory_readable_by_their_group(shell: Shell) -> None:
    credentials = _credentials(shell, 0o440)
    drafted = shell.run(*OFFER, CREDENTIALS_DIRECTORY=str(credentials))
    assert (drafted.code, drafted.err) == (0, "")
    assert shell.run("approve", drafted.out.strip(), CREDENTIALS_DIRECTORY=str(credentials)).code == 0


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o450, 0o606])
def test_a_credential_that_others_read_or_its_group_writes_is_refused(shell: Shell, mode: int) -> None:
    credentials = _credentials(shell, mode)
    assert refused(shell, "draft", CREDENTIALS_DIRECTORY=str(credentials))["error"] == "key_exposed"


def test_a_credentials_directory_without_our_keys_changes_nothing(shell: Shell) -> None:
    (shell.folder / "other").mkdir()
    assert shell.run(*OFFER, CREDENTIALS_DIRECTORY=str(shell.folder / "other")).code == 0


def _credentials(shell: Shell, mode: int) -> Path:
    """The keys, moved to where systemd would put them."""
    credentials = shell.folder / "credentials"
    (shell.folder / "keys").rename(credentials)
    for file in credentials.iterdir():
        file.chmod(mode)
    return credentials


# Names and values in the file


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("[relay]\nport = 0", "relay.port"),
        ("[relay]\nport = 65536", "relay.port"),
        ('[relay]\nport = "smtp"', "relay.port"),
        ("[relay]\nport = 2.5", "relay.port"),
        ("[relay]\nprot = 25", "relay.prot"),
        ("[really]\nport = 25", "really"),
        ("unknown = 1", "unknown"),
        ("[thermal.sytem]\ncount = 1", "thermal.sytem"),
        ("[thermal.system]\ncuont = 1", "thermal.system.cuont"),
        ("[thermal]\ncount = 0", "thermal.count"),
        ('[relay]\nsecurity = "ssl"', "relay.security"),
        ("[relay]\nretry = []", "relay.retry"),
        ('[relay]\nhost = "mail.example"\nretry = [0]', "relay.retry"),
        ('[relay]\ntimeout = "soon"', "relay.timeout"),
        ('[relay]\ntimeout = "1.5h"', "relay.timeout"),
        ("[relay]\ntimeout = -1", "relay.timeout"),
        ("[relay]\nlanes = 0", "relay.lanes"),
        ('[policy]\nfrom_domains = ["not a domain"]', "policy.from_domains"),
        ('[policy]\nfrom_domains = "acme.example"', "policy.from_domains"),
        ('[policy]\nfrom_domains = ["acme.example,evil.example"]', "policy.from_domains"),
        ("[policy]\nmax_recipients = 0", "policy.max_recipients"),
        ('[policy]\ndefault_ttl = "1 day"', "policy.default_ttl"),
        ('[approval]\napprovers = ["nobody"]', "approval.approvers"),
        ('[approval]\napprovers = ["a@x.example,b@x.example"]', "approval.approvers"),
        ('[approval]\naddress = "nobody"', "approval.address"),
        ('[approval]\naddress = "ask+tag@acme.example"', "approval.address"),
        ('[approval]\naddress = "a234567890123456789012345@x.example"', "approval.address"),
        ('[approval]\nterminal = "maybe"', "approval.terminal"),
        ('[approval]\nauthenticity = "trust"', "approval.authenticity"),
        ('[reconcile]\nauto_release = "always"', "reconcile.auto_release"),
        ('[operator]\naddresses = ["x"]', "operator.addresses"),
        ('[database]\nurl = "postgresql://x"', "database.url"),
        ('[database]\nurl = "sqlite:///"', "database.url"),
        ('[approval]\napprovers = ["ask@x.example"]\naddress = "ask@x.example"', "approval.approvers"),
    ],
)
def test_a_wrong_value_or_an_unknown_name_in_the_file_is_named(tmp_path: Path, lines: str, named: str) -> None:
    (tmp_path / "outbox.toml").write_text(lines + "\n")
    found = refused(Shell(tmp_path), "list")
    assert str(found["field"]).startswith(named)
    assert named in str(found["message"])


@pytest.mark.parametrize("octets", [b"[relay\n", b"port = \n", b"\xff\xfe", b"[relay]\nport = 1\nport = 2\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "outbox.toml").write_bytes(octets)
    found = refused(Shell(tmp_path), "list")
    assert found["error"] == "config_invalid"
    assert "outbox.toml" in str(found["message"])


def test_a_wrong_value_that_may_be_a_secret_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "outbox.toml").write_text('[relay]\nport = "hunter2"\npassword = "hunter3"\n')
    done = Shell(tmp_path).run("list")
    assert done.code == 78
    assert "hunter" not in done.out + done.err


# The environment


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("OUTBOX_RELAY__PROT", "1", "OUTBOX_RELAY__PROT"),
        ("OUTBOX_REALLY__PORT", "1", "OUTBOX_REALLY__PORT"),
        ("OUTBOX_RELAY_PORT", "1", "OUTBOX_RELAY_PORT"),
        ("OUTBOX_", "1", "OUTBOX_"),
        ("OUTBOX_RELAY__PORT__X", "1", "OUTBOX_RELAY__PORT__X"),
        ("OUTBOX_RELAY__PORT", "abc", "relay.port"),
        ("OUTBOX_RELAY__PORT", "", "relay.port"),
        ("OUTBOX_RELAY__PORT", "70000", "relay.port"),
        ("OUTBOX_POLICY__FROM_DOMAINS", "acme.example", "policy.from_domains"),
        ("OUTBOX_POLICY__FROM_DOMAINS", '["a b"]', "policy.from_domains"),
        ("OUTBOX_RELAY", "not json", "relay"),
        ("OUTBOX_RELAY", '{"prot": 1}', "relay.prot"),
        ("OUTBOX_THERMAL__SYSTEM__COUNT", "0", "thermal.system.count"),
    ],
)
def test_a_wrong_variable_is_named(shell: Shell, variable: str, value: str, named: str) -> None:
    found = refused(shell, "list", **{variable: value})
    assert named in str(found["message"])
    assert str(found["field"]).startswith(named)


def test_the_environment_overrides_one_key_and_keeps_the_others_of_its_section(unsent: House, shell: Shell) -> None:
    unsent.set("policy", max_recipients="1")
    two = (*OFFER, "--to", "bob@customer.example")
    assert shell.fails(1, *two)["error"] == "too_many_recipients"
    assert shell.run(*two, OUTBOX_POLICY__MAX_RECIPIENTS="2").code == 0
    error = shell.fails(1, *two, OUTBOX_POLICY__FROM_DOMAINS='["acme.example", "b.example"]')
    assert error["error"] == "too_many_recipients"


def test_the_environment_alone_is_enough(tmp_path: Path, unsent: House) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = Shell(tmp_path / "elsewhere").run(
        *OFFER,
        OUTBOX_DATABASE__URL=f"sqlite:///{unsent.database}",
        OUTBOX_KEYS__DRAFT=f'["{unsent.folder}/keys/draft.key"]',
        OUTBOX_POLICY__FROM_DOMAINS='["acme.example"]',
    )
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [('"90s"', 90), ('"15m"', 900), ('"24h"', 86400), ('"7d"', 604800), ("60", 60), ('"60"', 60)],
)
def test_a_duration_is_seconds_or_a_number_with_its_unit(unsent: House, written: str, seconds: int) -> None:
    unsent.set("policy", default_ttl=written)
    draft = unsent.draft()
    assert draft.expires_at - draft.created_at == seconds * 1_000_000


# Which file


def test_a_named_file_that_is_missing_is_refused(shell: Shell) -> None:
    for words, environment in ((("--config", "none.toml", "list"), {}), (("list",), {"OUTBOX_CONFIG": "none.toml"})):
        error = shell.fails(78, *words, **environment)
        assert error["error"] == "config_missing"
        assert "none.toml" in error["message"]


def test_the_flag_comes_before_the_variable_and_that_before_the_folder(shell: Shell) -> None:
    for name in ("flag", "variable"):
        (shell.folder / f"{name}.toml").write_text(f'[database]\nurl = "sqlite:///{name}.db"\n')
    assert "flag.db" in shell.says(78, "--config", "flag.toml", "list", OUTBOX_CONFIG="variable.toml")
    assert "variable.db" in shell.says(78, "list", OUTBOX_CONFIG="variable.toml")
    assert shell.run("list").code == 0


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path, unsent: House) -> None:
    (tmp_path / "far").mkdir()
    done = Shell(tmp_path / "far").run("--config", unsent.folder / "outbox.toml", *OFFER)
    assert (done.code, done.err) == (0, "")
    assert list((tmp_path / "far").iterdir()) == []


# Who is believed, and where replies come from


@pytest.mark.parametrize("name", ["inbox", "explain"])
@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("AUTHENTICITY", "authentication-results", "approval.authserv_id"),
        ("AUTHENTICITY", "code", "outbox enrol founder@acme.example"),
        ("CODE_FOR_KINDS", '["email"]', "outbox enrol founder@acme.example"),
        ("CODE_FOR_RECIPIENTS", '["@bank.example"]', "outbox enrol founder@acme.example"),
    ],
)
def test_replies_are_read_only_under_an_authenticity_that_can_be_kept(
    shell: Shell, name: str, setting: str, value: str, named: str
) -> None:
    assert named in str(refused(shell, name, **{f"OUTBOX_APPROVAL__{setting}": value})["message"])


def test_authenticity_none_must_be_written_and_warns_at_every_start(shell: Shell) -> None:
    assert "whoever knows the token is believed" in shell.run("inbox", "--once").err
    shell.without("approval.authenticity")
    done = shell.run("inbox", "--once")
    assert (done.code, done.err) == (0, "")


def test_authenticity_none_is_only_for_a_mailbox_on_loopback(shell: Shell) -> None:
    found = refused(shell, "inbox", OUTBOX_MAILBOX__URL="imaps://mail.example", OUTBOX_MAILBOX__USERNAME="me")
    assert "approval.authenticity" in str(found["message"])


@pytest.mark.parametrize("host", ["mail.example.org", "192.0.2.1", "127.0.0.1.evil.example", "localhost.evil.example"])
def test_authenticity_none_is_only_for_a_relay_on_loopback(shell: Shell, host: str) -> None:
    assert "approval.authenticity" in str(refused(shell, "inbox", OUTBOX_RELAY__HOST=host)["message"])


@pytest.mark.parametrize(
    "url",
    [
        "maildir:", "Maildir", "pop3s://mail.example", "imaps:///INBOX", "imap://mail.example",
        "imaps://me:secret@mail.example", "imaps://mail.example?a=b", "imaps://mail.example:none", "imaps://[::1",
    ],
)  # fmt: skip
def test_a_mailbox_that_cannot_be_read_is_refused_without_what_may_be_its_password(shell: Shell, url: str) -> None:
    found = str(refused(shell, "inbox", OUTBOX_MAILBOX__URL=url)["message"])
    assert "mailbox.url" in found
    assert "secret" not in found
    elsewhere = str(refused(shell, "list", OUTBOX_RECONCILE__MAILBOX__URL=url)["message"])
    assert "reconcile.mailbox.url" in elsewhere
    assert "secret" not in elsewhere


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "mailbox.username"),
        ({"USERNAME": "me"}, "mailbox.password_file"),
        ({"USERNAME": "me", "PASSWORD_FILE": "nowhere"}, "mailbox.password_file"),
        ({"USERNAME": "me", "TOKEN_COMMAND": "'"}, "mailbox.token_command"),
    ],
)
def test_a_mailbox_that_cannot_be_logged_into_is_refused(shell: Shell, given: dict[str, str], named: str) -> None:
    environment = {f"OUTBOX_MAILBOX__{name}": value for name, value in given.items()}
    environment |= {"OUTBOX_MAILBOX__URL": "imaps://mail.example", "OUTBOX_APPROVAL__AUTHENTICITY": "dkim"}
    found = refused(shell, "inbox", **environment)
    assert named in str(found["message"])


def test_a_maildir_that_is_not_there_is_exit_69(shell: Shell) -> None:
    assert "nowhere" in shell.says(69, "inbox", "--once", OUTBOX_MAILBOX__URL="maildir:nowhere")
