"""Where many whole messages come from: the files of a folder, or an mbox. One is in memory at a time.

An mbox is read as what mboxrd writers write: a message begins with a postmark ("From jane Fri Jan 15 08:00:00 2027") at
the beginning or after a blank line, and ">" was put before a line of its own that would look like one. Other readers
begin a message at any "From "; where they could see two, the message is refused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from outbox.core.canonical import encode, sha256
from outbox.core.errors import Code, PolicyRefused, UsageError
from outbox.drafter.intake import Asked, Overrides, Whole

LARGEST_MESSAGE = 64 * 1024 * 1024  # octets
_PIECE = 64 * 1024  # octets of a line that are read at once
_POSTMARK = re.compile(rb"From [^\r\n]{0,400}\d\d?:\d\d(?::\d\d)?[^\r\n]{0,40}\d{4}[^\r\n]{0,40}\r?\n")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Found:
    """One message, or why it cannot be read. `read` is how much of its source has been: files, or octets."""

    name: str
    octets: bytes | PolicyRefused
    read: int


@dataclass(frozen=True, slots=True)
class Source:
    """Messages, one after the other, and how much there is to read: files, or octets."""

    size: int
    messages: Iterator[Found]


def asked(prefix: str, octets: bytes, overrides: Overrides) -> Asked:
    """A whole message under a key of what it is and what is said beside it: asked for twice, it is drafted once.

    How long it may wait is not in the key.
    """
    said: dict[str, object] = {
        "kind": overrides.kind,
        "from": overrides.sender,
        "to": _listed(overrides.to),
        "cc": _listed(overrides.cc),
        "bcc": _listed(overrides.bcc),
        "resubmit": overrides.resubmit,
        "message": sha256(octets).hex(),
    }
    return Asked(Whole(octets, overrides), f"{prefix}:{sha256(encode(said)).hex()}")


def _listed(addresses: tuple[str, ...] | None) -> list[str] | None:
    return None if addresses is None else list(addresses)


def in_folder(folder: Path) -> Source:
    """The files of a folder by name, less those whose name begins with a dot. Raises UsageError."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208  names alone
    except OSError as error:
        raise UsageError(Code.FILE_UNREADABLE, f"{folder}: {error.strerror}", field="--eml-dir") from error
    return Source(len(names), _files(folder, names))


def _files(folder: Path, names: list[str]) -> Iterator[Found]:
    for number, name in enumerate(names, start=1):
        shown = os.fsencode(name).decode("utf-8", "replace")
        try:
            yield Found(shown, _read(folder / name), number)
        except PolicyRefused as error:
            yield Found(shown, error, number)


def _read(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise PolicyRefused(Code.FILE_UNREADABLE, "it is not a file")
        with file.open("rb") as opened:
            octets = opened.read(LARGEST_MESSAGE + 1)
    except OSError as error:
        raise PolicyRefused(Code.FILE_UNREADABLE, f"it cannot be read: {error.strerror}") from None
    if len(octets) > LARGEST_MESSAGE:
        raise _too_large()
    return octets


def _too_large() -> PolicyRefused:
    return PolicyRefused(Code.FILE_UNREADABLE, "it is over 64 MiB")


def in_mbox(file: Path) -> Source:
    """The messages of an mbox, as NAME:1 and on. Raises UsageError where it is none."""
    try:
        opened = file.open("rb")
        begin = opened.read(5)
        opened.seek(0)
        size = os.fstat(opened.fileno()).st_size
    except OSError as error:
        raise UsageError(Code.FILE_UNREADABLE, f"{file}: {error.strerror}", field="--mbox") from error
    if begin not in {b"", b"From "}:
        opened.close()
        raise UsageError(Code.FILE_UNREADABLE, f'{file} is no mbox: it does not begin with "From "', field="--mbox")
    return Source(size, _messages(opened, os.fsencode(file.name).decode("utf-8", "replace")))


def _messages(opened: BinaryIO, name: str) -> Iterator[Found]:
    with opened:
        number, postmark = 0, opened.readline(_PIECE)
        while postmark:
            number += 1
            gathered = _Gathered(f"{name}:{number}")
            postmark = gathered.fill(opened)
            yield Found(gathered.name, gathered.octets(), opened.tell() - len(postmark))


class _Gathered:
    """The lines of one message, as long as they are not too many."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pieces: list[bytes] = []
        self._size = 0
        self._ambiguous = False

    def fill(self, opened: BinaryIO) -> bytes:
        """Take lines up to the next postmark; returns that, or nothing at the end."""
        begins, after_blank = True, False
        while piece := opened.readline(_PIECE):
            if begins and piece.startswith(b"From "):
                if after_blank and _POSTMARK.fullmatch(piece):
                    return piece
                self._ambiguous = True
            self._size += len(piece)
            if self._size <= LARGEST_MESSAGE:
                self._pieces.append(piece)
            else:
                self._pieces.clear()
            after_blank = begins and piece in {b"\n", b"\r\n"}
            begins = piece.endswith(b"\n")
        return b""

    def octets(self) -> bytes | PolicyRefused:
        """The message without the blank line that the mbox puts behind it, and without its quoting."""
        if self._size > LARGEST_MESSAGE:
            return _too_large()
        if self._ambiguous:
            words = 'it has a line that begins with "From ", where another message may begin; quote it with ">"'
            return PolicyRefused(Code.MESSAGE_MALFORMED, words, field="mbox")
        if self._pieces and self._pieces[-1] in {b"\n", b"\r\n"}:
            self._pieces.pop()
        return _QUOTED_FROM.sub(rb"\1", b"".join(self._pieces))
