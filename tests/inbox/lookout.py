"""Inboxes in processes of their own, that look at the same moment: `python -m tests.inbox.lookout FOLDER NOW`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from outbox import config, inbox
from tests.house import HandClock, House


def look_together(house: House, *, processes: int) -> None:
    """Start so many inboxes; when all have opened their door, let them look once; each must end well."""
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-m", "tests.inbox.lookout", str(house.folder), str(house.clock.now)]
    started = [
        subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(processes)
    ]
    try:
        for one in started:
            assert one.stdout is not None
            assert one.stdout.readline() == b"ready\n"
        for one in started:
            assert one.stdin is not None
            one.stdin.write(b"go\n")
            one.stdin.flush()
    finally:
        ended = [one.communicate() for one in started]
    assert [one.returncode for one in started] == [0] * processes, ended


def main(folder: str, now: str) -> None:
    """Open the door, say so, wait for the word, look once."""
    with inbox.open(config.load(Path(folder) / "outbox.toml"), clock=HandClock(int(now))) as room:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        room.once()


if __name__ == "__main__":
    main(*sys.argv[1:])
