"""The one job that every contestant is given: mails of 2 KB to one recipient, each with a number in its subject."""

from __future__ import annotations

import re

SENDER = "sales@acme.example"
RECIPIENT = "jane@customer.example"
OCTETS = 2048
NUMBERED = re.compile(rb"^Subject: Benchmark (\d{7})", re.MULTILINE)
_LINE = "Dear Jane, this is one line of an ordinary offer, as long as lines of mail are."


def subject(number: int) -> str:
    """The header by which the sink knows each mail again."""
    return f"Benchmark {number:07}"


def text(octets: int = OCTETS - 250) -> str:
    """A body of about that many octets, in lines."""
    return "\n".join([_LINE] * max(1, octets // (len(_LINE) + 2))) + "\n"


_BODY = text().replace("\n", "\r\n")


def message(number: int) -> bytes:
    """A whole message, ready for DATA, of OCTETS octets or a few less."""
    head = (
        f"From: Sales <{SENDER}>\r\nTo: Jane <{RECIPIENT}>\r\nSubject: {subject(number)}\r\n"
        f"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\nMessage-ID: <{number:07}@acme.example>\r\n"
        'MIME-Version: 1.0\r\nContent-Type: text/plain; charset="us-ascii"\r\n\r\n'
    )
    return (head + _BODY).encode()
