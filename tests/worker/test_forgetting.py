"""The ledger lets go of what cannot matter any more, and of nothing that could still leave twice."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from outbox import operator, worker
from outbox.agreement import disagreement, open_ledger
from outbox.core.errors import Code, StateRefused, Unavailable
from outbox.core.ledger_line import Line
from outbox.core.lifecycle import Outcome, State
from outbox.core.signing import KeyRing
from outbox.forgetting import LARGE, NEWEST, Needed, forget, is_worth_it
from outbox.ledger import NAME, Entered, Fenced, Forgotten, Heard, Ledger, LedgerRefused
from outbox.lock import WorkerLock
from outbox.store.engine import Database, connect
from tests.house import HOUR, JANE, House
from tests.worker.hand import PATIENCE, codes, dead_worker
from tests.worker.test_fence import backed_up, restore, why_refused

RING = KeyRing([bytes(range(32))])
DATABASE = "00" * 16
DAY = 24 * HOUR
NOW = 1_800_000_000_000_000
NOBODY = Needed(frozenset(), None)


def entered(name: str, *, expires_at: int, at: int = NOW - 9 * DAY) -> Entered:
    return Entered(f"draft {name}", f"attempt {name}", "d" * 64, ("grant",), "0" * 64, at, expires_at)


def heard(name: str, outcome: Outcome = Outcome.ACCEPTED) -> Heard:
    return Heard(f"attempt {name}", outcome.value, 250, "2.0.0", "ok", "1F2E3D", ((JANE, 250, "ok"),), None)


def sent(name: str, *, expires_at: int, at: int = NOW - 9 * DAY) -> list[Line]:
    return [entered(name, expires_at=expires_at, at=at), heard(name)]


def newest(count: int = NEWEST, *, expires_at: int = NOW + DAY, at: int = NOW - HOUR) -> list[Line]:
    """Gaps that stay as the newest, whatever else goes."""
    return [line for n in range(count) for line in sent(f"new {n}", expires_at=expires_at, at=at)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Ledger.begin(tmp_path, RING, DATABASE).close()
    return tmp_path


@contextmanager
def opened(folder: Path, ring: KeyRing = RING) -> Iterator[Ledger]:
    with closing(Ledger.open(folder, ring, DATABASE)) as ledger:
        yield ledger


def append(folder: Path, *lines: Line) -> None:
    with opened(folder) as ledger:
        ledger.append(lines)


def forgotten(folder: Path, needed: Needed = NOBODY, *, now: int = NOW, ring: KeyRing = RING) -> list[Line]:
    """Let it forget, and read what is there then, but for the newest."""
    with opened(folder, ring) as ledger, ledger.held():
        forget(ledger, ring, needed, now=now)
    return lines_of(folder, ring)


def lines_of(folder: Path, ring: KeyRing = RING) -> list[Line]:
    with opened(folder, ring) as ledger:
        lines = [line for _, line in ledger.lines()]
    return [line for line in lines if not str(getattr(line, "attempt", "")).startswith("attempt new")]


PAST, LIVE = NOW - 3 * DAY, NOW + DAY


# What goes, and what stays


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(sent("a", expires_at=LIVE), id="its time is not over"),
        pytest.param(sent("a", expires_at=NOW - HOUR), id="its time was over today"),
        pytest.param(sent("a", expires_at=0), id="of before the time was written down"),
        pytest.param([entered("a", expires_at=PAST)], id="nothing was heard of it"),
        pytest.param([entered("x", expires_at=LIVE, at=NOW - HOUR), heard("stray")], id="a new outcome without a gap"),
        pytest.param([Fenced("fence", PAST, "operator", "restored")], id="the last fence"),
    ],
)
def test_what_could_matter_stays(folder: Path, lines: list[Line]) -> None:
    append(folder, *sent("gone", expires_at=PAST), *lines, *newest())
    _, told, *rest = forgotten(folder)
    assert isinstance(told, Forgotten)
    assert rest == lines


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(sent("a", expires_at=PAST), id="accepted"),
        pytest.param([entered("a", expires_at=PAST), heard("a", Outcome.REFUSED_TRANSIENT)], id="refused"),
        pytest.param([*sent("a", expires_at=PAST), heard("a", Outcome.NOT_SENT)], id="heard twice"),
        pytest.param([*sent("x", expires_at=PAST), heard("stray")], id="an old outcome without a gap"),
    ],
)
def test_what_is_long_over_goes_unless_the_database_needs_it(folder: Path, lines: list[Line]) -> None:
    append(folder, *lines, *newest())
    needed = Needed(frozenset(str(line.attempt) for line in lines if isinstance(line, Entered | Heard)), None)
    assert forgotten(folder, needed)[2:] == lines
    assert forgotten(folder)[2:] == []


def test_only_the_last_fence_stays_and_the_order_with_it(folder: Path) -> None:
    one, other = Fenced("one", PAST, "operator", "restored"), Fenced("other", PAST, "operator", "again")
    kept = [entered("a", expires_at=PAST), entered("b", expires_at=LIVE)]
    append(folder, kept[0], one, *sent("gone", expires_at=PAST), other, kept[1], *newest())
    assert forgotten(folder)[2:] == [kept[0], other, kept[1]]
    with opened(folder) as ledger:
        assert next(ledger.index.unfenced()) == "attempt b"
        assert ledger.index.fence == "other"


def test_the_newest_gaps_stay_so_that_an_older_database_is_known(folder: Path) -> None:
    append(folder, *newest(NEWEST + 50, expires_at=PAST))
    forgotten(folder)
    with opened(folder) as ledger:
        assert len([*ledger.index.unfenced()]) == NEWEST
        assert ledger.possibly_sent("draft new 50") is not None
        assert ledger.possibly_sent("draft new 49") is None


def test_what_a_ledger_that_was_lost_did_not_know_it_does_not_know_after_it_forgot(folder: Path) -> None:
    append(folder, Fenced("lost", 5, "operator", "the disk broke"), *sent("a", expires_at=PAST), *newest())
    forgotten(folder)
    append(folder, Fenced("later", PAST, "operator", "restored"))
    with opened(folder) as ledger:
        assert ledger.index.blank_until == 5


def test_it_is_not_blank_for_having_forgotten(folder: Path) -> None:
    append(folder, *sent("a", expires_at=PAST), Fenced("fence", 7, "operator", "restored"), *newest())
    forgotten(folder)
    with opened(folder) as ledger:
        assert ledger.index.blank_until == 0


def test_what_is_claimed_and_has_no_line_is_provably_unsent_however_late_it_is(folder: Path) -> None:
    """So nothing is forgotten of drafts whose time is over as late as its own."""
    append(folder, *sent("early", expires_at=PAST - 3 * DAY), *sent("late", expires_at=PAST), *newest())
    assert forgotten(folder, Needed(frozenset(), PAST - DAY))[2:] == sent("late", expires_at=PAST)
    with opened(folder) as ledger:
        assert not ledger.index.has_forgotten(PAST - DAY)


# At most once


def test_no_draft_whose_time_was_over_by_then_enters_the_gap_whatever_the_clock_says(folder: Path) -> None:
    """The clock was a year ahead as it forgot, and is right now: what it forgot could be sent, by its time."""
    append(folder, *sent("a", expires_at=LIVE), *newest(expires_at=LIVE + 300 * DAY))
    assert forgotten(folder, now=NOW + 300 * DAY)[2:] == []
    with opened(folder) as ledger:
        with pytest.raises(Unavailable) as refused:
            ledger.append([entered("a", expires_at=LIVE)])
        assert refused.value.code is Code.POSSIBLY_SENT
        ledger.append([entered("later", expires_at=LIVE + 2 * DAY)])


def test_what_it_forgot_once_it_does_not_remember_for_having_less_to_forget(folder: Path) -> None:
    append(folder, *sent("a", expires_at=PAST), *newest())
    (_, told) = forgotten(folder)
    (_, again) = forgotten(folder, now=NOW + HOUR)
    assert isinstance(told, Forgotten)
    assert told.until >= PAST
    assert again == replace(told, at=NOW + HOUR)


def test_a_draft_that_it_may_have_forgotten_is_failed_and_not_sent(house: House) -> None:
    draft = house.approved()
    state, ring = house.settings.state_dir, house.settings.grant_ring()
    house.drain()
    now = house.clock()
    with house.as_thief() as thief:
        thief.execute("DELETE FROM recipients")
        thief.execute("DELETE FROM attempts")
        thief.execute("UPDATE drafts SET state = 'approved', attempt_id = NULL WHERE id = ?", (draft.id,))
        ((name,),) = thief.execute("SELECT id FROM identity").fetchall()
    (state / NAME).unlink()
    with closing(Ledger.begin(state, ring, str(name))) as ledger:  # as if more than the newest had followed it
        ledger.append([Forgotten(now + 3 * DAY, 0, draft.expires_at)])
    house.drain()
    found = house.story(draft.id).draft
    assert (found.state, (found.error or ("",))[0]) == (State.FAILED, "possibly_sent")
    assert len(house.relay.to(JANE)) == 1
    assert house.approved(ttl=int(2 * DAY // 1_000_000)).id
    house.drain()
    assert len(house.relay.to(JANE)) == 2


# The file


def test_a_change_of_what_is_told_of_the_rest_is_found(folder: Path) -> None:
    append(folder, *sent("a", expires_at=PAST), *newest())
    forgotten(folder)
    file = folder / NAME
    file.write_bytes(file.read_bytes().replace(b'"until":1', b'"until":0', 1))
    with pytest.raises(LedgerRefused):
        Ledger.open(folder, RING, DATABASE)


def test_it_is_signed_anew_with_the_newest_key_and_needs_no_other(folder: Path) -> None:
    newer = bytes(32)
    append(folder, *sent("a", expires_at=LIVE), *newest())
    kept = forgotten(folder, ring=KeyRing([newer, bytes(range(32))]))
    assert lines_of(folder, KeyRing([newer])) == kept
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


@contextmanager
def full_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_on_a_full_disk_the_old_one_stays_and_is_written_on(folder: Path) -> None:
    append(folder, *sent("a", expires_at=PAST), *newest())
    before = (folder / NAME).read_bytes()
    with opened(folder) as ledger:
        with ledger.held(), full_disk(), pytest.raises(OSError, match="too large"):
            forget(ledger, RING, NOBODY, now=NOW)
        assert (folder / NAME).read_bytes() == before
        assert [file.name for file in folder.iterdir()] == [NAME]
        ledger.append([entered("b", expires_at=LIVE)])


def test_who_has_the_old_one_open_writes_no_line_more(folder: Path) -> None:
    append(folder, *sent("a", expires_at=PAST), *newest())
    with opened(folder) as other:
        forgotten(folder)
        for look in (other.catch_up, lambda: other.append([entered("b", expires_at=LIVE)])):
            with pytest.raises(LedgerRefused, match="replaced"):
                look()
        assert other.possibly_sent("draft a") is not None


# As a worker starts


def long_past(house: House, *, days: int = 5, live: int = 0) -> None:
    """A ledger of more than a mebibyte, before a fence that the database knows; `live` gaps have their time yet."""
    house.drain()
    now = house.clock()
    lines: list[Line] = []
    octets = 0
    while octets < 1.1 * LARGE:
        name, ends = str(len(lines)), now - days * DAY if octets >= live * LARGE else now + HOUR
        lines += sent(name, expires_at=ends, at=now - (days + 1) * DAY)
        octets += 610
    with closing(connect(house.place)) as database:
        ledger = open_ledger(house.settings.state_dir, house.settings.grant_ring(), database)
        with closing(ledger):
            ledger.append(lines)
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.accept_fence(note="a test wrote those")
    assert size(house) > LARGE


def size(house: House) -> int:
    return (house.settings.state_dir / NAME).stat().st_size


def test_a_worker_that_starts_makes_a_long_ledger_short_and_sends(house: House) -> None:
    long_past(house)
    (house.settings.state_dir / f"{NAME}.new.tmp").write_bytes(b"what a crash left")
    house.approved()
    house.drain()
    assert len(house.relay.to(JANE)) == 1
    assert size(house) < LARGE // 8
    assert [*house.settings.state_dir.glob("*.tmp")] == []
    waits = house.approved(subject="Another")
    house.drain()
    assert house.story(waits.id).draft.state is State.COMPLETED
    assert codes(house) == []


@pytest.mark.parametrize("why", ["beside another", "more than half has its time yet", "of today", "clock behind"])
def test_a_ledger_stays_as_it_is_where_it_may_not_or_need_not_be_made_short(house: House, why: str) -> None:
    long_past(house, days=0 if why == "of today" else 5, live=1 if why.startswith("more") else 0)
    before = size(house)
    other = WorkerLock(house.settings.state_dir, "another") if why == "beside another" else None
    if why == "clock behind":
        house.clock.advance(-HOUR)
    worker.open(house.settings, clock=house.clock).close()
    assert size(house) == before
    if other is not None:
        other.release()


def test_a_short_ledger_is_left_alone(folder: Path) -> None:
    append(folder, *sent("a", expires_at=PAST))
    with opened(folder) as ledger:
        assert ledger.index.past(NOW) == (1, 1)
        assert not is_worth_it(ledger, now=NOW)


def test_what_the_relay_accepted_long_ago_is_not_missed_in_it(house: House) -> None:
    """The newest gaps stay; of one before them neither a worker nor doctor says that the ledger was cut."""
    house.approved()
    house.drain()
    house.clock.advance(6 * DAY)
    state, ring = house.settings.state_dir, house.settings.grant_ring()
    with closing(connect(house.place)) as database:
        with closing(open_ledger(state, ring, database)) as ledger:
            (_, begun), (_, one), *_ = ledger.lines()
            assert isinstance(one, Entered)
            until = one.expires_at
        (state / NAME).unlink()
        with closing(Ledger.begin(state, ring, str(getattr(begun, "database", "")))) as ledger:
            ledger.append([Forgotten(house.clock(), 0, until - 1)])
        refused = disagreement(state, ring, database)
        assert refused is not None
        assert refused.code is Code.LEDGER_ALTERED
        with closing(Ledger.open(state, ring, str(getattr(begun, "database", "")))) as ledger:
            ledger.append([Forgotten(house.clock(), 0, until)])
        assert disagreement(state, ring, database) is None


def test_a_worker_that_comes_meanwhile_waits_and_finds_the_new_one(house: House) -> None:
    long_past(house)
    state, ring, place = house.settings.state_dir, house.settings.grant_ring(), house.place
    with closing(connect(place)) as database, ThreadPoolExecutor(1) as pool:
        with closing(open_ledger(state, ring, database)) as ledger, ledger.held():

            def come() -> Forgotten | None:
                with closing(connect(place)) as mine, closing(open_ledger(state, ring, mine)) as found:
                    return found.index.forgotten

            other = pool.submit(come)
            forget(ledger, ring, NOBODY, now=house.clock())
        assert other.result(PATIENCE) is not None


def test_however_many_mails_leave_it_is_as_long_as_those_of_some_days(house: House) -> None:
    """Six days of 1,000 mails, each with a day to live; a worker starts each morning."""
    house.drain()
    state, ring = house.settings.state_dir, house.settings.grant_ring()
    read: list[int] = []
    with closing(connect(house.place)) as database:
        for day in range(6):
            lock, now = WorkerLock(state, f"worker {day}"), house.clock()
            with closing(open_ledger(state, ring, database, worker_id=f"worker {day}", now=now)) as ledger:
                read.append(ledger.index.past(now)[1])
                with pytest.raises(ValueError, match="knows them"):  # they are not kept in memory
                    ledger.index.unfenced()
                lines = [sent(f"{day} {n}", expires_at=now + DAY, at=now) for n in range(1000)]
                ledger.append([line for pair in lines for line in pair])
            lock.release()
            with operator.open(house.settings, clock=house.clock) as desk:
                desk.accept_fence(note="a test wrote those")
            house.clock.advance(DAY)
    assert read[:3] == [0, 1000, 2000]
    assert max(read) <= 4000
    assert read[-1] < 4000


# A database that was put back


def test_a_database_from_before_a_mail_that_left_after_it_forgot_is_refused(house: House) -> None:
    long_past(house)
    house.approved()
    copy = backed_up(house)
    house.drain()
    assert size(house) < LARGE
    restore(house, copy)
    assert why_refused(house).code is Code.LEDGER_AHEAD
    assert len(house.relay.to(JANE)) == 1


def forgotten_since(house: House, copy: Path) -> None:
    """What was backed up leaves, its time passes, the ledger forgets it, and the backup is put back."""
    house.drain()
    assert len(house.relay.to(JANE)) == 1
    house.clock.advance(6 * DAY)
    long_past(house, days=3)
    worker.open(house.settings, clock=house.clock).close()
    assert size(house) < LARGE
    restore(house, copy)
    assert why_refused(house).code is Code.LEDGER_AHEAD


def test_a_claim_of_a_backup_that_is_older_than_what_it_remembers_is_in_doubt_and_not_unsent(house: House) -> None:
    draft = house.approved()
    dead_worker(house)
    copy = backed_up(house)
    forgotten_since(house, copy)
    with operator.open(house.settings, clock=house.clock) as desk:
        (case,) = desk.settling.cases()
        assert (case.finding, "forgotten" in case.because) == ("unknown", True)
        assert desk.accept_fence(note="restored").in_doubt == 1
    house.drain()
    found = house.story(draft.id)
    assert (found.draft.state, [one.outcome for one in found.attempts]) == (State.EXECUTING, ["in_doubt"])
    assert len(house.relay.to(JANE)) == 1


@pytest.mark.parametrize("is_fenced", [False, True], ids=["before the fence", "after it"])
def test_what_expired_in_a_backup_that_is_older_than_it_remembers_may_have_left(
    house: House, *, is_fenced: bool
) -> None:
    draft = house.draft()
    copy = backed_up(house)
    house.approve(draft.id)
    forgotten_since(house, copy)
    house.inbox()
    assert house.story(draft.id).draft.state is State.EXPIRED
    with operator.open(house.settings, clock=house.clock) as desk:
        if is_fenced:
            desk.accept_fence(note="restored")
        with pytest.raises(StateRefused, match="forgotten"):
            desk.redraft(draft.id, may_duplicate=False)


def test_what_expired_in_a_database_that_was_never_put_back_is_drafted_again_without_ado(house: House) -> None:
    long_past(house)
    draft = house.draft()
    house.clock.advance(6 * DAY)
    house.inbox()
    with closing(connect(house.place)) as database, closing(read(house, database)) as ledger:
        ledger.append([Forgotten(house.clock(), 0, house.clock() - DAY)])
    with operator.open(house.settings, clock=house.clock) as desk:
        assert desk.redraft(draft.id, may_duplicate=False)


def read(house: House, database: Database) -> Ledger:
    return open_ledger(house.settings.state_dir, house.settings.grant_ring(), database)
