"""An archive of pruned drafts: JSON lines, each a draft with its octets, durable before the database lets go of them.

The first line names the database. Behind each batch that was taken out a line says so: what follows the last of these
was written by a run that broke off, and is not written again.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from outbox.core.errors import Code, ConfigError, StateRefused, Unavailable
from outbox.store.retention import Whole, digest_of_ids

MODE = 0o600
_VERSION = 1
_BLOCK = 1 << 20
_LONGEST_HEAD = 200  # octets


class Archive:
    """One file, appended to by one run at a time. Use as a context manager."""

    def __init__(self, file: Path, database_id: str) -> None:
        """Open or make it. Raises ConfigError where it is no archive of this database, Unavailable, StateRefused."""
        self.file = file
        self._head = _line({"outbox-archive": _VERSION, "database": database_id})
        with self._unwritable():
            how = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._descriptor = os.open(file, how, MODE)
        with ExitStack() as unless_opened:
            unless_opened.callback(os.close, self._descriptor)
            self._refuse_unfit()
            with self._unwritable():
                self._written = self._begin()
            unless_opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def keep(self, drafts: Sequence[Whole]) -> None:
        """Write these drafts, and have them on the disk when this returns. Raises Unavailable."""
        with self._unwritable():
            for draft in drafts:
                if draft.id not in self._written:
                    self._append(_line(_fields(draft)))
                    self._written.add(draft.id)
            os.fdatasync(self._descriptor)

    def note_pruned(self, draft_ids: Sequence[str]) -> None:
        """Say that the database let go of what was kept. Raises Unavailable."""
        with self._unwritable():
            self._append(_line({"pruned": len(draft_ids), "ids": digest_of_ids(draft_ids)}))
        self._written.clear()

    def _refuse_unfit(self) -> None:
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise self._unfit("is no file")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise self._unfit("can be read by others than its owner")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateRefused(
                Code.STATE_CONFLICT, f"another prune is writing {self.file}; nothing was changed"
            ) from None

    def _begin(self) -> set[str]:
        """Make the first line durable or find it, cut a torn last line off; the ids that were written last."""
        size = os.fstat(self._descriptor).st_size
        first = os.pread(self._descriptor, _LONGEST_HEAD, 0)
        if not first.startswith(self._head):
            if first and not (size < len(self._head) and self._head.startswith(first)):
                raise self._unfit("is there already, and is no archive of this database")
            os.ftruncate(self._descriptor, 0)  # nothing of it, or what a crash left of the first line
            self._append(self._head)
            os.fsync(self._descriptor)
            _sync_folder(self.file.parent)
            return set()
        return self._unfinished(size)

    def _unfinished(self, size: int) -> set[str]:
        """The ids in the lines behind the last batch that was finished, read from the end."""
        found: set[str] = set()
        for start, line in _backwards(self._descriptor, size):
            if not line.endswith(b"\n"):
                os.ftruncate(self._descriptor, start)  # it was never synced whole, so its draft is where it was
                continue
            fields = self._parse(line)
            if "id" not in fields:
                return found
            found.add(str(fields["id"]))
        return found

    def _parse(self, line: bytes) -> dict[str, object]:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise self._unfit("has lines that no prune wrote")
        return fields

    def _append(self, line: bytes) -> None:
        written = os.write(self._descriptor, line)
        while written < len(line):
            written += os.write(self._descriptor, line[written:])

    def _unfit(self, why: str) -> ConfigError:
        return ConfigError(Code.FILE_EXISTS, f"{self.file} {why}; name another file", field="--archive")

    @contextmanager
    def _unwritable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            words = f"{self.file} cannot be written: {error.strerror}; what it lacks was not taken out"
            raise Unavailable(Code.FILE_UNREADABLE, words) from error


def _fields(draft: Whole) -> dict[str, object]:
    return {
        "id": draft.id,
        "kind": draft.kind,
        "agent": draft.agent,
        "state": draft.state,
        "envelope": _parsed(draft.envelope),
        "thread": _parsed(draft.thread_references),
        "subject": draft.subject,
        "message_id": draft.message_id,
        "about": draft.about,
        "resubmitted": draft.resubmitted,
        "created_at": draft.created_at,
        "expires_at": draft.expires_at,
        "digest": draft.digest.hex(),
        "fingerprint": draft.fingerprint.hex(),
        "signature": draft.signature.hex(),
        "key_id": draft.key_id,
        "octets": b64encode(draft.octets).decode(),
    }


def _parsed(column: str) -> object:
    """A column of JSON as what it says; as it stands, where somebody made it unreadable."""
    try:
        found: object = json.loads(column)
    except (ValueError, RecursionError):
        return column
    return found


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _backwards(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Each line with where it starts, the last first; all but the last end with a newline."""
    end, rest = size, b""
    while end > 0:
        start = max(0, end - _BLOCK)
        rest = os.pread(descriptor, end - start, start) + rest
        end = start
        cut = (rest.find(b"\n") + 1 or len(rest)) if end else 0  # what is before it may begin in the block before
        place = end + len(rest)
        for line in reversed(rest[cut:].splitlines(keepends=True)):
            place -= len(line)
            yield place, line
        rest = rest[:cut]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
