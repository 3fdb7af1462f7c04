"""Compose and inspect RFC 5322 octets.

A message is composed once, at drafting, with CRLF line ends, 7-bit content and boundaries made from the draft's id; it
has no Date until it is sent. What an agent hands over whole (`--eml`) keeps its octets, less the headers that are ours.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.charset import QP, Charset
from email.header import Header
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import compat32
from email.utils import format_datetime
from functools import lru_cache

from outbox.core.address import Mailbox, comparable, parse_mailboxes
from outbox.core.draft import MICROSECONDS, Envelope, Thread
from outbox.core.errors import Code, PolicyRefused

DRAFT_HEADER = "X-Outbox-Draft"
LONGEST_LINE = 998  # RFC 5322 2.1.1, without CRLF
_OURS = {"date", "bcc", "return-path", "sender"}
_ONCE = {
    "from", "to", "cc", "bcc", "reply-to", "subject", "message-id", "in-reply-to", "references", "mime-version",
    "content-type", "content-transfer-encoding",
}  # fmt: skip
_LARGEST_REMEMBERED = 8192  # octets of a header block
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
_WORD = re.compile(r"=\?([^?\s]{1,80})\?([bBqQ])\?([^?]*)\?=")
_BETWEEN_WORDS = re.compile(r"(=\?[^?\s]{1,80}\?[bBqQ]\?[^?]*\?=)\s+(?==\?)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,100}")
_MESSAGE_ID = re.compile(r"<[^<>\s@]{1,300}@[^<>\s@]{1,300}>", re.ASCII)
_WIRE = compat32.clone(linesep="\r\n", mangle_from_=False)
_SIMPLE_HEAD = 'Content-Type: text/{}; charset="us-ascii"\nMIME-Version: 1.0\nContent-Transfer-Encoding: 7bit\n\n'
_QUOTED_PRINTABLE = Charset("utf-8")
_QUOTED_PRINTABLE.body_encoding = QP


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file's name, media type and octets, read at drafting."""

    name: str
    media_type: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """What a message is composed from. `headers` are further ones, in order, of our own making."""

    sender: Mailbox
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    subject: str
    text: str | None
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()
    thread: Thread = Thread()
    headers: tuple[tuple[str, str], ...] = ()


def compose(content: Content, draft_id: str, message_id: str) -> bytes:
    """The octets of a message. Raises PolicyRefused(header_injection) where a value would become a header."""
    named = [
        ("From", (content.sender,)),
        ("To", content.to),
        ("Cc", content.cc),
    ]
    lines = [_address_line(name, mailboxes) for name, mailboxes in named if mailboxes]
    texts = [
        ("Subject", content.subject),
        ("Message-ID", message_id),
        ("In-Reply-To", content.thread.in_reply_to or ""),
        ("References", " ".join(content.thread.references)),
        (DRAFT_HEADER, draft_id),
        *content.headers,
    ]
    lines += [_text_line(name, value) for name, value in texts if value]
    octets = normalise_lines(b"".join(lines) + _body(content, f"outbox-{draft_id}"))
    expected = [name for name, mailboxes in named if mailboxes] + [name for name, value in texts if value]
    _compare_names(octets, expected)
    return octets


def _compare_names(octets: bytes, expected: list[str]) -> None:
    found = [name for name, _ in split_headers(octets) if not name.lower().startswith(("content-", "mime-version"))]
    if found != expected:
        raise PolicyRefused(
            Code.HEADER_INJECTION, "a header value would become a header of its own; nothing was drafted"
        )


def _address_line(name: str, mailboxes: Iterable[Mailbox]) -> bytes:
    rendered = []
    for mailbox in mailboxes:
        display = refuse_control(mailbox.name, name)
        if display:
            escaped = display.replace("\\", "\\\\").replace('"', '\\"')
            display = f'"{escaped}"' if _is_plain(display) else Header(display, "utf-8").encode(linesep="\r\n")
        rendered.append(f"{display} <{mailbox.address}>" if display else mailbox.address)
    separator = ",\r\n "
    return f"{name}: {separator.join(rendered)}\r\n".encode()


