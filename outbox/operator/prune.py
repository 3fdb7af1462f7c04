"""Prune: the octets of what ended long ago go, in batches so short that nobody who writes waits for them.

A batch is read and archived without a lock; then one transaction takes it out and journals it. How many go into the
next is by how long that one held the lock; and then for three times as long it is left free.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from outbox.clock import Clock, new_id, wall
from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, TryLater, UsageError
from outbox.core.lifecycle import Room
from outbox.lock import living
from outbox.operator.archive import Archive
from outbox.operator.rings import journal_ring
from outbox.operator.settling import person
from outbox.sections import parse_duration
from outbox.store.engine import Database, connect
from outbox.store.identity import identity_of
from outbox.store.journal import Chain
from outbox.store.retention import Prunable, prunable, prune_ended, whole_drafts
from outbox.store.revision import refuse_other_revision
from outbox.store.vacuum import FreeSpace, free_space, free_without_wiping, give_back, rewrite
from outbox.store.writer import Transaction, Writer

Rest = Callable[[float], None]
Result = TypeVar("Result")
_LONGEST = 0.005  # seconds that one transaction is to hold the lock
_MOST_DRAFTS, _MOST_OCTETS, _MOST_PAGES = 500, 4 << 20, 2000
_LEAST_REST, _RESTS = 0.005, 3  # seconds, and times what the lock was held


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune took out, or would; octets that the file gave back, and that stay free inside it.

    `todo` says what would let the file become smaller, where it cannot.
    """

    drafts: int
    octets: int
    archive: Path | None
    is_dry_run: bool
    given_back: int
    left_inside: int
    todo: str | None


@dataclass(slots=True)
class _Pace:
    """How many at once, between 1 and `most`, so that it takes about `_LONGEST`."""

    many: int
    most: int

    def note(self, held: float) -> None:
        """After a transaction that held the lock for so many seconds."""
        if held > _LONGEST:
            self.many = max(1, int(self.many * _LONGEST / held))
        elif held < _LONGEST / 2:
            self.many = min(self.most, self.many * 2)


def parse_age(text: str) -> int:
    """Seconds out of "90d" or "12h". Raises UsageError; a bare number could be meant as days, and is none here."""
    found = parse_duration(text) if re.fullmatch(r"[0-9]{1,9}[smhd]", text) else None
    if not isinstance(found, int) or found == 0:
        raise UsageError(Code.USAGE, f'{text!a} is no age: say "90d", or "12h"', field="--older-than")
    return found


def prune(
    settings: Settings,
    *,
    older_than: int,
    archive: Path | None = None,
    dry_run: bool = False,
    clock: Clock = wall,
    rest: Rest = time.sleep,
) -> Pruned:
    """Take out the octets of what ended, and was not touched, for `older_than` seconds; a dry run only counts.

    Where an archive is named, what goes is in it first. Needs either key, for the journal. Raises ConfigError,
    StateRefused or Unavailable; what was taken out until then is journalled, and it can be run again.
    """
    before = clock() - older_than * MICROSECONDS
    with ExitStack() as at_end:
        database = connect(settings.database_place, Room.OPERATOR)
        at_end.callback(database.close)
        refuse_other_revision(database)
        if dry_run:
            return _counted(database, before, archive)
        writer = Writer(database, Chain(Room.OPERATOR, new_id(clock()), journal_ring(settings)))
        at_end.callback(writer.close)
        kept = None
        if archive is not None:
            with database.reading() as connection:
                named = identity_of(connection)
            kept = at_end.enter_context(Archive(archive, named.id))
        writer.run(free_without_wiping)
        run = _Run(database, writer, kept, clock, rest)
        drafts, octets = run.take_out(before)
        left, given_back = run.give_back()
        return Pruned(drafts, octets, archive, False, given_back, left.octets if left else 0, _todo(left))


