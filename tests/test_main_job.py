"""The main job, end to end, through the rooms' doors."""

from __future__ import annotations

from outbox.core.lifecycle import State
from tests.house import APPROVAL, FOUNDER, JANE, SALES, House


def test_a_draft_approved_by_reply_is_sent_once_with_the_approved_octets(house: House) -> None:
    draft = house.draft(subject="Angebot für Jane")
    house.reply(house.ask(draft.id), "Ship it")
    house.inbox()
    house.drain()
    house.drain()
    sent = house.relay.to(JANE)
    assert len(sent) == 1
    assert (sent[0].sender, sent[0].recipients) == (SALES, (JANE,))
    (stored,) = house.rows("SELECT octets FROM messages WHERE draft_id = ?", draft.id)
    date, _, rest = sent[0].octets.partition(b"\r\n")
    assert date.startswith(b"Date: ")
    assert rest == stored[0]
    assert house.story(draft.id).draft.state is State.COMPLETED


def test_nothing_reaches_the_recipient_before_the_approval(house: House) -> None:
    draft = house.draft()
    house.ask(draft.id)
    house.drain()
    assert house.relay.to(JANE) == []
    assert [sent.recipients for sent in house.relay.messages] == [(FOUNDER,)]
    assert house.relay.messages[0].sender == APPROVAL
