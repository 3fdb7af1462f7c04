"""The relays that everything is drained into, each a process of its own, and what each accepted, counted at its end."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.sink import HEAD, RECORD, UNNUMBERED

_BOUND = 30.0  # seconds for a relay to listen
_SETTLED = 2.0  # seconds for what was accepted to be in the tally


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One message accepted; `at` by CLOCK_MONOTONIC, in seconds."""

    number: int
    at: float


class NotOnce(Exception):
    """The relay did not get each message exactly once: what was measured is not the job."""


class OwnSink:
    """`benchmarks.sink`. Delays in seconds."""

    def __init__(self, *, reply_delay: float = 0.0, dot_delay: float = 0.0) -> None:
        self._delays = ["--reply-delay", str(reply_delay), "--dot-delay", str(dot_delay)]

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(dir=_memory()))
        file = self._folder / "tally"
        command = [sys.executable, "-m", "benchmarks.sink", "--tally", str(file), *self._delays]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        with file.open("rb") as opened:
            self._map = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()
        self._map.close()
        shutil.rmtree(self._folder)

    @property
    def pid(self) -> int:
        """The sink's process."""
        return self._process.pid

    @property
    def count(self) -> int:
        """How many messages were accepted until now."""
        return int(HEAD.unpack_from(self._map, 0)[0])

    def acceptances(self, since: int = 0) -> list[Acceptance]:
        """All of them in order, from the one after `since`."""
        octets = self._map[HEAD.size + since * RECORD.size : HEAD.size + self.count * RECORD.size]
        return [Acceptance(number, at) for number, at in RECORD.iter_unpack(octets)]

    def numbers(self, since: int = 0) -> Counter[int]:
        """How often each number was accepted; mail that has none is left out."""
        return Counter(one.number for one in self.acceptances(since) if one.number != UNNUMBERED)


class PostfixSink:
    """Postfix's smtp-sink. What it took is not counted: writing it down would take it twice the time."""

    def __enter__(self) -> Self:
        self.port = _free_port()
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [str(smtp_program("smtp-sink")), *as_nobody, f"127.0.0.1:{self.port}", "1000"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _wait_for(self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()


Sink = OwnSink | PostfixSink


def best_sink() -> Sink:
    """smtp-sink where Postfix is installed, else our own."""
    return PostfixSink() if smtp_program("smtp-sink") is not None else OwnSink()


def refuse_other_than_once(sink: OwnSink, count: int) -> None:
    """Raise NotOnce unless the sink got each of `count` messages once. What is still in its buffers is waited for."""
    until = time.monotonic() + _SETTLED
    while sum((numbers := sink.numbers()).values()) < count and time.monotonic() < until:
        time.sleep(0.05)
    lost = count - len(numbers)
    repeated = sum(numbers.values()) - len(numbers)
    if lost or repeated:
        raise NotOnce(f"of {count} messages {lost} did not come, and {repeated} came again")


def smtp_program(name: str) -> Path | None:
    """Where a program of Postfix is, or None."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/lib/postfix/sbin")
    return Path(found) if found else None


def _memory() -> str | None:
    """A folder in memory, where there is one: the sink's own writes are no part of what is measured."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    until = time.monotonic() + _BOUND
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return
