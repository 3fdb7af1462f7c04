"""The outcome table of DESIGN section 4, line by line, against a relay that does each of these things."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from outbox.transport.outcome import Accepted, InDoubt, NotSent, Outcome, Refused
from outbox.transport.smtp import GapEntered, GapRefused, Relay, SmtpTransport, boottime
from tests.relay.certificate import Certificate
from tests.relay.scripted import PATIENCE, Fin, Hold, Keep, Phase, Rst, Say, Script, ScriptedRelay
from tests.relay.submission import ENVELOPE, LARGE, OCTETS, entered, submit, transport_to

HASTE = 0.5  # seconds, where a timeout is what is tested
ENDLESS = Say(b"250 " + b"x" * 100_000)


@dataclass(frozen=True)
class Case:
    """One fault and what it has to mean; `kept` is how many messages the relay then has."""

    name: str
    script: Script
    outcome: type[Outcome]
    transient: bool | None = None
    halt: bool = False
    kept: int = 0
    hasty: bool = False


def _not_sent(name: str, script: Script, *, halt: bool = False, hasty: bool = False) -> Case:
    return Case(name, script, NotSent, transient=True, halt=halt, hasty=hasty)


def _refused(name: str, script: Script, *, transient: bool) -> Case:
    return Case(name, script, Refused, transient=transient)


def _accepted(name: str, script: Script) -> Case:
    return Case(name, script, Accepted, kept=1)


def _broken(phase: Phase) -> list[Case]:
    """Everything short of a complete reply, at a phase before the final dot."""
    return [
        _not_sent(f"{phase}: nothing", {phase: [Hold()]}, hasty=True),
        _not_sent(f"{phase}: FIN", {phase: [Fin()]}),
        _not_sent(f"{phase}: RST", {phase: [Rst()]}),
        _not_sent(f"{phase}: garbage", {phase: [Say(b"HTTP/1.1 400 Bad Request\r\n"), Hold()]}, hasty=True),
        _not_sent(f"{phase}: a line that is cut off", {phase: [Say(b"25"), Fin()]}),
        _not_sent(f"{phase}: a multi-line reply that is cut off", {phase: [Say(b"250-one\r\n"), Hold()]}, hasty=True),
        _not_sent(f"{phase}: an endless line", {phase: [ENDLESS, Hold()]}, hasty=True),
    ]


CONNECTING = [
    *_broken(Phase.GREETING),
    *_broken(Phase.EHLO),
    _not_sent("greeting: 421", {Phase.GREETING: [Say(b"421 4.3.2 Busy\r\n")]}),
    _not_sent("greeting: 554", {Phase.GREETING: [Say(b"554 5.3.2 Not for you\r\n")]}, halt=True),
    _not_sent("greeting: 354", {Phase.GREETING: [Say(b"354 Go\r\n")]}),
    _not_sent("EHLO: 421", {Phase.EHLO: [Say(b"421 4.3.2 Busy\r\n")]}),
    _not_sent("EHLO: 550", {Phase.EHLO: [Say(b"550 5.7.1 Not for you\r\n")]}, halt=True),
    _accepted("greeting: multi-line", {Phase.GREETING: [Say(b"220-relay.example\r\n220 ESMTP\r\n")]}),
    _accepted("greeting: one octet at a time", {Phase.GREETING: [Say(b"220 relay.example\r\n", piecemeal=True)]}),
]


def _envelope_step(phase: Phase) -> list[Case]:
    return [
        *_broken(phase),
        _refused(f"{phase}: 421", {phase: [Say(b"421 4.3.2 Going down\r\n"), Fin()]}, transient=True),
        _refused(f"{phase}: 451", {phase: [Say(b"451 4.3.0 Later\r\n")]}, transient=True),
        _refused(f"{phase}: 550", {phase: [Say(b"550 5.1.1 Nobody\r\n")]}, transient=False),
        _refused(f"{phase}: 5yz of no known meaning", {phase: [Say(b"599\r\n")]}, transient=False),
        _refused(
            f"{phase}: 451 in several lines", {phase: [Say(b"451-4.3.0 Try\r\n451 4.3.0 later\r\n")]}, transient=True
        ),
        _not_sent(f"{phase}: 354", {phase: [Say(b"354 Go on\r\n")]}),
        _not_sent(f"{phase}: 334", {phase: [Say(b"334 \r\n")]}),
        _not_sent(f"{phase}: 150", {phase: [Say(b"150 Wait\r\n"), Hold()]}, hasty=True),
        _not_sent(f"{phase}: the code changes in mid-reply", {phase: [Say(b"250-one\r\n550 two\r\n")]}),
    ]


ENVELOPE_STEPS = [
    *_envelope_step(Phase.MAIL),
    *_envelope_step(Phase.RCPT),
    _accepted("MAIL: multi-line", {Phase.MAIL: [Say(b"250-2.1.0 one\r\n250 2.1.0 two\r\n")]}),
    _accepted("MAIL: one octet at a time", {Phase.MAIL: [Say(b"250 2.1.0 Ok\r\n", piecemeal=True)]}),
    _accepted("RCPT: 251", {Phase.RCPT: [Say(b"251 2.1.5 User not local; will forward\r\n")]}),
    _accepted("RCPT: 252", {Phase.RCPT: [Say(b"252 2.1.5 Cannot verify\r\n")]}),
]

DATA = [
    *_broken(Phase.DATA),
    _refused("DATA: 451", {Phase.DATA: [Say(b"451 4.3.0 Later\r\n")]}, transient=True),
    _refused("DATA: 554", {Phase.DATA: [Say(b"554 5.5.1 No valid recipients\r\n")]}, transient=False),
    _not_sent("DATA: 250", {Phase.DATA: [Say(b"250 2.0.0 Ok\r\n")]}),
    _not_sent("DATA: the code changes in mid-reply", {Phase.DATA: [Say(b"354-one\r\n250 two\r\n")]}),
    _not_sent("DATA: 354, and the reply to the dot with it", {Phase.DATA: [Say(b"354 Go\r\n250 2.0.0 Ok\r\n")]}),
    _not_sent("DATA: 354, and 421 with it", {Phase.DATA: [Say(b"354 Go\r\n421 4.3.2 Going down\r\n"), Fin()]}),
    _not_sent("DATA: 354, and half a line with it", {Phase.DATA: [Say(b"354 Go\r\n25")]}),
    _accepted("DATA: multi-line 354", {Phase.DATA: [Say(b"354-End with\r\n354 a dot\r\n")]}),
    _accepted("DATA: 3yz of no known meaning", {Phase.DATA: [Say(b"399 Go\r\n")]}),
    _accepted("DATA: 354 one octet at a time", {Phase.DATA: [Say(b"354 Go\r\n", piecemeal=True)]}),
]


def _doubtful(name: str, *actions: Say | Hold | Fin | Rst, hasty: bool = False) -> list[Case]:
    """The same fault twice: the relay took the message, or it did not; the two cannot be told apart."""
    return [
        Case(f"dot: {name}, not kept", {Phase.DOT: [*actions]}, InDoubt, hasty=hasty),
        Case(f"dot: {name}, kept", {Phase.DOT: [Keep(), *actions]}, InDoubt, kept=1, hasty=hasty),
    ]


def _dot(name: str, octets: bytes, *, piecemeal: bool = False) -> Case:
    return _accepted(f"dot: {name}", {Phase.DOT: [Keep(), Say(octets, piecemeal)]})


DOT = [
    _dot("250", b"250 2.0.0 Ok: queued as 4F2\r\n"),
    _dot("a bare 250", b"250\r\n"),
    _dot("250 and a line feed alone", b"250 2.0.0 Ok\n"),
    _dot("multi-line 250", b"250-2.0.0 one\r\n250 2.0.0 two\r\n"),
    _dot("one octet at a time", b"250-2.0.0 one\r\n250 2.0.0 two\r\n", piecemeal=True),
    _dot("251", b"251 Ok\r\n"),
    _dot("2yz of no known meaning", b"299 Ok\r\n"),
    _accepted("dot: 250 and FIN", {Phase.DOT: [Keep(), Say(b"250 2.0.0 Ok\r\n"), Fin()]}),
    _refused("dot: 421", {Phase.DOT: [Say(b"421 4.3.2 Going down\r\n"), Fin()]}, transient=True),
    _refused("dot: 451", {Phase.DOT: [Say(b"451 4.3.0 Later\r\n")]}, transient=True),
    _refused("dot: 452 in several lines", {Phase.DOT: [Say(b"452-4.3.1 Disk\r\n452 4.3.1 full\r\n")]}, transient=True),
    _refused("dot: 550", {Phase.DOT: [Say(b"550 5.7.1 Spam\r\n")]}, transient=False),
    _refused("dot: 5yz of no known meaning", {Phase.DOT: [Say(b"599\r\n")]}, transient=False),
    *_doubtful("nothing", Hold(), hasty=True),
    *_doubtful("FIN", Fin()),
    *_doubtful("RST", Rst()),
    *_doubtful("garbage", Say(b"Ok: queued\r\n")),
    *_doubtful("no final line", Say(b"250-2.0.0 one\r\n"), Fin()),
    *_doubtful("no line end", Say(b"250 2.0.0 Ok"), Fin()),
    *_doubtful("no line end, and then nothing", Say(b"250 2.0.0 Ok"), Hold(), hasty=True),
    *_doubtful("an endless line", ENDLESS, Hold()),
    *_doubtful("lines without end", Say(b"250-more\r\n" * 10_000), Hold()),
    *_doubtful("the code changes in mid-reply", Say(b"250-one\r\n550 two\r\n")),
    *_doubtful("354", Say(b"354 Go on\r\n")),
    *_doubtful("334", Say(b"334 \r\n")),
    *_doubtful("150", Say(b"150 Wait\r\n")),
    *_doubtful("a code of four digits", Say(b"2500 Ok\r\n")),
    *_doubtful("a code of two digits", Say(b"25 Ok\r\n")),
]


@pytest.mark.parametrize(
    "case", [*CONNECTING, *ENVELOPE_STEPS, *DATA, *DOT], ids=lambda case: case.name.replace(" ", "_")
)
def test_each_fault_has_its_outcome_and_the_relay_agrees(case: Case, extensions: tuple[str, ...]) -> None:
    with ScriptedRelay(case.script, extensions=extensions, kept=True) as relay:
        hurried = HASTE if case.hasty else PATIENCE
        timeout = PATIENCE if case.outcome is InDoubt else hurried
        outcome = submit(transport_to(relay.port, timeout=timeout, final_timeout=hurried))
        relay.release()
        relay.wait_until_over()
        assert type(outcome) is case.outcome, outcome
        assert getattr(outcome, "transient", None) == case.transient
        assert getattr(outcome, "halt", False) == case.halt
        assert len(relay.messages) == case.kept
        assert all(sent.octets == OCTETS for sent in relay.messages)
        _assert_left_cleanly(relay, outcome)


def _assert_left_cleanly(relay: ScriptedRelay, outcome: Outcome) -> None:
    """After 354 an aborted transaction says nothing that a relay could take for the message or its end."""
    (seen,) = relay.seen
    assert not seen.commands_in_body
    assert "RSET" not in seen.verbs
    assert seen.dots == (0 if isinstance(outcome, NotSent) else seen.dots)
    if isinstance(outcome, (NotSent, InDoubt)) and "DATA" in seen.verbs:
        assert "QUIT" not in seen.verbs
    if isinstance(outcome, Refused) and not seen.dots and "PIPELINING" in relay.extensions:
        assert "QUIT" not in seen.verbs


FAULTS_IN_BODY = {
    "421": [Say(b"421 4.3.2 Going down\r\n")],
    "421 and FIN": [Say(b"421 4.3.2 Going down\r\n"), Fin()],
    "451": [Say(b"451 4.3.0 Later\r\n")],
    "250": [Say(b"250 2.0.0 Ok\r\n")],
    "half a line": [Say(b"25")],
    "a line of several": [Say(b"250-2.0.0 Ok\r\n")],
    "garbage": [Say(b"%$!\r\n")],
    "FIN": [Fin()],
    "RST": [Rst()],
}


@pytest.mark.parametrize("security", ["none", "starttls"])
@pytest.mark.parametrize("fault", FAULTS_IN_BODY)
def test_a_relay_that_speaks_or_leaves_during_the_body_gets_no_dot(
    fault: str, security: str, certificate: Certificate, extensions: tuple[str, ...]
) -> None:
    script = {Phase.BODY: FAULTS_IN_BODY[fault]}
    with ScriptedRelay(script, tls=certificate.server(), extensions=extensions, kept=True) as relay:

        async def enter_without_a_turn_of_the_loop() -> GapEntered:
            assert relay.spoke.wait(PATIENCE)  # it blocks, so nothing is read before transport looks for itself
            return GapEntered(boottime())

        transport = transport_to(relay.port, security=security, tls=certificate.trusting())
        outcome = submit(transport, enter_gap=enter_without_a_turn_of_the_loop)
        relay.wait_until_over()
        assert isinstance(outcome, NotSent), outcome
        assert outcome.transient
        assert not outcome.halt
        assert relay.messages == []
        _assert_left_cleanly(relay, outcome)


def test_a_relay_that_stops_reading_the_body_never_sees_its_dot() -> None:
    with ScriptedRelay({Phase.BODY: [Hold()]}) as relay:
        entries: list[GapEntered] = []

        async def enter() -> GapEntered:
            entries.append(await entered())
            return entries[-1]

        outcome = submit(transport_to(relay.port, timeout=HASTE), octets=LARGE, enter_gap=enter)
        relay.release()
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert entries == []
        assert relay.messages == []
        _assert_left_cleanly(relay, outcome)
        assert len(relay.seen[0].body) < len(LARGE)


def test_a_gap_that_is_refused_ends_without_a_dot() -> None:
    async def refuse() -> GapRefused:
        return GapRefused("it was stopped")

    with ScriptedRelay() as relay:
        outcome = submit(transport_to(relay.port), enter_gap=refuse)
        relay.wait_until_over()
        assert outcome == NotSent("it was stopped")
        assert relay.messages == []
        _assert_left_cleanly(relay, outcome)


def test_a_gap_that_raises_ends_without_a_dot() -> None:
    async def fail() -> GapEntered:
        raise RuntimeError("the writer is gone")

    with ScriptedRelay() as relay:
        with pytest.raises(RuntimeError, match="the writer is gone"):
            submit(transport_to(relay.port), enter_gap=fail)
        relay.wait_until_over()
        assert relay.messages == []
        assert relay.seen[0].dots == 0


@pytest.mark.parametrize(("age", "outcome"), [(0.0, Accepted), (1.5, Accepted), (2.0, NotSent), (3.0, NotSent)])
def test_the_dot_is_written_only_while_the_gap_is_fresh(age: float, outcome: type[Outcome]) -> None:
    async def enter_long_ago() -> GapEntered:
        return GapEntered(boottime() - age)

    with ScriptedRelay() as relay:
        assert type(submit(transport_to(relay.port), enter_gap=enter_long_ago)) is outcome
        relay.wait_until_over()
        assert len(relay.messages) == (1 if outcome is Accepted else 0)


def test_the_gap_is_entered_only_after_the_whole_message_is_written() -> None:
    with ScriptedRelay({Phase.BODY: [Hold()]}) as relay:

        async def enter_while_the_relay_reads_nothing() -> GapEntered:
            relay.release()
            return await entered()

        outcome = submit(transport_to(relay.port), enter_gap=enter_while_the_relay_reads_nothing)
        relay.wait_until_over()
        assert isinstance(outcome, Accepted)
        assert relay.messages[0].octets == OCTETS  # the kernel held it all while nothing was read


def test_a_relay_that_is_not_there_is_transient() -> None:
    with ScriptedRelay() as relay:
        port = relay.port
    outcome = submit(transport_to(port))
    assert isinstance(outcome, NotSent)
    assert outcome.transient
    assert not outcome.halt


def test_a_relay_whose_name_is_unknown_is_transient() -> None:
    outcome = submit(SmtpTransport(Relay("relay.invalid", 25, "none", timeout=5, final_timeout=5)))
    assert isinstance(outcome, NotSent)
    assert outcome.transient
    assert not outcome.halt


def test_the_envelope_is_what_mail_and_rcpt_say() -> None:
    with ScriptedRelay() as relay:
        submit(transport_to(relay.port))
        relay.wait_until_over()
        assert (relay.messages[0].sender, relay.messages[0].recipients) == (ENVELOPE.sender, ENVELOPE.recipients)
        assert relay.seen[0].verbs == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]
