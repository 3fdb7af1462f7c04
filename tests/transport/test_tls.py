"""TLS, STARTTLS and login: a relay that cannot be trusted halts everything, a good one is sent to in secret."""

from __future__ import annotations

import ssl

import pytest

from outbox.transport.outcome import Accepted, NotSent, Refused
from tests.relay.certificate import Certificate
from tests.relay.scripted import PATIENCE, Fin, Hold, Phase, Rst, Say, Script, ScriptedRelay
from tests.relay.submission import LARGE, OCTETS, submit, transport_to

LOGIN = ("sales", "correct horse")
SECURED = ["none", "starttls", "tls"]


def _relay(certificate: Certificate, security: str, script: Script | None = None) -> ScriptedRelay:
    return ScriptedRelay(script or {}, tls=certificate.server(), implicit_tls=security == "tls", login=LOGIN)


@pytest.mark.parametrize("security", SECURED)
@pytest.mark.parametrize("lines", [1, 500, 800, 900, 1_600, 1_700, 13_000, 100_000])
def test_a_message_of_any_size_arrives_whole(certificate: Certificate, security: str, lines: int) -> None:
    octets = OCTETS + (b"x" * 78 + b"\r\n") * lines
    with _relay(certificate, security) as relay:
        transport = transport_to(relay.port, timeout=3, security=security, tls=certificate.trusting(), login=LOGIN)
        outcome = submit(transport, octets=octets)
        relay.wait_until_over()
        assert isinstance(outcome, Accepted), outcome
        assert [sent.octets for sent in relay.messages] == [octets]


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize(
    "reply", [b"250 2.1.0 Ok\r\n", b"250-2.1.0 one\r\n250-2.1.0 two\r\n250 2.1.0 three\r\n"], ids=["one", "three"]
)
def test_replies_may_come_in_any_number_of_tls_records(certificate: Certificate, security: str, reply: bytes) -> None:
    lines = [Say(line + b"\r\n") for line in reply.split(b"\r\n")[:-1]]
    for script in ({Phase.MAIL: lines}, {Phase.MAIL: lines, Phase.RCPT: lines}, {Phase.MAIL: [Say(reply, True)]}):
        with _relay(certificate, security, script) as relay:
            transport = transport_to(relay.port, timeout=3, security=security, tls=certificate.trusting())
            outcome = submit(transport)
            relay.wait_until_over()
            assert isinstance(outcome, Accepted), outcome


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_relay_that_stops_reading_the_body_never_sees_its_dot(certificate: Certificate, security: str) -> None:
    with _relay(certificate, security, {Phase.BODY: [Hold()]}) as relay:
        transport = transport_to(relay.port, timeout=0.5, security=security, tls=certificate.trusting())
        outcome = submit(transport, octets=LARGE)
        relay.release()
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert relay.messages == []
        assert not relay.seen[0].commands_in_body
        assert "QUIT" not in relay.seen[0].verbs


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_an_untrusted_certificate_halts_before_anything_is_said(certificate: Certificate, security: str) -> None:
    with _relay(certificate, security) as relay:
        outcome = submit(transport_to(relay.port, security=security, login=LOGIN))
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert outcome.transient
        assert outcome.halt
        assert "certificate" in outcome.why
        assert set(relay.seen[0].verbs) <= {"EHLO", "STARTTLS"}


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_for_another_name_halts(certificate_of_another: Certificate, security: str) -> None:
    with _relay(certificate_of_another, security) as relay:
        outcome = submit(transport_to(relay.port, security=security, tls=certificate_of_another.trusting()))
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert outcome.halt
        assert set(relay.seen[0].verbs) <= {"EHLO", "STARTTLS"}


def test_a_stripped_starttls_halts_before_the_login() -> None:
    with ScriptedRelay(login=LOGIN) as relay:
        outcome = submit(transport_to(relay.port, security="starttls", tls=ssl.create_default_context(), login=LOGIN))
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert outcome.transient
        assert outcome.halt
        assert set(relay.seen[0].verbs) <= {"EHLO", "STARTTLS", "QUIT"}


