"""aiosmtplib on kept connections, with ready octets and no queue at all: `drain PORT CONNECTIONS COUNT [compose]`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from email.message import EmailMessage

import aiosmtplib

from benchmarks.mail import RECIPIENT, SENDER, message, subject, text


def composed(number: int) -> bytes:
    """The same mail, composed as it is sent."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = SENDER, RECIPIENT, subject(number)
    made.set_content(text())
    return made.as_bytes()


async def drain(port: str, connections: str, count: str, how: str = "ready") -> None:
    """Send `count` mails, each connection as fast as it is answered."""
    make = composed if how == "compose" else message
    numbers = iter(range(int(count)))
    await asyncio.gather(*(_send(int(port), numbers, make) for _ in range(int(connections))))


async def _send(port: int, numbers: Iterator[int], make: object) -> None:
    assert callable(make)
    relay = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)
    await relay.connect()
    for number in numbers:
        await relay.sendmail(SENDER, [RECIPIENT], make(number))
    await relay.quit()


if __name__ == "__main__":
    asyncio.run(drain(*sys.argv[2:]))
