"""How warm it runs: gaps entered within the window, and open claims of workers that have not ended."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from outbox.core.draft import MICROSECONDS
from outbox.store.schema import attempts, gate, workers


@dataclass(frozen=True, slots=True)
class Heat:
    """The thermal cutout's limits for one gate: at most `count` transmissions in `window` seconds."""

    gate: str
    count: int
    window: int
    cooldown: int


@dataclass(frozen=True, slots=True)
class Heating:
    """Whether a cutout is open (tripped), until when at least (microseconds UTC), and how many places are taken."""

    is_open: bool
    until: int | None
    used: int
    limit: int


def used(connection: Connection, heat: Heat, *, now: int) -> int:
    """Places taken: gaps entered within the window, and open claims of workers that have not ended."""
    gaps = select(func.count()).where(
        attempts.c.gate == heat.gate,
        attempts.c.gap_at.is_not(None),
        attempts.c.gap_at > now - heat.window * MICROSECONDS,
    )
    claims = (
        select(func.count())
        .select_from(attempts.join(workers))
        .where(
            text("attempts.phase <> 'done'"),
            attempts.c.gate == heat.gate,
            attempts.c.gap_at.is_(None),
            workers.c.ended_at.is_(None),
        )
    )
    return int(connection.execute(gaps).scalar_one()) + int(connection.execute(claims).scalar_one())


def heating(connection: Connection, heat: Heat, *, now: int) -> Heating:
    """How a cutout stands."""
    until = connection.execute(select(gate.c.until).where(gate.c.name == heat.gate)).scalar_one()
    taken = used(connection, heat, now=now)
    is_open = until is not None and (now < until or taken >= heat.count)
    return Heating(is_open, until if is_open else None, taken, heat.count)
