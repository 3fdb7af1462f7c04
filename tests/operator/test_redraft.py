"""A new draft out of one that ended, and never a second copy that nobody was warned of."""

from __future__ import annotations

from contextlib import suppress
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from outbox import drafter, operator
from outbox.clock import new_id
from outbox.core.errors import Code, ConfigError, DraftUnknown, OutboxError, PolicyRefused
from outbox.core.evidence import Evidence
from outbox.core.lifecycle import Room, Settled, State
from outbox.drafter.intake import Overrides, Wanted
from outbox.store.claims import Claim
from outbox.store.evidence import insert_evidence
from tests.house import HOUR, JANE, SALES, SECOND, House
from tests.operator.stuck import (
    APPROVED,
    CLAIMED,
    CLAIMED_IN_LEDGER,
    COMPLETED,
    DOUBT,
    GAP,
    GAP_REFUSED,
    PENDING,
    Stuck,
    entered,
    row,
    stuck_in,
    write_in_ledger,
)
from tests.relay.recording import RecordingRelay
from tests.worker.hand import writing


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    return stuck_in(tmp_path)


def redraft(house: House, draft_id: str, *, may_duplicate: bool = False) -> str:
    with operator.open(house.settings, clock=house.clock) as desk:
        return desk.redraft(draft_id, may_duplicate=may_duplicate).draft.id


def refused(house: House, draft_id: str, *, may_duplicate: bool = False) -> OutboxError:
    """A refusal that made no draft."""
    before = house.rows("SELECT count(*) FROM drafts")
    with pytest.raises(OutboxError) as told:
        redraft(house, draft_id, may_duplicate=may_duplicate)
    assert house.rows("SELECT count(*) FROM drafts") == before
    return told.value


def settle(stuck: Stuck, name: str, settled_as: Settled, *, at_once: bool = False) -> None:
    with stuck.desk() as desk:
        desk.settling.settle(stuck.drafts[name], settled_as, note="a test", at_once=at_once)


def octets(house: House, draft_id: str) -> bytes:
    with operator.read(house.settings) as records:
        return records.octets(draft_id)


def test_a_redraft_says_the_same_to_the_same_people_under_names_of_its_own(house: House) -> None:
    old = house.draft(to=(JANE,), cc=("jack@customer.example",), bcc=("boss@acme.example",), agent="sales-bot").id
    house.cancel(old)
    house.clock.advance(HOUR)
    new = redraft(house, old)
    before, after = (house.story(draft_id).draft for draft_id in (old, new))
    assert after.state is State.PENDING
    assert after.grants == ()
    assert (after.agent, after.kind, after.envelope, after.subject) == (
        before.agent, before.kind, before.envelope, before.subject,
    )  # fmt: skip
    assert after.fingerprint == before.fingerprint
    for one, other in ((after.id, before.id), (after.digest, before.digest), (after.message_id, before.message_id)):
        assert one != other
    assert after.created_at == house.clock()
    assert after.expires_at == house.clock() + house.settings.policy.default_ttl * SECOND
    first, second = (message_from_bytes(octets(house, draft_id), policy=policy.default) for draft_id in (old, new))
    assert first.get_content() == second.get_content()
    assert [str(one["X-Outbox-Draft"]) for one in (first, second)] == [old, new]
    assert [str(one["Message-ID"]) for one in (first, second)] == [before.message_id, after.message_id]


def test_a_redraft_of_a_whole_message_gets_a_message_id_of_its_own(house: House) -> None:
    own = f"From: {SALES}\r\nTo: {JANE}\r\nSubject: Offer\r\nMessage-ID: <mine@acme.example>\r\n\r\nHello\r\n".encode()
    with drafter.open(house.settings, clock=house.clock) as room:
        old = room.adopt(own, Overrides()).draft.id
    house.cancel(old)
    new = redraft(house, old)
    assert b"Message-ID: <mine@acme.example>" in octets(house, old)
    assert b"mine@acme.example" not in octets(house, new)
    assert octets(house, new).count(b"Message-ID:") == 1


def test_a_redraft_made_twice_is_one(house: House) -> None:
    old = house.draft().id
    house.cancel(old)
    assert redraft(house, old) == redraft(house, old) != old


def test_a_redraft_leaves_once_it_is_approved_anew(tmp_path: Path, relay: RecordingRelay) -> None:
    house = House.build(tmp_path, relay)
    old = house.approved().id
    house.cancel(old)
    new = redraft(house, old)
    house.drain()
    assert house.relay.messages == []
    house.approve(new)
    house.drain()
    assert row(house, new) == ("completed", None)
    assert len(house.relay.to(JANE)) == 1


def test_what_has_not_ended_is_not_drafted_again(stuck: Stuck) -> None:
    for name in (PENDING, APPROVED, GAP, CLAIMED):
        for may_duplicate in (False, True):
            told = refused(stuck.house, stuck.drafts[name], may_duplicate=may_duplicate)
            assert told.code is Code.STATE_CONFLICT
            assert ("reconcile" in told.message) == (name in {GAP, CLAIMED})


def test_what_is_not_there_is_not_drafted_again(stuck: Stuck) -> None:
    assert isinstance(refused(stuck.house, "no-such-draft"), DraftUnknown)


def test_what_an_approver_rejected_is_not_drafted_again(house: House) -> None:
    old, other = house.draft().id, house.draft(subject="Another", agent="other").id
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.reject(old, reason="no", named=None)
    assert refused(house, old, may_duplicate=True).code is Code.STATE_CONFLICT
    house.cancel(other)
    redraft(house, other)


