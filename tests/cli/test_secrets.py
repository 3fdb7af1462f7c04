"""Secrets reach no output, log, state file or row."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.house import JANE, SALES, House

DRAFT_KEY, GRANT_KEY = b"draft-key-that-nobody-may-see-0001", b"grant-key-that-nobody-may-see-0002"
PASSWORD = "relay-password-that-nobody-may-see"
BODY = "a-body-that-no-log-may-have"
OFFER = ("draft", "--from", SALES, "--to", JANE, "--subject", "Offer", "--text", BODY)


def forms(secret: bytes) -> tuple[bytes, ...]:
    """A secret as it is, in hex, in base64 and in base32."""
    return secret, secret.hex().encode(), base64.b64encode(secret)[:-4], base64.b32encode(secret).rstrip(b"=")


@pytest.fixture
def guarded(house: House) -> House:
    """A house with keys and a password that can be searched for."""
    for name, octets in (("draft", DRAFT_KEY), ("grant", GRANT_KEY)):
        (house.folder / "keys" / f"{name}.key").write_bytes(octets)
    (house.folder / "relay.password").write_text(PASSWORD + "\n")
    (house.folder / "relay.password").chmod(0o600)
    house.set("relay", username='"outbox"', password_file='"relay.password"')
    house.set("alerts", command='"tee -a alerts.txt"')
    return house


def test_no_secret_and_no_body_is_in_what_any_command_says_or_leaves(guarded: House) -> None:
    shell = Shell(guarded.folder)
    drafted = shell.run(*OFFER)
    draft_id = drafted.out.strip()
    done = [
        drafted,
        shell.run("list"),
        shell.run("approve", draft_id, "--json"),
        shell.run("worker", "--drain"),
        shell.run("inbox", "--once"),
        shell.run("show", draft_id),
        shell.run("show", draft_id, "--json"),
        shell.run("replies"),
        shell.run("db", "current"),
        shell.run("approve", draft_id),
        shell.run("cancel", "nobody"),
    ]
    said = b"\n".join((one.out + one.err).encode() for one in done)
    assert b"Traceback" not in said
    assert BODY.encode() not in said
    kept = {file: file.read_bytes() for file in _left(guarded.folder)}
    assert {"outbox.db", "worker.json"} <= {file.name for file in kept}, "the relay without a login makes an alert"
    for secret in (DRAFT_KEY, GRANT_KEY, PASSWORD.encode()):
        for form in forms(secret):
            assert form not in said
            assert not [file for file, octets in kept.items() if form in octets]


def _left(folder: Path) -> list[Path]:
    secret = {folder / "relay.password", *(folder / "keys").iterdir()}
    return [file for file in folder.rglob("*") if file.is_file() and file not in secret]


@pytest.mark.parametrize(
    ("octets", "mode"),
    [
        (None, 0o600),
        (b"p\xffssword", 0o600),
        (PASSWORD.encode(), 0o644),
        (PASSWORD.encode(), 0o640),
        (b"", 0o600),
        (b"\n", 0o600),
    ],
    ids=["missing", "not utf-8", "others read", "group reads", "empty", "only a line end"],
)
def test_a_password_file_that_cannot_be_used_is_named_and_not_quoted(
    guarded: House, octets: bytes | None, mode: int
) -> None:
    file = guarded.folder / "relay.password"
    file.unlink()
    if octets is not None:
        file.write_bytes(octets)
        file.chmod(mode)
    line = Shell(guarded.folder).says(78, "worker", "--drain")
    assert "relay.password_file" in line
    assert PASSWORD not in line


def test_a_user_without_a_password_is_refused(guarded: House) -> None:
    shell = Shell(guarded.folder)
    shell.without("relay.password_file")
    assert "relay.password_file" in shell.says(78, "worker", "--drain")


def test_a_password_may_lie_in_the_credentials_directory(guarded: House) -> None:
    shell = Shell(guarded.folder)
    shell.without("relay.password_file")
    (guarded.folder / "credentials").mkdir()
    (guarded.folder / "relay.password").rename(guarded.folder / "credentials" / "relay.password")
    done = shell.run("worker", "--drain", CREDENTIALS_DIRECTORY=str(guarded.folder / "credentials"))
    assert (done.code, done.out) == (0, "")
