"""What the relay is asked to report, whom a message can go without, and what becomes of a dropped connection."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from outbox.core.draft import Envelope
from outbox.transport.outcome import Accepted, InDoubt, NotSent, Outcome, Refused
from outbox.transport.smtp import EnterGap, GapEntered, GapRefused
from tests.relay.certificate import Certificate
from tests.relay.scripted import EXTENSIONS, PATIENCE, Fin, Say, ScriptedRelay
from tests.relay.submission import (
    ENVELOPE,
    JACK,
    JANE,
    OCTETS,
    SENDER,
    entered,
    send_and_leave,
    submit,
    transport_to,
)

ARCHIVE = "archive@acme.example"
ARCHIVED = Envelope(SENDER, (JANE,), (JACK,), (ARCHIVE,))
NOBODY = Say(b"550 5.1.1 Nobody\r\n")
LATER = Say(b"451 4.7.1 Greylisted\r\n")
WITH_DSN = (*EXTENSIONS, "DSN")


def send(
    relay: ScriptedRelay, envelope: Envelope = ENVELOPE, *, spare: tuple[str, ...] = (), envid: str | None = None
) -> Outcome:
    outcome = asyncio.run(send_and_leave(transport_to(relay.port), envelope, spare=spare, envid=envid))
    relay.wait_until_over()
    return outcome


def assert_no_data_is_ended(relay: ScriptedRelay) -> None:
    """A refused envelope: where DATA went with it, nothing more is said; else there is no DATA."""
    (seen,) = relay.seen
    assert seen.dots == 0
    assert not seen.commands_in_body
    unheard = {"QUIT"} if "PIPELINING" in relay.extensions else {"DATA"}
    assert not {"RSET", *unheard} & set(seen.verbs)


def said(relay: ScriptedRelay, verb: str) -> list[str]:
    """The relay's commands of one verb, in its last connection."""
    return [line.decode() for line in relay.seen[-1].commands if line.decode().startswith(verb)]


# Delivery status notifications


def test_reports_are_asked_for_under_the_envelope_id_where_the_relay_offers_them() -> None:
    with ScriptedRelay(extensions=WITH_DSN) as relay:
        assert isinstance(send(relay, envid="abc-_9"), Accepted)
        assert said(relay, "MAIL") == [f"MAIL FROM:<{SENDER}> SIZE={len(OCTETS)} RET=HDRS ENVID=abc-_9"]
        assert said(relay, "RCPT") == [f"RCPT TO:<{JANE}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;{JANE}"]


@pytest.mark.parametrize(
    ("extensions", "envid"), [(EXTENSIONS, "abc"), (WITH_DSN, None)], ids=["not offered", "not asked for"]
)
def test_a_relay_is_told_nothing_of_reports(extensions: tuple[str, ...], envid: str | None) -> None:
    with ScriptedRelay(extensions=extensions) as relay:
        assert isinstance(send(relay, envid=envid), Accepted)
        assert said(relay, "MAIL") == [f"MAIL FROM:<{SENDER}> SIZE={len(OCTETS)}"]
        assert said(relay, "RCPT") == [f"RCPT TO:<{JANE}>"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("jane+a=b@customer.example", " ORCPT=rfc822;jane+2Ba+3Db@customer.example"),
        ("\u0436@customer.example", ""),
    ],
    ids=["a plus sign", "beyond ASCII"],
)
def test_the_original_recipient_is_said_in_xtext_or_not_at_all(address: str, words: str) -> None:
    with ScriptedRelay(extensions=WITH_DSN) as relay:
        assert isinstance(send(relay, Envelope(SENDER, (address,)), envid="abc"), Accepted)
        assert said(relay, "RCPT") == [f"RCPT TO:<{address}> NOTIFY=SUCCESS,FAILURE{words}"]


