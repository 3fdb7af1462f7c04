"""A mail server that is hostile, broken or confused: it costs little, and what it can give is read all the same."""

from __future__ import annotations

import base64
import gc
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import tzset

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox.core.errors import Code, ConfigError, Unavailable
from outbox.imap.wire import LONGEST_LINE, MOST_LINES
from outbox.inbox.imap import POLL_FALLBACK, ImapMailbox
from outbox.inbox.patience import ASIDE, LONGEST_PAUSE
from tests.inbox.mailboxes import HandTime, Mailboxes, names
from tests.inbox.scripted_imap import VALIDITY, Act, HangUp, Hold, Script, ScriptedImap, fetched

SECRET = 's3cr3t "pass\\word" of him'
HEAD = b"To: approve+token@acme.example\r\n\r\n"
BOTH = fetched((1, HEAD), (2, HEAD))
FIRST, SECOND = f"{VALIDITY}.1", f"{VALIDITY}.2"
Open = Callable[..., ImapMailbox]


@pytest.fixture
def mailboxes() -> Iterator[Mailboxes]:
    with Mailboxes(password=SECRET) as opened:
        yield opened


@pytest.fixture
def time(mailboxes: Mailboxes) -> HandTime:
    return mailboxes.time


@pytest.fixture
def open_mailbox(mailboxes: Mailboxes) -> Open:
    """Opens a mailbox at a scripted server."""
    return lambda server, **given: mailboxes(port=server.port, **given)


# Answers that make no sense for one message


@pytest.mark.parametrize(
    "about_first",
    [
        b"* 1 FETCH (UID 1 BODY[HEADER.FIELDS (TO)]<0> NIL)\r\n",
        b"* 1 FETCH (UID 1)\r\n",
        b"* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n",
        b'* 1 FETCH (UID 1 INTERNALDATE "nonsense" BODY[HEADER.FIELDS (TO)]<0> 7)\r\n',
        b"* 1 FETCH (UID 1 BODY[HEADER.FIELDS (TO)]<0> (a b))\r\n",
        b"* 77 FETCH (UID 77 BODY[HEADER.FIELDS (TO)]<0> {2}\r\n\r\n)\r\n",
        b"* 1 EXPUNGE\r\n",
        b"",
    ],
    ids=["nil", "no-keys", "flags-alone", "a-number", "a-list", "another-message", "expunged", "nothing"],
)
def test_a_message_without_a_header_is_passed_over(open_mailbox: Open, about_first: bytes) -> None:
    with ScriptedImap({"FETCH": [about_first + fetched((2, HEAD))]}) as server:
        mailbox = open_mailbox(server)
        (delivered,) = mailbox.messages(set(), since=0)
        assert (delivered.uid, delivered.head) == (SECOND, HEAD)
        assert server.connections == 1


@pytest.fixture
def _far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as there:
        there.setenv("TZ", "Asia/Tokyo")
        tzset()
        yield
    tzset()


@pytest.mark.usefixtures("_far_from_utc")
@pytest.mark.parametrize(
    ("section", "moment", "arrived_at"),
    [
        (b"BODY[HEADER.FIELDS (TO CC)]<0>", b'" 1-Feb-2027 10:00:00 +0100"', 1_801_472_400_000_000),
        (b'body[header.fields ("TO" "CC")]', b'"01-Feb-2027 10:00:00 +0100"', 1_801_472_400_000_000),
        (b"BODY[HEADER.FIELDS (CC TO)]<0>", b'"31-Feb-2027 99:00:00 +9999"', None),
        (b"BODY[HEADER.FIELDS (TO)]<0>", b"NIL", None),
    ],
    ids=["as-asked", "spelled-otherwise", "impossible-date", "no-date"],
)
def test_a_header_is_known_however_the_server_spells_its_name(
    open_mailbox: Open, section: bytes, moment: bytes, arrived_at: int | None
) -> None:
    answer = b"* 9 FETCH (INTERNALDATE %s %s {%d}\r\n%s UID 2)\r\nTAG OK so\r\n" % (moment, section, len(HEAD), HEAD)
    with ScriptedImap({"FETCH": [answer]}) as server:
        (delivered,) = open_mailbox(server).messages(set(), since=0)
        assert (delivered.uid, delivered.head, delivered.arrived_at) == (SECOND, HEAD, arrived_at)


