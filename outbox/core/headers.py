"""The header fields of a message at first sight: a short way for the usual ones, beside `split_headers`."""

from __future__ import annotations

from outbox.core.message import DRAFT_HEADER, FIELD_NAME, header_block

_LOWERED = {
    name: name.lower()
    for name in (
        "From", "To", "Cc", "Subject", "Message-ID", "In-Reply-To", "References", DRAFT_HEADER, "MIME-Version",
        "Content-Type", "Content-Transfer-Encoding",
    )
}  # fmt: skip


def usual_fields(octets: bytes) -> dict[str, str] | None:
    """What split_headers says, as values by lower-case names, where no name comes twice and all is ASCII; or None.

    None says nothing about the message: split_headers tells what it is.
    """
    head = header_block(octets)
    if not head.isascii():
        return None
    text = head.decode("ascii")
    if "\r\n " in text or "\r\n\t" in text:  # a name before it would have a space in it, and be none
        text = text.replace("\r\n ", " ").replace("\r\n\t", "\t")
    lines = text.split("\r\n")
    values: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        lowered = _LOWERED.get(name) or (name.lower() if FIELD_NAME.fullmatch(name) else "")
        if not colon or not lowered:
            return None
        values[lowered] = value.strip()
    return values if len(values) == len(lines) else None