def test_an_envelope_id_cannot_say_another_word_of_the_command() -> None:
    with ScriptedRelay(extensions=WITH_DSN) as relay:
        assert isinstance(send(relay, envid="a SIZE=1\r\nRSET+"), Accepted)
        assert said(relay, "MAIL")[0].endswith(" ENVID=a+20SIZE+3D1+0D+0ARSET+2B")


# A recipient that a message can go without


@pytest.mark.parametrize("refusal", [NOBODY, LATER], ids=["for good", "for now"])
def test_a_message_goes_without_its_archive_and_what_was_said_of_it_is_kept(
    refusal: Say, extensions: tuple[str, ...]
) -> None:
    with ScriptedRelay({ARCHIVE: [refusal]}, extensions=extensions) as relay:
        outcome = send(relay, ARCHIVED, spare=(ARCHIVE,))
        assert isinstance(outcome, Accepted)
        assert [heard.address for heard in outcome.heard] == [JANE, JACK, ARCHIVE]
        assert [heard.reply.code for heard in outcome.heard] == [250, 250, int(refusal.octets[:3])]
        assert [sent.recipients for sent in relay.messages] == [(JANE, JACK)]


@pytest.mark.parametrize(
    ("script", "code", "transient"),
    [
        ({JACK: [NOBODY]}, 550, False),
        ({JACK: [LATER], ARCHIVE: [NOBODY]}, 451, True),
        ({JANE: [NOBODY], JACK: [NOBODY]}, 550, False),
        ({JANE: [NOBODY], JACK: [NOBODY], ARCHIVE: [LATER]}, 550, False),
    ],
    ids=["one other", "one other for now", "all but the archive", "all"],
)
def test_a_refusal_of_anybody_else_refuses_all_and_the_archive_has_no_say(
    script: dict[str, list[Say]], code: int, transient: bool, extensions: tuple[str, ...]
) -> None:
    with ScriptedRelay(script, extensions=extensions) as relay:
        outcome = send(relay, ARCHIVED, spare=(ARCHIVE,))
        assert isinstance(outcome, Refused)
        assert (outcome.reply.code, outcome.transient) == (code, transient)
        assert len(outcome.heard) == 3
        assert relay.messages == []
        assert_no_data_is_ended(relay)


@pytest.mark.parametrize(
    "envelope",
    [Envelope(SENDER, (JANE, ARCHIVE)), Envelope(SENDER, (), (), (ARCHIVE,)), ARCHIVED],
    ids=["it is in To", "there is nobody else", "it is not said to be spare"],
)
def test_a_recipient_that_counts_is_not_gone_without(envelope: Envelope) -> None:
    with ScriptedRelay({ARCHIVE: [NOBODY]}) as relay:
        spare = () if envelope == ARCHIVED else (ARCHIVE,)
        assert isinstance(send(relay, envelope, spare=spare), Refused)
        assert relay.messages == []


@pytest.mark.parametrize("fault", [[Fin()], [Say(b"354 Go\r\n")]], ids=["FIN", "354"])
def test_a_relay_that_fails_at_the_archive_got_nothing(fault: list[Say | Fin], extensions: tuple[str, ...]) -> None:
    with ScriptedRelay({ARCHIVE: fault}, extensions=extensions) as relay:
        outcome = send(relay, ARCHIVED, spare=(ARCHIVE,))
        assert isinstance(outcome, NotSent)
        assert outcome.transient
        assert relay.messages == []


# The kernel's part


