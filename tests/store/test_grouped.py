"""What is asked together is done together, each with an end of its own; and places that were counted once stay true."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest
from sqlalchemy import update

from outbox.core.errors import Code, PolicyRefused, StateRefused, Unavailable
from outbox.core.lifecycle import Outcome, Room
from outbox.store.claims import (
    Claim,
    claim_if_cool,
    end_worker_once,
    enter_gaps_if_held,
    finish_if_open,
    release_if_held,
)
from outbox.store.engine import Database, connect
from outbox.store.heat import Headroom, Heat, used
from outbox.store.journal import Chain
from outbox.store.schema import drafts
from outbox.store.writer import Hooks, Transaction, Waiting, Writer
from tests.house import HOUR
from tests.store.stage import RING, WIRE, Stage, broken_links, journal_of, report

BOUND = 10.0  # seconds that anything here may take


class Notes:
    """Work for many: journals each item, and keeps how many came at a time. An item that begins with "bad" raises."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, tx: Transaction, items: Sequence[str]) -> list[str]:
        self.calls.append(list(items))
        for item in items:
            tx.journal(item, now=1)
            if item.startswith("bad"):
                raise PolicyRefused(Code.USAGE, item)
        return [f"{item}!" for item in items]


class Rooms:
    """A room's hooks: what they were given in the order of events, and what others could do meanwhile."""

    def __init__(self, stage: Stage) -> None:
        self.events: list[tuple[str, object]] = []
        self.refused: set[object] = set()
        self._stage = stage

    def hooks(self) -> Hooks:
        return Hooks(self.before, self.after)

    def before(self, lines: Sequence[object]) -> None:
        self._stage.run(Room.OPERATOR, lambda tx: tx.journal("meanwhile", now=1))  # the lock is nobody's yet
        self.events.append(("before", [*lines, noted(self._stage)]))

    def after(self, lines: Sequence[object]) -> None:
        self.events.append(("after", [*lines, noted(self._stage)]))
        if self.refused.intersection(lines):
            raise Unavailable(Code.POSSIBLY_SENT, f"not {lines}")


def noted(stage: Stage) -> list[str]:
    """What another connection sees of this writer."""
    rows = stage.rows("SELECT action FROM journal WHERE writer = ? ORDER BY seq", "worker:grouped")
    return [str(action) for (action,) in rows]


@pytest.fixture
def rooms(stage: Stage) -> Rooms:
    return Rooms(stage)


@pytest.fixture
def database(stage: Stage) -> Iterator[Database]:
    opened = connect(stage.house.place, Room.WORKER)
    yield opened
    opened.close()


@pytest.fixture
def writer(rooms: Rooms, database: Database) -> Iterator[Writer]:
    made = Writer(database, Chain(Room.WORKER, "grouped", RING), rooms.hooks())
    yield made
    made.close()


def ask(writer: Writer, *asked: Waiting) -> list[Waiting]:
    """All of them in one transaction; back when their waiters are woken."""
    woken: Future[list[Waiting]] = Future()
    writer.submit_all(asked, lambda done: woken.set_result(list(done)))
    return woken.result(BOUND)


def asking(work: Notes, item: str, **given: object) -> Waiting:
    return Waiting(work, item, Future(), **given)  # type: ignore[arg-type]


# In one transaction


def test_what_asks_the_same_is_done_at_once_and_each_gets_its_own_result(stage: Stage, writer: Writer) -> None:
    one, other = Notes(), Notes()
    works = {"a": one, "b": other, "c": one, "d": one, "e": other}
    done = ask(writer, *(asking(work, item) for item, work in works.items()))
    assert [(each.item, each.result, each.error) for each in done] == [(item, f"{item}!", None) for item in works]
    assert one.calls == [["a", "c", "d"]]
    assert other.calls == [["b", "e"]]
    assert noted(stage) == ["a", "c", "d", "b", "e"]


def test_where_one_of_many_loses_each_is_done_alone_and_only_it_has_lost(stage: Stage, writer: Writer) -> None:
    work = Notes()
    done = ask(writer, *(asking(work, item) for item in ("a", "b", "bad", "c", "bad too")))
    assert work.calls[0] == ["a", "b", "bad", "c", "bad too"]
    assert work.calls[-5:] == [["a"], ["b"], ["bad"], ["c"], ["bad too"]]
    assert [each.result for each in done] == ["a!", "b!", None, "c!", None]
    assert [str(each.error) for each in done if each.error] == ["bad", "bad too"]
    assert noted(stage) == ["a", "b", "c"]
    with stage.house.connection() as connection:
        assert broken_links(journal_of(connection)) == []


