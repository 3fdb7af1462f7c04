"""What people are shown of a message, read from the verified octets and never from columns."""

from __future__ import annotations

import email
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.policy import compat32
from html.parser import HTMLParser

from outbox.core.canonical import sha256
from outbox.core.errors import Code, PolicyRefused
from outbox.core.message import decode_words, split_headers

MOST_PARTS = 200
PREFIX = "| "
_BREAKS = {"p", "div", "br", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "hr", "blockquote"}
_SILENT = {"head", "script", "style", "title"}
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class AttachmentSummary:
    """What stands in a request for an attachment: size in octets, digest as hex."""

    name: str
    media_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Rendering:
    """The readable parts of a message; `html` is the text of its HTML part, with every link's target."""

    subject: str
    text: str | None
    html: str | None
    attachments: tuple[AttachmentSummary, ...]


def render(message: bytes) -> Rendering:
    """Read a message for people. Raises PolicyRefused(message_malformed) where it nests or multiplies parts."""
    texts: list[str] = []
    htmls: list[str] = []
    attachments: list[AttachmentSummary] = []
    for part in leaves(message):
        disposition = part.get_content_disposition()
        if disposition != "attachment" and part.get_content_type() == "text/plain":
            texts.append(decode_text(part))
        elif disposition != "attachment" and part.get_content_type() == "text/html":
            htmls.append(html_to_text(decode_text(part)))
        else:
            attachments.append(_summary(part))
    subjects = [value for name, value in split_headers(message) if name.lower() == "subject"]
    return Rendering(
        subject=decode_words(subjects[0]) if subjects else "",
        text="\n".join(texts) if texts else None,
        html="\n".join(htmls) if htmls else None,
        attachments=tuple(attachments),
    )


def leaves(message: bytes) -> Iterator[Message]:
    """The parts of a message that hold content; what is inside a message/rfc822 counts as one."""
    if message.lower().count(b"content-type:") > MOST_PARTS:
        raise PolicyRefused(Code.MESSAGE_MALFORMED, f"the message has more than {MOST_PARTS} parts")
    pending: list[Message] = [email.message_from_bytes(message, policy=compat32)]
    while pending:
        part = pending.pop()
        payload = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(payload, list):
            pending += [child for child in reversed(payload) if isinstance(child, Message)]
        else:
            yield part


def decode_text(part: Message) -> str:
    """A text part's characters, with line ends as LF; what its charset cannot say is replaced."""
    octets = part.get_payload(decode=True)
    raw = octets if isinstance(octets, bytes) else b""
    charset = part.get_content_charset("utf-8")
    try:
        text = raw.decode(charset, "replace")
    except (LookupError, ValueError):
        text = raw.decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _summary(part: Message) -> AttachmentSummary:
    payload = part.get_payload()
    if isinstance(payload, list):
        octets = b"".join(child.as_bytes() for child in payload if isinstance(child, Message))
    else:
        decoded = part.get_payload(decode=True)
        octets = decoded if isinstance(decoded, bytes) else b""
    name = decode_words(part.get_filename() or "(no name)")
    return AttachmentSummary(name, part.get_content_type(), len(octets), sha256(octets).hex())


class _TextOfHtml(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0
        self._links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        elif tag in _BREAKS:
            self.pieces.append("\n")
        elif tag == "a":
            self._links.append(dict(attrs).get("href") or "")
        elif tag == "img":
            self.pieces.append(f"[image {dict(attrs).get('src') or ''}]")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BREAKS:
            self.pieces.append("\n")
        elif tag == "a" and self._links:
            target = self._links.pop()
            if target:
                self.pieces.append(f" <{target}>")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.pieces.append(re.sub(r"\s+", " ", data))


def html_to_text(html: str) -> str:
    """The words of an HTML part, a line for each block, each link followed by its target."""
    parser = _TextOfHtml()
    parser.feed(html)
    parser.close()
    lines = [line.strip() for line in "".join(parser.pieces).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def fenced(text: str) -> str:
    """`text` with a prefix on every line, so that none of it can be taken for words of ours or for an answer."""
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    return "\n".join(f"{PREFIX}{visible(line)}".rstrip() for line in lines)


def visible(line: str) -> str:
    """One line in which characters that are not seen, or that change the order of what is seen, are written out."""
    return _UNPRINTABLE.sub(lambda found: f"<U+{ord(found[0]):04X}>", line)
