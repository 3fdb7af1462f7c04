"""The worker's own file of gaps entered, outside the database: what may have been sent is never sent again.

Lines of JSON, each with a MAC over itself and the line before, so that one changed or taken out from among others is
found. A gap's line is synced after the gap's COMMIT and before the final dot; how an attempt ended follows it unsynced,
so that an outcome that was heard outlives a process which could not store it. Several workers share the file, under a
lock. A line without its end was never synced whole, so no dot followed it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, cast

from outbox.core.canonical import VERSION, encode
from outbox.core.errors import Code, ConfigError, Unavailable
from outbox.core.lifecycle import POSSIBLY_SENT
from outbox.core.signing import KeyRing, Purpose, Signature

NAME = "ledger"
_GENESIS = bytes(32)
_PATIENCE, _POLL = 2.0, 0.001  # seconds


@dataclass(frozen=True, slots=True)
class Begun:
    """The first line: whose ledger this is."""

    database: str


@dataclass(frozen=True, slots=True)
class Entered:
    """An attempt entered the gap at `at` (microseconds UTC): from here on it may have been sent."""

    draft: str
    attempt: str
    digest: str
    grants: tuple[str, ...]
    wire_digest: str
    at: int


@dataclass(frozen=True, slots=True)
class Heard:
    """How an attempt in the gap ended; `outcome` as it is stored, `error` what its draft ends with, if it ends."""

    attempt: str
    outcome: str
    code: int | None
    enhanced: str | None
    text: str
    queue_id: str | None
    recipients: tuple[tuple[str, int, str], ...]
    error: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Fenced:
    """The operator vouched for the database as it was then: what stands before is not looked for in it.

    `fence` is the id under which the database knows of it: one that does not was restored since.
    """

    fence: str
    at: int
    by: str
    note: str


Line = Begun | Entered | Heard | Fenced
_KINDS: dict[str, type[Line]] = {"begun": Begun, "entered": Entered, "heard": Heard, "fenced": Fenced}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class LedgerRefused(ConfigError):
    """The operator looks into it: the ledger is missing, or is not what was written. Nothing is sent meanwhile."""


class Ledger:
    """One file, and what it says. Every method may be called from any thread."""

    def __init__(self, file: Path, ring: KeyRing, descriptor: int) -> None:
        self._file, self._ring, self._descriptor = file, ring, descriptor
        self._guard = threading.Lock()
        self._head, self._end = _GENESIS, 0
        self._writing = threading.Lock()  # one descriptor is one lock, whichever thread takes it
        self._broken: str | None = None
        self._database: str | None = None
        self._entered: dict[str, Entered] = {}
        self._by_draft: dict[str, list[str]] = {}
        self._heard: dict[str, Heard] = {}
        self._unfenced: dict[str, None] = {}
        self.fence: str | None = None  # the last one,
        self.fenced_at = 0  # and when it was (microseconds UTC)
        self.blank_until = 0  # of what was drafted before, this ledger knows nothing

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
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        made = cls(draft, ring, descriptor)
        made.append([Begun(database_id)])
        made.close()
        with _unwritable(file):
            if os.geteuid() == 0:  # an operator at the prompt begins it for the worker
                owner = state_dir.stat()
                os.chown(draft, owner.st_uid, owner.st_gid)
            with suppress(FileExistsError):
                os.link(draft, file)
            draft.unlink()
            folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return cls.open(state_dir, ring, database_id)

    @classmethod
    def open(cls, state_dir: Path, ring: KeyRing, database_id: str, *, read_only: bool = False) -> Self:
        """Read the file whole. Raises LedgerRefused where it is missing, altered or another database's."""
        file = state_dir / NAME
        try:
            how = os.O_RDONLY if read_only else os.O_RDWR | os.O_APPEND
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
            found.catch_up()
            found.refuse_other_database(database_id)
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
        with self._locked(), self._guard:
            self._refuse_broken()
            self._read(to_write=True)
            self._refuse_repeated(lines)
            head, octets = self._head, b""
            for line in lines:
                head, text = self._seal(line, head)
                octets += text
            self._write(octets, durable=any(map(_must_last, lines)))
            self._head, self._end = head, self._end + len(octets)
            for line in lines:
                self._take(line)

    def catch_up(self) -> None:
        """Take in what others have written since. Needs no lock: a line that is being written has no end yet."""
        with self._guard:
            self._refuse_broken()
            self._read(to_write=False)

    def refuse_other_database(self, database_id: str) -> None:
        """Raise LedgerRefused where its first line names another database."""
        if self._database != database_id:
            raise self.altered("it belongs to another database")

    def possibly_sent(self, draft_id: str) -> Entered | None:
        """The attempt that may have sent a draft, if there is one."""
        with self._guard:
            return self._gone(draft_id)

    def entered(self, attempt_id: str) -> Entered | None:
        """The gap that an attempt entered, if it did."""
        with self._guard:
            return self._entered.get(attempt_id)

    def heard(self, attempt_id: str) -> Heard | None:
        """How an attempt in the gap ended, where that was heard."""
        with self._guard:
            return self._heard.get(attempt_id)

    def unfenced(self) -> list[str]:
        """The attempts that the database has to know: those since the last fence, the oldest first."""
        with self._guard:
            return list(self._unfenced)

    def _gone(self, draft_id: str) -> Entered | None:
        for attempt in self._by_draft.get(draft_id, ()):
            heard = self._heard.get(attempt)
            if heard is None or heard.outcome in POSSIBLY_SENT:
                return self._entered[attempt]
        return None

    def _refuse_repeated(self, lines: Sequence[Line]) -> None:
        """Whatever the database allowed: no draft is in the gap twice."""
        for line in lines:
            gone = self._gone(line.draft) if isinstance(line, Entered) else None
            if gone is not None:
                why = f"by the ledger attempt {gone.attempt} may have sent draft {gone.draft}; it is not sent again"
                raise Unavailable(Code.POSSIBLY_SENT, why)

    def _seal(self, line: Line, previous: bytes) -> tuple[bytes, bytes]:
        fields = {"is": _NAMES[type(line)], **asdict(line)}
        signature = self._ring.sign(Purpose.LEDGER, _canonical(fields, previous))
        text = json.dumps({**fields, "key": signature.key_id, "mac": signature.octets.hex()}, separators=(",", ":"))
        return signature.octets, text.encode() + b"\n"

    def _read(self, *, to_write: bool) -> None:
        """Everything after what is known. A last line without its end is what a crash left; a writer cuts it off."""
        with _unwritable(self._file):
            size = os.fstat(self._descriptor).st_size
            octets = _read_all(self._descriptor, self._end, size - self._end)
        if size < self._end:
            raise self.altered("it became shorter")
        whole, newline, torn = octets.rpartition(b"\n")
        for text in (whole + newline).splitlines(keepends=True):
            self._parse(text)
        if torn and to_write:
            with _unwritable(self._file):
                os.ftruncate(self._descriptor, self._end)

    def _parse(self, text: bytes) -> None:
        try:
            fields = json.loads(text)
            key_id, mac = fields.pop("key"), bytes.fromhex(fields.pop("mac"))
            line = _line(dict(fields))
            verified = self._ring.verify(Purpose.LEDGER, _canonical(fields, self._head), Signature(key_id, mac))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            verified = False
        if not verified:
            raise self.altered(f"the line at octet {self._end} is not what was written, or a line before it is gone")
        self._head, self._end = mac, self._end + len(text)
        self._take(line)

    def _take(self, line: Line) -> None:
        match line:
            case Begun(database):
                self._database = database
            case Entered(draft, attempt):
                self._entered[attempt] = line
                self._by_draft.setdefault(draft, []).append(attempt)
                self._unfenced[attempt] = None
            case Heard(attempt):
                self._heard.setdefault(attempt, line)
            case Fenced(fence, at):
                self._unfenced.clear()
                self.fence, self.fenced_at = fence, at
                if not self._entered:  # begun by a fence, because the one before was lost
                    self.blank_until = at

    def _write(self, octets: bytes, *, durable: bool) -> None:
        try:
            written = os.write(self._descriptor, octets)
            while written < len(octets):
                written += os.write(self._descriptor, octets[written:])
        except OSError as error:  # what is there of it the next writer reads, or cuts off
            raise self._unwritten(error) from error
        if durable:
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:  # what the disk holds now is not known, and a second sync would not say
                self._broken = str(error.strerror)
                raise self._unwritten(error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among those who write. Another that was stopped with the lock in its hand is not waited for."""
        until = time.monotonic() + _PATIENCE
        if not self._writing.acquire(timeout=_PATIENCE):
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


def _must_last(line: Line) -> bool:
    """Whether a power cut may not take a line. That something was accepted may go: then it is in doubt."""
    return not isinstance(line, Heard) or line.outcome not in POSSIBLY_SENT


def _canonical(fields: dict[str, object], previous: bytes) -> bytes:
    return encode({"version": VERSION, **fields, "previous": previous.hex()})


def _line(fields: dict[str, object]) -> Line:
    """A line's fields as the value they were written from; KeyError or TypeError for anything else."""
    kind: Any = _KINDS[str(fields.pop("is"))]
    return cast("Line", kind(**{name: _tuples(value) for name, value in fields.items()}))


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


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
