"""A receipt tells one draft's whole story; each part that was changed is found, by whoever can check that part."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outbox.core.errors import Code, DraftUnknown, VerificationFailed
from outbox.core.receipt import parse_receipt
from outbox.inbox.kept import why_unproven
from outbox.operator.receipt import make_receipt
from outbox.operator.receipt_check import Part, check_receipt
from outbox.operator.rings import Rings, held_rings
from tests.cli.shell import Shell
from tests.house import FOUNDER, JANE, SECOND, House
from tests.inbox.letters import token_of
from tests.inbox.signing import Signer, ed25519_key
from tests.inbox.zone import Zone
from tests.relay.recording import RecordingRelay

SIGNER = Signer("acme.example", "s1", ed25519_key())
NOBODY = Rings(None, None)
Json = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """A house that asked, was answered by a signed reply and sent; its receipt, and the token that it asked with."""

    house: House
    draft_id: str
    octets: bytes
    token: str

    @property
    def rings(self) -> Rings:
        return held_rings(self.house.settings)

    @property
    def said(self) -> Json:
        return copy.deepcopy(json.loads(self.octets))


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    with RecordingRelay() as relay, Zone() as zone:
        zone.publish(SIGNER.name, SIGNER.record())
        house = House.build(tmp_path_factory.mktemp("sent"), relay)
        draft = house.draft()
        request = house.ask(draft.id)
        house.set("approval", authenticity='"dkim"')
        house.set("dns", nameservers=f'["{zone.address}"]')
        house.clock.advance(SECOND)
        file = house.reply(request, "Ship it")
        file.write_bytes(SIGNER.sign(file.read_bytes()))
        house.inbox()
        house.drain()
        made = make_receipt(house.settings, draft.id, clock=house.clock)
        return Sent(house, draft.id, made.octets, token_of(request))


def check(octets: bytes | Json, rings: Rings = NOBODY) -> list[Part]:
    written = octets if isinstance(octets, bytes) else json.dumps(octets).encode()
    return check_receipt(written, rings, why_unproven)


def failed(parts: list[Part]) -> set[tuple[str, str]]:
    return {(part.name, part.by) for part in parts if part.passed is False}


def unchecked(parts: list[Part]) -> set[tuple[str, str]]:
    return {(part.name, part.by) for part in parts if part.passed is None}


ANYONES = {(name, "anyone") for name in ("draft", "shown 1", "grant 1", "reply 1", "sent 1", "story")}
KEYS = {(name, "keys") for name in ("whole", "draft", "shown 1", "grant 1", "reply 1", "journal")}


def test_who_holds_the_keys_can_check_every_part(sent: Sent) -> None:
    parts = check(sent.octets, sent.rings)
    assert {(part.name, part.by) for part in parts} == ANYONES | KEYS
    assert [part for part in parts if part.passed is not True] == []


def test_who_holds_no_key_can_check_what_anyone_can_and_is_told_what_not(sent: Sent) -> None:
    parts = check(sent.octets)
    assert {(part.name, part.by) for part in parts if part.passed} == ANYONES
    assert unchecked(parts) == KEYS


def test_a_receipt_tells_what_was_drafted_shown_approved_sent_and_answered(sent: Sent) -> None:
    said = sent.said
    (shown,), (grant,), (attempt,) = said["shown"], said["approved"], said["sent"]
    assert (said["state"], said["draft"]["to"], said["draft"]["id"]) == ("completed", [JANE], sent.draft_id)
    assert (shown["approver"], shown["carrier"]["kind"], shown["spent_at"] is not None) == (FOUNDER, "system", True)
    assert (grant["channel"], grant["reply"]["sender"], grant["reply"]["selector"]) == ("reply", FOUNDER, "s1")
    assert (attempt["outcome"], attempt["code"], attempt["date_line"][:5]) == ("accepted", 250, "Date:")
    (left,) = sent.house.relay.to(JANE)
    receipt = parse_receipt(sent.octets)
    assert str(receipt.sent[0].date_line).encode() + receipt.draft.message == left.octets
    assert [row["action"] for row in said["journal"]][-4:] == ["claim", "gap", "done", "complete"]


def test_a_token_stands_in_the_reply_that_spent_it_and_nowhere_else(sent: Sent) -> None:
    said = sent.said
    reply = parse_receipt(sent.octets).approved[0].reply
    assert reply is not None
    assert reply.octets is not None
    assert sent.token.encode() in reply.octets
    said["approved"][0]["reply"]["octets"] = None
    shown = parse_receipt(json.dumps(said).encode()).shown[0].carrier
    assert sent.token.encode() not in shown.message
    assert sent.token not in json.dumps(said)


def _set(*path: str | int, to: object) -> Callable[[Json], None]:
    def change(said: Json) -> None:
        inner: Any = said
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = to

    return change


# What is changed in a receipt, and who finds it: the MAC over the whole finds all of it.
CHANGES: dict[str, tuple[Callable[[Json], None], set[tuple[str, str]]]] = {
    "recipient": (_set("draft", "to", to=["eve@evil.example"]), {("draft", "anyone")}),
    "message": (_set("draft", "message", to="SGVsbG8NCg=="), {("draft", "anyone"), ("sent 1", "anyone")}),
    "canonical text": (_set("draft", "canonical", to="{}"), {("draft", "anyone")}),
    "draft's signature": (_set("draft", "signature", to="00" * 32), {("draft", "keys")}),
    "what was shown": (_set("shown", 0, "carrier", "message", to="SGVsbG8NCg=="), {("shown 1", "anyone")}),
    "digest that was shown": (_set("shown", 0, "digest", to="00" * 32), {("shown 1", "anyone"), ("reply 1", "keys")}),
    "who was asked": (
        _set("shown", 0, "approver", to="eve@evil.example"),
        {("shown 1", "anyone"), ("reply 1", "anyone"), ("reply 1", "keys")},
    ),
    "who granted": (
        _set("approved", 0, "approver", to="eve@evil.example"),
        {("grant 1", "anyone"), ("grant 1", "keys"), ("reply 1", "anyone"), ("reply 1", "keys")},
    ),
    "digest that was granted": (
        _set("approved", 0, "digest", to="00" * 32),
        {("grant 1", "anyone"), ("grant 1", "keys"), ("sent 1", "anyone")},
    ),
    "grant's signature": (_set("approved", 0, "signature", to="00" * 32), {("grant 1", "keys")}),
    "no grant": (_set("approved", to=[]), {("sent 1", "anyone")}),
    "grant's time": (
        _set("approved", 0, "expires_at", to=1),
        {("grant 1", "anyone"), ("grant 1", "keys"), ("sent 1", "anyone")},
    ),
    "reply": (
        _set("approved", 0, "reply", "octets", to="RnJvbTogYUB4LmV4YW1wbGUNCg0KU2hpcCBpdA=="),
        {("reply 1", "anyone"), ("reply 1", "keys")},
    ),
    "key record": (_set("approved", 0, "reply", "key_record", to="v=DKIM1; p="), {("reply 1", "anyone")}),
    "selector": (_set("approved", 0, "reply", "selector", to="s9"), {("reply 1", "anyone")}),
    "Date line": (_set("sent", 0, "date_line", to="Date: Mon, 01 Jan 2024 00:00:00 +0000\r\n"), {("sent 1", "anyone")}),
    "lines for a Date": (
        _set("sent", 0, "date_line", to="Date: x\r\nBcc: e@evil.example\r\n"),
        {("sent 1", "anyone")},
    ),
    "wire digest": (_set("sent", 0, "wire_digest", to="00" * 32), {("sent 1", "anyone"), ("story", "anyone")}),
    "outcome": (_set("sent", 0, "outcome", to="in_doubt"), {("story", "anyone")}),
    "state": (_set("state", to="cancelled"), {("story", "anyone")}),
    "journal row": (_set("journal", 1, "at", to=1), {("journal", "keys")}),
    "row before": (_set("journal", 1, "previous", to="00" * 32), {("journal", "keys")}),
    "queue id": (_set("sent", 0, "queue_id", to="ANOTHER"), set()),
    "note": (_set("made_at", to=1), set()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_in_a_receipt_is_found_by_who_can_check_it(sent: Sent, what: str) -> None:
    change, found = CHANGES[what]
    said = sent.said
    change(said)
    assert failed(check(said, sent.rings)) == found | {("whole", "keys")}
    assert failed(check(said)) == {part for part in found if part[1] == "anyone"}


def test_rows_of_another_draft_are_no_part_of_it(sent: Sent) -> None:
    said = sent.said
    said["journal"][0]["draft"] = "another"
    assert ("story", "anyone") in failed(check(said))


UNREADABLE = {
    "empty": b"",
    "no JSON": b"\xff\xfe",
    "a list": b"[]",
    "no fields": b"{}",
    "depth": b"[" * 100_000,
    "a long number": b'{"receipt":' + b"9" * 10_000 + b"}",
    "a key twice": b'{"receipt":1,"receipt":1}',
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_is_no_receipt_is_refused(what: str) -> None:
    with pytest.raises(VerificationFailed) as refused:
        check(UNREADABLE[what])
    assert refused.value.code is Code.RECEIPT_INVALID


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("receipt",), 2),
        (("more",), 1),
        (("draft", "message"), "not base64!"),
        (("draft", "digest"), "xyz"),
        (("draft", "created_at"), "1"),
        (("approved", 0, "channel"), "telepathy"),
    ],
    ids=str,
)
def test_a_receipt_with_a_value_of_another_kind_is_refused(
    sent: Sent, path: tuple[str | int, ...], value: object
) -> None:
    said = sent.said
    _set(*path, to=value)(said)
    with pytest.raises(VerificationFailed):
        check(said)


def test_a_number_that_no_json_of_ours_holds_fails_the_whole(sent: Sent) -> None:
    said = sent.said
    said["draft"]["created_at"] = 2**70
    assert failed(check(said)) == {("whole", "anyone")}


def test_an_approval_at_the_terminal_has_no_reply_and_says_so(sent: Sent) -> None:
    draft = sent.house.approved(subject="At the terminal")
    parts = check(make_receipt(sent.house.settings, draft.id).octets, sent.rings)
    assert failed(parts) == set()
    (reply,) = [part for part in parts if part.name == "reply 1"]
    assert (reply.passed, reply.why) == (None, "it was given at the terminal: there is no reply")


def test_a_draft_that_nobody_approved_yet_has_a_receipt(sent: Sent) -> None:
    made = make_receipt(sent.house.settings, sent.house.draft(subject="Waiting").id)
    parts = check(made.octets, sent.rings)
    assert {part.name for part in parts} == {"whole", "draft", "story", "journal"}
    assert all(part.passed for part in parts)


def test_a_request_of_ours_has_a_receipt_without_its_token(sent: Sent) -> None:
    carrier = sent.said["shown"][0]["carrier"]["id"]
    made = make_receipt(sent.house.settings, carrier)
    assert sent.token.encode() not in made.octets
    parts = check(made.octets, sent.rings)
    assert (failed(parts), unchecked(parts)) == (set(), {("sent 1", "anyone")})


def test_there_is_no_receipt_of_what_is_not_there(sent: Sent) -> None:
    with pytest.raises(DraftUnknown):
        make_receipt(sent.house.settings, "none")


def test_without_the_grant_key_a_receipt_is_nobody_s_word(sent: Sent) -> None:
    key = sent.house.folder / "keys" / "grant.key"
    octets = key.read_bytes()
    key.unlink()
    try:
        made = make_receipt(sent.house.settings, sent.draft_id)
    finally:
        key.write_bytes(octets)
        key.chmod(0o600)
    assert made.key_id is None
    parts = check(made.octets, sent.rings)
    assert (failed(parts), unchecked(parts)) == (set(), {("whole", "keys")})


# The commands


def test_the_command_writes_a_file_for_its_user_alone_and_checks_it_anywhere(sent: Sent, tmp_path: Path) -> None:
    settings = ("--config", sent.house.folder / "outbox.toml")
    here = Shell(tmp_path)
    done = here.run(*settings, "receipt", sent.draft_id, "--json")
    file = tmp_path / f"{sent.draft_id}.receipt.json"
    assert (done.data["file"], file.stat().st_mode & 0o777) == (file.name, 0o600)
    assert here.fails(2, *settings, "receipt", sent.draft_id)["error"] == "file_exists"
    for where, passed in ((settings, len(ANYONES | KEYS)), ((), len(ANYONES))):
        parts = here.run(*where, "receipt", "verify", file.name, "--json").lines
        assert sum(part["passed"] is True for part in parts) == passed
    file.write_bytes(file.read_bytes().replace(JANE.encode(), b"eve@evil.example"))
    broken = here.run("receipt", "verify", file.name)
    assert broken.code == 1
    assert "\nFAILED       anyone     draft " in broken.out
    assert "are not what they say" in broken.err


def test_the_command_writes_to_stdout_where_it_is_told_to(sent: Sent, tmp_path: Path) -> None:
    done = Shell(tmp_path).run("--config", sent.house.folder / "outbox.toml", "receipt", "--out", "-", sent.draft_id)
    assert parse_receipt(done.out.encode()).draft.id == sent.draft_id
    assert list(tmp_path.iterdir()) == []
