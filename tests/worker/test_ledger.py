"""The ledger: what it has in the gap is never sent again, whatever the database says and whoever cut into the file."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from outbox import worker
from outbox.core.errors import Code, Unavailable
from outbox.core.lifecycle import Outcome, State
from outbox.core.signing import KeyRing
from outbox.ledger import NAME, Entered, Fenced, Heard, Ledger, LedgerRefused
from tests.house import FOUNDER, HOUR, JANE, House
from tests.relay.scripted import Fin, Hold, Keep, Phase, Say, ScriptedRelay
from tests.worker.hand import codes, dead_worker, draining, ended, ledger_of, on_wall_clock, start_worker, still_runs

RING = KeyRing([bytes(range(32))])
DATABASE = "00" * 16
REFUSED = {Outcome.REFUSED_TRANSIENT, Outcome.REFUSED_PERMANENT, Outcome.NOT_SENT}


def entered(number: int, draft: int | None = None) -> Entered:
    return Entered(f"draft {draft or number}", f"attempt {number}", "d" * 64, ("grant",), "0" * 64, number)


def heard(number: int, outcome: Outcome, *, error: Code | None = None) -> Heard:
    ends = (error.value, "no") if error else None
    return Heard(f"attempt {number}", outcome.value, 250, "2.0.0", "é", "1F2E3D", ((JANE, 250, "ok"),), ends)


def append(folder: Path, *lines: Entered | Heard | Fenced) -> None:
    with opened(folder) as ledger:
        ledger.append(lines)


@contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    with closing(Ledger.open(folder, RING, DATABASE)) as ledger:
        yield ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger with two drafts in it: the second is what was written last."""
    Ledger.begin(tmp_path, RING, DATABASE).close()
    append(tmp_path, entered(1), heard(1, Outcome.ACCEPTED), entered(2))
    return tmp_path


# What it says


@pytest.mark.parametrize("outcome", [None, *Outcome], ids=str)
def test_only_what_was_refused_or_not_sent_may_be_sent_again(folder: Path, outcome: Outcome | None) -> None:
    append(folder, entered(3), *([heard(3, outcome)] if outcome else []))
    with opened(folder) as ledger:
        found = ledger.possibly_sent("draft 3")
        assert found == (None if outcome in REFUSED else entered(3))
        assert ledger.heard("attempt 3", "draft 3") == (heard(3, outcome) if outcome else None)
        assert ledger.entered("attempt 3", "draft 3") == entered(3)
        assert ledger.possibly_sent("draft 4") is None


def test_a_second_attempt_counts_though_the_first_was_refused(folder: Path) -> None:
    append(folder, entered(3), heard(3, Outcome.REFUSED_TRANSIENT), entered(4, draft=3))
    with opened(folder) as ledger:
        assert ledger.possibly_sent("draft 3") == entered(4, draft=3)


@pytest.mark.parametrize("outcome", [None, Outcome.ACCEPTED, Outcome.IN_DOUBT], ids=str)
def test_a_draft_that_may_have_been_sent_does_not_enter_the_gap_again(folder: Path, outcome: Outcome | None) -> None:
    append(folder, entered(3), *([heard(3, outcome)] if outcome else []))
    before = (folder / NAME).read_bytes()
    with pytest.raises(Unavailable) as refused_again:
        append(folder, entered(4, draft=3))
    assert refused_again.value.code is Code.POSSIBLY_SENT
    assert (folder / NAME).read_bytes() == before


def test_what_was_heard_first_stands(folder: Path) -> None:
    append(folder, heard(2, Outcome.ACCEPTED), heard(2, Outcome.NOT_SENT))
    with opened(folder) as ledger:
        assert ledger.possibly_sent("draft 2") == entered(2)


def test_a_fence_ends_what_the_database_has_to_know_and_not_what_may_have_been_sent(folder: Path) -> None:
    append(folder, Fenced("a-fence", 7, "operator", "restored"), entered(3))
    with opened(folder) as ledger:
        assert ([*ledger.index.unfenced()], ledger.index.fenced_at) == (["attempt 3"], 7)
        assert ledger.possibly_sent("draft 1") == entered(1)


def test_it_is_the_workers_alone_and_begun_once(folder: Path) -> None:
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    with closing(Ledger.begin(folder, RING, DATABASE)) as again:
        assert again.possibly_sent("draft 2") == entered(2)
    assert [file.name for file in folder.iterdir()] == [NAME]


def test_who_has_it_open_sees_what_others_append_when_he_catches_up(folder: Path) -> None:
    with opened(folder) as ledger:
        append(folder, entered(3))
        assert ledger.possibly_sent("draft 3") is None
        ledger.catch_up()
        assert ledger.possibly_sent("draft 3") == entered(3)


