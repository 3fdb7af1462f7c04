"""Every transition writes its row in its own transaction, and the chain of MACs finds what was done to a row later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.canonical import VERSION, encode
from outbox.core.errors import Code
from outbox.core.grant import Channel, Request
from outbox.core.lifecycle import EDGES, Outcome, Room, State, Verb
from outbox.core.signing import KeyRing
from outbox.store.claims import (
    Claim,
    cancel_if_stopped,
    claim_if_cool,
    complete_if_held,
    end_worker_once,
    enter_gaps_if_held,
    fail_if_held,
    finish_if_open,
    insert_worker,
    refuse_if_held,
    release_if_held,
)
from outbox.store.drafts import insert_pending, withdraw_if_not_sent
from outbox.store.expiry import expire_if_overdue
from outbox.store.journal import GENESIS, Chain, Entry, Fact
from outbox.store.notices import insert_request, insert_system
from outbox.store.schema import metadata
from outbox.store.stop import cancel_if_not_sent
from outbox.store.transition import move
from outbox.store.verdicts import (
    ReplyRecord,
    approve_if_pending,
    fail_pending,
    insert_reply_once,
    reject_if_pending,
)
from outbox.store.writer import Transaction
from tests.house import FOUNDER, HOUR, SECOND, House
from tests.store.stage import RING, ROOMY, WIRE, Recorded, Stage, broken_links, dump, journal_of, report

Work = Callable[[Transaction], object]


@dataclass(frozen=True)
class Step:
    """One transition: what comes before it, who makes it, and the rows that it writes, as (action, from, to)."""

    room: Room
    prepare: Callable[[Stage], Work]
    rows: tuple[tuple[str, str | None, str | None], ...]


def _insert(stage: Stage) -> Work:
    signed = stage.signed("d")
    return lambda tx: insert_pending(tx, signed, now=stage.clock.now, idempotency_key=None)


def _insert_system(stage: Stage) -> Work:
    signed = stage.notice("d")
    return lambda tx: insert_system(tx, signed, now=stage.clock.now)


def _ask(stage: Stage) -> Work:
    stage.insert("d")
    carrier, now = stage.notice("carrier", about="d"), stage.clock.now
    request = Request(bytes(8), "d", bytes(32), FOUNDER, now + HOUR)
    return lambda tx: insert_request(tx, request, carrier, ask=1, now=now)


def _reply(stage: Stage) -> Work:
    stage.insert("d")
    now = stage.clock.now
    reply = ReplyRecord("r", "m", "1", bytes(32), now, FOUNDER, "<1@x>", "d", "unclear", counted=False, why="why")
    return lambda tx: insert_reply_once(tx, reply)


def _approve(stage: Stage) -> Work:
    stage.insert("d")
    grant, signature = stage.grant("d")
    return lambda tx: approve_if_pending(tx, grant, signature, now=stage.clock.now)


def _pending(stage: Stage, verb: Callable[[Transaction], object]) -> Work:
    stage.insert("d")
    return verb


def _reject(stage: Stage) -> Work:
    now = stage.clock.now
    return _pending(
        stage, lambda tx: reject_if_pending(tx, "d", approver=FOUNDER, channel=Channel.REPLY, reason="no", now=now)
    )


def _fail_pending(stage: Stage) -> Work:
    now = stage.clock.now
    return _pending(stage, lambda tx: fail_pending(tx, "d", code=Code.DIGEST_MISMATCH, message="no", now=now))


def _withdraw(stage: Stage) -> Work:
    return _pending(stage, lambda tx: withdraw_if_not_sent(tx, "d", agent="agent", now=stage.clock.now))


def _expire_pending(stage: Stage) -> Work:
    stage.insert("d", ttl=SECOND)
    stage.clock.advance(SECOND)
    return lambda tx: expire_if_overdue(tx, "d", State.PENDING, now=stage.clock.now)


def _expire_approved(stage: Stage) -> Work:
    stage.approved("d", grant_ttl=SECOND)
    stage.clock.advance(SECOND)
    return lambda tx: expire_if_overdue(tx, "d", State.APPROVED, now=stage.clock.now)


def _cancel_approved(stage: Stage) -> Work:
    stage.approved("d")
    return lambda tx: cancel_if_not_sent(tx, "d", now=stage.clock.now)


def _claim(stage: Stage) -> Work:
    stage.approved("d")
    stage.register("w1")
    return lambda tx: claim_if_cool(tx, ROOMY, worker_id="w1", attempt_ids=["a"], now=stage.clock.now)


def _register(stage: Stage) -> Work:
    return lambda tx: insert_worker(tx, "w2", host="here", pid=1, now=stage.clock.now)


def _end(stage: Stage) -> Work:
    stage.register("w1")
    return lambda tx: end_worker_once(tx, "w1", now=stage.clock.now)


def _claimed(
    verb: Callable[..., object],
    *,
    gap: bool = False,
    outcome: Outcome | None = None,
    ttl: int = HOUR,
    stop: bool = False,
    **given: object,
) -> Callable[[Stage], Work]:
    """`verb` on a claimed draft "d", as far on as is said."""

    def prepare(stage: Stage) -> Work:
        stage.register("w1")
        stage.approved("d", ttl=ttl)
        claim = stage.claim(attempt_id="a")
        if stop:
            stage.run(Room.OPERATOR, lambda tx: cancel_if_not_sent(tx, "d", now=stage.clock.now))
        if gap:
            stage.enter_gap(claim)
        if outcome is not None:
            stage.finish(claim, outcome)
        if ttl < HOUR:
            stage.clock.advance(ttl)
        return lambda tx: verb(tx, claim, now=stage.clock.now, **given)

    return prepare


def _enter_gap(tx: Transaction, claim: Claim, *, now: int) -> None:
    enter_gaps_if_held(tx, [(claim, WIRE)], now=now)


def _finish(tx: Transaction, claim: Claim, *, now: int) -> None:
    finish_if_open(tx, [(claim, report(UNSENT))], now=now)


def _complete(tx: Transaction, claim: Claim, *, now: int) -> None:
    complete_if_held(tx, [claim], now=now)


def _stop(stage: Stage) -> Work:
    stage.register("w1")
    stage.approved("d")
    stage.claim(attempt_id="a")
    return lambda tx: cancel_if_not_sent(tx, "d", now=stage.clock.now)


UNSENT = Outcome.NOT_SENT
STEPS = {
    "insert": Step(Room.DRAFTER, _insert, (("insert", None, "pending"),)),
    "insert system": Step(Room.WORKER, _insert_system, (("insert", None, "approved"),)),
    "ask": Step(Room.INBOX, _ask, (("insert", None, "approved"), ("ask", None, None))),
    "reply": Step(Room.INBOX, _reply, (("reply", None, None),)),
    "approve": Step(Room.INBOX, _approve, (("approve", "pending", "approved"), ("grant", None, None))),
    "reject": Step(Room.OPERATOR, _reject, (("reject", "pending", "rejected"),)),
    "fail pending": Step(Room.INBOX, _fail_pending, (("fail", "pending", "failed"),)),
    "withdraw": Step(Room.DRAFTER, _withdraw, (("cancel", "pending", "cancelled"),)),
    "cancel approved": Step(Room.OPERATOR, _cancel_approved, (("cancel", "approved", "cancelled"),)),
    "expire pending": Step(Room.INBOX, _expire_pending, (("expire", "pending", "expired"),)),
    "expire approved": Step(Room.WORKER, _expire_approved, (("expire", "approved", "expired"),)),
    "claim": Step(Room.WORKER, _claim, (("claim", "approved", "executing"),)),
    "stop": Step(Room.OPERATOR, _stop, (("stop", None, None),)),
    "gap": Step(Room.WORKER, _claimed(_enter_gap), (("gap", None, None),)),
    "finish": Step(Room.WORKER, _claimed(_finish), (("done", None, None),)),
    "complete": Step(
        Room.WORKER,
        _claimed(_complete, gap=True, outcome=Outcome.ACCEPTED),
        (("complete", "executing", "completed"),),
    ),
    "fail": Step(
        Room.WORKER,
        _claimed(fail_if_held, outcome=UNSENT, code=Code.GRANT_INVALID, message="no"),
        (("fail", "executing", "failed"),),
    ),
    "refuse": Step(
        Room.WORKER, _claimed(refuse_if_held, outcome=UNSENT, message="no"), (("refuse", "executing", "refused"),)
    ),
    "defer": Step(
        Room.WORKER, _claimed(release_if_held, outcome=UNSENT, not_before=1), (("defer", "executing", "approved"),)
    ),
    "cancel executing": Step(
        Room.WORKER,
        _claimed(release_if_held, outcome=UNSENT, stop=True, not_before=1),
        (("cancel", "executing", "cancelled"),),
    ),
    "cancel stopped": Step(
        Room.WORKER,
        _claimed(cancel_if_stopped, outcome=UNSENT, stop=True),
        (("cancel", "executing", "cancelled"),),
    ),
    "expire executing": Step(
        Room.WORKER,
        _claimed(release_if_held, outcome=UNSENT, ttl=SECOND, not_before=1),
        (("expire", "executing", "expired"),),
    ),
    "start": Step(Room.WORKER, _register, (("start", None, None),)),
    "end": Step(Room.WORKER, _end, (("end", None, None),)),
}


class InterruptedWorkError(Exception):
    """Something else in the same piece of work went wrong."""


def then_fail(work: Work) -> Work:
    def both(tx: Transaction) -> None:
        work(tx)
        raise InterruptedWorkError

    return both


def journal(stage: Stage) -> list[Recorded]:
    with stage.house.connection() as connection:
        return journal_of(connection)


@pytest.mark.parametrize("name", STEPS)
def test_a_transition_writes_what_it_did_and_the_chain_holds(stage: Stage, name: str) -> None:
    step = STEPS[name]
    work, run = step.prepare(stage), "the run"
    before = len(journal(stage))
    stage.run(step.room, work, run)
    after = journal(stage)
    written = [row for row in after if row.entry.writer == f"{step.room}:{run}"]
    assert len(after) == before + len(written)
    assert tuple((row.entry.action, row.detail.get("from"), row.detail.get("to")) for row in written) == step.rows
    assert broken_links(after) == []


@pytest.mark.parametrize("name", STEPS)
def test_a_transition_and_its_row_are_stored_together_or_not_at_all(stage: Stage, name: str) -> None:
    step = STEPS[name]
    work = step.prepare(stage)
    with stage.house.connection() as connection:
        before = dump(connection)
    with pytest.raises(InterruptedWorkError):
        stage.run(step.room, then_fail(work))
    with stage.house.connection() as connection:
        assert dump(connection) == before
    stage.run(step.room, work)
    assert broken_links(journal(stage)) == []


def test_every_edge_that_a_verb_of_the_store_walks_is_journalled_by_a_test() -> None:
    walked = {(source, action, target) for step in STEPS.values() for action, source, target in step.rows}
    edges = {(edge.source, edge.verb.value, edge.target.value) for edge in EDGES if edge.verb is not Verb.SETTLE}
    assert edges <= walked


@pytest.mark.parametrize("name", ["claim", "gap", "finish", "complete", "fail", "refuse", "defer", "stop"])
def test_a_row_from_the_claim_on_names_the_attempt(stage: Stage, name: str) -> None:
    step = STEPS[name]
    stage.run(step.room, step.prepare(stage))
    row = max(journal(stage), key=lambda row: (row.entry.writer == f"{step.room}:1", row.entry.seq))
    assert (row.entry.draft_id, row.entry.attempt_id) == ("d", "a")


def test_a_room_cannot_walk_an_edge_that_is_not_its_own(stage: Stage) -> None:
    stage.insert("d")
    with pytest.raises(AssertionError, match="the drafter may not approve"):
        stage.run(Room.DRAFTER, lambda tx: move(tx, Verb.APPROVE, "d", source=State.PENDING, now=1, not_before=1))
    assert stage.state("d") == "pending"


def test_a_transition_from_the_claim_on_needs_its_attempt(stage: Stage) -> None:
    with pytest.raises(AssertionError, match="names its attempt"):
        stage.run(Room.WORKER, lambda tx: move(tx, Verb.COMPLETE, "d", source=State.EXECUTING, now=1))


# The chain


def test_each_run_of_a_room_has_a_chain_of_its_own_from_the_beginning(stage: Stage) -> None:
    stage.insert("a", run="one")
    stage.insert("b", run="two")
    stage.insert("c", run="one")
    rows = [(row.entry.writer, row.entry.seq, row.entry.draft_id) for row in journal(stage)]
    assert rows == [("drafter:one", 1, "a"), ("drafter:one", 2, "c"), ("drafter:two", 1, "b")]
    assert broken_links(journal(stage)) == []


def test_the_first_row_follows_the_genesis_and_the_next_one_its_mac(stage: Stage) -> None:
    stage.insert("a")
    stage.insert("b")
    first, second = journal(stage)
    assert GENESIS.hex() in first.entry.canonical(GENESIS).decode()
    assert first.signature.octets.hex() in second.entry.canonical(first.signature.octets).decode()
    assert broken_links([first]) == []
    assert broken_links([second]) == [("drafter:1", 2)]


def test_a_chain_finds_its_head_in_the_journal_again(stage: Stage) -> None:
    stage.insert("a", run="one")
    stage.insert("b", run="two")
    stage.insert("c", run="one")
    forgotten = Chain(Room.DRAFTER, "one", RING)
    with stage.database.writer.begin() as connection:
        forgotten.resume(connection)
        forgotten.append([Fact("after")], now=1)
        forgotten.write(connection)
    rows = journal(stage)
    assert [row.entry.seq for row in rows if row.entry.writer == "drafter:one"] == [1, 2, 3]
    assert broken_links(rows) == []


def test_a_chain_of_another_key_does_not_verify(stage: Stage) -> None:
    stage.insert("a")
    assert broken_links(journal(stage), KeyRing([bytes(32)])) == [("drafter:1", 1)]


def test_a_chain_verifies_after_its_key_was_followed_by_a_newer_one(stage: Stage) -> None:
    stage.insert("a")
    assert broken_links(journal(stage), KeyRing([bytes(32), bytes(range(32))])) == []


def four_rows(stage: Stage) -> House:
    for name in ("a", "b", "c", "d"):
        stage.insert(name)
    assert broken_links(journal(stage)) == []
    return stage.house


OTHER_VALUES = {
    "writer": "'drafter:2'",
    "seq": "99",
    "at": "at + 1",
    "action": "'approve'",
    "draft_id": "'d'",
    "attempt_id": "'a'",
    "detail": "'{}'",
    "key_id": "'0000000000000000'",
    "mac": "zeroblob(32)",
}


def test_every_column_of_the_journal_is_tried() -> None:
    assert OTHER_VALUES.keys() == {column.name for column in metadata.tables["journal"].columns}


@pytest.mark.parametrize("column", OTHER_VALUES)
def test_a_changed_row_is_found(stage: Stage, column: str) -> None:
    with four_rows(stage).as_thief() as thief:
        thief.execute(f"UPDATE journal SET {column} = {OTHER_VALUES[column]} WHERE seq = 2")
    assert broken_links(journal(stage))


def test_a_removed_row_is_found_at_its_successor(stage: Stage) -> None:
    with four_rows(stage).as_thief() as thief:
        thief.execute("DELETE FROM journal WHERE seq = 2")
    assert broken_links(journal(stage)) == [("drafter:1", 3)]


def test_a_removed_row_is_found_where_the_others_were_numbered_anew(stage: Stage) -> None:
    with four_rows(stage).as_thief() as thief:
        thief.execute("DELETE FROM journal WHERE seq = 2")
        thief.execute("UPDATE journal SET seq = seq - 1 WHERE seq > 2")
    assert broken_links(journal(stage)) == [("drafter:1", 2), ("drafter:1", 3)]


def test_two_rows_in_each_others_place_are_found(stage: Stage) -> None:
    with four_rows(stage).as_thief() as thief:
        for old, new in ((2, 22), (3, 2), (22, 3)):
            thief.execute("UPDATE journal SET seq = ? WHERE seq = ?", (new, old))
    assert broken_links(journal(stage)) == [("drafter:1", 2), ("drafter:1", 3), ("drafter:1", 4)]


def test_a_row_of_another_chain_is_found(stage: Stage) -> None:
    house = four_rows(stage)
    stage.insert("e", run="2")
    with house.as_thief() as thief:
        thief.execute("DELETE FROM journal WHERE writer = 'drafter:1' AND seq = 1")
        thief.execute("UPDATE journal SET writer = 'drafter:1' WHERE writer = 'drafter:2'")
    assert ("drafter:1", 1) in broken_links(journal(stage))


def test_a_row_put_in_without_the_key_is_found(stage: Stage) -> None:
    with four_rows(stage).connection() as connection:
        connection.execute(
            "INSERT INTO journal SELECT writer, 5, at, action, draft_id, attempt_id, detail, key_id, mac "
            "FROM journal WHERE seq = 4"
        )
    assert broken_links(journal(stage)) == [("drafter:1", 5)]


_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


_ENTRIES = st.builds(
    Entry,
    _WORDS,
    st.integers(0, 2**40),
    st.integers(0, 2**53 - 1),
    _WORDS,
    st.none() | _WORDS,
    st.none() | _WORDS,
    _WORDS,
)


@given(_ENTRIES)
def test_the_bytes_under_a_mac_are_canonical_json(entry: Entry) -> None:
    fields = {
        "writer": entry.writer, "seq": entry.seq, "at": entry.at, "action": entry.action, "draft": entry.draft_id,
        "attempt": entry.attempt_id, "detail": entry.detail,
    }  # fmt: skip
    assert entry.canonical(GENESIS) == encode({"version": VERSION, **fields, "previous": GENESIS.hex()})
