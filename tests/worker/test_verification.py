"""The last look before a connection: kinds, policy, approvers, grants and clocks as they are now."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from outbox.core.errors import TryLater
from outbox.core.lifecycle import State
from outbox.core.policy import NON_DELEGABLE
from tests.house import APPROVAL, FOUNDER, HOUR, JANE, SECOND, House
from tests.relay.recording import RecordingRelay
from tests.worker.hand import codes, grant, insert, signed_with

SPELLINGS = ["Force-Push-Shared", "force push shared", "ＦＯＲＣＥ_push_shared", "force_push\u200b_shared"]  # noqa: RUF001


def _assert_ended(house: House, draft_id: str, state: State, code: str) -> None:
    """It ended without a connection for it: every one there was brought an alert."""
    found = house.story(draft_id)
    assert found.draft.state is state
    assert (found.draft.error or ("",))[0] == code
    assert [(one.outcome, one.gap_at) for one in found.attempts] == [("not_sent", None)]
    assert codes(house) == [code]
    told = house.relay.to(FOUNDER)
    assert len(told) == 1
    assert draft_id.encode() in told[0].octets
    assert house.relay.connections == len(house.relay.messages) == 1


@pytest.mark.parametrize("kind", [*sorted(NON_DELEGABLE), *SPELLINGS])
def test_a_non_delegable_kind_is_refused_though_signed_and_granted(house: House, kind: str) -> None:
    draft_id = insert(house, signed_with(house.settings.draft_ring(), house, kind=kind))
    house.approve(draft_id)
    house.drain()
    _assert_ended(house, draft_id, State.REFUSED, "non_delegable_kind")


def test_a_refusal_of_a_kind_makes_no_connection(house: House) -> None:
    house.set("thermal.system", count="1")
    house.draft()
    house.inbox()
    house.drain()  # the request takes the only place, so that the alert has to wait
    connections = house.relay.connections
    draft_id = insert(house, signed_with(house.settings.draft_ring(), house, kind="venture_kill"))
    house.approve(draft_id)
    with pytest.raises(TryLater):
        house.drain()
    assert house.story(draft_id).draft.state is State.REFUSED
    assert house.relay.connections == connections


def test_an_unknown_kind_fails(house: House) -> None:
    draft_id = insert(house, signed_with(house.settings.draft_ring(), house, kind="telegram"))
    house.approve(draft_id)
    house.drain()
    _assert_ended(house, draft_id, State.FAILED, "unknown_kind")


CHANGES: dict[str, tuple[Callable[[House], None], State, str]] = {
    "the kind is refused now": (
        lambda house: house.set("policy", refuse_kinds='["EMAIL"]'), State.REFUSED, "non_delegable_kind"
    ),
    "the approver is gone": (
        lambda house: house.set("approval", approvers='["other@acme.example"]'), State.FAILED, "grant_invalid"
    ),
    "the domain is gone": (
        lambda house: house.set("policy", from_domains='["acme.test"]'), State.FAILED, "from_domain"
    ),
    "fewer recipients are allowed": (
        lambda house: house.set("policy", max_recipients="1"), State.FAILED, "too_many_recipients"
    ),
    "a shorter life is allowed": (
        lambda house: house.set("policy", max_ttl='"1h"', default_ttl='"1h"'), State.FAILED, "ttl_out_of_range"
    ),
    "the recipient approves now": (
        lambda house: house.set("approval", address=json.dumps(JANE)), State.FAILED, "approval_address"
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_after_the_approval_counts(house: House, change: str) -> None:
    changed, state, code = CHANGES[change]
    draft = house.approved(to=(JANE, "jack@customer.example"))
    changed(house)
    house.drain()
    assert house.relay.to(JANE) == []
    found = house.story(draft.id).draft
    assert found.state is state
    assert (found.error or ("",))[0] == code


def test_an_approver_is_the_same_in_other_letters(house: House) -> None:
    draft = house.approved()
    house.set("approval", approvers=json.dumps([FOUNDER.upper().replace("ACME.EXAMPLE", "acme.example")]))
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED


def test_a_grant_that_ran_out_expires_its_draft(house: House) -> None:
    house.set("approval", grant_ttl='"1h"')
    draft = house.approved(ttl=86400)
    house.clock.advance(HOUR)
    house.drain()
    assert house.story(draft.id).draft.state is State.EXPIRED
    assert house.story(draft.id).attempts == ()
    assert house.relay.to(JANE) == []


def test_a_grant_is_good_to_its_last_microsecond(house: House) -> None:
    house.set("approval", grant_ttl='"1h"')
    draft = house.approved(ttl=86400)
    house.clock.advance(HOUR - 1)
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED


@pytest.mark.parametrize(("ahead", "state"), [(299, State.COMPLETED), (300, State.COMPLETED), (301, State.FAILED)])
def test_a_draft_dated_more_than_five_minutes_ahead_is_refused(house: House, ahead: int, state: State) -> None:
    house.clock.advance(ahead * SECOND)
    draft = house.draft(ttl=86400)
    house.clock.advance(-ahead * SECOND)
    house.approve(draft.id)
    house.drain()
    found = house.story(draft.id).draft
    assert found.state is state
    assert found.error is None or found.error[0] == "dated_ahead"


def test_a_draft_signed_with_a_key_that_is_not_ours_fails(
    house: House, tmp_path_factory: pytest.TempPathFactory
) -> None:
    strangers = House.build(tmp_path_factory.mktemp("stranger"), house.relay).settings.draft_ring()
    draft_id = insert(house, signed_with(strangers, house))
    grant(house, draft_id)
    house.drain()
    _assert_ended(house, draft_id, State.FAILED, "signature_invalid")


def test_a_draft_signed_with_the_grant_key_fails(house: House) -> None:
    draft_id = insert(house, signed_with(house.settings.grant_ring(), house))
    grant(house, draft_id)
    house.drain()
    _assert_ended(house, draft_id, State.FAILED, "signature_invalid")


def test_a_draft_signed_with_an_older_key_of_the_ring_is_sent(house: House) -> None:
    draft = house.approved()
    older, newer = house.folder / "keys" / "draft.key", house.folder / "keys" / "newer.key"
    newer.write_bytes(bytes(range(32)))
    newer.chmod(0o600)
    house.set("keys", draft=json.dumps([str(newer), str(older)]))
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED


def test_a_draft_whose_key_was_taken_out_fails(house: House) -> None:
    draft = house.approved()
    newer = house.folder / "keys" / "newer.key"
    newer.write_bytes(bytes(range(32)))
    newer.chmod(0o600)
    house.set("keys", draft=json.dumps([str(newer)]))
    house.drain()
    assert house.story(draft.id).draft.error == (
        "signature_invalid",
        f"draft {draft.id}: no key of ours made its signature; it was not sent",
    )


@pytest.mark.parametrize("recipient", [JANE, APPROVAL, "founder@acme.example.evil.example"])
def test_a_system_draft_made_with_the_right_key_goes_to_approvers_and_operators_alone(
    house: House, relay: RecordingRelay, recipient: str
) -> None:
    forged = insert(house, signed_with(house.settings.grant_ring(), house, kind="system", recipient=recipient))
    house.drain()
    found = house.story(forged).draft
    assert found.state is State.FAILED
    assert (found.error or ("",))[0] == "system_recipient"
    assert relay.to(recipient) == []


def test_a_system_draft_made_with_the_draft_key_fails(house: House, relay: RecordingRelay) -> None:
    forged = insert(house, signed_with(house.settings.draft_ring(), house, kind="system", recipient=FOUNDER))
    house.drain()
    found = house.story(forged).draft
    assert found.state is State.FAILED
    assert (found.error or ("",))[0] == "signature_invalid"
    assert not any(b"Dear Jane" in sent.octets for sent in relay.messages)
