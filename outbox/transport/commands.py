"""The commands of one message, in the words that its relay has said it knows."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from outbox.core.draft import Envelope
from outbox.transport.outcome import NotSent


@dataclass(frozen=True, slots=True)
class Offers:
    """What a relay offers: `most` is the most octets that it takes, 0 where it names no limit."""

    size: bool
    most: int
    pipelining: bool
    eight_bit: bool
    utf8: bool
    reports: bool


def offers_of(extensions: Mapping[str, str]) -> Offers:
    """Read out of the reply to EHLO: names in lower case, with their words."""
    limit = extensions.get("size", "").strip()
    return Offers(
        size="size" in extensions,
        most=int(limit) if re.fullmatch("[0-9]{1,19}", limit) else 0,
        pipelining="pipelining" in extensions,
        eight_bit="8bitmime" in extensions,
        utf8="smtputf8" in extensions,
        reports="dsn" in extensions,
    )


@dataclass(frozen=True, slots=True)
class Sending:
    """What is to be sent: octets with CRLF line ends to an envelope, without the `spare` recipients if need be.

    With `envid`, delivery is to be reported under it (RFC 3461).
    """

    envelope: Envelope
    octets: bytes
    spare: frozenset[str]
    envid: str | None


def spare_of(envelope: Envelope, named: Collection[str]) -> frozenset[str]:
    """Those of Bcc that it can go without: a message for nobody else is not for nobody."""
    if not (named and envelope.bcc):
        return frozenset()
    spare = frozenset(named) & frozenset(envelope.bcc)
    return spare if frozenset(envelope.recipients) > spare else frozenset()


def lacking(sending: Sending, offers: Offers) -> NotSent | None:
    """Why this relay cannot take this message at all, if so."""
    octets = sending.octets
    if 0 < offers.most < len(octets):
        return NotSent(f"the relay takes at most {offers.most} octets, the message has {len(octets)}", transient=False)
    if not offers.eight_bit and not octets.isascii():
        return NotSent("the message has octets beyond ASCII and the relay does not offer 8BITMIME", transient=False)
    if not offers.utf8 and _needs_smtputf8(sending.envelope):
        return NotSent("an address is beyond ASCII and the relay does not offer SMTPUTF8", transient=False)
    return None


def commands(sending: Sending, offers: Offers) -> list[bytes]:
    """MAIL, one RCPT for each recipient, and DATA: each one line."""
    reports = offers.reports and sending.envid is not None
    lines = [_mail(sending, offers, reports=reports)]
    lines += [_rcpt(address, reports=reports) for address in sending.envelope.recipients]
    for line in lines:
        if "\r" in line or "\n" in line:
            raise AssertionError("a command is one line")
    return [*[f"{line}\r\n".encode() for line in lines], b"DATA\r\n"]


def stuffed(octets: bytes) -> bytes:
    """With a second dot at the start of each line that has one (RFC 5321 4.5.2)."""
    twice = octets.replace(b"\r\n.", b"\r\n..")
    return b"." + twice if twice.startswith(b".") else twice


def _mail(sending: Sending, offers: Offers, *, reports: bool) -> str:
    command = f"MAIL FROM:<{sending.envelope.sender}>"
    if offers.size:
        command += f" SIZE={len(sending.octets)}"
    if not sending.octets.isascii():
        command += " BODY=8BITMIME"
    if _needs_smtputf8(sending.envelope):
        command += " SMTPUTF8"
    if reports:
        command += f" RET=HDRS ENVID={_xtext(sending.envid or '')}"
    return command


def _rcpt(address: str, *, reports: bool) -> str:
    command = f"RCPT TO:<{address}>"
    if reports:
        command += " NOTIFY=SUCCESS,FAILURE"
        if address.isascii():  # else it would need the type "utf-8" (RFC 6533 3)
            command += f" ORCPT=rfc822;{_xtext(address)}"
    return command


def _xtext(text: str) -> str:
    """RFC 3461 4: what is not graphic ASCII, and "+" and "=", as "+" and two hexadecimal digits."""
    return "".join(chr(o) if 33 <= o <= 126 and o not in b"+=" else f"+{o:02X}" for o in text.encode())


def _needs_smtputf8(envelope: Envelope) -> bool:
    return not (envelope.sender.isascii() and all(map(str.isascii, envelope.recipients)))
