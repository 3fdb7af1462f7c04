"""What is found out about a draft that may have left: from folders of a mail server, and by the operator's command."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from imapclient import IMAPClient

from outbox import config
from outbox.config import Settings
from outbox.core.address import Mailbox
from outbox.core.canonical import sha256
from outbox.core.evidence import Evidence
from outbox.core.grant import TOKEN_CHARACTERS
from outbox.core.message import Content, compose, date_line
from outbox.operator.evidence import Sought, gather
from tests.inbox.dovecot import MISSING, PASSWORD, PROGRAM, Account, Dovecot
from tests.inbox.scripted_imap import HangUp, Hold, Script, ScriptedImap, fetched

ID = "0194a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
OTHER_ID = "0194a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c"
MESSAGE_ID = f"<{ID}@acme.example>"
AGENTS_OWN = "<own.7@agent.example>"
GAP_AT = 1_700_000_000 * 1_000_000
GAP = datetime.fromtimestamp(GAP_AT // 1_000_000, UTC)
TRACE = (
    b"Return-Path: <sales@acme.example>\r\nReceived: from relay.example\r\n\tby mx.acme.example; now\r\n"
    b"Authentication-Results: mx.acme.example; none\r\n"
)
MESSAGE = compose(
    Content(
        Mailbox("", "sales@acme.example"), (Mailbox("Jane", "jane@customer.example"),), (), "Offer", "Dear Jane,\n"
    ),
    ID,
    MESSAGE_ID,
)
WIRE = date_line(GAP_AT) + MESSAGE
FORGED = WIRE.replace(b"Dear Jane", b"Dear John")
REWRITTEN = WIRE.replace(MESSAGE_ID.encode(), b"<0100018@email.amazonses.example>")
SOUGHT = Sought(ID, MESSAGE_ID, ("jane@customer.example",), GAP_AT, "4XQ2", sha256(WIRE), MESSAGE)
OF_AN_AGENT = WIRE.replace(MESSAGE_ID.encode(), AGENTS_OWN.encode())
SOUGHT_OF_AN_AGENT = Sought(
    ID, AGENTS_OWN, ("jane@customer.example",), GAP_AT, None, sha256(OF_AN_AGENT), OF_AN_AGENT.partition(b"\r\n")[2]
)
SPECIAL_USE = r"""
namespace inbox {
  inbox = yes
  mailbox Gesendet {
    special_use = \Sent
    auto = create
  }
  mailbox Alles {
    special_use = \All
    auto = create
  }
  mailbox Archive {
    auto = create
  }
}
"""
BOUND = 10.0  # seconds for whatever a server does
Look = Callable[..., list[Evidence]]


def without(octets: bytes, name: bytes) -> bytes:
    lines = [line for line in octets.split(b"\r\n") if not line.startswith(name + b":")]
    assert len(lines) == octets.count(b"\r\n")
    return b"\r\n".join(lines)


class Outbox:
    """A settings file that says where evidence may lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = folder / "mail.password"
        self.password.touch(0o600)
        self.password.write_text(PASSWORD + "\n")
        self.write("")

    def write(self, text: str) -> None:
        (self.folder / "outbox.toml").write_text(text)

    def at(self, port: int, *, username: str = "sales", folders: str = "[]", more: str = "") -> None:
        """Look at this server, on loopback."""
        login = f'url = "imap://127.0.0.1:{port}"\nusername = "{username}"\npassword_file = "mail.password"'
        self.write(f"[reconcile]\nfolders = {folders}\n{more}\n[reconcile.mailbox]\n{login}\n")

    def command(self, script: str) -> None:
        """Run this as the operator's command."""
        words = shlex.join(["sh", "-c", script])
        self.write(f"[reconcile]\ncommand = {json.dumps(words)}\n")

    @property
    def settings(self) -> Settings:
        return config.load(self.folder / "outbox.toml")

    def gather(self, sought: Sought = SOUGHT, *, timeout: float = 20.0) -> list[Evidence]:
        return gather(self.settings, sought, timeout=timeout)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    if PROGRAM is None:
        pytest.skip(MISSING)
    with Dovecot(settings=SPECIAL_USE) as started:
        yield started


NAMES = itertools.count()


@pytest.fixture
def account(dovecot: Dovecot, outbox: Outbox) -> Account:
    """A mailbox of its own for each test, whose server says which folder is for what was sent."""
    named = dovecot.account(f"sales{next(NAMES)}")
    outbox.at(dovecot.port, username=named.name, folders='["Archive"]')
    return named


