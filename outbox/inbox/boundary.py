"""Whether signed text shows by itself how it is to be read, where the header that says so is not signed.

Gmail, Yahoo, Proton, GMX and Purelymail sign no Content-Type. Whoever gets hold of a signed reply could send it again
with one of his own: with a line of the quote as the boundary, what follows it becomes the answer. He may choose that
line, too: a draft's long lines are cut at 76 columns by quoted-printable, so that its words stand at a line's begin.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from email.parser import BytesHeaderParser
from email.policy import compat32

_LONGEST_FIELD = 4096  # the email package is quadratic in parameters
_NEAR = 2000  # octets in which the first boundary stands
_ENCODINGS = {"7bit", "8bit", "binary", "quoted-printable", "base64"}  # others look for their beginning in the text
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 5.1.1
_SOFT_BREAK = re.compile(rb"=[ \t]{0,998}\r\n")
_PREAMBLE = re.compile(rb"(?:This is a multi-?part message in MIME format\.?)?", re.IGNORECASE)


def bears_out(head: bytes, body: bytes, unsigned: AbstractSet[str]) -> bool:
    """Whether `body` can be read in no other way than `head` says.

    `head` has the message's Content fields and `body` its text, both with CRLF line ends; `unsigned` are the lower-case
    names of those fields that are not signed, whether they are there or not.
    """
    if len(head) > _LONGEST_FIELD:
        return not unsigned
    part = BytesHeaderParser(policy=compat32).parsebytes(head)
    encoding = str(part.get("content-transfer-encoding", "7bit")).strip().lower()
    if "content-transfer-encoding" in unsigned and (encoding not in _ENCODINGS or _joins_lines(encoding, body)):
        return False
    if "content-type" not in unsigned or part.get_content_maintype() != "multipart":
        return True
    try:
        boundary = str(part.get_boundary(""))
    except (LookupError, ValueError):  # a charset that is none
        return False
    return _BOUNDARY.fullmatch(boundary) is not None and _begins_with(body, b"--" + boundary.encode("ascii"))


def _joins_lines(encoding: str, body: bytes) -> bool:
    """Whether this encoding makes one line of two: a quote that ends in "=" would swallow the remark below it."""
    return encoding == "quoted-printable" and _SOFT_BREAK.search(body) is not None


def _begins_with(body: bytes, delimiter: bytes) -> bool:
    """Whether the first line is this delimiter, and a part's header follows; above it may stand what clients write."""
    lines = body[:_NEAR].split(b"\r\n")
    first = next((number for number, line in enumerate(lines) if not _PREAMBLE.fullmatch(line.strip())), len(lines))
    found = lines[first : first + 2]
    return len(found) == 2 and found[0].rstrip(b" \t") == delimiter and found[1].lower().startswith(b"content-")
