"""One-time codes: where no mail proves anything, or on top of what does; each counts once, and few may be guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import cache

import pytest
from pyotp import TOTP

from outbox import inbox
from outbox.core.errors import Code, TryLater
from tests.house import APPROVAL, FOUNDER, HOUR, SECOND, HandClock, House
from tests.inbox.letters import Asked, text_of
from tests.inbox.signing import Signer, ed25519_key
from tests.inbox.zone import Zone

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
DAY = 24 * HOUR
SIGNER = Signer("acme.example", "s1", ed25519_key())
MISSING = "authenticity: the second line has no code; "


def enrol(house: House, approver: str = FOUNDER) -> None:
    """Give an approver the secret of his codes."""
    file = house.folder / "keys" / f"{approver}.code"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)


@cache
def never_shown() -> tuple[str, ...]:
    """Codes that are shown neither on the day before a house's clock begins nor on the next."""
    totp, start = TOTP(SECRET), HandClock().now // SECOND
    shown = {totp.at(start + 30 * step) for step in range(-2900, 2900)}
    return tuple(code for code in map("{:06}".format, range(1000)) if code not in shown)


@dataclass
class Phone:
    """The approver's mail client and his authenticator."""

    house: House
    request: EmailMessage

    def code(self, ago: int = 0) -> str:
        """What the authenticator showed so many seconds ago."""
        return str(TOTP(SECRET).at(self.house.clock.now // SECOND - ago))

    def wrong(self, number: int = 0) -> str:
        """A code that was not shown for a day, and is not for another."""
        return never_shown()[number]

    def reply(
        self, *lines: str, request: EmailMessage | None = None, signer: Signer | None = None, sender: str = FOUNDER
    ) -> tuple[bool, str]:
        """Reply half a minute later, and look: whether it counted, and why."""
        file = self.house.reply(request or self.request, "\n".join(lines), sender=sender)
        if signer is not None:
            file.write_bytes(signer.sign(file.read_bytes()))
        self.house.inbox()
        last = self.house.replies()[-1]
        self.house.clock.advance(30 * SECOND)
        return last.counted, last.why


@pytest.fixture
def phone(asked: Asked) -> Phone:
    """Approvals need a code and nothing else."""
    asked.house.set("approval", authenticity='"code"')
    enrol(asked.house)
    return Phone(asked.house, asked.request)


def proofs(house: House) -> list[tuple[object, ...]]:
    return house.rows("SELECT approver, method, domain, selector FROM proofs")


def alerts(house: House) -> int:
    return sum(f"] {Code.CODES_EXHAUSTED}:" in one.subject for one in house.drafts(system=True))


def test_an_approval_with_the_code_of_the_moment_counts(asked: Asked, phone: Phone) -> None:
    assert phone.reply("Ship it", phone.code()) == (True, f"{FOUNDER} approved it")
    assert asked.states() == ("approved", "pending")
    assert proofs(phone.house) == [(FOUNDER, "code", "acme.example", "")]


@pytest.mark.parametrize("ago", [290, 0, -30], ids=["five minutes old", "shown now", "of a clock that is fast"])
def test_a_code_counts_for_the_time_that_mail_takes(phone: Phone, ago: int) -> None:
    assert phone.reply("Ship it", phone.code(ago))[0]


def test_a_code_counts_once_and_for_one_draft(asked: Asked, phone: Phone) -> None:
    code = phone.code()
    assert phone.reply("Ship it", code)[0]
    counted, why = phone.reply("Ship it", code, request=asked.other)
    assert (counted, why.partition(";")[0]) == (False, "this code was used before")
    assert asked.states() == ("approved", "pending")
    assert phone.reply("Ship it", phone.code(), request=asked.other)[0]


def test_a_code_in_a_reply_that_did_not_count_is_spoiled_and_kept_nowhere(asked: Asked, phone: Phone) -> None:
    """Whoever has read that reply knows the code."""
    code = phone.code()
    assert not phone.reply("Ship it", code, "but fix the price first")[0]
    assert not phone.reply("Ship it", code, request=asked.other)[0]
    assert not phone.reply(f"what about {code[:3]} {code[3:]}?", request=asked.other)[0]
    kept = [
        *phone.house.rows("SELECT why, sender, message_id FROM replies"),
        *phone.house.rows("SELECT detail FROM journal"),
    ]
    phone.house.drain()
    answers = [text_of(message_from_bytes(one.octets, policy=policy.default)) for one in phone.house.relay.messages]  # type: ignore[arg-type]
    assert len(answers) == 3
    assert not any(code in str(one) or f"{code[:3]} {code[3:]}" in str(one) for one in [*kept, *answers])
    assert asked.states() == ("pending", "pending")


def test_a_missing_code_and_an_old_one_are_not_guesses(phone: Phone) -> None:
    for _ in range(6):
        assert phone.reply("Ship it")[1].startswith(MISSING)
    counted, why = phone.reply("Ship it", phone.code(3600))
    assert (counted, why.partition(";")[0]) == (False, "authenticity: its code is too old")
    assert phone.house.rows("SELECT * FROM wrong_codes") == []
    assert phone.reply("Ship it", phone.code())[0]


def test_the_approver_is_told_where_the_code_goes(phone: Phone) -> None:
    draft = phone.house.draft(subject="A third offer")
    assert "needs the six digits" in text_of(phone.house.ask(draft.id))
    phone.reply("Ship it")
    phone.house.drain()
    assert b"needs the six digits" in phone.house.relay.messages[-1].octets


@pytest.mark.parametrize(("text", "state"), [("Reject: no", "rejected"), ("Stop", "cancelled")])
def test_five_wrong_codes_end_approval_by_reply_and_nothing_else(
    asked: Asked, phone: Phone, text: str, state: str
) -> None:
    for number in range(5):
        assert alerts(phone.house) == 0
        assert phone.reply("Ship it", phone.wrong(number)) == (False, "authenticity: its code is wrong")
    assert alerts(phone.house) == 1
    for code in (phone.code(), phone.wrong()):
        counted, why = phone.reply("Ship it", code)
        assert (counted, why) == (False, "verdict: no reply can approve it now: too many codes in his name were wrong")
    assert (alerts(phone.house), len(phone.house.rows("SELECT * FROM wrong_codes"))) == (1, 5)
    assert phone.reply("Ship it", phone.code(), request=asked.other)[0]
    assert phone.reply(text)[0]
    assert asked.states() == (state, "approved")


def test_what_no_reply_can_approve_any_more_can_be_approved_at_the_terminal(asked: Asked, phone: Phone) -> None:
    for number in range(5):
        phone.reply("Ship it", phone.wrong(number))
    phone.house.approve(asked.draft_id)
    assert asked.states() == ("approved", "pending")


def test_ten_wrong_codes_a_day_end_approval_by_reply_for_every_draft_until_tomorrow(asked: Asked, phone: Phone) -> None:
    third = phone.house.draft(subject="A third offer", ttl=3 * 86400)
    request = phone.house.ask(third.id)
    for number in range(5):
        phone.reply("Ship it", phone.wrong(number))
        phone.reply("Ship it", phone.wrong(number), request=asked.other)
    assert phone.reply("Ship it", phone.code(), request=request)[1].startswith("verdict: no reply can approve it now")
    phone.house.clock.advance(DAY)
    assert phone.reply("Ship it", phone.code(), request=request)[0]


def test_a_stranger_s_code_is_not_looked_at(phone: Phone) -> None:
    for number in range(6):
        assert phone.reply("Ship it", phone.wrong(number), sender="mallory@evil.example")[1].startswith("from:")
    assert phone.house.rows("SELECT * FROM wrong_codes") == []
    code = phone.code()
    phone.reply("Ship it", code, sender="mallory@evil.example")
    assert phone.reply("Ship it", code)[0]


def test_a_reply_waits_while_the_secret_cannot_be_read(phone: Phone) -> None:
    with inbox.open(phone.house.settings, clock=phone.house.clock) as room:
        (phone.house.folder / "keys" / f"{FOUNDER}.code").unlink()
        phone.house.reply(phone.request, f"Ship it\n{phone.code()}")
        with pytest.raises(TryLater, match=f"outbox enrol {FOUNDER}"):
            room.once()
        assert phone.house.replies() == []
        enrol(phone.house)
        phone.house.clock.advance(60 * SECOND)
        room.once()
    assert [one.counted for one in phone.house.replies()] == [True]


# On top of what proves it


@pytest.fixture
def signed(asked: Asked) -> Iterator[Phone]:
    """DKIM is asked for; where the settings say so, a code too."""
    enrol(asked.house)
    with Zone() as zone:
        zone.publish(SIGNER.name, SIGNER.record())
        asked.house.set("approval", authenticity='"dkim"')
        asked.house.set("dns", nameservers=f'["{zone.address}"]')
        yield Phone(asked.house, asked.request)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("code_for_kinds", '["email"]'),
        ("code_for_recipients", '["@customer.example"]'),
        ("code_for_recipients", '["JANE@customer.example"]'),
    ],
)
def test_a_code_on_top_is_needed_beside_the_signature(asked: Asked, signed: Phone, setting: str, value: str) -> None:
    signed.house.set("approval", **{setting: value})
    assert signed.reply("Ship it", signer=SIGNER)[1].startswith(MISSING)
    assert signed.reply("Ship it", signed.code())[1] == "authenticity: it has no DKIM signature"
    assert signed.house.rows("SELECT * FROM wrong_codes") == []
    assert signed.reply("Ship it", signed.code(), signer=SIGNER)[0]
    assert proofs(signed.house) == [(FOUNDER, "dkim", "acme.example", "s1")]
    assert asked.states() == ("approved", "pending")


