"""What may have been sent stays in front of the operator, and nobody sends it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.core.lifecycle import State
from tests.house import FOUNDER, HOUR, JANE, House
from tests.relay.scripted import Fin, Keep, Phase, Rst, Say, ScriptedRelay
from tests.worker.hand import alerts, codes, system_drafts

KEPT_AND_SILENT = {Phase.DOT: [Keep(), Fin()]}


def test_a_draft_in_doubt_is_never_claimed_again(tmp_path: Path) -> None:
    with ScriptedRelay(KEPT_AND_SILENT) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        for _ in range(3):
            house.drain()
            house.clock.advance(12 * HOUR)
        assert house.story(draft.id).draft.state is State.EXECUTING
        assert len(house.story(draft.id).attempts) == 1
        assert len(relay.to(JANE)) == 1


def test_a_draft_in_doubt_is_told_of_once_by_mail_too(tmp_path: Path) -> None:
    with ScriptedRelay(KEPT_AND_SILENT) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        house.drain()
        house.drain()
        (alert,) = alerts(house)
        assert (alert["code"], alert["draft_id"]) == ("in_doubt", draft.id)
        (told,) = relay.to(FOUNDER)
        assert draft.id.encode() in told.octets


def test_a_draft_in_doubt_cannot_be_cancelled_away(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Rst()]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        house.drain()
        assert house.cancel(draft.id).draft.state is State.EXECUTING
        house.drain()
        assert house.story(draft.id).draft.state is State.EXECUTING


@pytest.mark.parametrize(
    "script",
    [KEPT_AND_SILENT, {Phase.DOT: [Rst()]}, {Phase.DOT: [Keep(), Say(b"what?\r\n")]}],
    ids=["kept", "reset", "garbage"],
)
def test_a_system_draft_in_doubt_fails_by_itself_and_makes_no_mail(
    tmp_path: Path, script: dict[Phase, list[Keep | Fin | Rst | Say]]
) -> None:
    with ScriptedRelay(script) as relay:
        house = House.build(tmp_path, relay)
        house.draft()
        house.inbox()
        (request,) = system_drafts(house)
        house.drain()
        found = house.story(request).draft
        assert found.state is State.FAILED
        assert (found.error or ("",))[0] == "in_doubt"
        assert system_drafts(house) == [request]
        assert codes(house) == ["in_doubt"]


def test_a_request_in_doubt_is_asked_again_at_most_three_times(tmp_path: Path) -> None:
    with ScriptedRelay(then={Phase.DOT: [Rst()]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.draft()
        for _ in range(5):
            house.inbox()
            house.drain()
        assert len(system_drafts(house)) == 3
        assert house.story(draft.id).draft.state is State.PENDING
