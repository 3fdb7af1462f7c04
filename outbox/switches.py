"""Kill switches beside the database's pause: a file, and an environment variable. Nothing leaves while one is on."""

from __future__ import annotations

import os
from pathlib import Path

FILE = "paused"


class Switches:
    """`state/paused`, looked at again each time, and OUTBOX_PAUSED, as it was when this process started."""

    def __init__(self, state_dir: Path, *, by_environment: bool) -> None:
        self._file, self._by_environment = str(state_dir / FILE), by_environment

    def thrown(self) -> str | None:
        """Which switch is on, in words; None where neither is. A file that cannot be looked at counts as one."""
        if self._by_environment:
            return "OUTBOX_PAUSED is set"
        try:
            os.lstat(self._file)
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"{self._file}: {error.strerror}"
        return f"there is a file {self._file}"
