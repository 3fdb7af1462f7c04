"""Addresses, parsed strictly: what is not exactly one address is none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from outbox.core.errors import Code, PolicyRefused

_LONGEST_HEADER = 64 * 1024
# One mailbox (RFC 5322 3.4) without comments, groups or routes; linear, for hostile input.
_MAILBOX = re.compile(
    r"""(?: (?P<name> "(?:[^"\\\r\n]|\\[^\r\n])*"[ \t]* | [^"<>@,;:()\\\[\]\r\n]* )
            < (?P<angle> [^<>"(),;:\s]{1,320} ) >
          | (?P<bare> [^<>"(),;:\s]{1,320} ) )""",
    re.VERBOSE,
)
# What validate_email returns as it is: most addresses, sixty times as fast. Lower case, because it writes some local
# parts ("Sales") in lower case and others not; labels without "--", which it looks at closely; linear.
_PLAIN = re.compile(
    r"(?=[^@]{1,64}@) [a-z0-9_!#$%&'*+\-/=?^`{|}~]+ (?: \. [a-z0-9_!#$%&'*+\-/=?^`{|}~]+ )*"
    r"@ (?: (?!-) (?: [a-z0-9] | -(?![-.]) ){1,63} \. )+ (?P<top> [a-z]{2,63} )",
    re.VERBOSE,
)
_LONGEST_ADDRESS = 254  # RFC 3696, erratum 1690
NOT_PLAIN = frozenset({"arpa", "invalid", "local", "localhost", "onion", "test"})  # the library looks at these closely
_EMPTY_GROUP = re.compile(r"\s*[A-Za-z -]{1,100}:\s*;\s*")  # "undisclosed-recipients:;"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A display name, possibly empty, and an address as the envelope says it."""

    name: str
    address: str


def parse_address(text: str, field: str) -> str:
    """One address as the envelope says it: local part as given, domain in lower-case ASCII (IDNA 2008).

    A local part beyond ASCII stays as it is and needs SMTPUTF8 at the relay. Raises PolicyRefused naming `field`.
    """
    if is_plain(text):
        return text
    from email_validator import EmailNotValidError, validate_email  # rarely needed, and slow to import

    try:
        # test_environment admits the reserved domain "test"; nothing is looked up either way.
        parsed = validate_email(text, check_deliverability=False, test_environment=True, strict=True)
    except EmailNotValidError as error:
        raise PolicyRefused(
            Code.ADDRESS_INVALID, f"{field}: {text[:100]!a} is not one e-mail address. {error}", field=field
        ) from error
    return f"{parsed.local_part}@{(parsed.ascii_domain or parsed.domain).lower()}"


def is_plain(text: str) -> bool:
    """Whether parse_address returns `text` as it is, at first sight; False says nothing."""
    return len(text) <= _LONGEST_ADDRESS and _is_plain(text)


@lru_cache(maxsize=1024)  # each is looked at in the envelope and in the header, and senders come again and again
def _is_plain(text: str) -> bool:
    found = _PLAIN.fullmatch(text)
    return found is not None and found["top"] not in NOT_PLAIN


def parse_mailbox(text: str, field: str) -> Mailbox:
    """`jane@example.org` or `Jane Doe <jane@example.org>`. Raises PolicyRefused naming `field`."""
    if is_plain(text):
        return Mailbox("", text)
    found = _MAILBOX.fullmatch(text.strip(" \t"))
    if found is None:
        return Mailbox("", parse_address(text, field))
    name = (found["name"] or "").strip(" \t")
    if name.startswith('"'):
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return Mailbox(name, parse_address(found["angle"] or found["bare"], field))


def parse_mailboxes(value: str, field: str) -> tuple[Mailbox, ...]:
    """The mailboxes of an unfolded To, Cc or From header. Raises PolicyRefused naming `field`."""
    if len(value) > _LONGEST_HEADER:
        raise PolicyRefused(Code.MESSAGE_MALFORMED, f"{field}: the header is longer than 64 KiB", field=field)
    return _remembered(value, field) if len(value) <= _LONGEST_ADDRESS else _mailboxes(value, field)


@lru_cache(maxsize=256)
def _remembered(value: str, field: str) -> tuple[Mailbox, ...]:
    return _mailboxes(value, field)


def _mailboxes(value: str, field: str) -> tuple[Mailbox, ...]:
    if _EMPTY_GROUP.fullmatch(value):
        return ()
    return tuple(parse_mailbox(part, field) for part in _split_at_commas(value))


def _split_at_commas(value: str) -> list[str]:
    if '"' not in value:
        return value.split(",")
    parts, start, quoted, escaped = [], 0, False, False
    for position, character in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            parts.append(value[start:position])
            start = position + 1
    return [*parts, value[start:]]


def domain(address: str) -> str:
    """The part after the @ of a parsed address."""
    return address.rpartition("@")[2]


def comparable(address: str) -> str:
    """A parsed address without regard to ASCII case, which no mailbox is told apart by.

    Beyond ASCII every character counts: folding would make one of two mailboxes ("strauß" and "strauss").
    """
    return address.lower() if address.isascii() else address


def without_extension(address: str) -> str:
    """`Approve+anything@example.org` as `approve@example.org`: for comparing mailboxes."""
    local, _, host = address.rpartition("@")
    return comparable(f"{local.partition('+')[0]}@{host}")