def test_the_same_words_under_another_draft_that_were_rejected_are_not_drafted_again(house: House) -> None:
    old, other = house.draft().id, house.draft().id
    house.cancel(old)
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.reject(other, reason="no", named=None)
    told = refused(house, old)
    assert isinstance(told, PolicyRefused)
    assert told.code is Code.ALREADY_REJECTED


def test_the_outboxs_own_mail_is_not_drafted_again(house: House) -> None:
    house.draft()
    house.inbox()
    (request,) = [one.id for one in house.drafts(system=True) if one.kind == "system"]
    house.cancel(request)
    assert refused(house, request, may_duplicate=True).code is Code.STATE_CONFLICT


@pytest.mark.parametrize(
    ("name", "settled_as"),
    [
        pytest.param(COMPLETED, None, id="accepted"),
        pytest.param(GAP, Settled.SENT, id="settled as sent"),
        pytest.param(GAP, Settled.NOT_SENT, id="settled as not sent, from the gap"),
        pytest.param(DOUBT, Settled.NOT_SENT, id="settled as not sent, from doubt"),
    ],
)
def test_what_may_have_left_is_drafted_again_only_where_it_may_come_twice(
    stuck: Stuck, name: str, settled_as: Settled | None
) -> None:
    if settled_as is not None:
        settle(stuck, name, settled_as)
    assert refused(stuck.house, stuck.drafts[name]).code is Code.MAY_DUPLICATE
    assert row(stuck.house, redraft(stuck.house, stuck.drafts[name], may_duplicate=True)) == ("pending", None)


def test_a_claim_settled_as_not_sent_is_drafted_again_without_a_warning(stuck: Stuck) -> None:
    settle(stuck, CLAIMED, Settled.NOT_SENT)
    redraft(stuck.house, stuck.drafts[CLAIMED])


def test_a_claim_settled_as_not_sent_against_the_ledger_is_warned_of(tmp_path: Path) -> None:
    stuck = stuck_in(tmp_path, ahead=True)
    settle(stuck, CLAIMED_IN_LEDGER, Settled.NOT_SENT, at_once=True)
    assert refused(stuck.house, stuck.drafts[CLAIMED_IN_LEDGER]).code is Code.MAY_DUPLICATE


@pytest.mark.parametrize("ends", ["expired", "cancelled"])
def test_what_ended_in_a_restored_database_before_the_fence_is_warned_of(stuck: Stuck, ends: str) -> None:
    """The ledger knows that it left; the inbox, which has no ledger, expired it, or a person cancelled it."""
    house, old = stuck.house, stuck.drafts[APPROVED]
    left = Claim(old, new_id(house.clock()), "mail")
    write_in_ledger(house, entered(left, house.clock()))
    if ends == "expired":
        house.clock.advance(25 * HOUR)
        house.inbox()
    else:
        house.cancel(old)
    assert row(house, old)[0] == ends
    assert refused(house, old).code is Code.MAY_DUPLICATE


@pytest.mark.parametrize("missing", [None, "ledger", "grant.key"])
def test_what_the_relay_refused_in_the_gap_is_warned_of_where_the_ledger_cannot_be_asked(
    stuck: Stuck, missing: str | None
) -> None:
    house, old = stuck.house, stuck.drafts[GAP_REFUSED]
    settle(stuck, GAP_REFUSED, Settled.RELEASED)
    house.cancel(old)
    if missing is None:
        redraft(house, old)
        return
    for file in house.folder.rglob(missing):
        file.unlink()
    assert refused(house, old).code is Code.MAY_DUPLICATE


def test_what_the_relay_refused_and_evidence_proves_sent_is_warned_of(stuck: Stuck) -> None:
    house, old = stuck.house, stuck.drafts[GAP_REFUSED]
    settle(stuck, GAP_REFUSED, Settled.RELEASED)
    house.cancel(old)
    found = Evidence("delivery-report", True, "delivered: 250")
    at = house.clock()
    with writing(house, Room.INBOX) as writer:
        writer.run(lambda tx: insert_evidence(tx, found, evidence_id=new_id(at), draft_id=old, attempt_id=None, now=at))
    told = refused(house, old)
    assert told.code is Code.MAY_DUPLICATE
    assert "delivery-report" in told.message


def test_a_draft_that_was_altered_is_not_drafted_again(house: House) -> None:
    old = house.draft().id
    house.cancel(old)
    with house.as_thief() as thief:
        thief.execute("UPDATE messages SET octets = CAST(replace(octets, 'here it is', 'give it up') AS BLOB)")
    assert refused(house, old).code in {Code.DIGEST_MISMATCH, Code.ROW_UNREADABLE}


def test_without_the_draft_key_nothing_is_drafted_again(house: House) -> None:
    old = house.draft().id
    house.cancel(old)
    (house.folder / "keys" / "draft.key").unlink()
    assert isinstance(refused(house, old), ConfigError)


def test_an_agent_cannot_take_the_place_of_a_redraft(house: House) -> None:
    """What names a redraft is not for agents to choose."""
    old = house.draft(agent="sales-bot").id
    house.cancel(old)
    with drafter.open(house.settings, clock=house.clock) as room:
        wanted = Wanted(sender=SALES, to=(JANE,), subject="Else", text="Something else.", agent="sales-bot")
        with suppress(OutboxError):
            room.draft(wanted, idempotency_key=f"redraft:{old}")
    redraft(house, old)
