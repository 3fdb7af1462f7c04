"""The journal against what it speaks of: every draft walked edges of the one table, and is where they led.

Journal, drafts and attempts are read side by side in the order of the drafts' ids, a draft at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Generic, TypeVar

from outbox.core.lifecycle import EDGES, Phase, Room, State, Verb
from outbox.store.chains import AttemptFacts, DraftFacts, Link, attempts_by_draft, drafts_by_id, links_by_draft

if TYPE_CHECKING:
    from sqlalchemy import Connection

Value = TypeVar("Value")
_VERBS = frozenset(verb.value for verb in Verb)
_ROOMS = {(edge.source, edge.verb, edge.target): edge.rooms for edge in EDGES}
_SAID = frozenset(("claim", "gap", "done"))


@dataclass(frozen=True, slots=True)
class Broken:
    """One thing that is not as it was written. `what` is one word for scripts, `why` one clause for people."""

    what: str
    why: str
    writer: str | None = None
    seq: int | None = None
    draft_id: str | None = None


@dataclass(slots=True)
class _Said:
    """What the journal says of one attempt."""

    phase: Phase | None = None
    outcome: str | None = None
    wire_digest: str | None = None


class _Groups(Generic[Value]):
    """Rows that come draft by draft, taken a draft at a time."""

    def __init__(self, rows: Iterable[tuple[str, Value]]) -> None:
        self._groups = groupby(rows, key=lambda row: row[0])
        self._next = next(self._groups, None)

    @property
    def draft_id(self) -> str | None:
        """The draft that comes next; None at the end."""
        return self._next[0] if self._next is not None else None

    def take(self, draft_id: str) -> list[Value]:
        """The rows of this draft, if it is the next one."""
        if self._next is None or self._next[0] != draft_id:
            return []
        taken = [row for _, row in self._next[1]]
        self._next = next(self._groups, None)
        return taken


def facts_in(stored: str) -> Mapping[str, object]:
    """A row's detail; empty where it cannot be read."""
    try:
        found = json.loads(stored)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def broken_drafts(connection: Connection, unnamed: Mapping[str, str]) -> Iterator[Broken]:
    """Every draft and attempt that is not where the journal left it.

    `unnamed` are outcomes by attempt that rows without a draft speak of.
    """
    links = _Groups((str(link.entry.draft_id), link) for link in links_by_draft(connection))
    drafts = _Groups((draft.id, draft) for draft in drafts_by_id(connection))
    attempts = _Groups((attempt.draft_id, attempt) for attempt in attempts_by_draft(connection))
    while True:
        waiting = [one for one in (links.draft_id, drafts.draft_id, attempts.draft_id) if one is not None]
        if not waiting:
            return
        draft_id = min(waiting)
        written, found, tried = links.take(draft_id), drafts.take(draft_id), attempts.take(draft_id)
        yield from broken_draft(draft_id, written, found[0] if found else None)
        yield from broken_attempts(draft_id, written, tried, unnamed)


def broken_draft(draft_id: str, links: Iterable[Link], draft: DraftFacts | None) -> Iterator[Broken]:
    """What is wrong with one draft, by the rows that name it, in the order of commits."""
    if draft is None:
        yield Broken("draft", f"draft {draft_id} is in the journal and not in the table", draft_id=draft_id)
        return
    state: State | None = None
    for link in links:
        if link.entry.action not in _VERBS:
            continue
        detail = facts_in(link.entry.detail)
        why = _why_no_edge(link, detail, state)
        if why is not None:
            yield Broken("edge", f"draft {draft_id}: {why}", link.entry.writer, link.entry.seq, draft_id)
        state = _state(detail.get("to"))
        if link.entry.action == Verb.INSERT and detail.get("digest") != draft.digest.hex():
            yield Broken("draft", f"draft {draft_id} has another digest than it was inserted with", draft_id=draft_id)
    if draft.state != state:
        why = f"draft {draft_id} is {draft.state}, and the journal left it {state or 'nowhere: it has no row of it'}"
        yield Broken("state", why, draft_id=draft_id)


def _why_no_edge(link: Link, detail: Mapping[str, object], state: State | None) -> str | None:
    entry = link.entry
    source, target = _state(detail.get("from")), _state(detail.get("to"))
    if target is None or source != state:
        return f"it was {state or 'not there'}, and {entry.action} moved it from {source or 'nothing'}"
    rooms = _ROOMS.get((source, Verb(entry.action), target))
    room = entry.writer.partition(":")[0]
    if rooms is None:
        return f"no edge goes from {source or 'nothing'} to {target} by {entry.action}"
    return None if room in {Room(one).value for one in rooms} else f"{room} may not {entry.action} it"


def _state(said: object) -> State | None:
    return State(said) if isinstance(said, str) and said in set(State) else None


def broken_attempts(
    draft_id: str, links: Iterable[Link], tried: Iterable[AttemptFacts], unnamed: Mapping[str, str]
) -> Iterator[Broken]:
    """What is wrong with its attempts."""
    said = _said(links)
    for attempt in tried:
        told = said.pop(attempt.id, _Said())
        if attempt.id in unnamed:
            told.phase, told.outcome = Phase.DONE, unnamed[attempt.id]
        wire = attempt.wire_digest.hex() if attempt.wire_digest is not None else None
        if (attempt.phase, attempt.outcome) != (told.phase, told.outcome):
            was = " ".join(str(part) for part in (told.phase, told.outcome) if part) or "nothing"
            now = " ".join(part for part in (attempt.phase, attempt.outcome) if part)
            yield Broken("attempt", f"attempt {attempt.id} is {now}, and the journal says {was}", draft_id=draft_id)
        elif told.wire_digest is not None and wire != told.wire_digest:
            why = f"attempt {attempt.id} has another digest of what went over the wire"
            yield Broken("attempt", why, draft_id=draft_id)
    for attempt_id in said:
        why = f"attempt {attempt_id} is in the journal and not in the table"
        yield Broken("attempt", why, draft_id=draft_id)


def _said(links: Iterable[Link]) -> dict[str, _Said]:
    """What the rows of one draft say of each of its attempts."""
    said: dict[str, _Said] = {}
    for link in links:
        entry = link.entry
        if entry.attempt_id is None or entry.action not in _SAID:
            continue
        told, detail = said.setdefault(entry.attempt_id, _Said()), facts_in(entry.detail)
        if entry.action == Verb.CLAIM:
            told.phase = Phase.CLAIMED
        elif entry.action == "gap":
            wire = detail.get("wire_digest")
            told.phase, told.wire_digest = Phase.GAP, wire if isinstance(wire, str) else None
        else:
            outcome = detail.get("outcome")
            told.phase, told.outcome = Phase.DONE, outcome if isinstance(outcome, str) else None
    return said
