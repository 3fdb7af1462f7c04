"""What people are shown of a message, read from the verified octets and never from columns. Nothing is left out."""

from __future__ import annotations

import binascii
import email
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.policy import compat32
from email.utils import collapse_rfc2231_value

from outbox.core.canonical import sha256
from outbox.core.errors import Code, PolicyRefused
from outbox.core.html import Words, words_of_html
from outbox.core.message import decode_words, split_headers

MOST_PARTS = 200
MOST_MULTIPARTS = 50  # the email package's cost is their nesting times the lines
MOST_LINES_LIKE_BOUNDARIES = 5000
PREFIX = "| "
_LONGEST_FIELD = 4096  # of a part's own header; the email package is quadratic in its parameters
_ONCE = {"content-type", "content-transfer-encoding", "content-disposition"}
# Control characters, and those that are not seen or change the order of what is seen (Unicode's Cf and kin).
_UNSEEN = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\u2800\u3164\ud800-\udfff\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_MESSAGE_TYPE = re.compile(rb"^(content-type[ \t]*:\s*)message/", re.IGNORECASE | re.MULTILINE)
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_LONGEST_PLAIN = 256 * 1024  # octets
_ASCII = b'content-type: text/plain; charset="us-ascii"'
_QUOTED = b"content-transfer-encoding: quoted-printable"
_PLAIN_FIELDS = {
    _ASCII, _QUOTED, b"content-type: text/plain", b'content-type: text/plain; charset="utf-8"',
    b"content-type: text/plain; charset=utf-8", b"content-transfer-encoding: 7bit", b"content-transfer-encoding: 8bit",
}  # fmt: skip
_BOUNDARY = re.compile(rb"boundary\*?\d*\*?\s*=")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_RUN = re.compile(rb"^(?:[A-Za-z0-9+/]{76}\r\n)++", re.MULTILINE)
_LEAST_RUN = 256 * 78  # octets
_MARK_BEGINS = b"=outbox-run-"
_MARK = re.compile("=outbox-run-([0-9]+)=")
_BLANKS = b"\t\n\v\f\r\x1c\x1d\x1e\x1f "  # of ASCII, as str.split sees them
# Codecs that say what they mean in time; the standard library has others that take minutes, or that hide ASCII.
_CHARSETS = re.compile(
    r"utf-?8|us-ascii|ascii|iso-?8859-?[0-9]{1,2}|latin-?1|windows-?[0-9]{3,4}|cp[0-9]{3,4}|koi8-[ru]|gb2312|gbk|gb18030"
    r"|big5|shift_jis|euc-(?:jp|kr)|iso-2022-(?:jp|kr)|macintosh|utf-16(?:le|be)?"
)


@dataclass(frozen=True, slots=True)
class AttachmentSummary:
    """What stands in a request for an attachment: size in octets, digest as hex."""

    name: str
    media_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Rendering:
    """The readable parts of a message; `html` is the words of its HTML part, with every link's target.

    `may_hide` where that part has styles or scripts that could keep some of the words from a reader.
    """

    subject: str
    text: str | None
    html: str | None
    may_hide: bool
    attachments: tuple[AttachmentSummary, ...]


def render(message: bytes) -> Rendering:
    """Read a message for people. Raises PolicyRefused(message_malformed) where it nests or multiplies parts."""
    plain = _plain_text(message)
    return _rendered(message) if plain is None else Rendering(_subject(message), plain, None, False, ())