@pytest.mark.parametrize(
    "answer",
    [
        b"* 1 FETCH (UID 1 BODY[]<0> NIL)\r\nTAG OK so\r\n",
        b"* 1 FETCH (UID 1)\r\nTAG OK so\r\n",
        b"* 7 FETCH (UID 7 BODY[]<0> {2}\r\nhi)\r\nTAG OK so\r\n",
        b"TAG OK so\r\n",
        b"TAG NO it is gone\r\n",
        b"TAG BAD what is partial\r\n",
    ],
    ids=["nil", "no-keys", "another-message", "nothing", "no", "bad"],
)
def test_a_message_without_octets_reads_as_none(open_mailbox: Open, answer: bytes) -> None:
    with ScriptedImap({"FETCH": [answer, fetched((2, b"hi"), section="BODY[]<0>")]}) as server:
        mailbox = open_mailbox(server)
        assert mailbox.read(FIRST) is None
        assert mailbox.read(SECOND) == b"hi"
        assert server.connections == 1


def test_what_the_server_says_of_other_messages_is_not_taken_for_this_one(open_mailbox: Open) -> None:
    unasked = b"* 1 FETCH (FLAGS (\\Seen))\r\n* 5 FETCH (UID 5 BODY[]<0> {5}\r\nother)\r\n* 3 EXISTS\r\n"
    with ScriptedImap({"FETCH": [unasked + fetched((2, b"hi"), section="BODY[]<0>")]}) as server:
        assert open_mailbox(server).read(SECOND) == b"hi"


# Messages that the server refuses, or breaks off at


def test_a_batch_that_is_refused_is_fetched_one_by_one(open_mailbox: Open) -> None:
    script: Script = {
        "FETCH 1,2": [b"TAG NO some messages could not be given\r\n"],
        "FETCH 1": [b"TAG NO not this one\r\n"],
        "FETCH 2": [fetched((2, HEAD))],
    }
    with ScriptedImap(script) as server:
        assert names(open_mailbox(server)) == [SECOND]
        assert server.connections == 1


