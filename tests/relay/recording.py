"""A real SMTP server on loopback (aiosmtpd) that keeps what it accepted, envelope and octets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass(frozen=True)
class Sent:
    """One message as the relay accepted it."""

    sender: str
    recipients: tuple[str, ...]
    octets: bytes


@dataclass
class RecordingRelay:
    """Accepts everything, except what `refuse` names: recipient address to reply line; "DATA" to the dot's reply."""

    port: int = 0
    messages: list[Sent] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    says: Callable[[bytes], str] | None = None  # the reply to the dot, made of the message
    connections: int = 0

    def __enter__(self) -> Self:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._controller = Controller(_Handler(self), hostname="127.0.0.1", port=self.port, enable_SMTPUTF8=True)
        self._controller.start()
        self.connections = 0  # the controller's own probe is not counted
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()

    def to(self, address: str) -> list[Sent]:
        """What was accepted for one recipient."""
        return [sent for sent in self.messages if address in sent.recipients]


class _Handler:
    def __init__(self, relay: RecordingRelay) -> None:
        self._relay = relay

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self._relay.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self._relay.refuse:
            return self._relay.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if "DATA" in self._relay.refuse:
            return self._relay.refuse["DATA"]
        octets = envelope.original_content or b""
        self._relay.messages.append(Sent(str(envelope.mail_from), tuple(envelope.rcpt_tos), octets))
        if self._relay.says is not None:
            return self._relay.says(octets)
        return f"250 2.0.0 Ok: queued as {len(self._relay.messages):06X}"
