"""Whoever runs it is told: on stderr, in the state file and through the command first, then by mail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from outbox.alerts import COOLDOWN, Alerts
from outbox.core.errors import Code, ConfigError, OutboxError
from outbox.core.lifecycle import Room, State
from tests.house import FOUNDER, HOUR, JANE, SECOND, House
from tests.relay.recording import RecordingRelay
from tests.relay.scripted import Phase, Say, ScriptedRelay
from tests.worker.hand import alerts, codes, system_drafts, writing


def _command(house: House, words: str) -> None:
    house.set("alerts", command=json.dumps(words))


def test_the_command_gets_the_text_on_its_standard_input(
    house: House, relay: RecordingRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = tmp_path / "told"
    _command(house, f"sh -c 'cat >> {told}'")
    relay.refuse[JANE] = "550 5.1.1 Nobody here"
    draft = house.approved()
    house.drain()
    assert "Nobody here" in told.read_text()
    assert draft.id in told.read_text()
    assert any("Nobody here" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("words", ["false", "/nowhere/to/be/found", "sh -c 'exec <&-; exit 3'"])
def test_a_command_that_fails_keeps_nothing_from_anybody(house: House, relay: RecordingRelay, words: str) -> None:
    _command(house, words)
    relay.refuse[JANE] = "550 5.1.1 Nobody here"
    house.approved()
    house.drain()
    assert codes(house) == ["relay_refused"]
    assert len(relay.to(FOUNDER)) == 1


def test_a_command_that_cannot_be_read_as_one_is_a_config_error(house: House) -> None:
    _command(house, "it's not closed")
    with pytest.raises(ConfigError):
        house.drain()


def test_the_state_file_is_json_with_code_message_draft_and_time(house: House, relay: RecordingRelay) -> None:
    relay.refuse[JANE] = "550 5.1.1 Nobody here"
    draft = house.approved()
    house.drain()
    (alert,) = alerts(house)
    assert alert == {
        "code": "relay_refused",
        "message": "the relay said 550 5.1.1 Nobody here",
        "draft_id": draft.id,
        "told": True,
        "at": house.clock(),
    }


@pytest.mark.parametrize(
    "words",
    [
        b"550 5.1.1 =?utf-8?q?a=0D=0ABcc:_evil@x.example?=\r\n",
        b"550 5.1.1 =?utf-8?b?AAAA?= =?nonsense?q?x?=\r\n",
        b"550 5.1.1 \xff\xfe\x00\x1b[31m\xe2\x80\xa8\r\n",
        "550 5.1.1 ungültig 🚫 \u202eevil\r\n".encode(),
        b"550-" + b"x" * 3000 + b"\r\n550 " + b"y" * 3000 + b"\r\n",
        b"550\r\n",
    ],
    ids=["an_encoded_line_break", "encoded_nonsense", "octets", "characters", "length", "nothing"],
)
def test_no_words_of_a_relay_stop_the_worker(tmp_path: Path, words: bytes) -> None:
    with ScriptedRelay({Phase.DOT: [Say(words)]}) as relay:
        house = House.build(tmp_path, relay)
        house.set("relay", lanes="1")
        refused, sent = house.approved(), house.approved(subject="Another")
        house.drain()
        assert house.story(refused.id).draft.state is State.FAILED
        assert house.story(sent.id).draft.state is State.COMPLETED
        assert codes(house) == ["relay_refused"]
        (told,) = relay.to(FOUNDER)
        assert b"\r\nBcc:" not in told.octets.split(b"\r\n\r\n")[0]


def test_a_refused_system_draft_is_told_of_but_makes_no_mail(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Say(b"550 5.7.1 Spam\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        house.draft()
        house.inbox()
        (request,) = system_drafts(house)
        house.drain()
        assert house.story(request).draft.state is State.FAILED
        assert codes(house) == ["relay_refused"]
        assert system_drafts(house) == [request]
        assert relay.messages == []


def test_a_system_draft_that_does_not_verify_is_told_of_but_makes_no_mail(house: House) -> None:
    house.draft()
    house.inbox()
    (request,) = system_drafts(house)
    with house.as_thief() as thief:
        thief.execute("UPDATE drafts SET subject = 'Something else' WHERE id = ?", (request,))
    house.drain()
    assert house.story(request).draft.state is State.FAILED
    assert codes(house) == ["digest_mismatch"]
    assert system_drafts(house) == [request]
    assert house.relay.messages == []


def test_a_system_draft_to_somebody_who_is_no_approver_any_more_makes_no_mail(house: House) -> None:
    house.draft()
    house.inbox()
    (request,) = system_drafts(house)
    house.set("approval", approvers='["other@acme.example"]')
    house.drain()
    assert house.story(request).draft.state is State.FAILED
    assert codes(house) == ["system_recipient"]
    assert system_drafts(house) == [request]


def test_the_body_and_the_password_are_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="outbox")
    with ScriptedRelay({Phase.DOT: [Say(b"550 5.7.1 Spam\r\n")]}, login=("sales", "correct horse")) as relay:
        house = House.build(tmp_path, relay)
        (tmp_path / "password").write_text("correct horse")
        (tmp_path / "password").chmod(0o600)
        house.set("relay", username='"sales"', password_file='"password"')
        house.approved(text="a body that nobody should read")
        house.drain()
    said = caplog.text + (tmp_path / "state" / "worker.json").read_text()
    assert "nobody should read" not in said
    assert "horse" not in said


# The same again


@contextmanager
def raising(house: House) -> Iterator[Alerts]:
    """The worker's alerts, as a worker that starts has them."""
    with writing(house, Room.WORKER) as writer:
        yield Alerts(house.settings, Room.WORKER, house.settings.grant_ring(), writer, house.clock)