def test_a_message_that_ends_every_connection_does_not_keep_the_others_away(
    open_mailbox: Open, time: HandTime, caplog: pytest.LogCaptureFixture
) -> None:
    script: Script = {"FETCH 1,2": [HangUp()], "FETCH 1": [HangUp()], "FETCH 2": [fetched((2, HEAD))]}
    with ScriptedImap(script) as server:
        mailbox = open_mailbox(server)
        found: list[str] = []
        for _ in range(4):
            with pytest.raises(
                Unavailable, match=r"failed as it was asked to give messages: it hung up; it is tried again$"
            ):
                found.extend(one.uid for one in mailbox.messages(set(), since=0))
            time.now += LONGEST_PAUSE
        assert set(found) == {SECOND}
        assert names(mailbox) == [SECOND]
        (told,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert f"message {FIRST} cannot be read, and is tried again in an hour" in told.getMessage()
        asked = server.said.count("FETCH 1")
        assert names(mailbox, SECOND) == []
        assert server.said.count("FETCH 1") == asked
        time.now += ASIDE
        with pytest.raises(Unavailable):
            names(mailbox, SECOND)


def test_octets_that_end_every_connection_are_none_in_the_end(open_mailbox: Open, time: HandTime) -> None:
    script: Script = {
        "FETCH 1,2": [BOTH],
        "FETCH 1": [HangUp(b"* 1 FETCH (UID 1 BODY[]<0> {100}\r\nhalf of")],
        "FETCH 2": [fetched((2, b"hi"), section="BODY[]<0>")],
    }
    with ScriptedImap(script) as server:
        mailbox = open_mailbox(server)
        assert names(mailbox) == [FIRST, SECOND]
        for _ in range(3):
            with pytest.raises(Unavailable):
                mailbox.read(FIRST)
            time.now += LONGEST_PAUSE
        assert mailbox.read(FIRST) is None
        assert mailbox.read(SECOND) == b"hi"


def test_a_connection_that_ended_once_is_no_message_s_fault(open_mailbox: Open, time: HandTime) -> None:
    with ScriptedImap({"FETCH": [HangUp(), fetched((1, HEAD)), fetched((2, HEAD))]}) as server:
        mailbox = open_mailbox(server)
        with pytest.raises(Unavailable):
            names(mailbox)
        time.now += 1.0
        assert names(mailbox) == [FIRST, SECOND]
        time.now += POLL_FALLBACK
        names(mailbox)
        assert [line.split()[1] for line in server.said if line.startswith("FETCH")] == ["1,2", "1", "2", "1,2"]


def test_failures_of_a_message_are_counted_from_the_last_time_that_it_could_be_read(
    open_mailbox: Open, time: HandTime
) -> None:
    read = fetched((1, b"hi"), section="BODY[]<0>")
    with ScriptedImap({"FETCH": [HangUp(), HangUp(), read] * 3}) as server:
        mailbox = open_mailbox(server)
        for _ in range(3):
            for _ in range(2):
                with pytest.raises(Unavailable):
                    mailbox.read(FIRST)
                time.now += LONGEST_PAUSE
            assert mailbox.read(FIRST) == b"hi"


def test_a_listing_does_not_go_on_in_a_folder_that_was_made_anew(open_mailbox: Open, time: HandTime) -> None:
    """Its numbers are those of other messages there."""
    head = fetched(*((number, HEAD) for number in range(1, 151)))
    examined = [
        b"* 150 EXISTS\r\n* OK [UIDVALIDITY %d] ok\r\nTAG OK so\r\n" % validity for validity in (VALIDITY, VALIDITY + 1)
    ]
    numbers = b" ".join(b"%d" % number for number in range(1, 151))
    script: Script = {
        "EXAMINE": examined,
        "SEARCH": [b"* SEARCH " + numbers + b"\r\nTAG OK so\r\n"],
        "FETCH": [head],
        "FETCH 1": [HangUp()],
    }
    with ScriptedImap(script) as server:
        mailbox = open_mailbox(server)
        looking = mailbox.messages(set(), since=0)
        assert next(looking).uid == FIRST
        with pytest.raises(Unavailable):
            mailbox.read(FIRST)
        time.now += LONGEST_PAUSE
        assert mailbox.read(FIRST) is None
        assert len(list(looking)) == 99
        assert {uid.partition(".")[0] for uid in names(mailbox)} == {f"{VALIDITY + 1}"}


@pytest.mark.parametrize("verb", ["FETCH", "DONE"])
def test_news_in_the_answer_to_anything_else_are_heard(open_mailbox: Open, verb: str) -> None:
    well = {"FETCH": BOTH, "DONE": b"TAG OK so\r\n"}
    with ScriptedImap({"FETCH": [BOTH]} | {verb: [b"* 3 EXISTS\r\n" + well[verb], well[verb]]}) as server:
        mailbox = open_mailbox(server)
        names(mailbox)
        if verb == "DONE":
            mailbox.wait(0.01, threading.Event())
            mailbox.read("of another folder")
        names(mailbox)
        assert server.verbs.count("SEARCH") == 2
        names(mailbox)
        assert server.verbs.count("SEARCH") == 2


def test_a_mark_that_is_refused_is_only_noted(open_mailbox: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with ScriptedImap({"FETCH": [BOTH], "STORE": [b"TAG NO over quota\r\n"]}) as server:
        mailbox = open_mailbox(server, dedicated=True)
        names(mailbox)
        mailbox.taken(FIRST)
        assert "is not marked as seen: STORE failed: over quota" in caplog.text.replace("store", "STORE")
        assert server.connections == 1


# Answers without end or sense


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("verb", "act", "told"),
    [
        pytest.param(
            "FETCH",
            Hold(b"* 1 FETCH (UID 1 BODY[HEADER]<0> {99999999999}\r\n"),
            "a literal of 99999999999 octets",
            id="a-literal-of-93-gib",
        ),
        pytest.param("FETCH", Hold(b"* 1 FETCH (BODY[] {" + b"9" * 5000 + b"}\r\n"), "", id="a-literal-of-5000-digits"),
        pytest.param(
            "FETCH", b"* 1 FETCH (UID 1 BODY[HEADER]<0> {4}\r\n12345)\r\nTAG OK so\r\n", "", id="a-wrong-length"
        ),
        pytest.param("FETCH", b"* 1 FETCH " + b"(" * 5000 + b"\r\nTAG OK so\r\n", "", id="5000-parentheses"),
        pytest.param("FETCH", b"* 1 FETCH (UID x)\r\nTAG OK so\r\n", "", id="no-number"),
        pytest.param("FETCH", b'* 1 FETCH (UID 1 BODY[] "\r\nTAG OK so\r\n', "", id="an-open-quote"),
        pytest.param("FETCH", b"* 1 FETCH (BODY)\r\nTAG OK so\r\n", "", id="a-name-without-value"),
        pytest.param("FETCH", b"* 1 FETCH (ENVELOPE NIL)\r\nTAG OK so\r\n", "", id="an-envelope-of-nil"),
        pytest.param("FETCH", b"* 1 FETCH (BODYSTRUCTURE ())\r\nTAG OK so\r\n", "", id="an-empty-structure"),
        pytest.param(
            "FETCH",
            Hold(b"* 3 EXISTS\r\n" * (MOST_LINES + 1)),
            "lines in answer to one command",
            id="lines-without-end",
        ),
        pytest.param(
            "FETCH", Hold((b"* OK " + b"x" * 1_000_000 + b"\r\n") * 60), "octets in answer to", id="octets-without-end"
        ),
        pytest.param("FETCH", Hold(b"* " + b"x" * (LONGEST_LINE + 100_000)), "a line of over", id="a-line-without-end"),
        pytest.param("SEARCH", b"* SEARCH one two\r\nTAG OK so\r\n", "", id="words-for-numbers"),
        pytest.param("SEARCH", b"* SEARCH 1\r\n* SEARCH 2\r\nTAG OK so\r\n", "", id="two-lists"),
        pytest.param("SEARCH", b"\xff\xfe\r\n", "", id="noise"),
        pytest.param("SEARCH", HangUp(b"OTHER1 OK so\r\n"), "", id="another-tag"),
        pytest.param("SEARCH", HangUp(b"* SEARCH 1"), "", id="half-a-list"),
        pytest.param("SEARCH", b"TAG NO why\r\n", "why", id="search-no"),
        pytest.param("SEARCH", b"TAG BAD what\r\n", "", id="search-bad"),
        pytest.param("SEARCH", HangUp(b"* BYE for maintenance\r\n"), "for maintenance", id="goodbye"),
        pytest.param("SEARCH", b"* OK [UIDVALIDITY 100] anew\r\nTAG OK so\r\n", "", id="made-anew"),
        pytest.param("EXAMINE", b"* 2 EXISTS\r\nTAG OK so\r\n", "no UIDVALIDITY", id="no-uidvalidity"),
        pytest.param(
            "EXAMINE", b"* 2 EXISTS\r\n* OK [UIDVALIDITY x] ok\r\nTAG OK so\r\n", "", id="a-word-for-uidvalidity"
        ),
        pytest.param("EXAMINE", HangUp(), "", id="gone-at-examine"),
        pytest.param(
            "GREETING", HangUp(b"* BYE too many connections\r\n"), "too many connections", id="goodbye-as-a-greeting"
        ),
        pytest.param("GREETING", HangUp(), "", id="no-greeting"),
        pytest.param("GREETING", b"220 relay.example ESMTP\r\n", "relay.example", id="smtp"),
        pytest.param("CAPABILITY", b"* CAPABILITY \xff\r\nTAG OK so\r\n", "", id="a-capability-beyond-ascii"),
        pytest.param("CAPABILITY", b"* CAPABILITY POP3\r\nTAG OK so\r\n", "", id="another-protocol"),
        pytest.param("CAPABILITY", b"TAG OK so\r\n", "", id="no-capability"),
    ],
)
def test_what_makes_no_sense_is_one_error_and_a_new_connection(
    open_mailbox: Open, time: HandTime, verb: str, act: Act, told: str
) -> None:
    with ScriptedImap({"FETCH": [BOTH]} | {verb: [act]}) as server:
        mailbox = open_mailbox(server)
        with pytest.raises(Unavailable) as broken:
            names(mailbox)
        assert broken.value.code is Code.MAILBOX_UNREACHABLE
        assert broken.value.message.startswith(f"mailbox.url: 127.0.0.1:{server.port} ")
        assert told in broken.value.message
        assert "\n" not in broken.value.message
        assert len(broken.value.message) < 400
        assert SECRET not in broken.value.message
        with pytest.raises(Unavailable) as again:
            names(mailbox)
        assert (again.value.message, server.connections) == (broken.value.message, 1)
        server.release()
        server.script = {"FETCH 1,2": [BOTH], "FETCH 1": [fetched((1, HEAD))], "FETCH 2": [fetched((2, HEAD))]}
        time.now += LONGEST_PAUSE
        assert names(mailbox) == [FIRST, SECOND]


@pytest.mark.timeout(60)
def test_a_server_that_says_nothing_is_given_up(open_mailbox: Open) -> None:
    told = r"failed as it was asked to list its messages: no answer in time; it is tried again$"
    with ScriptedImap({"SEARCH": [Hold()]}) as server, pytest.raises(Unavailable, match=told):
        names(open_mailbox(server, timeout=0.2))


# IDLE


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "act",
    [
        b"* 3 EXISTS\r\n+ idling\r\n",
        b"+ idling\r\n* 3 EXISTS\r\n",
        b"+ idling\r\n* OK still here\r\n* 1 EXPUNGE\r\n",
        b"+ idling\r\n* 1 FETCH (BODY[] {8}\r\n\r\nA1 OK\r\n FLAGS ())\r\n* 3 EXISTS\r\n",
    ],
    ids=["before-it-agrees", "in-the-same-breath", "expunged", "after-a-literal"],
)
def test_news_at_the_begin_of_idle_are_heard(open_mailbox: Open, act: bytes) -> None:
    with ScriptedImap({"FETCH": [BOTH], "IDLE": [act]}) as server:
        mailbox = open_mailbox(server)
        names(mailbox)
        mailbox.wait(600.0, threading.Event())
        searches = server.verbs.count("SEARCH")
        assert names(mailbox, FIRST, SECOND) == []
        assert server.verbs.count("SEARCH") == searches + 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "act",
    [b"+ idling\r\n* OK still here\r\n* 1 FETCH (FLAGS (\\Seen))\r\n", b"+ idling\r\n* 3 EXI"],
    ids=["flags-and-comfort", "half-a-line"],
)
def test_what_is_no_news_does_not_end_the_wait(open_mailbox: Open, act: bytes) -> None:
    with ScriptedImap({"FETCH": [BOTH], "IDLE": [act]}) as server:
        mailbox = open_mailbox(server)
        names(mailbox)
        mailbox.wait(0.3, threading.Event())
        assert names(mailbox) == []
        assert server.verbs.count("SEARCH") == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "act",
    [
        HangUp(),
        HangUp(b"+ idling\r\n"),
        HangUp(b"+ idling\r\n* BYE\r\n"),
        b"+ idling\r\nTAG OK done\r\n",
        b"+ idling\r\nnonsense\r\n",
        b"+ idling\r\n* BYE\r\n",
    ],
    ids=["at-once", "after-agreeing", "with-goodbye", "by-itself", "nonsense", "goodbye-without-going"],
)
def test_a_connection_that_ends_in_idle_is_left_quietly_and_made_anew(
    open_mailbox: Open, act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedImap({"FETCH": [BOTH], "IDLE": [act]}) as server:
        mailbox = open_mailbox(server)
        names(mailbox)
        mailbox.wait(600.0, threading.Event())
        assert names(mailbox, FIRST) == [SECOND]
        assert server.connections == 2
        assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.timeout(60)
def test_a_server_that_always_ends_idle_is_not_run_against(open_mailbox: Open, time: HandTime) -> None:
    with ScriptedImap({"FETCH": [BOTH], "IDLE": [HangUp()]}) as server:
        mailbox = open_mailbox(server)
        for _ in range(2):
            assert names(mailbox) == [FIRST, SECOND]
            mailbox.wait(600.0, threading.Event())
        for _ in range(20):
            with pytest.raises(Unavailable, match="ended the connection: it hung up; it is tried again"):
                names(mailbox)
            mailbox.wait(0.001, threading.Event())
        assert server.connections == 2
        time.now += 2.0
        assert names(mailbox) == [FIRST, SECOND]


@pytest.mark.timeout(60)
def test_idle_that_is_offered_and_refused_is_not_asked_for_again(open_mailbox: Open) -> None:
    with ScriptedImap({"FETCH": [BOTH], "IDLE": [b"TAG BAD what?\r\n"]}) as server:
        mailbox = open_mailbox(server)
        names(mailbox)
        for _ in range(3):
            mailbox.wait(0.001, threading.Event())
        assert mailbox.read(FIRST) is None
        assert (server.verbs.count("IDLE"), server.connections) == (1, 1)


# The login


@pytest.mark.parametrize(
    "answer",
    [
        b"TAG NO " + SECRET.encode() + b" is wrong\r\n",
        b"TAG NO " + SECRET.replace("\\", "\\\\").replace('"', '\\"').encode() + b" is wrong\r\n",
        b"TAG NO " + base64.b64encode(f"\0approve@acme.example\0{SECRET}".encode()) + b"\r\n",
        b"TAG NO " + base64.b64encode(SECRET.encode()) + b"\r\n",
        b"TAG BAD " + SECRET.encode() + b"\r\n",
        b"TAG NO \x1b[31m\x00\x07 " + b"x " * 5000 + b"\r\n",
        HangUp(b"* BYE " + SECRET.encode() + b"\r\n"),
        HangUp(SECRET.encode() + b"\r\n"),
        HangUp(SECRET.encode()),
        b"+ " + base64.b64encode(b"and now?") + b"\r\n",
        b"+ \xff" + SECRET.encode() + b"\r\n",
    ],
    ids=[
        "said",
        "quoted",
        "encoded",
        "itself-encoded",
        "bad",
        "long",
        "bye",
        "garbage",
        "cut",
        "on-and-on",
        "no-base64",
    ],
)
@pytest.mark.parametrize("offered", ["AUTH=PLAIN", "AUTH=XOAUTH2", ""])
@pytest.mark.timeout(30)
def test_no_word_of_a_server_brings_the_password_into_an_error_or_the_log(
    open_mailbox: Open, caplog: pytest.LogCaptureFixture, answer: Act, offered: str
) -> None:
    caplog.set_level(logging.DEBUG)
    capability = b"* CAPABILITY IMAP4rev1 %s\r\nTAG OK so\r\n" % offered.encode()
    script: Script = {"CAPABILITY": [capability], "LITERAL": [answer], "LOGIN": [answer]}
    with ScriptedImap(script) as server, pytest.raises(Unavailable) as refused:
        open_mailbox(server, xoauth2=offered == "AUTH=XOAUTH2", timeout=1.0).examine()
    said = refused.value.message + caplog.text
    encoded = [base64.b64encode(text.encode()).decode() for text in (SECRET, f"\0approve@acme.example\0{SECRET}")]
    for spelled in (SECRET, repr(SECRET)[1:-1], SECRET.replace("\\", "\\\\").replace('"', '\\"'), "s3cr3t", *encoded):
        assert spelled not in said
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("username", "secret"), [("a@acme.example", SECRET), ("DOMAIN\\a b", "grün")], ids=["quotes", "beyond-ascii"]
)
def test_plain_carries_any_login(open_mailbox: Open, username: str, secret: str) -> None:
    with ScriptedImap() as server:
        open_mailbox(server, username=username, secret=lambda: secret).examine()
        assert base64.b64decode(server.literals[0]).decode() == f"\0{username}\0{secret}"


