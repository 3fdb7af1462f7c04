"""Each event is one sentence, made from the journal, in which nothing that a stranger wrote can do anything."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from outbox import drafter, operator
from outbox.cli.sentences import LONGEST, clock_time, sentence, shown
from outbox.core.errors import TryLater
from outbox.core.lifecycle import Settled
from outbox.drafter.intake import Wanted
from outbox.store.events import Event
from tests.house import FOUNDER, JANE, SALES, SECOND, House
from tests.relay.scripted import Fin, Hold, Keep, Phase, Say, ScriptedRelay
from tests.worker.hand import draining


def events(house: House) -> list[Event]:
    with operator.read(house.settings) as records:
        return records.events(0)


def said(house: House) -> list[str]:
    """Every sentence about everything so far."""
    return [words for event in events(house) if (words := sentence(event)) is not None]


def desk_rejects(house: House, draft_id: str, reason: str) -> None:
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.reject(draft_id, reason=reason, named=None)


def test_the_loop_is_told_as_it_happened(house: House) -> None:
    draft = house.draft(subject="Your offer", agent="sales-bot")
    house.reply(house.ask(draft.id), "Ship it")
    house.inbox()
    house.drain()
    assert said(house)[:4] == [
        f'sales-bot drafted "Your offer" for {JANE} ({draft.id})',
        f'asked {FOUNDER} about "Your offer"',
        f'{FOUNDER} approved "Your offer"',
        'sent "Your offer": the relay said 250 2.0.0 Ok: queued as 000002',
    ]


def test_a_reply_that_did_not_count_is_told_with_its_reason_and_so_is_the_answer_to_it(house: House) -> None:
    draft = house.draft()
    house.reply(house.ask(draft.id), "Perhaps")
    house.inbox()
    house.drain()
    refused, answered = said(house)[2:]
    assert refused.startswith(f'a reply from {FOUNDER} about "Offer" did not count: verdict: ')
    assert re.fullmatch(rf'told {FOUNDER}: ".+"', answered)


def test_a_rejection_is_told_with_its_reason(house: House) -> None:
    desk_rejects(house, house.draft().id, "too dear")
    assert said(house)[1:] == [f'{FOUNDER} rejected "Offer": too dear']


def test_a_cancelled_draft_and_an_expired_one_are_told(house: House) -> None:
    house.cancel(house.draft().id)
    house.draft(subject="Another", ttl=60)
    house.clock.advance(61 * SECOND)
    house.inbox()
    assert said(house)[1] == '"Offer" was cancelled'
    assert 'expired, "Another": nobody answered in time' in said(house)


def test_what_the_relay_refuses_for_good_is_told_with_its_words_and_the_draft_s_id(house: House) -> None:
    house.relay.refuse[JANE] = "550 5.1.1 no such person"
    draft = house.approved()
    house.drain()
    assert f'failed, "Offer": the relay said 550 5.1.1 no such person ({draft.id})' in said(house)


def test_what_is_put_off_is_told_with_the_time_of_the_next_try(house: House) -> None:
    house.relay.refuse["DATA"] = "451 4.3.0 later"
    draft = house.approved()
    house.drain()
    again = clock_time(house.story(draft.id).draft.not_before or 0)
    assert said(house)[-1] == f'not sent yet, "Offer": 451 4.3.0 later; it is tried again at {again}'


def test_what_is_in_doubt_is_told_with_what_to_do(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Keep(), Fin()]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        house.drain()
        (doubt,) = [words for words in said(house) if words.startswith("in doubt")]
        assert f"`outbox reconcile {draft.id}`" in doubt
        with operator.open(house.settings, clock=house.clock) as desk:
            desk.settling.settle(draft.id, Settled.SENT, note="seen in Sent", at_once=True)
        assert said(house)[-1] == f'sent "Offer": the relay said {house.story(draft.id).attempts[0].text}'
        assert said(house)[-2].endswith(' settled "Offer" as sent: seen in Sent')


def test_a_pause_and_its_end_are_told_with_who_and_why(house: House) -> None:
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.pause(reason="somebody is worried")
        desk.resume()
    assert [words.partition(" ")[2] for words in said(house)] == ["paused it: somebody is worried", "let it go on"]


def test_a_stop_that_came_in_time_is_told_as_asked_for_and_as_done(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.MAIL: [Hold(), Say(b"250 2.1.0 Ok\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        with draining(house):
            relay.wait_until_holding()
            house.cancel(draft.id)
            relay.release()
        assert said(house)[-2:] == ['asked to stop "Offer", which is being sent', 'stopped "Offer" before it was sent']


def test_the_thermal_cutout_is_told_as_it_opens_and_as_it_closes(house: House) -> None:
    house.set("thermal", count="1", window='"15m"', cooldown='"5m"')
    for number in range(2):
        house.approved(subject=f"Offer {number}")
    with pytest.raises(TryLater):
        house.drain()
    house.clock.advance(16 * 60 * SECOND)
    house.drain()
    opened, closed = [words for words in said(house) if "thermal cutout" in words and not words.startswith("told")]
    assert re.fullmatch(r"the thermal cutout is open: nothing of gate mail is sent before \d\d:\d\d:\d\d", opened)
    assert closed == "the thermal cutout of gate mail is closed again"


def test_spent_tokens_are_told(house: House) -> None:
    """Five wrong codes are the inbox's own test; here is what its row becomes."""
    house.draft()
    event = replace(events(house)[0], action="spend", detail={"approver": FOUNDER, "why": "codes_exhausted"})
    assert sentence(event) == (
        f'too many wrong codes in the name of {FOUNDER}: no reply of his can approve "Offer" any more'
    )


