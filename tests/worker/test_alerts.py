"""Whoever runs it is told: on stderr, in the state file and through the command first, then by mail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from outbox.core.errors import ConfigError
from outbox.core.lifecycle import State
from tests.house import FOUNDER, JANE, House
from tests.relay.recording import RecordingRelay
from tests.relay.scripted import Phase, Say, ScriptedRelay
from tests.worker.hand import alerts, codes, system_drafts


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
