"""A pause, in the database or by a switch: nothing is claimed, no gap is entered, and what waits waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from outbox import operator
from outbox.core.errors import Code, StateRefused, TryLater
from outbox.core.lifecycle import State
from tests.house import HOUR, JANE, House
from tests.relay.scripted import Hold, Keep, Phase, Say, ScriptedRelay
from tests.worker.hand import draining


def pause(house: House, reason: str = "a look at it") -> None:
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.pause(reason=reason)


def resume(house: House) -> None:
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.resume()


def throw_file(house: House) -> None:
    (house.settings.state_dir / "paused").touch()


def take_file(house: House) -> None:
    (house.settings.state_dir / "paused").unlink()


WAYS: dict[str, tuple[Callable[[House], None], Callable[[House], None]]] = {
    "in the database": (pause, resume),
    "by a file": (throw_file, take_file),
}


@pytest.mark.parametrize("way", WAYS)
def test_while_it_is_paused_nothing_is_claimed_and_afterwards_it_is_sent_once(house: House, way: str) -> None:
    begin, end = WAYS[way]
    house.drain()
    draft = house.approved()
    begin(house)
    for _ in range(2):
        with pytest.raises(TryLater) as refused:
            house.drain()
        assert refused.value.code is Code.PAUSED
    assert house.rows("SELECT count(*) FROM attempts") == [(0,)]
    assert house.relay.connections == 0
    end(house)
    house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED
    assert len(house.relay.to(JANE)) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_pause_before_the_gap_lets_nothing_leave(tmp_path: Path, way: str) -> None:
    begin, end = WAYS[way]
    with ScriptedRelay({Phase.DATA: [Hold(), Say(b"354 Go\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        with draining(house):
            relay.wait_until_holding()
            begin(house)
        found = house.story(draft.id)
        assert (found.draft.state, found.attempts[0].outcome) == (State.APPROVED, "not_sent")
        assert "paused" in str(found.attempts[0].text)
        assert relay.messages == []
        end(house)
        house.clock.advance(HOUR)
        house.drain()
        assert len(relay.to(JANE)) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_pause_in_the_gap_comes_too_late_and_what_was_heard_is_stored(tmp_path: Path, way: str) -> None:
    begin, _ = WAYS[way]
    with ScriptedRelay({Phase.DOT: [Keep(), Hold(), Say(b"250 2.0.0 Ok\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        with draining(house):
            relay.wait_until_holding()
            begin(house)
        assert house.story(draft.id).draft.state is State.COMPLETED
        assert len(relay.to(JANE)) == 1


def test_a_drain_with_nothing_due_does_not_mind_a_pause(house: House) -> None:
    pause(house)
    house.drain()


def test_requests_wait_too(house: House) -> None:
    pause(house)
    draft = house.draft()
    house.inbox()
    with pytest.raises(TryLater):
        house.drain()
    assert house.relay.messages == []
    resume(house)
    assert house.ask(draft.id)


def test_a_draft_that_runs_out_of_time_during_a_pause_expires(house: House) -> None:
    draft = house.approved(ttl=3600)
    pause(house)
    house.clock.advance(HOUR)
    with pytest.raises(TryLater):  # the operator's mail about it waits too
        house.drain()
    assert house.story(draft.id).draft.state is State.EXPIRED
    assert house.relay.messages == []


@pytest.mark.parametrize(("value", "paused"), [("1", True), ("no", True), ("", False)])
def test_the_environment_pauses_with_any_value(
    house: House, monkeypatch: pytest.MonkeyPatch, value: str, paused: bool
) -> None:
    house.approved()
    monkeypatch.setenv("OUTBOX_PAUSED", value)
    if paused:
        with pytest.raises(TryLater, match="OUTBOX_PAUSED"):
            house.drain()
    else:
        house.drain()
    assert len(house.relay.to(JANE)) == (0 if paused else 1)


@pytest.mark.parametrize("kind", ["a link that leads nowhere", "a folder"])
def test_whatever_has_the_files_name_pauses(house: House, kind: str) -> None:
    house.drain()
    house.approved()
    file = house.settings.state_dir / "paused"
    if kind == "a folder":
        file.mkdir()
    else:
        file.symlink_to("nowhere")
    with pytest.raises(TryLater, match="paused"):
        house.drain()
    assert house.relay.messages == []


def test_a_pause_is_made_once_and_ended_once_and_is_in_the_journal(house: House) -> None:
    pause(house, "the first reason")
    with pytest.raises(StateRefused, match="paused already"):
        pause(house, "another")
    assert house.rows("SELECT reason FROM pause") == [("the first reason",)]
    resume(house)
    with pytest.raises(StateRefused, match="not paused"):
        resume(house)
    told = house.rows("SELECT action FROM journal WHERE action IN ('pause', 'resume') ORDER BY rowid")
    assert told == [("pause",), ("resume",)]
    assert house.rows("SELECT paused_at, reason, paused_by FROM pause") == [(None, None, None)]


def test_a_pause_says_who_and_why_to_whoever_drains(house: House) -> None:
    house.approved()
    pause(house, "the price list is wrong")
    with pytest.raises(TryLater, match=r"the price list is wrong; `outbox resume` ends it"):
        house.drain()
