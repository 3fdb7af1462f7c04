"""Looks at a mailbox in processes that may take only so much: `python -m tests.inbox.explosion`, a line for each look.

It imports once, and forks for each look: a folder and the time in, what became of the process and what it took out.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from outbox import config, inbox
from tests.house import HandClock, House

MEMORY = 2**30  # octets of address space
PROCESSOR = 20  # seconds


@dataclass(frozen=True)
class Ended:
    """How a look ended: its exit code, or the negative number of the signal that ended it."""

    code: int
    seconds: float
    megabytes: int


@dataclass
class Bunker:
    """Lets inboxes look in processes of their own."""

    _process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Self:
        root = Path(__file__).parent.parent.parent
        command = [sys.executable, "-m", "tests.inbox.explosion"]
        self._process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def look(self, house: House) -> Ended:
        """Look once within MEMORY and PROCESSOR."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(house.folder), house.clock.now]) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


def _look(folder: str, now: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR))
    with inbox.open(config.load(Path(folder) / "outbox.toml"), clock=HandClock(now)) as room:
        room.once()


def main() -> None:
    """Fork for each line, until there are no more."""
    import outbox.inbox.dkim  # noqa: F401  so that no look pays for it

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                _look(*json.loads(line))
            except BaseException:  # noqa: BLE001  a process of its own: whatever ends it is what is looked at
                os._exit(1)
            os._exit(0)
        _, status, used = os.wait4(child, 0)
        ended = [os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss // 1024]
        sys.stdout.write(json.dumps(ended) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
