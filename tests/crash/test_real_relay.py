"""The same promises against Postfix, a relay that is nobody's test double, with the worker killed in the middle."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outbox.clock import wall
from outbox.core.lifecycle import State
from outbox.drafter.intake import Wanted
from tests.crash.faults_table import Tally, write
from tests.crash.journals import assert_the_journal_holds
from tests.crash.postfix import BOUND, BUSY, GONE, MISSING, Postfix
from tests.faults.truth import Row, assert_the_promises_hold, draft_and_approve, rows_of
from tests.house import JANE, HandClock, House
from tests.seeds import seeds

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
JACK = "jack@customer.example"
RECIPIENTS = [(JANE,), (JACK,), (JANE, JACK), (GONE,), (JANE, GONE), (BUSY,), (JACK, BUSY)]


@pytest.fixture(scope="module")
def started() -> Iterator[Postfix]:
    with Postfix() as postfix:
        yield postfix


@pytest.fixture
def postfix(started: Postfix) -> Postfix:
    started.forget()
    return started


@pytest.fixture
def home(tmp_path: Path, postfix: Postfix) -> House:
    """A house on the clock of the processes, to which the limits are not what is tried."""
    made = House.build(tmp_path, postfix)  # type: ignore[arg-type]
    made.clock = HandClock(wall())
    made.set("thermal", count="100000")
    made.set("thermal.system", count="100000")
    made.set("relay", retry="[3600]", lanes="3")
    return made


@contextmanager
def worker_process(home: House) -> Iterator[subprocess.Popen[bytes]]:
    with (home.folder / "stderr").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "outbox", "worker", "--drain"], cwd=home.folder, stderr=errors
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(BOUND)


def drain(home: House) -> None:
    """A worker that runs to its end."""
    with worker_process(home) as process:
        assert process.wait(BOUND) == 0, (home.folder / "stderr").read_text()


def is_under_way(home: House, process: subprocess.Popen[bytes], begun: int) -> bool:
    """Wait until so many attempts have begun; False where the worker ended before."""
    end = time.monotonic() + BOUND
    with home.connection() as connection:
        while connection.execute("SELECT count(*) FROM attempts").fetchone()[0] < begun:
            if process.poll() is not None:
                return False
            assert time.monotonic() < end
            time.sleep(0.001)
    return True


def by_recipients(home: House, drafts: dict[str, tuple[str, ...]]) -> dict[tuple[str, ...], set[State]]:
    """Where the drafts are, by whom they were for."""
    found: dict[tuple[str, ...], set[State]] = {}
    for row in rows_of(home):
        found.setdefault(drafts[row.draft_id], set()).add(row.state)
    return found


def wanted(number: int) -> Wanted:
    return Wanted(
        sender="sales@acme.example",
        to=RECIPIENTS[number % len(RECIPIENTS)],
        subject=f"Offer {number}",
        text=f"Dear customer,\n.\n..\nhere is offer {number}.\n" + "A line of it.\n" * (number % 500),
    )


def test_postfix_takes_refuses_and_defers_as_the_rows_say(home: House, postfix: Postfix) -> None:
    made = draft_and_approve(home, [wanted(number) for number in range(2 * len(RECIPIENTS))])
    drafts = {draft_id: RECIPIENTS[number % len(RECIPIENTS)] for number, draft_id in enumerate(made)}
    drain(home)
    postfix.settle()
    assert by_recipients(home, drafts) == {
        (JANE,): {State.COMPLETED},
        (JACK,): {State.COMPLETED},
        (JANE, JACK): {State.COMPLETED},
        (GONE,): {State.FAILED},
        (JANE, GONE): {State.FAILED},
        (BUSY,): {State.APPROVED},
        (JACK, BUSY): {State.APPROVED},
    }
    tally = Tally("a real relay")
    assert_the_promises_hold(home, postfix, tally)
    assert tally.accepted == 6
    (queue_ids,) = home.rows(
        "SELECT count(DISTINCT queue_id) FROM attempts WHERE outcome = 'accepted' AND gate = 'mail'"
    )
    assert queue_ids == (6,)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", seeds(map(str, range(4)), 4))
def test_a_worker_killed_again_and_again_sends_nothing_twice_through_postfix(
    home: House, postfix: Postfix, seed: str
) -> None:
    dice, kills, tally = random.Random(int(seed)), 4 if seed == "0" else 20, Tally("a real relay, kills")
    draft_and_approve(home, [wanted(number) for number in range(15 * kills)])
    for _ in range(kills):
        with worker_process(home) as process:
            begun = home.rows("SELECT count(*) FROM attempts")[0][0]
            if is_under_way(home, process, int(str(begun)) + dice.randrange(1, 12)):
                time.sleep(dice.random() / 50)
                tally.faults += process.poll() is None
    drain(home)
    postfix.settle()
    assert tally.faults >= kills // 2
    assert_the_promises_hold(home, postfix, tally)
    assert [row for row in rows_of(home) if _is_unfinished(row)] == []
    assert_the_journal_holds(home)
    write([tally])


def _is_unfinished(row: Row) -> bool:
    """Approved and never refused for now: somebody forgot it."""
    return row.state is State.APPROVED and "refused_transient" not in row.outcomes
