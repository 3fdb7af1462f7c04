"""Where the relay would refuse every draft, none is burnt: the circuit opens, one alert is raised, drafts wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.core.errors import Code, Unavailable
from outbox.core.lifecycle import State
from tests.house import HOUR, JANE, House
from tests.relay.certificate import Certificate
from tests.relay.scripted import Phase, Rst, Say, ScriptedRelay
from tests.worker.hand import codes, ended, on_wall_clock, start_worker

DRAFTS = 8
LANES = 3


def _house(tmp_path: Path, relay: ScriptedRelay, password: str = "wrong") -> tuple[House, list[str]]:
    house = House.build(tmp_path, relay)
    (tmp_path / "password").write_text(password)
    (tmp_path / "password").chmod(0o600)
    house.set("relay", lanes=str(LANES), username='"sales"', password_file='"password"')
    on_wall_clock(house)
    return house, [house.approved(subject=f"Offer {n}").id for n in range(DRAFTS)]


def _assert_all_wait(house: House, drafts: list[str]) -> None:
    assert [house.story(draft).draft.state for draft in drafts] == [State.APPROVED] * DRAFTS
    assert codes(house) == ["circuit_open"]
    (attempts,) = house.rows("SELECT count(*) FROM attempts WHERE gate = 'mail'")
    assert 1 <= int(str(attempts[0])) <= LANES


def test_a_refused_login_burns_no_draft_and_is_told_of_once(tmp_path: Path) -> None:
    with ScriptedRelay(login=("sales", "right")) as relay:
        house, drafts = _house(tmp_path, relay)
        with pytest.raises(Unavailable) as refused:
            house.drain()
        assert refused.value.code is Code.CIRCUIT_OPEN
        _assert_all_wait(house, drafts)
        assert relay.messages == []


def test_a_drain_against_a_refused_login_exits_69(tmp_path: Path) -> None:
    with ScriptedRelay(login=("sales", "right")) as relay:
        house, drafts = _house(tmp_path, relay)
        code, said = ended(start_worker(house, "--drain"))
        assert code == 69, said
        _assert_all_wait(house, drafts)
        assert "wrong" not in said


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_bad_certificate_burns_no_draft_and_no_password(
    tmp_path: Path, certificate: Certificate, security: str
) -> None:
    tls = certificate.server()
    with ScriptedRelay(tls=tls, implicit_tls=security == "tls", login=("sales", "right")) as relay:
        house, drafts = _house(tmp_path, relay, "right")
        house.set("relay", security=f'"{security}"')
        code, said = ended(start_worker(house, "--drain"))
        assert code == 69, said
        _assert_all_wait(house, drafts)
        relay.wait_until_over()
        assert all("AUTH" not in seen.verbs for seen in relay.seen)


def test_a_stripped_starttls_burns_no_draft_and_no_password(tmp_path: Path) -> None:
    with ScriptedRelay(login=("sales", "right")) as relay:
        house, drafts = _house(tmp_path, relay, "right")
        house.set("relay", security='"starttls"')
        with pytest.raises(Unavailable):
            house.drain()
        _assert_all_wait(house, drafts)
        relay.wait_until_over()
        assert all("AUTH" not in seen.verbs for seen in relay.seen)


def test_they_leave_once_the_login_is_right(tmp_path: Path) -> None:
    with ScriptedRelay(login=("sales", "right")) as relay:
        house, drafts = _house(tmp_path, relay)
        with pytest.raises(Unavailable):
            house.drain()
        (tmp_path / "password").write_text("right")
        house.clock.advance(HOUR)
        house.drain()
        assert [house.story(draft).draft.state for draft in drafts] == [State.COMPLETED] * DRAFTS
        assert len(relay.to(JANE)) == DRAFTS


@pytest.mark.parametrize(
    "actions",
    [[Say(b"454 4.7.0 Temporary authentication failure\r\n")], [Rst()]],
    ids=["454", "RST"],
)
def test_a_login_that_fails_for_now_opens_no_circuit(tmp_path: Path, actions: list[Say | Rst]) -> None:
    with ScriptedRelay(then={Phase.AUTH: actions}, login=("sales", "wrong")) as relay:
        house, drafts = _house(tmp_path, relay)
        house.drain()
        assert [house.story(draft).draft.state for draft in drafts] == [State.APPROVED] * DRAFTS
        assert codes(house) == []
        assert relay.connections == DRAFTS


def test_a_relay_that_is_dead_defers_and_the_drain_exits_0(tmp_path: Path) -> None:
    with ScriptedRelay() as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        draft = house.approved()
    code, said = ended(start_worker(house, "--drain"))
    assert code == 0, said
    found = house.story(draft.id)
    assert found.draft.state is State.APPROVED
    assert found.draft.not_before is not None
    assert found.draft.not_before > house.clock()
    assert found.attempts[0].outcome == "not_sent"
