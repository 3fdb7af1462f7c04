"""The inbox's checks: the mailbox, how authenticity is proved, and what DNS says of the approvers' domains."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import pytest

from outbox.core.finding import Finding
from outbox.inbox.checks import check
from outbox.inbox.dns import Resolver
from outbox.operator.enrolment import new_secret
from tests.house import APPROVAL, FOUNDER, House
from tests.inbox import dovecot
from tests.inbox.dovecot import Dovecot
from tests.inbox.signing import Signer, ed25519_key, rsa_key
from tests.inbox.zone import Zone
from tests.relay.scripted import Say
from tests.relay.scripted import ScriptedRelay as Scripted

DOMAIN = "acme.example"
POLICY = b"v=DMARC1; p=reject"
needs_dovecot = pytest.mark.skipif(dovecot.PROGRAM is None, reason=dovecot.MISSING)


@pytest.fixture
def zone() -> Iterator[Zone]:
    with Zone() as started:
        started.serve_mail(DOMAIN, "10 mx1.acme.example.", "20 mx2.acme.example.")
        started.publish(f"_dmarc.{DOMAIN}", POLICY)
        yield started


@pytest.fixture
def proving(house: House, zone: Zone) -> House:
    """A house that believes DKIM, and asks the test's own name server."""
    house.set("approval", authenticity='"dkim"')
    house.set("dns", nameservers=f'["{zone.address}"]')
    return house


def found(house: House) -> list[Finding]:
    findings = list(check(house.settings))
    for one in findings:
        assert one.passed is not False or one.todo, one
    return findings


def only(house: House, name: str) -> Finding:
    (finding,) = [one for one in found(house) if one.check == name]
    return finding


def marks(house: House, name: str) -> list[str]:
    return [one.mark for one in found(house) if one.check == name]


def about(house: House, **values: str) -> None:
    """Settings of the approver."""
    house.set(f'approver."{FOUNDER}"', **values)


# What it needs, and authenticity


def test_without_the_grant_key_nothing_is_looked_at(house: House) -> None:
    (house.folder / "keys" / "grant.key").unlink()
    (finding,) = found(house)
    assert finding.mark == "-"
    assert "as the user of the inbox" in finding.why


def test_a_house_that_believes_the_token_is_warned_and_asks_no_dns(house: House) -> None:
    assert {one.check: one.mark for one in found(house)} == {
        "inbox": "ok",
        "mailbox": "ok",
        "plus-addressing": "-",
        "authenticity": "warn",
        "dns": "-",
    }


def test_the_token_alone_fails_where_others_could_have_it(house: House) -> None:
    house.set("relay", host='"smtp.acme.example"')
    finding = only(house, "authenticity")
    assert finding.passed is False
    assert "loopback" in finding.why


def test_authentication_results_name_the_server_that_is_believed(proving: House) -> None:
    proving.set("approval", authenticity='"authentication-results"', authserv_id='"mx*.acme.example"')
    finding = only(proving, "authenticity")
    assert finding.passed is True
    assert "mx*.acme.example is believed" in finding.why


# Plus-addressing


def test_plus_addressing_is_proved_by_a_reply_that_counted(house: House) -> None:
    assert f"approve+x@{DOMAIN}" in only(house, "plus-addressing").why
    draft_id = house.draft().id
    house.reply(house.ask(draft_id), "Ship it")
    house.inbox()
    finding = only(house, "plus-addressing")
    assert finding.passed is True
    assert APPROVAL in finding.why


def test_plain_addressing_needs_no_plus(house: House) -> None:
    house.set("approval", addressing='"plain"')
    finding = only(house, "plus-addressing")
    assert finding.mark == "-"
    assert "not asked for" in finding.why


# One-time codes


@pytest.fixture
def coded(proving: House) -> House:
    proving.set("approval", authenticity='"code"')
    (proving.folder / "keys" / f"{FOUNDER}.code").write_text(new_secret())
    (proving.folder / "keys" / f"{FOUNDER}.code").chmod(0o600)
    return proving


def test_a_secret_of_codes_that_can_be_read_is_as_it_should_be(coded: House) -> None:
    assert marks(coded, "code") == ["ok"]


@pytest.mark.parametrize(
    ("text", "mode", "words", "todo"),
    [
        (None, 0o600, "no file", f"outbox enrol {FOUNDER}"),
        ("MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK", 0o644, "0644", "chmod 600"),
        ("not-base32!", 0o600, "base32", f"outbox enrol {FOUNDER}"),
        ("MZXW6", 0o600, "bits", f"outbox enrol {FOUNDER}"),
    ],
    ids=["missing", "others-read", "not-base32", "short"],
)
def test_a_secret_of_codes_that_cannot_be_used_is_not_shown(
    coded: House, text: str | None, mode: int, words: str, todo: str
) -> None:
    file = coded.folder / "keys" / f"{FOUNDER}.code"
    file.unlink()
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    finding = only(coded, "code")
    assert finding.passed is False
    assert words in finding.why
    assert todo in finding.todo
    assert text is None or text not in finding.why


