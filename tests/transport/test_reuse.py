"""A connection carries one message after the other, as long as both sides know where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import pytest

from outbox.core.draft import Envelope
from outbox.transport.outcome import Accepted, InDoubt, NotSent, Outcome, Refused
from outbox.transport.smtp import GapEntered, GapRefused, SmtpTransport
from tests.relay.adversary import (
    EXTENSIONS,
    ONE_AT_A_TIME,
    Adversary,
    Fin,
    Hold,
    Keep,
    Phase,
    Rst,
    Say,
    Script,
    Wait,
    complete,
)
from tests.relay.certificate import Certificate
from tests.relay.scripted import PATIENCE, ScriptedRelay
from tests.relay.submission import ENVELOPE, JANE, OCTETS, entered, transport_to

SECOND = Envelope("n2@acme.example", (JANE,))
THIRD = Envelope("n3@acme.example", (JANE,))
PLAIN = ["EHLO", "MAIL", "RCPT", "DATA"]
HASTE = 0.5  # seconds, where a timeout is what is tested
Actions = Sequence[Say | Fin | Rst | Hold | Keep | Wait]


def in_one_loop(transport: SmtpTransport, *sends: Callable[[], Awaitable[Outcome]]) -> list[Outcome]:
    """What becomes of these, one after the other, before the transport is closed."""

    async def all_of_them() -> list[Outcome]:
        try:
            return [await send() for send in sends]
        finally:
            await transport.close()

    return asyncio.run(all_of_them())


def sending(
    transport: SmtpTransport, envelope: Envelope = ENVELOPE, octets: bytes = OCTETS
) -> Callable[[], Awaitable[Outcome]]:
    return lambda: transport.send(envelope, octets, entered)


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_one_connection_carries_many_messages(
    certificate: Certificate, security: str, extensions: tuple[str, ...]
) -> None:
    tls = None if security == "none" else certificate.server()
    with ScriptedRelay(tls=tls, implicit_tls=security == "tls", extensions=extensions) as relay:
        transport = transport_to(relay.port, security=security, tls=certificate.trusting())  # type: ignore[arg-type]
        octets = [OCTETS + b"%d\r\n" % number for number in range(10)]
        outcomes = in_one_loop(transport, *(sending(transport, octets=each) for each in octets))
        relay.wait_until_over()
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert [sent.octets for sent in relay.messages] == octets
        assert relay.connections == 1
        assert [verb for verb in relay.seen[0].verbs if verb not in {"EHLO", "STARTTLS"}] == [
            *(["MAIL", "RCPT", "DATA"] * 10),
            "QUIT",
        ]


def test_as_many_connections_are_made_as_there_are_messages_at_a_time() -> None:
    async def twice_three(transport: SmtpTransport) -> None:
        for _ in range(2):
            together = asyncio.Barrier(3)

            async def enter_together(together: asyncio.Barrier = together) -> GapEntered:
                await together.wait()
                return await entered()

            sends = (transport.send(ENVELOPE, OCTETS, enter_together) for _ in range(3))
            assert {type(outcome) for outcome in await asyncio.gather(*sends)} == {Accepted}
        await transport.close()

    with ScriptedRelay() as relay:
        asyncio.run(twice_three(transport_to(relay.port)))
        relay.wait_until_over()
        assert relay.connections == 3
        assert len(relay.messages) == 6


# An idle connection

ON_IDLE: dict[str, Actions] = {
    "421": [complete(421, "4.4.2 Idle for too long")],
    "421 and FIN": [complete(421, "4.4.2 Idle for too long"), Fin()],
    "FIN": [Fin()],
    "a second reply": [complete(250, "2.0.0 Ok")],
    "half a line": [Say(b"25")],
    "garbage": [Say(b"%$!\r\n")],
}


@pytest.mark.parametrize("security", ["none", "starttls"])
@pytest.mark.parametrize("happens", ON_IDLE, ids=lambda name: name.replace(" ", "_"))
def test_a_relay_that_speaks_or_leaves_while_nothing_is_asked_loses_the_connection_at_once(
    certificate: Certificate, happens: str, security: str
) -> None:
    async def idle(relay: ScriptedRelay) -> None:
        transport = transport_to(relay.port, security=security, tls=certificate.trusting())  # type: ignore[arg-type]
        assert isinstance(await transport.send(ENVELOPE, OCTETS, entered), Accepted)
        relay.release()
        await asyncio.to_thread(relay.wait_until_over)
        assert isinstance(await transport.send(ENVELOPE, OCTETS, entered), Accepted)
        await transport.close()

    answer = [Keep(), complete(250, "2.0.0 Ok"), Hold(), *ON_IDLE[happens]]
    with ScriptedRelay({Phase.DOT: answer}, tls=certificate.server(), kept=True) as relay:
        asyncio.run(idle(relay))
        relay.wait_until_over()
        assert relay.connections == 2
        assert relay.seen[0].verbs.count("MAIL") == 1
        assert len(relay.messages) == 2


def test_a_reset_on_idle_costs_no_message() -> None:
    async def idle(relay: ScriptedRelay) -> None:
        transport = transport_to(relay.port)
        assert isinstance(await transport.send(ENVELOPE, OCTETS, entered), Accepted)
        relay.release()
        await asyncio.to_thread(relay.wait_until_over)
        assert isinstance(await transport.send(ENVELOPE, OCTETS, entered), Accepted)
        await transport.close()

    with ScriptedRelay({Phase.DOT: [Keep(), complete(250, "2.0.0 Ok"), Hold(), Rst()]}, kept=True) as relay:
        asyncio.run(idle(relay))
        assert relay.connections == 2
        assert len(relay.messages) == 2


def test_what_comes_with_the_reply_to_the_dot_ends_the_connection_and_not_the_message(
    extensions: tuple[str, ...],
) -> None:
    answer = [Keep(), Say(b"250 2.0.0 Ok\r\n550 5.7.1 No\r\n")]
    with ScriptedRelay({Phase.DOT: answer}, extensions=extensions, kept=True) as relay:
        transport = transport_to(relay.port)
        first, second = in_one_loop(transport, sending(transport), sending(transport, SECOND))
        relay.wait_until_over()
        assert isinstance(first, Accepted)
        assert first.reply.code == 250
        assert isinstance(second, Accepted)
        assert [seen.verbs for seen in relay.seen] == [PLAIN, [*PLAIN, "QUIT"]]


# How long


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("pauses", "connections"),
    [([59.0], 1), ([60.0], 2), ([59.0] * 5, 1), ([59.0] * 5 + [4.0], 1), ([59.0] * 5 + [5.0], 2)],
    ids=["59 s idle", "60 s idle", "295 s old", "299 s old", "300 s old"],
)
def test_a_connection_is_used_again_for_so_long_however_many_messages_it_carried(
    pauses: list[float], connections: int
) -> None:
    clock = Clock()

    async def now_and_then(relay: ScriptedRelay) -> None:
        transport = transport_to(relay.port, clock=clock)
        assert isinstance(await transport.send(ENVELOPE, OCTETS, entered), Accepted)
        for pause in pauses:
            clock.now += pause
            assert isinstance(await transport.send(ENVELOPE, OCTETS, entered), Accepted)
        await transport.close()

    with ScriptedRelay() as relay:
        asyncio.run(now_and_then(relay))
        relay.wait_until_over()
        assert relay.connections == connections
        assert all(seen.verbs[-1] == "QUIT" for seen in relay.seen)
        assert len(relay.messages) == 1 + len(pauses)


def test_a_connection_that_grew_old_over_its_message_is_not_kept() -> None:
    clock = Clock()

    async def grow_old() -> GapEntered:
        clock.now += 301
        return await entered()

    async def slowly(relay: ScriptedRelay) -> None:
        transport = transport_to(relay.port, clock=clock)
        assert isinstance(await transport.send(ENVELOPE, OCTETS, grow_old), Accepted)
        await asyncio.to_thread(relay.wait_until_over)

    with ScriptedRelay() as relay:
        asyncio.run(slowly(relay))
        assert relay.seen[0].verbs[-1] == "QUIT"


# What turns out to be gone

SILENT: dict[str, Actions] = {
    "FIN": [Fin()],
    "RST": [Rst()],
    "421": [complete(421, "4.4.2 Idle for too long"), Fin()],
    "421 alone": [complete(421, "4.4.2 Idle for too long")],
    "half a reply": [Say(b"250-one\r\n25"), Fin()],
    "garbage": [Say(b"%$!\r\n")],
    "nothing": [Hold()],
}


class OnlyWhereUsed(Adversary):
    """Treats every transaction well on a new connection."""

    def script_of(self, sender: str, *, used: bool) -> Script:
        return super().script_of(sender, used=used) if used else {}


@pytest.mark.parametrize("silence", SILENT, ids=lambda name: name.replace(" ", "_"))
def test_a_message_goes_on_a_new_connection_where_a_used_one_never_answered_mail(
    silence: str, extensions: tuple[str, ...]
) -> None:
    entries = []

    async def enter() -> GapEntered:
        entries.append(await entered())
        return entries[-1]

    with OnlyWhereUsed(senders={SECOND.sender: [{Phase.MAIL: SILENT[silence]}]}, extensions=extensions) as relay:
        transport = transport_to(relay.port, timeout=HASTE if silence == "nothing" else PATIENCE)
        outcomes = in_one_loop(
            transport, sending(transport), lambda: transport.send(SECOND, OCTETS, enter), sending(transport)
        )
        relay.settle()
        assert [type(outcome) for outcome in outcomes] == [Accepted] * 3
        assert [sent.sender for sent in relay.messages] == [ENVELOPE.sender, SECOND.sender, ENVELOPE.sender]
        assert relay.connections == 2
        assert len(entries) == 1


@pytest.mark.parametrize("silence", [name for name in SILENT if name != "nothing"], ids=lambda s: s.replace(" ", "_"))
def test_a_message_is_tried_on_a_new_connection_once(silence: str, extensions: tuple[str, ...]) -> None:
    scripts = [{Phase.MAIL: SILENT[silence]}, {}]
    with Adversary(senders={SECOND.sender: scripts}, extensions=extensions) as relay:
        transport = transport_to(relay.port)
        first, second = in_one_loop(transport, sending(transport), sending(transport, SECOND))
        relay.settle()
        assert isinstance(first, Accepted)
        assert isinstance(second, Refused if "421" in silence else NotSent)
        assert second.transient
        assert relay.connections == 2
        assert [sent.sender for sent in relay.messages] == [ENVELOPE.sender]


@pytest.mark.parametrize("silence", ["FIN", "421", "garbage"])
def test_a_new_connection_that_never_answers_mail_is_not_tried_again(silence: str, extensions: tuple[str, ...]) -> None:
    with ScriptedRelay({Phase.MAIL: SILENT[silence]}, extensions=extensions, kept=True) as relay:
        transport = transport_to(relay.port)
        (outcome,) = in_one_loop(transport, sending(transport))
        assert isinstance(outcome, Refused if silence == "421" else NotSent)
        assert relay.connections == 1


LATER_FAULTS: dict[str, tuple[Script, type[Outcome]]] = {
    "MAIL: 450": ({Phase.MAIL: [complete(450, "4.2.0 Busy")]}, Refused),
    "MAIL: 550": ({Phase.MAIL: [complete(550, "5.7.1 No")]}, Refused),
    "MAIL: 354": ({Phase.MAIL: [complete(354, "Go")]}, NotSent),
    "MAIL: 450 and FIN": ({Phase.MAIL: [complete(450, "4.2.0 Busy"), Fin()]}, Refused),
    "RCPT: FIN": ({Phase.RCPT: [Fin()]}, NotSent),
    "RCPT: RST": ({Phase.RCPT: [Wait(0.05), Rst()]}, NotSent),
    "RCPT: 421": ({Phase.RCPT: [complete(421, "4.3.2 Going down"), Fin()]}, Refused),
    "DATA: FIN": ({Phase.DATA: [Fin()]}, NotSent),
    "DATA: 421": ({Phase.DATA: [complete(421, "4.3.2 Going down"), Fin()]}, Refused),
    "DATA: 250": ({Phase.DATA: [complete(250, "2.0.0 Ok")]}, NotSent),
    "dot: FIN": ({Phase.DOT: [Keep(), Fin()]}, InDoubt),
    "dot: RST": ({Phase.DOT: [Keep(), Rst()]}, InDoubt),
    "dot: 421": ({Phase.DOT: [complete(421, "4.3.2 Going down"), Fin()]}, Refused),
    "dot: garbage": ({Phase.DOT: [Keep(), Say(b"%$!\r\n")]}, InDoubt),
}


@pytest.mark.parametrize("fault", LATER_FAULTS, ids=lambda name: name.replace(" ", "_"))
def test_nothing_is_tried_again_once_the_relay_has_answered_mail(fault: str, extensions: tuple[str, ...]) -> None:
    script, expected = LATER_FAULTS[fault]
    with Adversary(senders={SECOND.sender: [script]}, extensions=extensions) as relay:
        transport = transport_to(relay.port)
        _, second = in_one_loop(transport, sending(transport), sending(transport, SECOND))
        relay.settle()
        assert type(second) is expected
        assert relay.connections == 1
        assert sum(line.startswith(b"MAIL") for line in relay.seen[0].commands) == 2
        assert not relay.seen[0].commands_in_body


# What is used again, and what has to go before


def verbs_of_two(script: Script, extensions: tuple[str, ...], expected: type[Outcome]) -> list[list[str]]:
    """A first message that ends as `expected`, and a second one that is taken: what the relay heard, by connection."""
    with Adversary(senders={ENVELOPE.sender: [script]}, extensions=extensions) as relay:
        transport = transport_to(relay.port)
        first, second = in_one_loop(transport, sending(transport), sending(transport, SECOND))
        relay.settle()
        assert type(first) is expected
        assert isinstance(second, Accepted)
        assert [sent.sender for sent in relay.messages if sent.sender == SECOND.sender] == [SECOND.sender]
        assert not [line for seen in relay.seen for line in seen.commands_in_body]
        return [seen.verbs for seen in relay.seen]


@pytest.mark.parametrize("code", [451, 550])
def test_a_refused_dot_leaves_the_connection_as_it_was(code: int, extensions: tuple[str, ...]) -> None:
    verbs = verbs_of_two({Phase.DOT: [complete(code, "No")]}, extensions, Refused)
    assert verbs == [[*PLAIN, *PLAIN[1:], "QUIT"]]


@pytest.mark.parametrize(
    ("phase", "between"),
    [
        (Phase.MAIL, ["EHLO", "MAIL"]),
        (Phase.RCPT, ["EHLO", "MAIL", "RCPT", "RSET"]),
        (Phase.DATA, ["EHLO", "MAIL", "RCPT", "DATA", "RSET"]),
    ],
)
@pytest.mark.parametrize("code", [451, 550])
def test_an_envelope_that_was_begun_and_refused_is_taken_back_before_the_next(
    phase: Phase, between: list[str], code: int
) -> None:
    verbs = verbs_of_two({phase: [complete(code, "No")]}, ONE_AT_A_TIME, Refused)
    assert verbs == [[*between, *PLAIN[1:], "QUIT"]]


@pytest.mark.parametrize("answer", [[Fin()], [complete(421, "4.3.2 Bye"), Fin()], [complete(500, "5.5.1 What?")]])
def test_a_connection_that_does_not_take_an_envelope_back_is_not_used(answer: Actions) -> None:
    script: Script = {Phase.RCPT: [complete(550, "5.1.1 Nobody")], Phase.RSET: answer}  # type: ignore[dict-item]
    verbs = verbs_of_two(script, ONE_AT_A_TIME, Refused)
    assert verbs == [["EHLO", "MAIL", "RCPT", "RSET"], [*PLAIN, "QUIT"]]


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA])
@pytest.mark.parametrize("code", [421, 451, 550])
def test_a_refusal_with_data_under_way_ends_the_connection_without_a_word(phase: Phase, code: int) -> None:
    left, verbs = verbs_of_two({phase: [complete(code, "No")]}, EXTENSIONS, Refused)
    assert left == PLAIN[: len(left)]  # what was under way as it was reset, the relay need not have read
    assert verbs == [*PLAIN, "QUIT"]


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT])
def test_a_relay_that_is_leaving_is_not_asked_again(phase: Phase) -> None:
    verbs = verbs_of_two({phase: [complete(421, "4.3.2 Going down")]}, ONE_AT_A_TIME, Refused)
    assert len(verbs) == 2
    said = PLAIN.index(phase) + 1 if phase != Phase.DOT else len(PLAIN)
    assert verbs[0][said:] in ([], ["QUIT"])


def test_a_message_that_the_relay_cannot_take_leaves_the_connection_to_the_next() -> None:
    with ScriptedRelay(extensions=("PIPELINING", f"SIZE {len(OCTETS)}")) as relay:
        transport = transport_to(relay.port)
        too_large = sending(transport, octets=OCTETS + b"more\r\n")
        outcomes = in_one_loop(transport, sending(transport), too_large, sending(transport))
        relay.wait_until_over()
        assert [type(outcome) for outcome in outcomes] == [Accepted, NotSent, Accepted]
        assert [seen.verbs for seen in relay.seen] == [[*PLAIN, *PLAIN[1:], "QUIT"]]


async def _refuse() -> GapRefused:
    return GapRefused("it was stopped")


async def _fail() -> GapEntered:
    raise RuntimeError("the writer is gone")


@pytest.mark.parametrize(
    ("enter_gap", "raised"),
    [(_refuse, nullcontext()), (_fail, pytest.raises(RuntimeError, match="the writer is gone"))],
    ids=["refused", "raised"],
)
def test_a_message_that_was_written_and_not_ended_ends_its_connection(
    enter_gap: Callable[[], Awaitable[GapEntered | GapRefused]], raised: AbstractContextManager[object]
) -> None:
    async def two(relay: ScriptedRelay) -> None:
        transport = transport_to(relay.port)
        assert isinstance(await transport.send(ENVELOPE, OCTETS, entered), Accepted)
        with raised:
            assert isinstance(await transport.send(ENVELOPE, OCTETS, enter_gap), NotSent)
        assert isinstance(await transport.send(SECOND, OCTETS, entered), Accepted)
        await transport.close()

    with ScriptedRelay() as relay:
        asyncio.run(two(relay))
        relay.wait_until_over()
        assert [seen.verbs for seen in relay.seen] == [[*PLAIN, *PLAIN[1:]], [*PLAIN, "QUIT"]]
        assert [sent.sender for sent in relay.messages] == [ENVELOPE.sender, SECOND.sender]


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT])
def test_a_send_that_is_cancelled_takes_its_connection_with_it(phase: Phase, extensions: tuple[str, ...]) -> None:
    async def cancelled(relay: Adversary) -> None:
        transport = transport_to(relay.port)
        assert isinstance(await transport.send(ENVELOPE, OCTETS, entered), Accepted)
        second = asyncio.create_task(transport.send(SECOND, OCTETS, entered))
        await asyncio.to_thread(relay.wait_until_holding)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        relay.release()
        assert isinstance(await transport.send(THIRD, OCTETS, entered), Accepted)
        await transport.close()

    with Adversary(senders={SECOND.sender: [{phase: [Hold()]}]}, extensions=extensions) as relay:
        asyncio.run(cancelled(relay))
        relay.settle()
        assert relay.connections == 2
        assert not relay.seen[0].commands_in_body
        assert [sent.sender for sent in relay.messages] == [ENVELOPE.sender, THIRD.sender]


def test_closing_takes_leave_of_every_connection_and_a_transport_can_be_used_after_it() -> None:
    with ScriptedRelay() as relay:
        transport = transport_to(relay.port)
        for _ in range(2):
            (outcome,) = in_one_loop(transport, sending(transport))
            assert isinstance(outcome, Accepted)
        relay.wait_until_over()
        assert [seen.verbs for seen in relay.seen] == [[*PLAIN, "QUIT"]] * 2
