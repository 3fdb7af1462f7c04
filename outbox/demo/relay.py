"""A real SMTP server on loopback (aiosmtpd), which keeps what it accepts."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from outbox.core.errors import Code, ConfigError

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass(frozen=True, slots=True)
class Received:
    """One message as the server accepted it."""

    sender: str
    recipients: tuple[str, ...]
    octets: bytes


class DemoRelay:
    """Use as a context manager; `port` is known inside."""

    def __init__(self) -> None:
        try:
            from aiosmtpd.controller import Controller
        except ImportError:
            raise ConfigError(
                Code.EXTRA_MISSING, "the demo needs an SMTP server to talk to; pip install 'outbox-gate[demo]'"
            ) from None
        self.received: list[Received] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's name
        """Accept a message."""
        octets = envelope.original_content or b""
        self.received.append(Received(str(envelope.mail_from), tuple(envelope.rcpt_tos), octets))
        return f"250 2.0.0 Ok: queued as DEMO{len(self.received):04}"

    def to(self, address: str) -> list[Received]:
        """What was accepted for one recipient, in order."""
        return [one for one in self.received if address in one.recipients]
