"""What is kept in memory of a ledger: where in it what is said of each draft, and what was said last of it all."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator

from outbox.core.draft import DAY, MICROSECONDS
from outbox.core.ledger_line import Begun, Entered, Fenced, Forgotten, Heard, Line

_HEARD_BITS = 32  # of a place, for how far after the gap's line that of its outcome stands
_A_DAY = DAY * MICROSECONDS


class LedgerIndex:
    """It takes in each line once, in their order. Instants are in microseconds UTC."""

    def __init__(self) -> None:
        self._places: dict[int, list[int] | int] = {}  # by the draft's hash; a hundred octets for each that left
        self._open: dict[str, tuple[int, int]] = {}  # attempts that nothing was heard of: hash and gap's line
        self._strays: dict[str, int] = {}  # outcomes of attempts whose gap is not written down
        self._ends: dict[int, int] = {}  # how many gaps' lines there are, by the day that their draft's time is over on
        self._unfenced: bytearray | None = bytearray()  # attempts since the last fence, until the database knows them
        self.database: str | None = None
        self.fence: str | None = None  # the last one,
        self.fenced_at = 0  # and when it was
        self.forgotten: Forgotten | None = None
        self.blank_until = 0  # of what was drafted before, this ledger knows nothing
        self.newest_at = 0  # the highest instant in it

    def take(self, line: Line, start: int) -> None:
        """Take in a line that stands at octet `start`."""
        match line:
            case Begun(database):
                self.database = database
            case Entered():
                self._enter(line, start)
            case Heard(attempt):
                key, entered_at = self._open.pop(attempt, (0, start))
                if 0 < start - entered_at < 1 << _HEARD_BITS:
                    self._mark_heard(key, entered_at, start)
                else:
                    self._strays.setdefault(attempt, start)
            case Fenced(fence, at):
                self.fence, self.fenced_at, self.newest_at = fence, at, max(self.newest_at, at)
                if not self._places and self.forgotten is None:  # begun by a fence, because the one before was lost
                    self.blank_until = at
                if self._unfenced is not None:
                    self._unfenced.clear()
            case Forgotten(at, blank_until):
                self.forgotten, self.blank_until, self.newest_at = line, blank_until, max(self.newest_at, at)

    def stories(self, draft_id: str) -> list[tuple[int, int | None]]:
        """Where the gaps' lines stand that may be of a draft, and where how each ended, if that is behind it."""
        found = self._places.get(hash(draft_id), [])
        places = found if isinstance(found, list) else [found]
        split = ((place >> _HEARD_BITS, place & (1 << _HEARD_BITS) - 1) for place in places)
        return [(start, start + distance if distance else None) for start, distance in split]

    def stray(self, attempt_id: str) -> int | None:
        """Where how an attempt ended stands, whose gap is not written down before it."""
        return self._strays.get(attempt_id)

    def has_forgotten(self, expires_at: int) -> bool:
        """Whether lines were taken out that may have been about a draft whose time is over then."""
        return self.forgotten is not None and expires_at <= self.forgotten.until

    def unfenced(self) -> Iterator[str]:
        """The attempts that the database has to know: those since the last fence, the oldest first."""
        if self._unfenced is None:
            raise ValueError("the database knows them")
        return (line[:-1].decode() for line in io.BytesIO(self._unfenced))

    def agreed(self) -> None:
        """The database knows the attempts since the last fence: they are kept in memory no more."""
        self._unfenced = None

    def past(self, before: int) -> tuple[int, int]:
        """How many gaps' lines are of drafts whose time was over on a day before that of an instant, and of any."""
        days = self._ends.items()
        return sum(n for day, n in days if 0 < day < before // _A_DAY), sum(n for _, n in days)

    def last_end(self, before: int) -> int:
        """By when, `before` at the latest, the time of all drafts was over whose time was by then; 0 where none was."""
        last = max((day for day in self._ends if 0 < day <= before // _A_DAY), default=-1)
        return min(before, (last + 1) * _A_DAY - 1) if last > 0 else 0

    def unheard(self) -> set[str]:
        """The attempts in the gap that nothing was heard of."""
        return set(self._open)

    def newest(self, count: int) -> int:
        """Where the first of the newest gaps' lines begins, of so many; 0 where there is none."""
        found = (one if isinstance(one, list) else [one] for one in self._places.values())
        starts = (place >> _HEARD_BITS for places in found for place in places)
        return min(heapq.nlargest(count, starts), default=0)

    def _enter(self, line: Entered, start: int) -> None:
        key, place, day = hash(line.draft), start << _HEARD_BITS, line.expires_at // _A_DAY
        self._open[line.attempt] = key, start
        before = self._places.get(key)
        if before is None:
            self._places[key] = place
        else:
            self._places[key] = [*(before if isinstance(before, list) else [before]), place]
        self._ends[day] = self._ends.get(day, 0) + 1
        self.newest_at = max(self.newest_at, line.at)
        if self._unfenced is not None:
            self._unfenced += line.attempt.encode() + b"\n"

    def _mark_heard(self, key: int, entered_at: int, start: int) -> None:
        distance, before = start - entered_at, self._places[key]
        marked = entered_at << _HEARD_BITS | distance
        places = before if isinstance(before, list) else [before]
        places = [marked if one == entered_at << _HEARD_BITS else one for one in places]
        self._places[key] = places if len(places) > 1 else places[0]