def about(found: list[Evidence], folder: str) -> Evidence:
    (one,) = [evidence for evidence in found if evidence.source.endswith(f" {folder}")]
    return one


def test_a_copy_in_the_folder_for_sent_mail_proves_that_it_left(account: Account, outbox: Outbox) -> None:
    uid = account.append(WIRE, folder="Gesendet", arrived=GAP)
    found = outbox.gather()
    assert [one.source.rpartition(" ")[2] for one in found] == ["Gesendet", "Alles", "Archive"]
    sent = about(found, "Gesendet")
    assert (sent.found, sent.octets) == (True, WIRE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert sent.detail == f"message {uid} of Gesendet carries this draft's id, and Gesendet is for what was sent"
    absent = about(found, "Alles")
    assert (absent.found, absent.octets) == (None, None)
    assert absent.detail == "nothing in Alles carries this draft's id: that proves nothing"
    assert account.flags("Gesendet") == {uid: set()}


def test_an_archive_s_copy_proves_it_by_its_octets(account: Account, outbox: Outbox) -> None:
    account.append(TRACE + FORGED, folder="Archive", arrived=GAP)
    uid = account.append(TRACE + WIRE, folder="Archive", arrived=GAP)
    archived = about(outbox.gather(), "Archive")
    assert archived.found is True
    assert archived.detail == (
        f"message {uid} of Archive carries this draft's id, and is octet for octet what the relay was given"
    )


def test_a_large_message_is_compared_piece_by_piece(account: Account, outbox: Outbox) -> None:
    message = MESSAGE + b"0123456789abcdef\r\n" * 300_000
    wire = date_line(GAP_AT) + message
    account.append(TRACE + wire, folder="Archive", arrived=GAP)
    sought = Sought(ID, MESSAGE_ID, (), GAP_AT, None, sha256(wire))
    assert about(outbox.gather(sought), "Archive").found is True


def test_what_lay_there_before_the_attempt_is_not_looked_at(account: Account, outbox: Outbox) -> None:
    account.append(WIRE, folder="Gesendet", arrived=GAP - timedelta(days=4))
    assert about(outbox.gather(), "Gesendet").found is None


def test_a_folder_that_is_not_there_says_so_and_the_others_are_looked_into(account: Account, outbox: Outbox) -> None:
    outbox.at(account.server.port, username=account.name, folders='["Gone", "Archive"]')
    account.append(TRACE + WIRE, folder="Archive", arrived=GAP)
    found = outbox.gather()
    assert about(found, "Gone").detail.startswith("Gone could not be looked into: ")
    assert about(found, "Gone").found is None
    assert about(found, "Archive").found is True


def test_the_inbox_s_own_mailbox_is_looked_at_where_no_other_is_named(outbox: Outbox) -> None:
    with ScriptedImap(holding(TRACE + WIRE)) as server:
        login = f'url = "imap://127.0.0.1:{server.port}/INBOX"\nusername = "inbox"'
        outbox.write(f'[mailbox]\n{login}\npassword_file = "mail.password"\n[reconcile]\nfolders = ["Archive"]\n')
        (only,) = outbox.gather()
    assert only.found is True


def test_an_access_token_opens_the_inbox_s_mailbox(outbox: Outbox) -> None:
    script: Script = {
        "CAPABILITY": [b"* CAPABILITY IMAP4rev1 AUTH=XOAUTH2\r\nTAG OK so\r\n"],
        "LIST": [b'* LIST () "/" Sent\r\nTAG OK listed\r\n'],
        "SEARCH": [b"* SEARCH\r\nTAG OK found\r\n"],
    }
    with ScriptedImap(script) as server:
        login = f'url = "imap://127.0.0.1:{server.port}/"\nusername = "sales"\nauth = "xoauth2"'
        outbox.write(f'[mailbox]\n{login}\ntoken_command = "echo a-token"\n[reconcile]\nfolders = ["Sent"]\n')
        (only,) = outbox.gather()
    assert only.detail == "nothing in Sent carries this draft's id: that proves nothing"
    assert not {"SELECT", "STORE", "APPEND"} & set(server.verbs)


@pytest.fixture(scope="module")
def pymap() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = f"--no-tls --host 127.0.0.1 --port {port} dict --demo-user sales --demo-password pw"
    program = Path(sys.executable).parent / "pymap"
    server = subprocess.Popen([program, *words.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tick = threading.Event()
    with ExitStack() as at_the_end:
        at_the_end.callback(server.wait)
        at_the_end.callback(server.terminate)
        for _ in range(int(BOUND / 0.02)):
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", port)) == 0:
                    break
            tick.wait(0.02)
        yield port


def test_without_special_use_the_folder_called_sent_is_for_what_was_sent(pymap: int, outbox: Outbox) -> None:
    outbox.password.write_text("pw")
    outbox.at(pymap, folders='["Sent", "Elsewhere"]')
    with IMAPClient("127.0.0.1", port=pymap, ssl=False) as owner:
        owner.login("sales", "pw")
        for folder in ("Sent", "Elsewhere"):
            owner.create_folder(folder)
            owner.append(folder, FORGED, msg_time=GAP)
    found = outbox.gather()
    assert [one.found for one in found] == [True, None]
    assert about(found, "Sent").found is True


# What a message found proves


def holding(octets: bytes, *, flags: bytes = b"", folder: bytes = b"Archive") -> Script:
    """A server with one folder, in which a search finds one message."""
    head = octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    literals = b"BODY[HEADER]<0> {%d}\r\n%s BODY[]<0> {%d}\r\n%s" % (len(head), head, len(octets), octets)
    return {
        "LIST": [b'* LIST (%s) "/" %s\r\nTAG OK listed\r\n' % (flags, folder)],
        "SEARCH": [b"* SEARCH 1\r\nTAG OK found\r\n"],
        "FETCH": [b"* 1 FETCH (UID 1 %s)\r\nTAG OK fetched\r\n" % literals],
    }


def judged(outbox: Outbox, sought: Sought, script: Script) -> Evidence:
    with ScriptedImap(script) as server:
        outbox.at(server.port, folders='["Archive"]' if b"Archive" in script["LIST"][0] else "[]")  # type: ignore[operator]
        (only,) = outbox.gather(sought)
    return only


@pytest.mark.parametrize(
    ("octets", "sought", "found"),
    [
        (REWRITTEN, SOUGHT, True),
        (without(WIRE, b"X-Outbox-Draft"), SOUGHT, True),
        (WIRE.replace(b"Message-ID: ", b"Message-ID:\r\n "), SOUGHT, True),
        (b"Message-ID: <a@b.example>\r\n" + without(WIRE, b"X-Outbox-Draft"), SOUGHT, None),
        (OF_AN_AGENT, SOUGHT_OF_AN_AGENT, True),
        (without(OF_AN_AGENT, b"X-Outbox-Draft"), SOUGHT_OF_AN_AGENT, None),
        (OF_AN_AGENT.replace(ID.encode(), OTHER_ID.encode()), SOUGHT_OF_AN_AGENT, None),
        (WIRE.replace(b"X-Outbox-Draft: " + ID.encode(), b"X-Outbox-Draft: " + OTHER_ID.encode()), SOUGHT, None),
        (b"X-Outbox-Draft: " + ID.encode() + b"\r\n" + WIRE, SOUGHT, None),
        (WIRE.replace(ID.encode(), ID.encode() + b"-2"), SOUGHT, None),
        (WIRE.replace(ID.encode(), OTHER_ID.encode()) + b"X-Outbox-Draft: " + ID.encode() + b"\r\n", SOUGHT, None),
    ],
    ids=[
        "message-id-rewritten", "header-lost", "header-lost-and-folded", "two-message-ids", "an-agent-s-message-id",
        "as-a-mail-program-kept-it", "drafted-anew", "another-draft-s-header", "two-ids", "longer-ids",
        "id-in-the-text",
    ],
)  # fmt: skip
def test_a_sent_copy_counts_by_a_name_that_only_this_draft_has(
    outbox: Outbox, octets: bytes, sought: Sought, found: bool | None
) -> None:
    script = holding(octets, flags=b"\\HasNoChildren \\Sent", folder=b"Gesendet")
    assert judged(outbox, sought, script).found is found


def test_a_message_id_alone_is_said_to_be_what_mail_programs_keep(outbox: Outbox) -> None:
    script = holding(without(OF_AN_AGENT, b"X-Outbox-Draft"), flags=b"\\Sent", folder=b"Gesendet")
    assert judged(outbox, SOUGHT_OF_AN_AGENT, script).detail == (
        "message 1 of Gesendet has its Message-ID, but not this draft's id; a mail program's own copy has that too: "
        "it proves nothing"
    )


@pytest.mark.parametrize(
    ("octets", "sought", "found", "said"),
    [
        (TRACE + WIRE, SOUGHT, True, "is octet for octet what the relay was given"),
        (b"Date: yesterday\r\n" + TRACE + WIRE, SOUGHT, True, "is octet for octet what the relay was given"),
        (TRACE + REWRITTEN.replace(b"Date: ", b"Date: x"), SOUGHT, True, "has this draft's text, octet for octet"),
        (TRACE + WIRE + b"\r\n\r\n", SOUGHT, True, "has this draft's text, octet for octet"),
        (TRACE + FORGED, SOUGHT, None, "but is not, octet for octet, what was sent: it proves nothing; look at it"),
        (b"Date: yesterday\r\n" * 9 + FORGED, SOUGHT, None, "but is not, octet for octet, what was sent"),
        (TRACE + WIRE, Sought(ID, MESSAGE_ID, (), GAP_AT, None), None, "but is not, octet for octet, what was sent"),
        (TRACE + without(OF_AN_AGENT, b"X-Outbox-Draft"), SOUGHT_OF_AN_AGENT, None, "a mail program's own copy"),
    ],
    ids=[
        "as-sent", "a-date-above", "date-rewritten", "blank-lines", "another-text", "many-dates", "nothing-to-compare",
        "no-id",
    ],
)  # fmt: skip
@pytest.mark.parametrize("flags", [b"", b"\\All", b"\\Archive"], ids=["no-flag", "all", "archive"])
def test_elsewhere_the_whole_message_has_to_be_the_one_that_was_sent(
    outbox: Outbox, flags: bytes, octets: bytes, sought: Sought, found: bool | None, said: str
) -> None:
    evidence = judged(outbox, sought, holding(octets, flags=flags))
    assert evidence.found is found
    assert said in evidence.detail


def test_a_folder_called_sent_is_like_any_other_where_the_server_names_another(outbox: Outbox) -> None:
    script = {
        **holding(FORGED),
        "LIST": [b'* LIST () "/" Sent\r\n* LIST (\\Sent) "/" "Sent Mail"\r\nTAG OK listed\r\n'],
    }
    with ScriptedImap(script) as server:
        outbox.at(server.port, folders='["Sent"]')
        found = outbox.gather()
    assert [(one.source.partition(" Sent")[2], one.found) for one in found] == [(" Mail", True), ("", None)]


def test_a_reply_token_in_a_header_is_not_kept(outbox: Outbox) -> None:
    token = "abcdefghijklm" * (TOKEN_CHARACTERS // 13)
    octets = f"Reply-To: approve+{token}@acme.example\r\n".encode() + WIRE
    sent = judged(outbox, SOUGHT, holding(octets, flags=b"\\Sent", folder=b"Gesendet"))
    assert sent.found is True
    assert sent.octets is not None
    assert b"approve+(token)@acme.example" in sent.octets


# Servers that cannot be looked at


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "reconcile.mailbox.url is not set, and mailbox.url is no IMAP server"),
        ('[mailbox]\nurl = "maildir:Maildir"', "reconcile.mailbox.url is not set, and mailbox.url is no IMAP server"),
        (
            '[mailbox]\nusername = "inbox"\n[reconcile.mailbox]\nurl = "imaps://mail.example"',
            "reconcile.mailbox.username is not set",
        ),
        (
            '[reconcile.mailbox]\nurl = "imap://127.0.0.1:9"\nusername = "sales"',
            "reconcile.mailbox.password_file is not set",
        ),
        (
            '[reconcile.mailbox]\nurl = "imap://127.0.0.1:9"\nusername = "sales"\npassword_file = "gone"',
            "reconcile.mailbox.password_file: there is no file",
        ),
        (
            '[reconcile.mailbox]\nurl = "imap://127.0.0.1:9"\nusername = "sales"\npassword_file = "mail.password"',
            "reconcile.mailbox.url: 127.0.0.1:9 cannot be reached",
        ),
    ],
    ids=[
        "nothing-set", "a-maildir", "another-server-s-login", "no-password", "no-file", "nobody-there",
    ],
)  # fmt: skip
def test_a_mailbox_that_cannot_be_looked_at_is_one_line_that_says_why(outbox: Outbox, text: str, said: str) -> None:
    outbox.write(text)
    (only,) = outbox.gather()
    assert (only.found, only.octets) == (None, None)
    assert only.detail.startswith("no folder was looked into: ")
    assert said in only.detail


LISTED = b'* LIST () "/" Sent\r\n* LIST () "/" Archive\r\nTAG OK listed\r\n'
FOUND = fetched((1, WIRE), (2, b"\r\n"), section="BODY[HEADER]<0>")


def test_a_refused_login_is_one_line_without_the_password(outbox: Outbox) -> None:
    with ScriptedImap({"LITERAL": [f"TAG NO {PASSWORD} is wrong\r\n".encode()]}) as server:
        outbox.at(server.port)
        (only,) = outbox.gather()
    assert only.found is None
    assert f"reconcile.mailbox.password_file: 127.0.0.1:{server.port} refuses the login" in only.detail
    assert PASSWORD not in only.detail


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"GREETING": [Hold()]}, "cannot be reached: no answer in time; try again"),
        ({"LIST": [Hold()]}, "failed as it was asked to list its folders: no answer in time; try again"),
        ({"LIST": [HangUp()]}, "failed as it was asked to list its folders: it hung up; try again"),
        ({"LIST": [LISTED], "SEARCH": [HangUp()]}, "failed as it was asked to search: it hung up; try again"),
        ({"LIST": [LISTED], "FETCH": [HangUp(b"* 1 FETCH (")]}, "failed as it was asked to give messages: "),
    ],
    ids=["no-greeting", "silence", "hung-up", "search", "fetch"],
)
def test_a_server_that_goes_away_is_one_line_that_says_when(outbox: Outbox, script: Script, said: str) -> None:
    with ScriptedImap(script) as server:
        outbox.at(server.port, folders='["Sent"]')
        (only,) = outbox.gather(timeout=0.2)
    assert only.found is None
    assert said in only.detail


