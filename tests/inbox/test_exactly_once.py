"""A message is taken once, whoever reads the Maildir how often, and nothing in the Maildir is changed by it."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

from outbox import inbox
from outbox.store.schema import metadata
from tests.house import House
from tests.inbox.letters import Asked
from tests.inbox.lookout import look_together


def contents(maildir: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """Every file's name, octets, inode, mode and time of change."""
    return {
        str(file.relative_to(maildir)): (
            file.read_bytes(),
            file.stat().st_ino,
            file.stat().st_mode,
            file.stat().st_mtime_ns,
        )
        for file in maildir.rglob("*")
        if file.is_file()
    }


def test_a_reply_is_recorded_once_however_often_the_maildir_is_read(asked: Asked) -> None:
    asked.house.reply(asked.request, "Ship it")
    with inbox.open(asked.house.settings, clock=asked.house.clock) as room:
        room.once()
        room.once()
    asked.house.inbox()  # a new room, that knows nothing of the first
    assert [reply.counted for reply in asked.house.replies()] == [True]
    assert len(asked.grants()) == 1


def test_a_reply_keeps_its_name_when_a_client_marks_it_as_read(asked: Asked) -> None:
    file = asked.house.reply(asked.request, "Ship it")
    asked.house.inbox()
    moved = file.rename(asked.house.maildir / "cur" / f"{file.name}:2,S")
    asked.house.inbox()
    moved.rename(asked.house.maildir / "cur" / f"{file.name}:2,FRS")
    asked.house.inbox()
    assert [reply.counted for reply in asked.house.replies()] == [True]


def test_a_reply_that_is_already_marked_is_read_all_the_same(asked: Asked) -> None:
    file = asked.house.reply(asked.request, "Ship it")
    file.rename(asked.house.maildir / "cur" / f"{file.name}:2,S")
    asked.house.inbox()
    assert asked.states() == ("approved", "pending")


def test_a_reply_that_a_client_marks_while_the_inbox_reads_is_not_lost(asked: Asked) -> None:
    """The clock is asked while the first reply is recorded; each time a client gives the second one other flags."""
    cur = asked.house.maildir / "cur"
    asked.house.reply(asked.other, "Ship it")
    file = asked.house.reply(asked.request, "Ship it")
    file.rename(cur / f"{file.name}:2,")
    flags = itertools.cycle(["S", "FS", "RS", "FRS", "T"])

    def clock() -> int:
        (found,) = cur.iterdir()
        found.rename(cur / f"{file.name}:2,{next(flags)}")
        return asked.house.clock.now

    with inbox.open(asked.house.settings, clock=clock) as room:
        room.once()
        assert asked.states() == ("pending", "approved")  # it was gone when its turn came
        room.once()
    assert asked.states() == ("approved", "approved")


def test_threads_that_read_the_same_maildir_record_each_reply_once(asked: Asked) -> None:
    for request in (asked.request, asked.other):
        asked.house.reply(request, "Ship it")
        asked.house.reply(request, "what is this?")
    rooms = [inbox.open(asked.house.settings, clock=asked.house.clock) for _ in range(3)]
    threads = [threading.Thread(target=room.once) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for room in rooms:
        room.close()
    assert len(asked.house.replies()) == 4
    assert len(asked.grants()) == 2


def test_processes_that_read_the_same_maildir_record_each_reply_once(house: House) -> None:
    drafts = [house.draft(subject=f"Offer {number}").id for number in range(8)]
    house.inbox()
    house.drain()
    for number, draft in enumerate(drafts):
        house.reply(house.request_for(draft), ("Ship it", "Reject: no", "Stop", "what is this?")[number % 4])
    look_together(house, processes=3)
    assert len(house.replies()) == 8
    assert [house.story(draft).draft.state.value for draft in drafts] == [
        "approved", "rejected", "cancelled", "pending",
    ] * 2  # fmt: skip
    answers = [one for one in house.drafts(system=True) if one.kind == "system" and "Send this?" not in one.subject]
    assert len(answers) == 6  # two stopped, two unclear, two rejected
    look_together(house, processes=2)
    assert len(house.replies()) == 8


def test_copies_of_one_reply_read_by_several_processes_grant_once(asked: Asked) -> None:
    octets = asked.house.reply(asked.request, "Ship it").read_bytes()
    for _ in range(5):
        asked.house.deliver(octets)
    look_together(asked.house, processes=3)
    assert len(asked.house.replies()) == 6
    assert sum(reply.counted for reply in asked.house.replies()) == 1
    assert asked.grants() == [(asked.draft_id, "founder@acme.example")]


def test_reading_changes_nothing_in_the_maildir(asked: Asked) -> None:
    for text in ("Ship it", "what is this?", "Stop"):
        asked.house.reply(asked.request, text)
    file = asked.house.deliver(b"From: newsletter@shop.example\nTo: approve@acme.example\n\nBuy now\n")
    file.rename(asked.house.maildir / "cur" / f"{file.name}:2,")
    before = contents(asked.house.maildir)
    asked.house.inbox()
    asked.house.inbox()
    assert contents(asked.house.maildir) == before
    assert len(asked.house.replies()) == 3


def test_mail_without_a_token_leaves_no_trace_in_the_database(asked: Asked) -> None:
    before = {name: asked.house.rows(f"SELECT * FROM {name}") for name in metadata.tables}
    for number in range(3):
        asked.house.deliver(b"From: friend@home.example\nTo: approve@acme.example\nSubject: %d\n\nShip it\n" % number)
    asked.house.inbox()
    assert {name: asked.house.rows(f"SELECT * FROM {name}") for name in metadata.tables} == before


def test_a_half_written_file_in_tmp_and_a_dot_file_are_no_messages(asked: Asked) -> None:
    octets = asked.house.reply(asked.request, "Ship it").read_bytes()
    next((asked.house.maildir / "new").iterdir()).unlink()
    (asked.house.maildir / "tmp" / "1.2.host").write_bytes(octets)
    (asked.house.maildir / "new" / ".hidden").write_bytes(octets)
    asked.house.inbox()
    assert asked.house.replies() == []


def test_a_folder_inside_new_holds_nobody_up(asked: Asked) -> None:
    (asked.house.maildir / "new" / "0.folder").mkdir()
    asked.house.reply(asked.request, "Ship it")
    asked.house.inbox()
    assert asked.states() == ("approved", "pending")
