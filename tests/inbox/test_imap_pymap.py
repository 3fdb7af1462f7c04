"""The same mailbox at a server of another make (pymap, in memory), which runs also where Dovecot is missing."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from imapclient import IMAPClient

from tests.inbox.mailboxes import Mailboxes, listed

USER, PASSWORD = "approve", "a-password"
LETTER = (
    b"From: Secret Author <author@customer.example>\r\nTo: approve+token@acme.example\r\nSubject: secret subject\r\n"
    b"In-Reply-To: <request@acme.example>\r\n\r\nsecret words\r\n"
)
BOUND = 10.0  # seconds for whatever a server does


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    program = str(Path(sys.executable).parent / "pymap")
    words = f"--no-tls --host 127.0.0.1 --port {number} dict --demo-user {USER} --demo-password {PASSWORD}"
    server = subprocess.Popen([program, *words.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        answers_within_a_bound(number, server)
        yield number
    finally:
        server.terminate()
        server.wait()


def answers_within_a_bound(number: int, server: subprocess.Popen[bytes]) -> None:
    tick = threading.Event()
    for _ in range(int(BOUND / 0.02)):
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", number)) == 0:
                return
        assert server.poll() is None, "pymap ended"
        tick.wait(0.02)
    raise AssertionError("pymap does not answer")


@pytest.fixture
def owner(port: int) -> Iterator[IMAPClient]:
    """The mailbox's owner at his own client."""
    with IMAPClient("127.0.0.1", port=port, ssl=False) as client:
        client.login(USER, PASSWORD)
        client.select_folder("INBOX")
        yield client


@pytest.fixture
def mailboxes(port: int) -> Iterator[Mailboxes]:
    with Mailboxes(port, USER, PASSWORD) as opened:
        yield opened


def test_a_message_is_listed_by_its_five_fields_read_whole_and_left_unseen(
    owner: IMAPClient, mailboxes: Mailboxes
) -> None:
    owner.append("INBOX", LETTER, msg_time=datetime(2026, 1, 2, tzinfo=UTC))
    mailbox = mailboxes()
    newest = listed(mailbox)[-1]
    assert b"approve+token@acme.example" in newest.head
    assert b"secret" not in newest.head.lower()
    assert mailbox.read(newest.uid) == LETTER
    owner.noop()
    number = int(newest.uid.partition(".")[2])
    assert b"\\Seen" not in owner.get_flags([number])[number]


def test_idle_hears_what_arrives(owner: IMAPClient, mailboxes: Mailboxes) -> None:
    mailbox = mailboxes()
    known = {one.uid for one in listed(mailbox)}
    arrival = threading.Timer(0.2, lambda: owner.append("INBOX", LETTER))
    arrival.start()
    stop = threading.Event()
    mailbox.wait(BOUND, stop)
    arrival.join()
    found = [one.uid for one in mailbox.messages(known, since=0)]
    assert len(found) == 1


def test_in_a_mailbox_that_is_ours_alone_what_was_taken_is_seen(owner: IMAPClient, mailboxes: Mailboxes) -> None:
    owner.append("INBOX", LETTER)
    mailbox = mailboxes(dedicated=True)
    newest = listed(mailbox)[-1]
    number = int(newest.uid.partition(".")[2])
    assert b"\\Seen" not in owner.get_flags([number])[number]
    mailbox.taken(newest.uid)
    owner.noop()
    assert b"\\Seen" in owner.get_flags([number])[number]