def test_what_was_found_before_the_server_went_away_counts(outbox: Outbox) -> None:
    script: Script = {"LIST": [LISTED], "FETCH": [FOUND], 'EXAMINE "Archive"': [Hold()]}
    with ScriptedImap(script) as server:
        outbox.at(server.port, folders='["Archive", "Sent"]')
        sent, lost = outbox.gather(timeout=0.2)
    assert (sent.found, lost.found) == (True, None)
    assert lost.detail.startswith("not every folder was looked into: ")


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ({"LIST": [b"TAG NO not so\r\n"], "FETCH": [FOUND]}, True),
        ({"LIST": [LISTED], "SEARCH": [b"TAG BAD what\r\n", b"* SEARCH 1\r\nTAG OK so\r\n"], "FETCH": [FOUND]}, True),
        ({"LIST": [LISTED], "SEARCH": [b"TAG BAD what\r\n"]}, None),
        ({"LIST": [b'* LIST (\\Noselect) "/" Sent\r\nTAG OK so\r\n'], "EXAMINE": [b"TAG NO not so\r\n"]}, None),
        ({"LIST": [b'* LIST () "." INBOX.Sent\r\nTAG OK so\r\n'], "FETCH": [FOUND]}, True),
        (
            {
                "LIST": [LISTED],
                "SEARCH": [b"* SEARCH 1 0 99999999999\r\nTAG OK so\r\n"],
                "FETCH": [b"TAG NO not so\r\n"],
            },
            None,
        ),
        ({"LIST": [LISTED], "FETCH": [b"* 1 FETCH (UID 1 BODY[HEADER]<0> NIL)\r\nTAG OK so\r\n"]}, None),
    ],
    ids=["no-list", "one-search-refused", "no-search", "no-folder", "below-inbox", "no-fetch", "no-header"],
)
def test_what_a_server_refuses_is_done_without_where_that_can_be(
    outbox: Outbox, script: Script, found: bool | None
) -> None:
    with ScriptedImap(script) as server:
        outbox.at(server.port, folders='["Sent"]')
        (only,) = outbox.gather()
    assert only.found is found


