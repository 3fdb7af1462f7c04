"""The pause: one row, seen by every claim and by every gap."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, exists, not_, select, update

from outbox.core.errors import Code, StateRefused
from outbox.store.prepared import Prepared
from outbox.store.schema import pause
from outbox.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when nothing leaves (microseconds UTC), why, and who said so."""

    at: int
    reason: str
    by: str


def unpaused() -> ColumnElement[bool]:
    """A guard: nobody has paused."""
    return not_(exists().where(pause.c.id == 1, pause.c.paused_at.is_not(None)))


_STANDING = Prepared(select(pause.c.paused_at, pause.c.reason, pause.c.paused_by).where(pause.c.paused_at.is_not(None)))


def standing_pause(connection: Connection) -> Pause | None:
    """The pause, if there is one."""
    for row in _STANDING.rows(connection):
        return Pause(row.paused_at, row.reason, row.paused_by)
    return None


def pause_if_running(tx: Transaction, *, reason: str, by: str, now: int) -> None:
    """Pause. Raises StateRefused where it is paused already; the first reason stands."""
    _set(tx, pause.c.paused_at.is_(None), "it is paused already", paused_at=now, reason=reason, paused_by=by)
    tx.journal("pause", now=now, detail={"reason": reason, "by": by})


def resume_if_paused(tx: Transaction, *, by: str, now: int) -> None:
    """Resume. Raises StateRefused where it is not paused."""
    _set(tx, pause.c.paused_at.is_not(None), "it is not paused", paused_at=None, reason=None, paused_by=None)
    tx.journal("resume", now=now, detail={"by": by})


def _set(tx: Transaction, guard: ColumnElement[bool], otherwise: str, **values: object) -> None:
    changed = tx.connection.execute(update(pause).where(guard).values(values).returning(pause.c.id)).one_or_none()
    if changed is None:
        raise StateRefused(Code.STATE_CONFLICT, f"{otherwise}; nothing was changed")
