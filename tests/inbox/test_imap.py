"""A mailbox at a real server: what is asked of it, what stays as it was, and that nothing is lost when it goes away."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outbox.core.errors import Code, Unavailable
from outbox.imap.session import IDLE_AGAIN
from outbox.inbox.imap import POLL_FALLBACK
from outbox.inbox.incoming import LARGEST_MESSAGE
from outbox.inbox.patience import LONGEST_AFTER_REFUSAL, LONGEST_PAUSE
from tests.inbox.dovecot import BOUND, MISSING, PASSWORD, PROGRAM, Account, Dovecot
from tests.inbox.mailboxes import HandTime, Mailboxes, Reader, listed
from tests.inbox.passage import Passage
from tests.relay.certificate import make_certificate

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)
DAY = timedelta(days=1)
LETTER = (
    b"Return-Path: <secret-sender@customer.example>\r\n"
    b"Delivered-To: approve@acme.example\r\n"
    b"Received: from secret-path.example\r\n"
    b"From: Secret Author <author@customer.example>\r\n"
    b"To: approve+token@acme.example\r\n"
    b"Cc: other@acme.example\r\n"
    b"Subject: secret subject\r\n"
    b"Message-ID: <secret-id@customer.example>\r\n"
    b"In-Reply-To: <request@acme.example>\r\n"
    b"References: <first@acme.example>\r\n"
    b"\t<request@acme.example>\r\n"
    b"\r\n"
    b"secret words\r\n"
)
FIVE_FIELDS = (
    b"Delivered-To: approve@acme.example\r\n"
    b"To: approve+token@acme.example\r\n"
    b"Cc: other@acme.example\r\n"
    b"In-Reply-To: <request@acme.example>\r\n"
    b"References: <first@acme.example>\r\n"
    b"\t<request@acme.example>\r\n"
    b"\r\n"
)
STRANGERS_FETCH = (
    "(INTERNALDATE BODY.PEEK[HEADER.FIELDS (TO CC DELIVERED-TO IN-REPLY-TO REFERENCES CONTENT-TYPE)]<0.65536>)"
)


def micro(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that a server does, within a bound."""
    tick = threading.Event()
    for _ in range(int(BOUND / 0.01)):
        if happened():
            return
        tick.wait(0.01)
    raise AssertionError("it never happened")


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot() as started:
        yield started


NAMES = itertools.count()


@pytest.fixture
def account(dovecot: Dovecot) -> Account:
    return dovecot.account(f"approve{next(NAMES)}@acme.example")


@pytest.fixture
def passage(dovecot: Dovecot) -> Iterator[Passage]:
    with Passage(dovecot.port) as opened:
        yield opened


@pytest.fixture
def open_mailbox(account: Account) -> Iterator[Mailboxes]:
    with Mailboxes(account.server.port, account.name, account.password) as mailboxes:
        yield mailboxes


@pytest.fixture
def time(open_mailbox: Mailboxes) -> HandTime:
    return open_mailbox.time


# What is listed and read


def test_what_lies_there_is_listed_in_order_with_its_time_of_arrival(account: Account, open_mailbox: Mailboxes) -> None:
    moments = [datetime(2021, 2, day, 23, 59, 58, tzinfo=UTC) for day in (3, 1, 2)]
    numbers = [account.append(LETTER, arrived=moment) for moment in moments]
    mailbox = open_mailbox()
    validity = mailbox.examine().uidvalidity
    found = listed(mailbox)
    assert [delivered.uid for delivered in found] == [f"{validity}.{number}" for number in numbers]
    assert [delivered.arrived_at for delivered in found] == [micro(moment) for moment in moments]


def test_what_arrived_before_the_day_before_is_not_listed(account: Account, open_mailbox: Mailboxes) -> None:
    since = datetime(2021, 2, 10, 12, tzinfo=UTC)
    account.append(LETTER, arrived=since - 4 * DAY)
    on_the_day = account.append(LETTER, arrived=since + timedelta(hours=1))
    mailbox = open_mailbox()
    assert [one.uid.partition(".")[2] for one in listed(mailbox, since=micro(since))] == [str(on_the_day)]