def test_what_goes_to_others_needs_no_code(signed: Phone) -> None:
    signed.house.set("approval", code_for_recipients='["@bank.example", "jack@customer.example"]')
    assert signed.reply("Ship it", signer=SIGNER)[0]


def test_refusing_needs_no_code(asked: Asked, signed: Phone) -> None:
    signed.house.set("approval", code_for_recipients='["@customer.example"]')
    assert signed.reply("Stop")[0]
    assert asked.states() == ("cancelled", "pending")


# One account for both


def test_an_approver_whose_mailbox_is_the_outbox_s_own_approves_with_a_code(house: House) -> None:
    house.set("approval", authenticity='"code"', approvers=f'["{APPROVAL}"]')
    enrol(house, APPROVAL)
    draft = house.draft()
    request = house.ask(draft.id)
    phone = Phone(house, request)
    (sent,) = house.relay.to(APPROVAL)
    house.deliver(sent.octets)  # what we send to him is in the mailbox that we read
    house.inbox()
    assert house.replies() == []
    assert not phone.reply("Ship it", sender=APPROVAL)[0]
    assert phone.reply("Ship it", phone.code(), sender=APPROVAL)[0]
    assert [grant.approver for grant in house.story(draft.id).draft.grants] == [APPROVAL]
    house.drain()
    for one in house.relay.to(APPROVAL):
        house.deliver(one.octets)
    house.inbox()
    assert len(house.replies()) == 2
