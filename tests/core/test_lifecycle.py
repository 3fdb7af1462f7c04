"""The table of transitions says what the design says: states, verbs and rooms."""

from __future__ import annotations

import pytest

from outbox.core.lifecycle import EDGES, FINAL, Edge, Room, State, Verb, edge_from, targets

# DESIGN section 4, line by line; docs/adr/0024 says why the operator inserts (redraft) and claims (fence) too.
TABLE = """
    -> pending insert drafter operator
    -> approved insert inbox worker operator
    pending -> approved approve inbox operator
    pending -> rejected reject inbox operator
    pending -> expired expire inbox worker
    pending -> failed fail inbox
    pending -> cancelled cancel drafter inbox operator
    approved -> cancelled cancel drafter inbox operator
    approved -> expired expire inbox worker
    approved -> executing claim worker operator
    executing -> failed fail worker
    executing -> refused refuse worker
    executing -> expired expire worker
    executing -> cancelled cancel worker
    executing -> completed complete worker operator
    executing -> failed settle operator
    executing -> approved defer worker operator
"""


def test_the_edges_are_those_of_the_design_and_no_others() -> None:
    written = set()
    for line in TABLE.strip().splitlines():
        source, _, rest = line.partition("->")
        target, verb, *rooms = rest.split()
        birthplace = State(source.strip()) if source.strip() else None
        written.add(Edge(birthplace, Verb(verb), State(target), frozenset(map(Room, rooms))))
    assert set(EDGES) == written
    assert len(EDGES) == len(written)


def test_a_final_state_is_one_that_nothing_leaves() -> None:
    assert frozenset(state for state in State if not targets(state)) == FINAL


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached(state: State) -> None:
    assert any(edge.target is state for edge in EDGES)


def test_nothing_but_a_claim_leads_to_executing() -> None:
    (edge,) = [edge for edge in EDGES if edge.target is State.EXECUTING]
    assert (edge.source, edge.verb, edge.rooms) == (State.APPROVED, Verb.CLAIM, {Room.WORKER, Room.OPERATOR})


def test_the_drafter_can_only_insert_and_cancel() -> None:
    assert {(edge.source, edge.verb) for edge in EDGES if Room.DRAFTER in edge.rooms} == {
        (None, Verb.INSERT),
        (State.PENDING, Verb.CANCEL),
        (State.APPROVED, Verb.CANCEL),
    }


def test_a_verb_walks_one_edge_from_each_state() -> None:
    pairs = [(edge.source, edge.verb) for edge in EDGES if edge.source is not None]
    assert len(pairs) == len(set(pairs))
    for source, verb in pairs:
        assert source is not None
        assert edge_from(source, verb).source is source


@pytest.mark.parametrize("source", sorted(FINAL))
def test_no_verb_moves_a_final_draft(source: State) -> None:
    for verb in Verb:
        with pytest.raises(KeyError):
            edge_from(source, verb)