@pytest.mark.parametrize("name", ["code_for_kinds", "code_for_recipients"])
def test_codes_on_top_need_their_secret_too(proving: House, name: str) -> None:
    assert marks(proving, "code") == []
    proving.set("approval", **{name: '["email"]' if name == "code_for_kinds" else '["@customer.example"]'})
    assert marks(proving, "code") == ["FAIL"]


# The mailbox


def test_a_maildir_that_is_not_there_is_a_failure(house: House) -> None:
    house.set("mailbox", url='"maildir:Nowhere"')
    finding = only(house, "mailbox")
    assert finding.passed is False
    assert "Nowhere" in finding.why


def at(house: House, port: int, *, password: str = dovecot.PASSWORD, folder: str = "INBOX") -> House:
    """The house with its mailbox on an IMAP server of the test's."""
    (house.folder / "mailbox.password").write_text(password)
    (house.folder / "mailbox.password").chmod(0o600)
    house.set(
        "mailbox",
        url=f'"imap://127.0.0.1:{port}/{folder}"',
        username='"founder"',
        password_file='"mailbox.password"',
    )
    return house


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with Dovecot() as started:
        yield started


@needs_dovecot
def test_an_imap_mailbox_is_logged_in_to_and_nothing_in_it_is_seen(house: House, server: Dovecot) -> None:
    account = server.account("founder")
    account.append(b"From: somebody@else.example\r\nSubject: private\r\n\r\nhello\r\n")
    findings = {one.check: one for one in found(at(house, server.port))}
    assert findings["mailbox"].passed is True
    assert re.search(r"1 messages?; it is somebody's own", findings["mailbox"].why)
    assert "(IDLE)" in findings["mailbox-idle"].why
    assert account.flags() == {1: set()}
    account.expunge(1)


@needs_dovecot
def test_a_wrong_password_is_a_failure_that_does_not_say_it(house: House, server: Dovecot) -> None:
    server.account("founder")
    finding = only(at(house, server.port, password="wrong horse battery"), "mailbox")
    assert finding.passed is False
    assert "made for one app" in finding.todo
    assert "horse" not in finding.why + finding.todo


@needs_dovecot
def test_a_folder_that_is_not_there_is_a_failure(house: House, server: Dovecot) -> None:
    server.account("founder")
    finding = only(at(house, server.port, folder="Nowhere"), "mailbox")
    assert finding.passed is False
    assert "Nowhere" in finding.why


def test_a_server_that_repeats_the_login_does_not_get_it_shown(house: House) -> None:
    secret = "correct horse battery"
    repeated = base64.b64encode(f"\0founder\0{secret}".encode())
    with Scripted() as relay:
        relay.then = {"greeting": [Say(b"* BYE you are founder, " + secret.encode() + b", " + repeated + b"\r\n")]}
        finding = only(at(house, relay.port, password=secret), "mailbox")
    assert finding.passed is False
    assert "horse" not in finding.why
    assert repeated.decode() not in finding.why


def test_a_mailbox_that_cannot_be_reached_is_a_failure_and_the_rest_is_looked_at(house: House) -> None:
    with Scripted() as relay:
        port = relay.port
    findings = {one.check: one for one in found(at(house, port))}
    assert findings["mailbox"].passed is False
    assert findings["mailbox"].todo
    assert "authenticity" in findings


# DNS


def test_mail_servers_and_the_policy_of_the_approver_s_domain_are_said(proving: House) -> None:
    finding = only(proving, "dns")
    assert finding.passed is True
    assert finding.why == f"{DOMAIN} gets its mail at mx1.acme.example; its DMARC policy is reject"


def test_a_domain_without_mail_servers_is_a_warning(proving: House, zone: Zone) -> None:
    zone.serve_mail(DOMAIN, "0 .")
    finding = only(proving, "dns")
    assert finding.mark == "warn"
    assert "no mail server" in finding.why


@pytest.mark.parametrize(
    ("record", "policy"),
    [(None, "it has no DMARC policy"), (b"v=DMARC1; p=none", "is none"), (b"v=DMARC1; p=\x1b[2J", "is none")],
    ids=["no-record", "none", "nonsense"],
)
def test_a_domain_of_ours_that_anybody_can_write_in_is_a_warning(
    proving: House, zone: Zone, record: bytes | None, policy: str
) -> None:
    zone.publish(f"_dmarc.{DOMAIN}", *([record] if record else []))
    finding = only(proving, "dns")
    assert finding.mark == "warn"
    assert policy in finding.why
    assert f"_dmarc.{DOMAIN}" in finding.todo