def test_one_kind_that_fails_leaves_another_kind_alone(stage: Stage, writer: Writer) -> None:
    failing, working = Notes(), Notes()
    ask(writer, asking(failing, "bad"), asking(working, "x"), asking(failing, "bad too"), asking(working, "y"))
    assert working.calls == [["x", "y"]]
    assert noted(stage) == ["x", "y"]


def test_what_is_asked_together_is_woken_once_and_what_is_asked_apart_apart(writer: Writer) -> None:
    woken: list[list[str]] = []
    over = threading.Event()

    def wake(done: Sequence[Waiting]) -> None:
        woken.append([each.result for each in done])
        if len(woken) == 2:
            over.set()

    work = Notes()
    writer.submit_all([asking(work, "a"), asking(work, "b")], wake)
    writer.submit_all([asking(work, "c")], wake)
    assert over.wait(BOUND)
    assert woken == [["a!", "b!"], ["c!"]]


def test_nobody_does_what_nobody_waits_for_any_more(stage: Stage, rooms: Rooms, writer: Writer) -> None:
    work = Notes()
    given_up = asking(work, "b", then="gap of b")
    given_up.waiter.cancel()  # type: ignore[attr-defined]
    ask(writer, asking(work, "a", first="said of a", then="gap of a"), given_up)
    assert work.calls == [["a"]]
    assert rooms.events == [("before", ["said of a", []]), ("after", ["gap of a", ["a"]])]
    assert noted(stage) == ["a"]


def test_what_was_heard_is_stored_though_its_lane_was_aborted(stage: Stage, rooms: Rooms, writer: Writer) -> None:
    """A stop that took too long cancels who waits for it; what the relay said is known all the same."""
    work = Notes()
    aborted = asking(work, "b", first="said of b")
    aborted.waiter.cancel()  # type: ignore[attr-defined]
    ask(writer, asking(work, "a"), aborted)
    assert rooms.events == [("before", ["said of b", []])]
    assert noted(stage) == ["a", "b"]


# Around it


def test_what_comes_first_is_kept_before_begin_and_what_follows_after_commit(rooms: Rooms, writer: Writer) -> None:
    work, woken = Notes(), []
    over = threading.Event()

    def wake(done: Sequence[Waiting]) -> None:
        woken.append((len(rooms.events), [each.result for each in done]))
        over.set()

    writer.submit_all(
        [asking(work, "a", first=1, then="one"), asking(work, "b"), asking(work, "c", first=3, then="three")], wake
    )
    assert over.wait(BOUND)
    assert rooms.events == [("before", [1, 3, []]), ("after", ["one", "three", ["a", "b", "c"]])]
    assert woken == [(2, ["a!", "b!", "c!"])]


def test_what_follows_is_not_done_for_those_that_lost(rooms: Rooms, writer: Writer) -> None:
    work = Notes()
    ask(writer, asking(work, "a", then="one"), asking(work, "bad", then="two"))
    assert [given for _, given in rooms.events] == [["one", ["a"]]]


def test_one_whose_draft_may_have_been_sent_does_not_keep_the_others_from_leaving(rooms: Rooms, writer: Writer) -> None:
    work = Notes()
    rooms.refused = {"two"}
    done = ask(writer, *(asking(work, item, then=then) for item, then in (("a", "one"), ("b", "two"), ("c", "three"))))
    assert [each.error and getattr(each.error, "code", None) for each in done] == [None, Code.POSSIBLY_SENT, None]
    assert [given[:-1] for _, given in rooms.events] == [  # type: ignore[index]
        ["one", "two", "three"],
        ["one"],
        ["two"],
        ["three"],
    ]