def test_a_folder_full_of_messages_with_its_name_costs_fifty_headers(outbox: Outbox) -> None:
    numbers = b" ".join(str(number).encode() for number in range(1, 2000))
    script: Script = {"LIST": [LISTED], "SEARCH": [b"* SEARCH " + numbers + b"\r\nTAG OK so\r\n"], "FETCH": [FOUND]}
    with ScriptedImap(script) as server:
        outbox.at(server.port, folders='["Archive"]')
        outbox.gather()
    asked = [line for line in server.said if "HEADER]" in line]
    assert asked == [f"FETCH {','.join(map(str, range(1950, 2000)))} (BODY.PEEK[HEADER]<0.65536>)"]


@pytest.mark.timeout(20)
def test_a_server_that_drips_is_left_when_the_time_is_over(outbox: Outbox) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            opened, _ = listener.accept()
            with opened:
                while not stop.wait(0.02):
                    try:
                        opened.send(b"*")
                    except OSError:
                        return

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        outbox.at(listener.getsockname()[1])
        (only,) = outbox.gather(timeout=0.2)
        stop.set()
        dripping.join(BOUND)
    assert only.found is None
    assert "no answer in time" in only.detail


@pytest.mark.timeout(20)
def test_a_token_command_has_no_longer_than_the_rest(outbox: Outbox) -> None:
    login = "url = 'imap://127.0.0.1:9'\nusername = 'sales'\ntoken_command = 'sleep 600'"
    outbox.write(f"[mailbox]\n{login}\n")
    (only,) = outbox.gather(timeout=0.1)
    assert only.found is None
    assert "mailbox.token_command: it gave no access token (TimeoutExpired)" in only.detail


