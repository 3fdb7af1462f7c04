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


_GAPS = Prepared(
    select(func.count()).where(
        attempts.c.gate == bindparam("gate"), attempts.c.gap_at.is_not(None), attempts.c.gap_at > bindparam("since")
    ),
    "gate",
    "since",
)
_CLAIMS = Prepared(
    select(func.count())
    .select_from(attempts.join(workers))
    .where(
        text("attempts.phase <> 'done'"),
        attempts.c.gate == bindparam("gate"),
        attempts.c.gap_at.is_(None),
        workers.c.ended_at.is_(None),
    ),
    "gate",
)
_HELD = Prepared(
    select(func.count()).where(
        text("attempts.phase <> 'done'"), attempts.c.gate == bindparam("gate"), attempts.c.gap_at.is_(None)
    ),
    "gate",
)


def used(connection: Connection, heat: Heat, *, now: int) -> int:
    """Places taken: gaps entered within the window, and open claims of workers that have not ended."""
    gaps = _GAPS.scalar(connection, heat.gate, now - heat.window * MICROSECONDS)
    return int(gaps) + int(_CLAIMS.scalar(connection, heat.gate))


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
        places = heat.count - used(connection, heat, now=now)
        held = int(_HELD.scalar(connection, heat.gate))  # an ended worker that lives after all may enter the gap
        self._counted[heat.gate] = now, claims, undone, places - held  # so many at least: what lives is in it twice
        return max(0, places)
