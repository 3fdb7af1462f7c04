"""Whatever was done to the journal, its seals, or what it speaks of is found by whoever holds the keys, and said."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from itertools import pairwise
from pathlib import Path

import pytest

from outbox.core.errors import Code, ConfigError, UsageError, VerificationFailed
from outbox.core.lifecycle import Outcome, Room
from outbox.core.seal import parse_seal, sign_seal
from outbox.core.signing import KeyRing, Purpose
from outbox.operator.journal import MOST_SHOWN, Inspection, export, verify
from outbox.operator.rings import Rings, held_rings
from outbox.operator.sealing import Sealed, seal_journal
from outbox.store.claims import (
    Heat,
    Report,
    claim_if_cool,
    complete_if_held,
    enter_gaps_if_held,
    finish_if_open,
    insert_worker,
)
from outbox.store.engine import connect
from outbox.store.journal import GENESIS, Chain, Entry
from outbox.store.writer import Writer
from tests.cli.shell import Shell
from tests.house import FOUNDER, SECOND, House
from tests.postgres import server
from tests.postgres.plain import Plain
from tests.relay.recording import RecordingRelay


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A draft that was sent, one that was cancelled, one that waits; each command a chain of its own."""
    before = server.made()
    house = House.build(tmp_path_factory.mktemp("written"), RecordingRelay(port=2525))
    sent = house.approved().id
    send(house, sent)
    house.cancel(house.approved(subject="Another").id)
    house.draft(subject="A third")
    server.keep_databases(before)
    return house


@pytest.fixture
def house(written: House, tmp_path: Path) -> House:
    return written.copied(tmp_path / "house", written.relay)


@contextmanager
def altering(house: House) -> Iterator[sqlite3.Connection | Plain]:
    """As `House.as_thief`, in one transaction that nothing waits for."""
    if house.url is not None:
        with house.as_thief() as thief:
            thief.execute("BEGIN")
            yield thief
            thief.execute("COMMIT")
        return
    with house.connection() as connection:
        connection.executescript("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; BEGIN")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        connection.execute("COMMIT")


def send(house: House, draft_id: str) -> None:
    """What the worker writes of one attempt that is accepted."""
    database = connect(house.place)
    writer = Writer(database, Chain(Room.WORKER, "w", house.settings.grant_ring()))
    now, heat = house.clock.now, Heat("mail", count=10, window=900, cooldown=300)
    writer.run(lambda tx: insert_worker(tx, "w", host="here", pid=1, now=now))
    (claim,), _ = writer.run(lambda tx: claim_if_cool(tx, heat, worker_id="w", attempt_ids=[f"{draft_id}-a"], now=now))
    writer.run(lambda tx: enter_gaps_if_held(tx, [(claim, bytes(32))], now=now))
    report = Report(Outcome.ACCEPTED, 250, "2.0.0", "ok", "Q1")
    writer.run(lambda tx: finish_if_open(tx, [(claim, report)], now=now))
    writer.run(lambda tx: complete_if_held(tx, [claim], now=now))
    writer.close()
    database.close()


def look(house: House, *seals: Path, rings: Rings | None = None) -> Inspection:
    settings = house.settings
    return verify(settings, rings or held_rings(settings), seals=seals)


def kinds(inspection: Inspection) -> list[str]:
    return [broken.what for broken in inspection.broken]


def seal(house: House, **how: object) -> Sealed:
    house.clock.advance(SECOND)
    return seal_journal(house.settings, clock=house.clock, **how)  # type: ignore[arg-type]


def seals_of(house: House) -> Path:
    return house.folder / "state" / "seals"


WORKER = "writer = 'worker:w'"


# Chains


def test_a_journal_that_nobody_touched_is_whole(house: House) -> None:
    inspection = look(house)
    ((rows, chains),) = house.rows("SELECT count(*), count(DISTINCT writer) FROM journal")
    assert (inspection.rows, inspection.chains) == (rows, chains)
    assert (inspection.broken, inspection.found, inspection.unverified, inspection.seals) == ((), 0, (), 0)


COLUMNS = {
    "at": "at + 1",
    "action": "'none'",
    "draft_id": "NULL",
    "attempt_id": "'x'",
    "detail": "'{}'",
    "mac": "zeroblob(32)",
}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_row_is_found_and_named(house: House, column: str) -> None:
    with altering(house) as thief:
        thief.execute(f"UPDATE journal SET {column} = {COLUMNS[column]} WHERE {WORKER} AND seq = 3")
    found = [(one.writer, one.seq) for one in look(house).broken if one.what == "altered"]
    assert found[0] == ("worker:w", 3)


