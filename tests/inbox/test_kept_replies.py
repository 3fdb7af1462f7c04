"""A reply that approved and is signed is kept with the key that was seen, where every token in it is spent by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox.core.receipt import KeptReply
from outbox.inbox.kept import why_unproven
from tests.house import APPROVAL, FOUNDER, SECOND
from tests.inbox.letters import Asked, token_of
from tests.inbox.signing import Signer, ed25519_key
from tests.inbox.zone import Zone

SIGNER = Signer("acme.example", "s1", ed25519_key())
OTHER_KEY = Signer("acme.example", "s1", ed25519_key("another"))


@pytest.fixture
def zone() -> Iterator[Zone]:
    with Zone() as started:
        started.publish(SIGNER.name, b"v=spf1 -all", SIGNER.record())
        yield started


@pytest.fixture
def proving(asked: Asked, zone: Zone) -> Asked:
    asked.house.set("approval", authenticity='"dkim"')
    asked.house.set("dns", nameservers=f'["{zone.address}"]')
    return asked


def write(asked: Asked, text: str, *, signer: Signer | None = SIGNER, **headers: str | None) -> bytes:
    """A signed reply in the mailbox; its octets."""
    asked.house.clock.advance(SECOND)
    file: Path = asked.house.reply(asked.request, text, **headers)  # type: ignore[arg-type]
    if signer is not None:
        file.write_bytes(signer.sign(file.read_bytes()))
    return file.read_bytes()


def kept(asked: Asked) -> list[tuple[object, ...]]:
    return asked.house.rows("SELECT octets, key_record FROM signed_replies")


def test_a_signed_reply_that_approved_is_kept_as_it_came_with_the_one_key_record(proving: Asked) -> None:
    octets = write(proving, "Ship it")
    proving.house.inbox()
    record = SIGNER.record().decode()
    assert kept(proving) == [(octets, record)]
    ((reply_id, detail),) = proving.house.rows(
        "SELECT reply_id, detail FROM proofs JOIN journal ON action = 'keep' AND draft_id = ?", proving.draft_id
    )
    assert json.loads(str(detail)) == {
        "reply": reply_id,
        "digest": hashlib.sha256(octets).hexdigest(),
        "key_record": hashlib.sha256(record.encode()).hexdigest(),
        "arrived_at": proving.house.clock.now,
    }


def test_every_token_that_its_approver_had_for_the_draft_is_spent_with_it(proving: Asked) -> None:
    """The request was asked again, as its first carrier seemed lost: both tokens can stand in his thread."""
    with proving.house.connection() as connection:
        connection.execute(
            "INSERT INTO requests SELECT randomblob(8), draft_id, approver, digest, carrier_id, 2, created_at, "
            "expires_at, NULL FROM requests WHERE draft_id = ?",
            (proving.draft_id,),
        )
    write(proving, "Ship it")
    proving.house.inbox()
    spent = proving.house.rows("SELECT spent_at IS NOT NULL FROM requests WHERE draft_id = ?", proving.draft_id)
    others = proving.house.rows("SELECT spent_at IS NOT NULL FROM requests WHERE draft_id = ?", proving.other_id)
    assert (spent, others) == ([(1,), (1,)], [(0,)])


@pytest.mark.parametrize("text", ["Reject: no", "Stop", "What is this?"])
def test_a_reply_that_approved_nothing_is_not_kept(proving: Asked, text: str) -> None:
    write(proving, text)
    proving.house.inbox()
    assert kept(proving) == []


def test_a_reply_that_came_too_late_is_not_kept(proving: Asked) -> None:
    octets = write(proving, "Ship it")
    proving.house.approve(proving.draft_id)
    proving.house.inbox()
    assert octets
    assert kept(proving) == []


def test_a_reply_without_a_signature_is_believed_where_the_settings_say_so_and_is_not_kept(asked: Asked) -> None:
    write(asked, "Ship it", signer=None)
    asked.house.inbox()
    assert asked.states()[0] == "approved"
    assert kept(asked) == []


@pytest.mark.parametrize("wrap", ["{}", "=?utf-8?q?{}?=", "<{}.x@acme.example>"], ids=["bare", "encoded", "in an id"])
@pytest.mark.parametrize("upper", [False, True], ids=["lower", "upper"])
def test_a_reply_that_shows_the_token_of_another_open_request_is_not_kept(
    proving: Asked, wrap: str, upper: bool
) -> None:
    """Somebody who reads the database could stop the other draft in the approver's name."""
    token = token_of(proving.other)
    said = wrap.format(token.upper() if upper else token)
    write(proving, f"Ship it\n\n-- \nsee {said[:30]}\n{said[30:]}")
    proving.house.inbox()
    assert proving.states()[0] == "approved"
    assert kept(proving) == []
    assert proving.house.rows("SELECT method FROM proofs") == [("dkim",)]


