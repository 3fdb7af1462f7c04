"""What every room stands on: settings, keys, database, state folder, disk, clock. Nothing is changed by looking."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from outbox.clock import Clock, wall
from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import ConfigError, OutboxError, Unavailable
from outbox.core.finding import Finding, failed
from outbox.store.engine import Database, connect
from outbox.store.revision import refuse_altered, refuse_other_revision
from outbox.store.schema import REVISION
from outbox.store.soundness import first_fault, newest_instant

PATIENCE = 10.0  # seconds for the look through the whole database
EARLIEST = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * MICROSECONDS  # this version was not there before
_GRACE = 300 * MICROSECONDS  # as the worker's, for what is dated ahead
_APART = 60  # seconds that a file system's clock may be away from ours
_LITTLE, _NEXT_TO_NOTHING = 100_000_000, 20_000_000  # octets of free disk
_OTHERS, _GROUP = stat.S_IWOTH, stat.S_IWGRP
_MODES = "WAL, synchronous FULL, foreign keys and recursive triggers"
_SERVER = "see docs/howto/postgresql.md; the rooms wait, and nothing is lost meanwhile"
_ROOMS = {"draft": "drafter and worker", "grant": "inbox and worker"}
_RESTORE = "put it back from your copy; what an older key has signed does not verify with a new one"

Free = Callable[[Path], int]


def free_octets(folder: Path) -> int:
    """How many octets may still be written where `folder` is."""
    return shutil.disk_usage(folder).free


def check(
    settings: Settings, file: Path | None = None, *, clock: Clock = wall, free: Free = free_octets
) -> Iterator[Finding]:
    """Look at what every room stands on. `file` is the settings file, where it is not ./outbox.toml beside the rest."""
    file = file or settings.path(Path("outbox.toml"))
    yield _settings(settings, file)
    for name in ("draft", "grant"):
        yield _key(settings, name)
    yield _separation(settings)
    yield from _permissions(settings, file)
    newest = yield from _database(settings)
    yield from _state(settings, clock)
    yield _clock(clock(), newest)
    yield from _disk(settings, free)


def _settings(settings: Settings, file: Path) -> Finding:
    sections = ", ".join(sorted(settings.model_fields_set))
    if file.is_file():
        return Finding("settings", True, f"{file} can be read, and nothing in it contradicts the rest: {sections}")
    if sections:
        return Finding("settings", True, f"they are from the environment, or a file of another name: {sections}")
    return Finding(
        "settings", False, f"there is no {file}, and the environment says nothing", "run `outbox init`, or say --config"
    )


def _key(settings: Settings, name: Literal["draft", "grant"]) -> Finding:
    check = f"key-{name}"
    if settings.has_key(name):
        try:
            settings.draft_ring() if name == "draft" else settings.grant_ring()
        except ConfigError as error:
            return failed(check, error, "take another file, or restore this one from your copy")
        return Finding(check, True, f"this user can read the {name} key, and no other user can")
    listed = tuple(settings.path(file) for file in getattr(settings.keys, name))
    closed = next((file for file in listed if is_closed(file)), None)
    if closed is not None:
        return Finding(check, None, f"{closed} belongs to another user: {_ROOMS[name]} run as him")
    if name in settings.keys.model_fields_set and listed:
        missing = next(file for file in listed if not os.access(file, os.R_OK))
        return Finding(check, False, f"keys.{name} lists {missing}, and there is no such file", _RESTORE)
    return Finding(check, None, f"there is no {name} key here: {_ROOMS[name]} need it, and run elsewhere")


def is_closed(path: Path) -> bool:
    """Whether `path` is there, or may be, and this user may not look at it."""
    try:
        path.stat()
    except PermissionError:
        return True
    except (OSError, ValueError):  # ValueError: a path with NUL
        return False
    return not os.access(path, os.R_OK)


def _separation(settings: Settings) -> Finding:
    check = "separation"
    if not (settings.has_key("draft") and settings.has_key("grant")):
        return Finding(check, True, "this user does not hold both keys: nobody can draft and approve as him")
    try:
        settings.rings()
    except ConfigError as error:
        return failed(check, error, "see key-draft and key-grant")
    closed = settings.approval.terminal == "off"
    todo = "give each room its own user (docs/reference/privileges.md)"
    return Finding(
        check,
        None,
        "this user can read the draft key and the grant key: an agent that runs as him can approve its own drafts",
        todo if closed else f'{todo}, or at least set approval.terminal = "off"',
    )


def _permissions(settings: Settings, file: Path) -> Iterator[Finding]:
    """Who can write the settings can name himself an approver; who can write a folder can replace what is in it.

    The database and its folder may be written by a group: that of the rooms' users.
    """
    check, wrong = "permissions", False
    rings = {settings.path(key).parent for key in (*settings.keys.draft, *settings.keys.grant)}
    places = dict.fromkeys([file, file.parent, *sorted(rings)], _OTHERS | _GROUP)
    for other in (_database_file(settings), settings.state_dir):
        if other is not None:
            places |= {path: _OTHERS for path in (other, other.parent) if path not in places}
    for path, bits in places.items():
        writable = _writable(path, bits)
        if not writable:
            continue
        wrong = True
        todo = f"chmod {'o-w' if writable & _OTHERS else 'g-w'} {path}"
        if writable & _OTHERS:
            yield Finding(check, False, f"every user of this machine can write {path}", todo)
        else:
            yield Finding(check, None, f"its group can write {path}, and so choose who approves", todo)
    if not wrong:
        yield Finding(check, True, "no other user can write settings, keys or database, or the folders they are in")


def _writable(path: Path, bits: int) -> int:
    """Those of `bits` that others have on `path`; in a sticky folder they can replace nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return 0
    return 0 if stat.S_ISDIR(mode) and mode & stat.S_ISVTX else mode & bits


