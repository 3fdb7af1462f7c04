"""`outbox enrol` gives an approver the secret of his codes, and shows it to nobody who did not ask."""

from __future__ import annotations

import base64
import io
import re
import stat
from pathlib import Path

import pyotp
import pytest
import segno

from outbox.inbox.codes import match_code, parse_secret
from outbox.operator.enrolment import enrol, new_secret
from tests.cli.shell import Shell
from tests.cli.terminal import on_terminal
from tests.house import FOUNDER, SECOND, House

FILE = f"keys/{FOUNDER}.code"
GROUPS = re.compile(r"type it in: ((?:[A-Z2-7]{4} ?){8})\n")


def secret_of(shell: Shell) -> str:
    return (shell.folder / FILE).read_text().strip()


def qr_code(secret: str) -> str:
    """The QR code of an approver's otpauth address, as the terminal shows it."""
    uri = pyotp.TOTP(secret).provisioning_uri(name=FOUNDER, issuer_name="Outbox")
    drawn = io.StringIO()
    segno.make(uri, error="l", micro=False).terminal(drawn, border=2, compact=True)
    return drawn.getvalue()


def test_a_secret_is_made_in_a_file_that_only_its_owner_can_read(shell: Shell) -> None:
    done = shell.run("enrol", FOUNDER, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.data == {"approver": FOUNDER, "file": str(shell.folder / FILE), "made": True}
    assert stat.S_IMODE((shell.folder / FILE).stat().st_mode) == 0o600
    assert len(base64.b32decode(secret_of(shell))) == 20


def test_it_is_shown_on_a_terminal_as_a_qr_code_and_in_groups_of_four(shell: Shell) -> None:
    done = on_terminal(shell, "enrol", FOUNDER)
    assert (done.code, done.err) == (0, "")
    assert qr_code(secret_of(shell)) in done.out
    groups = GROUPS.search(done.out)
    assert groups is not None
    assert groups[1].replace(" ", "") == secret_of(shell)


def test_a_terminal_without_block_characters_gets_it_in_colours(shell: Shell) -> None:
    done = on_terminal(Shell(shell.folder, {"PYTHONIOENCODING": "latin-1"}), "enrol", FOUNDER)
    assert (done.code, done.err) == (0, "")
    assert GROUPS.search(done.out)


def test_the_codes_of_an_app_that_scanned_it_are_the_codes_that_the_inbox_takes(unsent: House) -> None:
    enrolment = enrol(unsent.settings, FOUNDER)
    scanned = pyotp.parse_uri(enrolment.uri)
    assert isinstance(scanned, pyotp.TOTP)
    assert (scanned.name, scanned.issuer) == (FOUNDER, "Outbox")
    secret = parse_secret(unsent.settings.code_text(FOUNDER).encode())
    now = unsent.clock.now
    assert match_code(secret, scanned.at(now // SECOND), since=now, until=now) is not None


def test_a_secret_that_is_there_is_shown_and_not_made_again(shell: Shell) -> None:
    shell.run("enrol", FOUNDER, "--json")
    before = shell.snapshot()
    assert shell.run("enrol", FOUNDER, "--json").data["made"] is False
    assert qr_code(secret_of(shell)) in on_terminal(shell, "enrol", FOUNDER).out
    assert shell.snapshot() == before


def test_again_replaces_it_and_says_what_that_means(shell: Shell) -> None:
    shell.run("enrol", FOUNDER, "--json")
    first = secret_of(shell)
    done = on_terminal(shell, "enrol", FOUNDER, "--again")
    assert "Codes of the old secret count no more" in done.out
    assert secret_of(shell) != first
    assert qr_code(secret_of(shell)) in done.out
    assert stat.S_IMODE((shell.folder / FILE).stat().st_mode) == 0o600
    assert sorted(file.name for file in (shell.folder / "keys").iterdir()) == [
        "draft.key",
        f"{FOUNDER}.code",
        "grant.key",
    ]


def test_no_secret_goes_into_a_pipe_that_did_not_ask_for_it(shell: Shell) -> None:
    before = shell.snapshot()
    line = shell.says(2, "enrol", FOUNDER)
    assert "--show" in line
    assert "--json" in line
    assert shell.snapshot() == before


def test_show_prints_it_into_a_pipe(shell: Shell) -> None:
    done = shell.run("enrol", FOUNDER, "--show")
    groups = GROUPS.search(done.out)
    assert groups is not None
    assert groups[1].replace(" ", "") == secret_of(shell)
    assert qr_code(secret_of(shell)) in done.out
    assert "\x1b" not in done.out


def test_json_never_has_it(shell: Shell) -> None:
    for words in (("--json",), ("--json", "--again")):
        done = shell.run("enrol", FOUNDER, *words)
        assert secret_of(shell) not in done.out + done.err
    before = shell.snapshot()
    assert shell.fails(2, "enrol", FOUNDER, "--show")["field"] == "--show"
    assert shell.snapshot() == before


def test_nobody_else_is_enrolled(shell: Shell) -> None:
    before = shell.snapshot()
    error = shell.fails(77, "enrol", "mallory@rival.example")
    assert (error["error"], error["field"]) == ("approver_unknown", "ADDRESS")
    assert shell.snapshot() == before


def test_an_approver_is_found_whatever_the_case_and_his_file_is_named_as_the_settings_have_him(shell: Shell) -> None:
    assert shell.run("enrol", FOUNDER.upper(), "--json").data["approver"] == FOUNDER
    assert (shell.folder / FILE).exists()


def test_the_file_that_the_settings_name_is_the_one(unsent: House, shell: Shell) -> None:
    unsent.set(f'approver."{FOUNDER}"', code_file='"secrets/founder"')
    shell.run("enrol", FOUNDER, "--json")
    assert stat.S_IMODE((shell.folder / "secrets").stat().st_mode) == 0o700
    assert parse_secret((shell.folder / "secrets" / "founder").read_bytes())


def test_a_secret_that_others_can_read_is_not_shown(shell: Shell) -> None:
    shell.run("enrol", FOUNDER, "--json")
    (shell.folder / FILE).chmod(0o644)
    assert shell.fails(78, "enrol", FOUNDER)["error"] == "key_exposed"


@pytest.mark.parametrize("text", ["", "JBSWY3DPEHPK3PXP\n", "not base32: 018!", "AAAA" * 6 + "A"])
def test_what_is_no_secret_is_refused_and_not_repeated(shell: Shell, text: str) -> None:
    (shell.folder / FILE).write_text(text)
    (shell.folder / FILE).chmod(0o600)
    error = shell.fails(78, "enrol", FOUNDER)
    assert error["error"] == "secret_unreadable"
    assert "--again" in error["message"]
    assert not text.strip() or text.strip() not in error["message"]
    assert shell.run("enrol", FOUNDER, "--again", "--json").code == 0


def test_a_file_that_cannot_be_written_is_one_line(unsent: House, shell: Shell) -> None:
    unsent.set(f'approver."{FOUNDER}"', code_file='"outbox.toml/founder.code"')
    for words in ((), ("--again",)):
        assert "cannot be written" in shell.fails(78, "enrol", FOUNDER, *words)["message"]


def test_no_file_is_named_after_an_address_with_a_slash(unsent: House, shell: Shell) -> None:
    address = "/etc/founder@acme.example"
    unsent.set("approval", approvers=f'["{address}"]')
    before = shell.snapshot()
    assert "code_file" in shell.fails(78, "enrol", address)["message"]
    assert shell.snapshot() == before
    assert not Path(f"{address}.code").exists()


def test_where_no_code_is_asked_for_it_says_so(unsent: House, shell: Shell) -> None:
    assert 'approval.authenticity is "none"' in shell.run("enrol", FOUNDER, "--show").out
    unsent.set("approval", authenticity='"code"')
    assert "approval.authenticity" not in shell.run("enrol", FOUNDER, "--show").out


def test_a_secret_is_not_in_its_repr(unsent: House) -> None:
    enrolment = enrol(unsent.settings, FOUNDER)
    assert enrolment.secret not in repr(enrolment)


def test_no_two_secrets_are_alike() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
