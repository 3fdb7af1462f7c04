"""Each pending draft is asked about once for each approver, and again only where its request could not leave."""

from __future__ import annotations

import threading

import pytest

from outbox import inbox
from outbox.core.lifecycle import State
from tests.house import APPROVAL, FOUNDER, HOUR, JANE, House
from tests.inbox.letters import token_of
from tests.inbox.lookout import look_together

PARTNER = "partner@acme.example"


def requests(house: House) -> list[tuple[object, ...]]:
    return house.rows("SELECT draft_id, approver, ask FROM requests ORDER BY draft_id, approver, ask")


def test_a_pending_draft_is_asked_about_once_however_often_the_inbox_looks(house: House) -> None:
    draft = house.draft()
    for _ in range(3):
        house.inbox()
    assert requests(house) == [(draft.id, FOUNDER, 1)]
    (carrier,) = [one for one in house.drafts(system=True) if one.id != draft.id]
    assert (carrier.kind, carrier.state, carrier.about) == ("system", State.APPROVED, draft.id)
    assert (carrier.envelope.sender, carrier.envelope.recipients) == (APPROVAL, (FOUNDER,))


def test_two_approvers_are_asked_each_with_a_token_of_his_own(house: House) -> None:
    house.set("approval", approvers=f'["{FOUNDER}", "{PARTNER}"]')
    draft = house.draft()
    house.inbox()
    house.inbox()
    house.drain()
    assert requests(house) == [(draft.id, FOUNDER, 1), (draft.id, PARTNER, 1)]
    assert sorted(sent.recipients for sent in house.relay.messages) == [(FOUNDER,), (PARTNER,)]
    ids = house.rows("SELECT id FROM requests")
    assert len(set(ids)) == 2


def test_each_of_several_drafts_is_asked_about(house: House) -> None:
    drafts = [house.draft(subject=f"Offer {number}").id for number in range(5)]
    house.inbox()
    assert requests(house) == [(draft, FOUNDER, 1) for draft in sorted(drafts)]


def test_two_inboxes_at_once_ask_once(house: House) -> None:
    for number in range(10):
        house.draft(subject=f"Offer {number}")
    with inbox.open(house.settings, clock=house.clock) as one, inbox.open(house.settings, clock=house.clock) as two:
        threads = [threading.Thread(target=room.once) for room in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(requests(house)) == 10
    assert len(house.drafts(system=True)) == 20


def test_four_processes_at_once_ask_once(house: House) -> None:
    for number in range(10):
        house.draft(subject=f"Offer {number}")
    look_together(house, processes=4)
    assert len(requests(house)) == 10
    assert len(house.drafts(system=True)) == 20


def test_what_is_not_pending_is_not_asked_about(house: House) -> None:
    house.approved()
    house.cancel(house.draft(subject="Withdrawn").id)
    house.draft(subject="Too late", ttl=60)
    house.clock.advance(HOUR)
    house.inbox()
    assert requests(house) == []


def test_a_request_the_relay_refused_is_asked_again_at_most_three_times(house: House) -> None:
    house.relay.refuse[FOUNDER] = "550 5.1.1 no such mailbox"
    draft = house.draft()
    for _ in range(6):
        house.inbox()
        house.drain()
    assert requests(house) == [(draft.id, FOUNDER, ask) for ask in (1, 2, 3)]
    assert house.story(draft.id).draft.state is State.PENDING
    assert {one.state for one in house.drafts(system=True) if one.kind == "system"} == {State.FAILED}


def test_a_request_asked_again_carries_a_new_token_that_works(house: House) -> None:
    house.relay.refuse[FOUNDER] = "550 5.1.1 no such mailbox"
    draft = house.draft()
    house.inbox()
    house.drain()
    house.relay.refuse.clear()
    request = house.ask(draft.id)
    ids = [id_.hex() for (id_,) in house.rows("SELECT id FROM requests ORDER BY ask")]  # type: ignore[attr-defined]
    assert len(ids) == 2
    assert f"id={ids[1]}" in str(request["X-Outbox-Request"])
    house.reply(request, "Ship it")
    house.inbox()
    assert house.story(draft.id).draft.state is State.APPROVED


def test_a_deferred_request_is_not_asked_again_meanwhile(house: House) -> None:
    house.relay.refuse[FOUNDER] = "451 4.7.1 try later"
    draft = house.draft()
    for _ in range(3):
        house.inbox()
        house.drain()
    assert requests(house) == [(draft.id, FOUNDER, 1)]


@pytest.mark.parametrize(
    "alteration",
    [
        "UPDATE messages SET octets = CAST(replace(CAST(octets AS TEXT), 'Jane', 'Mary') AS BLOB)",
        "UPDATE messages SET octets = x'00'",
        "UPDATE drafts SET envelope = replace(envelope, 'jane@', 'mallory@')",
        "UPDATE drafts SET envelope = 'not json'",
        "UPDATE drafts SET expires_at = expires_at + 1",
        "UPDATE drafts SET agent = 'somebody'",
        "DELETE FROM messages",
    ],
)
def test_a_pending_draft_that_was_altered_is_never_shown_but_fails_with_an_alert(house: House, alteration: str) -> None:
    draft, other = house.draft(), house.draft(subject="Untouched")
    with house.as_thief() as thief:
        where = "id" if "drafts" in alteration else "draft_id"
        thief.execute(f"{alteration} WHERE {where} = ?", (draft.id,))
    house.inbox()
    ended = house.story(draft.id).draft
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error[0] in {"digest_mismatch", "row_unreadable"}
    assert requests(house) == [(other.id, FOUNDER, 1)]
    (alert,) = [one for one in house.drafts(system=True) if one.about == draft.id]
    assert alert.envelope.recipients == (FOUNDER,)
    assert ended.error[0] in alert.subject
    assert ended.error[0] in (house.folder / "state" / "inbox.json").read_text()


def test_octets_altered_after_the_approval_was_asked_for_never_leave(house: House) -> None:
    draft = house.draft()
    request = house.ask(draft.id)
    with house.as_thief() as thief:
        thief.execute(
            "UPDATE messages SET octets = CAST(replace(CAST(octets AS TEXT), 'Jane', 'Mary') AS BLOB) "
            "WHERE draft_id = ?",
            (draft.id,),
        )
    house.reply(request, "Ship it")
    house.inbox()
    house.drain()
    assert house.relay.to(JANE) == []
    assert house.story(draft.id).draft.state is State.FAILED


def test_the_token_names_the_request_as_its_row_says(house: House) -> None:
    draft = house.draft()
    request = house.ask(draft.id)
    ((request_id, digest, expires_at),) = house.rows("SELECT id, digest, expires_at FROM requests")
    assert isinstance(request_id, bytes)
    assert isinstance(digest, bytes)
    assert len(token_of(request)) == 39
    assert (digest, expires_at) == (draft.digest, draft.expires_at)