def vacuum(settings: Settings) -> Pruned:
    """Write the file anew without what is free in it. Raises TryLater while a worker lives, Unavailable."""
    database = connect(settings.database_place, Room.OPERATOR)
    try:
        refuse_other_revision(database)
        with database.reading() as connection:
            before = free_space(connection)
        if before is None:
            raise UsageError(Code.USAGE, "a server looks after its space itself", field="--vacuum")
        if others := living(settings.state_dir):
            words = f"worker {others[0]} lives, and nothing can be written meanwhile; stop every worker first"
            raise TryLater(Code.WORKER_ALIVE, words)
        rewrite(database)
        with database.reading() as connection:
            after = free_space(connection)
    finally:
        database.close()
    left = after.octets if after is not None else 0
    return Pruned(0, 0, None, False, before.octets - left, left, None)


def _counted(database: Database, before: int, archive: Path | None) -> Pruned:
    drafts = octets = 0
    for found in _pages(database, before):
        drafts += len(found)
        octets += sum(one.octets for one in found)
    return Pruned(drafts, octets, archive, True, 0, 0, None)


def _pages(database: Database, before: int) -> Iterator[list[Prunable]]:
    """All that may go, a page a look: none holds the log up for long."""
    after = ""
    while True:
        with database.reading() as connection:
            found = prunable(connection, before=before, after=after, limit=_MOST_DRAFTS)
        if not found:
            return
        after = found[-1].id
        yield found


def _todo(left: FreeSpace | None) -> str | None:
    if left is None or left.is_incremental or not left.pages:
        return None
    return "`outbox prune --vacuum`, with workers stopped, gives it back to the disk, and lets later prunes do so"


class _Run:
    """One prune under way."""

    def __init__(self, database: Database, writer: Writer, kept: Archive | None, clock: Clock, rest: Rest) -> None:
        self._database, self._writer, self._kept, self._clock, self._rest = database, writer, kept, clock, rest
        self._by = person()

    def take_out(self, before: int) -> tuple[int, int]:
        """Batch after batch, until nothing is left that may go; how many drafts, and octets."""
        drafts = octets = 0
        pace = _Pace(50, _MOST_DRAFTS)
        for page in _pages(self._database, before):
            while page:
                batch = _first(page, pace.many)
                page = page[len(batch) :]  # noqa: PLW2901  what is left of it
                gone = self._take_out(batch, pace)
                drafts += len(gone)
                octets += sum(one.octets for one in gone)
        return drafts, octets

    def _take_out(self, batch: list[Prunable], pace: _Pace) -> list[Prunable]:
        if self._kept is not None:
            with self._database.reading() as connection:
                whole = whole_drafts(connection, [one.id for one in batch])
            self._kept.keep(whole)
            there = {one.id for one in whole}  # what another prune took out meanwhile is in no archive of this one
            batch = [one for one in batch if one.id in there]
        name = str(self._kept.file) if self._kept is not None else None
        gone = self._alone(partial(prune_ended, found=batch, by=self._by, archive=name, now=self._clock()), pace)
        if self._kept is not None:
            self._kept.note_pruned([one.id for one in gone])
        return gone

    def give_back(self) -> tuple[FreeSpace | None, int]:
        """Give free pages back, where this file can; what is left then, and the octets that went."""
        pace, given_back = _Pace(100, _MOST_PAGES), 0
        left = self._free_space()
        while left is not None and left.is_incremental and left.pages:
            self._alone(partial(give_back, pages=pace.many), pace)
            now = self._free_space()
            if now is None or now.pages >= left.pages:  # others write: what they free is for the next prune
                return now, given_back
            given_back += left.octets - now.octets
            left = now
        return left, given_back

    def _free_space(self) -> FreeSpace | None:
        with self._database.reading() as connection:
            return free_space(connection)

    def _alone(self, work: Callable[[Transaction], Result], pace: _Pace) -> Result:
        """One transaction, and then a rest for those who wait; the wait for its own lock is not counted."""
        began = 0.0

        def timed(tx: Transaction) -> Result:
            nonlocal began
            began = time.monotonic()
            return work(tx)

        done = self._writer.run(timed)
        held = time.monotonic() - began
        pace.note(held)
        self._rest(max(_LEAST_REST, _RESTS * held))
        return done


def _first(page: list[Prunable], many: int) -> list[Prunable]:
    """The first of them, one at least, as far as their octets are not too many for one batch."""
    octets = 0
    for number, one in enumerate(page[:many]):
        octets += one.octets
        if octets > _MOST_OCTETS and number:
            return page[:number]
    return page[:many]