@pytest.mark.parametrize(
    ("actions", "halt"),
    [
        ([Say(b"454 4.7.0 TLS not available\r\n")], False),
        ([Say(b"501 5.5.4 Syntax\r\n")], True),
        ([Fin()], False),
        ([Rst()], False),
        ([Hold()], False),
        ([Say(b"220 2.0.0 Ready\r\n"), Hold(), Fin()], False),
        ([Say(b"220 2.0.0 Ready\r\n250 2.0.0 Ok\r\n"), Fin()], False),
        ([Say(b"220 2.0.0 Ready\r\n"), Say(b"not a handshake at all\r\n"), Fin()], False),
    ],
    ids=["454", "501", "FIN", "RST", "nothing", "no_handshake", "words_injected_before_TLS", "no_TLS"],
)
def test_a_starttls_that_fails_is_no_reason_to_go_on_in_clear(
    certificate: Certificate, actions: list[Say | Hold | Fin | Rst], halt: bool
) -> None:
    with _relay(certificate, "starttls", {Phase.STARTTLS: actions}) as relay:
        transport = transport_to(relay.port, timeout=0.5, security="starttls", tls=certificate.trusting(), login=LOGIN)
        outcome = submit(transport)
        relay.release()
        relay.wait_until_over()
        assert isinstance(outcome, NotSent), outcome
        assert outcome.transient
        assert outcome.halt is halt
        assert not {"AUTH", "MAIL"} & set(relay.seen[0].verbs)


@pytest.mark.parametrize("security", SECURED)
def test_a_refused_login_halts_and_its_words_are_not_kept(certificate: Certificate, security: str) -> None:
    script = {Phase.AUTH: [Say(b"535 5.7.8 no such password: correct horse\r\n")]}
    with _relay(certificate, security, script) as relay:
        outcome = submit(transport_to(relay.port, security=security, tls=certificate.trusting(), login=LOGIN))
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert outcome.transient
        assert outcome.halt
        assert outcome.reply is not None
        assert outcome.reply.code == 535
        assert "horse" not in repr(outcome)
        assert "MAIL" not in relay.seen[0].verbs


# A reset in the middle of a login leaves asyncio the transport to collect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("actions", "halt"),
    [
        ([Say(b"454 4.7.0 Temporary authentication failure\r\n")], False),
        ([Say(b"421 4.3.2 Going down\r\n"), Fin()], False),
        ([Fin()], False),
        ([Rst()], False),
        ([Hold()], False),
        ([Say(b"%$!\r\n"), Fin()], False),
        ([Say(b"334 !!!not base64!!!\r\n"), Fin()], True),
        ([Say(b"250 2.0.0 Ok\r\n")], True),
    ],
    ids=["454", "421", "FIN", "RST", "nothing", "garbage", "334", "250"],
)
def test_a_login_without_a_clear_answer_burns_no_draft(actions: list[Say | Hold | Fin | Rst], halt: bool) -> None:
    with ScriptedRelay({Phase.AUTH: actions}, login=LOGIN) as relay:
        outcome = submit(transport_to(relay.port, timeout=0.5, login=LOGIN))
        relay.release()
        relay.wait_until_over()
        assert isinstance(outcome, NotSent), outcome
        assert outcome.transient
        assert outcome.halt is halt
        assert "MAIL" not in relay.seen[0].verbs


@pytest.mark.parametrize(
    "offer",
    [b"AUTH CRAM-MD5", b"AUTH LOGIN", b"AUTH XOAUTH2", b"AUTH", b"AUTH PLAIN CRAM-MD5 LOGIN"],
    ids=lambda offer: offer.decode().replace(" ", "_"),
)
@pytest.mark.parametrize("challenge", [b"334 !!!\r\n", b"334\r\n", b"334 \xff\xfe\r\n", b"334 ====\r\n"])
def test_no_challenge_of_a_relay_raises(offer: bytes, challenge: bytes) -> None:
    script = {Phase.EHLO: [Say(b"250-relay.example\r\n250 " + offer + b"\r\n")], Phase.AUTH: [Say(challenge), Fin()]}
    with ScriptedRelay(script) as relay:
        outcome = submit(transport_to(relay.port, timeout=1, login=LOGIN))
        relay.wait_until_over()
        assert isinstance(outcome, NotSent), outcome
        assert "MAIL" not in relay.seen[0].verbs


def test_a_relay_that_offers_no_login_where_one_is_configured_halts() -> None:
    with ScriptedRelay() as relay:
        outcome = submit(transport_to(relay.port, login=LOGIN))
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert outcome.halt
        assert "MAIL" not in relay.seen[0].verbs


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("digit", [4, 5])
def test_outcomes_do_not_depend_on_tls(certificate: Certificate, security: str, digit: int) -> None:
    script = {Phase.DOT: [Say(b"%d50 %d.0.0 No\r\n" % (digit, digit))]}
    with _relay(certificate, security, script) as relay:
        outcome = submit(transport_to(relay.port, timeout=PATIENCE, security=security, tls=certificate.trusting()))
        relay.wait_until_over()
        assert isinstance(outcome, Refused)
        assert outcome.transient is (digit == 4)
