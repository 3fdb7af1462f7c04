"""A worker that is busy: what is claimed when, what goes together, and what a moment of trouble leaves behind."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from outbox import worker
from outbox.alerts import Alerts
from outbox.core.errors import Code, OutboxError, StateRefused, Unavailable
from outbox.core.lifecycle import Outcome, Room, State
from outbox.core.signing import KeyRing
from outbox.ledger import NAME, Entered, Heard, Ledger, LedgerRefused
from outbox.store.claims import enter_gaps_if_held
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.writer import Hooks, Transaction, Writer
from outbox.worker.ending import Conclusion, Ended, conclude, ledger_line
from outbox.worker.recovery import Recovery
from outbox.worker.turn import Turn
from tests.house import FOUNDER, HOUR, JANE, HandClock, House
from tests.relay.scripted import Hold, Keep, Phase, Say, ScriptedRelay
from tests.store.stage import broken_links, journal_of, report
from tests.worker.hand import PATIENCE, WIRE, alerts, codes, dead_worker, draining, ledger_of, writing

RING = KeyRing([bytes(range(32))])
DATABASE = "00" * 16
QUICK = {"count": "1000", "window": '"15m"', "cooldown": '"5m"'}


def eventually(found: Callable[[], object], *, what: str) -> None:
    """Wait until it is so."""
    until, again = time.monotonic() + PATIENCE, threading.Event()
    while not found():
        assert time.monotonic() < until, what
        again.wait(0.01)


@contextmanager
def staying(house: House, clock: Callable[[], int] | None = None) -> Iterator[Future[None]]:
    """A worker that stays, till the block has ended: its lock file is taken away then."""

    def stay() -> None:
        with worker.open(house.settings, clock=clock or house.clock) as room:
            room.run()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(stay)
        try:
            eventually(lambda: state_of(house) or future.done(), what="the worker never came")
            yield future
        finally:
            for file in house.settings.state_dir.glob("worker-*.lock"):
                file.unlink(missing_ok=True)
            if isinstance(house.relay, ScriptedRelay):
                house.relay.release()
        assert isinstance(error := future.exception(PATIENCE), Unavailable), error
        assert error.code is Code.PRESUMED_DEAD


def state_of(house: House) -> str:
    """What the worker says that it does."""
    file = house.settings.state_dir / "worker.json"
    return file.read_text() if file.exists() else ""


def states(house: House) -> list[State]:
    return [draft.state for draft in house.drafts()]


def open_attempts(house: House) -> int:
    return int(str(house.rows("SELECT count(*) FROM attempts WHERE phase <> 'done'")[0][0]))


# What lanes ask in one turn


class Kept:
    """Work that keeps what came together, and hooks that keep what was committed together."""

    def __init__(self) -> None:
        self.calls: list[list[object]] = []
        self.commits: list[list[object]] = []

    def __call__(self, tx: Transaction, items: Sequence[object]) -> Sequence[object]:
        self.calls.append(list(items))
        assert tx.room is Room.WORKER
        if "bad" in items:
            raise StateRefused(Code.STATE_CONFLICT, "no")
        return items

    def hooks(self) -> Hooks:
        return Hooks(lambda _lines: None, lambda lines: self.commits.append(list(lines)))


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def turn(house: House, kept: Kept) -> Iterator[Turn]:
    database = connect(house.place)
    writer = Writer(database, Chain(Room.WORKER, "turn", RING), kept.hooks())
    yield Turn(writer)
    writer.close()
    database.close()


def test_what_is_asked_in_one_turn_of_the_loop_is_one_commit(turn: Turn, kept: Kept) -> None:
    async def lane(name: str) -> list[object]:
        return [await turn.ask(kept, f"{name}1", then=f"{name}1"), await turn.ask(kept, f"{name}2", then=f"{name}2")]

    async def run() -> list[list[object]]:
        return list(await asyncio.gather(lane("a"), lane("b"), lane("c")))

    assert asyncio.run(run()) == [["a1", "a2"], ["b1", "b2"], ["c1", "c2"]]
    assert kept.calls == [["a1", "b1", "c1"], ["a2", "b2", "c2"]]
    assert kept.commits == kept.calls


def test_what_is_asked_as_it_is_about_to_go_goes_along(turn: Turn, kept: Kept) -> None:
    async def run() -> object:
        riding: list[asyncio.Future[object]] = []
        turn.before_submit = lambda: riding.append(turn.ask(kept, "claim", then="claim"))
        await turn.ask(kept, "complete", then="complete")
        assert len(riding) == 1
        return await riding[0]

    assert asyncio.run(run()) == "claim"
    assert kept.commits == [["complete", "claim"]]


def test_a_lane_that_lost_hears_it_and_the_others_do_not(turn: Turn, kept: Kept) -> None:
    async def run() -> list[object]:
        return list(await asyncio.gather(*(turn.ask(kept, item) for item in ("a", "bad", "c")), return_exceptions=True))

    first, lost, last = asyncio.run(run())
    assert (first, last) == ("a", "c")
    assert isinstance(lost, StateRefused)


def test_a_lane_that_is_gone_asks_for_nothing(turn: Turn, kept: Kept) -> None:
    async def run() -> object:
        turn.ask(kept, "gone").cancel()
        return await turn.ask(kept, "here")

    assert asyncio.run(run()) == "here"
    assert kept.calls == [["here"]]


# Lanes


def commits_in(wal: Path) -> int:
    """How many transactions lie in a write-ahead log: a frame that ends one says how many pages there are."""
    octets = wal.read_bytes()
    page, salts = struct.unpack(">I", octets[8:12])[0], octets[16:24]
    frames = [octets[start : start + 24] for start in range(32, len(octets) - page, 24 + page)]
    return sum(frame[4:8] != bytes(4) for frame in frames if frame[8:16] == salts)


@pytest.mark.sqlite
def test_the_next_claim_is_made_in_the_transaction_that_completes(house: House) -> None:
    house.set("relay", lanes="1")
    house.set("thermal", **QUICK)
    for n in range(10):
        house.approved(subject=f"Offer {n}")
    with house.connection() as connection:  # as long as it is open, the log stays
        connection.execute("SELECT count(*) FROM drafts").fetchall()
        house.drain()
        commits = commits_in(house.database.with_name(house.database.name + "-wal"))
    assert len(house.relay.to(JANE)) == 10
    at_the_ends = 4  # the self-test, the worker comes, the first claim, the worker goes
    assert commits <= at_the_ends + 2 * 10


def test_never_more_is_claimed_than_there_are_lanes(house: House) -> None:
    house.set("relay", lanes="4")
    house.set("thermal", **QUICK)
    for n in range(40):
        house.approved(subject=f"Offer {n}")
    most, over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        with house.connection() as connection:
            while not over.is_set():
                ((held,),) = connection.execute("SELECT count(*) FROM attempts WHERE phase <> 'done'").fetchall()
                most = max(most, held)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            house.drain()
        finally:
            over.set()
        watching.result(PATIENCE)
    assert len(house.relay.to(JANE)) == 40
    assert 1 <= most <= 4
    with house.connection() as connection:
        written = [row for row in journal_of(connection) if row.entry.writer.startswith("worker:")]
    assert len(written) >= 40 * len(("claim", "gap", "done", "complete"))
    assert broken_links(written, house.settings.grant_ring()) == []


def test_what_cannot_be_stored_keeps_its_lane(tmp_path: Path) -> None:
    """The lanes bound what a kill leaves to be looked after, also while the database takes claims and no outcomes."""
    with ScriptedRelay() as relay:
        house = House.build(tmp_path, relay)
        house.set("relay", lanes="2")
        house.set("thermal", **QUICK)
        for n in range(12):
            house.approved(subject=f"Offer {n}")
        with worker.open(house.settings, clock=house.clock) as room, ThreadPoolExecutor(1) as pool:
            with house.connection() as connection:  # what came between is no refusal, and may go away again
                connection.execute(
                    "CREATE TRIGGER unstorable BEFORE UPDATE OF state ON drafts WHEN NEW.state = 'completed' "
                    "BEGIN SELECT abs(-9223372036854775808); END"
                )
                drained = pool.submit(room.run, drain=True)
                relay.wait_until_kept(2)
                deadline = threading.Event()
                deadline.wait(0.5)  # for those that it should not have claimed
                sent = len(relay.messages)
                connection.execute("DROP TRIGGER unstorable")
            drained.result(PATIENCE)
        assert sent <= 4
        assert len(relay.to(JANE)) == 12
        assert states(house) == [State.COMPLETED] * 12


# A moment of trouble


def test_a_drain_whose_claims_fail_says_so(house: House) -> None:
    """That nothing was claimed is not that nothing was due."""
    house.approved()
    with worker.open(house.settings, clock=house.clock) as room:
        with house.connection() as connection:
            connection.execute("CREATE TRIGGER no BEFORE INSERT ON attempts BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(OutboxError):
            room.run(drain=True)
        with house.connection() as connection:
            connection.execute("DROP TRIGGER no")


def test_a_drain_ends_soon_though_the_relay_is_gone(tmp_path: Path) -> None:
    """It does not rest for minutes between the drafts of a backlog: whoever started it waits for it."""
    with ScriptedRelay() as relay:
        house = House.build(tmp_path, relay)
    house.set("relay", lanes="1")
    house.set("thermal", **QUICK)
    for n in range(13):
        house.approved(subject=f"Offer {n}")
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(house.drain)
        try:
            drained.exception(12)
        finally:
            for file in house.settings.state_dir.glob("worker-*.lock"):  # so that it ends now
                file.unlink(missing_ok=True)
    assert states(house) == [State.APPROVED] * 13


@pytest.mark.sqlite
def test_a_claim_that_comes_back_while_it_is_paused_is_not_forgotten(house: House) -> None:
    house.set("thermal", **QUICK)
    paused = house.settings.state_dir / "paused"
    paused.parent.mkdir(exist_ok=True)
    paused.touch()
    house.approved()
    with staying(house), house.connection() as connection:
        eventually(lambda: '"paused' in state_of(house), what="the switch was not seen")
        connection.execute("BEGIN IMMEDIATE")  # the claim waits for it
        paused.unlink()
        eventually(lambda: "0 being sent" in state_of(house), what="it never went on")
        paused.touch()
        eventually(lambda: '"paused' in state_of(house), what="the switch was not seen again")
        connection.execute("COMMIT")
        eventually(lambda: house.rows("SELECT id FROM attempts"), what="the claim was never made")
        paused.unlink()
        eventually(lambda: not open_attempts(house), what="the claim was forgotten")
        house.clock.advance(HOUR)
        eventually(lambda: house.relay.to(JANE), what="it was never sent")
        eventually(lambda: not open_attempts(house), what="it was never recorded")
    assert states(house) == [State.COMPLETED]


def test_a_switch_is_seen_while_the_worker_is_busy_with_an_alert(house: House) -> None:
    """An alert's command may take seconds; what is claimed meanwhile would be claimed in vain, draft after draft."""
    house.set("relay", lanes="1")
    house.set("thermal", **QUICK)
    house.set("thermal.system", count="1", window='"15m"', cooldown='"5m"')
    blocks, paused = house.folder / "blocks", house.settings.state_dir / "paused"
    blocks.touch()
    waiting = f"cat > {house.folder}/alert; while [ -e {blocks} ]; do sleep 0.02; done"
    house.set("alerts", command=f"\"sh -c '{waiting}'\"")
    for n in range(2):
        house.draft(subject=f"Ask {n}")
    house.inbox()
    for n in range(20):
        house.approved(subject=f"Offer {n}")

    def says(_octets: bytes) -> str:
        if len(house.relay.messages) == 5:
            paused.touch()
        return "250 2.0.0 Ok"

    house.relay.says = says
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(house.drain)
        try:
            eventually(lambda: paused.exists() or drained.done(), what="it never came so far")
            eventually((house.folder / "alert").exists, what="nobody was told of the cutout")
            threading.Event().wait(0.5)  # for those that it should not claim
        finally:
            blocks.unlink()
        drained.exception(PATIENCE)
    ((in_vain,),) = house.rows("SELECT count(*) FROM attempts WHERE outcome = 'not_sent'")
    assert int(str(in_vain)) <= 3