def test_a_row_given_to_another_key_that_is_held_is_found(house: House) -> None:
    ((draft_key,),) = house.rows("SELECT key_id FROM journal WHERE writer LIKE 'drafter:%' LIMIT 1")
    with altering(house) as thief:
        thief.execute(f"UPDATE journal SET key_id = ? WHERE {WORKER} AND seq = 3", (draft_key,))
    assert "the draft key is named for it" in look(house).broken[0].why


@pytest.mark.parametrize(
    ("room", "action"), [("inbox", "grant"), ("worker", "done"), ("operator", "approve"), ("operator", "seal")]
)
def test_the_draft_key_writes_nothing_that_only_the_grant_key_may(house: House, room: str, action: str) -> None:
    """An agent holds the draft key: with it alone he could make up a chain."""
    entry = Entry(f"{room}:forged", 1, house.clock.now, action, None, None, "{}")
    signature = house.settings.draft_ring().sign(Purpose.JOURNAL, entry.canonical(GENESIS))
    with house.connection() as connection:
        values = (*dataclasses.astuple(entry), signature.key_id, signature.octets)
        connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    (broken,) = look(house).broken
    assert (broken.what, broken.writer) == ("altered", f"{room}:forged")


def test_a_row_taken_out_is_missed_before_the_next_one(house: House) -> None:
    with altering(house) as thief:
        thief.execute(f"DELETE FROM journal WHERE {WORKER} AND seq IN (2, 3)")
    first = look(house).broken[0]
    assert (first.what, first.seq, first.why) == ("missing", 4, "2 rows are missing before this one")


def test_rows_numbered_anew_behind_a_gap_are_found(house: House) -> None:
    with altering(house) as thief:
        thief.execute(f"DELETE FROM journal WHERE {WORKER} AND seq = 1")
        thief.execute(f"UPDATE journal SET seq = seq - 1 WHERE {WORKER}")
    assert kinds(look(house))[:1] == ["altered"]


def test_two_rows_in_each_others_place_are_found(house: House) -> None:
    with altering(house) as thief:
        for old, new in ((2, 99), (3, 2), (99, 3)):
            thief.execute(f"UPDATE journal SET seq = ? WHERE {WORKER} AND seq = ?", (new, old))
    assert "altered" in kinds(look(house))


@pytest.mark.sqlite  # on a server the place of a row cannot be set
def test_rows_in_another_order_of_commits_are_found(house: House) -> None:
    with altering(house) as thief:
        (two, three) = thief.execute(f"SELECT rowid FROM journal WHERE {WORKER} AND seq IN (2, 3)").fetchall()
        for old, new in ((*two, -1), (*three, *two), (-1, *three)):
            thief.execute("UPDATE journal SET rowid = ? WHERE rowid = ?", (new, old))
    assert "order" in kinds(look(house))


def test_a_chain_of_nobody_s_is_found(house: House) -> None:
    with altering(house) as thief:
        thief.execute(f"UPDATE journal SET writer = 'mallory:w' WHERE {WORKER}")
    assert {one.why for one in look(house).broken if one.what == "altered"} == {"its writer is no room"}


def test_the_first_hundred_are_shown_and_all_are_counted(house: House) -> None:
    with altering(house) as thief:
        for number in range(120):
            values = (f"x:{number}", house.clock.now, bytes(32))
            thief.execute("INSERT INTO journal VALUES (?, 1, ?, 'x', NULL, NULL, '{}', 'k', ?)", values)
    inspection = look(house)
    assert (inspection.found, len(inspection.broken)) == (120, MOST_SHOWN)


def test_rows_whose_key_is_not_held_are_said_and_are_not_called_broken(house: House) -> None:
    rings = held_rings(house.settings)
    inspection = look(house, rings=Rings(rings.draft, None))
    ((grant_rows,),) = house.rows("SELECT count(*) FROM journal WHERE writer NOT LIKE 'drafter:%'")
    assert inspection.found == 0
    assert [one.rows for one in inspection.unverified] == [grant_rows]
    assert sum(one.rows for one in look(house, rings=Rings(None, None)).unverified) == inspection.rows


def test_a_gap_in_a_chain_is_found_without_its_key(house: House) -> None:
    with altering(house) as thief:
        thief.execute(f"DELETE FROM journal WHERE {WORKER} AND seq = 2")
    assert "missing" in kinds(look(house, rings=Rings(None, None)))


