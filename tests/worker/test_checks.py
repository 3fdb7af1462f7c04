"""The worker's checks: the relay is reached, secured and logged in to; no MAIL is said unless a test is asked for."""

from __future__ import annotations

import base64
import ssl
from datetime import timedelta
from email import message_from_bytes, policy

import pytest

from outbox.clock import wall
from outbox.core.finding import Finding
from outbox.worker.checks import check
from tests.house import APPROVAL, FOUNDER, House
from tests.relay.certificate import Certificate
from tests.relay.scripted import Fin, Phase, Say, Script, ScriptedRelay

PASSWORD = "correct horse battery"
LOGIN = ("outbox", PASSWORD)
OPERATOR = "ops@acme.example"
DAY = int(timedelta(days=1).total_seconds()) * 1_000_000


def at(house: House, relay: ScriptedRelay, security: str = "starttls", *, login: bool = True) -> House:
    """The house with its settings changed to this relay."""
    house.set("relay", host='"127.0.0.1"', port=str(relay.port), security=f'"{security}"', timeout="5")
    if login:
        (house.folder / "relay.password").write_text(PASSWORD)
        (house.folder / "relay.password").chmod(0o600)
        house.set("relay", username='"outbox"', password_file='"relay.password"')
    return house


def found(
    house: House, *, send_test: bool = False, tls: ssl.SSLContext | None = None, ahead: int = 0
) -> dict[str, Finding]:
    """What was found, by check."""
    findings = list(check(house.settings, send_test=send_test, clock=lambda: wall() + ahead, tls=tls))
    assert len({one.check for one in findings}) == len(findings)
    for one in findings:
        assert one.passed is not False or one.todo, one
    return {one.check: one for one in findings}


def submission(certificate: Certificate, security: str = "starttls", script: Script | None = None) -> ScriptedRelay:
    return ScriptedRelay(script or {}, tls=certificate.server(), implicit_tls=security == "tls", login=LOGIN)


