"""Each outcome as it stands in the database: state, attempt, recipients, error and journal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from outbox.core.canonical import sha256
from outbox.core.lifecycle import State
from tests.house import FOUNDER, JANE, House
from tests.relay.recording import RecordingRelay
from tests.relay.scripted import EXTENSIONS, Fin, Keep, Phase, Rst, Say, Script, ScriptedRelay
from tests.worker.hand import actions, codes

pytestmark = pytest.mark.both

JACK = "jack@customer.example"
BEGUN = ["insert", "approve", "grant", "claim"]


@dataclass(frozen=True)
class Ending:
    """What a script leaves behind."""

    name: str
    script: Script
    state: State
    outcome: str
    phases: tuple[str, ...]
    code: int | None = None
    error: str | None = None
    kept: int = 0


ENDINGS = [
    Ending("accepted", {}, State.COMPLETED, "accepted", ("gap", "done", "complete"), 250, kept=1),
    Ending(
        "refused for now at the dot", {Phase.DOT: [Say(b"451 4.3.0 Later\r\n")]},
        State.APPROVED, "refused_transient", ("gap", "done", "defer"), 451,
    ),
    Ending(
        "refused for good at the dot", {Phase.DOT: [Say(b"554 5.7.1 Spam\r\n")]},
        State.FAILED, "refused_permanent", ("gap", "done", "fail"), 554, "relay_refused",
    ),
    Ending(
        "refused for now at RCPT", {Phase.RCPT: [Say(b"451 4.7.1 Greylisted\r\n")]},
        State.APPROVED, "refused_transient", ("done", "defer"), 451,
    ),
    Ending(
        "refused for good at RCPT", {Phase.RCPT: [Say(b"550 5.1.1 Nobody\r\n")]},
        State.FAILED, "refused_permanent", ("done", "fail"), 550, "relay_refused",
    ),
    Ending(
        "refused for good at MAIL", {Phase.MAIL: [Say(b"553 5.1.8 Not you\r\n")]},
        State.FAILED, "refused_permanent", ("done", "fail"), 553, "relay_refused",
    ),
    Ending("dropped at the greeting", {Phase.GREETING: [Rst()]}, State.APPROVED, "not_sent", ("done", "defer")),
    Ending(
        "busy at the greeting", {Phase.GREETING: [Say(b"421 4.3.2 Busy\r\n")]},
        State.APPROVED, "not_sent", ("done", "defer"), 421,
    ),
    Ending("dropped at MAIL", {Phase.MAIL: [Fin()]}, State.APPROVED, "not_sent", ("done", "defer")),
    Ending("dropped at DATA", {Phase.DATA: [Fin()]}, State.APPROVED, "not_sent", ("done", "defer")),
    Ending(
        "a wrong code at DATA", {Phase.DATA: [Say(b"250 Ok\r\n")]},
        State.APPROVED, "not_sent", ("done", "defer"), 250,
    ),
    Ending(
        "dropped after the dot, kept", {Phase.DOT: [Keep(), Fin()]},
        State.EXECUTING, "in_doubt", ("gap", "done"), kept=1,
    ),
    Ending("dropped after the dot, not kept", {Phase.DOT: [Rst()]}, State.EXECUTING, "in_doubt", ("gap", "done")),
    Ending(
        "a wrong code after the dot", {Phase.DOT: [Keep(), Say(b"354 Go\r\n")]},
        State.EXECUTING, "in_doubt", ("gap", "done"), kept=1,
    ),
]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name.replace(" ", "_"))
def test_each_outcome_is_stored_with_its_evidence(tmp_path: Path, ending: Ending) -> None:
    with ScriptedRelay(ending.script) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        house.drain()
        relay.wait_until_over()
        story = house.story(draft.id)
        (attempt,) = story.attempts
        assert story.draft.state is ending.state
        assert (attempt.phase, attempt.outcome, attempt.code) == ("done", ending.outcome, ending.code)
        assert (story.draft.error or (None,))[0] == ending.error
        assert actions(house, draft.id) == [*BEGUN, *ending.phases]
        assert len(relay.to(JANE)) == ending.kept
        assert (attempt.gap_at is not None) is ("gap" in ending.phases)
        if ending.outcome in {"not_sent", "in_doubt"}:
            assert attempt.text


def test_an_accepted_draft_keeps_queue_id_reply_and_the_digest_of_what_went_over_the_wire(house: House) -> None:
    draft = house.approved(to=(JANE, JACK))
    house.drain()
    (attempt,) = house.story(draft.id).attempts
    (sent,) = house.relay.to(JANE)
    assert attempt.queue_id == "000001"
    assert (attempt.code, attempt.enhanced, attempt.text) == (250, "2.0.0", "Ok: queued as 000001")
    assert attempt.wire_digest == sha256(sent.octets)
    assert [(one.address, one.code) for one in attempt.recipients] == [(JACK, 250), (JANE, 250)]


def test_a_refused_recipient_stands_beside_those_that_were_not(tmp_path: Path) -> None:
    with ScriptedRelay({JACK: [Say(b"550 5.1.1 Nobody here\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved(to=(JANE, JACK))
        house.drain()
        story = house.story(draft.id)
        heard = {one.address: (one.code, one.text) for one in story.attempts[0].recipients}
        assert heard == {JANE: (250, "2.1.5 Ok"), JACK: (550, "5.1.1 Nobody here")}
        assert story.draft.error == ("relay_refused", "the relay said 550 5.1.1 Nobody here")
        assert relay.to(JANE) == []
        assert relay.to(JACK) == []


def test_what_the_relay_cannot_take_fails_with_the_reason(tmp_path: Path) -> None:
    offers = tuple(offer for offer in EXTENSIONS if not offer.startswith("SIZE"))
    with ScriptedRelay(extensions=(*offers, "SIZE 2000")) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved(text="long " * 1000)
        house.drain()
        story = house.story(draft.id)
        assert story.draft.state is State.FAILED
        assert (story.draft.error or ("",))[0] == "relay_lacks"
        assert relay.to(JANE) == []
        assert codes(house) == ["relay_lacks"]


def test_a_permanent_refusal_is_mailed_to_the_operator(house: House, relay: RecordingRelay) -> None:
    relay.refuse[JANE] = "550 5.1.1 Nobody here"
    draft = house.approved()
    house.drain()
    (told,) = relay.to(FOUNDER)
    assert draft.id.encode() in told.octets
    assert b"5.1.1" in told.octets
    assert codes(house) == ["relay_refused"]
    assert house.story(draft.id).draft.state is State.FAILED


def test_operators_are_told_instead_of_approvers_where_they_are_named(house: House, relay: RecordingRelay) -> None:
    house.set("operator", addresses='["ops@acme.example", "night@acme.example"]')
    relay.refuse[JANE] = "550 5.1.1 Nobody here"
    house.approved()
    house.drain()
    assert sorted(sent.recipients for sent in relay.messages) == [("night@acme.example",), ("ops@acme.example",)]
    assert [sent for sent in relay.messages if FOUNDER in sent.recipients] == []


def test_the_oldest_approval_leaves_first(house: House) -> None:
    house.set("relay", lanes="1")
    first, second = house.draft(subject="First"), house.draft(subject="Second")
    house.clock.advance(1)
    house.approve(second.id)
    house.clock.advance(1)
    house.approve(first.id)
    house.drain()
    assert [b"Second" in sent.octets for sent in house.relay.to(JANE)] == [True, False]


def test_one_draft_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    gone, later = "gone@customer.example", "later@customer.example"
    then: Script = {gone: [Say(b"550 5.1.1 No\r\n")], later: [Fin()]}
    with ScriptedRelay({Phase.DOT: [Rst()]}, then=then) as relay:
        house = House.build(tmp_path, relay)
        house.set("relay", lanes="1")
        drafts = [house.approved(to=(address,)) for address in (JANE, gone, later, JANE, JANE)]
        house.drain()
        states = [house.story(draft.id).draft.state for draft in drafts]
        assert sorted(states) == sorted(
            [State.EXECUTING, State.FAILED, State.APPROVED, State.COMPLETED, State.COMPLETED]
        )
        assert len(relay.to(JANE)) == 2
