"""The journal read back: where every draft is, if each row of it walked an edge."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.core.lifecycle import Edge, Room, State, Verb
from tests.store.stage import Recorded


def replayed(recorded: list[Recorded], edges: Sequence[Edge]) -> dict[str, State]:
    """The state that each draft ends in. AssertionError where a row's step is no edge, or not one of its room's."""
    known = {(edge.source, edge.verb, edge.target): edge.rooms for edge in edges}
    states: dict[str, State] = {}
    for row in sorted(recorded, key=lambda row: row.place):
        draft_id, action = row.entry.draft_id, row.entry.action
        if draft_id is None or action not in set(Verb):
            continue
        source, target = states.get(draft_id), State(str(row.detail["to"]))
        assert row.detail.get("from") == source, f"draft {draft_id} is {source}, but was moved by {row}"
        rooms = known.get((source, Verb(action), target))
        assert rooms is not None, f"draft {draft_id}: {source} -> {target} by {action} is no edge"
        assert Room(row.entry.writer.partition(":")[0]) in rooms
        states[draft_id] = target
    return states