def _text_line(name: str, value: str) -> bytes:
    refuse_control(value, name)
    if _is_plain(value) and (len(name) + len(value) <= 76 or " " not in value):
        return f"{name}: {value}\r\n".encode()
    charset = "us-ascii" if _is_plain(value) else "utf-8"
    folded = Header(value, charset, header_name=name).encode(linesep="\r\n")
    return f"{name}: {folded}\r\n".encode()


def _is_plain(value: str) -> bool:
    return value.isascii() and "=?" not in value


def refuse_control(value: str, field: str) -> str:
    """`value`, where neither it nor what its encoded words say has control characters (CVE-2024-6923)."""
    if _CONTROL.search(value) or ("=?" in value and _CONTROL.search(decode_words(value))):
        raise PolicyRefused(
            Code.HEADER_INJECTION, f"{field}: control characters or line breaks do not belong in a header", field=field
        )
    return value


def decode_words(value: str) -> str:
    """A header value with its encoded words (RFC 2047, RFC 2231 languages) decoded one by one.

    A word in a charset that nobody knows is read as Latin-1, so that what it hides is seen; a broken one stays.
    """
    if "=?" not in value:
        return value
    return _WORD.sub(lambda word: _decode_word(word[1], word[2], word[3]), _BETWEEN_WORDS.sub(r"\1", value))


def _decode_word(charset: str, encoding: str, text: str) -> str:
    try:
        if encoding in "bB":
            octets = binascii.a2b_base64(text + "=" * (-len(text) % 4))
        else:
            octets = binascii.a2b_qp(text, header=True)
    except (ValueError, binascii.Error):
        return f"=?{charset}?{encoding}?{text}?="
    try:
        return octets.decode(charset.partition("*")[0], "replace")
    except (LookupError, ValueError):
        return octets.decode("latin-1")


def _body(content: Content, boundary: str) -> bytes:
    """From Content-Type on. One short-lined ASCII text is written as the email package would, without asking it."""
    given = [(_lines(text), subtype) for text, subtype in ((content.text, "plain"), (content.html, "html")) if text]
    if len(given) == 1 and not content.attachments and _is_simple(given[0][0]):
        text, subtype = given[0]
        return f"{_SIMPLE_HEAD.format(subtype)}{text}".replace("\n", "\r\n").encode("ascii")
    readable = [_text_part(text, subtype) for text, subtype in given]
    body: MIMEBase = readable[0] if len(readable) == 1 else _multipart("alternative", readable, f"{boundary}-a")
    return _mixed(body, content.attachments, f"{boundary}-m") if content.attachments else body.as_bytes(policy=_WIRE)


def _mixed(body: MIMEBase, attachments: Iterable[Attachment], boundary: str) -> bytes:
    """The body and attachments: parts as the email package writes them, put together here, because it copies each."""
    head, _, _ = MIMEMultipart("mixed", boundary).as_bytes(policy=_WIRE).partition(b"\r\n\r\n")
    del body["MIME-Version"]
    parts = [body.as_bytes(policy=_WIRE), *map(_attachment_part, attachments)]
    between = f"\r\n--{boundary}\r\n".encode("ascii")
    return b"".join([head, b"\r\n", between, between.join(parts), between[:-2], b"--\r\n"])


def _multipart(subtype: str, parts: Sequence[MIMEBase], boundary: str) -> MIMEMultipart:
    multipart = MIMEMultipart(subtype, boundary, parts)
    for part in parts:
        del part["MIME-Version"]
    return multipart


