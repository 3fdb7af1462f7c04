"""The transport's door: one message to one relay, on a connection that is kept for the next one.

aiosmtplib connects, negotiates TLS and logs in; the transaction is ours, because its own cannot tell what happened
before the final dot from what happened after it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass

from outbox.core.draft import Envelope
from outbox.transport.commands import Sending, offers_of, spare_of
from outbox.transport.connecting import Relay, connect, own_name
from outbox.transport.dialogue import Dialogue
from outbox.transport.gap import GAP_AGE, EnterGap, GapEntered, GapRefused, boottime
from outbox.transport.idle import Idle
from outbox.transport.outcome import Accepted, NotSent, Outcome, Refused
from outbox.transport.pace import Pace
from outbox.transport.transaction import CLOSING, Connection, Fate, Transaction

__all__ = ["GAP_AGE", "EnterGap", "Examined", "GapEntered", "GapRefused", "Relay", "SmtpTransport", "boottime"]


@dataclass(frozen=True, slots=True)
class Examined:
    """A relay that let us in: its extensions with their words, TLS version, and the Unix time its certificate ends at.

    Without TLS the last two are None.
    """

    extensions: tuple[tuple[str, str], ...]
    tls: str | None
    certificate_ends: int | None


class SmtpTransport:
    """Sends messages to one relay, each alone on a connection that carried others before it.

    Belongs to one event loop at a time, from the first `send` to `close`. `lanes` is how many sends there are at most
    in health; `clock` gives seconds, for how long a connection is used again.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        tls: ssl.SSLContext | None = None,
        lanes: int = 1000,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._relay = relay
        self._tls = None if relay.security == "none" else tls or ssl.create_default_context()
        self._name = own_name()
        self._clock = clock
        self._idle = Idle(clock)
        self._pace = Pace(lanes, clock)
        self._under_way = 0  # connections that carry a message now

    @property
    def places(self) -> int:
        """How many sends may be under way now: fewer after the relay turned connections away (slow start)."""
        return self._pace.places

    @property
    def rest(self) -> float:
        """Seconds to wait before anything more is claimed, because connecting failed again and again."""
        return self._pace.rest

    async def send(
        self,
        envelope: Envelope,
        octets: bytes,
        enter_gap: EnterGap,
        *,
        spare: Collection[str] = (),
        envid: str | None = None,
    ) -> Outcome:
        """Send exactly these octets (CRLF line ends) to exactly this envelope; how it went is the returned value.

        The message goes without those recipients of Bcc that are `spare`, where the relay refuses them alone. With
        `envid`, success and failure of delivery are to be reported under it to the envelope's sender, by a relay that
        can.

        Where a connection that was used before turns out to be gone, before the relay has answered MAIL, the message
        goes on a new one: once.
        """
        sending = Sending(envelope, octets, spare_of(envelope, spare), envid)
        connection = self._idle.take()
        if connection is not None:
            outcome = await self._send_on(connection, sending, enter_gap, is_last=False)
            if outcome is not None:
                return outcome
        begun = self._clock()
        connected = await connect(self._relay, self._tls, self._name)
        if isinstance(connected, NotSent):
            if not connected.halt:
                self._pace.failed(begun, self._under_way + len(self._idle))
            return connected
        self._pace.connected()
        transport, extensions = connected
        now = self._clock()
        dialogue = Dialogue(transport, self._relay.final_timeout)
        outcome = await self._send_on(
            Connection(dialogue, offers_of(extensions), now, now), sending, enter_gap, is_last=True
        )
        assert outcome is not None
        return outcome

    async def examine(self) -> Examined | NotSent:
        """Connect, secure and log in as `send` does, and leave without a MAIL command."""
        connected = await connect(self._relay, self._tls, self._name)
        if isinstance(connected, NotSent):
            return connected
        transport, extensions = connected
        certificate = transport.get_extra_info("peercert") or {}
        encrypted = transport.get_extra_info("ssl_object")
        Dialogue(transport, self._relay.final_timeout).quit()
        return Examined(
            extensions=tuple(sorted((name.upper(), words.strip()) for name, words in extensions.items())),
            tls=encrypted.version() if encrypted is not None else None,
            certificate_ends=ssl.cert_time_to_seconds(certificate["notAfter"]) if "notAfter" in certificate else None,
        )

    async def close(self) -> None:
        """Say goodbye on every connection that is kept, and wait for no answer. For when nothing is under way."""
        left = self._idle.close()
        await asyncio.sleep(0)  # asyncio closes a socket in the next turn of the loop
        for connection in left:
            connection.dialogue.abort()
        await asyncio.sleep(0)

    async def _send_on(
        self, connection: Connection, sending: Sending, enter_gap: EnterGap, *, is_last: bool
    ) -> Outcome | None:
        """How it went; None where it is not the last connection to try, and the relay never came to answer MAIL."""
        relay, begun = self._relay, self._clock()
        transaction = Transaction(connection, sending, timeout=relay.timeout, final_timeout=relay.final_timeout)
        self._under_way += 1
        try:
            outcome = await transaction.send(enter_gap)
        finally:
            self._under_way -= 1
            self._part_with(connection, transaction.fate)
        if not (is_last or transaction.was_answered):
            return None
        if isinstance(outcome, Refused) and outcome.reply.code == CLOSING:
            self._pace.failed(begun, self._under_way + len(self._idle))
        elif isinstance(outcome, (Accepted, Refused)):
            self._pace.worked()
        return outcome

    def _part_with(self, connection: Connection, fate: Fate) -> None:
        if fate is Fate.REST:
            self._idle.keep(connection)
        elif fate is Fate.LEAVE:
            connection.dialogue.quit()
        else:
            connection.dialogue.abort()
