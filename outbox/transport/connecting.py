"""Reaching a relay: connect, EHLO, TLS, login, by aiosmtplib; and what it means where one of them fails."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import aiosmtplib

from outbox.core.finding import printable
from outbox.transport.outcome import NotSent, Reply


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


async def connect(
    relay: Relay, tls: ssl.SSLContext | None, name: str
) -> tuple[asyncio.Transport, dict[str, str]] | NotSent:
    """The stream to a relay that let us in under our `name`, and its extensions; or why there is none."""
    client = aiosmtplib.SMTP(
        hostname=relay.host,
        port=relay.port,
        use_tls=relay.security == "tls",
        start_tls=relay.security == "starttls",
        tls_context=tls,
        timeout=relay.timeout,
        local_hostname=name,
    )
    with ExitStack() as unless_handed_over:
        unless_handed_over.callback(_drop, client)
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


def _drop(client: aiosmtplib.SMTP) -> None:
    """At once: under TLS a close alone waits for the relay's, and by then the loop may have ended."""
    if isinstance(client.transport, asyncio.WriteTransport):
        client.transport.abort()
    client.close()


def own_name() -> str:
    """What EHLO says: this host's full name, or where it has none the loopback literal (RFC 5321 4.1.3)."""
    name = socket.gethostname()
    return name if "." in name.strip(".") and name.isascii() else "[127.0.0.1]"


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
