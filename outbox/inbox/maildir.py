"""Replies from a Maildir, read only: nothing in it is moved, marked or taken out, whoever else uses it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from outbox.core.errors import Code, Unavailable
from outbox.inbox.incoming import LARGEST_HEADER, LARGEST_MESSAGE
from outbox.inbox.mailbox import Delivered

log = logging.getLogger("outbox.inbox")


class Maildir:
    """`new/` and `cur/` of one Maildir; a message keeps its name when a client marks or moves it between the two."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, Path] = {}
        if not (path / "new").is_dir() or not (path / "cur").is_dir():
            raise Unavailable(Code.MAILBOX_UNREACHABLE, f"mailbox.url: {path} is not a Maildir (it needs new and cur)")

    @property
    def name(self) -> str:
        """What replies are recorded under."""
        return f"maildir:{self._path.name}"

    @property
    def numbered(self) -> bool:
        """A Maildir's names last."""
        return False

    def messages(self, known: Collection[str], *, since: int) -> Iterator[Delivered]:
        """Every message that is not known, the oldest name first; a Maildir has no sure time of arrival."""
        del since
        self._files = self._list()
        for uid in sorted(self._files.keys() - set(known)):
            head = self._read(uid, LARGEST_HEADER)
            if head is not None:
                yield Delivered(uid, head)

    def _list(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        try:
            for folder in ("new", "cur"):
                with os.scandir(self._path / folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                            found[_uid(entry.name)] = Path(entry.path)
        except OSError as error:
            raise Unavailable(Code.MAILBOX_UNREACHABLE, f"mailbox.url: {self._path}: {error.strerror}") from error
        return found

    def read(self, uid: str) -> bytes | None:
        """The octets, or None where a mail client moved or took the file away meanwhile."""
        return self._read(uid, LARGEST_MESSAGE + 1)

    def _read(self, uid: str, most: int) -> bytes | None:
        try:
            with self._files[uid].open("rb") as opened:
                return opened.read(most)
        except (FileNotFoundError, KeyError):
            return None
        except OSError as error:
            log.error("%s: %s", uid, error.strerror, extra={"action": "unreadable", "uid": uid})
            return None

    def taken(self, uid: str) -> None:
        """A Maildir is only read."""

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Sleep until the next look."""
        stop.wait(seconds)

    def close(self) -> None:
        """Nothing is held open."""


def _uid(name: str) -> str:
    """A file's name up to its flags; octets that are no text are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").partition(":")[0]
