"""Folders and mboxes of whole messages: each message once, as it was written, and one in memory at a time."""

from __future__ import annotations

import mailbox
import os
import tracemalloc
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.core.errors import Code, PolicyRefused, UsageError
from outbox.drafter.intake import Overrides
from outbox.drafter.sources import LARGEST_MESSAGE, Found, asked, in_folder, in_mbox

MARK = b"From sales@acme.example Fri Jan 15 08:00:00 2027\n"
HEAD = b"From: sales@acme.example\nTo: jane@customer.example\nSubject: Offer\n\n"


def messages(file: Path, octets: bytes) -> list[Found]:
    file.write_bytes(octets)
    source = in_mbox(file)
    assert source.size == len(octets)
    found = list(source.messages)
    assert not found or found[-1].read == len(octets)
    return found


def octets_of(found: list[Found]) -> list[bytes | Code]:
    return [one.octets.code if isinstance(one.octets, PolicyRefused) else one.octets for one in found]


def test_messages_are_split_at_postmarks_after_a_blank_line(tmp_path: Path) -> None:
    found = messages(tmp_path / "sent", MARK + HEAD + b"one\n\n" + MARK + HEAD + b"two\n\n\n" + MARK + HEAD + b"three")
    assert octets_of(found) == [HEAD + b"one\n", HEAD + b"two\n\n", HEAD + b"three"]
    assert [one.name for one in found] == ["sent:1", "sent:2", "sent:3"]


def test_line_ends_may_be_those_of_the_net(tmp_path: Path) -> None:
    one = (MARK + HEAD + b"one\n>From me\n\n").replace(b"\n", b"\r\n")
    assert octets_of(messages(tmp_path / "m", one * 2)) == [(HEAD + b"one\nFrom me\n").replace(b"\n", b"\r\n")] * 2


def test_an_empty_file_has_no_messages(tmp_path: Path) -> None:
    assert messages(tmp_path / "m", b"") == []


@pytest.mark.parametrize(
    ("quoted", "meant"),
    [
        (b">From me\n", b"From me\n"),
        (b">>From me\n", b">From me\n"),
        (b"> From me\n", b"> From me\n"),
        (b">from", b">from"),
    ],
)
def test_one_quoting_sign_is_taken_off(tmp_path: Path, quoted: bytes, meant: bytes) -> None:
    assert octets_of(messages(tmp_path / "m", MARK + HEAD + quoted)) == [HEAD + meant]


@pytest.mark.parametrize(
    "line",
    [
        b"text\nFrom here on it rains.\n",
        b"text\n\nFrom here on it rains.\n",
        b"text\n" + MARK,
        MARK.strip() + b" \n" + MARK,
    ],
    ids=["in a paragraph", "after a blank line", "a postmark in a paragraph", "two postmarks"],
)
def test_a_message_that_may_be_two_is_refused_and_its_neighbours_are_not(tmp_path: Path, line: bytes) -> None:
    found = messages(tmp_path / "m", MARK + HEAD + b"one\n\n" + MARK + line + b"\n" + MARK + HEAD + b"three\n")
    assert octets_of(found) == [HEAD + b"one\n", Code.MESSAGE_MALFORMED, HEAD + b"three\n"]


def test_what_is_no_mbox_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "m.eml").write_bytes(HEAD)
    for wrong in (tmp_path / "m.eml", tmp_path / "none", tmp_path):
        with pytest.raises(UsageError) as caught:
            in_mbox(wrong)
        assert (caught.value.code, caught.value.field) == (Code.FILE_UNREADABLE, "--mbox")