def _database_file(settings: Settings) -> Path | None:
    try:
        place = settings.database_place
        return place if isinstance(place, Path) else None
    except ConfigError:
        return None


def _database(settings: Settings) -> Generator[Finding, None, int | None]:
    """Returns the newest instant in it, if there is one."""
    try:
        place = settings.database_place
        if isinstance(place, Path) and is_closed(place):
            yield Finding("database", None, f"{place} belongs to another user; run `outbox doctor` as him")
            return None
        database = connect(place, "doctor")
    except OutboxError as error:
        url = settings.database.url
        todo = _SERVER if url.startswith("postgresql") else f"every room needs to read and write {url} and its folder"
        yield failed("database", error, todo)
        return None
    with closing(database):
        modes = "fsync and synchronous_commit" if database.is_server else _MODES
        yield Finding("database", True, f"{database.name} can be written; {modes} are on")
        yield _integrity(database)
        return (yield from _schema(database))


def _integrity(database: Database) -> Finding:
    check, restore = "database-integrity", "stop every room, keep the file as it is, and restore a backup"
    looked = "PostgreSQL's catalogue" if database.is_server else "SQLite's quick check"
    try:
        fault = first_fault(database, seconds=PATIENCE)
    except TimeoutError as late:
        return Finding(check, None, f"{looked} was given up: {late}")
    except Unavailable as error:
        return failed(check, error, restore)
    if fault is not None:
        return Finding(check, False, f"{looked} says: {fault}", restore)
    return Finding(check, True, f"{looked} finds nothing wrong")


def _schema(database: Database) -> Generator[Finding, None, int | None]:
    try:
        refuse_other_revision(database)
        yield Finding("database-revision", True, f"it is at revision {REVISION}, as this version needs it")
    except OutboxError as error:
        yield failed("database-revision", error, "restore a backup")
        return None
    try:
        refuse_altered(database)
        yield Finding("database-guards", True, "its triggers and indexes are word for word what the migrations made")
        return newest_instant(database)
    except OutboxError as error:
        yield failed("database-guards", error, "restore a backup")
        return None


def _state(settings: Settings, clock: Clock) -> Iterator[Finding]:
    check, folder = "state", settings.state_dir
    if not folder.exists():
        yield Finding(check, None, f"there is no folder {folder} yet; inbox and worker make it as they start")
        return
    try:
        ahead = _written_at(folder) - clock() // MICROSECONDS
    except OSError as error:
        todo = "make it belong to the user that inbox and worker run as; it has to be on a local disk"
        needed = settings.has_key("grant")
        why = f"{folder}: {error.strerror}; inbox and worker write and lock files there"
        yield Finding(check, False if needed else None, why, todo if needed else "")
        return
    yield Finding(check, True, f"{folder} can be written, and a file in it locked")
    if abs(ahead) > _APART:
        why = f"a file in {folder} was dated {abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'} the clock"
        yield Finding("clock", None, why, "use a local disk: locks on another machine's do not hold")


def _written_at(folder: Path) -> int:
    """Write and lock a file that is gone afterwards; when its file system says that was, in seconds of Unix time."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="doctor-") as probe:
        fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        probe.write(b"written by `outbox doctor`\n")
        probe.flush()
        os.fsync(probe.fileno())
        return int(os.fstat(probe.fileno()).st_mtime)


def _clock(now: int, newest: int | None) -> Finding:
    check, todo = "clock", "set it right (timedatectl), and leave it to NTP"
    if now < EARLIEST:
        return Finding(
            check, False, f"it says {_moment(now)}, which is years ago: limits, codes and TLS go wrong", todo
        )
    if newest is not None and newest > now + _GRACE:
        why = f"it says {_moment(now)}, and the database holds something of {_moment(newest)}"
        return Finding(check, False, why, todo)
    compared = ", and nothing in the database is later" if newest is not None else ""
    return Finding(check, True, f"it says {_moment(now)}{compared}")


def _moment(instant: int) -> str:
    return f"{datetime.fromtimestamp(instant // MICROSECONDS, UTC):%Y-%m-%d %H:%M:%SZ}"


def _disk(settings: Settings, free: Free) -> Iterator[Finding]:
    seen = set()
    file, state = _database_file(settings), settings.state_dir
    for folder in (file.parent if file else settings.path(Path()), state if state.is_dir() else state.parent):
        try:
            device = folder.stat().st_dev
            left = free(folder)
        except OSError as error:
            yield Finding("disk", None, f"{folder}: {error.strerror}")
            continue
        if device not in seen:
            seen.add(device)
            yield _room_left(folder, left)


def _room_left(folder: Path, left: int) -> Finding:
    why = f"{left // 1_000_000} MB are free where {folder} is"
    if left >= _LITTLE:
        return Finding("disk", True, why)
    todo = "make room: an outcome that cannot be stored is in doubt"
    return Finding("disk", False if left < _NEXT_TO_NOTHING else None, why, todo)
