"""Linux tells when a file is written to: no look at it in between. What cannot be watched is looked at instead."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_IN_MODIFY = 2  # inotify(7)
_EVENTS = 64 * 1024  # octets that are read at a time


class FileWatch:
    """An inotify instance on one file, with a descriptor that is readable once the file was written to."""

    def __init__(self, name: str) -> None:
        """Raises OSError where it cannot be watched."""
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self.descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            watches = (
                self.descriptor >= 0 and libc.inotify_add_watch(self.descriptor, os.fsencode(name), _IN_MODIFY) >= 0
            )
        except AttributeError as error:
            raise OSError("this system has no inotify") from error
        if not watches:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number), name)

    def forget(self) -> bool:
        """Take what came in, so that the descriptor waits for what comes next; whether anything had."""
        has_come = False
        with suppress(BlockingIOError):
            while (size := len(os.read(self.descriptor, _EVENTS))) > 0:
                has_come = True
                if size < _EVENTS:
                    break
        return has_come

    def close(self) -> None:
        """Watch no more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
