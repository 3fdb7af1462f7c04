"""Letters made of parts, as they are read."""

from __future__ import annotations

from outbox.inbox.incoming import Letter, parse_incoming, read_letter
from outbox.inbox.verdict import Reading, read_letter_verdict

PLAIN = 'Content-Type: text/plain; charset="UTF-8"\n\n'
HTML = 'Content-Type: text/html; charset="UTF-8"\n\n'


def letter_of(*parts: str, kind: str = "alternative", head: str = "") -> Letter:
    """A letter of one part, or a multipart of several."""
    whole = parts[0]
    if len(parts) > 1:
        whole = f'Content-Type: multipart/{kind}; boundary="b"\n\n' + "".join(f"--b\n{part}\n" for part in parts)
        whole += "--b--\n"
    return read_letter(parse_incoming((head + whole).encode()))


def reading_of(*parts: str, kind: str = "alternative") -> Reading:
    return read_letter_verdict(letter_of(*parts, kind=kind))