def test_a_server_without_plain_gets_a_login_in_quotes(open_mailbox: Open) -> None:
    with ScriptedImap({"CAPABILITY": [b"* CAPABILITY IMAP4rev1\r\nTAG OK so\r\n"]}) as server:
        mailbox = open_mailbox(server, username='DOM\\a "b"')
        mailbox.examine()
        assert mailbox._session is not None
        assert "s3cr3t" not in repr(vars(mailbox._session.wire))
        assert server.said[1] == 'LOGIN "DOM\\\\a \\"b\\"" "s3cr3t \\"pass\\\\word\\" of him"'


@pytest.mark.parametrize(
    ("offered", "secret", "told"),
    [
        ("", "grün", r"^mailbox.password_file: 127.0.0.1:\d+ takes no login with characters beyond ASCII$"),
        ("", "a\r\nA2 LOGOUT", r"^mailbox.password_file: 127.0.0.1:\d+ takes no login with characters beyond ASCII$"),
        ("LOGINDISABLED", "a", r'^mailbox.auth: 127.0.0.1:\d+ takes no password; is auth = "xoauth2" meant\?$'),
    ],
    ids=["beyond-ascii", "a-second-command", "disabled"],
)
def test_a_login_that_cannot_be_carried_is_not_tried(open_mailbox: Open, offered: str, secret: str, told: str) -> None:
    script = {"CAPABILITY": [b"* CAPABILITY IMAP4rev1 %s\r\nTAG OK so\r\n" % offered.encode()]}
    with ScriptedImap(script) as server:
        with pytest.raises(Unavailable, match=told) as refused:
            open_mailbox(server, secret=lambda: secret).examine()
        assert refused.value.code is Code.MAILBOX_REFUSED
        assert server.verbs == ["CAPABILITY"]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG"])