# The operator's command


def told(outbox: Outbox, *, sought: Sought = SOUGHT, timeout: float = 20.0) -> Evidence:
    (one,) = [evidence for evidence in outbox.gather(sought, timeout=timeout) if evidence.source == "command"]
    return one


@pytest.mark.parametrize(
    ("script", "found", "said"),
    [
        (r"printf '\n\033[31m status=sent\nmore\n'", True, "found it: [31m status=sent"),
        ("printf 'to=%1000s|' x", True, "found it: to=" + " " * 197),
        ("head -c 10000000 /dev/zero | tr '\\0' ';'", True, "found it: " + ";" * 200),
        ("true", None, "ended with 0 and said nothing: that proves nothing"),
        ("echo no; exit 1", None, "does not find it: that proves nothing"),
        ("echo what; exit 2", None, "ended with 2, so nothing was looked at; run it by hand"),
        ("kill -9 $$", None, "ended with -9, so nothing was looked at; run it by hand"),
    ],
    ids=["found", "a-long-line", "very-much", "silent", "not-found", "an-error", "killed"],
)
def test_the_command_s_exit_says_what_its_output_proves(
    outbox: Outbox, script: str, found: bool | None, said: str
) -> None:
    outbox.command(script)
    evidence = told(outbox)
    assert (evidence.found, evidence.detail) == (found, f"reconcile.command {said}")
    assert (evidence.octets is not None) is (found is True)
    assert len(evidence.octets or b"") <= 64 * 1024


