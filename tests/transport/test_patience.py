"""One timer watches a connection: it breaks what is overdue, and nothing that is not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import pytest

from outbox.transport.outcome import Accepted, InDoubt, NotSent, Outcome
from outbox.transport.smtp import GapEntered, SmtpTransport
from tests.relay.scripted import Hold, Keep, Phase, Say, ScriptedRelay
from tests.relay.submission import ENVELOPE, OCTETS, entered, transport_to

Result = TypeVar("Result")
TAKEN = Say(b"250 2.0.0 Ok\r\n")


class Jumping(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def run(work: Coroutine[object, object, Result]) -> Result:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        return runner.run(work)


def jump(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Jumping)
    loop.ahead += seconds


async def when_holding(relay: ScriptedRelay, transport: SmtpTransport, *jumps: float) -> Outcome:
    """Send one message, and put the clock forward while the relay holds; then let it go on."""
    sending = asyncio.create_task(transport.send(ENVELOPE, OCTETS, entered))
    await asyncio.to_thread(relay.wait_until_holding)
    for seconds in jumps:
        jump(seconds)
        for _ in range(3):
            await asyncio.sleep(0)
    relay.release()
    try:
        return await sending
    finally:
        await transport.close()


@pytest.mark.parametrize(("jumps", "outcome"), [((299.0,), Accepted), ((150.0, 149.0), Accepted), ((301.0,), NotSent)])
@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA])
def test_a_reply_has_its_timeout_and_no_more(
    phase: Phase, jumps: tuple[float, ...], outcome: type[Outcome], extensions: tuple[str, ...]
) -> None:
    good = Say(b"354 Go\r\n" if phase is Phase.DATA else b"250 2.0.0 Ok\r\n")
    with ScriptedRelay({phase: [Hold(), good]}, extensions=extensions) as relay:
        transport = transport_to(relay.port, timeout=300, final_timeout=600)
        assert type(run(when_holding(relay, transport, *jumps))) is outcome


@pytest.mark.parametrize(
    ("jumps", "outcome"), [((301.0,), Accepted), ((301.0, 298.0), Accepted), ((301.0, 300.0), InDoubt)]
)
def test_the_reply_to_the_dot_has_the_final_timeout(jumps: tuple[float, ...], outcome: type[Outcome]) -> None:
    with ScriptedRelay({Phase.DOT: [Keep(), Hold(), TAKEN]}) as relay:
        transport = transport_to(relay.port, timeout=300, final_timeout=600)
        assert type(run(when_holding(relay, transport, *jumps))) is outcome


def test_waiting_for_the_gap_uses_up_nobody_s_patience() -> None:
    async def enter_late() -> GapEntered:
        jump(10_000)
        for _ in range(3):
            await asyncio.sleep(0)
        return await entered()

    async def send(transport: SmtpTransport) -> Outcome:
        try:
            return await transport.send(ENVELOPE, OCTETS, enter_late)
        finally:
            await transport.close()

    with ScriptedRelay() as relay:
        assert isinstance(run(send(transport_to(relay.port, timeout=300, final_timeout=600))), Accepted)


@pytest.mark.parametrize("messages", [1, 3])
def test_a_connection_that_is_not_used_for_a_minute_is_left(messages: int) -> None:
    async def idle(relay: ScriptedRelay) -> None:
        transport = transport_to(relay.port)
        for _ in range(messages):
            assert isinstance(await transport.send(ENVELOPE, OCTETS, entered), Accepted)
            jump(59)
            await asyncio.sleep(0)
            assert not relay.seen[0].over.is_set()
        jump(2)
        await asyncio.to_thread(relay.wait_until_over)

    with ScriptedRelay() as relay:
        run(idle(relay))
        assert relay.seen[0].verbs == ["EHLO", *(["MAIL", "RCPT", "DATA"] * messages), "QUIT"]