@pytest.mark.sqlite
def test_an_outcome_is_in_the_ledger_though_the_database_cannot_be_read(tmp_path: Path) -> None:
    """What the relay refused in the gap is known, and is not to be in doubt because a reader fails."""
    with ScriptedRelay(then={Phase.DOT: [Hold(), Say(b"451 4.3.0 Later\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        ledger = house.settings.state_dir / NAME
        with ThreadPoolExecutor(1) as pool, house.connection() as connection:
            drained = pool.submit(house.drain)
            relay.wait_until_holding()
            connection.execute("PRAGMA legacy_alter_table = ON")
            connection.execute("ALTER TABLE attempts RENAME TO away")
            relay.release()
            try:
                eventually(lambda: b'"heard"' in ledger.read_bytes(), what="what was heard is not in the ledger")
            finally:
                connection.execute("ALTER TABLE away RENAME TO attempts")
                drained.exception(PATIENCE)
        found = house.story(draft.id)
        assert (found.draft.state, found.attempts[0].outcome) == (State.APPROVED, "refused_transient")


def test_a_cutout_that_keeps_drafts_waiting_keeps_the_worker_still(house: House) -> None:
    """Nothing can be claimed for minutes: it looks a few times a second, and takes nobody's lock for it."""
    house.set("thermal", count="1", window='"15m"', cooldown='"5m"')
    clock = Counting(house.clock)
    with staying(house, clock):
        for n in range(2):
            house.approved(subject=f"Offer {n}")
        eventually(lambda: "thermal" in codes(house), what="it never tripped")
        eventually(lambda: house.relay.to(FOUNDER) and not open_attempts(house), what="nobody was told")
        assert not clock.is_busy_for(1.0)
    assert len(house.relay.to(JANE)) == 1


@pytest.mark.sqlite
def test_a_worker_with_nothing_to_do_writes_nothing(house: House) -> None:
    house.approved()
    clock = Counting(house.clock)
    with staying(house, clock), house.connection() as connection:
        eventually(lambda: states(house) == [State.COMPLETED], what="it was never sent")
        versions = [connection.execute("PRAGMA data_version").fetchone()]
        assert not clock.is_busy_for(0.7)
        versions.append(connection.execute("PRAGMA data_version").fetchone())
        assert versions[0] == versions[1]


class Counting:
    """A clock that is asked for the time in every look, and counts them."""

    def __init__(self, clock: HandClock) -> None:
        self._clock, self._left, self._many = clock, 0, threading.Event()

    def __call__(self) -> int:
        self._left -= 1
        if self._left == 0:
            self._many.set()
        return self._clock()

    def is_busy_for(self, seconds: float) -> bool:
        """Whether it is asked for more often than a few looks do."""
        self._many.clear()
        self._left = 300
        return self._many.wait(seconds)


def test_a_cutout_that_kept_nothing_waiting_in_the_end_is_not_spoken_of(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Hold(), Keep(), Say(b"250 2.0.0 Ok\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        house.set("thermal", count="1", window='"15m"', cooldown='"5m"')
        first, second = house.approved(subject="One"), house.approved(subject="Two")
        with draining(house):
            relay.wait_until_holding()
            eventually(lambda: relay.to(FOUNDER), what="nobody was told of the cutout")
            house.cancel(second.id)
        assert house.story(first.id).draft.state is State.COMPLETED


def test_a_room_that_drained_once_drains_again(house: House) -> None:
    house.relay.refuse[JANE] = "451 4.3.0 Later"
    house.approved()
    with worker.open(house.settings, clock=house.clock) as room:
        room.run(drain=True)
        house.relay.refuse.clear()
        house.clock.advance(HOUR)
        room.run(drain=True)
    assert len(house.relay.to(JANE)) == 1


# What ends while somebody looks after what was lost


class Ending:
    """Attempts under way, of which one ends as it is asked about: recorded, and then forgotten, as a lane does."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def __contains__(self, _attempt_id: object) -> bool:
        self._end()
        return False


def test_an_attempt_that_ends_while_recovery_looks_is_not_in_doubt(house: House) -> None:
    house.approved()
    own = dead_worker(house)
    claim, now = own.claim, house.clock()
    with ledger_of(house) as ledger, writing(house, Room.WORKER) as writer, closing(connect(house.place)) as database:

        def send() -> None:
            writer.run(lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=now))
            ledger.append([Entered(claim.draft_id, claim.attempt_id, "", (), WIRE.hex(), now)])
            ended = Ended(report(Outcome.ACCEPTED))
            ledger.append([ledger_line(claim, ended)])
            writer.run(lambda tx: conclude(tx, [Conclusion(claim, ended, now, now)]))

        recovery_of(house, writer, ledger, database, own.worker_id).recover(under_way=Ending(send))
    assert states(house) == [State.COMPLETED]
    assert alerts(house) == []


def recovery_of(house: House, writer: Writer, ledger: Ledger, database: object, own_id: str) -> Recovery:
    settings = house.settings
    return Recovery(
        database=database,  # type: ignore[arg-type]
        writer=writer,
        ledger=ledger,
        alerts=Alerts(settings, Room.WORKER, settings.grant_ring(), writer, house.clock),
        state_dir=settings.state_dir,
        own_id=own_id,
        release_proven=True,
        retry=(60,),
        clock=house.clock,
    )


def test_a_claim_that_nobody_was_told_of_is_let_go(house: House) -> None:
    """Its COMMIT was stored although it reported a failure."""
    house.approved()
    own = dead_worker(house)
    with ledger_of(house) as ledger, writing(house, Room.WORKER) as writer, closing(connect(house.place)) as database:
        recovery_of(house, writer, ledger, database, own.worker_id).recover(under_way={"another"})
    assert states(house) == [State.APPROVED]


# A long ledger


def entered(number: int, attempt: str = "") -> Entered:
    return Entered(f"draft {number}", f"attempt {number}{attempt}", "d" * 64, ("grant",), "0" * 64, number)


def heard(number: int, outcome: Outcome, attempt: str = "") -> Heard:
    return Heard(f"attempt {number}{attempt}", outcome.value, 250, "2.0.0", "ok", "1F2E3D", (), None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of 300 drafts every third was accepted, every third refused and tried again; of the rest nothing was heard."""
    Ledger.begin(tmp_path, RING, DATABASE).close()
    with closing(Ledger.open(tmp_path, RING, DATABASE)) as ledger:
        numbers = range(300)
        ledger.append([entered(n) for n in numbers])
        outcomes = {0: Outcome.ACCEPTED, 1: Outcome.REFUSED_TRANSIENT}
        ledger.append([heard(n, outcomes[n % 3]) for n in reversed(numbers) if n % 3 in outcomes])
        ledger.append([entered(n, " again") for n in numbers if n % 3 == 1])
        ledger.append([heard(n, Outcome.NOT_SENT, " again") for n in numbers if n % 3 == 1])
    return tmp_path


def _tells_each_story(ledger: Ledger) -> None:
    for n in range(300):
        gone = ledger.possibly_sent(f"draft {n}")
        assert gone == (None if n % 3 == 1 else entered(n))
        assert ledger.entered(f"attempt {n}", f"draft {n}") == entered(n)
        said = ledger.heard(f"attempt {n}", f"draft {n}")
        assert said == {0: heard(n, Outcome.ACCEPTED), 1: heard(n, Outcome.REFUSED_TRANSIENT), 2: None}[n % 3]
        again = entered(n, " again") if n % 3 == 1 else None
        assert ledger.entered(f"attempt {n} again", f"draft {n}") == again
    assert ledger.possibly_sent("draft 300") is None
    assert ledger.entered("attempt 1", "draft 2") is None
    assert len([*ledger.index.unfenced()]) == 400


def test_a_ledger_finds_every_draft_again_however_many_there_are(folder: Path) -> None:
    with closing(Ledger.open(folder, RING, DATABASE)) as ledger:
        _tells_each_story(ledger)
    with closing(Ledger.open(folder, RING, DATABASE, read_only=True)) as ledger:
        _tells_each_story(ledger)


def test_who_catches_up_knows_what_who_wrote_it_knows(folder: Path) -> None:
    with (
        closing(Ledger.open(folder, RING, DATABASE)) as reading,
        closing(Ledger.open(folder, RING, DATABASE)) as writing_,
    ):
        writing_.append([entered(400), heard(400, Outcome.REFUSED_TRANSIENT), entered(401)])
        reading.catch_up()
        for ledger in (reading, writing_):
            assert ledger.possibly_sent("draft 400") is None
            assert ledger.possibly_sent("draft 401") == entered(401)
        reading.append([heard(401, Outcome.NOT_SENT)])
        writing_.catch_up()
        assert writing_.possibly_sent("draft 401") is None


def test_a_line_altered_under_a_worker_is_found_as_it_is_read_again(folder: Path) -> None:
    with closing(Ledger.open(folder, RING, DATABASE)) as ledger:
        file = folder / NAME
        octets = bytearray(file.read_bytes())
        octets[octets.index(b'"draft 7"') + 7] = ord("8")
        with file.open("r+b") as opened:
            opened.write(octets)
        with pytest.raises(LedgerRefused):
            ledger.possibly_sent("draft 7")
        with pytest.raises(LedgerRefused):
            ledger.append([entered(7, " again")])
        assert ledger.possibly_sent("draft 9") == entered(9)


def test_a_long_ledger_is_opened_without_having_it_in_memory(folder: Path) -> None:
    with closing(Ledger.open(folder, RING, DATABASE)) as ledger:
        ledger.append([replace(heard(n, Outcome.NOT_SENT), text="x" * 4000) for n in range(2000, 2500)])
    size = (folder / NAME).stat().st_size
    assert size > 2_000_000
    tracemalloc.start()
    try:
        Ledger.open(folder, RING, DATABASE).close()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size // 2


def test_what_many_threads_look_up_while_one_writes_is_always_whole(folder: Path) -> None:
    with closing(Ledger.open(folder, RING, DATABASE)) as ledger, ThreadPoolExecutor(3) as pool:
        over = threading.Event()

        def look() -> int:
            looked = 0
            while not over.is_set():
                assert ledger.possibly_sent("draft 2") == entered(2)
                assert ledger.possibly_sent("draft 1") is None
                ledger.catch_up()
                looked += 1
            return looked

        looking = [pool.submit(look) for _ in range(2)]
        try:
            for n in range(500, 560):
                ledger.append([entered(n)])
                assert ledger.possibly_sent(f"draft {n}") == entered(n)
                ledger.append([heard(n, Outcome.REFUSED_TRANSIENT)])
                assert ledger.possibly_sent(f"draft {n}") is None
        finally:
            over.set()
        assert all(one.result(PATIENCE) for one in looking)
        with closing(Ledger.open(folder, RING, DATABASE)) as again:
            assert [*again.index.unfenced()] == [*ledger.index.unfenced()]
