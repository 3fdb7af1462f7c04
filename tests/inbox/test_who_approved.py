"""Approvals that the approver did not give, each as an enemy would try it, and those that he did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage

import pyotp
import pytest

from outbox import inbox
from outbox.core.errors import Code, ConfigError, TryLater
from outbox.core.lifecycle import State
from tests.house import FOUNDER, HOUR, JANE, SECOND, House
from tests.inbox.signing import Signer, ed25519_key
from tests.inbox.zone import Zone

MALLORY = "mallory@evil.example"
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"  # no one's
PROVIDER = Signer("acme.example", "phone", ed25519_key("provider"))
SIGNED = ("from", "to", "subject", "date", "message-id", "in-reply-to", "mime-version", "content-type")


@dataclass
class Founder:
    """Writes replies to one request in a house that wants proof."""

    house: House
    zone: Zone
    draft_id: str
    request: EmailMessage

    def write(self, text: str = "Ship it", **headers: str | None) -> bytes:
        """A reply as it leaves his phone; it is not delivered yet."""
        written = self.house.reply(self.request, text, **headers)
        octets = written.read_bytes()
        written.unlink()
        return octets

    def deliver(self, octets: bytes) -> str:
        """Deliver it a second later, let the inbox look; why the last recorded reply did what it did."""
        self.house.clock.advance(SECOND)
        self.house.deliver(octets)
        self.house.inbox()
        replies = self.house.replies()
        return replies[-1].why if replies else "(nothing recorded)"

    @property
    def state(self) -> State:
        return self.house.story(self.draft_id).draft.state


def ask(house: House, zone: Zone) -> Founder:
    draft = house.draft()
    return Founder(house, zone, draft.id, house.ask(draft.id))


@pytest.fixture
def zone() -> Iterator[Zone]:
    with Zone() as started:
        started.publish(PROVIDER.name, PROVIDER.record())
        yield started


@pytest.fixture
def founder(house: House, zone: Zone) -> Founder:
    house.set("approval", authenticity='"dkim"')
    house.set("dns", nameservers=f'["{zone.address}"]')
    return ask(house, zone)


@pytest.fixture
def coded(house: House, zone: Zone) -> Founder:
    house.set("approval", authenticity='"code"')
    file = house.folder / "keys" / f"{FOUNDER}.code"
    file.touch(mode=0o600)
    file.write_text(SECRET)
    return ask(house, zone)


def code_of(house: House, ago: int = 0) -> str:
    return pyotp.TOTP(SECRET).at(house.clock.now // SECOND - ago)


def body_of(octets: bytes) -> str:
    return str(message_from_bytes(octets, policy=policy.default).get_body().get_content())  # type: ignore[union-attr]


# With a signature


def test_a_signed_reply_approves_and_what_proved_it_is_kept(founder: Founder) -> None:
    founder.deliver(PROVIDER.sign(founder.write(), fields=SIGNED))
    assert founder.state is State.APPROVED
    assert founder.house.rows("SELECT method, domain, selector FROM proofs") == [("dkim", "acme.example", "phone")]


def test_an_unsigned_reply_approves_nothing_and_the_approver_is_told_why(founder: Founder) -> None:
    assert founder.deliver(founder.write()) == "authenticity: it has no DKIM signature"
    founder.house.drain()
    assert founder.state is State.PENDING
    told = body_of(founder.house.relay.messages[-1].octets)
    assert "changed nothing: it has no DKIM signature." in told
    assert "somebody else has read the request" in " ".join(told.split())


@pytest.mark.parametrize("words", ["Stop", "Reject: no"])
def test_refusing_needs_no_signature(founder: Founder, words: str) -> None:
    founder.deliver(founder.write(words))
    assert founder.state in {State.CANCELLED, State.REJECTED}


def test_a_yes_to_somebody_else_is_no_approval_whatever_is_added_to_it(founder: Founder) -> None:
    yes = PROVIDER.sign(founder.write("Yes", To=MALLORY), fields=SIGNED)
    token = str(founder.request["Reply-To"]).encode()
    for added in (b"Delivered-To: " + token, b"X-Original-To: " + token, b"Cc: " + token, b"Cc: approve@acme.example"):
        founder.deliver(added + b"\n" + yes)
    assert founder.state is State.PENDING


def test_a_token_in_a_display_name_names_nothing(founder: Founder) -> None:
    address = f'"Outbox {founder.request["Reply-To"]}" <{MALLORY}>'
    why = founder.deliver(PROVIDER.sign(founder.write("Yes", To=address, In_Reply_To="<lunch@evil.example>")))
    assert why == "token: the token is not in an address of To or Cc that can be read plainly"
    assert founder.state is State.PENDING


def test_an_answer_to_somebody_s_mail_with_our_reply_to_is_no_approval(founder: Founder) -> None:
    lunch = founder.write("Yes", Subject="Re: Lunch?", In_Reply_To="<lunch@evil.example>")
    why = founder.deliver(PROVIDER.sign(lunch, fields=SIGNED))
    assert why == "token: its address alone names the request; thread and subject are of some other mail"
    assert founder.state is State.PENDING


def test_a_signed_reply_that_was_read_once_is_not_read_again_in_other_clothes(founder: Founder) -> None:
    fields = tuple(name for name in SIGNED if name != "message-id")
    remark = PROVIDER.sign(founder.write("Ship it\n--\nbut only after Bob has agreed"), fields=fields)
    assert founder.deliver(remark).startswith("verdict:")
    again = remark.replace(b"\n--\n", b"\n-- \n").replace(b"<reply-1@", b"<reply-1000@")
    assert founder.deliver(again) == "replay: it came before, or is mail of ours"
    assert founder.state is State.PENDING


def test_an_address_that_only_folds_to_the_approver_s_is_another(house: House, zone: Zone) -> None:
    house.set("approval", approvers='["boss@acme.example"]')
    founder = ask(house, zone)
    founder.deliver(founder.write(sender="bo\u017fs@acme.example"))
    assert founder.state is State.PENDING
    founder.deliver(founder.write(sender="BOSS@acme.example"))
    assert founder.state is State.APPROVED


def test_dns_that_does_not_answer_keeps_the_reply_waiting_and_it_counts_later(founder: Founder) -> None:
    founder.zone.fail(PROVIDER.name)
    founder.house.deliver(PROVIDER.sign(founder.write(), fields=SIGNED))
    with inbox.open(founder.house.settings, clock=founder.house.clock) as room:
        with pytest.raises(TryLater) as waits:
            room.once()
        assert waits.value.code is Code.REPLIES_WAIT
        assert founder.house.replies() == []
        founder.zone.heal()
        founder.zone.publish(PROVIDER.name, PROVIDER.record())
        founder.house.clock.advance(61 * SECOND)
        room.once()
    assert founder.state is State.APPROVED
    assert [reply.counted for reply in founder.house.replies()] == [True]


def test_words_that_an_agent_put_into_his_subject_keep_no_reply_from_counting(house: House, zone: Zone) -> None:
    draft = house.draft(subject="Re: [outbox abcdef] Offer")
    founder = Founder(house, zone, draft.id, house.ask(draft.id))
    assert str(founder.request["Subject"]).count("[outbox") == 1
    founder.deliver(founder.write("Ship it"))
    assert founder.state is State.APPROVED


def test_a_row_that_claims_to_be_a_letter_of_ours_is_not_believed(house: House, zone: Zone) -> None:
    founder = ask(house, zone)
    remark = "But only if Bob agrees."
    forged = house.draft(text=remark, subject="a letter")
    with house.as_thief() as connection:
        connection.execute("UPDATE drafts SET about = ? WHERE id = ?", (founder.draft_id, forged.id))
    quote = f"Ship it\n\n-----Original Message-----\nFrom: Outbox\nSent: today\nTo: me\nSubject: it\n\n{remark}"
    founder.deliver(founder.write(quote))
    assert founder.state is State.PENDING


# With a code


def test_a_right_code_approves_once(coded: Founder) -> None:
    code = code_of(coded.house)
    coded.deliver(coded.write(f"Ship it\n{code}"))
    assert coded.state is State.APPROVED
    other = ask(coded.house, coded.zone)
    assert "used before" in other.deliver(other.write(f"Ship it\n{code}"))
    assert other.state is State.PENDING


@pytest.mark.parametrize("words", ["Shipit {}", "Reject: the price {}", "Maybe, {}"])
def test_a_code_that_was_shown_in_any_reply_is_spent_and_stands_in_no_row(coded: Founder, words: str) -> None:
    code, other = code_of(coded.house), ask(coded.house, coded.zone)
    coded.deliver(coded.write(words.format(code)))
    other.deliver(other.write(f"Ship it\n{code}"))
    assert other.state is State.PENDING
    dumped = " ".join(
        str(row)
        for table in ("rejections", "replies", "messages")
        for row in coded.house.rows(f"SELECT * FROM {table}")
    )
    assert code not in dumped


def test_five_wrong_codes_end_approving_by_reply_and_alert_once(coded: Founder) -> None:
    right = code_of(coded.house)
    wrong = f"{(int(right) + 1) % 1_000_000:06}"
    for _ in range(5):
        coded.deliver(coded.write(f"Ship it\n{wrong}"))
    why = coded.deliver(coded.write(f"Ship it\n{code_of(coded.house)}"))
    assert why == "verdict: no reply can approve it now: too many codes in his name were wrong"
    alerts = coded.house.rows("SELECT count(*) FROM drafts WHERE subject LIKE '%codes_exhausted%'")
    assert alerts == [(1,)]
    coded.deliver(coded.write("Stop"))
    assert coded.state is State.CANCELLED


def test_a_code_that_is_missing_or_too_old_is_no_guess(coded: Founder) -> None:
    assert "second line has no code" in coded.deliver(coded.write("Ship it"))
    assert "too old" in coded.deliver(coded.write(f"Ship it\n{code_of(coded.house, ago=1200)}"))
    assert coded.house.rows("SELECT count(*) FROM wrong_codes") == [(0,)]


def test_a_code_file_that_is_away_keeps_the_reply_waiting(coded: Founder) -> None:
    file = coded.house.folder / "keys" / f"{FOUNDER}.code"
    with inbox.open(coded.house.settings, clock=coded.house.clock) as room:
        coded.house.deliver(coded.write(f"Ship it\n{code_of(coded.house)}"))
        file.rename(file.with_suffix(".away"))
        with pytest.raises(TryLater):
            room.once()
        file.with_suffix(".away").rename(file)
        coded.house.clock.advance(61 * SECOND)
        room.once()
    assert coded.state is State.APPROVED


def test_without_the_secret_of_every_approver_the_inbox_does_not_start(house: House) -> None:
    house.set("approval", authenticity='"code"')
    with pytest.raises(ConfigError) as refused:
        house.inbox()
    assert "outbox enrol" in refused.value.message


@pytest.mark.parametrize("recipient", ["bank@partner.example", "Bank+x@partner.example", "anyone@bücher.example"])
def test_a_code_on_top_is_asked_for_by_recipient_however_it_is_written(
    house: House, zone: Zone, recipient: str
) -> None:
    file = house.folder / "keys" / f"{FOUNDER}.code"
    file.touch(mode=0o600)
    file.write_text(SECRET)
    house.set("approval", code_for_recipients='["bank@partner.example", "@bücher.example"]')
    draft = house.draft(to=(recipient,))
    founder = Founder(house, zone, draft.id, house.ask(draft.id))
    founder.deliver(founder.write("Ship it"))
    assert founder.state is State.PENDING
    founder.deliver(founder.write(f"Ship it\n{code_of(house)}"))
    assert founder.state is State.APPROVED


# Strangers, and floods


def test_a_stranger_with_the_token_changes_nothing_and_the_approver_is_told_once(house: House, zone: Zone) -> None:
    founder = ask(house, zone)
    for number in range(4):
        founder.deliver(founder.write(sender=f"mallory{number}@evil.example"))
    house.drain()
    told = [one for one in house.relay.messages if b"Somebody else replied" in one.octets]
    assert [one.recipients for one in told] == [(FOUNDER,)]
    founder.deliver(founder.write("Perhaps"))
    house.drain()
    assert b"changed nothing" in house.relay.messages[-1].octets
    assert founder.state is State.PENDING


def test_another_address_of_his_counts_as_he(house: House, zone: Zone) -> None:
    house.set(f'approver."{FOUNDER}"', also='["boss@private.example"]')
    founder = ask(house, zone)
    founder.deliver(founder.write(sender="boss@private.example"))
    assert [grant.approver for grant in house.story(founder.draft_id).draft.grants] == [FOUNDER]


def test_forty_stops_are_answered_three_times_at_most(house: House, zone: Zone) -> None:
    founder = ask(house, zone)
    house.approve(founder.draft_id)
    for _ in range(40):
        house.deliver(founder.write("Stop"))
    house.inbox()
    answers = house.rows("SELECT count(*) FROM replies WHERE answer_id IS NOT NULL")
    assert answers == [(3,)]
    assert house.story(founder.draft_id).draft.state is State.CANCELLED


def test_plain_addressing_wants_both_the_tag_and_the_thread(house: House, zone: Zone) -> None:
    house.set("approval", addressing='"plain"')
    founder = ask(house, zone)
    assert str(founder.request["Reply-To"]) == "approve@acme.example"
    founder.deliver(founder.write(Subject="Re: hello"))
    assert founder.state is State.PENDING
    founder.deliver(founder.write())
    assert founder.state is State.APPROVED


def test_our_own_mail_that_comes_back_is_left_as_it_is(house: House) -> None:
    draft = house.draft()
    house.ask(draft.id)
    house.deliver(house.relay.messages[-1].octets.replace(b"To: founder@", b"To: approve@acme.example, founder@", 1))
    house.inbox()
    assert house.replies() == []


def test_an_expired_request_approves_nothing(house: House, zone: Zone) -> None:
    founder = ask(house, zone)
    letter = founder.write()
    house.clock.advance(25 * HOUR)
    assert "has expired" in founder.deliver(letter)
    assert founder.state is State.EXPIRED
    assert not [one for one in house.relay.messages if JANE in one.recipients]
