"""The SMTP transaction: connect, MAIL, RCPT, DATA, the message, the gap, the dot, the reply.

aiosmtplib connects, negotiates TLS and logs in; the transaction is ours, because its own cannot tell what happened
before the final dot from what happened after it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import aiosmtplib

from outbox.core.draft import Envelope
from outbox.core.finding import printable
from outbox.transport.dialogue import Dialogue
from outbox.transport.outcome import (
    Accepted,
    Break,
    Heard,
    NotSent,
    Outcome,
    Refused,
    Reply,
    Step,
    judge,
    judge_dot,
    judge_recipients,
)

GAP_AGE = 2.0  # seconds from the gap's commit within which the dot must be written


@dataclass(frozen=True, slots=True)
class Relay:
    """Where to submit, and how. Timeouts in seconds; the password stays out of repr."""

    host: str
    port: int
    security: Literal["tls", "starttls", "none"]
    timeout: float
    final_timeout: float
    username: str = ""
    password: str | None = None

    def __repr__(self) -> str:
        return f"Relay({self.host}:{self.port}, {self.security})"


@dataclass(frozen=True, slots=True)
class GapEntered:
    """The gap is committed; `at` is seconds of `boottime()` just before that."""

    at: float


@dataclass(frozen=True, slots=True)
class GapRefused:
    """The draft may not be sent any more, or it is not known whether the gap was stored."""

    why: str


@dataclass(frozen=True, slots=True)
class Examined:
    """A relay that let us in: its extensions with their words, TLS version, and the Unix time its certificate ends at.

    Without TLS the last two are None.
    """

    extensions: tuple[tuple[str, str], ...]
    tls: str | None
    certificate_ends: int | None


EnterGap = Callable[[], Awaitable[GapEntered | GapRefused]]


def boottime() -> float:
    """Seconds that also pass while the machine sleeps, so that a process that woke up sees how long it was away."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class _Sending:
    """One message on its way, and what its relay offers."""

    envelope: Envelope
    octets: bytes
    extensions: dict[str, str]
    spare: frozenset[str]
    envid: str | None

    @property
    def reports(self) -> bool:
        """Whether delivery status notifications (RFC 3461) are asked for."""
        return self.envid is not None and "dsn" in self.extensions


class SmtpTransport:
    """Sends one message at a time to one relay, each on a connection of its own."""

    def __init__(self, relay: Relay, *, tls: ssl.SSLContext | None = None) -> None:
        self._relay = relay
        self._tls = None if relay.security == "none" else tls or ssl.create_default_context()
        self._name = _own_name()

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
        """
        connected = await self._connect()
        if isinstance(connected, NotSent):
            return connected
        transport, extensions = connected
        dialogue = Dialogue(transport, self._relay.final_timeout)
        sending = _Sending(envelope, octets, extensions, _spare(envelope, spare), envid)
        try:
            lacking = _lacking(sending)
            outcome = lacking or await self._transact(dialogue, sending, enter_gap)
            if lacking or isinstance(outcome, (Accepted, Refused)):
                dialogue.quit()
            return outcome
        finally:
            dialogue.abort()

    async def examine(self) -> Examined | NotSent:
        """Connect, secure and log in as `send` does, and leave without a MAIL command."""
        connected = await self._connect()
        if isinstance(connected, NotSent):
            return connected
        transport, extensions = connected
        certificate = transport.get_extra_info("peercert") or {}
        encrypted = transport.get_extra_info("ssl_object")
        dialogue = Dialogue(transport, self._relay.final_timeout)
        dialogue.quit()
        dialogue.abort()
        return Examined(
            extensions=tuple(sorted((name.upper(), words.strip()) for name, words in extensions.items())),
            tls=encrypted.version() if encrypted is not None else None,
            certificate_ends=ssl.cert_time_to_seconds(certificate["notAfter"]) if "notAfter" in certificate else None,
        )

    async def _connect(self) -> tuple[asyncio.Transport, dict[str, str]] | NotSent:
        relay = self._relay
        client = aiosmtplib.SMTP(
            hostname=relay.host,
            port=relay.port,
            use_tls=relay.security == "tls",
            start_tls=relay.security == "starttls",
            tls_context=self._tls,
            timeout=relay.timeout,
            local_hostname=self._name,
        )
        with ExitStack() as unless_handed_over:
            unless_handed_over.callback(client.close)
            try:
                await client.connect()
                await client.ehlo()
                if relay.username:
                    await client.login(relay.username, relay.password or "")
            except (aiosmtplib.SMTPException, OSError, ValueError) as error:  # ValueError: no host name can be so
                return _not_connected(relay, error)
            transport = client.transport
            if not isinstance(transport, asyncio.Transport):
                return NotSent(f"{relay.host}:{relay.port}: the connection was lost after EHLO")
            unless_handed_over.pop_all()
        return transport, client.esmtp_extensions

    async def _transact(self, dialogue: Dialogue, sending: _Sending, enter_gap: EnterGap) -> Outcome:
        timeout = self._relay.timeout
        mail = await dialogue.command(_mail(sending), timeout)
        if (outcome := judge(Step.MAIL, mail)) is not None:
            return outcome
        heard: list[Heard] = []
        for address in sending.envelope.recipients:
            reply = await dialogue.command(_rcpt(address, reports=sending.reports), timeout)
            if isinstance(reply, Break):
                return NotSent(f"{Step.RCPT}: {reply.why}")
            heard.append(Heard(address, reply))
        if (outcome := judge_recipients(heard, sending.spare)) is not None:
            return outcome
        go_ahead = await dialogue.command("DATA", timeout)
        if (outcome := judge(Step.DATA, go_ahead, heard)) is not None:
            return outcome
        broken = await dialogue.write(_stuffed(sending.octets), timeout)
        if broken is not None:
            return NotSent(f"{Step.BODY}: {broken.why}")
        return await self._cross_gap(dialogue, heard, enter_gap)

    async def _cross_gap(self, dialogue: Dialogue, heard: list[Heard], enter_gap: EnterGap) -> Outcome:
        entered = await enter_gap()
        if isinstance(entered, GapRefused):
            return NotSent(entered.why)
        unsettled = await dialogue.unsettled()
        if unsettled is not None:
            return NotSent(f"{Step.BODY}: {unsettled.why}")
        if boottime() - entered.at >= GAP_AGE:
            return NotSent(f"the gap was entered over {GAP_AGE:g} s ago; this process was held up")
        dialogue.write_dot()
        return judge_dot(await dialogue.reply(self._relay.final_timeout), heard)


def _own_name() -> str:
    """What EHLO says: this host's full name, or where it has none the loopback literal (RFC 5321 4.1.3)."""
    name = socket.gethostname()
    return name if "." in name.strip(".") and name.isascii() else "[127.0.0.1]"