def test_a_server_that_cannot_take_a_login_now_is_not_a_wrong_password(open_mailbox: Open, code: str) -> None:
    with ScriptedImap({"LITERAL": [f"TAG NO [{code}] later\r\n".encode()]}) as server:
        with pytest.raises(
            Unavailable, match=rf"cannot take a login now: \[{code}\] later; it is tried again$"
        ) as later:
            open_mailbox(server).examine()
        assert later.value.code is Code.MAILBOX_UNREACHABLE


def test_the_secret_of_a_refused_login_is_not_kept(open_mailbox: Open) -> None:
    class Secret(str):
        __slots__ = ("__weakref__",)

    given: list[weakref.ref[Secret]] = []

    def secret() -> str:
        made = Secret(SECRET)
        given.append(weakref.ref(made))
        return made

    with ScriptedImap({"LITERAL": [b"TAG NO no\r\n"]}) as server:
        mailbox = open_mailbox(server, secret=secret)
        for _ in range(2):
            with suppress(Unavailable):
                mailbox.examine()
    gc.collect()
    assert [kept() for kept in given] == [None]


def test_a_secret_that_cannot_be_had_is_its_own_error_and_not_asked_for_at_once(
    open_mailbox: Open, time: HandTime
) -> None:
    asked = []

    def secret() -> str:
        asked.append(time.now)
        raise ConfigError(Code.SECRET_UNREADABLE, "mailbox.password_file: gone", field="mailbox.password_file")

    with ScriptedImap() as server:
        mailbox = open_mailbox(server, secret=secret)
        for _ in range(3):
            with pytest.raises(ConfigError, match=r"^mailbox.password_file: gone$"):
                names(mailbox)
        assert (len(asked), server.connections) == (1, 0)