# What the journal speaks of


def test_a_state_changed_without_a_row_is_found(house: House) -> None:
    with altering(house) as thief:
        thief.execute("UPDATE drafts SET state = 'approved', attempt_id = NULL WHERE state = 'completed'")
    (broken,) = look(house).broken
    assert (broken.what, broken.why.partition(" is ")[2]) == ("state", "approved, and the journal left it completed")


def test_a_draft_that_nobody_journalled_is_found(house: House) -> None:
    with altering(house) as thief:
        names = [column[0] for column in thief.execute("SELECT * FROM drafts LIMIT 0").description][1:]
        columns = ", ".join(names).replace("idempotency_key", "NULL")
        thief.execute(f"INSERT INTO drafts SELECT 'planted', {columns} FROM drafts WHERE state = 'pending'")
    (broken,) = look(house).broken
    assert (broken.what, broken.draft_id) == ("state", "planted")
    assert "it has no row of it" in broken.why


def test_a_draft_taken_out_is_found(house: House) -> None:
    with altering(house) as thief:
        thief.execute("DELETE FROM drafts WHERE state = 'pending'")
    assert [one.why.partition(" is ")[2] for one in look(house).broken] == ["in the journal and not in the table"]


def test_a_digest_that_was_replaced_is_found(house: House) -> None:
    with altering(house) as thief:
        thief.execute("UPDATE drafts SET digest = zeroblob(32) WHERE state = 'pending'")
    assert kinds(look(house)) == ["draft"]


@pytest.mark.parametrize(
    "changed",
    [
        "UPDATE attempts SET outcome = 'not_sent'",
        "UPDATE attempts SET phase = 'gap', outcome = NULL, ended_at = NULL",
        "UPDATE attempts SET wire_digest = randomblob(32)",
        "DELETE FROM attempts",
        "UPDATE attempts SET id = 'another'",
    ],
    ids=["outcome", "phase", "wire digest", "deleted", "renamed"],
)
def test_an_attempt_that_is_not_as_the_journal_says_is_found(house: House, changed: str) -> None:
    with altering(house) as thief:
        thief.execute(changed)
    assert set(kinds(look(house))) == {"attempt"}


def test_a_step_that_is_no_edge_is_found_even_where_the_key_was_held(house: House) -> None:
    """Whoever has the grant key can write rows that verify: they still have to lead from where the draft was."""
    ((draft_id,),) = house.rows("SELECT id FROM drafts WHERE state = 'pending'")
    detail = json.dumps({"from": "approved", "to": "completed"})
    entry = Entry("worker:forged", 1, house.clock.now, "complete", str(draft_id), None, detail)
    signature = house.settings.grant_ring().sign(Purpose.JOURNAL, entry.canonical(GENESIS))
    with house.connection() as connection:
        values = (*dataclasses.astuple(entry), signature.key_id, signature.octets)
        connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    assert kinds(look(house)) == ["edge", "state"]


# Seals


def test_a_seal_is_a_line_in_a_file_a_row_and_a_mail_to_the_operators(house: House) -> None:
    made = seal(house)
    assert seals_of(house).read_bytes() == made.signed.line() + b"\n"
    assert seals_of(house).stat().st_mode & 0o777 == 0o600
    detail = json.dumps({"digest": made.signed.digest.hex(), "seal": 1}, separators=(",", ":"))
    assert house.rows("SELECT writer LIKE 'operator:%', detail FROM journal WHERE action = 'seal'") == [(1, detail)]
    assert made.mailed == (FOUNDER,)
    ((octets,),) = house.rows("SELECT octets FROM messages JOIN drafts ON id = draft_id WHERE kind = 'system'")
    mail = message_from_bytes(octets, policy=policy.default)  # type: ignore[arg-type]
    assert mail["Subject"] == "[outbox] seal 1 of the journal"
    assert made.signed.digest.hex() in str(mail.get_body().get_content())  # type: ignore[union-attr]
    (attached,) = mail.iter_attachments()
    assert parse_seal(attached.get_payload(decode=True)) == made.signed  # type: ignore[arg-type]
    assert (look(house).found, look(house).seals) == (0, 1)


def test_a_seal_names_every_chain_that_grew_since_the_one_before(house: House) -> None:
    first = seal(house).signed
    house.draft(subject="A fourth")
    second = seal(house).signed
    sealed = {head.writer for head in first.seal.heads}
    new = {writer for (writer,) in house.rows("SELECT DISTINCT writer FROM journal")} - sealed
    assert len(sealed) == len(first.seal.heads) > 1
    assert len(second.seal.heads) == len(new) - 1  # all but the chain that says that the second was made
    assert second.seal.previous == first.digest
    assert len(seal(house, whole=True).signed.seal.heads) == look(house).chains - 1
    assert look(house).found == 0


