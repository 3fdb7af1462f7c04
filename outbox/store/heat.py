"""How warm it runs: gaps entered within the window, and open claims of workers that have not ended."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select, text

from outbox.core.draft import MICROSECONDS
from outbox.store.prepared import Prepared
from outbox.store.schema import attempts, workers


@dataclass(frozen=True, slots=True)
class Heat:
    """The thermal cutout's limits for one gate: at most `count` transmissions in `window` seconds."""

    gate: str
    count: int
    window: int
    cooldown: int


_GAPS = select(func.count()).where(
    attempts.c.gate == bindparam("gate"), attempts.c.gap_at.is_not(None), attempts.c.gap_at > bindparam("since")
)
_HELD = select(func.count()).where(
    text("attempts.phase <> 'done'"), attempts.c.gate == bindparam("gate"), attempts.c.gap_at.is_(None)
)
_CLAIMS = _HELD.select_from(attempts.join(workers)).where(workers.c.ended_at.is_(None))
# In one statement: on PostgreSQL an attempt that enters the gap between two of them would be in neither.
_COUNTED = Prepared(
    select((_GAPS.scalar_subquery() + _CLAIMS.scalar_subquery()).label("used"), _HELD.scalar_subquery().label("held")),
    "gate",
    "since",
)


def used(connection: Connection, heat: Heat, *, now: int) -> int:
    """Places taken: gaps entered within the window, and open claims of workers that have not ended."""
    return _counted(connection, heat, now)[0]


def _counted(connection: Connection, heat: Heat, now: int) -> tuple[int, int]:
    """Places taken, and open claims of all workers."""
    (row,) = _COUNTED.rows(connection, heat.gate, now - heat.window * MICROSECONDS)
    return int(row.used), int(row.held)


class Headroom:
    """How many places there were when they were last counted: till so many more were claimed, one is free.

    A place is taken by a claim alone, and every claim through a gate is counted in its row, so that the history of the
    window is read once in so many claims.
    """

    def __init__(self) -> None:
        # By gate: when, after how many claims and undoings, how many places.
        self._counted: dict[str, tuple[int, int, int, int]] = {}

    def places(self, connection: Connection, heat: Heat, wanted: int, *, claims: int, undone: int, now: int) -> int:
        """Places that are free: all of them, or as many as are wanted at least. `claims` is the gate's own count."""
        at, after, before, free = self._counted.get(heat.gate, (now, claims, undone, 0))
        if at <= now and after <= claims and before == undone and free - (claims - after) >= wanted:
            return free - (claims - after)
        taken, held = _counted(connection, heat, now)
        places = heat.count - taken
        # So many at least: what lives is in it twice; an ended worker that lives after all may enter the gap.
        self._counted[heat.gate] = now, claims, undone, places - held
        return max(0, places)