def test_where_the_database_ended_the_transaction_nothing_follows_and_everybody_is_told(
    stage: Stage, rooms: Rooms, writer: Writer
) -> None:
    stage.register("w1")

    def breaks(tx: Transaction, items: Sequence[str]) -> list[str]:
        tx.connection.exec_driver_sql("ROLLBACK")  # as a full disk does
        return list(items)

    work = Notes()
    done = ask(writer, asking(work, "a", then="one"), Waiting(breaks, "b", Future(), then="two"))
    assert [getattr(each.error, "code", None) for each in done] == [Code.DATABASE_UNAVAILABLE] * 2
    assert rooms.events == []
    assert noted(stage) == []
    assert ask(writer, asking(work, "c"))[0].result == "c!"
    with stage.house.connection() as connection:
        assert broken_links(journal_of(connection)) == []


def test_a_chain_goes_on_where_it_was_stored_though_the_next_group_has_a_loser(
    stage: Stage, rooms: Rooms, writer: Writer
) -> None:
    """A COMMIT that failed leaves the chain ahead of what is stored; what is undone next may not put it there again."""
    draft_id = stage.insert()

    def dangles(tx: Transaction, items: Sequence[str]) -> list[str]:
        tx.connection.execute(update(drafts).where(drafts.c.id == draft_id).values(attempt_id="nobody"))
        return list(items)  # the foreign key is looked at by COMMIT

    work = Notes()
    unknown = ask(writer, asking(work, "a", then="one"), Waiting(dangles, "b", Future(), then="two"))
    assert [getattr(each.error, "code", None) for each in unknown] == [Code.DATABASE_UNAVAILABLE] * 2
    assert rooms.events == []
    ask(writer, asking(work, "c"), asking(work, "bad"))
    ask(writer, asking(work, "d"))
    assert noted(stage) == ["c", "d"]
    with stage.house.connection() as connection:
        assert broken_links(journal_of(connection)) == []


# Places that were counted once


class Hot:
    """A gate with few places, workers that claim through it, and what they hold."""

    def __init__(self, stage: Stage, *, count: int, drafts: int) -> None:
        self.stage = stage
        self.heat = Heat("mail", count=count, window=900, cooldown=0)
        self.headroom = {"w1": Headroom(), "w2": Headroom()}
        self.held: list[tuple[str, Claim]] = []
        self.gone: list[tuple[str, Claim]] = []
        for name in self.headroom:
            stage.register(name)
        for _ in range(drafts):
            stage.approved(ttl=24 * HOUR, grant_ttl=24 * HOUR)

    def due(self) -> int:
        query = "SELECT count(*) FROM drafts WHERE state = 'approved' AND not_before <= ?"
        return int(str(self.stage.rows(query, self.stage.clock.now)[0][0]))

    def is_cooling(self) -> bool:
        """Whether it tripped at an instant that is still to come, by a clock that was ahead."""
        return self.stage.rows("SELECT 1 FROM gate WHERE name = 'mail' AND until > ?", self.stage.clock.now) != []

    def used(self) -> int:
        return self.stage.read(lambda connection: used(connection, self.heat, now=self.stage.clock.now))

    def claim(self, wanted: int, name: str = "w1") -> int:
        """How many were let through."""
        ids, now = [self.stage.new_id() for _ in range(wanted)], self.stage.clock.now
        found, _ = self.stage.run(
            Room.WORKER,
            lambda tx: claim_if_cool(
                tx, self.heat, worker_id=name, attempt_ids=ids, now=now, headroom=self.headroom[name]
            ),
            name,
        )
        self.held += [(name, claim) for claim in found]
        return len(found)

    def take(self, chance: random.Random) -> tuple[str, Claim] | None:
        return self.held.pop(chance.randrange(len(self.held))) if self.held else None

    def give_back(self, name: str, claim: Claim) -> None:
        """It ended before the gap, and is due again."""
        self.stage.finish(claim, Outcome.NOT_SENT, name)
        self.stage.release(claim, name)


