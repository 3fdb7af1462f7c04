"""How fast an agent drafts: one at a time with a commit each, and in bulk from ready octets."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.house import House
from benchmarks.machine import commits_per_second
from benchmarks.mail import RECIPIENT, SENDER, message, text
from benchmarks.results import Result
from benchmarks.run import Run
from outbox import drafter
from outbox.core.message import Attachment
from outbox.drafter import Drafter
from outbox.drafter.intake import Asked, Overrides, Wanted, Whole

_PIECE = 1_000_000  # octets of one attachment
_PIECES = 5
_OVERRIDES = Overrides(sender=SENDER, to=(RECIPIENT,))


def drafting(run: Run) -> Result:
    """The Python API, in a room that is open: every draft is composed, checked, signed and committed."""
    result = run.result("drafting")
    one, large, bulk = run.size(2000, 50), run.size(100, 2), run.size(20_000, 200)
    heavy = tuple(Attachment(f"{n}.bin", "application/octet-stream", bytes(_PIECE)) for n in range(_PIECES))
    cases: list[tuple[str, str, int, Callable[[Drafter, int], object]]] = [
        ("one at a time, of parts", "2 KB", one, lambda room, count: _each(room, count, _wanted)),
        ("one at a time, ready octets", "2 KB", one, _adopt_each),
        ("one at a time, of parts", "5 MB attached", large, lambda room, count: _each(room, count, _wanted, heavy)),
        ("in bulk, ready octets", "2 KB", bulk, _in_bulk),
    ]
    for repetition in range(run.repetitions):
        for how, case, count, work in cases:
            run.say(f"drafting: {how}, {case} ({repetition + 1})")
            run.note_load(result)
            house = House.build(run.fresh())
            with drafter.open(house.settings) as room:
                began, cpu = time.monotonic(), time.process_time()
                work(room, count)
                taken, used = time.monotonic() - began, time.process_time() - cpu
            result.row(how, case).add(per_second=count / taken, cpu_per_1000=used / count * 1000)
        row = result.row("one-row commits of SQLite", "disk", is_limit=True)
        row.add(per_second=commits_per_second(run.folder, 0.2 if run.quick else 1.0))
    return result


def _in_bulk(room: Drafter, count: int) -> None:
    """Many ready messages, as few transactions as the room makes of them."""
    room.draft_many(Asked(Whole(message(number), _OVERRIDES)) for number in range(count))


def _wanted(number: int, attachments: tuple[Attachment, ...]) -> Wanted:
    return Wanted(sender=SENDER, to=(RECIPIENT,), subject=f"Offer {number}", text=text(), attachments=attachments)


def _each(
    room: Drafter,
    count: int,
    make: Callable[[int, tuple[Attachment, ...]], Wanted],
    attachments: tuple[Attachment, ...] = (),
) -> None:
    for number in range(count):
        room.draft(make(number, attachments))


def _adopt_each(room: Drafter, count: int) -> None:
    for number in range(count):
        room.adopt(message(number), _OVERRIDES)