def test_the_policy_of_the_domain_above_holds_for_one_without_its_own(proving: House, zone: Zone) -> None:
    other = "founder@mail.corp.example"
    zone.serve_mail("mail.corp.example", "10 mx.corp.example.")
    zone.publish("_dmarc.corp.example", b"v=DMARC1; p=reject; sp=quarantine")
    proving.set("approval", approvers=f'["{other}"]')
    finding = only(proving, "dns")
    assert finding.passed is True
    assert "the DMARC policy of corp.example is quarantine for it" in finding.why


def test_without_a_policy_authentication_results_never_say_pass(proving: House, zone: Zone) -> None:
    zone.publish(f"_dmarc.{DOMAIN}")
    proving.set("approval", authenticity='"authentication-results"', authserv_id='"mx.acme.example"')
    finding = only(proving, "dns")
    assert finding.passed is False
    assert "dmarc=pass" in finding.todo


def test_a_name_server_that_fails_is_one_failure(proving: House, zone: Zone) -> None:
    zone.fail(DOMAIN)
    finding = only(proving, "dns")
    assert finding.passed is False
    assert f"DNS about {DOMAIN}" in finding.why
    assert marks(proving, "dkim") == []


def test_a_name_server_that_is_silent_is_not_waited_for(proving: House, zone: Zone) -> None:
    zone.silence(DOMAIN)
    resolver = Resolver((zone.address,), timeout=0.2)
    assert [one.mark for one in check(proving.settings, resolver=resolver) if one.check == "dns"] == ["FAIL"]


# DKIM


def pinned(house: House, zone: Zone, *records: bytes) -> Finding:
    about(house, selectors='["s1"]')
    zone.publish(f"s1._domainkey.{DOMAIN}", *records)
    return only(house, "dkim")


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_pinned_selector_with_a_key_is_as_it_should_be(proving: House, zone: Zone, kind: str) -> None:
    key = rsa_key(1024) if kind == "rsa" else ed25519_key()
    finding = pinned(proving, zone, Signer(DOMAIN, "s1", key).record())
    assert finding.passed is True
    assert "selector s1 of acme.example" in finding.why


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ((), "has no key in DNS"),
        ((b"v=DKIM1; p=",), "revoked"),
        ((b"v=DKIM1; p=%%%",), "cannot be read"),
        ((b"v=DKIM1; t=y; k=ed25519; p=" + base64.b64encode(bytes(32)),), "t=y"),
    ],
    ids=["none", "revoked", "unreadable", "testing"],
)
def test_a_pinned_selector_without_a_usable_key_is_a_failure(
    proving: House, zone: Zone, records: tuple[bytes, ...], words: str
) -> None:
    finding = pinned(proving, zone, *records)
    assert finding.passed is False
    assert words in finding.why


def test_a_selector_may_be_of_a_domain_that_is_listed_for_him(proving: House, zone: Zone) -> None:
    about(proving, selectors='["s1"]', domains='["provider.example"]')
    signer = Signer("provider.example", "s1", ed25519_key())
    zone.publish(signer.name, signer.record())
    finding = only(proving, "dkim")
    assert finding.passed is True
    assert "s1 of provider.example" in finding.why


def test_a_domain_that_programs_send_from_is_warned_about_unless_it_is_pinned(proving: House, zone: Zone) -> None:
    finding = only(proving, "dkim")
    assert finding.mark == "warn"
    assert "programs send from that domain too" in finding.why
    assert "answer one request" in finding.todo
    assert pinned(proving, zone, Signer(DOMAIN, "s1", ed25519_key()).record()).mark == "ok"


def test_a_domain_of_the_approver_s_own_needs_no_pin(proving: House) -> None:
    proving.set("policy", from_domains='["other.example"]')
    assert marks(proving, "dkim") == ["ok"]


def test_the_selector_of_a_reply_that_counted_is_named_with_the_line_to_write(proving: House, zone: Zone) -> None:
    signer = Signer(DOMAIN, "fm3", ed25519_key())
    zone.publish(signer.name, signer.record())
    draft_id = proving.draft().id
    reply = proving.reply(proving.ask(draft_id), "Ship it")
    reply.write_bytes(signer.sign(reply.read_bytes()))
    proving.inbox()
    finding = only(proving, "dkim")
    assert finding.mark == "warn"
    assert f'write selectors = ["fm3"] under [approver."{FOUNDER}"]' in finding.todo
    proving.set("policy", from_domains='["other.example"]')
    assert 'selectors = ["fm3"]' in only(proving, "dkim").why
