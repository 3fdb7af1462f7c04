"""The thermal cutout: exact, shared, not forgotten at a restart, and apart from the outbox's own mail."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.core.errors import Code, TryLater
from outbox.core.lifecycle import State
from tests.house import FOUNDER, HOUR, JANE, SECOND, House
from tests.relay.scripted import Fin, Hold, Phase, Say, ScriptedRelay
from tests.worker.hand import codes, ended, on_wall_clock, start_worker, system_drafts

pytestmark = pytest.mark.both

LIMITS = {"count": "3", "window": '"15m"', "cooldown": '"5m"'}


def _hot(house: House, drafts: int) -> list[str]:
    """A house that sends 3 in 15 minutes, with drafts that wait."""
    house.set("thermal", **LIMITS)
    return [house.approved(subject=f"Offer {n}").id for n in range(drafts)]


def _drain_until_hot(house: House) -> None:
    with pytest.raises(TryLater) as refused:
        house.drain()
    assert refused.value.code is Code.THERMAL


def test_exactly_so_many_leave_and_the_rest_wait(house: House) -> None:
    drafts = _hot(house, 5)
    _drain_until_hot(house)
    assert len(house.relay.to(JANE)) == 3
    states = [house.story(draft).draft.state for draft in drafts]
    assert (states.count(State.COMPLETED), states.count(State.APPROVED)) == (3, 2)


def test_as_many_as_there_are_places_trip_nothing(house: House) -> None:
    _hot(house, 3)
    house.drain()
    assert len(house.relay.to(JANE)) == 3
    assert codes(house) == []


def test_a_trip_survives_restarts_and_is_told_of_once(house: House) -> None:
    _hot(house, 5)
    for _ in range(3):
        _drain_until_hot(house)
        house.clock.advance(60 * SECOND)
    assert len(house.relay.to(JANE)) == 3
    assert codes(house) == ["thermal"]
    assert len(system_drafts(house)) == 1
    assert len(house.relay.to(FOUNDER)) == 1
    assert house.rows("SELECT count(*) FROM journal WHERE action = 'trip'") == [(1,)]


def test_the_outboxs_own_mail_still_leaves(house: House) -> None:
    _hot(house, 4)
    _drain_until_hot(house)
    waiting = house.draft(subject="Another")
    house.inbox()
    _drain_until_hot(house)
    assert house.request_for(waiting.id)
    assert len(house.relay.to(JANE)) == 3


def test_it_stays_open_until_the_cooldown_is_over_and_a_place_is_free(house: House) -> None:
    _hot(house, 5)
    _drain_until_hot(house)
    house.clock.advance(5 * 60 * SECOND)  # cool, but no place
    _drain_until_hot(house)
    assert len(house.relay.to(JANE)) == 3
    house.clock.advance(10 * 60 * SECOND)  # the window is over too
    house.drain()
    assert len(house.relay.to(JANE)) == 5
    assert house.rows("SELECT tripped_at, until FROM gate WHERE name = 'mail'") == [(None, None)]


def test_a_free_place_is_not_enough_while_the_cooldown_lasts(house: House) -> None:
    house.set("thermal", count="3", window='"1m"', cooldown='"5m"')
    for n in range(4):
        house.approved(subject=f"Offer {n}")
    _drain_until_hot(house)
    house.clock.advance(5 * 60 * SECOND - 1)
    _drain_until_hot(house)
    assert len(house.relay.to(JANE)) == 3
    house.clock.advance(1)
    house.drain()
    assert len(house.relay.to(JANE)) == 4


def test_it_trips_and_tells_again_after_it_has_closed(house: House) -> None:
    _hot(house, 3)
    house.drain()
    for n in range(4):
        house.approved(subject=f"More {n}")
    _drain_until_hot(house)
    house.clock.advance(15 * 60 * SECOND)
    _drain_until_hot(house)
    assert len(house.relay.to(JANE)) == 6
    assert house.rows("SELECT count(*) FROM journal WHERE action = 'trip'") == [(2,)]
    assert len(system_drafts(house)) == 2


def test_the_window_slides(house: House) -> None:
    house.set("thermal", count="2", window='"10m"', cooldown='"1s"')
    for minutes in (0, 6):
        house.clock.advance(minutes * 60 * SECOND)
        house.approved(subject=f"Offer {minutes}")
        house.drain()
    house.approved(subject="Third")
    _drain_until_hot(house)
    house.clock.advance(4 * 60 * SECOND)  # ten minutes after the first
    house.drain()
    assert len(house.relay.to(JANE)) == 3


def test_a_message_that_was_refused_at_the_dot_was_a_transmission(tmp_path: Path) -> None:
    with ScriptedRelay(then={Phase.DOT: [Say(b"451 4.3.0 Later\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        _hot(house, 4)
        _drain_until_hot(house)
        assert sum(seen.commands.count(b"RCPT TO:<%s>" % JANE.encode()) for seen in relay.seen) == 3


def test_what_ended_before_the_gap_takes_no_place(tmp_path: Path) -> None:
    with ScriptedRelay(*[{Phase.MAIL: [Fin()]}] * 6) as relay:
        house = House.build(tmp_path, relay)
        house.set("relay", lanes="1")
        _hot(house, 3)
        for _ in range(2):
            house.drain()
            house.clock.advance(HOUR)
        house.drain()
        assert len(relay.to(JANE)) == 3
        assert codes(house) == []


def test_a_drain_that_leaves_some_waiting_exits_75(house: House) -> None:
    on_wall_clock(house)
    _hot(house, 5)
    code, said = ended(start_worker(house, "--drain"))
    assert code == 75, said
    assert len(house.relay.to(JANE)) == 3
    code, said = ended(start_worker(house, "--drain"))
    assert code == 75, said
    assert len(house.relay.to(JANE)) == 3
    assert "thermal" in said


def test_two_workers_at_once_send_each_draft_once(house: House) -> None:
    on_wall_clock(house)
    house.set("thermal", count="1000")
    drafts = [house.approved(subject=f"Offer {n}") for n in range(25)]
    for code, said in [ended(process) for process in [start_worker(house, "--drain") for _ in range(2)]]:
        assert code == 0, said
    subjects = [octets.split(b"Subject: ")[1].split(b"\r\n")[0] for octets in _octets(house)]
    assert sorted(subjects) == sorted(draft.subject.encode() for draft in drafts)


def test_two_workers_at_once_share_one_limit(house: House) -> None:
    on_wall_clock(house)
    house.set("thermal", count="7")
    for n in range(20):
        house.approved(subject=f"Offer {n}")
    for code, said in [ended(process) for process in [start_worker(house, "--drain") for _ in range(2)]]:
        assert code == 75, said
    assert len(house.relay.to(JANE)) == 7
    assert len(set(_octets(house))) == 7
    assert house.rows("SELECT count(*) FROM journal WHERE action = 'trip'") == [(1,)]


def test_a_claim_that_another_worker_holds_takes_a_place(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.MAIL: [Hold(), Say(b"250 2.1.0 Ok\r\n")]}) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        house.set("relay", lanes="1")
        _hot(house, 6)
        first = start_worker(house, "--drain")
        relay.wait_until_holding()
        code, said = ended(start_worker(house, "--drain"))
        assert code == 75, said
        assert len(relay.to(JANE)) == 2
        relay.release()
        code, said = ended(first)
        assert code == 75, said
        assert len(relay.to(JANE)) == 3
        assert len(set(house.rows("SELECT worker_id FROM attempts WHERE gate = 'mail'"))) == 2


def _octets(house: House) -> list[bytes]:
    return [sent.octets for sent in house.relay.to(JANE)]