def test_the_token_of_a_request_that_has_ended_keeps_no_reply_from_being_kept(proving: Asked) -> None:
    proving.house.cancel(proving.other_id)
    write(proving, f"Ship it\n\n-- \nsee {token_of(proving.other)}")
    proving.house.inbox()
    assert len(kept(proving)) == 1


def test_a_reply_that_is_too_large_is_not_kept(proving: Asked) -> None:
    picture = "\n".join(["A" * 900] * 5000)
    parts = (
        f'Content-Type: multipart/mixed; boundary="b"\n\n--b\n\nShip it\n--b\nContent-Type: image/png\n'
        f'Content-Disposition: attachment; filename="p"\nContent-Transfer-Encoding: base64\n\n{picture}\n--b--\n'
    )
    proving.house.clock.advance(SECOND)
    proving.house.deliver(SIGNER.sign(proving.letter(parts.encode())))
    proving.house.inbox()
    assert proving.states()[0] == "approved", proving.house.replies()[-1].why
    assert kept(proving) == []


# Looked at again


@pytest.fixture
def again(proving: Asked) -> KeptReply:
    octets = write(proving, "Ship it")
    ((request_id,),) = proving.house.rows("SELECT id FROM requests WHERE draft_id = ?", proving.draft_id)
    assert isinstance(request_id, bytes)
    record = SIGNER.record().decode()
    now = proving.house.clock.now
    return KeptReply(octets, record, "acme.example", "s1", request_id, APPROVAL, now)


def changed(kept: KeptReply, **how: object) -> KeptReply:
    fields = {name: getattr(kept, name) for name in KeptReply.__slots__}
    return KeptReply(**(fields | how))  # type: ignore[arg-type]


def test_a_kept_reply_is_proved_without_dns_or_database(again: KeptReply, zone: Zone) -> None:
    assert why_unproven(again) is None
    assert zone.asked == []


CHANGES = {
    "its text": lambda kept: {"octets": kept.octets.replace(b"\nShip it\n", b"\nShip this\n")},
    "its author": lambda kept: {"octets": kept.octets.replace(FOUNDER.encode(), b"other@acme.example")},
    "two authors": lambda kept: {"octets": b"From: a@acme.example\n" + kept.octets},
    "its request": lambda _: {"request_id": bytes(8)},
    "the address": lambda _: {"approval_address": "someone@acme.example"},
    "the key": lambda _: {"key_record": OTHER_KEY.record().decode()},
    "no key": lambda _: {"key_record": ""},
    "the domain": lambda _: {"domain": "evil.example"},
    "the selector": lambda _: {"selector": "s2"},
    "its time": lambda kept: {"arrived_at": kept.arrived_at - 86400 * SECOND},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_kept_reply_of_which_anything_was_changed_proves_nothing(again: KeptReply, what: str) -> None:
    assert why_unproven(changed(again, **CHANGES[what](again)))  # type: ignore[no-untyped-call]