def cut(house: House, where: str) -> None:
    with altering(house) as thief:
        thief.execute(f"DELETE FROM journal WHERE {where}")


CUTS = {
    "the last row of a chain": f"{WORKER} AND seq = (SELECT max(seq) FROM journal WHERE {WORKER})",
    "a whole chain": WORKER,
    "the end of the journal": "rowid > 5",
    "everything": "1 = 1",
}


@pytest.mark.parametrize("what", CUTS)
def test_a_journal_that_was_cut_is_found_by_its_seals(house: House, what: str) -> None:
    seal(house)
    cut(house, CUTS[what])
    assert "cut" in kinds(look(house))


def test_a_chain_that_ends_early_is_found_by_a_seal_from_the_mail_alone(house: House, tmp_path: Path) -> None:
    """Journal and file were cut alike, so that neither tells on the other."""
    made = seal(house)
    from_the_mail = tmp_path / "seal-1.json"
    from_the_mail.write_bytes(made.signed.line())
    seals_of(house).unlink()
    cut(house, "writer LIKE 'operator:%' AND action IN ('seal', 'insert')")
    with altering(house) as thief:
        thief.execute("DELETE FROM drafts WHERE kind = 'system'")
        thief.execute("DELETE FROM journal WHERE draft_id = (SELECT id FROM drafts WHERE state = 'pending')")
        thief.execute("DELETE FROM drafts WHERE state = 'pending'")
    assert look(house).found == 0
    assert set(kinds(look(house, from_the_mail))) == {"cut"}


def test_a_chain_written_anew_from_its_start_is_found_by_its_seal(house: House) -> None:
    seal(house)
    ring = house.settings.grant_ring()
    with altering(house) as thief:
        rows = thief.execute(f"SELECT * FROM journal WHERE {WORKER} ORDER BY seq").fetchall()
        head = GENESIS
        for row in rows:
            entry = Entry(row[0], row[1], row[2] + 1, *row[3:7])
            head = ring.sign(Purpose.JOURNAL, entry.canonical(head)).octets
            thief.execute(
                "UPDATE journal SET at = ?, mac = ? WHERE writer = ? AND seq = ?", (row[2] + 1, head, *row[:2])
            )
    assert kinds(look(house)) == ["cut"]


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_seal_taken_out_of_the_file_is_missed(house: House, taken: int) -> None:
    for _ in range(3):
        seal(house)
    lines = seals_of(house).read_bytes().splitlines(keepends=True)
    seals_of(house).write_bytes(b"".join(line for number, line in enumerate(lines) if number != taken))
    assert any(f"seal {taken + 1} was made" in one.why for one in look(house).broken)


def test_a_file_of_seals_that_is_gone_is_missed(house: House) -> None:
    seal(house)
    seal(house)
    seals_of(house).unlink()
    (broken,) = look(house).broken
    assert (broken.what, broken.why.partition(" that are ")[0]) == ("seal", "2 seals were made, from 1 on,")


@pytest.mark.parametrize("field", ["rows", "place", "at", "heads", "previous"])
def test_a_seal_that_was_changed_is_found(house: House, field: str) -> None:
    seal(house)
    said = json.loads(seals_of(house).read_bytes())
    said[field] = {"heads": said["heads"][:-1], "previous": "11" * 32}.get(field, 1)
    line = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    assert parse_seal(line)
    seals_of(house).write_bytes(line + b"\n")
    assert any("is not what was sealed" in one.why for one in look(house).broken)


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[]", b"null", b"\xff", b"{" * 5000, b'{"heads":[1]}', b'{"heads":[],"seal":"1"}'],
    ids=["empty", "no fields", "a list", "null", "octets", "depth", "wrong heads", "no number"],
)
def test_a_line_that_is_no_seal_is_said_and_the_rest_is_read(house: House, line: bytes) -> None:
    seal(house)
    seals_of(house).write_bytes(line + b"\n" + seals_of(house).read_bytes())
    inspection = look(house)
    assert (kinds(inspection), inspection.seals) == (["seal"], 1)


