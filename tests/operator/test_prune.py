"""The octets of what ended long ago go; everything else stays, and whoever asks for them is told so in one line."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from base64 import b64decode
from email import message_from_bytes
from functools import cache
from pathlib import Path

import pytest

from outbox import operator
from outbox.core.canonical import digest, sha256
from outbox.core.draft import Draft, Envelope, Thread
from outbox.core.errors import Code, ConfigError, OutboxError, StateRefused, TryLater, UsageError, VerificationFailed
from outbox.lock import WorkerLock
from outbox.operator.archive import Archive
from outbox.operator.journal import verify
from outbox.operator.prune import Pruned, parse_age, prune, vacuum
from outbox.operator.receipt import make_receipt
from outbox.operator.rings import held_rings
from tests.cli import zygote
from tests.house import HOUR, House
from tests.operator.stuck import Stuck, stuck_in
from tests.postgres import server
from tests.relay.recording import RecordingRelay

DAY = 24 * HOUR
WEEK = 7 * 24 * 3600  # seconds


@pytest.fixture
def house(tmp_path: Path, relay: RecordingRelay) -> House:
    """With a relay: what is old here has left."""
    return House.build(tmp_path / "house", relay)


@cache
def _made() -> House:
    folder = Path(tempfile.mkdtemp(prefix="old-"))
    atexit.register(shutil.rmtree, folder)
    before = server.made()
    with RecordingRelay() as relay:
        house = House.build(folder, relay)
        for _ in range(3):
            house.approved()
        house.drain()
        house.cancel(house.draft().id)
    house.clock.advance(14 * DAY)
    server.keep_databases(before)
    return house


@pytest.fixture
def old(tmp_path: Path, relay: RecordingRelay) -> House:
    """A house with four drafts that ended two weeks ago."""
    made = _made()
    return made.copied(tmp_path / "old", relay)


def left(house: House) -> set[str]:
    """The drafts that have their octets."""
    return {str(draft_id) for (draft_id,) in house.rows("SELECT draft_id FROM messages")}


def ended(house: House) -> list[str]:
    return [one.id for one in house.drafts()]


def pruned(house: House, older_than: int = WEEK, **given: object) -> Pruned:
    return prune(house.settings, older_than=older_than, clock=house.clock, rest=lambda _: None, **given)  # type: ignore[arg-type]


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def drafts_in(file: Path) -> list[str]:
    return [str(line["id"]) for line in lines(file) if "id" in line]


def journalled(house: House) -> list[dict[str, object]]:
    return [json.loads(str(detail)) for (detail,) in house.rows("SELECT detail FROM journal WHERE action = 'prune'")]


def test_octets_go_and_everything_else_stays(old: House) -> None:
    kept = ("drafts", "grants", "attempts", "recipients")
    before = {table: old.rows(f"SELECT * FROM {table}") for table in kept}
    found = pruned(old)
    assert (found.drafts, left(old)) == (4, set())
    assert found.octets > 4 * 100
    assert {table: old.rows(f"SELECT * FROM {table}") for table in kept} == before


def test_a_batch_is_journalled_and_the_journal_is_whole(old: House) -> None:
    found = pruned(old)
    (said,) = journalled(old)
    ids = "".join(f"{one}\n" for one in sorted(ended(old)))
    assert (said["drafts"], said["octets"], said["ids"]) == (4, found.octets, sha256(ids.encode()).hex())
    inspection = verify(old.settings, held_rings(old.settings))
    assert (inspection.found, inspection.unverified) == (0, ())


def test_nothing_goes_a_second_time(old: House) -> None:
    pruned(old)
    assert pruned(old).drafts == 0
    assert len(journalled(old)) == 1


def test_a_dry_run_counts_and_changes_nothing(old: House) -> None:
    before = left(old)
    found = pruned(old, dry_run=True)
    assert (found.drafts, found.is_dry_run, left(old), journalled(old)) == (4, True, before, [])
    assert pruned(old).octets == found.octets


def test_what_is_alive_or_young_keeps_its_octets(old: House) -> None:
    pending, approved = old.draft().id, old.approved().id
    young = old.draft().id
    old.cancel(young)
    pruned(old, older_than=3600)
    assert left(old) == {pending, approved, young}


def test_what_was_written_about_lately_keeps_its_octets(old: House) -> None:
    """A draft made long ago that ended a moment ago is no old one."""
    draft_id = old.draft(ttl=30 * 24 * 3600).id
    old.clock.advance(20 * DAY)
    old.cancel(draft_id)
    pruned(old)
    assert left(old) == {draft_id}
    old.clock.advance(8 * DAY)
    pruned(old)
    assert left(old) == set()


def test_a_letter_stays_while_its_draft_may_still_be_answered(house: House) -> None:
    """What the approver was sent is what his reply is read beside."""
    draft_id = house.draft(ttl=30 * 24 * 3600).id
    request = house.ask(draft_id)
    house.clock.advance(20 * DAY)
    pruned(house)
    assert len(left(house)) == 2
    house.reply(request, "Ship it")
    house.inbox()
    house.drain()
    assert house.story(draft_id).draft.state == "completed"
    house.clock.advance(9 * DAY)
    house.inbox()
    house.drain()
    house.clock.advance(9 * DAY)
    pruned(house)
    assert left(house) == set()


def test_who_is_still_to_be_told_of_an_end_is_told_from_the_octets(house: House) -> None:
    house.ask(draft_id := house.draft().id)
    house.cancel(draft_id)
    house.clock.advance(14 * DAY)
    pruned(house)
    assert draft_id in left(house)
    house.inbox()
    house.drain()
    house.clock.advance(14 * DAY)
    pruned(house)
    assert left(house) == set()


# Without octets


@pytest.mark.parametrize(
    ("words", "code"), [(["show", "--eml"], 1), (["redraft", "--may-duplicate"], 1), (["receipt"], 1)]
)
def test_who_asks_for_octets_that_were_pruned_hears_so_in_one_line(old: House, words: list[str], code: int) -> None:
    pruned(old)
    draft_id = ended(old)[0]
    ended_with, out, err = zygote.run([words[0], draft_id, *words[1:]], old.folder, dict(os.environ), b"")
    assert (ended_with, out) == (code, b"")
    (line,) = err.decode().splitlines()
    assert line.startswith(f"outbox: draft {draft_id}: its octets were pruned")


def test_the_story_is_told_without_them(old: House) -> None:
    before = {draft_id: old.story(draft_id) for draft_id in ended(old)}
    pruned(old)
    assert {draft_id: old.story(draft_id) for draft_id in ended(old)} == before
    draft_id = ended(old)[0]
    code, out, err = zygote.run(["show", draft_id], old.folder, dict(os.environ), b"")
    assert (code, draft_id in out.decode()) == (0, True)
    assert err.decode() == f"outbox: the octets of draft {draft_id} were pruned; the rest is as it was\n"


@pytest.mark.parametrize(
    "words", [["list"], ["status"], ["replies"], ["reconcile"], ["journal", "verify"], ["keys", "list"]]
)
def test_every_page_is_as_before(old: House, words: list[str]) -> None:
    before = zygote.run(words, old.folder, dict(os.environ), b"")
    pruned(old)
    code, out, err = zygote.run(words, old.folder, dict(os.environ), b"")
    assert (code, err) == (0, b"")
    if words[0] in {"list", "status", "replies", "reconcile"}:
        assert (code, out, err) == before


def test_octets_taken_out_of_a_draft_that_waits_are_no_prune_but_an_altered_row(house: House) -> None:
    draft_id = house.draft().id
    with house.as_thief() as connection:
        connection.execute("DELETE FROM messages WHERE draft_id = ?", (draft_id,))
    with operator.read(house.settings) as records:
        assert records.is_altered(draft_id)
        assert not records.is_pruned(draft_id)
        with pytest.raises(VerificationFailed) as refused:
            records.octets(draft_id)
    assert refused.value.code is Code.ROW_UNREADABLE


def test_a_worker_and_an_inbox_go_on_over_what_was_pruned(old: House) -> None:
    pruned(old)
    draft_id = old.draft().id
    old.reply(old.ask(draft_id), "Ship it")
    old.inbox()
    old.drain()
    assert old.story(draft_id).draft.state == "completed"


def test_a_receipt_of_what_was_not_pruned_is_made_all_the_same(old: House) -> None:
    pruned(old)
    old.approved()
    old.drain()
    make_receipt(old.settings, ended(old)[-1], clock=old.clock)


# The archive


def test_an_archive_has_every_draft_with_its_octets_before_they_go(old: House, tmp_path: Path) -> None:
    octets = dict(old.rows("SELECT draft_id, octets FROM messages"))
    file = tmp_path / "archive.jsonl"
    found = pruned(old, archive=file)
    head, *kept, mark = lines(file)
    assert head == {"outbox-archive": 1, "database": old.rows("SELECT id FROM identity")[0][0]}
    assert {str(line["id"]): b64decode(str(line["octets"])) for line in kept} == octets
    assert mark == {"pruned": 4, "ids": journalled(old)[0]["ids"]}
    assert (found.archive, journalled(old)[0]["archive"]) == (file, str(file))
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_line_of_an_archive_is_enough_for_the_digest_that_was_signed(old: House, tmp_path: Path) -> None:
    pruned(old, archive=tmp_path / "archive.jsonl")
    for line in lines(tmp_path / "archive.jsonl"):
        if "id" not in line:
            continue
        envelope, thread = line["envelope"], line["thread"]
        draft = Draft(
            id=line["id"],
            kind=line["kind"],
            agent=line["agent"],
            envelope=Envelope(envelope["from"], tuple(envelope["to"]), tuple(envelope["cc"]), tuple(envelope["bcc"])),
            message=b64decode(line["octets"]),
            created_at=line["created_at"],
            expires_at=line["expires_at"],
            thread=Thread(thread["in_reply_to"], tuple(thread["references"])),
            resubmitted=line["resubmitted"],
        )
        assert digest(draft).hex() == line["digest"]
        assert message_from_bytes(draft.message)["Subject"] == line["subject"]


def test_a_second_prune_appends_to_its_archive(old: House, tmp_path: Path) -> None:
    file = tmp_path / "archive.jsonl"
    pruned(old, archive=file)
    before = file.read_bytes()
    old.approved()
    old.drain()
    old.clock.advance(14 * DAY)
    pruned(old, archive=file)
    assert file.read_bytes().startswith(before)
    assert sorted(drafts_in(file)) == sorted(ended(old))


@pytest.mark.parametrize("there", [b"notes\n", b'{"outbox-archive":1,"database":"another"}\n', b"x", b"\n"])
def test_a_file_that_is_no_archive_of_this_database_is_left_as_it_is(old: House, tmp_path: Path, there: bytes) -> None:
    file, before = tmp_path / "precious", left(old)
    file.write_bytes(there)
    file.chmod(0o600)
    with pytest.raises(ConfigError) as refused:
        pruned(old, archive=file)
    assert refused.value.code is Code.FILE_EXISTS
    assert (file.read_bytes(), left(old)) == (there, before)


def test_an_archive_that_others_can_read_is_refused(old: House, tmp_path: Path) -> None:
    file = tmp_path / "archive.jsonl"
    pruned(old, archive=file)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others"):
        pruned(old, archive=file)


@pytest.mark.parametrize("where", ["nowhere/archive.jsonl", "link", "."])
def test_where_no_archive_can_be_made_nothing_goes(old: House, tmp_path: Path, where: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    before = left(old)
    with pytest.raises(OutboxError) as refused:
        pruned(old, archive=tmp_path / where)
    assert refused.value.code is Code.FILE_UNREADABLE
    assert left(old) == before
    assert not (tmp_path / "elsewhere").exists()


def test_two_prunes_do_not_write_one_archive_at_a_time(old: House, tmp_path: Path) -> None:
    ((named,),) = old.rows("SELECT id FROM identity")
    with Archive(tmp_path / "archive.jsonl", str(named)), pytest.raises(StateRefused):
        pruned(old, archive=tmp_path / "archive.jsonl")


@pytest.mark.sqlite  # its file is copied as a crash leaves it
@pytest.mark.parametrize("cut", [1, 40, 500])
def test_after_a_crash_nothing_is_lost_and_nothing_is_there_twice(old: House, tmp_path: Path, cut: int) -> None:
    """It died in the middle of a line: what was written whole is not written again, what was torn is."""
    file, whole = tmp_path / "archive.jsonl", tmp_path / "whole.jsonl"
    ((named,),) = old.rows("SELECT id FROM identity")
    broken = House(tmp_path / "copy", old.relay, old.clock)
    broken.folder.mkdir()
    with sqlite3.connect(old.database) as source, sqlite3.connect(tmp_path / "copy" / "outbox.db") as target:
        source.backup(target)
    source.close()
    target.close()
    pruned(old, archive=whole)
    octets = whole.read_bytes()
    *rest, _mark = octets.splitlines(keepends=True)
    file.write_bytes(b"".join(rest)[:-cut])
    file.chmod(0o600)
    with sqlite3.connect(broken.database) as source, sqlite3.connect(old.database) as target:
        source.backup(target)
    source.close()
    target.close()
    assert len(left(old)) == 4
    pruned(old, archive=file)
    assert sorted(drafts_in(file)) == sorted(ended(old))
    assert left(old) == set()
    assert named


_KILLED = """
import os, signal, sys
from pathlib import Path
from outbox import config
from outbox.operator import archive, prune
folder, place = Path(sys.argv[1]), int(sys.argv[2])
count = 0
def tracer(frame, event, arg):
    global count
    name = frame.f_code.co_filename
    if not name.endswith(("operator/archive.py", "operator/prune.py", "store/retention.py")):
        return None
    def lines(frame, event, arg):
        global count
        if event == "line":
            count += 1
            if count == place:
                os.kill(os.getpid(), signal.SIGKILL)
        return lines
    return lines
