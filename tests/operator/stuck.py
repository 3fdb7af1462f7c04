"""A house with a draft in every situation that the desk knows; made once for each test process, and copied."""

from __future__ import annotations

import atexit
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from outbox import operator
from outbox.agreement import open_ledger
from outbox.clock import Clock, new_id, wall
from outbox.core.lifecycle import Outcome, Room
from outbox.ledger import Entered, Heard, Ledger, Line
from outbox.operator.desk import Desk
from outbox.operator.settling import Case
from outbox.store.claims import (
    Claim,
    Heat,
    Report,
    claim_if_cool,
    complete_if_held,
    end_worker_once,
    enter_gaps_if_held,
    finish_if_open,
    insert_worker,
)
from outbox.store.engine import connect
from outbox.store.writer import Writer
from tests.house import HOUR, SECOND, HandClock, House
from tests.postgres import server
from tests.relay.recording import RecordingRelay
from tests.worker.hand import writing

ROOMY = Heat("mail", 1000, 900, 300)
WIRE = bytes(range(32))
# Each is approved and claimed by one worker, which is dead; what else is said of it is in its name.
CLAIMED = "claimed"  # and the ledger knows nothing of it
CLAIMED_IN_LEDGER = "claimed_in_ledger"  # so the database is older than the ledger
GAP = "gap"
GAP_ACCEPTED = "gap_accepted"  # the ledger has the relay's answer
GAP_REFUSED = "gap_refused"  # the same
DOUBT = "doubt"  # its attempt was closed as in doubt
FRESH = "fresh"  # in the gap, so lately that an answer may still come
PENDING = "pending"
APPROVED = "approved"
COMPLETED = "completed"
_HELD = (CLAIMED, GAP, GAP_ACCEPTED, GAP_REFUSED, DOUBT, COMPLETED)
_GAP_SINCE = 2 * HOUR


@dataclass
class Stuck:
    """A house, the ids of its drafts by situation, and those of their attempts; `worker_id` claimed them all."""

    house: House
    drafts: dict[str, str]
    attempts: dict[str, str]
    worker_id: str

    @contextmanager
    def desk(self, clock: Clock | None = None) -> Iterator[Desk]:
        with operator.open(self.house.settings, clock=clock or self.house.clock) as desk:
            yield desk

    def case(self, name: str) -> Case:
        with self.desk() as desk:
            (case,) = desk.settling.cases(self.drafts[name])
        return case

    def state(self, name: str) -> tuple[object, object]:
        """State and error code."""
        return row(self.house, self.drafts[name])

    def attempt(self, name: str) -> tuple[object, object]:
        """Phase and outcome of its newest attempt."""
        query = "SELECT phase, outcome FROM attempts WHERE draft_id = ? ORDER BY id DESC LIMIT 1"
        (found,) = self.house.rows(query, self.drafts[name])
        return found[0], found[1]

    def claim(self, name: str) -> Claim:
        return Claim(self.drafts[name], self.attempts[name], "mail")


def row(house: House, draft_id: str) -> tuple[object, object]:
    """State and error code of a draft."""
    ((state, code),) = house.rows("SELECT state, error_code FROM drafts WHERE id = ?", draft_id)
    return state, code


def stuck_in(folder: Path, relay: RecordingRelay | None = None, *, ahead: bool = False) -> Stuck:
    """A copy of one's own; `ahead` has a ledger that knows of a gap which the database does not."""
    made = _made(ahead=ahead)
    house = made.house.copied(folder, relay or RecordingRelay(port=1))
    return Stuck(house, dict(made.drafts), dict(made.attempts), made.worker_id)


@cache
def _made(*, ahead: bool) -> Stuck:
    folder, before = Path(tempfile.mkdtemp(prefix="stuck-")), server.made()
    atexit.register(shutil.rmtree, folder)
    house = House.build(folder, RecordingRelay(port=1))
    house.clock = HandClock(wall() - _GAP_SINCE)
    found = Stuck(house, {}, {}, "")
    with writing(house, Room.WORKER) as writer, ledger_of(house) as ledger:
        found.worker_id = register(house, writer)
        for name in (*_HELD, *([CLAIMED_IN_LEDGER] if ahead else [])):
            claim = claimed(house, writer, found.worker_id)
            found.drafts[name], found.attempts[name] = claim.draft_id, claim.attempt_id
            _put(house, writer, ledger, name, claim)
        house.clock.now = wall()
        claim = claimed(house, writer, found.worker_id)
        found.drafts[FRESH], found.attempts[FRESH] = claim.draft_id, claim.attempt_id
        enter(house, writer, ledger, claim)
    later(house, 1)
    found.drafts[PENDING] = house.draft().id
    later(house, 1)
    found.drafts[APPROVED] = house.approved().id
    server.keep_databases(before)
    return found