def _lines(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else f"{text}\n"


def _is_simple(text: str) -> bool:
    return text.isascii() and max(map(len, text.split("\n"))) <= 76 and "\0" not in text


def _text_part(text: str, subtype: str) -> MIMEText:
    return MIMEText(text, subtype, "us-ascii" if _is_simple(text) else _QUOTED_PRINTABLE)  # type: ignore[arg-type]


def _attachment_part(attachment: Attachment) -> bytes:
    if not _MEDIA_TYPE.fullmatch(attachment.media_type) or attachment.media_type.startswith("multipart/"):
        raise PolicyRefused(
            Code.MESSAGE_MALFORMED, f"{attachment.media_type[:60]!a} is no media type for an attachment"
        )
    main, _, sub = attachment.media_type.partition("/")
    part = MIMEBase(main, sub)
    del part["MIME-Version"]
    is_message = attachment.media_type == "message/rfc822" and attachment.octets.isascii()
    if not is_message:  # RFC 2046 5.2.1: that is never encoded
        part["Content-Transfer-Encoding"] = "base64"
    name = refuse_control(attachment.name, "attachment")
    is_plain = _is_plain(name) and not {'"', "\\"} & {*name}  # readers do not agree on how those are quoted
    part.add_header("Content-Disposition", "attachment", filename=name if is_plain else ("utf-8", "", name))
    if is_message:
        part.set_payload(attachment.octets.decode("ascii"))
        return part.as_bytes(policy=_WIRE)
    part.set_payload("")
    return part.as_bytes(policy=_WIRE) + _base64_lines(attachment.octets)


def _base64_lines(octets: bytes) -> bytes:
    encoded = binascii.b2a_base64(octets, newline=False)
    return b"".join([encoded[start : start + 76] + b"\r\n" for start in range(0, len(encoded), 76)])


def split_headers(octets: bytes) -> tuple[tuple[str, str], ...]:
    """Name and unfolded value of every header field, strictly. Raises PolicyRefused(message_malformed).

    `octets` have CRLF line ends. Values keep RFC 2047 words as they are; octets beyond ASCII are read as UTF-8.
    """
    head = header_block(octets)
    return _remembered(head) if len(head) <= _LARGEST_REMEMBERED else _pairs(head)


def header_block(octets: bytes) -> bytes:
    """The octets before the empty line, without the end of the last one."""
    end = octets.find(b"\r\n\r\n")
    return octets.removesuffix(b"\r\n") if end < 0 else octets[:end]


@lru_cache(maxsize=16)
def _remembered(head: bytes) -> tuple[tuple[str, str], ...]:
    """A draft's header block is looked into several times on its way."""
    return _pairs(head)


def _pairs(head: bytes) -> tuple[tuple[str, str], ...]:
    return tuple([(name, value) for name, value, _ in _fields(head)])


def _fields(head: bytes) -> list[tuple[str, str, bytes]]:
    """Name, unfolded value and octets of each field of a header block."""
    fields: list[tuple[str, str, bytes]] = []
    for raw in _FIELD_END.split(head):
        name, colon, value = raw.partition(b":")
        label = name.decode("ascii", "replace")
        if not colon or not FIELD_NAME.fullmatch(label):
            raise PolicyRefused(Code.MESSAGE_MALFORMED, f"{label[:40]!a} is not a header field")
        text = value.replace(b"\r\n", b"").decode("utf-8", "replace").strip()
        fields.append((label, text, raw + b"\r\n"))
    return fields


@dataclass(frozen=True, slots=True)
class Adopted:
    """A message taken over from an agent: its octets as they will be signed, and what its headers say."""

    message: bytes
    message_id: str
    subject: str
    sender: Mailbox
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    bcc: tuple[Mailbox, ...]
    thread: Thread
    stripped: bytes  # without Message-ID too: what the fingerprint is taken over


def adopt(octets: bytes, draft_id: str, message_id: str, *, anew: bool = False) -> Adopted:
    """Take over an agent's own message: keep its octets, less Date, Bcc and kin, plus ours (DESIGN section 5).

    `message_id` is used where it has none, or where it is to have another, `anew`. Raises PolicyRefused where the
    message could be read in two ways.
    """
    octets = normalise_lines(octets)
    fields, body = _fields(header_block(octets)), octets.partition(b"\r\n\r\n")[2]
    kept = [(name, value, raw) for name, value, raw in fields if not _is_ours(name)]
    names = [name.lower() for name, _, _ in fields]
    for name in _ONCE:
        if names.count(name) > 1:
            raise PolicyRefused(Code.MESSAGE_MALFORMED, f"the message has more than one {name.title()} header")
    for name, value, _ in kept:
        refuse_control(value, name)
    values = {name.lower(): value for name, value, _ in fields}
    senders = parse_mailboxes(values.get("from", ""), "From")
    if len(senders) != 1:
        raise PolicyRefused(Code.MESSAGE_MALFORMED, "From: exactly one author is needed", field="From")
    own_id = None if anew else values.get("message-id")
    if own_id is not None and not _MESSAGE_ID.fullmatch(own_id):
        raise PolicyRefused(Code.MESSAGE_MALFORMED, "Message-ID: not one message id", field="Message-ID")
    stripped = b"".join(raw for name, _, raw in kept if name.lower() != "message-id") + b"\r\n" + body
    ours = f"Message-ID: {own_id or message_id}\r\n{DRAFT_HEADER}: {draft_id}\r\n".encode()
    return Adopted(
        message=ours + stripped,
        message_id=own_id or message_id,
        subject=decode_words(values.get("subject", "")),
        sender=senders[0],
        to=_mailboxes(values, "to"),
        cc=_mailboxes(values, "cc"),
        bcc=_mailboxes(values, "bcc"),
        thread=Thread(
            next(iter(parse_message_ids(values.get("in-reply-to", ""))), None),
            parse_message_ids(values.get("references", "")),
        ),
        stripped=stripped,
    )


def _is_ours(name: str) -> bool:
    return name.lower() in _OURS or name.lower().startswith(("resent-", "x-outbox-"))


def _mailboxes(values: dict[str, str], name: str) -> tuple[Mailbox, ...]:
    return parse_mailboxes(values[name], name.title()) if values.get(name) else ()


def parse_message_ids(value: str) -> tuple[str, ...]:
    """Every `<id@host>` in a header value, in order."""
    return tuple(_MESSAGE_ID.findall(value))


def normalise_lines(octets: bytes) -> bytes:
    """CRLF line ends throughout. Raises PolicyRefused for NUL, a bare CR or a line over 998 octets."""
    if is_normal(octets):
        return octets
    octets = octets.replace(b"\r\n", b"\n")
    if b"\r" in octets or b"\0" in octets:
        raise PolicyRefused(Code.MESSAGE_MALFORMED, "the message has a bare CR or a NUL")
    if max(map(len, octets.split(b"\n"))) > LONGEST_LINE:
        raise PolicyRefused(Code.MESSAGE_MALFORMED, f"the message has a line of over {LONGEST_LINE} octets")
    if not octets.endswith(b"\n"):
        octets += b"\n"
    return octets.replace(b"\n", b"\r\n")


def is_normal(octets: bytes) -> bool:
    """Whether `octets` are what normalise_lines makes of them; False where it refuses them."""
    ends = octets.count(b"\n")
    if not (octets.endswith(b"\r\n") and octets.count(b"\r\n") == ends == octets.count(b"\r")) or b"\0" in octets:
        return False
    start, longest = 0, LONGEST_LINE + 2
    while len(octets) - start > longest:  # whichever line ends last in here, those before it are shorter
        start = octets.rfind(b"\n", start, start + longest) + 1
        if not start:
            return False
    return True


def date_line(now: int) -> bytes:
    """The one line that is added as a message is sent; `now` in microseconds UTC."""
    return _date_line(now // MICROSECONDS)


@lru_cache(maxsize=4)
def _date_line(seconds: int) -> bytes:
    return f"Date: {format_datetime(datetime.fromtimestamp(seconds, UTC))}\r\n".encode()


def header_disagreements(message: bytes, envelope: Envelope) -> tuple[str, ...]:
    """Where From, To and Cc say something else than the envelope, as sentences for the approver."""
    found: dict[str, list[str]] = {"from": [], "to": [], "cc": []}
    for name, value in split_headers(message):
        if name.lower() in found and value:
            found[name.lower()] += [mailbox.address for mailbox in parse_mailboxes(value, name)]
    said = []
    if found["from"] != [envelope.sender]:
        said.append(f"The From header says {', '.join(found['from'])}; the envelope's sender is {envelope.sender}.")
    shown = {comparable(address) for address in found["to"] + found["cc"]}
    sent = {comparable(address) for address in envelope.recipients}
    hidden = sorted(sent - shown - {comparable(address) for address in envelope.bcc})
    if hidden:
        said.append(f"Not named in To or Cc, but would receive it: {', '.join(hidden)}.")
    if shown - sent:
        said.append(f"Named in To or Cc, but would not receive it: {', '.join(sorted(shown - sent))}.")
    return tuple(said)