@pytest.mark.parametrize("seed", [3, 11])
def test_a_place_that_was_counted_is_there_whatever_happened_since(stage: Stage, seed: int) -> None:
    """Against the count of each moment: as many as are wanted are let through, as far as there are places."""
    chance = random.Random(seed)
    hot = Hot(stage, count=6, drafts=24)
    for _ in range(45):
        match chance.choice(["claim", "claim", "claim", "gap", "unsent", "later", "earlier", "refused"]):
            case "claim":
                wanted, free = chance.randint(1, 4), hot.heat.count - hot.used()
                due = 0 if hot.is_cooling() else hot.due()
                let = hot.claim(wanted, chance.choice(["w1", "w2"]))
                assert let == min(wanted, max(0, free), due)
            case "gap" if one := hot.take(chance):
                stage.enter_gap(one[1], one[0])
                stage.finish(one[1], Outcome.ACCEPTED, one[0])
                stage.complete(one[1], one[0])
            case "refused" if one := hot.take(chance):
                stage.enter_gap(one[1], one[0])
                stage.finish(one[1], Outcome.REFUSED_TRANSIENT, one[0])
                stage.release(one[1], one[0])
            case "unsent" if one := hot.take(chance):
                hot.give_back(*one)
            case "later":
                stage.clock.advance(chance.randint(1, 400) * 1_000_000)
            case "earlier":
                stage.clock.advance(-chance.randint(1, 30) * 1_000_000)


def test_an_ended_worker_that_lives_after_all_enters_no_gap(stage: Stage) -> None:
    """Its claim takes no place any more, so its gap would be one too many."""
    hot = Hot(stage, count=3, drafts=6)
    assert hot.claim(1, "w2") == 1
    stage.run(Room.WORKER, lambda tx: end_worker_once(tx, "w2", now=stage.clock.now), "w2")
    assert hot.claim(1) == 1
    (zombie,) = [claim for name, claim in hot.held if name == "w2"]
    with pytest.raises(StateRefused):
        stage.enter_gap(zombie, "w2")
    assert hot.used() == 1
    assert hot.claim(2) == 2
    assert hot.claim(1) == 0
    assert hot.used() == 3


def test_places_that_were_counted_in_what_was_undone_are_counted_again(stage: Stage) -> None:
    """A COMMIT that fails takes the end of an attempt back, and with it the place that this would have left."""
    hot = Hot(stage, count=3, drafts=8)
    assert hot.claim(2) == 2
    (_, first), (_, second) = hot.held
    now, extra = stage.clock.now, [stage.new_id(), stage.new_id()]

    def end_and_claim(tx: Transaction) -> None:
        for claim in (first, second):
            finish_if_open(tx, [(claim, report(Outcome.NOT_SENT))], now=now)
            release_if_held(tx, claim, not_before=now, now=now)
        given = {"worker_id": "w1", "attempt_ids": extra, "now": now, "headroom": hot.headroom["w1"]}
        claim_if_cool(tx, hot.heat, **given)  # type: ignore[arg-type]
        raise PolicyRefused(Code.USAGE, "undone")

    with pytest.raises(PolicyRefused):
        stage.run(Room.WORKER, end_and_claim, "w1")
    assert hot.used() == 2
    assert [hot.claim(1) for _ in range(3)] == [1, 0, 0]
    assert hot.used() == 3


def test_many_enter_the_gap_or_each_by_itself(stage: Stage) -> None:
    """One that was stopped keeps nobody else back where each is asked for alone; together it is all or none."""
    hot = Hot(stage, count=6, drafts=3)
    assert hot.claim(3) == 3
    claims = [claim for _, claim in hot.held]
    with stage.house.connection() as connection:
        connection.execute("UPDATE drafts SET stop_asked_at = 1 WHERE id = ?", (claims[1].draft_id,))
    entering = [(claim, WIRE) for claim in claims]
    with pytest.raises(StateRefused):
        stage.run(Room.WORKER, lambda tx: enter_gaps_if_held(tx, entering, now=stage.clock.now), "w1")
    assert stage.rows("SELECT count(*) FROM attempts WHERE phase = 'gap'") == [(0,)]

    def enter(tx: Transaction, items: Sequence[Claim]) -> list[None]:
        enter_gaps_if_held(tx, [(claim, WIRE) for claim in items], now=stage.clock.now)
        return [None] * len(items)

    done = ask(stage.writer(Room.WORKER, "w1"), *(Waiting(enter, claim, Future()) for claim in claims))
    assert [isinstance(each.error, StateRefused) for each in done] == [False, True, False]
    assert stage.rows("SELECT count(*) FROM attempts WHERE phase = 'gap'") == [(2,)]
    with stage.house.connection() as connection:
        assert broken_links(journal_of(connection)) == []
