"""docs/reference/lifecycle.md says what outbox/core/lifecycle.py says."""

from __future__ import annotations

import re

from outbox.core.lifecycle import EDGES, FINAL, Outcome, Phase, State
from tests.contracts.markdown import fences, page, rows, sections

PAGE = page("docs/reference/lifecycle.md")
SECTIONS = sections(PAGE)


def test_the_table_of_transitions_is_EDGES() -> None:  # noqa: N802  the table's own name
    documented = [
        (source, verb, target, rooms.split(", ")) for source, verb, target, rooms, _ in rows(SECTIONS["Transitions"])
    ]
    coded = [(edge.source or "(new)", edge.verb, edge.target, sorted(edge.rooms)) for edge in EDGES]
    assert sorted(documented) == sorted(coded)


def test_the_diagram_draws_every_transition_and_no_other() -> None:
    (diagram,) = [fence.text for fence in fences(PAGE) if fence.language == "mermaid"]
    drawn = set()
    for source, target, words in re.findall(r"(\S+) --> (\w+)(?:: (.*))?$", diagram, re.MULTILINE):
        for verb in re.sub(r" \(system\)", "", words).split(", "):
            drawn.add((source, verb, target))
    coded = {(edge.source or "[*]", edge.verb, edge.target) for edge in EDGES}
    final = set(re.findall(r"(\w+) --> \[\*\]", diagram))
    assert drawn == coded
    assert final == set(FINAL)


def test_every_state_is_described() -> None:
    assert re.findall(r"^- \*\*(\w+)\*\*:", SECTIONS["States"], re.MULTILINE) == list(State)


def test_every_phase_is_described() -> None:
    assert re.findall(r"^- \*\*(\w+)\*\*:", SECTIONS["Phases of an attempt"], re.MULTILINE) == list(Phase)


def test_the_outcome_table_has_every_outcome_and_no_other() -> None:
    documented = {re.findall(r"`(\w+)`", outcome)[0] for _, outcome, _ in rows(SECTIONS["Outcomes"])}
    assert documented == set(Outcome)
