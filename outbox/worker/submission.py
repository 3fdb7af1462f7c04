"""The relay that the settings name."""

from __future__ import annotations

from outbox.config import Settings, required
from outbox.transport.smtp import Relay


def relay_of(settings: Settings, *, patience: float = float("inf"), dot_patience: float = float("inf")) -> Relay:
    """The relay, with its login; no step waits for longer than `patience` s, the final dot's reply than `dot_patience`.

    Raises ConfigError.
    """
    return Relay(
        host=required(settings.relay.host, "relay.host"),
        port=settings.relay.port,
        security=settings.relay_security,
        timeout=min(settings.relay.timeout, patience),
        final_timeout=min(settings.relay.final_timeout, dot_patience),
        username=settings.relay.username,
        password=settings.relay_password(),
    )
