"""A message that cannot be read or judged is set aside and told to the operator: never lost, never read for ever."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from outbox.alerts import Alerts
from outbox.clock import new_id
from outbox.core.errors import Code
from outbox.core.lifecycle import Room
from outbox.inbox.answering import MOST_TRIES, Answering
from outbox.inbox.authenticity import Authenticity
from outbox.inbox.carriers import Carriers
from outbox.inbox.judgement import Judge
from outbox.inbox.mailbox import Delivered
from outbox.inbox.wording import Manner
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.writer import Writer
from tests.house import APPROVAL, FOUNDER, House
from tests.inbox.letters import Asked


@dataclass
class Drawer:
    """A mailbox that lists everything, and gives a message only after it was asked `refusals` times in vain."""

    letters: dict[str, bytes]
    refusals: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    marked: list[str] = field(default_factory=list)
    name: str = "drawer:"
    numbered: bool = False

    def messages(self, known: Collection[str], *, since: int) -> Iterator[Delivered]:
        del since
        for uid in sorted(self.letters.keys() - set(known)):
            yield Delivered(uid, self.letters[uid].partition(b"\n\n")[0])

    def read(self, uid: str) -> bytes | None:
        self.asked.append(uid)
        return self.letters[uid] if self.asked.count(uid) > self.refusals.get(uid, 0) else None

    def taken(self, uid: str) -> None:
        self.marked.append(uid)

    def wait(self, seconds: float, stop: threading.Event) -> None:
        stop.wait(seconds)

    def close(self) -> None:
        self.letters.clear()


@contextmanager
def answering(house: House, mailbox: Drawer) -> Iterator[Answering]:
    """What the room does with its mailbox, with another one."""
    settings, ring = house.settings, house.settings.grant_ring()
    database = connect(house.place)
    writer = Writer(database, Chain(Room.INBOX, new_id(house.clock()), ring))
    carriers = Carriers(database, ring, address=APPROVAL, plain=False)
    try:
        yield Answering(
            mailbox=mailbox,
            judge=Judge(settings, database, ring, carriers, Authenticity(settings)),
            database=database,
            writer=writer,
            alerts=Alerts(settings, Room.INBOX, ring, writer, house.clock),
            ring=ring,
            manner=Manner(APPROVAL),
            grant_ttl=3600,
            clock=house.clock,
        )
    finally:
        writer.close()
        database.close()


def alerts(house: House) -> list[str]:
    """What the state file says to the operator, where it is about a message that was set aside."""
    file = house.folder / "state" / "inbox.json"
    raised = json.loads(file.read_text())["alerts"] if file.exists() else []
    return [alert["message"] for alert in raised if alert["code"] == Code.REPLY_SET_ASIDE]


def test_what_the_mailbox_lists_and_never_gives_is_set_aside_once(asked: Asked) -> None:
    mailbox = Drawer({"1": asked.letter(b"\nShip it\n"), "2": asked.letter(b"\nStop\n")}, {"1": 10**9})
    mailbox.letters["2"] = mailbox.letters["2"].replace(b"<letter@", b"<another@")
    with answering(asked.house, mailbox) as room:
        for look in range(MOST_TRIES + 3):
            room.read()
            assert len(asked.house.replies()) == (2 if look >= MOST_TRIES - 1 else 1)
    assert mailbox.asked.count("1") == MOST_TRIES
    assert mailbox.marked == ["2"]
    (told,) = alerts(asked.house)
    assert "message 1 of drawer:" in told
    stopped, aside = sorted(asked.house.replies(), key=lambda reply: not reply.counted)
    assert stopped.counted
    assert (aside.counted, aside.draft_id, aside.why) == (False, None, "the mailbox lists it and does not give it")
    mailed = [one for one in asked.house.drafts(system=True) if "] reply_set_aside:" in one.subject]
    assert [one.envelope.recipients for one in mailed] == [(FOUNDER,)]


def test_what_was_set_aside_is_not_looked_at_by_the_next_inbox(asked: Asked) -> None:
    mailbox = Drawer({"1": asked.letter(b"\nShip it\n")}, {"1": MOST_TRIES})
    for _ in range(2):
        with answering(asked.house, mailbox) as room:
            for _ in range(MOST_TRIES + 1):
                room.read()
    assert mailbox.asked == ["1"] * MOST_TRIES
    assert (len(alerts(asked.house)), len(asked.house.replies())) == (1, 1)
    assert asked.states() == ("pending", "pending")


def test_what_is_given_after_a_few_tries_is_taken_as_if_nothing_had_been(asked: Asked) -> None:
    mailbox = Drawer({"1": asked.letter(b"\nShip it\n")}, {"1": MOST_TRIES - 1})
    with answering(asked.house, mailbox) as room:
        for _ in range(MOST_TRIES + 1):
            room.read()
    assert asked.states() == ("approved", "pending")
    assert (mailbox.marked, alerts(asked.house)) == (["1"], [])


def test_a_letter_of_a_stranger_s_is_not_even_asked_for(asked: Asked) -> None:
    mailbox = Drawer({"1": b"From: friend@home.example\nTo: approve@acme.example\n\nShip it\n"})
    with answering(asked.house, mailbox) as room:
        room.read()
        room.read()
    assert (mailbox.asked, mailbox.marked, asked.house.replies()) == ([], [], [])


def test_a_reply_that_cannot_be_judged_is_set_aside_and_holds_up_no_other(asked: Asked) -> None:
    """As where a hand has written a state into the draft's row that there is none of."""
    with asked.house.as_thief() as thief:
        thief.execute("UPDATE drafts SET state = 'sent' WHERE id = ?", (asked.draft_id,))
    asked.house.reply(asked.request, "Ship it")
    asked.house.reply(asked.other, "Ship it")
    for _ in range(3):
        asked.house.inbox()
    replies = asked.house.replies()
    assert sorted((one.counted, one.why) for one in replies) == [
        (False, "it could not be read"), (True, f"{FOUNDER} approved it"),
    ]  # fmt: skip
    (told,) = alerts(asked.house)
    assert "it could not be read" in told
    assert asked.grants() == [(asked.other_id, FOUNDER)]
