"""An inbox killed again and again while replies arrive takes each of them once, and each draft is approved once."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from outbox.clock import wall
from tests.crash.held_relay import BOUND
from tests.crash.journals import assert_the_journal_holds
from tests.house import FOUNDER, HandClock, House
from tests.inbox.dovecot import MISSING, PASSWORD, PROGRAM, Dovecot
from tests.relay.recording import RecordingRelay

TEXTS = ("Ship it", "what is this?", "Ship it", "Reject: no", "Ship it", "Stop")
DRAFTS = 6
A_ROUND = 3  # replies arrive before each kill, so that there is always something to do
Deliver = Callable[[bytes], object]


@contextmanager
def inbox_process(house: House) -> Iterator[subprocess.Popen[bytes]]:
    """`outbox inbox`, that says on stderr what it does; gone when this is left."""
    process = subprocess.Popen([sys.executable, "-m", "outbox", "inbox"], cwd=house.folder, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait(BOUND)
        assert process.stderr is not None
        process.stderr.close()


def killed_after(house: House, lines: int, seconds: float) -> None:
    """Let an inbox do so many things that it tells of, and a little more; then it is killed."""
    with inbox_process(house) as process:
        assert process.stderr is not None
        for _ in range(lines):
            assert process.stderr.readline()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        assert process.poll() is None, "it ended by itself"


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[House]:
    """Requests about many drafts have reached the founder, on the clock of the processes."""
    with RecordingRelay() as relay:
        house = House.build(tmp_path, relay)
        house.clock = HandClock(wall())
        for number in range(DRAFTS):
            house.draft(subject=f"Offer {number}")
        house.inbox()
        house.drain()
        yield house


@pytest.fixture(params=["maildir", pytest.param("imap", marks=pytest.mark.skipif(PROGRAM is None, reason=MISSING))])
def mailbox(request: pytest.FixtureRequest, asking: House) -> Iterator[Deliver]:
    """How a reply is put where the inbox finds it."""
    if request.param == "maildir":
        yield asking.deliver
        return
    with Dovecot() as server:
        account = server.account("approve")
        (asking.folder / "mailbox.password").write_text(PASSWORD)
        (asking.folder / "mailbox.password").chmod(0o600)
        asking.set(
            "mailbox",
            url=f'"imap://127.0.0.1:{server.port}/INBOX"',
            username='"approve"',
            password_file='"mailbox.password"',
            dedicated="true",
        )
        yield account.deliver


def replies_to(house: House) -> list[bytes]:
    """One reply to each request, as it would arrive."""
    found = []
    for draft, text in zip(house.drafts(), TEXTS * DRAFTS, strict=False):
        file = house.reply(house.request_for(draft.id), text)
        found.append(file.read_bytes())
        file.unlink()
    return found


def test_replies_that_arrive_while_the_inbox_is_killed_are_taken_once(asking: House, mailbox: Deliver) -> None:
    dice, waiting = random.Random(7), replies_to(asking)
    asking.set("approval", confirm='"none"')
    for first in range(0, DRAFTS, A_ROUND):
        for octets in waiting[first : first + A_ROUND]:
            mailbox(octets)
        killed_after(asking, dice.randrange(1, A_ROUND + 1), dice.choice([0, dice.random() / 20, dice.random() / 4]))
    asking.clock.now = wall()
    asking.inbox()
    asking.inbox()
    replies = asking.replies()
    assert Counter(one.message_id for one in replies) == {f"<reply-{n + 1}@phone.example>": 1 for n in range(DRAFTS)}
    assert [one.verdict for one in replies].count("approve") == DRAFTS // 2
    assert Counter(one.state.value for one in asking.drafts()) == Counter(
        approved=DRAFTS // 2, pending=DRAFTS // 6, rejected=DRAFTS // 6, cancelled=DRAFTS // 6
    )
    granted = asking.rows("SELECT draft_id, approver FROM grants")
    assert len(granted) == len(set(granted)) == DRAFTS // 2
    assert {approver for _, approver in granted} == {FOUNDER}
    answered = [draft.about for draft in asking.drafts(system=True) if "] Your reply" in draft.subject]
    assert len(answered) == len(set(answered)) == DRAFTS // 3  # what was unclear, and what was stopped
    assert_the_journal_holds(asking)
