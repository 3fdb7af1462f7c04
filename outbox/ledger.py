"""The worker's own file of gaps entered, outside the database: what may have been sent is never sent again.

Lines of JSON, each with a MAC over itself and the line before, so that one changed or taken out from among others is
found. A gap's line is synced after the gap's COMMIT and before the final dot; how an attempt ended follows it unsynced,
so that an outcome that was heard outlives a process which could not store it. Several workers share the file, under a
lock. A line without its end was never synced whole, so no dot followed it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from outbox.core.errors import Code, ConfigError, Unavailable
from outbox.core.ledger_index import LedgerIndex
from outbox.core.ledger_line import GENESIS, MAC_AT, Begun, Entered, Fenced, Forgotten, Heard, Line, parse, seal
from outbox.core.signing import KeyRing

__all__ = ["NAME", "Begun", "Entered", "Fenced", "Forgotten", "Heard", "Ledger", "LedgerRefused"]

NAME = "ledger"
_PATIENCE, _POLL = 2.0, 0.001  # seconds
_PART = 1 << 16  # octets that are read at a time
_WINDOW = 4096  # octets that a line is read by


class LedgerRefused(ConfigError):
    """The operator looks into it: the ledger is missing, or is not what was written. Nothing is sent meanwhile."""


class Ledger:
    """One file, and where in it what is said of each draft. Every method may be called from any thread."""

    def __init__(self, file: Path, ring: KeyRing, descriptor: int) -> None:
        self._file, self._ring, self._descriptor = file, ring, descriptor
        self._guard = threading.Lock()
        self._head, self._end = GENESIS, 0
        self._synced = 0  # up to here it is known to be on the disk
        self._writing = threading.Lock()  # one descriptor is one lock, whichever thread takes it
        self._broken: str | None = None
        self.index = LedgerIndex()

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._file.parent

    @classmethod
    def begin(cls, state_dir: Path, ring: KeyRing, database_id: str) -> Self:
        """Make the file, whole and durable when this returns; where another was quicker, read that one."""
        file, draft = state_dir / NAME, state_dir / f"{NAME}.{os.getpid()}.tmp"
        with _unwritable(file):
            state_dir.mkdir(parents=True, exist_ok=True)
            descriptor = new_file(draft)
        made = cls(draft, ring, descriptor)
        made.append([Begun(database_id)])
        made.close()
        with _unwritable(file):
            put_in_place(draft, file)
        sync_folder(state_dir)
        return cls.open(state_dir, ring, database_id)

    @classmethod
    def open(
        cls, state_dir: Path, ring: KeyRing, database_id: str, *, read_only: bool = False, newest: int | None = None
    ) -> Self:
        """Read the file whole. Raises LedgerRefused where it is missing, altered or another database's.

        With `newest` only the first line and so many octets at the end are read: enough to see that all is well, and
        nothing that anybody may send on.
        """
        file = state_dir / NAME
        try:
            how = os.O_RDONLY if read_only else os.O_RDWR
            descriptor = os.open(file, how | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise LedgerRefused(
                Code.LEDGER_MISSING, f"there is no ledger at {file}", field="database.state_dir"
            ) from None
        except OSError as error:
            raise Unavailable(Code.LEDGER_UNWRITABLE, f"{file}: {error.strerror}") from error
        found = cls(file, ring, descriptor)
        with ExitStack() as unless_read:
            unless_read.callback(os.close, descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise found.altered("it is no file")
            if newest is not None:
                found._skip_to_newest(newest)
            found.catch_up()
            found.refuse_other_database(database_id)
            if not read_only:
                with _unwritable(file):
                    os.fdatasync(descriptor)
                found._synced = found._end
            unless_read.pop_all()
        return found

    def close(self) -> None:
        """Let the file go."""
        with self._guard, suppress(OSError):
            os.close(self._descriptor)

    def append(self, lines: Sequence[Line]) -> None:
        """Write lines, and have them on the disk when this returns, unless all only say that the relay accepted.

        Raises Unavailable: then none of them may be relied on.
        """
        with self.held():
            self._refuse_repeated(lines)
            head, octets, ends = self._head, b"", []
            for line in lines:
                head, text = seal(self._ring, line, head)
                octets += text
                ends.append(self._end + len(octets))
            self._write(octets, durable=any(map(_must_last, lines)))
            with self._guard:
                for start, line in zip([self._end, *ends], lines, strict=False):
                    self.index.take(line, start)
                self._head, self._end = head, ends[-1]

    @contextmanager
    def held(self, patience: float = _PATIENCE) -> Iterator[None]:
        """While this lasts nobody else writes, and all that was written is known. Raises as `append` does."""
        with self._locked(patience):
            self._refuse_broken()
            self._read(to_write=True)
            yield

    def catch_up(self) -> None:
        """Take in what others have written since; what this process is writing now takes it in by itself.

        Needs no lock on the file: a line that is being written has no end yet.
        """
        if self._writing.acquire(blocking=False):
            try:
                self._refuse_broken()
                self._read(to_write=False)
            finally:
                self._writing.release()

    def refuse_other_database(self, database_id: str) -> None:
        """Raise LedgerRefused where its first line names another database."""
        if self.index.database != database_id:
            raise self.altered("it belongs to another database")

    def possibly_sent(self, draft_id: str) -> Entered | None:
        """The attempt that may have sent a draft, if there is one."""
        for entered, heard in self._stories(draft_id):
            if entered.draft == draft_id and (heard is None or heard.may_have_been_sent):
                return entered
        return None

    def entered(self, attempt_id: str, draft_id: str) -> Entered | None:
        """The gap that an attempt entered, if it did."""
        found = (entered for entered, _ in self._stories(draft_id))
        return next((entered for entered in found if entered.attempt == attempt_id), None)

    def heard(self, attempt_id: str, draft_id: str) -> Heard | None:
        """How an attempt in the gap ended, where that was heard."""
        found = [heard for entered, heard in self._stories(draft_id) if entered.attempt == attempt_id]
        return found[0] if found else self._stray(attempt_id)

    @property
    def size(self) -> int:
        """Octets that are known."""
        return self._end

    def lines(self) -> Iterator[tuple[int, Line]]:
        """Every line and where it stands, verified once more. Raises LedgerRefused where it is another now."""
        start, end = 0, self._end
        while start < end:
            line, after = self._line_at(start)
            yield start, line
            start = after

    def _stories(self, draft_id: str) -> Iterator[tuple[Entered, Heard | None]]:
        """What the file says of a draft's attempts, read again; now and then of another draft with the same hash.

        Raises LedgerRefused where that is not what was written.
        """
        with self._guard:
            found = self.index.stories(draft_id)
        for start, heard_at in found:
            entered, _ = self._line_at(start)
            if not isinstance(entered, Entered) or hash(entered.draft) != hash(draft_id):
                raise self.altered(f"the line at octet {start} is another now")
            attempt_id = entered.attempt
            yield entered, self._stray(attempt_id) if heard_at is None else self._heard_at(heard_at, attempt_id)

    def _stray(self, attempt_id: str) -> Heard | None:
        start = self.index.stray(attempt_id)
        return self._heard_at(start, attempt_id) if start is not None else None

    def _heard_at(self, start: int, attempt_id: str) -> Heard:
        heard, _ = self._line_at(start)
        if not isinstance(heard, Heard) or heard.attempt != attempt_id:
            raise self.altered(f"the line at octet {start} is another now")
        return heard

    def _line_at(self, start: int) -> tuple[Line, int]:
        """A line that was verified before, verified again, and where the next one stands."""
        with _unwritable(self._file):
            text = os.pread(self._descriptor, _WINDOW, start)
            while b"\n" not in text and (more := os.pread(self._descriptor, _WINDOW, start + len(text))):
                text += more
        text = text[: text.find(b"\n") + 1]
        found = parse(self._ring, text, self._mac_before(start))
        if found is None:
            raise self.altered(f"the line at octet {start} is not what was written")
        return found[0], start + len(text)

    def _skip_to_newest(self, octets: int) -> None:
        """Take in the first line, and leave out those up to the first that begins so near the end."""
        with _unwritable(self._file):
            skipped = os.fstat(self._descriptor).st_size - octets
            text = _read_all(self._descriptor, max(0, skipped), octets) if skipped > 0 else b""
        begins = text.find(b"\n") + 1
        if not begins:
            return
        line, _ = self._line_at(0)
        self.index.take(line, 0)
        self._head, self._end = self._mac_before(skipped + begins), skipped + begins

    def _mac_before(self, start: int) -> bytes:
        """That of the line which ends there. Raises LedgerRefused where it is none."""
        with _unwritable(self._file):
            text = os.pread(self._descriptor, -MAC_AT, max(0, start + MAC_AT))
        try:
            return bytes.fromhex(text[:64].decode("ascii")) if start else GENESIS
        except ValueError:
            raise self.altered(f"the line before octet {start} is not what was written") from None

    def _refuse_repeated(self, lines: Sequence[Line]) -> None:
        """Whatever the database allowed: no draft is in the gap twice."""
        for line in lines:
            if not isinstance(line, Entered):
                continue
            gone = self.possibly_sent(line.draft)
            if gone is not None:
                why = f"by the ledger attempt {gone.attempt} may have sent draft {gone.draft}; it is not sent again"
                raise Unavailable(Code.POSSIBLY_SENT, why)
            if self.index.has_forgotten(line.expires_at):  # whatever the clock says now
                why = f"draft {line.draft} may have left: the ledger forgot drafts whose time was over when its was"
                raise Unavailable(Code.POSSIBLY_SENT, why)

    def _read(self, *, to_write: bool) -> None:
        """Everything after what is known. A last line without its end is what a crash left; a writer cuts it off."""
        with _unwritable(self._file):
            size = os.fstat(self._descriptor).st_size
        if size < self._end:
            raise self.altered("it became shorter")
        part = _PART
        while self._end < size:
            with _unwritable(self._file):
                octets = _read_all(self._descriptor, self._end, min(part, size - self._end))
            lines = octets[: octets.rfind(b"\n") + 1].splitlines(keepends=True)
            if not lines and len(octets) < part:
                break
            part = _PART if lines else 2 * part
            with self._guard:
                for text in lines:
                    self._read_line(text)
        if self._end < size and to_write:
            with _unwritable(self._file):
                os.ftruncate(self._descriptor, self._end)

    def _read_line(self, text: bytes) -> None:
        found = parse(self._ring, text, self._head)
        if found is None:
            raise self.altered(f"the line at octet {self._end} is not what was written, or a line before it is gone")
        line, self._head = found
        self.index.take(line, self._end)
        self._end += len(text)

    def _write(self, octets: bytes, *, durable: bool) -> None:
        """In one piece with what is not known to last, so that no power cut keeps a line without those before it."""
        start, end = self._synced, self._end + len(octets)
        try:
            octets = _read_all(self._descriptor, start, self._end - start) + octets
            written = 0
            while written < len(octets):
                written += os.pwrite(self._descriptor, octets[written:], start + written)
        except OSError as error:  # what is there of it the next writer reads, or cuts off
            raise self._unwritten(error) from error
        if durable:
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:  # what the disk holds now is not known, and a second sync would not say
                self._broken = str(error.strerror)
                raise self._unwritten(error) from error
            self._synced = end

    @contextmanager
    def _locked(self, patience: float) -> Iterator[None]:
        """Alone among those who write. Another that was stopped with the lock in its hand is not waited for."""
        until = time.monotonic() + patience
        if not self._writing.acquire(timeout=patience):
            raise self._unwritten(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        with ExitStack() as at_end:
            at_end.callback(self._writing.release)
            self._flock(until)
            at_end.callback(fcntl.flock, self._descriptor, fcntl.LOCK_UN)
            yield

    def _flock(self, until: float) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise self._unwritten(error) from error
                time.sleep(_POLL)
            except OSError as error:
                raise self._unwritten(error) from error
            else:
                return

    def _refuse_broken(self) -> None:
        if self._broken is not None:
            words = f"{self._file} could not be synced ({self._broken}); nothing is sent until this worker is restarted"
            raise Unavailable(Code.LEDGER_UNWRITABLE, words)
        try:
            same = os.path.samestat(self._file.stat(), os.fstat(self._descriptor))
        except OSError:
            same = False
        if not same:
            raise LedgerRefused(
                Code.LEDGER_MISSING, f"{self._file} was taken away or replaced; put it back, nothing is sent meanwhile"
            )

    def _unwritten(self, error: OSError) -> Unavailable:
        return Unavailable(
            Code.LEDGER_UNWRITABLE, f"{self._file} cannot be written: {error.strerror}; nothing is sent meanwhile"
        )

    def altered(self, why: str) -> LedgerRefused:
        """The error for a file that is not what was written."""
        return LedgerRefused(Code.LEDGER_ALTERED, f"the ledger {self._file}: {why}", field="database.state_dir")


def new_file(file: Path) -> int:
    """A file of this user alone, empty, open to write at its end; one of that name is gone. Raises OSError."""
    file.unlink(missing_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def put_in_place(draft: Path, file: Path) -> None:
    """Name a file that was written beside its place; where another was quicker, that one stays. Raises OSError."""
    if os.geteuid() == 0:  # an operator at the prompt makes it for the worker
        owner = file.parent.stat()
        os.chown(draft, owner.st_uid, owner.st_gid)
    with suppress(FileExistsError):
        os.link(draft, file)
    draft.unlink()


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk. Raises Unavailable: then it is not known which file is there."""
    with _unwritable(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _must_last(line: Line) -> bool:
    """Whether a power cut may not take a line. That something was accepted may go: then it is in doubt."""
    return not isinstance(line, Heard) or not line.may_have_been_sent


def _read_all(descriptor: int, start: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := os.pread(descriptor, min(size, 1 << 24), start)):
        parts.append(part)
        start, size = start + len(part), size - len(part)
    return b"".join(parts)


@contextmanager
def _unwritable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(Code.LEDGER_UNWRITABLE, f"{file}: {error.strerror}") from error
