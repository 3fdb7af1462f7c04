"""Take out of the ledger what cannot matter any more, so that it is as long as what is under way, and not as the past.

A line about a draft whose time is over keeps nobody from anything: it cannot be sent. So the file is written anew, with
what stays in its order, under a chain of its own, and a line that says until when the time of a draft was over that may
be missing. No draft whose time is over by then is sent again, whatever a clock says later: the ledger takes no line for
it (docs/adr/0027). A crash leaves the old file or the new one, each whole.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from outbox.core.draft import DAY, MICROSECONDS
from outbox.core.ledger_line import GENESIS, Begun, Entered, Fenced, Forgotten, Heard, Line, seal
from outbox.core.signing import KeyRing
from outbox.ledger import NAME, Ledger, new_file, sync_folder

LARGE = 1 << 20  # octets; a shorter ledger is left as it is
GRACE = DAY * MICROSECONDS  # for which a line is kept after its draft's time
NEWEST = 100  # gaps whose lines stay whatever they are about: by them an older database is known
_PART = 1 << 20  # octets that are written at a time


@dataclass(frozen=True, slots=True)
class Needed:
    """What the database needs of the ledger: the attempts that hold a draft at executing, and how far it may forget.

    `until` is when the time of the first draft is over that is claimed and not in the gap, in microseconds UTC; None
    where none is. That the ledger has no line of it is the proof that it was not sent.
    """

    attempts: Container[str]
    until: int | None


def is_worth_it(ledger: Ledger, *, now: int) -> bool:
    """Whether it is large, and more than half of its gaps are of drafts whose time is long over."""
    past, gaps = ledger.index.past(now - GRACE)
    return ledger.size > LARGE and 2 * past > gaps


def forget(ledger: Ledger, ring: KeyRing, needed: Needed, *, now: int) -> int:
    """Write the file anew, and say how many lines are gone; the ledger is held, and of no use after that.

    Raises OSError: then the old file is there, whole. Raises LedgerRefused where it is not what was written, and
    Unavailable where it is not known which of the two files a power cut would leave.
    """
    before = now - GRACE if needed.until is None else min(now - GRACE, needed.until - 1)
    until, earlier = ledger.index.last_end(before), ledger.index.forgotten
    told = Forgotten(now, ledger.index.blank_until, max(until, earlier.until if earlier is not None else 0))
    file, draft = ledger.folder / NAME, _draft(ledger.folder)
    try:
        count = _write(draft, file, _sealed(ring, _looked_through(ledger, needed, until), told))
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(ledger.folder)
    return count


def _sealed(ring: KeyRing, lines: Iterable[tuple[Line, bool]], told: Forgotten) -> Iterator[bytes]:
    """What stays, in its order, with what is told of the rest behind its first line; nothing for what goes."""
    head = GENESIS
    for line, stays in lines:
        text = b""
        if stays:
            head, text = seal(ring, line, head)
        if isinstance(line, Begun):
            head, more = seal(ring, told, head)
            text += more
        yield text


def _looked_through(ledger: Ledger, needed: Needed, until: int) -> Iterator[tuple[Line, bool]]:
    """Each line, and whether it stays."""
    index, at = ledger.index, 0
    newest, unheard = index.newest(NEWEST), index.unheard()
    going: set[str] = set()  # attempts whose gap's line does not stay, till how they ended is gone too
    for start, line in ledger.lines():
        stays = True
        match line:
            case Entered(attempt=attempt):
                at = line.at
                is_needed = attempt in needed.attempts or attempt in unheard or start >= newest
                stays = is_needed or not 0 < line.expires_at <= until
                if not stays:
                    going.add(attempt)
            case Heard(attempt=attempt) if attempt in going:
                going.discard(attempt)
                stays = False
            case Heard(attempt=attempt) if index.stray(attempt) == start:
                stays = attempt in needed.attempts or at > until
            case Fenced(fence=fence):
                at, stays = line.at, fence == index.fence
            case Forgotten():
                stays = False
        yield line, stays


def clear(folder: Path) -> None:
    """Take away what a crash left of a file that was being written; the ledger is held. Raises OSError."""
    _draft(folder).unlink(missing_ok=True)


def _draft(folder: Path) -> Path:
    return folder / f"{NAME}.new.tmp"


def _write(draft: Path, like: Path, texts: Iterator[bytes]) -> int:
    """Have a file on the disk that is whose `like` is; how many of the texts are empty. Raises OSError."""
    descriptor, count = new_file(draft), 0
    try:
        octets = bytearray()
        for text in texts:
            octets += text
            count += not text
            if len(octets) >= _PART:
                _write_all(descriptor, octets)
                octets.clear()
        _write_all(descriptor, octets)
        if os.geteuid() == 0:  # run by hand; the worker's own user is to have it again
            owner = like.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return count


def _write_all(descriptor: int, octets: bytearray) -> None:
    with memoryview(octets) as rest:
        written = 0
        while written < len(rest):
            written += os.write(descriptor, rest[written:])