def test_keys_are_rotated_under_it_and_an_old_one_is_still_needed(folder: Path) -> None:
    newer = bytes(32)
    with closing(Ledger.open(folder, KeyRing([newer, bytes(range(32))]), DATABASE)) as ledger:
        ledger.append([entered(3)])
        assert ledger.possibly_sent("draft 1") == entered(1)
    with pytest.raises(LedgerRefused):
        Ledger.open(folder, KeyRing([newer]), DATABASE)


# What a crash leaves


def test_a_last_line_that_was_cut_at_any_octet_is_ignored_and_the_next_takes_its_place(folder: Path) -> None:
    file = folder / NAME
    whole = file.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start, len(whole)):
        file.write_bytes(whole[:end])
        with opened(folder) as ledger:
            assert (ledger.possibly_sent("draft 1"), ledger.possibly_sent("draft 2")) == (entered(1), None)
            assert file.read_bytes() == whole[:end]  # who only reads changes nothing
            ledger.append([heard(1, Outcome.ACCEPTED)])  # not synced, so that this is quick
        assert file.read_bytes().startswith(whole[:start])
        with opened(folder) as ledger:
            assert ledger.possibly_sent("draft 2") is None


def test_what_was_cut_off_a_full_disk_does_not_count_and_is_written_later(folder: Path) -> None:
    file = folder / NAME
    whole = file.read_bytes()
    with opened(folder) as ledger:
        for room in range(0, 300, 7):
            with no_file_longer_than(len(whole) + room), pytest.raises(Unavailable) as refused:
                ledger.append([entered(3)])
            assert refused.value.code is Code.LEDGER_UNWRITABLE
            assert ledger.possibly_sent("draft 3") is None
            assert len(file.read_bytes()) <= len(whole) + room
            with opened(folder) as other:
                assert other.possibly_sent("draft 3") is None
        ledger.append([entered(4)])
    assert file.read_bytes().startswith(whole)
    with opened(folder) as ledger:
        assert (ledger.possibly_sent("draft 3"), ledger.possibly_sent("draft 4")) == (None, entered(4))


@contextmanager
def no_file_longer_than(octets: int) -> Iterator[None]:
    """As a full disk does, it takes a part of a write and refuses the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


APPEND = """
import sys
from pathlib import Path
from outbox.core.signing import KeyRing
from outbox.ledger import Entered, Ledger
ledger = Ledger.open(Path(sys.argv[1]), KeyRing([bytes(range(32))]), "00" * 16)
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    name = f"{sys.argv[2]} {number}"
    ledger.append([Entered(name, name, "", (), "", number)])
