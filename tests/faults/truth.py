"""What the relay took, held against what the rows say: the promises, as one function that every fault run ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from outbox import drafter, operator
from outbox.core.lifecycle import State
from outbox.drafter.intake import Wanted
from outbox.store.views import DraftView
from tests.crash.faults_table import Tally
from tests.house import House

REASONED = {State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED, State.REFUSED, State.REJECTED}


Approved = dict[str, tuple[str, tuple[str, ...], bytes]]


class Truthful(Protocol):
    """A relay that knows what it took: how often each draft, and what of it was not what was approved."""

    @property
    def drafts(self) -> Counter[str]: ...

    def strays(self, approved: Approved) -> Sequence[object]: ...


@dataclass(frozen=True)
class Row:
    """A draft of an agent's, and how its attempts ended."""

    draft_id: str
    state: State
    outcomes: tuple[str | None, ...]  # None for an attempt that has not ended
    in_gap: bool

    @property
    def may_have_left(self) -> bool:
        """Whether the rows themselves do not say that it provably did not leave."""
        return self.in_gap or bool({"accepted", "in_doubt"} & set(self.outcomes))

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is in front of the operator as one that may have been sent."""
        return self.state is State.EXECUTING and (self.in_gap or "in_doubt" in self.outcomes)


def rows_of(house: House) -> list[Row]:
    """Every draft of an agent's."""
    attempts: dict[str, list[tuple[str | None, str]]] = {}
    for draft_id, outcome, phase in house.rows(
        "SELECT draft_id, outcome, phase FROM attempts ORDER BY started_at, rowid"
    ):
        attempts.setdefault(str(draft_id), []).append((outcome, str(phase)))  # type: ignore[arg-type]
    return [
        Row(
            str(draft_id),
            State(str(state)),
            tuple(outcome for outcome, _ in attempts.get(str(draft_id), ())),
            any(phase == "gap" for _, phase in attempts.get(str(draft_id), ())),
        )
        for draft_id, state in house.rows("SELECT id, state FROM drafts WHERE kind <> 'system' ORDER BY id")
    ]


def approved_octets(house: House) -> Approved:
    """Envelope and octets of every draft, the outbox's own too, as `Adversary.strays` wants them."""
    drafts = list(all_drafts(house))
    with operator.read(house.settings) as records:
        return {
            draft.id: (draft.envelope.sender, draft.envelope.recipients, records.octets(draft.id)) for draft in drafts
        }


def all_drafts(house: House) -> Iterable[DraftView]:
    """Every draft there is, page by page."""
    after = None
    while True:
        with operator.read(house.settings) as records:
            page = records.drafts(system=True, limit=500, after=after)
        yield from page
        if len(page) < 500:
            return
        after = page[-1].id


def draft_and_approve(house: House, wanted: Iterable[Wanted]) -> list[str]:
    """Drafts of one agent, all approved at the terminal; their ids in the order given."""
    with drafter.open(house.settings, clock=house.clock) as room:
        made = [room.draft(one).draft.id for one in wanted]
    with operator.open(house.settings, clock=house.clock) as desk:
        for draft_id in made:
            desk.approve(draft_id, named=None)
    return made


def assert_the_promises_hold(house: House, relay: Truthful, tally: Tally) -> None:
    """No duplicate, no stray; what was taken is completed or said to be in doubt, and not said to be unsent.

    Counts what it found into `tally`. Ask it when the relay has settled.
    """
    rows = rows_of(house)
    ours = {row.draft_id for row in rows}
    taken = Counter({draft_id: count for draft_id, count in relay.drafts.items() if draft_id in ours})
    completed = {row.draft_id for row in rows if row.state is State.COMPLETED}
    doubtful = {row.draft_id for row in rows if row.is_in_doubt}
    unsent = {row.draft_id for row in rows if not row.may_have_left}
    lost = [row for row in rows if row.state not in {*REASONED, State.APPROVED} and row.draft_id not in doubtful]
    tally.messages += len(rows)
    tally.accepted += sum(taken.values())
    tally.duplicates += sum(count - 1 for count in relay.drafts.values())
    tally.in_doubt += len(doubtful)
    tally.provably_unsent += len(unsent)
    tally.lost += len(lost) + len(completed - taken.keys())
    assert relay.strays(approved_octets(house)) == []
    assert max(relay.drafts.values(), default=1) == 1
    assert completed - taken.keys() == set(), "said to be sent, and not at the relay"
    assert taken.keys() - completed <= doubtful, "at the relay, and neither completed nor in doubt"
    assert taken.keys() & unsent == set(), "said to be provably unsent, and at the relay"
    assert lost == []