def test_a_seal_of_another_database_says_nothing_about_this_one(house: House, tmp_path: Path) -> None:
    made = seal(house)
    other = dataclasses.replace(made.signed.seal, number=9, database="0" * 32)
    file = tmp_path / "other.json"
    file.write_bytes(sign_seal(house.settings.grant_ring(), other).line())
    assert [one.why.rpartition(" is ")[2] for one in look(house, file).broken] == ["of another database"]


def test_a_seal_file_that_is_not_there_is_an_error_of_the_caller_s(house: House, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        look(house, tmp_path / "none")
    assert refused.value.code is Code.FILE_UNREADABLE


def test_a_line_that_a_power_cut_left_half_is_cut_off_by_the_next_seal(house: House) -> None:
    seal(house)
    whole = seals_of(house).read_bytes()
    seals_of(house).write_bytes(whole + whole[:50])
    assert seal(house).signed.seal.number == 2
    assert seals_of(house).read_bytes().startswith(whole + b'{"at"')
    assert look(house).found == 0


def test_nothing_is_sealed_behind_a_line_that_no_key_of_ours_made(house: House) -> None:
    made = seal(house)
    forged = sign_seal(KeyRing([os.urandom(32)]), dataclasses.replace(made.signed.seal, number=7))
    seals_of(house).write_bytes(forged.line() + b"\n")
    with pytest.raises(VerificationFailed) as refused:
        seal(house)
    assert refused.value.code is Code.JOURNAL_BROKEN
    assert seals_of(house).read_bytes() == forged.line() + b"\n"


def test_sealing_needs_the_grant_key(house: House) -> None:
    (house.folder / "keys" / "grant.key").unlink()
    with pytest.raises(ConfigError):
        seal(house)
    assert not seals_of(house).exists()


def test_after_a_cut_the_next_seal_names_every_chain_again(house: House) -> None:
    """So that what was written since, at places that a seal before had, is sealed too."""
    seal(house)
    cut(house, "writer LIKE 'drafter:%'")
    made = seal(house).signed.seal
    assert {head.writer for head in made.heads} == {
        writer for (writer,) in house.rows("SELECT DISTINCT writer FROM journal WHERE rowid <= ?", made.place)
    }


# Export


def test_an_export_can_be_verified_by_whoever_holds_the_key_and_has_nothing_else(house: House) -> None:
    rows = list(export(house.settings))
    rings = held_rings(house.settings)
    for chained in rows:
        entry, signature = chained.link.entry, chained.link.signature
        assert chained.previous is not None
        ring = rings.draft if entry.writer.startswith("drafter:") else rings.grant
        assert ring is not None
        assert ring.verify(Purpose.JOURNAL, entry.canonical(chained.previous), signature)
    places = [chained.link.place for chained in rows]
    assert all(before < after for before, after in pairwise(places))
    assert [chained.link.place for chained in export(house.settings, after=places[3])] == places[4:]


# The commands


def test_the_command_says_each_thing_that_is_broken_on_a_line_and_fails(house: House) -> None:
    with altering(house) as thief:
        thief.execute(f"UPDATE journal SET at = 1 WHERE {WORKER} AND seq = 3")
    done = Shell(house.folder).run("journal", "verify", "--json")
    assert (done.code, done.error["error"]) == (1, "journal_broken")
    (broken,) = done.lines
    assert (broken["what"], broken["writer"], broken["seq"]) == ("altered", "worker:w", 3)
    assert Shell(house.folder).run("journal", "verify").out.startswith("altered  row 3 of worker:w: it is not what")


def test_the_command_fails_for_want_of_a_key_unless_told_to_pass_over_it(house: House) -> None:
    (house.folder / "keys" / "grant.key").unlink()
    shell = Shell(house.folder)
    done = shell.run("journal", "verify", "--json")
    assert (done.code, done.error["error"]) == (1, "key_missing")
    partial = shell.run("journal", "verify", "--partial", "--json")
    assert partial.code == 0
    unverified, counted = partial.lines
    assert (unverified["what"], unverified["rows"]) == ("unverified", counted["unverified"])


def test_the_commands_seal_verify_and_export(house: House) -> None:
    shell = Shell(house.folder)
    made = shell.run("journal", "seal", "--json").data
    found = shell.run("journal", "verify", "--json").data
    assert found["newest_seal"] == {"seal": 1, "digest": made["digest"]}
    assert (found["seals"], found["rows"], found["unverified"]) == (1, made["rows"] + 2, 0)
    rows = shell.run("journal", "export", "--after", str(made["rows"]), "--json").lines
    assert [row["action"] for row in rows] == ["seal", "insert"]
    assert rows[1]["previous"] == rows[0]["mac"]