"""


def test_two_processes_that_append_at_once_keep_one_chain(folder: Path) -> None:
    names = ["one", "other"]
    with ExitStack() as running:
        started = []
        for name in names:
            words = [sys.executable, "-c", APPEND, str(folder), name]
            process = subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            started.append(running.enter_context(process))
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    assert [process.returncode for process in started] == [0, 0]
    with opened(folder) as ledger:
        assert {*ledger.index.unfenced()} == {"attempt 1", "attempt 2"} | {
            f"{name} {n}" for name in names for n in range(60)
        }


# Whoever cuts into the file


def lines_of(folder: Path) -> list[bytes]:
    return (folder / NAME).read_bytes().splitlines(keepends=True)


def refused(folder: Path, octets: bytes) -> bool:
    (folder / NAME).write_bytes(octets)
    try:
        Ledger.open(folder, RING, DATABASE).close()
    except LedgerRefused as error:
        return error.code is Code.LEDGER_ALTERED
    return False


def test_a_change_of_any_octet_is_found(folder: Path) -> None:
    whole = (folder / NAME).read_bytes()
    for place in range(len(whole) - 1):  # without its end, the last line was never written whole
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        assert refused(folder, changed), f"octet {place}: {changed[max(0, place - 20) : place + 20]!r}"


@pytest.mark.parametrize("number", range(3))
def test_a_line_taken_out_from_among_others_is_found(folder: Path, number: int) -> None:
    lines = lines_of(folder)
    assert len(lines) == 4
    assert refused(folder, b"".join(lines[:number] + lines[number + 1 :]))


@pytest.mark.parametrize("number", range(4))
def test_a_line_that_is_there_twice_is_found(folder: Path, number: int) -> None:
    lines = lines_of(folder)
    assert refused(folder, b"".join([*lines[: number + 1], lines[number], *lines[number + 1 :]]))
    assert refused(folder, b"".join([*lines, lines[number]]))


@pytest.mark.parametrize("number", range(3))
def test_lines_that_changed_places_are_found(folder: Path, number: int) -> None:
    lines = lines_of(folder)
    lines[number : number + 2] = reversed(lines[number : number + 2])
    assert refused(folder, b"".join(lines))


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"[]\n", b"null\n", b"\xff\n", b"[" * 100_000 + b"\n", b'{"is":"begun","key":"","mac":""}\n'],
    ids=["empty", "no fields", "a list", "null", "no text", "nested", "another line's"],
)
def test_a_line_that_is_none_of_ours_is_found(folder: Path, line: bytes) -> None:
    assert refused(folder, (folder / NAME).read_bytes() + line)


def test_a_line_of_another_ledger_is_found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    Ledger.begin(other, RING, DATABASE).close()
    append(other, heard(1, Outcome.NOT_SENT))
    assert refused(folder, b"".join(lines_of(folder)) + lines_of(other)[-1])


@pytest.mark.parametrize("kept", range(2), ids=["nothing", "the last line without its end"])
def test_a_file_that_became_shorter_under_a_reader_is_found(folder: Path, kept: int) -> None:
    with opened(folder) as ledger:
        whole = (folder / NAME).read_bytes()
        (folder / NAME).write_bytes(whole[:-1] if kept else b"")
        with pytest.raises(LedgerRefused, match="shorter"):
            ledger.catch_up()
        with pytest.raises(LedgerRefused, match="shorter"):
            ledger.append([entered(3)])


def test_another_databases_ledger_is_not_taken_for_this_ones(folder: Path) -> None:
    with pytest.raises(LedgerRefused, match="another database"):
        Ledger.open(folder, RING, "11" * 16)


# Through a worker


def test_a_gap_is_in_the_ledger_before_the_dot_and_what_was_heard_after_it(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Keep(), Hold(), Say(b"250 2.0.0 Ok: queued as 1F2E3D\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        with draining(house):
            relay.wait_until_holding()
            begun, gap = map(json.loads, lines_of(house.settings.state_dir))
    ((name,),) = house.rows("SELECT id FROM identity")
    ((grant,),) = house.rows("SELECT id FROM grants")
    (attempt,) = house.story(draft.id).attempts
    assert (begun["is"], begun["database"]) == ("begun", name)
    assert (gap["is"], gap["draft"], gap["attempt"], gap["grants"]) == ("entered", draft.id, attempt.id, [grant])
    assert (gap["digest"], gap["wire_digest"]) == (draft.digest.hex(), (attempt.wire_digest or b"").hex())
    last = json.loads(lines_of(house.settings.state_dir)[-1])
    assert (last["is"], last["attempt"], last["outcome"], last["queue_id"]) == (
        "heard",
        attempt.id,
        "accepted",
        "1F2E3D",
    )


@pytest.mark.parametrize(
    ("outcome", "error", "state", "told"),
    [
        (Outcome.ACCEPTED, None, State.COMPLETED, []),
        (Outcome.REFUSED_PERMANENT, Code.RELAY_REFUSED, State.FAILED, ["relay_refused"]),
        (Outcome.REFUSED_TRANSIENT, None, State.APPROVED, []),
        (Outcome.NOT_SENT, None, State.APPROVED, []),
        (Outcome.IN_DOUBT, Code.IN_DOUBT, State.EXECUTING, ["in_doubt"]),
    ],
    ids=str,
)
def test_an_outcome_that_was_heard_and_not_stored_is_stored_by_the_next_worker(
    house: House, outcome: Outcome, error: Code | None, state: State, told: list[str]
) -> None:
    draft = house.approved()
    dead_worker(house, in_gap=True, heard=heard(0, outcome, error=error))
    worker.open(house.settings, clock=house.clock).close()  # it counts the dead one's as its own end does
    found = house.story(draft.id)
    (attempt,) = found.attempts
    assert (found.draft.state, attempt.outcome, attempt.queue_id) == (state, outcome, "1F2E3D")
    assert [(one.address, one.text) for one in attempt.recipients] == [(JANE, "ok")]
    assert codes(house) == [*told, "worker_dead"]


def test_a_worker_killed_with_an_answer_that_it_could_not_store_leaves_it_to_the_next(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Keep(), Hold(), Say(b"250 2.0.0 Ok: queued as 1F2E3D\r\n"), Hold()]}) as relay:
        house = on_wall_clock(House.build(tmp_path, relay))
        draft = house.approved()
        process = start_worker(house)
        relay.wait_until_holding()
        with house.connection() as other:
            other.execute("BEGIN IMMEDIATE")
            relay.release()
            while len(lines_of(house.settings.state_dir)) < 3:
                assert still_runs(process, 0.02)
            process.kill()
            assert ended(process)[0] == -signal.SIGKILL
            other.execute("ROLLBACK")
        assert house.story(draft.id).draft.state is State.EXECUTING
        on_wall_clock(house).drain()
        found = house.story(draft.id)
        assert (found.draft.state, found.attempts[0].queue_id) == (State.COMPLETED, "1F2E3D")
        assert len(relay.to(JANE)) == 1
        assert codes(house) == ["worker_dead"]


def test_a_draft_set_back_by_hand_under_a_running_worker_fails_and_no_worker_starts_after_it(house: House) -> None:
    draft = house.approved()
    with worker.open(house.settings, clock=house.clock) as room:
        room.run(drain=True)
        with house.as_thief() as thief:
            thief.execute("DELETE FROM recipients")
            thief.execute("DELETE FROM attempts")
            thief.execute("UPDATE drafts SET state = 'approved', attempt_id = NULL WHERE id = ?", (draft.id,))
        room.run(drain=True)
    found = house.story(draft.id).draft
    assert (found.state, (found.error or ("",))[0]) == (State.FAILED, "possibly_sent")
    assert len(house.relay.to(JANE)) == 1
    with pytest.raises(LedgerRefused) as refused_to_start:
        house.drain()
    assert refused_to_start.value.code is Code.LEDGER_AHEAD


def test_a_draft_that_the_relay_refused_for_now_is_in_the_ledger_and_sent_again(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Say(b"451 4.3.0 Later\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        house.drain()
        house.clock.advance(HOUR)
        house.drain()
        assert house.story(draft.id).draft.state is State.COMPLETED
        assert len(relay.to(JANE)) == 1


@pytest.mark.parametrize("how", ["replaced", "taken away"])
def test_a_worker_whose_ledger_is_another_file_now_stops(house: House, how: str) -> None:
    draft = house.approved()
    file = house.settings.state_dir / NAME
    with worker.open(house.settings, clock=house.clock) as room:
        aside = file.rename(file.with_name("aside"))
        if how == "replaced":
            shutil.copy(aside, file)
        with pytest.raises(LedgerRefused, match="taken away or replaced"):
            room.run(drain=True)
    assert house.story(draft.id).draft.state is State.APPROVED
    assert house.relay.messages == []


def test_a_ledger_that_is_replaced_before_the_gap_lets_nothing_leave(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DATA: [Hold(), Say(b"354 Go\r\n")]}) as relay:
        house = House.build(tmp_path, relay)
        draft = house.approved()
        file = house.settings.state_dir / NAME

        def replace_while_draining() -> None:
            with draining(house):
                relay.wait_until_holding()
                shutil.copy(file, aside := file.with_name("aside"))
                aside.replace(file)

        with pytest.raises(LedgerRefused):
            replace_while_draining()
        relay.wait_until_over()
        assert relay.messages == []
        assert house.story(draft.id).draft.state is not State.COMPLETED


def test_a_worker_that_cannot_write_its_ledger_writes_no_dot(house: House) -> None:
    draft = house.approved()
    with ledger_of(house) as ledger:  # so long that the disk is full for it alone
        ledger.append([replace(heard(n, Outcome.NOT_SENT), text="x" * 4000) for n in range(400)])
    size = (house.settings.state_dir / NAME).stat().st_size
    assert house.url is not None or size > 3 * house.database.stat().st_size
    with no_file_longer_than(size + 100), pytest.raises(Unavailable) as refused_to_go_on:
        house.drain()
    assert refused_to_go_on.value.code is Code.CIRCUIT_OPEN
    found = house.story(draft.id)
    assert (found.draft.state, found.attempts[0].outcome) == (State.APPROVED, "not_sent")
    assert house.relay.to(JANE) == []
    assert codes(house) == ["circuit_open"]
    house.clock.advance(HOUR)
    house.drain()
    assert len(house.relay.to(JANE)) == 1


def test_a_system_draft_that_may_have_left_before_a_restore_is_not_sent_again_either(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Keep(), Fin()]}) as relay:
        house = House.build(tmp_path, relay)
        house.draft()
        house.inbox()
        with worker.open(house.settings, clock=house.clock) as room:
            room.run(drain=True)
            with house.as_thief() as thief:
                thief.execute("DELETE FROM attempts")
                thief.execute("UPDATE drafts SET state = 'approved', attempt_id = NULL WHERE kind = 'system'")
            room.run(drain=True)
        assert len(relay.to(FOUNDER)) == 1