def said(findings: dict[str, Finding]) -> str:
    return "\n".join(f"{one.why} {one.todo}" for one in findings.values())


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_good_relay_is_reached_secured_and_logged_in_to_and_gets_no_mail(
    house: House, certificate: Certificate, security: str
) -> None:
    with submission(certificate, security) as relay:
        findings = found(at(house, relay, security), tls=certificate.trusting(), ahead=DAY // 2)
        relay.wait_until_over()
        assert relay.seen[0].verbs[-2:] == ["AUTH", "QUIT"]
    assert {name: one.passed for name, one in findings.items()} == dict.fromkeys(
        ["ledger", "worker", "relay", "relay-tls", "relay-login", "relay-offers"], True
    )
    assert "29 more days" in findings["relay-tls"].why
    assert findings["relay-offers"].why == "it offers SIZE 104857600, PIPELINING, 8BITMIME, SMTPUTF8; not DSN"


def test_a_certificate_that_ends_soon_is_a_warning(house: House, certificate: Certificate) -> None:
    with submission(certificate) as relay:
        findings = found(at(house, relay), tls=certificate.trusting(), ahead=20 * DAY + DAY // 2)
    assert findings["relay-tls"].passed is None
    assert "9 days" in findings["relay-tls"].todo


def test_a_certificate_nobody_trusts_is_named_with_what_is_wrong_with_it(
    house: House, certificate: Certificate
) -> None:
    with submission(certificate) as relay:
        findings = found(at(house, relay))
        relay.wait_until_over()
        assert "AUTH" not in relay.seen[0].verbs
    assert findings["relay"].passed is False
    assert "self-signed certificate" in findings["relay"].why
    assert "the name in its certificate" in findings["relay"].todo


def test_a_relay_without_starttls_is_told_from_one_that_is_not_there(house: House) -> None:
    with ScriptedRelay(login=LOGIN) as relay:
        findings = found(at(house, relay))
    assert "STARTTLS" in findings["relay"].why
    assert "465" in findings["relay"].todo
    gone = found(house)["relay"]
    assert gone.passed is False
    assert "relay.port" in gone.todo


REPEATED = [
    b"no such password: " + PASSWORD.encode(),
    b"you said " + base64.b64encode(f"\0outbox\0{PASSWORD}".encode()),
    base64.b64encode(PASSWORD.encode()) + b" is wrong",
    PASSWORD.encode().hex().upper().encode(),
]


@pytest.mark.parametrize("words", REPEATED, ids=["in-clear", "as-AUTH-PLAIN", "in-base64", "in-hex"])
@pytest.mark.parametrize("phase", [Phase.AUTH, Phase.MAIL, Phase.DATA, Phase.DOT], ids=lambda phase: phase.value)
@pytest.mark.parametrize("reply", [b"535 5.7.8 ", b"421 4.3.2 "], ids=lambda reply: reply[:3].decode())
def test_a_login_that_a_relay_repeats_is_not_shown(house: House, phase: Phase, reply: bytes, words: bytes) -> None:
    script = {phase: [Say(reply + words + b"\r\n"), Fin()]}
    with ScriptedRelay(script, script, login=LOGIN) as relay:
        findings = found(at(house, relay, "none"), send_test=True)
    assert findings["relay-test"].passed is False
    assert reply[:3].decode() in said(findings)
    for form in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode()[:-4], PASSWORD.encode().hex()):
        assert form.lower() not in said(findings).lower()


def test_a_refused_login_says_that_a_password_for_one_app_may_be_wanted(house: House) -> None:
    with ScriptedRelay(login=("somebody", "else")) as relay:
        findings = found(at(house, relay, "none"))
    assert "login was refused (535)" in findings["relay"].why
    assert "made for one app" in findings["relay"].todo


@pytest.mark.parametrize(
    ("missing", "setting"),
    [("relay.host", "relay.host"), ("approval.approvers", "approval.approvers")],
)
def test_a_setting_that_the_worker_needs_is_named(house: House, missing: str, setting: str) -> None:
    section, _, name = missing.partition(".")
    file = house.folder / "outbox.toml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith(f"{name} =")))
    findings = found(house)
    assert any(one.passed is False and one.why == f"{setting} is not set" for one in findings.values())
    assert section in said(findings)


def test_a_password_file_that_is_not_there_is_a_failure_and_no_connection_is_made(house: House) -> None:
    house.set("relay", username='"outbox"', password_file='"nowhere"')
    findings = found(house)
    assert findings["relay"].passed is False
    assert "nowhere" in findings["relay"].why
    assert house.relay.connections == 0


def test_without_both_keys_the_relay_is_not_looked_at(house: House) -> None:
    (house.folder / "keys" / "draft.key").unlink()
    findings = found(house)
    assert list(findings) == ["relay"]
    assert (findings["relay"].passed, findings["relay"].todo) == (None, "")
    assert "as the user of the worker" in findings["relay"].why
    assert house.relay.connections == 0


def test_a_relay_that_takes_no_octets_beyond_ascii_is_a_warning(house: House) -> None:
    with ScriptedRelay(extensions=("PIPELINING", "DSN")) as relay:
        findings = found(at(house, relay, "none", login=False))
    assert findings["relay-offers"].passed is None
    assert findings["relay-offers"].why == "it offers PIPELINING, DSN; not SIZE, 8BITMIME, SMTPUTF8"


def test_words_of_a_relay_are_one_printable_line(house: House) -> None:
    greeting = b"554-\x1b[2Jnobody\r\n554 \xe2\x80\xae" + b"may " * 500 + b"in\r\n"
    with ScriptedRelay({Phase.GREETING: [Say(greeting), Fin()]}) as relay:
        why = found(at(house, relay, "none", login=False))["relay"].why
    assert why.isprintable()
    assert "\u202e" not in why
    assert len(why) <= 400


# The test message


@pytest.fixture
def operated(house: House) -> House:
    house.set("operator", addresses=f'["{OPERATOR}", "second@acme.example"]')
    return house


def test_the_test_goes_to_the_first_operator_alone_and_says_what_it_is(operated: House) -> None:
    findings = found(operated, send_test=True)
    (sent,) = operated.relay.messages
    assert (sent.sender, sent.recipients) == (APPROVAL, (OPERATOR,))
    message = message_from_bytes(sent.octets, policy=policy.default)
    assert message["To"] == OPERATOR
    assert message["Subject"] == "[outbox] test message"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"] is not None
    assert "outbox doctor --send-test" in message.get_content()
    assert findings["relay-test"].passed is True
    assert f"a test message to {OPERATOR} was taken, queue id 000001" in findings["relay-test"].why


def test_without_operators_the_first_approver_gets_the_test(house: House) -> None:
    assert found(house, send_test=True)["relay-test"].passed is True
    assert [sent.recipients for sent in house.relay.messages] == [(FOUNDER,)]


def test_no_row_is_written_of_a_test(operated: House) -> None:
    found(operated, send_test=True)
    assert operated.rows("SELECT count(*) FROM drafts") == [(0,)]
    assert operated.rows("SELECT count(*) FROM attempts") == [(0,)]


def test_without_the_flag_no_message_leaves(operated: House) -> None:
    findings = found(operated)
    assert "relay-test" not in findings
    assert operated.relay.messages == []


@pytest.mark.parametrize(
    ("script", "words", "todo"),
    [
        ({Phase.MAIL: [Say(b"550 5.7.1 not your address\r\n")]}, "refused", f"takes mail from {APPROVAL}"),
        ({OPERATOR: [Say(b"451 4.7.1 greylisted\r\n")]}, "greylisted", "try again later"),
        ({Phase.DATA: [Fin()]}, "no test message left", "relay.host"),
        ({Phase.DOT: [Fin()]}, "not known whether", f"the mailbox of {OPERATOR}"),
        ({Phase.DOT: [Say(b"550 5.7.1 spam\r\n")]}, "spam", f"takes mail from {APPROVAL}"),
    ],
    ids=["MAIL", "RCPT", "DATA", "no-reply-to-the-dot", "dot"],
)
def test_a_test_that_the_relay_did_not_take_fails(operated: House, script: Script, words: str, todo: str) -> None:
    with ScriptedRelay({}, script) as relay:
        tested = found(at(operated, relay, "none", login=False), send_test=True)["relay-test"]
    assert tested.passed is False
    assert words in tested.why
    assert todo in tested.todo


def test_a_relay_that_cannot_be_reached_gets_no_test(house: House) -> None:
    with ScriptedRelay() as relay:
        port = relay.port
    house.set("relay", port=str(port))
    findings = found(house, send_test=True)
    assert findings["relay"].passed is False
    assert findings["relay-test"].passed is False
    assert "no test message was sent" in findings["relay-test"].why


def test_a_queue_id_stays_whole_however_long_it_is(operated: House) -> None:
    queue_id = "0100018c5a8f1d2e-3f4a5b6c-7d8e-9f0a-1b2c-3d4e5f6a7b8c-GhIjKlMnOpQr"
    operated.relay.says = lambda _octets: f"250 2.0.0 Ok: queued as {queue_id}"
    assert f"queue id {queue_id}" in found(operated, send_test=True)["relay-test"].why
