"""The lifecycle as a Hypothesis state machine over the store's verbs: six rooms, one file, a model beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from outbox.core.errors import Code, StateRefused
from outbox.core.grant import Channel
from outbox.core.lifecycle import EDGES, FINAL, Outcome, Phase, Room, Settled, State
from outbox.store.claims import (
    Claim,
    Heat,
    Tripped,
    claim_if_cool,
    complete_if_held,
    end_worker_once,
    enter_gaps_if_held,
    fail_if_held,
    finish_if_open,
    refuse_if_held,
    release_if_held,
)
from outbox.store.drafts import withdraw_if_not_sent
from outbox.store.expiry import expire_if_overdue
from outbox.store.open_attempts import abandoned
from outbox.store.pause import pause_if_running, resume_if_paused
from outbox.store.settlements import (
    Settlement,
    held,
    release_if_unsent,
    settle_not_sent_if_held,
    settle_sent_if_held,
)
from outbox.store.stop import cancel_if_not_sent
from outbox.store.verdicts import approve_if_pending, fail_pending, reject_if_pending
from outbox.store.writer import Transaction
from tests.house import FOUNDER, SECOND
from tests.store.replay import replayed
from tests.store.stage import WIRE, Stage, broken_links, journal_of, report

Result = TypeVar("Result")
HEATS = {"mail": Heat("mail", 2, 60, 20), "system": Heat("system", 1, 60, 20)}
SHORT, LONG = 5 * SECOND, 300 * SECOND
TTLS = st.sampled_from([LONG, SHORT])
BACK, WHICH = st.sampled_from([0, 0, 0, 1, 2, 5]), st.integers(0, 1)
POSSIBLY_SENT = {Outcome.ACCEPTED, Outcome.IN_DOUBT}
SETTLE = {
    Settled.SENT: settle_sent_if_held,
    Settled.NOT_SENT: settle_not_sent_if_held,
    Settled.RELEASED: release_if_unsent,
}


@dataclass
class Try:
    """An attempt as the model has it."""

    worker: str
    gate: str
    phase: Phase = Phase.CLAIMED
    outcome: Outcome | None = None
    gap_at: int | None = None

    @property
    def may_have_sent(self) -> bool:
        return self.phase is Phase.GAP or self.outcome in POSSIBLY_SENT

    def may_end_as(self, outcome: Outcome) -> bool:
        return self.phase is Phase.GAP or (self.phase is Phase.CLAIMED and outcome not in POSSIBLY_SENT)


@dataclass
class Modelled:
    """A draft as the model has it."""

    state: State
    expires_at: int
    gate: str = "mail"
    agent: str = "agent"
    grant_expires_at: int | None = None
    not_before: int | None = None
    holder: str | None = None
    stopped: bool = False
    tries: dict[str, Try] = field(default_factory=dict)

    def overdue(self, now: int) -> bool:
        return self.expires_at <= now or (self.grant_expires_at is not None and self.grant_expires_at <= now)

    def due(self, now: int) -> bool:
        return self.state is State.APPROVED and (self.not_before or 0) <= now and not self.overdue(now)

    def stop(self) -> None:
        if self.state is State.EXECUTING:
            self.stopped = True
        else:
            self.state = State.CANCELLED

    def let_go(self, now: int, pause: int) -> None:
        if self.stopped:
            self.state = State.CANCELLED
        elif self.expires_at <= now:
            self.state = State.EXPIRED
        else:
            self.state, self.holder, self.not_before = State.APPROVED, None, now + pause

    @property
    def is_open(self) -> bool:
        return any(one.phase is not Phase.DONE for one in self.tries.values())

    @property
    def may_have_sent(self) -> bool:
        return any(one.may_have_sent for one in self.tries.values())

    @property
    def waits_for_a_person(self) -> bool:
        return self.gate == "mail" and any(one.outcome is Outcome.IN_DOUBT for one in self.tries.values())


class Lifecycle(RuleBasedStateMachine):
    """Random verbs of random rooms; each is refused exactly where the model says so."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.stage = Stage(Path(self._folder.name))
        self.model: dict[str, Modelled] = {}
        self.claims: list[Claim] = []
        self.until: dict[str, int | None] = dict.fromkeys(HEATS)
        self.paused = False
        self.living = ["w1", "w2"]
        self.ended: set[str] = set()
        self.ever = 2
        self.phases: dict[str, Phase] = {}

    def teardown(self) -> None:
        with self.stage.house.connection() as connection:
            assert broken_links(journal_of(connection)) == []
        self.stage.close()
        self._folder.cleanup()

    @initialize()
    def start(self) -> None:
        for worker in self.living:
            self.stage.register(worker)
        for drafter, grant_ttl in (("1", SHORT), ("2", LONG)):
            self.insert(drafter, LONG)
            self.approve(0, Room.OPERATOR, grant_ttl)
        self.claim("w1", "mail")

    # Trying

    def tick(self) -> int:
        """Every verb has a moment of its own, so that the order of approvals is known."""
        self.stage.clock.advance(1)
        return self.stage.clock.now

    def expect(self, room: Room, run: str, work: Callable[[Transaction], Result], *, allowed: bool) -> Result | None:
        """Run a verb; StateRefused, and nothing else, exactly where it is not allowed."""
        try:
            found = self.stage.run(room, work, run)
        except StateRefused:
            assert not allowed, "the store refused what the model allows"
            return None
        assert allowed, "the store did what the model forbids"
        return found

    def drafted(self, back: int, state: State | None = None) -> tuple[str, Modelled]:
        """A draft: first the ones in `state` or not final yet, the newest first, then the others."""

        def likely(draft_id: str) -> bool:
            found = self.model[draft_id].state
            return found is state if state else found not in FINAL

        newest_first = list(reversed(self.model))
        ordered = sorted(newest_first, key=likely, reverse=True)
        draft_id = ordered[back % len(ordered)]
        return draft_id, self.model[draft_id]

    def claimed(self, back: int) -> tuple[Claim, Modelled, Try, bool]:
        """A claim of whichever worker: first those that hold their draft, the newest first, then the zombies."""

        def holds(claim: Claim) -> bool:
            draft = self.model[claim.draft_id]
            return draft.state is State.EXECUTING and draft.holder == claim.attempt_id

        newest_first = self.claims[::-1]
        ordered = sorted(newest_first, key=holds, reverse=True)
        claim = ordered[back % len(ordered)]
        draft = self.model[claim.draft_id]
        return claim, draft, draft.tries[claim.attempt_id], holds(claim)

    # Drafters

    @rule(drafter=st.sampled_from(["1", "2"]), ttl=TTLS)
    def insert(self, drafter: str, ttl: int) -> None:
        now = self.tick()
        draft_id = self.stage.insert(run=drafter, ttl=ttl, agent=f"agent-{drafter}")
        self.model[draft_id] = Modelled(State.PENDING, now + ttl, agent=f"agent-{drafter}")

    @rule(ttl=TTLS, room=st.sampled_from([Room.INBOX, Room.WORKER, Room.OPERATOR]))
    def insert_notice(self, ttl: int, room: Room) -> None:
        now = self.tick()
        draft_id = self.stage.insert_notice(room=room, ttl=ttl)
        self.model[draft_id] = Modelled(State.APPROVED, now + ttl, gate="system", agent=room, not_before=now)

    @rule(back=BACK, drafter=st.sampled_from(["1", "2"]))
    def withdraw(self, back: int, drafter: str) -> None:
        (draft_id, draft), now, agent = self.drafted(back), self.tick(), f"agent-{drafter}"
        allowed = draft.agent == agent and draft.state not in FINAL

        def work(tx: Transaction) -> State:
            return withdraw_if_not_sent(tx, draft_id, agent=agent, now=now)

        self.expect(Room.DRAFTER, drafter, work, allowed=allowed)
        if allowed:
            draft.stop()

    # Operator

    @rule(back=BACK, how=st.sampled_from(Settled))
    def settle(self, back: int, how: Settled) -> None:
        """Whatever holds a draft: its worker lives or not, which is for the desk to look at."""
        held_now, now = self.stage.read(held), self.tick()
        assert {row.draft_id for row in held_now} == {
            key for key, one in self.model.items() if one.state is State.EXECUTING
        }
        if not held_now:
            return
        row = held_now[back % len(held_now)]
        draft, tried = self.model[row.draft_id], self.model[row.draft_id].tries[row.attempt_id]
        is_found = how is Settled.SENT and tried.phase is Phase.CLAIMED  # its gap is written down then
        outcome = tried.outcome or (Outcome.IN_DOUBT if tried.phase is Phase.GAP or is_found else Outcome.NOT_SENT)
        allowed = {
            Settled.SENT: outcome in POSSIBLY_SENT,
            Settled.NOT_SENT: True,
            Settled.RELEASED: outcome not in POSSIBLY_SENT and not draft.stopped and not draft.overdue(now),
        }[how]
        said = Settlement(how, "operator", "it was looked at")
        self.expect(Room.OPERATOR, "1", lambda tx: SETTLE[how](tx, row, said, now=now), allowed=allowed)
        if allowed:
            tried.gap_at = now if is_found else tried.gap_at
            tried.phase, tried.outcome = Phase.DONE, outcome
            draft.state = State.COMPLETED if how is Settled.SENT else State.FAILED
            if how is Settled.RELEASED:
                draft.let_go(now, 0)

    @rule(which=WHICH, gate=st.sampled_from(sorted(HEATS)))
    def pause_try_all_the_same_and_resume(self, which: int, gate: str) -> None:
        for _ in range(2):
            self.pause_or_resume(pause=True)
        self.claim(self.living[which], gate)
        if self.claims:
            self.enter_gap(0, which)
        for _ in range(2):
            self.pause_or_resume(pause=False)

    def pause_or_resume(self, *, pause: bool) -> None:
        now, by = self.tick(), "operator"

        def work(tx: Transaction) -> None:
            if pause:
                pause_if_running(tx, reason="a look at it", by=by, now=now)
            else:
                resume_if_paused(tx, by=by, now=now)

        self.expect(Room.OPERATOR, "1", work, allowed=self.paused is not pause)
        self.paused = pause

    # Inbox and operator

    @rule(back=BACK, room=st.sampled_from([Room.INBOX, Room.OPERATOR]), ttl=TTLS)
    def approve(self, back: int, room: Room, ttl: int) -> None:
        (draft_id, draft), now = self.drafted(back, State.PENDING), self.tick()
        allowed = draft.state is State.PENDING and draft.expires_at > now
        grant, signature = self.stage.grant(draft_id, ttl=ttl)
        self.expect(room, "1", lambda tx: approve_if_pending(tx, grant, signature, now=now), allowed=allowed)
        if allowed:
            draft.state, draft.not_before, draft.grant_expires_at = State.APPROVED, now, grant.expires_at

    @rule(back=BACK, room=st.sampled_from([Room.INBOX, Room.OPERATOR]), unreadable=st.booleans())
    def reject_or_fail(self, back: int, room: Room, *, unreadable: bool) -> None:
        (draft_id, draft), now = self.drafted(back, State.PENDING), self.tick()
        allowed = draft.state is State.PENDING
        if unreadable:
            given = {"code": Code.DIGEST_MISMATCH, "message": "no"}
            self.expect(Room.INBOX, "1", lambda tx: fail_pending(tx, draft_id, now=now, **given), allowed=allowed)
        else:
            said = {"approver": FOUNDER, "channel": Channel.REPLY, "reason": "no"}
            self.expect(room, "1", lambda tx: reject_if_pending(tx, draft_id, now=now, **said), allowed=allowed)
        if allowed:
            draft.state = State.FAILED if unreadable else State.REJECTED

    @rule(back=BACK, room=st.sampled_from([Room.INBOX, Room.OPERATOR]), state=st.sampled_from(State))
    def cancel(self, back: int, room: Room, state: State) -> None:
        (draft_id, draft), now = self.drafted(back, state), self.tick()
        allowed = draft.state not in FINAL
        self.expect(room, "1", lambda tx: cancel_if_not_sent(tx, draft_id, now=now), allowed=allowed)
        if allowed:
            draft.stop()

    @rule(
        back=BACK,
        room=st.sampled_from([Room.INBOX, Room.WORKER]),
        source=st.sampled_from([State.PENDING, State.APPROVED]),
    )
    def expire(self, back: int, room: Room, source: State) -> None:
        (draft_id, draft), now = self.drafted(back, source), self.tick()
        allowed = draft.state is source and draft.overdue(now)
        self.expect(room, "1", lambda tx: expire_if_overdue(tx, draft_id, source, now=now), allowed=allowed)
        if allowed:
            draft.state = State.EXPIRED

    # Workers

    def places(self, gate: str, now: int) -> int:
        tries = [one for draft in self.model.values() for one in draft.tries.values() if one.gate == gate]
        recent = sum(one.gap_at is not None and one.gap_at > now - HEATS[gate].window * SECOND for one in tries)
        claimed = sum(one.phase is Phase.CLAIMED and one.worker not in self.ended for one in tries)
        return HEATS[gate].count - recent - claimed

    @rule(which=WHICH, gate=st.sampled_from(["mail", "mail", "system"]))
    def claim_what_is_due(self, which: int, gate: str) -> None:
        self.claim(self.living[which], gate)

    def claim(self, worker: str, gate: str) -> None:
        now, attempt_id = self.tick(), self.stage.new_id()
        due = {key: one.not_before or 0 for key, one in self.model.items() if one.gate == gate and one.due(now)}
        until, has_place = self.until[gate], self.places(gate, now) > 0
        claims, tripped = self.stage.run(
            Room.WORKER,
            lambda tx: claim_if_cool(tx, HEATS[gate], worker_id=worker, attempt_ids=[attempt_id], now=now),
            worker,
        )
        found = claims[0] if claims else tripped
        stays_open = until is not None and (now < until or not has_place)
        if until is not None and not stays_open:
            self.until[gate] = None
        if not due or (self.paused and not stays_open and has_place):
            assert found is None
        elif stays_open or not has_place:
            self.until[gate] = until or now + HEATS[gate].cooldown * SECOND
            assert found == Tripped(self.until[gate] or 0, newly=until is None)
        else:
            assert isinstance(found, Claim)
            assert due[found.draft_id] == min(due.values())
            draft = self.model[found.draft_id]
            draft.state, draft.holder, draft.tries[attempt_id] = State.EXECUTING, attempt_id, Try(worker, gate)
            self.claims.append(found)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, late=st.booleans())
    def stop_or_let_time_pass_and_then_enter_the_gap(self, which: int, *, late: bool) -> None:
        """What was claimed in time, and may not be sent any more."""
        if late:
            self.wait(6)
        else:
            self.cancel(0, Room.OPERATOR, State.EXECUTING)
        self.enter_gap(0, which)

    @precondition(lambda self: self.claims)
    @rule(back=BACK, which=WHICH)
    def enter_gap(self, back: int, which: int) -> None:
        (claim, draft, tried, holds), now = self.claimed(back), self.tick()
        allowed = holds and tried.phase is Phase.CLAIMED and not draft.stopped and not draft.overdue(now)
        allowed = allowed and not self.paused

        def work(tx: Transaction) -> None:
            enter_gaps_if_held(tx, [(claim, WIRE)], now=now)

        self.expect(Room.WORKER, self.living[which], work, allowed=allowed)
        if allowed:
            tried.phase, tried.gap_at = Phase.GAP, now

    @precondition(lambda self: self.claims)
    @rule(back=BACK, which=WHICH, outcome=st.sampled_from(Outcome))
    def finish(self, back: int, which: int, outcome: Outcome) -> None:
        """Close the attempt and nothing else: as if what comes with it had been forgotten."""
        (claim, _, tried, _), now = self.claimed(back), self.tick()
        allowed = tried.may_end_as(outcome)

        def work(tx: Transaction) -> None:
            finish_if_open(tx, [(claim, report(outcome))], now=now)

        self.expect(Room.WORKER, self.living[which], work, allowed=allowed)
        if allowed:
            tried.phase, tried.outcome = Phase.DONE, outcome

    @precondition(lambda self: self.claims)
    @rule(back=BACK, which=WHICH)
    def complete(self, back: int, which: int) -> None:
        (claim, draft, tried, holds), now = self.claimed(back), self.tick()
        allowed = holds and tried.outcome is Outcome.ACCEPTED
        worker = self.living[which]
        self.expect(Room.WORKER, worker, lambda tx: complete_if_held(tx, [claim], now=now), allowed=allowed)
        if allowed:
            draft.state = State.COMPLETED

    @precondition(lambda self: self.claims)
    @rule(back=BACK, which=WHICH, refuse=st.booleans())
    def fail_or_refuse(self, back: int, which: int, *, refuse: bool) -> None:
        (claim, draft, _, holds), now = self.claimed(back), self.tick()
        allowed = holds and not draft.is_open
        allowed = allowed and not (draft.may_have_sent if refuse else draft.waits_for_a_person)

        def work(tx: Transaction) -> None:
            if refuse:
                refuse_if_held(tx, claim, message="no", now=now)
            else:
                fail_if_held(tx, claim, code=Code.GRANT_INVALID, message="no", now=now)

        self.expect(Room.WORKER, self.living[which], work, allowed=allowed)
        if allowed:
            draft.state = State.REFUSED if refuse else State.FAILED

    @precondition(lambda self: self.claims)
    @rule(back=BACK, which=WHICH, pause=st.sampled_from([0, 10 * SECOND]))
    def release(self, back: int, which: int, pause: int) -> None:
        (claim, draft, _, holds), now = self.claimed(back), self.tick()
        allowed = holds and not draft.is_open and not draft.may_have_sent

        def work(tx: Transaction) -> State:
            return release_if_held(tx, claim, not_before=now + pause, now=now)

        state = self.expect(Room.WORKER, self.living[which], work, allowed=allowed)
        if allowed:
            draft.let_go(now, pause)
            assert state is draft.state

    @precondition(lambda self: self.claims)
    @rule(back=BACK, outcome=st.sampled_from(Outcome), through_the_gap=st.sampled_from([True, True, False]))
    def go_on_as_the_lane_does(self, back: int, outcome: Outcome, *, through_the_gap: bool) -> None:
        """The outcome and what follows from it in one transaction: both or neither."""
        if through_the_gap:
            self.enter_gap(back, 0)
        (claim, draft, tried, holds), now = self.claimed(back), self.tick()
        allowed = holds and tried.may_end_as(outcome)

        def work(tx: Transaction) -> None:
            finish_if_open(tx, [(claim, report(outcome))], now=now)
            if outcome is Outcome.ACCEPTED:
                complete_if_held(tx, [claim], now=now)
            elif outcome is Outcome.REFUSED_PERMANENT:
                fail_if_held(tx, claim, code=Code.RELAY_REFUSED, message="no", now=now)
            elif outcome is not Outcome.IN_DOUBT:
                release_if_held(tx, claim, not_before=now, now=now)

        doubtful_again = outcome is Outcome.IN_DOUBT and not holds and tried.may_end_as(outcome)
        assert not doubtful_again, "an attempt that lost its draft was still open"
        self.expect(Room.WORKER, self.living[0], work, allowed=allowed)
        if allowed:
            tried.phase, tried.outcome = Phase.DONE, outcome
            self.concluded(draft, outcome, now)

    def concluded(self, draft: Modelled, outcome: Outcome, now: int) -> None:
        if outcome is Outcome.ACCEPTED:
            draft.state = State.COMPLETED
        elif outcome is Outcome.REFUSED_PERMANENT:
            draft.state = State.FAILED
        elif outcome is not Outcome.IN_DOUBT:
            draft.let_go(now, 0)

    @rule(which=WHICH)
    def die_and_be_found(self, which: int) -> None:
        """A worker dies; the other finds out, and lets go of what provably was not sent. Another takes its place."""
        dead, other, now = self.living[which], self.living[1 - which], self.tick()
        self.stage.run(Room.WORKER, lambda tx: end_worker_once(tx, dead, now=now), other)
        self.ended.add(dead)
        left = {one.attempt_id: one.phase for one in self.stage.read(abandoned)}
        tries = [item for draft in self.model.values() for item in draft.tries.items()]
        assert left == {
            key: one.phase for key, one in tries if one.worker in self.ended and one.phase is not Phase.DONE
        }
        for claim in self.claims:
            if left.get(claim.attempt_id) == Phase.CLAIMED:
                self.recover(claim, other)
        self.ever += 1
        self.living[which] = f"w{self.ever}"
        self.stage.register(self.living[which])

    def recover(self, claim: Claim, worker: str) -> None:
        draft, now = self.model[claim.draft_id], self.tick()

        def work(tx: Transaction) -> State:
            finish_if_open(tx, [(claim, report(Outcome.NOT_SENT))], now=now)
            return release_if_held(tx, claim, not_before=now, now=now)

        self.expect(Room.WORKER, worker, work, allowed=True)
        draft.tries[claim.attempt_id].phase, draft.tries[claim.attempt_id].outcome = Phase.DONE, Outcome.NOT_SENT
        draft.let_go(now, 0)

    @rule(seconds=st.sampled_from([1, 6, 21, 61]))
    def wait(self, seconds: int) -> None:
        self.stage.clock.advance(seconds * SECOND)

    # What always holds

    @invariant()
    def everything_is_as_the_model_says_and_nothing_went_back(self) -> None:
        with self.stage.house.connection() as connection:
            drafts = connection.execute(
                "SELECT id, state, attempt_id, stop_asked_at IS NOT NULL FROM drafts"
            ).fetchall()
            attempts = connection.execute("SELECT id, draft_id, phase, outcome FROM attempts").fetchall()
            recorded = journal_of(connection)
        self.drafts_are_as_the_model_says(drafts)
        self.attempts_are_as_the_model_says(attempts)
        self.no_draft_has_two_attempts_that_may_have_sent_it(attempts)
        self.attempts_only_go_forward(attempts)
        assert replayed(recorded, EDGES) == {key: one.state for key, one in self.model.items()}

    def drafts_are_as_the_model_says(self, rows: list[tuple[str, str, str | None, int]]) -> None:
        held = {draft_id: (state, holder, bool(stopped)) for draft_id, state, holder, stopped in rows}
        assert held == {key: (one.state.value, one.holder, one.stopped) for key, one in self.model.items()}

    def attempts_are_as_the_model_says(self, rows: list[tuple[str, str, str, str | None]]) -> None:
        tried = {attempt_id: (draft_id, phase, outcome) for attempt_id, draft_id, phase, outcome in rows}
        assert tried == {
            attempt_id: (key, one.phase.value, one.outcome and one.outcome.value)
            for key, draft in self.model.items()
            for attempt_id, one in draft.tries.items()
        }

    def no_draft_has_two_attempts_that_may_have_sent_it(self, rows: list[tuple[str, str, str, str | None]]) -> None:
        possibly = [draft_id for _, draft_id, phase, outcome in rows if phase == "gap" or outcome in POSSIBLY_SENT]
        assert len(possibly) == len(set(possibly))

    def attempts_only_go_forward(self, rows: list[tuple[str, str, str, str | None]]) -> None:
        order = list(Phase)
        for attempt_id, _, phase, _ in rows:
            before = self.phases.get(attempt_id, Phase.CLAIMED)
            self.phases[attempt_id] = Phase(phase)
            assert order.index(self.phases[attempt_id]) >= order.index(before)
