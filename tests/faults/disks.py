"""Disks that fill up and empty again while a worker runs, and the house that stands on them."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.house import House
from tests.relay.adversary import Adversary, Hold, Keep, Phase, complete
from tests.worker.hand import on_wall_clock, start_worker

MEGABYTES = 8
PATIENCE = 60.0  # seconds
OK = complete(250, "2.0.0 Ok: queued as 4F2")
HELD = {
    "MAIL": {Phase.MAIL: [Hold(), complete(250, "2.1.0 Ok")]},
    "DATA": {Phase.DATA: [Hold(), complete(354, "Go")]},
    "dot": {Phase.DOT: [Keep(), Hold(), OK]},
}


class Limited:
    """A process whose files may not grow: EFBIG, for anybody who runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()

    def fill(self, process: subprocess.Popen[str]) -> None:
        """From here on its writes fail."""
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, hard))

    def empty(self, process: subprocess.Popen[str]) -> None:
        """From here on they succeed again."""
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))


class Mounted:
    """A file system of a few megabytes in memory: ENOSPC. As root, where mounting is allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, process: subprocess.Popen[str] | None = None) -> None:
        """Leave no octet free."""
        del process
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):  # ENOSPC
                    while True:
                        file.write(bytes(size))

    def empty(self, process: subprocess.Popen[str] | None = None) -> None:
        """Give it all back."""
        del process
        self._ballast.unlink()


@contextmanager
def mounted(folder: Path) -> Iterator[Mounted]:
    """A small file system at a new folder; gone when this is left."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "outbox-test", folder], check=True)
    try:
        yield Mounted(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def can_mount() -> bool:
    """Whether a small file system can be mounted here."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "outbox-test", folder], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


@contextmanager
def home_on(folder: Path, *scripts: object) -> Iterator[tuple[House, Adversary, str]]:
    """A house with one approved draft, on the clock of the processes."""
    with Adversary(*scripts) as relay:  # type: ignore[arg-type]
        house = on_wall_clock(House.build(folder, relay))  # type: ignore[arg-type]
        house.set("relay", retry="[1]")
        yield house, relay, house.approved().id


@contextmanager
def worker_of(house: House) -> Iterator[subprocess.Popen[str]]:
    """A drain as a process; gone when this is left."""
    process = start_worker(house, "--drain")
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Until it says so on stderr."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended without {words}")


def lines_of(file: Path) -> list[bytes]:
    """A file's lines, with their ends."""
    return file.read_bytes().splitlines(keepends=True)