def test_what_carries_the_outbox_s_own_words_is_told_when_it_has_left_and_not_before(house: House) -> None:
    house.draft()
    house.inbox()
    assert len(said(house)) == 1
    house.relay.refuse[FOUNDER] = "550 5.1.1 no such person"
    house.drain()
    assert said(house)[1].startswith('failed, the mail "[outbox')
    assert f"to {FOUNDER}: the relay said 550 5.1.1 no such person" in said(house)[1]


def test_several_recipients_are_counted(house: House) -> None:
    house.draft(to=tuple(f"person-{number}@customer.example" for number in range(6)))
    assert " and 3 more (" in said(house)[0]


def test_what_a_stranger_wrote_is_one_line_cut_short_and_does_nothing(house: House) -> None:
    reason = "\x1b[2J\x07\r\n\u202egnp.exe\u2028" + "x" * 100_000
    desk_rejects(house, house.draft().id, reason)
    told = said(house)[1]
    assert told.isprintable()
    assert len(told) < 2 * LONGEST


@pytest.mark.parametrize(
    "text", ["\x1b]0;title\x07", "\x9b31m", "line\r\nbreak", "\u202e\u200b\u2066", "\ud800", "tab\there"], ids=ascii
)
def test_nothing_that_a_terminal_would_act_on_is_shown(text: str) -> None:
    assert shown(text).isprintable()


def test_an_altered_row_is_told_as_far_as_it_can_be_read(house: House) -> None:
    draft = house.approved()
    with house.as_thief() as connection:
        connection.execute("UPDATE drafts SET state = 'nowhere', envelope = '[' WHERE id = ?", (draft.id,))
        connection.execute("UPDATE journal SET detail = '[', at = 9000000000000000000 WHERE action = 'grant'")
    found = events(house)
    assert [words for event in found if (words := sentence(event)) is not None] == [
        f"insert of draft {draft.id}, whose row cannot be read",
        f"grant of draft {draft.id}, whose row cannot be read",
    ]
    assert clock_time(max(event.at for event in found)) == "--:--:--"


def test_events_are_read_on_from_a_place_without_a_gap_or_a_repetition(house: House) -> None:
    kept = house.settings
    with (
        operator.read(kept) as records,
        drafter.open(kept, clock=house.clock) as room,
        operator.open(kept, clock=house.clock) as desk,
    ):
        start = records.newest_place()
        for number in range(150):
            wanted = Wanted(sender=SALES, to=(JANE,), subject=f"Offer {number}", text="Dear Jane")
            desk.cancel(room.draft(wanted).draft.id)
        found: list[Event] = []
        while more := records.events(found[-1].place if found else start):
            found += more
    assert len(found) == 300
    assert [event.place for event in found] == sorted({event.place for event in found})


EMPTY = Event(1, 0, "inbox", "ask", None, None, {}, None, None, "")


@pytest.mark.parametrize("action", ["ask", "claim", "gap", "approve", "start", "end", "seal", "reply", "trip", "cool"])
def test_an_event_without_facts_raises_nothing(action: str) -> None:
    told = sentence(replace(EMPTY, action=action))
    assert told is None or told.isprintable()
