"""How it stands, in figures: for whoever asks, never for a loop. Nothing here reads more than what is alive now.

Conditions on states are literal, in the words of the partial indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outbox.core.draft import MICROSECONDS, uuid7
from outbox.core.lifecycle import Gate, Room, State
from outbox.store.looking import Look

_LIVE = {
    State.PENDING: "SELECT count(*) FROM drafts WHERE state = 'pending'",  # no system draft ever is
    State.APPROVED: "SELECT count(*) FROM drafts WHERE state = 'approved' AND kind <> 'system'",
    State.EXECUTING: "SELECT count(*) FROM drafts WHERE state = 'executing' AND kind <> 'system'",
}
_ENDED = "SELECT state, sum(n) FROM counters GROUP BY state"
_IN_DOUBT = (
    "SELECT count(*) FROM drafts WHERE state = 'executing' AND kind <> 'system' AND EXISTS (SELECT 1 FROM attempts"
    " WHERE attempts.id = drafts.attempt_id AND (phase = 'gap' OR outcome = 'in_doubt'))"
)
_OLDEST = "SELECT min(not_before) FROM drafts WHERE state = 'approved' AND kind <> 'system'"
_WORKERS = (
    "SELECT id, host, pid, started_at, (SELECT at FROM journal WHERE writer = :room || workers.id"
    " ORDER BY seq DESC LIMIT 1), ledger, visible FROM workers WHERE ended_at IS NULL ORDER BY started_at, id"
)
_TAMPERED = (
    "SELECT id, error_code, error_message FROM drafts WHERE state = 'failed' AND error_code = :code"
    " AND (id >= :since OR id IN (SELECT draft_id FROM attempts WHERE id >= :since)) ORDER BY id"
)
_BEGAN = "SELECT ledger_since FROM identity"
_NEWEST_GAP = "SELECT gap_at FROM attempts WHERE gate = :gate AND gap_at IS NOT NULL ORDER BY gap_at DESC LIMIT 1"
_PAUSE = "SELECT paused_at, reason, paused_by FROM pause WHERE paused_at IS NOT NULL"
_UNTIL = "SELECT until FROM gate WHERE name = :gate"
_GAPS = "SELECT count(*) FROM attempts WHERE gate = :gate AND gap_at IS NOT NULL AND gap_at > :since"
_CLAIMS = (
    "SELECT count(*) FROM attempts JOIN workers ON workers.id = attempts.worker_id WHERE attempts.phase <> 'done'"
    " AND attempts.gate = :gate AND attempts.gap_at IS NULL AND workers.ended_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker that has not ended; instants in microseconds UTC. `last_seen` is the last thing it stored.

    On a server: with which ledger, and whether it holds a lock there for as long as it lives.
    """

    id: str
    host: str
    pid: int
    started_at: int
    last_seen: int
    ledger: str | None
    visible: bool


@dataclass(frozen=True, slots=True)
class Paused:
    """Since when nothing leaves (microseconds UTC), why, and who said so."""

    at: int
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class Heating:
    """Whether a cutout is open (tripped), until when at least (microseconds UTC), and how many places are taken."""

    is_open: bool
    until: int | None
    used: int
    limit: int


def counts_by_state(look: Look) -> dict[State, int]:
    """How many drafts are in each state, the outbox's own left out: of those that ended it is kept as they end."""
    found: dict[State, int] = dict.fromkeys(State, 0)
    found |= {State(state): int(number) for state, number in look(_ENDED, {})}
    return found | {state: int(look(sql, {})[0][0]) for state, sql in _LIVE.items()}


def count_in_doubt(look: Look) -> int:
    """Drafts at executing that may have been sent; the outbox's own, which end by themselves, left out."""
    return int(look(_IN_DOUBT, {})[0][0])


def oldest_approved(look: Look) -> int | None:
    """Since when the draft waits that is to be claimed first (microseconds UTC)."""
    found: int | None = look(_OLDEST, {})[0][0]
    return found


def working(look: Look) -> list[WorkerRow]:
    """Workers that have not ended, as far as the database knows, the oldest first; each has a chain of the journal."""
    rows = look(_WORKERS, {"room": f"{Room.WORKER}:"})
    return [
        WorkerRow(name, host, pid, began, max(began, wrote or 0), ledger, bool(visible))
        for name, host, pid, began, wrote, ledger, visible in rows
    ]


def tampered_since(look: Look, codes: Sequence[str], since: int) -> list[tuple[str, str, str]]:
    """Drafts that failed because a row was not what was signed: id, code, words.

    Those that were drafted or claimed since an instant (microseconds UTC); ids sort by time.
    """
    first = uuid7(since, bytes(10))
    return sorted((row[0], row[1], row[2]) for code in codes for row in look(_TAMPERED, {"code": code, "since": first}))


def needs_ledger(look: Look) -> bool:
    """Whether any gap was entered that a ledger has to know."""
    since = look(_BEGAN, {})[0][0]
    return any(gap_at >= since for gate in Gate for (gap_at,) in look(_NEWEST_GAP, {"gate": gate.value}))


def standing_pause(look: Look) -> Paused | None:
    """The pause, if there is one."""
    return next((Paused(at, reason, by) for at, reason, by in look(_PAUSE, {})), None)


def heating(look: Look, gate: Gate, *, count: int, window: int, now: int) -> Heating:
    """How a cutout stands that lets `count` through in `window` seconds, as `heat.used` counts it."""
    until: int | None = look(_UNTIL, {"gate": gate.value})[0][0]
    gaps = look(_GAPS, {"gate": gate.value, "since": now - window * MICROSECONDS})[0][0]
    used = int(gaps) + int(look(_CLAIMS, {"gate": gate.value})[0][0])
    is_open = until is not None and (now < until or used >= count)
    return Heating(is_open, until if is_open else None, used, count)