def test_the_command_is_told_what_is_sought(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHERITED", "yes")
    outbox.command('echo "$MESSAGE_ID|$DRAFT_ID|$QUEUE_ID|$GAP_AT|$RECIPIENTS|$INHERITED"')
    said = told(outbox, sought=Sought(ID, MESSAGE_ID, ("a@b.example", "c@d.example"), GAP_AT, "-x\n\0y")).detail
    assert said.endswith(f": {MESSAGE_ID}|{ID}|-x  y|2023-11-14T22:13:20+00:00|a@b.example c@d.example|yes")
    assert told(outbox, sought=Sought(ID, MESSAGE_ID, (), None, None)).detail.endswith(f": {MESSAGE_ID}|{ID}||||yes")


@pytest.mark.parametrize("command", ["/nowhere/at/all", "outbox.toml"], ids=["not-there", "no-program"])
def test_a_command_that_cannot_be_started_looked_at_nothing(outbox: Outbox, command: str) -> None:
    outbox.write(f'[reconcile]\ncommand = "{outbox.folder / command}"\n')
    evidence = told(outbox)
    assert evidence.found is None
    assert "could not be started, so nothing was looked at" in evidence.detail


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "ending", ["echo found; wait", "wait", "echo found"], ids=["half-said", "silent", "a-child-left-behind"]
)
def test_a_command_that_hangs_is_killed_with_its_children(outbox: Outbox, ending: str) -> None:
    outbox.command(f"sleep 600 & echo $! > {outbox.folder / 'pid'}; {ending}")
    evidence = told(outbox, timeout=0.4)
    assert evidence.found is None
    assert evidence.detail == "reconcile.command was not done within 0.4 s: nothing was looked at"
    pid, tick = int((outbox.folder / "pid").read_text()), threading.Event()
    for _ in range(int(BOUND / 0.02)):
        if not is_running(pid):
            return
        tick.wait(0.02)
    raise AssertionError("its child goes on")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.startswith("Z")


def test_without_a_command_none_is_spoken_of(outbox: Outbox) -> None:
    assert [one.source for one in outbox.gather()] == ["imap"]