def test_what_is_known_is_not_listed_again(account: Account, open_mailbox: Mailboxes) -> None:
    for _ in range(3):
        account.append(LETTER)
    first, second, third = (one.uid for one in listed(open_mailbox()))
    assert [one.uid for one in listed(open_mailbox(), first, third)] == [second]


def test_more_than_a_batch_is_listed_whole(account: Account, open_mailbox: Mailboxes) -> None:
    for number in range(230):
        account.deliver(b"To: approve+%d@acme.example\r\n\r\n" % number)
    heads = {one.head for one in listed(open_mailbox())}
    assert heads == {b"To: approve+%d@acme.example\r\n\r\n" % number for number in range(230)}


@pytest.mark.parametrize(
    "octets",
    [
        LETTER,
        b"To: a@acme.example\r\n\r\nbare \r and\tno end",
        b"Subject: no To\r\n\r\n" + bytes(range(128, 256)) + b"\r\n",
        b"To: a@acme.example\r\n\r\n" + b"x" * 200_000 + b"\r\n{12}\r\nA1 OK LOGOUT\r\n* BYE\r\n",
    ],
    ids=["plain", "bare-return", "eight-bit", "long-line-and-lines-of-the-protocol"],
)
def test_a_message_is_read_octet_for_octet(account: Account, open_mailbox: Mailboxes, octets: bytes) -> None:
    account.deliver(octets)
    mailbox = open_mailbox()
    (delivered,) = listed(mailbox)
    assert mailbox.read(delivered.uid) == octets