def test_what_the_standard_library_writes_is_read_back(tmp_path: Path) -> None:
    written = mailbox.mbox(tmp_path / "m")
    for number in range(3):
        message = EmailMessage()
        message["Subject"] = f"Offer {number}"
        message.set_content("Dear Jane,\n\nFrom here on\n\nit rains.\n")
        written.add(message)
    written.close()
    found = octets_of(list(in_mbox(tmp_path / "m").messages))
    assert len(found) == 3
    for number, octets in enumerate(found):
        assert isinstance(octets, bytes)
        assert octets.startswith(f"Subject: Offer {number}\n".encode())
        assert octets.endswith(b"\n\nDear Jane,\n\nFrom here on\n\nit rains.\n")


LINES = st.lists(
    st.sampled_from([b"", b"text", b"From me", b">From me", b">>From", b" From", MARK.strip(), b">"]), max_size=9
)


@settings(max_examples=60)
@given(st.lists(LINES, min_size=1, max_size=4))
def test_whatever_an_mboxrd_writer_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, bodies) -> None:
    whole = [HEAD + b"".join(line + b"\n" for line in lines) for lines in bodies]
    quoted = [
        b"".join(
            b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in one.splitlines(keepends=True)
        )
        for one in whole
    ]
    found = messages(tmp_path_factory.mktemp("m") / "m", b"".join(MARK + one + b"\n" for one in quoted))
    assert octets_of(found) == whole


def test_an_endless_message_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    file = tmp_path / "m"
    with file.open("wb") as opened:
        opened.write(MARK + HEAD)
        opened.seek(LARGEST_MESSAGE + 2**20)  # a hole: one line of NULs, longer than is taken
        opened.write(b"\n\n" + MARK + HEAD + b"next\n")
    tracemalloc.start()
    try:
        found = octets_of(list(in_mbox(file).messages))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [Code.FILE_UNREADABLE, HEAD + b"next\n"]
    assert most < 1.2 * LARGEST_MESSAGE


def test_a_folder_is_its_files_by_name(tmp_path: Path) -> None:
    for name in ("b.eml", "a.eml", ".hidden", "c"):
        (tmp_path / name).write_bytes(name.encode())
    source = in_folder(tmp_path)
    found = list(source.messages)
    assert [(one.name, one.octets, one.read) for one in found] == [
        ("a.eml", b"a.eml", 1), ("b.eml", b"b.eml", 2), ("c", b"c", 3),
    ]  # fmt: skip
    assert source.size == 3


@pytest.mark.timeout(10)
def test_what_is_no_file_is_said_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "b gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "c pipe")
    (tmp_path / "d.eml").write_bytes(HEAD)
    (tmp_path / os.fsdecode(b"e\xff")).write_bytes(b"x")
    with (tmp_path / "f large").open("wb") as opened:
        opened.truncate(LARGEST_MESSAGE + 1)
    found = list(in_folder(tmp_path).messages)
    unreadable = Code.FILE_UNREADABLE
    assert octets_of(found) == [unreadable, unreadable, unreadable, HEAD, b"x", unreadable]
    assert found[4].name == "e\N{REPLACEMENT CHARACTER}"


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        in_folder(tmp_path / "none")
    assert caught.value.field == "--eml-dir"


def test_a_message_s_key_is_what_it_is_and_what_is_said_beside_it() -> None:
    plain = asked("eml", HEAD, Overrides())
    assert asked("eml", HEAD, Overrides(ttl=60)).idempotency_key == plain.idempotency_key
    others = {
        asked("eml", HEAD + b"x", Overrides()).idempotency_key,
        asked("march", HEAD, Overrides()).idempotency_key,
        asked("eml", HEAD, Overrides(to=("bob@x.example",))).idempotency_key,
        asked("eml", HEAD, Overrides(cc=("bob@x.example",))).idempotency_key,
        asked("eml", HEAD, Overrides(bcc=("bob@x.example",))).idempotency_key,
        asked("eml", HEAD, Overrides(to=())).idempotency_key,
        asked("eml", HEAD, Overrides(sender="a@acme.example")).idempotency_key,
        asked("eml", HEAD, Overrides(resubmit="why")).idempotency_key,
        plain.idempotency_key,
    }
    assert len(others) == 9
