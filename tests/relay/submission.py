"""One message through transport's door, as the worker would hand it over."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection
from typing import Literal

from outbox.core.draft import Envelope
from outbox.transport.outcome import Outcome
from outbox.transport.smtp import EnterGap, GapEntered, Relay, SmtpTransport, boottime

SENDER = "sales@acme.example"
JANE = "jane@customer.example"
JACK = "jack@customer.example"
ENVELOPE = Envelope(SENDER, (JANE,))
OCTETS = b"From: sales@acme.example\r\nSubject: Offer\r\n\r\nDear Jane,\r\n.\r\nhere it is.\r\n"
LARGE = OCTETS + (b"x" * 78 + b"\r\n") * 400_000  # 32 MB: more than the kernel takes on loopback


async def entered() -> GapEntered:
    """A gap that was committed this moment."""
    return GapEntered(boottime())


def transport_to(
    port: int,
    *,
    timeout: float = 10,
    final_timeout: float = 10,
    security: Literal["tls", "starttls", "none"] = "none",
    tls: ssl.SSLContext | None = None,
    login: tuple[str, str] = ("", ""),
    lanes: int = 10,
    clock: Callable[[], float] = boottime,
) -> SmtpTransport:
    """A transport to a relay on loopback."""
    username, password = login
    relay = Relay("127.0.0.1", port, security, timeout, final_timeout, username, password or None)
    return SmtpTransport(relay, tls=tls, lanes=lanes, clock=clock)


def submit(
    transport: SmtpTransport,
    *,
    envelope: Envelope = ENVELOPE,
    octets: bytes = OCTETS,
    enter_gap: EnterGap = entered,
) -> Outcome:
    """Send one message, take leave, and say how it went."""
    return asyncio.run(send_and_leave(transport, envelope, octets, enter_gap))


async def send_and_leave(
    transport: SmtpTransport,
    envelope: Envelope = ENVELOPE,
    octets: bytes = OCTETS,
    enter_gap: EnterGap = entered,
    *,
    spare: Collection[str] = (),
    envid: str | None = None,
) -> Outcome:
    """The same, in a loop that is there."""
    try:
        return await transport.send(envelope, octets, enter_gap, spare=spare, envid=envid)
    finally:
        await transport.close()