import threading
threading.settrace(tracer)
sys.settrace(tracer)
now = int(sys.argv[3])
prune.prune(config.load(folder / "outbox.toml"), older_than=604800, archive=folder / "archive.jsonl",
            clock=lambda: now, rest=lambda _: None)
"""


def kill_at(house: House, place: int) -> None:
    """A prune in a process of its own, killed at a line of its code: there are some 600."""
    ran = subprocess.run(
        [sys.executable, "-c", _KILLED, str(house.folder), str(place), str(house.clock.now)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr


@pytest.mark.parametrize(
    "place", [200, 400, 500, *(pytest.param(place, marks=pytest.mark.torture) for place in range(10, 560, 10))]
)
def test_a_prune_that_is_killed_anywhere_can_be_run_again(old: House, place: int) -> None:
    octets = dict(old.rows("SELECT draft_id, octets FROM messages"))
    file = old.folder / "archive.jsonl"
    kill_at(old, place)
    assert octets.keys() - left(old) <= set(drafts_in_torn(file))
    pruned(old, archive=file)
    kept = [line for line in lines(file) if "id" in line]
    assert {str(line["id"]): b64decode(str(line["octets"])) for line in kept} == octets
    assert len(kept) == len(octets)
    assert left(old) == set()
    assert verify(old.settings, held_rings(old.settings)).found == 0


def drafts_in_torn(file: Path) -> list[str]:
    """The drafts of the lines that are whole."""
    if not file.exists():
        return []
    whole, _, _ = file.read_bytes().rpartition(b"\n")
    return [str(json.loads(line).get("id")) for line in whole.splitlines()]


# Beside others


@pytest.mark.sqlite  # on a server nobody waits for a batch
def test_others_commit_between_two_batches(old: House) -> None:
    """The lock is free whenever it rests, and what they write is not undone."""
    waits: list[float] = []

    def rest(seconds: float) -> None:
        waits.append(seconds)
        with old.connection() as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE clock SET believed_at = believed_at + 1")
            connection.execute("COMMIT")

    old.cancel(old.draft(text="words " * 100_000).id)  # so that there are pages to give back, too
    old.clock.advance(14 * DAY)
    ((before,),) = old.rows("SELECT believed_at FROM clock")
    prune(old.settings, older_than=WEEK, clock=old.clock, rest=rest)
    assert old.rows("SELECT believed_at FROM clock") == [(int(str(before)) + len(waits),)]
    assert len(waits) >= 2
    assert min(waits) > 0


def test_what_another_prune_took_out_meanwhile_is_counted_once(old: House, tmp_path: Path) -> None:
    first: list[Pruned] = []

    def rest(_seconds: float) -> None:
        if not first:
            first.append(pruned(old, archive=tmp_path / "other.jsonl"))

    second = prune(old.settings, older_than=WEEK, archive=tmp_path / "this.jsonl", clock=old.clock, rest=rest)
    assert first[0].drafts + second.drafts == 4
    assert sorted(drafts_in(tmp_path / "this.jsonl") + drafts_in(tmp_path / "other.jsonl")) == sorted(ended(old))


# The file


@pytest.mark.sqlite
def test_what_was_free_is_given_back_to_the_disk(old: House) -> None:
    old.cancel(old.draft(text="words " * 100_000).id)
    old.clock.advance(14 * DAY)
    with old.connection() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = old.database.stat().st_size
    found = pruned(old)
    with old.connection() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert found.given_back > 500_000
    assert before - old.database.stat().st_size >= 500_000
    assert (found.left_inside, found.todo) == (0, None)


@pytest.fixture
def rigid(old: House) -> House:
    """A file as it was made before: it does not become smaller by itself."""
    old.cancel(old.draft(text="words " * 10_000).id)
    old.clock.advance(14 * DAY)
    with old.connection() as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    return old


@pytest.mark.sqlite
def test_a_file_from_before_says_what_would_let_it_become_smaller(rigid: House) -> None:
    found = pruned(rigid)
    assert (found.given_back, found.left_inside > 0) == (0, True)
    assert found.todo is not None
    code, out, _ = zygote.run(["prune", "--older-than", "90d"], rigid.folder, dict(os.environ), b"")
    assert (code, len(out.splitlines())) == (0, 2)


@pytest.mark.sqlite
def test_after_a_vacuum_it_can_be_given_back_and_the_journal_is_in_its_order(rigid: House) -> None:
    pruned(rigid)
    places = rigid.rows("SELECT rowid, writer, seq FROM journal ORDER BY rowid")
    found = vacuum(rigid.settings)
    assert (found.given_back > 0, found.left_inside) == (True, 0)
    assert rigid.rows("PRAGMA auto_vacuum") == [(2,)]
    assert rigid.rows("SELECT rowid, writer, seq FROM journal ORDER BY rowid") == places
    assert verify(rigid.settings, held_rings(rigid.settings)).found == 0
    rigid.draft()


@pytest.mark.sqlite
def test_no_file_is_written_anew_under_a_living_worker(rigid: House) -> None:
    lock = WorkerLock(rigid.settings.state_dir, "someone")
    with pytest.raises(TryLater) as refused:
        vacuum(rigid.settings)
    lock.release()
    assert refused.value.code is Code.WORKER_ALIVE
    assert rigid.rows("PRAGMA auto_vacuum") == [(0,)]


# What is asked for


@pytest.mark.parametrize("age", ["90", "0d", "", "d", "-1d", "1.5d", "90 days", "1w"])
def test_an_age_is_a_number_with_its_unit(age: str) -> None:
    with pytest.raises(UsageError):
        parse_age(age)


def test_ages_are_seconds() -> None:
    assert [parse_age(one) for one in ("90d", "12h", "5m", "1s")] == [90 * 86400, 43200, 300, 1]


@pytest.mark.parametrize(
    "words",
    [[], ["--vacuum", "--older-than", "1d"], ["--vacuum", "--dry-run"], ["--archive", "x"], ["--older-than", "90"]],
)
def test_what_makes_no_sense_is_wrong_usage(house: House, words: list[str]) -> None:
    code, out, err = zygote.run(["prune", *words], house.folder, dict(os.environ), b"")
    assert (code, out, len(err.splitlines())) == (2, b"", 1)


def test_what_is_stuck_keeps_its_octets_and_can_be_looked_into(tmp_path: Path) -> None:
    stuck: Stuck = stuck_in(tmp_path)
    stuck.house.clock.advance(400 * DAY)
    pruned(stuck.house)
    gone = {stuck.drafts["completed"]}
    assert left(stuck.house) == set(stuck.drafts.values()) - gone
    assert stuck.case("gap").finding == "unknown"