def _put(house: House, writer: Writer, ledger: Ledger, name: str, claim: Claim) -> None:
    if name == CLAIMED:
        return
    if name == CLAIMED_IN_LEDGER:
        ledger.append([entered(claim, house.clock())])
        return
    enter(house, writer, ledger, claim)
    if name in {GAP_ACCEPTED, COMPLETED}:
        ledger.append([heard(claim, "accepted", 250)])
    if name == GAP_REFUSED:
        ledger.append([heard(claim, "refused_transient", 451)])
    if name in {DOUBT, COMPLETED}:
        outcome = "accepted" if name == COMPLETED else "in_doubt"
        finish(house, writer, claim, outcome)


def register(house: House, writer: Writer, *, host: str | None = None) -> str:
    """A worker that started here, or on another host."""
    worker_id, now, where = new_id(house.clock()), house.clock(), host or socket.gethostname()
    writer.run(lambda tx: insert_worker(tx, worker_id, host=where, pid=1, now=now))
    return worker_id


def bury(house: House, writer: Writer, worker_id: str) -> None:
    """The worker is known to have ended."""
    writer.run(lambda tx: end_worker_once(tx, worker_id, now=house.clock()))


def claimed(house: House, writer: Writer, worker_id: str, draft_id: str | None = None) -> Claim:
    """A draft that is approved and claimed: a new one, or the one that waits longest."""
    later(house, 1)  # ids in the order of their making
    if draft_id is None:
        house.approved()
    now = house.clock()
    (found,), _ = writer.run(
        lambda tx: claim_if_cool(tx, ROOMY, worker_id=worker_id, attempt_ids=[new_id(house.clock())], now=now)
    )
    assert draft_id in {None, found.draft_id}
    return found


def enter(house: House, writer: Writer, ledger: Ledger | None, claim: Claim) -> None:
    """Into the gap, in the database and in the ledger."""
    now = house.clock()
    writer.run(lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=now))
    if ledger is not None:
        ledger.append([entered(claim, now)])


def finish(house: House, writer: Writer, claim: Claim, outcome: str) -> None:
    """Close an attempt as the worker does."""
    now, report = house.clock(), Report(Outcome(outcome), None, None, "the relay's words")
    writer.run(lambda tx: finish_if_open(tx, [(claim, report)], now=now))
    if outcome == "accepted":
        writer.run(lambda tx: complete_if_held(tx, [claim], now=now))


@contextmanager
def ledger_of(house: House) -> Iterator[Ledger]:
    """The house's ledger, as its worker opens it."""
    state_dir, ring = house.settings.state_dir, house.settings.grant_ring()
    with closing(connect(house.place)) as database, closing(open_ledger(state_dir, ring, database)) as ledger:
        yield ledger


def write_in_ledger(house: House, *lines: Line) -> None:
    """Append to the ledger, whether the database agrees with it or not."""
    ((database_id,),) = house.rows("SELECT id FROM identity")
    ledger = Ledger.open(house.settings.state_dir, house.settings.grant_ring(), str(database_id))
    ledger.append(lines)
    ledger.close()


def entered(claim: Claim, at: int) -> Entered:
    """The ledger's line of a gap."""
    return Entered(claim.draft_id, claim.attempt_id, bytes(32).hex(), (), WIRE.hex(), at)


def heard(claim: Claim, outcome: str, code: int | None) -> Heard:
    """The ledger's line of an answer."""
    return Heard(claim.attempt_id, outcome, code, None, "the relay's words", None, (), None)


def journalled(house: House, draft_id: str) -> list[str]:
    """What the journal says of a draft, in the order of its commits."""
    rows = house.rows("SELECT action FROM journal WHERE draft_id = ? ORDER BY rowid", draft_id)
    return [str(action) for (action,) in rows]


def later(house: House, seconds: int) -> None:
    """Time passes."""
    house.clock.advance(seconds * SECOND)


@dataclass
class Meanwhile:
    """A clock during whose reading number `at` (from 1) something happens: another process, or a crash.

    Not `anywhere`: in the thread that reads it first alone, which holds no lock that another process would wait for.
    """

    house: House
    at: int
    what: Callable[[], object]
    anywhere: bool = True
    readings: int = 0
    thread: int = field(default_factory=threading.get_ident)

    def __call__(self) -> int:
        self.readings += self.anywhere or threading.get_ident() == self.thread
        if self.readings == self.at:
            self.readings += 1  # it happens once, also where it reads this clock itself
            self.what()
        return self.house.clock()
