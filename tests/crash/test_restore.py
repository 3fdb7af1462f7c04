"""A database put back: from a backup taken at any phase of a draft that has left since, or by hand: no second copy.

The ledger is in the state directory, which a backup of the database does not have. Everything is done as an operator
would: `outbox backup` (on a server pg_dump), a copied file, `outbox worker`, `outbox fence accept`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from outbox.clock import wall
from tests.crash.faults_table import Tally, write
from tests.crash.held_relay import HeldRelay
from tests.crash.shimmed import Zygote
from tests.house import JANE, HandClock, House
from tests.relay.recording import RecordingRelay

JOE = "joe@customer.example"
PHASES = ["pending", "approved", "claimed", "gap", "completed"]
MOMENT = {"claimed": "DATA", "gap": "dot"}  # where the relay holds a worker that is at this phase
OLDER = {"pending", "approved", "claimed"}  # the ledger knows more than such a backup


@dataclass(slots=True)
class Restored:
    """A house whose draft to Jane has left once, and a draft to Joe that nobody wants sent."""

    house: House
    held: HeldRelay
    zygote: Zygote
    copy: Path | str = ""  # a file, or a database's name

    def run(self, *words: str, code: int = 0) -> str:
        """One command to its end; what it said."""
        child = self.zygote.start(self.house.folder, *words)
        assert child.wait() == code, f"{words}: {child.said}"
        return child.said

    def backup(self) -> None:
        if self.house.url is not None:
            self.copy = self.house.backed_up()
            return
        self.copy = self.house.folder / "backup.db"
        self.run("backup", str(self.copy))

    def put_back(self) -> None:
        """As docs/howto/backup says: no room runs, and the WAL goes with the database that it belongs to."""
        self.house.restore(self.copy)

    def send(self, jane: str, joe: str, phase: str) -> None:
        """Let the draft to Jane leave, and take a backup at one phase of it."""
        if phase == "pending":
            self.backup()
        self.approve(jane)
        if phase == "approved":
            self.approve(joe)
            self.backup()
            self.house.cancel(joe)
        if phase in MOMENT:
            self.held.moments[MOMENT[phase]].hold()
        worker = self.zygote.start(self.house.folder)
        if phase in MOMENT:
            self.held.moments[MOMENT[phase]].wait()
            self.backup()
            self.held.let_go()
        assert worker.wait() == 0, worker.said
        if phase == "completed":
            self.backup()
        assert self.dots() == (1, 0)

    def approve(self, draft_id: str) -> None:
        self.house.clock.now = wall()
        self.house.approve(draft_id)

    def dots(self) -> tuple[int, int]:
        """How many messages to Jane and to Joe came with their final dot."""
        return self.held.dots_for(JANE), self.held.dots_for(JOE)

    def row(self, draft_id: str) -> tuple[object, ...]:
        """State and error code of a draft."""
        (found,) = self.house.rows("SELECT state, error_code FROM drafts WHERE id = ?", draft_id)
        return found

    def doubtful(self) -> list[str]:
        """Drafts with an attempt in doubt."""
        query = "SELECT DISTINCT draft_id FROM attempts WHERE phase = 'gap' OR outcome = 'in_doubt'"
        return [str(key) for (key,) in self.house.rows(query)]


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Restored]:
    with HeldRelay() as held:
        house = House.build(tmp_path, RecordingRelay(port=held.port))
        house.clock = HandClock(wall())
        yield Restored(house, held, Zygote.shared())


def told(name: str, *, in_doubt: int) -> None:
    """One copy left, and the tests above have said so."""
    write([Tally(name, faults=1, messages=2, accepted=1, in_doubt=in_doubt)])


@pytest.mark.parametrize(
    "phase", [pytest.param(one, marks=[] if one in {"approved", "gap"} else pytest.mark.torture) for one in PHASES]
)
def test_a_backup_put_back_after_the_mail_has_left_sends_no_second_copy(restored: Restored, phase: str) -> None:
    jane, joe = (restored.house.draft(to=(address,)).id for address in (JANE, JOE))
    restored.send(jane, joe, phase)
    restored.put_back()
    if phase in OLDER:
        said = restored.run("worker", "--drain", code=78)
        assert "fence accept" in said
        assert restored.dots() == (1, 0)
        restored.run("fence", "accept", "--note", "the disk broke, this is last night's backup")
        assert restored.row(joe) == ("cancelled", "restored")
    for _ in range(2):
        restored.run("worker", "--drain")
    assert restored.dots() == (1, 0)
    if phase in OLDER - {"pending"}:
        assert restored.doubtful() == [jane]
        assert restored.row(jane)[0] == "executing"
    else:  # what was never approved there cannot be at executing; the ledger had the relay's answer, or the backup
        assert restored.row(jane) == (("cancelled", "restored") if phase == "pending" else ("completed", None))
    told(f"restored to {phase}", in_doubt=len(restored.doubtful()))


def test_completed_set_back_to_approved_with_its_attempts_deleted_sends_no_second_copy(restored: Restored) -> None:
    jane, joe = (restored.house.draft(to=(address,)).id for address in (JANE, JOE))
    restored.send(jane, joe, "none")
    with restored.house.as_thief() as thief:
        thief.execute("UPDATE drafts SET state = 'approved', attempt_id = NULL WHERE id = ?", (jane,))
        thief.execute("DELETE FROM attempts")
    restored.run("worker", "--drain", code=78)
    restored.run("fence", "accept", "--note", "we do not know who did that")
    restored.run("worker", "--drain")
    assert restored.dots() == (1, 0)
    assert restored.doubtful() == [jane]
    told("completed set back to approved", in_doubt=1)
