"""What a relay says, taken apart: lines into replies (RFC 5321 4.2), with a limit to each."""

from __future__ import annotations

import re
from functools import lru_cache

from outbox.core.finding import printable
from outbox.transport.outcome import Break, Reply

LONGEST_LINE = 4096  # RFC 5321 says 512; some relays explain themselves at length
_MOST_LINES = 100
_REMEMBERED = 256  # octets of a line that is worth remembering: most of what a relay says it says every time
_LINE = re.compile(rb"[2-5][0-9]{2}(?:([ -]).*)?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+|$)")


class Lines:
    """The lines so far of a reply that is not complete."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._lines)

    def take(self, line: bytes) -> Reply | Break | None:
        """The reply that this line, without its end, completes; None where more are to come."""
        found = _LINE.fullmatch(line)
        if found is None or len(line) > LONGEST_LINE or len(self._lines) >= _MOST_LINES:
            return Break(f"the relay said {line[:60]!r}, which is not SMTP")
        if self._lines:
            if self._lines[-1][:3] != line[:3]:
                return Break("the relay changed its code in mid-reply")
        elif found[1] != b"-":
            return _familiar(line) if len(line) <= _REMEMBERED else _reply([line])
        self._lines.append(line)
        if found[1] == b"-":
            return None
        lines, self._lines = self._lines, []
        return _reply(lines)


@lru_cache(maxsize=64)
def _familiar(line: bytes) -> Reply:
    return _reply([line])


def _reply(lines: list[bytes]) -> Reply:
    enhanced = None
    words = []
    for line in lines:
        text = line[4:].decode("utf-8", "replace")
        found = _ENHANCED.match(text)
        enhanced = enhanced or (found[1] if found else None)
        words.append(text[found.end() :] if found else text)
    said = " ".join(words)
    return Reply(int(lines[0][:3]), enhanced, (said if said.isprintable() else printable(said)).strip()[:1000])
