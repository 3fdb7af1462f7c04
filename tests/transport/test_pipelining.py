"""An envelope in one write, its replies in order, whatever else the relay says and however slowly (RFC 2920)."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import pytest

from outbox.core.draft import Envelope
from outbox.transport.outcome import Accepted, Heard, InDoubt, NotSent, Outcome, Refused
from outbox.transport.smtp import GapEntered
from tests.relay.adversary import Adversary, Drip, Wait
from tests.relay.certificate import Certificate
from tests.relay.scripted import EXTENSIONS, ONE_AT_A_TIME, PATIENCE, Fin, Hold, Keep, Phase, Say, Script, ScriptedRelay
from tests.relay.submission import ENVELOPE, JACK, JANE, OCTETS, SENDER, entered, submit, transport_to

TWO = Envelope(SENDER, (JANE,), (JACK,))
MANY = Envelope(SENDER, tuple(f"{'x' * 50}{number}@customer.example" for number in range(500)))
HASTE = 0.5  # seconds, where a timeout is what is tested


class RawRelay:
    """Takes one client and follows one function of the socket."""

    def __init__(self, talk: Callable[[socket.socket], None], *, window: int | None = None) -> None:
        self._talk, self._window = talk, window

    def __enter__(self) -> Self:
        self._listener = socket.socket()
        if self._window is not None:  # before it listens, so that the client is told
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._window)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._window)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(PATIENCE)
        with client, suppress(ConnectionError):
            self._talk(client)


def read_until(client: socket.socket, end: bytes) -> bytes:
    """What the client says up to and with `end`."""
    heard = b""
    while not heard.endswith(end):
        received = client.recv(65536)
        assert received, heard
        heard += received
    return heard


def greet(client: socket.socket, *offers: bytes) -> None:
    """Up to the reply to EHLO."""
    client.sendall(b"220 relay.example ESMTP\r\n")
    read_until(client, b"\r\n")
    client.sendall(b"".join(b"250-%s\r\n" % line for line in (b"relay.example", *offers)) + b"250 8BITMIME\r\n")


def test_mail_every_rcpt_and_data_are_written_before_any_reply_is_heard() -> None:
    heard: list[bytes] = []

    def talk(client: socket.socket) -> None:
        greet(client, b"PIPELINING")
        heard.append(read_until(client, b"DATA\r\n"))
        client.sendall(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n354 Go\r\n")
        heard.append(read_until(client, b"\r\n.\r\n"))
        client.sendall(b"250 2.0.0 Ok\r\n")
        heard.append(read_until(client, b"QUIT\r\n"))

    with RawRelay(talk) as relay:
        assert isinstance(submit(transport_to(relay.port), envelope=TWO), Accepted)
    envelope = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{JANE}>\r\nRCPT TO:<{JACK}>\r\nDATA\r\n"
    assert heard == [envelope.encode(), OCTETS.replace(b"\r\n.", b"\r\n..") + b".\r\n", b"QUIT\r\n"]


def test_a_relay_that_does_not_offer_it_gets_one_command_at_a_time() -> None:
    heard: list[bytes] = []

    def talk(client: socket.socket) -> None:
        greet(client)
        for reply in (b"250 2.1.0 Ok\r\n", b"250 2.1.5 Ok\r\n", b"250 2.1.5 Ok\r\n", b"354 Go\r\n"):
            heard.append(client.recv(65536))
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):  # nothing comes before it is answered
                client.recv(1)
            client.settimeout(PATIENCE)
            client.sendall(reply)
        read_until(client, b"\r\n.\r\n")
        client.sendall(b"250 2.0.0 Ok\r\n")

    with RawRelay(talk) as relay:
        assert isinstance(submit(transport_to(relay.port), envelope=TWO), Accepted)
    assert [line.split(b" ")[0].strip() for line in heard] == [b"MAIL", b"RCPT", b"RCPT", b"DATA"]


@pytest.mark.timeout(60)
def test_a_long_envelope_and_its_long_replies_do_not_wait_for_each_other() -> None:
    """A relay with tiny windows that reads no command before its reply to the last one has been taken."""
    pad = b"250-2.1.5 %s\r\n" % (b"x" * 400)

    def talk(client: socket.socket) -> None:
        greet(client, b"PIPELINING")
        lines = client.makefile("rb", buffering=0)
        while line := lines.readline():
            if line.startswith(b"DATA"):
                break
            client.sendall(pad * 5 + b"250 2.1.5 Ok\r\n")
        client.sendall(b"354 Go\r\n")
        read_until(client, b"\r\n.\r\n")
        client.sendall(b"250 2.0.0 Ok\r\n")

    with RawRelay(talk, window=4096) as relay:
        outcome = submit(transport_to(relay.port), envelope=MANY)
    assert isinstance(outcome, Accepted)
    assert [heard.address for heard in outcome.heard] == list(MANY.recipients)


def test_replies_that_come_slowly_are_each_in_time() -> None:
    """Longer in all than the timeout, and never so long without one."""
    slowly = [Wait(0.4), Say(b"250 2.1.5 Ok\r\n")]
    envelope = Envelope(SENDER, tuple(f"n{number}@customer.example" for number in range(4)))
    script: Script = {Phase.RCPT: slowly}  # type: ignore[dict-item]
    with Adversary(senders={SENDER: [script]}) as relay:
        assert isinstance(submit(transport_to(relay.port, timeout=1.2), envelope=envelope), Accepted)


def test_a_reply_that_drips_is_not_in_time() -> None:
    script: Script = {Phase.RCPT: [Drip(b"250 2.1.5 Ok\r\n", every=0.1)]}
    with Adversary(senders={SENDER: [script]}) as relay:
        outcome = submit(transport_to(relay.port, timeout=HASTE))
        relay.settle()
        assert isinstance(outcome, NotSent)
        assert "no reply within 0.5 s" in outcome.why
        assert relay.messages == []


# Replies that nobody asked for

PLACES = [Phase.MAIL, Phase.RCPT, Phase.DATA]
GOOD = {Phase.MAIL: b"250 2.1.0 Ok\r\n", Phase.RCPT: b"250 2.1.5 Ok\r\n", Phase.DATA: b"354 Go\r\n"}
EXTRAS = {
    "250": b"250 2.0.0 Ok\r\n",
    "354": b"354 Go\r\n",
    "421": b"421 4.3.2 Going down\r\n",
    "550": b"550 5.7.1 No\r\n",
    "half a line": b"25",
    "a line of several": b"251-2.0.0 Ok\r\n",
    "garbage": b"%$!\r\n",
}


@pytest.mark.parametrize("security", ["none", "starttls"])
@pytest.mark.parametrize("extra", EXTRAS, ids=lambda name: name.replace(" ", "_"))
@pytest.mark.parametrize("phase", PLACES)
def test_a_reply_too_many_before_the_dot_hands_nothing_over(
    certificate: Certificate, phase: Phase, extra: str, security: str, extensions: tuple[str, ...]
) -> None:
    script = {phase: [Say(GOOD[phase] + EXTRAS[extra])]}
    with ScriptedRelay(script, tls=certificate.server(), extensions=extensions, kept=True) as relay:

        async def enter() -> GapEntered:
            assert relay.spoke.wait(PATIENCE)  # the relay has said all that it says before the dot
            return await entered()

        transport = transport_to(
            relay.port,
            timeout=PATIENCE,
            security=security,  # type: ignore[arg-type]
            tls=certificate.trusting(),
        )
        outcome = submit(transport, enter_gap=enter)
        relay.wait_until_over()
        assert isinstance(outcome, (NotSent, Refused)), outcome
        assert relay.messages == []
        (seen,) = relay.seen
        assert seen.dots == 0
        assert not seen.commands_in_body
        assert not {"RSET", "QUIT"} & set(seen.verbs) or isinstance(outcome, Refused)


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda name: name.replace(" ", "_"))
def test_a_reply_too_many_after_the_dot_changes_nothing_about_the_message(
    extra: str, extensions: tuple[str, ...]
) -> None:
    script = {Phase.DOT: [Keep(), Say(b"250 2.0.0 Ok\r\n" + EXTRAS[extra])]}
    with ScriptedRelay(script, extensions=extensions, kept=True) as relay:
        outcome = submit(transport_to(relay.port))
        relay.wait_until_over()
        assert isinstance(outcome, Accepted)
        assert outcome.reply.code == 250


@pytest.mark.parametrize(
    ("early", "offers"),
    [(Phase.MAIL, EXTENSIONS), (Phase.MAIL, ONE_AT_A_TIME), (Phase.RCPT, ONE_AT_A_TIME)],
    ids=["MAIL, pipelined", "MAIL", "RCPT"],
)
def test_a_go_ahead_before_its_time_is_none(early: Phase, offers: tuple[str, ...]) -> None:
    """The relay says 354 before it has read DATA, and nothing to DATA itself."""
    script = {early: [Say(GOOD[early] + b"354 Go\r\n")], Phase.DATA: [Say(b"")]}
    with ScriptedRelay(script, extensions=offers, kept=True) as relay:
        outcome = submit(transport_to(relay.port, timeout=HASTE))
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert relay.messages == []


def test_an_answer_to_the_dot_that_came_before_it_is_none(extensions: tuple[str, ...]) -> None:
    script = {Phase.BODY: [Say(b"250 2.0.0 Ok: queued as 4F2\r\n")]}
    with ScriptedRelay(script, extensions=extensions, kept=True) as relay:

        async def enter() -> GapEntered:
            assert relay.spoke.wait(PATIENCE)
            return await entered()

        outcome = submit(transport_to(relay.port), enter_gap=enter)
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert "250 2.0.0 Ok: queued as 4F2" in outcome.why
        assert relay.seen[0].dots == 0


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT])
def test_a_reply_that_comes_too_late_is_heard_by_no_other_message(phase: Phase, extensions: tuple[str, ...]) -> None:
    async def two(relay: ScriptedRelay) -> list[Outcome]:
        transport = transport_to(relay.port, timeout=HASTE, final_timeout=HASTE)
        first = await transport.send(ENVELOPE, OCTETS, entered)
        relay.release()
        second = await transport.send(TWO, OCTETS, entered)
        await transport.close()
        return [first, second]

    late = [Keep()] if phase is Phase.DOT else []
    script = {phase: [*late, Hold(), Say(b"250 2.0.0 first\r\n")]}
    with ScriptedRelay(script, extensions=extensions, kept=True) as relay:
        first, second = asyncio.run(two(relay))
        relay.wait_until_over()
        assert isinstance(first, InDoubt if phase is Phase.DOT else NotSent)
        assert isinstance(second, Accepted)
        assert second.reply.text == f"Ok: queued as {len(relay.messages):06X}"
        assert relay.connections == 2


# What decides

FIRST_REFUSED: dict[str, tuple[Script, int, bool]] = {
    "MAIL, then everything": (
        {
            Phase.MAIL: [Say(b"451 4.3.0 Later\r\n")],
            Phase.RCPT: [Say(b"503 5.5.1 MAIL first\r\n")],
            Phase.DATA: [Say(b"503 5.5.1 MAIL first\r\n")],
        },
        451,
        True,
    ),
    "MAIL, and nothing after it": ({Phase.MAIL: [Say(b"550 5.7.1 No\r\n"), Hold()]}, 550, False),
    "MAIL, and FIN": ({Phase.MAIL: [Say(b"550 5.7.1 No\r\n"), Fin()]}, 550, False),
    "every RCPT, then DATA": (
        {Phase.RCPT: [Say(b"450 4.2.0 Later\r\n")], Phase.DATA: [Say(b"554 5.5.1 No valid recipients\r\n")]},
        450,
        True,
    ),
    "the first RCPT, and FIN": ({JANE: [Say(b"550 5.1.1 Nobody\r\n"), Fin()]}, 550, False),
    "the second RCPT for good": (
        {JANE: [Say(b"450 4.2.0 Later\r\n")], JACK: [Say(b"550 5.1.1 Nobody\r\n")]},
        550,
        False,
    ),
    "every RCPT, and 354 to DATA": ({Phase.RCPT: [Say(b"550 5.1.1 Nobody\r\n")]}, 550, False),
    "DATA alone": ({Phase.DATA: [Say(b"451 4.3.0 Later\r\n")]}, 451, True),
}


@pytest.mark.parametrize("case", FIRST_REFUSED, ids=lambda name: name.replace(" ", "_").replace(",", ""))
def test_the_first_command_that_is_refused_decides(case: str, extensions: tuple[str, ...]) -> None:
    script, code, transient = FIRST_REFUSED[case]
    with ScriptedRelay(script, extensions=extensions, kept=True) as relay:
        outcome = submit(transport_to(relay.port), envelope=TWO)
        relay.release()
        relay.wait_until_over()
        assert isinstance(outcome, Refused)
        assert (outcome.reply.code, outcome.transient) == (code, transient)
        assert all(isinstance(heard, Heard) for heard in outcome.heard)
        (seen,) = relay.seen
        assert relay.messages == []
        assert (seen.dots, seen.commands_in_body) == (0, [])