def _state(house: House) -> dict[str, object]:
    return dict(json.loads((house.settings.state_dir / "worker.json").read_text()))


def test_the_same_is_told_once_an_hour(house: House, tmp_path: Path) -> None:
    _command(house, f"sh -c 'echo told >> {tmp_path / 'told'}'")
    with raising(house) as alerts_of_it:
        for _ in range(3):
            alerts_of_it.tell(Code.THERMAL, "it is hot")
        house.clock.advance(COOLDOWN - 1)
        alerts_of_it.tell(Code.THERMAL, "it is hot")
        assert len(system_drafts(house)) == 1
        house.clock.advance(1)
        alerts_of_it.tell(Code.THERMAL, "it is hot")
    assert len(system_drafts(house)) == 2
    assert (tmp_path / "told").read_text() == "told\n" * 2
    assert codes(house) == ["thermal", "thermal"]


def test_something_else_is_told_at_once(house: House) -> None:
    draft = house.draft().id
    with raising(house) as alerts_of_it:
        alerts_of_it.tell(Code.THERMAL, "it is hot")
        alerts_of_it.tell(Code.THERMAL, "it is hotter")
        alerts_of_it.tell(Code.WORKER_DEAD, "it is hot")
        alerts_of_it.tell(Code.THERMAL, "it is hot", draft_id=draft)
    assert len(system_drafts(house)) == 4


def test_of_one_draft_the_same_code_is_told_once_whatever_the_words(house: House) -> None:
    first, second = house.draft().id, house.draft().id
    with raising(house) as alerts_of_it:
        for draft_id, words in ((first, "one"), (first, "two"), (second, "one")):
            alerts_of_it.tell(Code.IN_DOUBT, words, draft_id=draft_id)
    assert [alert["draft_id"] for alert in alerts(house)] == [first, second]


def test_a_restart_within_the_hour_does_not_tell_the_same_again(house: House) -> None:
    """Also where the run between had nothing to tell."""
    for has_news in (True, False, True):
        with raising(house) as alerts_of_it:
            if has_news:
                alerts_of_it.tell(Code.THERMAL, "it is hot")
            else:
                alerts_of_it.state.write({"state": "0 being sent"})  # as the loop does each time round
    assert len(system_drafts(house)) == 1


def test_what_lasts_is_open_until_it_is_over(house: House) -> None:
    with raising(house) as alerts_of_it:
        alerts_of_it.tell(Code.CIRCUIT_OPEN, "the login was refused", lasts=True)
        alerts_of_it.tell(Code.THERMAL, "it is hot")
        assert _state(house)["open"] == [{"code": "circuit_open", "message": "the login was refused"}]
        house.clock.advance(12 * HOUR)
        alerts_of_it.over(Code.THERMAL)
        assert _state(house)["open"] == [{"code": "circuit_open", "message": "the login was refused"}]
        alerts_of_it.over(Code.CIRCUIT_OPEN)
    assert _state(house)["open"] == []
    assert codes(house) == ["circuit_open", "thermal"]


def test_what_a_dead_worker_said_to_be_open_is_for_its_successor_to_find_out(house: House) -> None:
    with raising(house) as alerts_of_it:
        alerts_of_it.tell(Code.CIRCUIT_OPEN, "the login was refused", lasts=True)
    house.drain()
    assert not _state(house).get("open")


def test_an_alert_of_the_future_silences_nothing_for_ever(house: House) -> None:
    """A clock that was ahead, or a hand in the state file."""
    house.clock.advance(48 * HOUR)
    with raising(house) as alerts_of_it:
        alerts_of_it.tell(Code.THERMAL, "it is hot")
    house.clock.advance(-48 * HOUR + SECOND)
    with raising(house) as alerts_of_it:
        alerts_of_it.tell(Code.THERMAL, "it is hot")
    assert len(system_drafts(house)) == 2


STRANGE = [
    "[5]",
    "5",
    '"worker"',
    "{}",
    '[{"code": "thermal"}]',
    '[{"code": "thermal", "message": "it is hot", "draft_id": null, "at": "yesterday"}]',
    '[{"code": "thermal", "message": "it is hot", "draft_id": null, "at": null}]',
]


def test_a_state_file_written_by_a_stranger_stops_no_alert(house: House) -> None:
    for number, earlier in enumerate(STRANGE, start=1):
        (house.settings.state_dir / "worker.json").write_text(f'{{"alerts": {earlier}}}')
        with raising(house) as alerts_of_it:
            alerts_of_it.tell(Code.THERMAL, "it is hot")
        assert len(system_drafts(house)) == number, earlier


def test_only_the_last_are_kept(house: House) -> None:
    with raising(house) as alerts_of_it:
        for number in range(25):
            alerts_of_it.tell(Code.THERMAL, f"it is {number} degrees", by_mail=False)
    assert [alert["message"] for alert in alerts(house)] == [f"it is {number} degrees" for number in range(5, 25)]


def test_a_state_file_that_cannot_be_written_keeps_nothing_from_anybody(house: House) -> None:
    (house.settings.state_dir / "worker.json").mkdir()
    with raising(house) as alerts_of_it, suppress(OutboxError):
        alerts_of_it.tell(Code.THERMAL, "it is hot")
    assert len(system_drafts(house)) == 1
