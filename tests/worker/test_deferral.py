"""What provably was not accepted is tried again, later and later, unless it was stopped or its time has passed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox.core.lifecycle import State
from tests.house import HOUR, JANE, SECOND, House
from tests.relay.scripted import Fin, Hold, Phase, Say, ScriptedRelay
from tests.worker.hand import actions, draining

LATER = {Phase.DOT: [Say(b"451 4.3.0 Later\r\n")]}
NO_ANSWER_YET: dict[str, list[Hold | Say | Fin]] = {
    "451": [Hold(), Say(b"451 4.3.0 Later\r\n")],
    "FIN": [Hold(), Fin()],
    "250": [Hold(), Say(b"250 2.1.0 Ok\r\n")],
}


def test_each_deferral_takes_the_next_pause_and_the_last_repeats(tmp_path: Path) -> None:
    with ScriptedRelay(LATER, {Phase.MAIL: [Fin()]}, LATER, LATER) as relay:
        house = House.build(tmp_path, relay)
        house.set("relay", retry="[60, 300]")
        draft = house.approved()
        for pause in (60, 300, 300, 300):
            house.drain()
            found = house.story(draft.id).draft
            assert found.state is State.APPROVED
            waits = (found.not_before or 0) - house.clock()
            assert pause * SECOND <= waits <= 1.1 * pause * SECOND
            house.clock.advance(waits - 1)
            tried = relay.connections
            house.drain()
            assert relay.connections == tried  # a microsecond early is early
            house.clock.advance(1)
        house.drain()
        assert house.story(draft.id).draft.state is State.COMPLETED
        assert len(relay.to(JANE)) == 1
        assert [one.outcome for one in house.story(draft.id).attempts].count("accepted") == 1


def test_what_was_deferred_together_does_not_come_back_together(tmp_path: Path) -> None:
    with ScriptedRelay(*[LATER] * 5) as relay:
        house = House.build(tmp_path, relay)
        house.set("relay", retry="[3600]")
        for number in range(5):
            house.approved(subject=f"Offer {number}")
        house.drain()
        moments = {draft.not_before for draft in house.drafts()}
        assert len(moments) == 5


def test_a_deferral_beyond_its_expiry_expires_and_is_not_sent(tmp_path: Path) -> None:
    with ScriptedRelay(LATER) as relay:
        house = House.build(tmp_path, relay)
        house.set("relay", retry='["2h"]')
        draft = house.approved(ttl=3600)
        house.drain()
        house.clock.advance(2 * HOUR)
        house.drain()
        found = house.story(draft.id).draft
        assert found.state is State.EXPIRED
        assert found.error is not None
        assert relay.to(JANE) == []


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[House, ScriptedRelay]]:
    """A relay that holds its answer to MAIL, and then gives the one that the test names."""
    with ScriptedRelay({Phase.MAIL: NO_ANSWER_YET[request.param]}) as relay:
        yield House.build(tmp_path, relay), relay


@pytest.mark.parametrize("held", NO_ANSWER_YET, indirect=True)
def test_a_stop_that_is_asked_for_before_the_gap_holds_whatever_the_relay_says(
    held: tuple[House, ScriptedRelay],
) -> None:
    house, relay = held
    draft = house.approved()
    with draining(house):
        relay.wait_until_holding()
        assert house.cancel(draft.id).draft.state is State.EXECUTING
    found = house.story(draft.id)
    assert found.draft.state is State.CANCELLED
    assert found.attempts[0].outcome in {"not_sent", "refused_transient"}
    assert found.attempts[0].gap_at is None
    assert actions(house, draft.id)[-3:] == ["stop", "done", "cancel"]
    house.drain()
    assert relay.to(JANE) == []


@pytest.mark.parametrize("held", NO_ANSWER_YET, indirect=True)
def test_a_draft_whose_time_passes_before_the_gap_expires(held: tuple[House, ScriptedRelay]) -> None:
    house, relay = held
    draft = house.approved(ttl=3600)
    with draining(house):
        relay.wait_until_holding()
        house.clock.advance(HOUR)
    assert house.story(draft.id).draft.state is State.EXPIRED
    assert relay.to(JANE) == []


@pytest.mark.parametrize("held", NO_ANSWER_YET, indirect=True)
def test_a_draft_whose_grants_time_passes_before_the_gap_expires(held: tuple[House, ScriptedRelay]) -> None:
    house, relay = held
    house.set("approval", grant_ttl='"1h"')
    draft = house.approved(ttl=86400)
    with draining(house):
        relay.wait_until_holding()
        house.clock.advance(HOUR)
    house.clock.advance(10 * HOUR)
    house.drain()
    assert house.story(draft.id).draft.state is State.EXPIRED
    assert relay.to(JANE) == []


def test_a_stop_in_the_gap_comes_too_late_and_says_so(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Hold(), Say(b"451 4.3.0 Later\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        with draining(house):
            relay.wait_until_holding()
            assert house.cancel(draft.id).draft.state is State.EXECUTING
        assert house.story(draft.id).draft.state is State.CANCELLED  # the relay said no, so the stop holds after all
        house.drain()
        assert relay.to(JANE) == []


def test_a_draft_that_is_cancelled_while_it_waits_is_not_tried_again(tmp_path: Path) -> None:
    with ScriptedRelay(LATER) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        house.drain()
        assert house.cancel(draft.id).draft.state is State.CANCELLED
        house.clock.advance(HOUR)
        house.drain()
        assert relay.connections == 1  # the one that it was deferred after


def test_a_stop_after_an_acceptance_was_given_completes(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.QUIT: [Hold()]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        with draining(house):
            relay.wait_until_kept(1)
        assert house.story(draft.id).draft.state is State.COMPLETED
        assert len(relay.to(JANE)) == 1