def _own_end(port: int) -> socket.socket:
    """This process's socket to a relay on loopback, found among its descriptors."""
    for name in Path("/proc/self/fd").iterdir():
        # What is no socket, or one that is not connected, is an OSError.
        with suppress(OSError), socket.socket(fileno=os.dup(int(name.name))) as found:
            if found.getpeername() == ("127.0.0.1", port):
                return found.dup()
    raise AssertionError("nothing here is connected to the relay")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux knows TCP_USER_TIMEOUT")
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
@pytest.mark.parametrize(
    ("final_timeout", "milliseconds"), [(7, 7000), (366 * 86400, 2**31 - 1)], ids=["7 s", "a year"]
)
def test_as_the_dot_is_written_the_kernel_knows_how_long_to_repeat_it(
    certificate: Certificate, security: str, final_timeout: int, milliseconds: int
) -> None:
    found: list[tuple[int, tuple[int, ...]]] = []

    def entering(port: int) -> Callable[[], Awaitable[GapEntered]]:
        async def enter() -> GapEntered:
            with _own_end(port) as own:
                patience = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                linger = struct.unpack("ii", own.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
                found.append((patience, linger))
            return await entered()

        return enter

    tls = None if security == "none" else certificate.server()
    with ScriptedRelay(tls=tls, implicit_tls=security == "tls") as relay:
        transport = transport_to(
            relay.port,
            final_timeout=final_timeout,
            security=security,  # type: ignore[arg-type]
            tls=certificate.trusting(),
        )
        outcome = submit(transport, enter_gap=entering(relay.port))
        relay.wait_until_over()
    assert isinstance(outcome, Accepted)
    assert found == [(milliseconds, (1, 0))]


@dataclass
class EndOfStream:
    """A relay for one client that takes a message up to its dot, and keeps how the connection came to its end.

    Unless it `answers`, it says nothing to the dot.
    """

    answers: bool = False
    heard: bytes = b""
    end: str = ""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def wait(self) -> str:
        """How it ended: "reset", "closed"."""
        self._thread.join(PATIENCE)
        return self.end

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client:
            client.settimeout(PATIENCE)
            client.sendall(b"220 relay.example ESMTP\r\n")
            try:
                while octets := client.recv(65536):
                    self.heard += octets
                    self._reply(client)
            except ConnectionResetError:
                self.end = "reset"
            else:
                self.end = "closed"

    def _reply(self, client: socket.socket) -> None:
        if self.heard.endswith(b"DATA\r\n"):
            client.sendall(b"354 Go\r\n")
        elif b"\r\nDATA\r\n" not in self.heard:
            client.sendall(b"250 Ok\r\n")
        elif self.answers and re.search(rb"\r\n\.\r\n\Z", self.heard):
            client.sendall(b"250 2.0.0 Ok\r\n")


async def refused() -> GapRefused:
    return GapRefused("somebody said stop")


@pytest.mark.parametrize(
    ("enter_gap", "expected"), [(refused, NotSent), (entered, InDoubt)], ids=["before the dot", "after the dot"]
)
def test_a_connection_that_is_given_up_is_reset(enter_gap: EnterGap, expected: type[Outcome]) -> None:
    with EndOfStream() as relay:
        outcome = submit(transport_to(relay.port, final_timeout=0.2), enter_gap=enter_gap)
        assert isinstance(outcome, expected)
        assert relay.wait() == "reset"
        assert relay.heard.endswith(b"\r\n.\r\n") is (expected is InDoubt)


def test_a_connection_that_we_take_leave_of_is_closed_and_not_reset() -> None:
    with EndOfStream(answers=True) as relay:
        outcome = submit(transport_to(relay.port))
        assert isinstance(outcome, Accepted)
        assert relay.wait() == "closed"
        assert relay.heard.endswith(b"\r\n.\r\nQUIT\r\n")


_KILLED = """
import asyncio, os, signal, sys
from tests.relay.submission import ENVELOPE, OCTETS, transport_to

async def enter():
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(transport_to(int(sys.argv[1])).send(ENVELOPE, OCTETS, enter))
"""


def test_the_kernel_sends_nothing_more_for_a_process_that_was_killed() -> None:
    with EndOfStream() as relay:
        root = Path(__file__).parents[2]
        killed = subprocess.run([sys.executable, "-c", _KILLED, str(relay.port)], cwd=root, timeout=60, check=False)
        assert killed.returncode == -9
        assert relay.wait() == "reset"
        assert OCTETS.replace(b"\r\n.", b"\r\n..") in relay.heard