def test_of_a_message_over_the_limit_one_octet_more_is_read(account: Account, open_mailbox: Mailboxes) -> None:
    account.deliver(b"To: a@acme.example\r\n\r\n" + b"0123456789abcde\n" * (LARGEST_MESSAGE // 16 + 1000))
    mailbox = open_mailbox()
    (delivered,) = listed(mailbox)
    octets = mailbox.read(delivered.uid)
    assert octets is not None
    assert len(octets) == LARGEST_MESSAGE + 1


def test_a_header_of_any_length_is_fetched_in_part(account: Account, open_mailbox: Mailboxes) -> None:
    account.deliver(b"References: " + b"<a@acme.example>\r\n " * 60_000 + b"\r\n\r\n")
    (shared,) = listed(open_mailbox())
    (dedicated,) = listed(open_mailbox(dedicated=True))
    assert (len(shared.head), len(dedicated.head)) == (64 * 1024, 256 * 1024)


@pytest.mark.parametrize("folder", ["INBOX", 'Antworten & "mehr" für\\uns', "Archive.replies"])
def test_a_folder_of_any_name_is_opened(account: Account, open_mailbox: Mailboxes, folder: str) -> None:
    if folder != "INBOX":
        account.server.doveadm("mailbox", "create", "-u", account.name, folder)
    mailbox = open_mailbox(folder=folder)
    assert mailbox.examine().folder == folder
    assert listed(mailbox) == []


def test_the_name_has_no_password_in_it(account: Account, open_mailbox: Mailboxes) -> None:
    port = account.server.port
    assert open_mailbox().name == f"imap://{account.name.replace('@', '%40')}@127.0.0.1:{port}/INBOX"
    named = open_mailbox(host="::1", tls=True, username="a/b c", folder="Ümlaut/x").name
    assert named == f"imaps://a%2Fb%20c@[::1]:{port}/%C3%9Cmlaut/x"


def test_what_the_server_offers_is_told(account: Account, open_mailbox: Mailboxes) -> None:
    account.append(LETTER)
    account.renumber(4711)
    examined = open_mailbox().examine()
    assert (examined.folder, examined.uidvalidity, examined.messages) == ("INBOX", 4711, 1)
    assert {"IDLE", "UIDPLUS", "IMAP4REV1"} <= set(examined.capabilities)


# What is left as it was


def test_of_strangers_mail_six_fields_are_fetched_and_nothing_is_said_that_changes_it(
    account: Account, open_mailbox: Mailboxes, passage: Passage
) -> None:
    for _ in range(3):
        account.append(LETTER)
    account.append(LETTER, flags="\\Flagged")
    before = account.flags()
    mailbox = open_mailbox(port=passage.port)
    found = listed(mailbox)
    for delivered in found:
        assert delivered.head == FIVE_FIELDS
        mailbox.taken(delivered.uid)
    mailbox.close()
    assert account.flags() == before == {1: set(), 2: set(), 3: set(), 4: {"\\Flagged"}}
    assert [line for line in passage.commands if line.split()[0] not in {"CAPABILITY", "LOGOUT"}] == [
        'EXAMINE "INBOX"',
        "UID SEARCH SINCE 31-Dec-1969",
        f"UID FETCH 1,2,3,4 {STRANGERS_FETCH}",
    ]


def test_reading_leaves_the_flags_as_they_were(account: Account, open_mailbox: Mailboxes) -> None:
    account.append(LETTER)
    account.append(LETTER, flags="\\Seen")
    reader = Reader(open_mailbox(), HandTime())
    assert len(reader.look()) == 2
    assert set(reader.known.values()) == {LETTER}
    assert account.flags() == {1: set(), 2: {"\\Seen"}}


def test_in_a_mailbox_of_ours_what_was_taken_is_seen_and_nothing_else(
    account: Account, open_mailbox: Mailboxes
) -> None:
    for _ in range(3):
        account.append(LETTER)
    mailbox = open_mailbox(dedicated=True)
    first, second, _third = listed(mailbox)
    assert first.head == LETTER.partition(b"secret words")[0]
    assert mailbox.read(first.uid) == mailbox.read(second.uid) == LETTER
    assert account.flags() == {1: set(), 2: set(), 3: set()}
    mailbox.taken(second.uid)
    assert account.flags() == {1: set(), 2: {"\\Seen"}, 3: set()}


def test_a_folder_that_may_only_be_read_cannot_be_dedicated(open_mailbox: Mailboxes) -> None:
    with Dovecot(settings="plugin {\n  acl = vfile\n}\nmail_plugins = acl\n") as server:
        other = server.account("me")
        (other.maildir / "dovecot-acl").write_text("owner lr\n")
        server.own(other.maildir / "dovecot-acl")
        mailbox = open_mailbox(port=server.port, username="me", dedicated=True)
        with pytest.raises(Unavailable, match=r"^mailbox.dedicated: .* 'INBOX' may only be read; write dedicated = f"):
            mailbox.examine()
        assert open_mailbox(port=server.port, username="me").examine().messages == 0


# When it is asked


def test_a_quiet_mailbox_is_asked_nothing(
    account: Account, open_mailbox: Mailboxes, passage: Passage, time: HandTime
) -> None:
    account.append(LETTER)
    mailbox = open_mailbox(port=passage.port)
    (known,) = listed(mailbox)
    mailbox.wait(0.1, threading.Event())
    until(lambda: passage.commands[-1] == "IDLE")
    said = list(passage.said)
    for _ in range(20):
        assert listed(mailbox) == []
        mailbox.wait(0.01, threading.Event())
    assert passage.said == said
    time.now += POLL_FALLBACK
    assert listed(mailbox, known.uid) == []
    assert passage.commands[-3:] == ["DONE", "NOOP", "UID SEARCH SINCE 31-Dec-1969"]


def test_a_look_from_an_earlier_day_on_asks_again(account: Account, open_mailbox: Mailboxes) -> None:
    arrived = datetime(2021, 2, 10, 12, tzinfo=UTC)
    account.append(LETTER, arrived=arrived)
    mailbox = open_mailbox()
    assert listed(mailbox, since=micro(arrived + 9 * DAY)) == []
    assert listed(mailbox, since=micro(arrived + 10 * DAY)) == []
    assert len(listed(mailbox, since=micro(arrived))) == 1


def test_a_look_that_was_broken_off_is_begun_again(account: Account, open_mailbox: Mailboxes) -> None:
    for _ in range(3):
        account.append(LETTER)
    mailbox = open_mailbox()
    first = next(iter(mailbox.messages(set(), since=0)))
    assert listed(mailbox)[0] == first
    assert listed(mailbox) == []


@pytest.mark.timeout(60)
def test_idle_wakes_when_mail_arrives(account: Account, open_mailbox: Mailboxes, passage: Passage) -> None:
    mailbox = open_mailbox(port=passage.port)
    assert listed(mailbox) == []
    waiting = threading.Thread(target=mailbox.wait, args=(600.0, threading.Event()))
    waiting.start()
    until(lambda: passage.commands[-1] == "IDLE")
    account.deliver(LETTER)
    waiting.join(BOUND)
    assert not waiting.is_alive()
    (delivered,) = listed(mailbox)
    assert mailbox.read(delivered.uid) == LETTER


@pytest.mark.timeout(60)
def test_waiting_ends_when_it_is_told_to_stop(open_mailbox: Mailboxes, passage: Passage) -> None:
    mailbox, stop = open_mailbox(port=passage.port), threading.Event()
    assert listed(mailbox) == []
    waiting = threading.Thread(target=mailbox.wait, args=(600.0, stop))
    waiting.start()
    until(lambda: passage.commands[-1] == "IDLE")
    stop.set()
    waiting.join(BOUND)
    assert not waiting.is_alive()


def test_idle_is_said_again_after_nine_minutes(open_mailbox: Mailboxes, passage: Passage, time: HandTime) -> None:
    mailbox = open_mailbox(port=passage.port)
    listed(mailbox)
    mailbox.wait(0.1, threading.Event())
    time.now += IDLE_AGAIN - 1
    mailbox.wait(0.1, threading.Event())
    assert passage.commands[-2:] == ["UID SEARCH SINCE 31-Dec-1969", "IDLE"]
    time.now += 1
    mailbox.wait(0.1, threading.Event())
    assert passage.commands[-3:] == ["IDLE", "DONE", "IDLE"]


def test_without_idle_the_folder_is_listed_once_a_minute(open_mailbox: Mailboxes, time: HandTime) -> None:
    with Dovecot(settings="imap_capability = IMAP4rev1 UIDPLUS\n") as server, Passage(server.port) as passage:
        account = server.account("me")
        mailbox = open_mailbox(port=passage.port, username="me")
        assert listed(mailbox) == []
        account.deliver(LETTER)
        mailbox.wait(0.1, threading.Event())
        assert listed(mailbox) == []
        time.now += POLL_FALLBACK
        assert len(listed(mailbox)) == 1
        assert "IDLE" not in passage.commands


# When it goes away


@pytest.mark.timeout(60)
def test_a_kick_while_idling_loses_nothing(account: Account, open_mailbox: Mailboxes, passage: Passage) -> None:
    account.append(LETTER)
    reader = Reader(open_mailbox(port=passage.port), HandTime())
    reader.look()
    reader.mailbox.wait(0.1, threading.Event())
    account.kick()
    account.deliver(LETTER)
    reader.mailbox.wait(600.0, threading.Event())
    assert len(reader.look()) == 1
    assert list(reader.known.values()) == [LETTER, LETTER]


def test_a_kick_between_two_waits_is_not_even_an_error(
    account: Account, open_mailbox: Mailboxes, time: HandTime
) -> None:
    mailbox = open_mailbox()
    listed(mailbox)
    mailbox.wait(0.1, threading.Event())
    account.deliver(LETTER)
    account.kick()
    time.now += POLL_FALLBACK
    assert len(listed(mailbox)) == 1


def test_a_kick_between_two_fetches_loses_nothing(account: Account, open_mailbox: Mailboxes, time: HandTime) -> None:
    for _ in range(150):
        account.deliver(LETTER)
    reader = Reader(open_mailbox(), time)
    looking = reader.mailbox.messages(set(), since=0)
    next(looking)
    account.kick()
    until(lambda: account.name not in account.server.doveadm("who"))
    with pytest.raises(Unavailable, match=r"failed as it was asked to give messages: .*; it is tried again$"):
        list(looking)
    time.now += 2.0
    reader.look()
    assert len(reader.known) == 150


@pytest.mark.timeout(60)
def test_a_server_that_was_killed_and_comes_back_is_read_on(open_mailbox: Mailboxes, time: HandTime) -> None:
    with Dovecot() as server:
        account = server.account("me")
        account.deliver(LETTER)
        reader = Reader(open_mailbox(port=server.port, username="me"), time)
        reader.look()
        reader.mailbox.wait(0.1, threading.Event())
        server.kill()
        account.deliver(LETTER)
        reader.mailbox.wait(600.0, threading.Event())
        with pytest.raises(
            Unavailable, match=r"^mailbox.url: 127.0.0.1:\d+ cannot be reached: Connection refused; see"
        ):
            reader.look()
        server.start()
        time.now += 2.0
        assert len(reader.look()) == 1
        account.deliver(LETTER)
        server.restart()
        time.now += POLL_FALLBACK
        reader.look_until_well()
        assert list(reader.known.values()) == [LETTER] * 3


def test_a_folder_that_was_made_anew_has_new_names(account: Account, open_mailbox: Mailboxes, time: HandTime) -> None:
    account.append(LETTER)
    mailbox = open_mailbox(dedicated=True)
    (old,) = listed(mailbox)
    account.renumber(4242)
    time.now += POLL_FALLBACK
    reader = Reader(mailbox, time)
    reader.look_until_well()
    assert reader.known == {"4242.1": LETTER}
    assert mailbox.read(old.uid) is None
    mailbox.taken(old.uid)
    assert mailbox.read("4242.1") == LETTER


@pytest.mark.parametrize("uid", ["", ".", "1", "x.1", "VALIDITY.", "VALIDITY.x", "VALIDITY.1:*", "VALIDITY.99"])
def test_what_names_no_message_reads_as_none(account: Account, open_mailbox: Mailboxes, uid: str) -> None:
    account.append(LETTER)
    mailbox = open_mailbox(dedicated=True)
    named = uid.replace("VALIDITY", str(mailbox.examine().uidvalidity))
    assert mailbox.read(named) is None
    mailbox.taken(named)
    assert account.flags() == {1: set()}


def test_a_message_that_went_away_reads_as_none_and_the_others_as_they_are(
    account: Account, open_mailbox: Mailboxes
) -> None:
    for _ in range(3):
        account.append(LETTER)
    mailbox = open_mailbox(dedicated=True)
    first, second, third = listed(mailbox)
    account.expunge(2)
    assert [mailbox.read(one.uid) for one in (first, second, third)] == [LETTER, None, LETTER]
    mailbox.taken(second.uid)
    mailbox.taken(third.uid)
    assert account.flags() == {1: set(), 3: {"\\Seen"}}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("dedicated", [False, True], ids=["shared", "dedicated"])
@pytest.mark.parametrize("each", [False, pytest.param(True, marks=pytest.mark.torture)])
def test_a_connection_that_ends_after_any_line_loses_nothing(
    dovecot: Dovecot, account: Account, open_mailbox: Mailboxes, *, each: bool, dedicated: bool
) -> None:
    """Login, listing, reading, marking and waiting are broken off after each of their lines in turn."""
    letters = [b"To: approve@acme.example\r\n\r\nletter %d\r\n" % number for number in range(3)]
    for letter in letters:
        account.append(letter)
    line = 0
    cut = True
    while cut:
        line += 1
        time = HandTime()
        with Passage(dovecot.port, cut_after=line, each=each) as passage:
            mailbox = open_mailbox(port=passage.port, dedicated=dedicated, monotonic=time)
            reader = Reader(mailbox, time)
            for _ in range(3 if each else 1):
                try:
                    reader.look()
                except Unavailable:
                    time.now += LONGEST_PAUSE + 1
                mailbox.wait(0.01, threading.Event())
            cut = passage.cuts > 0
            passage.cut_after = None if each else passage.cut_after
            time.now += 2 * LONGEST_AFTER_REFUSAL
            reader.look_until_well()
            assert sorted(octets or b"" for octets in reader.known.values()) == letters, line
            mailbox.close()
    assert line > 40
    assert not any("STORE" in command for command in passage.commands) or dedicated


# The login


def test_a_wrong_password_is_told_once_a_minute_at_most(
    account: Account, open_mailbox: Mailboxes, passage: Passage, time: HandTime
) -> None:
    account.append(LETTER)
    secrets = iter(["not-the-password", "nor-this", account.password])
    mailbox = open_mailbox(port=passage.port, secret=lambda: next(secrets))
    for pause in (59.0, 119.0):
        for _ in range(3):
            with pytest.raises(Unavailable) as refused:
                listed(mailbox)
            assert refused.value.code is Code.MAILBOX_REFUSED
            assert refused.value.message == (
                f"mailbox.password_file: 127.0.0.1:{passage.port} refuses the login of {account.name}: "
                "[AUTHENTICATIONFAILED] Authentication failed."
            )
        time.now += pause
        with pytest.raises(Unavailable, match="refuses the login"):
            listed(mailbox)
        time.now += 1.0
    assert len(listed(mailbox)) == 1
    assert list(secrets) == []


def test_a_folder_that_is_not_there_is_named(account: Account, open_mailbox: Mailboxes) -> None:
    mailbox = open_mailbox(folder="Replies")
    with pytest.raises(Unavailable) as missing:
        listed(mailbox)
    assert missing.value.code is Code.MAILBOX_UNREACHABLE
    begin = f"mailbox.url: 127.0.0.1:{account.server.port} does not open the folder 'Replies' for {account.name}: "
    assert missing.value.message.startswith(begin + "select failed: ")
    assert missing.value.message.endswith("; name one that is there")


def test_an_access_token_is_asked_for_at_each_login(account: Account, open_mailbox: Mailboxes, time: HandTime) -> None:
    account.append(LETTER)
    tokens = iter([PASSWORD, "an-old-token", PASSWORD])
    mailbox = open_mailbox(secret=lambda: next(tokens), xoauth2=True)
    assert len(listed(mailbox)) == 1
    account.kick()
    time.now += POLL_FALLBACK
    with pytest.raises(Unavailable):
        listed(mailbox)
    time.now += 2.0
    with pytest.raises(
        Unavailable, match=r"^mailbox.auth: .* refuses the login of .*: \[AUTHENTICATIONFAILED\]"
    ) as old:
        listed(mailbox)
    assert "an-old-token" not in str(old.value)
    time.now += LONGEST_AFTER_REFUSAL
    assert len(listed(mailbox)) == 1
    assert "method=XOAUTH2" in account.server.log


def test_xoauth2_that_is_not_offered_is_told(open_mailbox: Mailboxes) -> None:
    with Dovecot(mechanisms="plain") as server:
        mailbox = open_mailbox(port=server.port, xoauth2=True)
        with pytest.raises(Unavailable, match=r"^mailbox.auth: .* does not offer XOAUTH2; write auth = \"password\"$"):
            listed(mailbox)


# TLS


def test_tls_is_spoken_with_whom_a_trusted_authority_vouches_for_and_with_nobody_else(
    tmp_path: Path, open_mailbox: Mailboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path, "IP:127.0.0.1")
    with Dovecot(certificate=certificate) as server:
        account = server.account("me")
        account.deliver(LETTER)
        given = {"port": server.tls_port, "tls": True, "username": "me"}
        with pytest.raises(Unavailable, match=r"its certificate could not be verified \(self.signed certificate\); ma"):
            listed(open_mailbox(**given))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
        with pytest.raises(
            Unavailable, match=r"could not be verified \(Hostname mismatch, .* 'localhost'\); mailbox.u"
        ):
            listed(open_mailbox(**given, host="localhost"))
        with pytest.raises(
            Unavailable, match=r"cannot be reached: TLS failed \(.*\); see that mailbox.url has the rig"
        ):
            listed(open_mailbox(**(given | {"port": server.port})))
        assert "user=<me>" not in server.log
        mailbox = open_mailbox(**given)
        (delivered,) = listed(mailbox)
        assert mailbox.read(delivered.uid) == LETTER
        stop = threading.Event()
        mailbox.wait(0.3, stop)
        account.deliver(LETTER)
        mailbox.wait(600.0, stop)
        assert len(listed(mailbox, delivered.uid)) == 1
        assert re.search("Login: user=<me>, .*, TLS", server.log)
