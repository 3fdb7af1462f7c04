"""A room's state as JSON, for those who have only `cat`: `state/ROOM.json`, one object, replaced as a whole.

Nothing reads it to decide anything. It says when it was written; a file that is minutes old is that of a dead process.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

log = logging.getLogger("outbox.state")
Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"
REFRESH = 10.0  # seconds after which it is written again though nothing changed but the time
_LARGEST = 1 << 20  # octets that are read back: the folder may be writable for other rooms


class StateFile:
    """One file. Every method may be called from any thread, and none raises.

    What is written is `room`, `pid`, `at` (RFC 3339) and then every field that was ever given, with its last value: so
    the loop's fields and the alerts are written by whoever has them, into one object. `clock` gives microseconds UTC.
    """

    def __init__(
        self, path: Path, room: str, clock: Callable[[], int], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._room, self._clock, self._monotonic = path, room, clock, monotonic
        self._guard = threading.Lock()
        self._fields: dict[str, Json] = {}
        self._written: str | None = None
        self._written_at = float("-inf")
        self._complained: set[int | None] = set()

    def earlier(self) -> Mapping[str, Json]:
        """What the last process of this room left, for example its alerts; empty where that cannot be read."""
        return read_state(self._path)

    def put(self, fields: Mapping[str, Json]) -> None:
        """Take fields in, to be written with the next ones."""
        with self._guard:
            self._fields.update(fields)

    def write(self, fields: Mapping[str, Json]) -> None:
        """Replace the file, where a field has changed or 10 s have passed. What cannot be written is logged, once."""
        with self._guard:
            self._fields.update(fields)
            text, now = json.dumps(self._fields), self._monotonic()
            if text == self._written and now - self._written_at < REFRESH:
                return
            self._written, self._written_at = text, now
            try:
                self._replace()
            except OSError as error:
                self._complain(error)
            else:
                self._complained.clear()

    def _replace(self) -> None:
        head = {"room": self._room, "pid": os.getpid(), "at": _rfc3339(self._clock())}
        octets = json.dumps(head | self._fields | head).encode() + b"\n"
        new = self._path.with_suffix(f".{os.getpid()}.tmp")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)  # of an earlier process: in a container the number is the same each time
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as opened:
                opened.write(octets)
                os.fchmod(opened.fileno(), 0o644)
            new.replace(self._path)
        except OSError:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise

    def _complain(self, error: OSError) -> None:
        if error.errno not in self._complained:
            self._complained.add(error.errno)
            log.warning("%s cannot be written: %s", self._path, error.strerror, extra={"action": "state-file"})


def read_state(path: Path) -> Mapping[str, Json]:
    """The fields of a state file; empty where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may be no file at all
        with os.fdopen(descriptor, "rb") as opened:
            found = json.loads(opened.read(_LARGEST) or b"")
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _rfc3339(instant: int) -> str:
    seconds, micros = divmod(instant, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06}Z"