# Backing off


def test_a_server_that_is_away_is_asked_less_and_less(open_mailbox: Open, time: HandTime) -> None:
    with ScriptedImap({"GREETING": [HangUp()]}) as server:
        mailbox = open_mailbox(server)
        asked: list[float] = []
        while len(asked) < 12:
            with pytest.raises(Unavailable, match="cannot be reached: it hung up; it is tried again"):
                names(mailbox)
            if server.connections > len(asked):
                asked.append(time.now)
            time.now += 0.5
        pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
        assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, LONGEST_PAUSE, LONGEST_PAUSE]


def test_pauses_differ_by_chance(open_mailbox: Open, time: HandTime) -> None:
    with ScriptedImap({"GREETING": [HangUp()]}) as server:
        mailbox = open_mailbox(server, randomness=lambda: 0.75)
        with pytest.raises(Unavailable):
            names(mailbox)
        time.now += 1.7
        with pytest.raises(Unavailable):
            names(mailbox)
        assert server.connections == 1
        time.now += 0.1
        with pytest.raises(Unavailable):
            names(mailbox)
        assert server.connections == 2


def test_no_message_and_no_command_is_logged(open_mailbox: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    words = b"To: approve@acme.example\r\nX: secret words\r\n\r\n"
    script: Script = {"FETCH 1,2": [fetched((1, words))], "FETCH 1": [fetched((1, words), section="BODY[]<0>")]}
    with ScriptedImap(script) as server:
        mailbox = open_mailbox(server)
        assert names(mailbox) == [FIRST]
        assert mailbox.read(FIRST) == words
        mailbox.wait(0.01, threading.Event())
    for secret in ("secret words", "approve@acme.example", "AUTHENTICATE", SECRET):
        assert secret not in caplog.text


bounded = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PIECES = [
    b"* ", b"1 FETCH ", b"(", b")", b"UID 1 ", b"BODY[HEADER]<0> ", b"{3}\r\nabc", b"{9}\r\n", b'"', b"\\", b"[", b"]",
    b" ", b"NIL", b"INTERNALDATE ", b'" 1-Feb-2027 10:00:00 +0100"', b"ENVELOPE ", b"FLAGS ", b"SEARCH 1", b"0", b"-1",
    b"MODSEQ (1)", b"* OK [UIDVALIDITY 99] ", b"* 5 EXISTS\r\n", b"* BYE\r\n", b"+ \r\n", b"TAG OK so\r\n",
    b"TAG NO why\r\n", b"\r\n",
]  # fmt: skip


@bounded
@given(
    verb=st.sampled_from(["GREETING", "CAPABILITY", "LITERAL", "EXAMINE", "NOOP", "SEARCH", "FETCH"]), data=st.data()
)
def test_whatever_a_server_says_is_an_answer_or_one_kind_of_error(verb: str, data: st.DataObject) -> None:
    pieces = st.one_of(st.sampled_from(PIECES), st.binary(max_size=8))
    said = b"".join(data.draw(st.lists(pieces, max_size=25)))
    with ScriptedImap({"FETCH": [BOTH], verb: [HangUp(said + b"TAG OK so\r\n")]}) as server, Mailboxes() as opened:
        mailbox = opened(port=server.port, dedicated=data.draw(st.booleans()))
        told = ""
        try:
            for delivered in mailbox.messages(set(), since=0):
                mailbox.read(delivered.uid)
                mailbox.taken(delivered.uid)
            mailbox.wait(0.01, threading.Event())
        except Unavailable as broken:
            told = broken.message
        assert told == "" or (told.startswith("mailbox.") and told.isprintable())