def _rendered(message: bytes) -> Rendering:
    texts: list[str] = []
    htmls: list[Words] = []
    attachments: list[AttachmentSummary] = []
    for part in leaves(message):
        if type_of(part).startswith("message/"):
            texts.append(f"[{type_of(part)}, as it stands]\n{decode_text(part)}")
        elif part.get_content_type() == "text/html":
            htmls.append(words_of_html(decode_text(part)))
        elif part.get_content_maintype() == "text" and part.get_content_disposition() != "attachment":
            label = "" if part.get_content_type() == "text/plain" else f"[{part.get_content_type()}]\n"
            texts.append(label + decode_text(part))
        if part.get_content_maintype() != "text" or part.get_content_disposition() == "attachment" or _names(part):
            attachments.append(_summary(part))
    return Rendering(
        subject=_subject(message),
        text="\n".join(texts) if texts else None,
        html="\n".join(words.text for words in htmls) if htmls else None,
        may_hide=any(words.may_hide for words in htmls),
        attachments=tuple(attachments),
    )


def _subject(message: bytes) -> str:
    subjects = (value for name, value in split_headers(message) if name.lower() == "subject")
    return decode_words(next(subjects, ""))


def _plain_text(message: bytes) -> str | None:
    """What decode_text says of a message that is one plain text and says so in words of this list; most are.

    None for anything that the email package has to be asked about.
    """
    head, separator, body = message.partition(b"\r\n\r\n")
    head, ends = head.lower(), head.count(b"\n")
    if not separator or len(message) > _LONGEST_PLAIN or not head.count(b"\r\n") == ends == head.count(b"\r"):
        return None
    said = [field for field in _FIELD_END.split(head) if field.startswith(b"content-")]
    names = {field.partition(b":")[0] for field in said}
    whole = message.lower()
    if len(names) < len(said) or not _PLAIN_FIELDS.issuperset(said) or b"message/" in whole or b"boundary" in whole:
        return None
    raw = quopri.decodestring(body) if _QUOTED in said else body
    return _characters(raw, "ascii" if _ASCII in said else "utf-8")


def leaves(message: bytes) -> Iterator[Message]:
    """The parts of a message that hold content; what is inside a message/rfc822 counts as one.

    Raises PolicyRefused(message_malformed) where two readers could see two messages in it.
    """
    small = message.lower()  # a pattern that need not look at case is found far sooner
    if len(_BOUNDARY.findall(small)) > MOST_MULTIPARTS:
        raise _malformed(f"the message has more than {MOST_MULTIPARTS} multiparts")
    if message.count(b"\n--") > MOST_LINES_LIKE_BOUNDARIES and b"boundary" in small:
        raise _malformed("the message has more parts, or lines like their boundaries, than are read")
    # A message inside is kept as the octets that it is: the email package would write it anew.
    if b"message/" in small:
        yield from _parts(_MESSAGE_TYPE.sub(rb"\1x-message/", message))
        return
    del small
    lean, runs = _taken_out(message)
    for part in _parts(lean):
        if runs and isinstance(part._payload, str):  # type: ignore[attr-defined]  # noqa: SLF001  undecoded
            part.set_payload(_MARK.sub(lambda mark: runs[int(mark[1])], part._payload))  # type: ignore[attr-defined]  # noqa: SLF001
        yield part


def _taken_out(message: bytes) -> tuple[bytes, list[str]]:
    """`message` with a mark for each long run of base64 lines, and those runs: the email package looks at each line.

    Such a line is no field, no boundary and not blank, and neither is a mark: the parts are the same.
    """
    runs: list[str] = []
    if len(message) < _LEAST_RUN or _MARK_BEGINS in message:
        return message, runs
    pieces, end = [], 0
    for found in _RUN.finditer(message):
        if found.end() - found.start() >= _LEAST_RUN:
            pieces += [message[end : found.start()], b"%s%d=\r\n" % (_MARK_BEGINS, len(runs))]
            runs.append(found[0][:-2].decode("ascii"))
            end = found.end()
    return b"".join([*pieces, message[end:]]), runs


def _parts(opaque: bytes) -> Iterator[Message]:
    try:
        pending: list[Message] = [email.message_from_bytes(opaque, policy=compat32)]
    except ValueError as error:  # boundary*= with a NUL as its charset
        raise _malformed("the message has a header that cannot be read") from error
    found = 0
    while pending:
        part = pending.pop()
        _refuse_ambiguous(part)
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            pending += reversed(_children(part))
            continue
        found += 1
        if found > MOST_PARTS:
            raise _malformed(f"the message has more than {MOST_PARTS} parts")
        yield part


