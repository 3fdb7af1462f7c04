"""An approval counts only with proof of who wrote it, as the settings ask for it; reject and stop count without."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy

import pytest

from outbox import inbox
from outbox.core.errors import Code, TryLater
from tests.house import FOUNDER, SECOND, House
from tests.inbox.letters import Asked, text_of
from tests.inbox.signing import Signer, ed25519_key
from tests.inbox.zone import Zone

MINUTE = 60 * SECOND
SIGNER = Signer("acme.example", "s1", ed25519_key())
IMPOSTOR = Signer("acme.example", "s1", ed25519_key("impostor"))
STRANGER = Signer("evil.example", "s1", ed25519_key("stranger"))
PROVIDER = Signer("provider.example", "s7", ed25519_key("provider"))


@pytest.fixture
def zone() -> Iterator[Zone]:
    with Zone() as started:
        for signer in (SIGNER, STRANGER, PROVIDER):
            started.publish(signer.name, signer.record())
        yield started


@pytest.fixture
def proving(asked: Asked, zone: Zone) -> Asked:
    """Replies are believed if DKIM proves who wrote them."""
    asked.house.set("approval", authenticity='"dkim"')
    asked.house.set("dns", nameservers=f'["{zone.address}"]')
    return asked


def write(asked: Asked, text: str, signer: Signer | None = SIGNER, **headers: str | None) -> None:
    """A reply a second later, signed by the mail server of whoever."""
    asked.house.clock.advance(SECOND)
    file = asked.house.reply(asked.request, text, **headers)  # type: ignore[arg-type]
    if signer is not None:
        file.write_bytes(signer.sign(file.read_bytes()))


def reply(asked: Asked, text: str, signer: Signer | None = SIGNER, **headers: str | None) -> tuple[bool, str]:
    """The same, looked at: whether it counted, and why."""
    write(asked, text, signer, **headers)
    asked.house.inbox()
    last = asked.house.replies()[-1]
    return last.counted, last.why


def proofs(house: House) -> list[tuple[object, ...]]:
    return house.rows("SELECT approver, method, domain, selector FROM proofs")


def alerts(house: House, code: Code) -> int:
    """How many mails to the operator say so."""
    return sum(f"] {code}:" in one.subject for one in house.drafts(system=True))


# DKIM


def test_an_approval_that_its_domain_signed_counts_and_the_proof_is_kept(proving: Asked) -> None:
    assert reply(proving, "Ship it") == (True, f"{FOUNDER} approved it")
    assert proving.states() == ("approved", "pending")
    assert proofs(proving.house) == [(FOUNDER, "dkim", "acme.example", "s1")]


@pytest.mark.parametrize(
    ("signer", "why"),
    [
        (None, "it has no DKIM signature"),
        (STRANGER, "no signature of acme.example: d=evil.example"),
        (IMPOSTOR, "its signature by acme.example "),
    ],
    ids=["unsigned", "by another domain", "by another key"],
)
def test_an_approval_without_proof_changes_nothing_and_says_why(proving: Asked, signer: Signer, why: str) -> None:
    counted, said = reply(proving, "Ship it", signer)
    assert not counted
    assert said.startswith(f"authenticity: {why}")
    assert proving.states() == ("pending", "pending")
    assert (proving.grants(), proofs(proving.house)) == ([], [])
    proving.house.drain()
    (answer,) = [message_from_bytes(one.octets, policy=policy.default) for one in proving.house.relay.to(FOUNDER)]
    assert why in text_of(answer)  # type: ignore[arg-type]
    assert "answer from your own account" in text_of(answer)  # type: ignore[arg-type]


def test_an_approval_that_was_changed_on_its_way_changes_nothing(proving: Asked) -> None:
    write(proving, "Stop")
    (file,) = (proving.house.maildir / "new").iterdir()
    file.write_bytes(file.read_bytes().replace(b"\nStop\n", b"\nShip it\n", 1))
    proving.house.inbox()
    assert proving.states() == ("pending", "pending")


@pytest.mark.parametrize(("text", "state"), [("Reject: too dear", "rejected"), ("Stop", "cancelled")])
def test_refusing_needs_no_proof_and_asks_nobody_s_dns(proving: Asked, zone: Zone, text: str, state: str) -> None:
    assert reply(proving, text, None)[0]
    assert proving.states() == (state, "pending")
    assert (zone.asked, proofs(proving.house)) == ([], [])


@pytest.mark.parametrize(
    "headers",
    [
        {"From": "mallory@evil.example"},
        {"Auto_Submitted": "auto-replied"},
        {"Date": None},
        {"To": "approve@acme.example", "In_Reply_To": None},
    ],
    ids=str,
)
def test_nobody_s_dns_is_asked_for_what_would_not_count_anyway(
    proving: Asked, zone: Zone, headers: dict[str, str | None]
) -> None:
    write(proving, "Ship it", **headers)
    proving.house.inbox()
    assert zone.asked == []
    assert proving.states() == ("pending", "pending")


def test_the_signature_of_a_domain_that_is_listed_for_him_counts_and_of_no_other(proving: Asked) -> None:
    proving.house.set(f'approver."{FOUNDER}"', domains='["provider.example"]')
    assert not reply(proving, "Ship it", STRANGER)[0]
    assert reply(proving, "Ship it", PROVIDER)[0]
    assert proofs(proving.house) == [(FOUNDER, "dkim", "provider.example", "s7")]


def test_a_selector_that_is_not_one_of_his_proves_nothing(proving: Asked) -> None:
    proving.house.set(f'approver."{FOUNDER}"', selectors='["s2"]')
    assert not reply(proving, "Ship it")[0]
    proving.house.set(f'approver."{FOUNDER}"', selectors='["s1", "s2"]')
    assert reply(proving, "Ship it")[0]


def test_a_signed_reply_counts_once_under_whatever_message_id_it_comes_again(proving: Asked) -> None:
    """Yahoo and GMX do not sign it, so that whoever has the reply can change it."""
    file = proving.house.reply(proving.request, "Ship it, but later")
    fields = ("from", "to", "subject", "date", "in-reply-to", "content-type", "content-transfer-encoding")
    signed = SIGNER.sign(file.read_bytes(), fields=fields)
    file.write_bytes(signed)
    proving.house.inbox()
    proving.house.clock.advance(SECOND)
    proving.house.deliver(signed.replace(b"Message-ID: <", b"Message-ID: <again-"))
    proving.house.inbox()
    first, again = proving.house.replies()
    assert not first.why.startswith("replay")
    assert (again.counted, again.why) == (False, "replay: it came before, or is mail of ours")


# DNS that does not answer


def test_a_reply_waits_while_the_dns_is_down_and_counts_once_when_it_is_back(proving: Asked, zone: Zone) -> None:
    zone.fail(SIGNER.name)
    write(proving, "Ship it")
    for _ in range(2):  # a new room, that knows nothing of the first
        with pytest.raises(TryLater, match="1 reply waits") as later:
            proving.house.inbox()
        assert (later.value.exit_code, later.value.code) == (75, Code.REPLIES_WAIT)
        assert SIGNER.name in later.value.message
    assert (proving.house.replies(), proving.states()) == ([], ("pending", "pending"))
    zone.heal()
    proving.house.inbox()
    proving.house.inbox()
    assert [one.counted for one in proving.house.replies()] == [True]
    assert proving.grants() == [(proving.draft_id, FOUNDER)]


def test_one_room_asks_again_after_a_pause_and_tells_the_operator_after_the_fourth_try(
    proving: Asked, zone: Zone
) -> None:
    zone.fail(SIGNER.name)
    write(proving, "Ship it")
    tries = []
    with inbox.open(proving.house.settings, clock=proving.house.clock) as room:
        for _ in range(60):  # minutes
            before = len(zone.asked)
            with pytest.raises(TryLater):
                room.once()
            tries.append(len(zone.asked) > before)
            told = alerts(proving.house, Code.DNS_UNAVAILABLE)
            assert told == (1 if sum(tries) >= 4 else 0)
            proving.house.clock.advance(MINUTE)
        assert [minute for minute, tried in enumerate(tries) if tried] == [0, 1, 3, 8, 23, 38, 53]
        zone.heal()
        proving.house.clock.advance(15 * MINUTE)
        room.once()
    assert [one.counted for one in proving.house.replies()] == [True]


def test_a_reply_that_waits_holds_up_no_other(proving: Asked, zone: Zone) -> None:
    zone.fail(SIGNER.name)
    write(proving, "Ship it")
    proving.house.reply(proving.other, "Reject: no")
    with pytest.raises(TryLater):
        proving.house.inbox()
    assert proving.states() == ("pending", "rejected")


# What our own mail server found

STAMP = "mx1.acme.example; dmarc=pass header.from=acme.example"
ENTRY = "from out7.acme.example (out7.acme.example [203.0.113.7]) by mx1.acme.example (Postfix) with ESMTPS id 28107; "


@pytest.mark.parametrize(
    ("stamp", "counts"),
    [
        (STAMP, True),
        (STAMP.replace("mx1", "mx2"), True),
        (None, False),
        (STAMP.replace("dmarc=pass", "dmarc=fail"), False),
        (STAMP.replace("dmarc=pass", "auth=pass"), False),
        (STAMP.replace("mx1.acme", "mx1.evil"), False),
        (STAMP.replace("from=acme", "from=evil"), False),
    ],
    ids=["stamped", "by another of its hosts", "unstamped", "failed", "auth", "another server's", "another domain"],
)
def test_the_stamp_of_our_own_server_proves_it_and_nothing_else_does(
    asked: Asked, stamp: str | None, counts: bool
) -> None:
    asked.house.set("approval", authenticity='"authentication-results"', authserv_id='"mx*.acme.example"')
    server = (stamp or STAMP).partition(";")[0]
    head = f"Authentication-Results: {stamp}\n" if stamp else ""
    head += f"Received: {ENTRY.replace('mx1.acme.example', server)}{asked.date()}\n"
    file = asked.house.reply(asked.request, "Ship it")
    file.write_bytes(head.encode() + file.read_bytes())
    asked.house.inbox()
    (last,) = asked.house.replies()
    assert last.counted is counts, last.why
    assert proofs(asked.house) == ([(FOUNDER, "authentication-results", "acme.example", "")] if counts else [])


def test_refusing_needs_no_stamp(asked: Asked) -> None:
    asked.house.set("approval", authenticity='"authentication-results"', authserv_id='"mx*.acme.example"')
    assert reply(asked, "Stop", None)[0]
