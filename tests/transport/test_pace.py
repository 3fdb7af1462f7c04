"""How many sends a relay is given at a time, after it has turned some away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from outbox.transport.outcome import Accepted, NotSent, Refused
from outbox.transport.smtp import GapEntered, SmtpTransport
from tests.relay.certificate import Certificate
from tests.relay.scripted import Fin, Hold, Phase, Rst, Say, Script, ScriptedRelay
from tests.relay.submission import ENVELOPE, OCTETS, entered, transport_to

LANES = 10
BUSY = [Say(b"421 4.7.0 Too many connections\r\n"), Fin()]


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def nobody() -> Iterator[int]:
    """A port on loopback that is bound and that nobody listens to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def send(transport: SmtpTransport, times: int = 1) -> set[type]:
    """Send so many messages, one after the other."""
    return {type(await transport.send(ENVELOPE, OCTETS, entered)) for _ in range(times)}


def test_in_health_there_is_a_place_for_every_lane() -> None:
    async def healthy(relay: ScriptedRelay) -> None:
        transport = transport_to(relay.port, lanes=LANES)
        assert (transport.places, transport.rest) == (LANES, 0)
        assert await send(transport, 3) == {Accepted}
        assert (transport.places, transport.rest) == (LANES, 0)
        await transport.close()

    with ScriptedRelay() as relay:
        asyncio.run(healthy(relay))


TURNED_AWAY: dict[str, Script] = {
    "greeting: 421": {Phase.GREETING: BUSY},
    "greeting: FIN": {Phase.GREETING: [Fin()]},
    "greeting: RST": {Phase.GREETING: [Rst()]},
    "greeting: nothing": {Phase.GREETING: [Hold()]},
    "EHLO: 421": {Phase.EHLO: BUSY},
    "STARTTLS: 454": {Phase.STARTTLS: [Say(b"454 4.7.0 TLS not available\r\n")]},
    "AUTH: 454": {Phase.AUTH: [Say(b"454 4.7.0 Later\r\n")]},
    "MAIL: 421": {Phase.MAIL: BUSY},
    "RCPT: 421": {Phase.RCPT: BUSY},
    "dot: 421": {Phase.DOT: BUSY},
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a login that fails leaves asyncio one
@pytest.mark.parametrize("case", TURNED_AWAY, ids=lambda name: name.replace(" ", "_"))
def test_a_relay_that_turns_a_connection_away_gets_one_at_a_time_and_more_with_each_success(
    certificate: Certificate, case: str
) -> None:
    async def slowly(relay: ScriptedRelay) -> None:
        transport = transport_to(
            relay.port,
            timeout=0.5,
            security="starttls",
            tls=certificate.trusting(),
            login=("sales", "pw"),
            lanes=LANES,
        )
        assert await send(transport) <= {NotSent, Refused}
        relay.release()
        assert (transport.places, transport.rest) == (1, 0)
        for places in range(2, LANES + 1):
            assert await send(transport) == {Accepted}
            assert transport.places == places
        assert await send(transport, 2) == {Accepted}
        assert transport.places == LANES
        await transport.close()

    with ScriptedRelay(TURNED_AWAY[case], tls=certificate.server(), login=("sales", "pw"), kept=True) as relay:
        asyncio.run(slowly(relay))


@pytest.mark.parametrize(
    "script",
    [{Phase.RCPT: [Say(b"550 5.1.1 Nobody\r\n")]}, {Phase.AUTH: [Say(b"535 5.7.8 No\r\n")]}],
    ids=["550", "535"],
)
def test_a_refusal_of_a_message_or_a_login_says_nothing_about_their_number(script: Script) -> None:
    async def refused(relay: ScriptedRelay) -> None:
        transport = transport_to(relay.port, lanes=LANES, login=("sales", "pw"))
        assert await send(transport) <= {NotSent, Refused}
        assert (transport.places, transport.rest) == (LANES, 0)
        await transport.close()

    with ScriptedRelay(script, login=("sales", "pw")) as relay:
        asyncio.run(refused(relay))


def test_a_relay_that_takes_some_and_turns_away_others_keeps_those_it_takes() -> None:
    """The way up from there is one by one, and slower each time it fails."""
    clock = Clock()

    async def many(relay: ScriptedRelay) -> None:
        transport = transport_to(relay.port, lanes=LANES, clock=clock)

        async def three_and_one_more() -> None:
            inside = asyncio.Barrier(4)

            async def enter() -> GapEntered:
                await inside.wait()
                await inside.wait()
                return await entered()

            sends = [asyncio.create_task(transport.send(ENVELOPE, OCTETS, enter)) for _ in range(3)]
            await inside.wait()
            assert await send(transport) == {NotSent}
            assert transport.places == 3
            await inside.wait()
            await asyncio.wait(sends)
            assert {type(one.result()) for one in sends} == {Accepted}

        await three_and_one_more()
        assert await send(transport, 2 * LANES) == {Accepted}
        assert transport.places == 3
        clock.now += 10
        assert await send(transport, 2 * LANES) == {Accepted}
        assert transport.places == 4
        await three_and_one_more()
        clock.now += 19
        assert await send(transport, 2 * LANES) == {Accepted}
        assert transport.places == 3
        clock.now += 1
        assert await send(transport, 2 * LANES) == {Accepted}
        assert transport.places == 4
        await transport.close()

    with ScriptedRelay({}, {}, {}, then={Phase.GREETING: BUSY}, kept=True) as relay:
        asyncio.run(many(relay))
        assert relay.connections == 5


def test_connecting_that_fails_again_and_again_is_tried_ever_more_rarely() -> None:
    clock = Clock()

    async def fail() -> list[float]:
        transport = transport_to(port, lanes=LANES, clock=clock)
        rests = []
        for _ in range(16):
            assert await send(transport) == {NotSent}
            rests.append(round(transport.rest, 3))
            assert transport.places == 1
            clock.now += transport.rest + 0.001
            assert transport.rest == 0
        return rests

    with nobody() as port:
        rests = asyncio.run(fail())
    assert rests[:7] == [0, 0, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert rests[-2:] == [60, 60]


def test_sends_that_fail_together_count_as_one() -> None:
    async def fail() -> None:
        transport = transport_to(port, lanes=LANES)
        sends = (transport.send(ENVELOPE, OCTETS, entered) for _ in range(LANES))
        assert {type(outcome) for outcome in await asyncio.gather(*sends)} == {NotSent}
        assert (transport.places, transport.rest) == (1, 0)

    with nobody() as port:
        asyncio.run(fail())


def test_a_relay_that_lets_us_in_again_ends_the_rest() -> None:
    async def come_back() -> None:
        transport = transport_to(relay.port, lanes=LANES)
        assert await send(transport, 3) == {NotSent}
        assert 0 < transport.rest <= 0.1
        assert await send(transport) == {Accepted}
        assert transport.rest == 0
        await transport.close()

    with ScriptedRelay(*[{Phase.GREETING: BUSY}] * 3) as relay:
        asyncio.run(come_back())