def type_of(part: Message) -> str:
    """A part's media type, in lower case, as it was given."""
    found = part.get_content_type()
    return found.removeprefix("x-") if found.startswith("x-message/") else found


def _refuse_ambiguous(part: Message) -> None:
    names = [name.lower() for name in part.keys() if name.lower() in _ONCE]  # noqa: SIM118  a Message is no dict
    if len(names) != len(set(names)):
        raise _malformed("a part has a Content header twice")
    if any(len(str(value)) > _LONGEST_FIELD for name, value in part.items() if name.lower() in _ONCE):
        raise _malformed("a part has a Content header of over 4 KiB")
    parameters = [name.lower() for name, _ in part.get_params(failobj=[], header="content-type")]
    if len(parameters) != len(set(parameters)):
        raise _malformed("a part's Content-Type has a parameter twice")
    if type_of(part) in {"message/partial", "message/external-body", "multipart/digest"}:
        raise _malformed(f"a part is {type_of(part)}, which readers show in different ways, or not at all")


def _malformed(what: str) -> PolicyRefused:
    return PolicyRefused(Code.MESSAGE_MALFORMED, what)


def _children(part: Message) -> list[Message]:
    payload = part.get_payload() if part.is_multipart() else []
    return [child for child in payload if isinstance(child, Message)]


def decode_text(part: Message) -> str:
    """A text part's characters, with line ends as LF; what its charset cannot say is replaced.

    A charset that mail does not use is read as ASCII. Raises PolicyRefused for base64 that can be read in two ways.
    """
    raw = _octets(part)
    try:
        charset = str(part.get_content_charset("utf-8"))
    except (LookupError, ValueError):
        charset = ""
    return _characters(raw, charset if _CHARSETS.fullmatch(charset.lower()) else "ascii")


def _characters(raw: bytes, known: str) -> str:
    try:
        text = raw.decode(known, "replace")
    except (LookupError, ValueError):
        text = raw.decode("ascii", "replace")
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates are no characters
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _octets(part: Message) -> bytes:
    encoding = str(part.get("content-transfer-encoding", "")).strip().lower()
    if encoding == "base64":
        undecoded = str(part._payload)  # type: ignore[attr-defined]  # noqa: SLF001
        given = undecoded.encode("ascii", "surrogateescape").translate(None, _BLANKS)
        if len(given) % 4 or not _BASE64.fullmatch(given):
            raise _malformed("a part's base64 can be read in two ways")
        return binascii.a2b_base64(given)
    decoded = part.get_payload(decode=True)
    return decoded if isinstance(decoded, bytes) else b""


def _names(part: Message) -> list[str]:
    """Every name that a part gives its file: readers differ in which they show."""
    found = []
    for header, wanted in (("content-disposition", "filename"), ("content-type", "name")):
        for name, value in part.get_params(failobj=[], header=header):
            if name.lower() == wanted:
                try:
                    found.append(decode_words(collapse_rfc2231_value(value)))
                except (LookupError, ValueError):
                    found.append(ascii(value))
    return list(dict.fromkeys(found))


def _summary(part: Message) -> AttachmentSummary:
    octets = _octets(part)
    name = " = ".join(_names(part)) or "(no name)"
    return AttachmentSummary(name, type_of(part), len(octets), sha256(octets).hex())


def fenced(text: str) -> str:
    """`text` with a prefix on every line, so that none of it can be taken for words of ours or for an answer."""
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    return "\n".join(f"{PREFIX}{visible(line)}".rstrip() for line in lines)


def visible(line: str) -> str:
    """One line in which characters that are not seen, or that change the order of what is seen, are written out."""
    return _UNSEEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", line)