def _spare(envelope: Envelope, named: Collection[str]) -> frozenset[str]:
    """Those of Bcc that it can go without: a message for nobody else is not for nobody."""
    spare = frozenset(named) & frozenset(envelope.bcc)
    return spare if frozenset(envelope.recipients) > spare else frozenset()


def _mail(sending: _Sending) -> str:
    words = [f"MAIL FROM:<{sending.envelope.sender}>"]
    if "size" in sending.extensions:
        words.append(f"SIZE={len(sending.octets)}")
    if not sending.octets.isascii():
        words.append("BODY=8BITMIME")
    if _needs_smtputf8(sending.envelope):
        words.append("SMTPUTF8")
    if sending.reports:
        words += ["RET=HDRS", f"ENVID={_xtext(sending.envid or '')}"]
    return " ".join(words)


def _rcpt(address: str, *, reports: bool) -> str:
    words = [f"RCPT TO:<{address}>"]
    if reports:
        words.append("NOTIFY=SUCCESS,FAILURE")
        if address.isascii():  # else it would need the type "utf-8" (RFC 6533 3)
            words.append(f"ORCPT=rfc822;{_xtext(address)}")
    return " ".join(words)


def _xtext(text: str) -> str:
    """RFC 3461 4: what is not graphic ASCII, and "+" and "=", as "+" and two hexadecimal digits."""
    return "".join(chr(o) if 33 <= o <= 126 and o not in b"+=" else f"+{o:02X}" for o in text.encode())


def _needs_smtputf8(envelope: Envelope) -> bool:
    return not "".join((envelope.sender, *envelope.recipients)).isascii()


def _lacking(sending: _Sending) -> NotSent | None:
    """Why this relay cannot take this message at all, if so."""
    octets, extensions = sending.octets, sending.extensions
    limit = extensions.get("size", "").strip()
    if re.fullmatch("[0-9]{1,19}", limit) and 0 < int(limit) < len(octets):
        return NotSent(f"the relay takes at most {limit} octets, the message has {len(octets)}", transient=False)
    if not octets.isascii() and "8bitmime" not in extensions:
        return NotSent("the message has octets beyond ASCII and the relay does not offer 8BITMIME", transient=False)
    if _needs_smtputf8(sending.envelope) and "smtputf8" not in extensions:
        return NotSent("an address is beyond ASCII and the relay does not offer SMTPUTF8", transient=False)
    return None


def _stuffed(octets: bytes) -> bytes:
    stuffed = octets.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


def _not_connected(relay: Relay, error: Exception) -> NotSent:
    """The table's first line: transient if network or 4yz; where the next draft would fare no better, halt.

    The relay's words after a login are left out: some repeat what they were given.
    """
    where = f"{relay.host}:{relay.port}"
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        reply = Reply(error.code, None, "login refused")
        return NotSent(f"{where}: the login was refused ({error.code})", halt=error.code // 100 != 4, reply=reply)
    if (wrong := _certificate_error(error)) is not None:
        return NotSent(f"{where}: its certificate could not be verified: {wrong}", halt=True)
    if isinstance(error, aiosmtplib.SMTPResponseException):
        said = _one_line(error.message)
        if error.code < 0:  # what it said is no reply
            return NotSent(f"{where}: the relay said {said!a}, which is not SMTP")
        reply = Reply(error.code, None, said)
        return NotSent(f"{where}: {reply}", halt=error.code >= 500, reply=reply)
    if isinstance(error, (OSError, aiosmtplib.SMTPTimeoutError, aiosmtplib.SMTPConnectError)):
        return NotSent(f"{where}: {_one_line(str(error))}")
    return NotSent(f"{where}: {_one_line(str(error))}", halt=True)


def _one_line(words: str) -> str:
    """A stranger's words, of any octets, as a row can hold them."""
    return " ".join(printable(words).split())[:1000]


def _certificate_error(error: BaseException | None) -> str | None:
    """OpenSSL's words for what is wrong with a certificate, if that is what is wrong."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        error = error.__cause__ or error.__context__
    return None
