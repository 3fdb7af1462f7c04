"""Replies from a Maildir, read only: nothing in it is moved, marked or taken out, whoever else uses it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outbox.core.errors import Code, Unavailable
from outbox.inbox.incoming import LARGEST_MESSAGE

log = logging.getLogger("outbox.inbox")


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message: the mailbox's own lasting name for it, and where it is now."""

    uid: str
    file: Path


class Maildir:
    """`new/` and `cur/` of one Maildir; a message keeps its name when a client marks or moves it between the two."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not (path / "new").is_dir() or not (path / "cur").is_dir():
            raise Unavailable(Code.MAILBOX_UNREACHABLE, f"mailbox.url: {path} is not a Maildir (it needs new and cur)")

    @property
    def name(self) -> str:
        """What replies are recorded under."""
        return f"maildir:{self._path.name}"

    def messages(self) -> Iterator[Delivered]:
        """Every message that is there now, the oldest name first."""
        found: dict[str, Path] = {}
        try:
            for folder in ("new", "cur"):
                with os.scandir(self._path / folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                            found[_uid(entry.name)] = Path(entry.path)
        except OSError as error:
            raise Unavailable(Code.MAILBOX_UNREACHABLE, f"mailbox.url: {self._path}: {error.strerror}") from error
        for uid in sorted(found):
            yield Delivered(uid, found[uid])

    def read(self, delivered: Delivered, most: int = LARGEST_MESSAGE + 1) -> bytes | None:
        """The octets, at most `most`, by default one past what is ever looked at; None where it cannot be read now."""
        try:
            with delivered.file.open("rb") as opened:
                return opened.read(most)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("%s: %s", delivered.uid, error.strerror, extra={"action": "unreadable", "uid": delivered.uid})
            return None


def _uid(name: str) -> str:
    """A file's name up to its flags; octets that are no text are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").partition(":")[0]
