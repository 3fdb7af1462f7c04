"""Run one command whole, from exec to exit, and say what it cost."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_SAMPLED = 0.05  # seconds between looks at the memory
_KIB = 1024
_TICKS = os.sysconf("SC_CLK_TCK")


class CommandFailed(Exception):
    """A contestant's command did not end as it should."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall clock and CPU (user and system, of the whole tree) in seconds; memory in MB.

    `peak` is the sum of each process's own peak; `early` and `late` are the first process's after a quarter of the run,
    and at its end.
    """

    wall: float
    cpu: float
    peak: float
    early: float
    late: float


@dataclass(slots=True)
class Started:
    """A command that runs, in a process group of its own."""

    words: Sequence[str]
    process: subprocess.Popen[bytes]
    began: float
    errors: Path
    _samples: list[float] = field(default_factory=list)
    _peaks: dict[int, float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _sampler: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def wait(self, *, codes: Sequence[int] = (0,)) -> Cost:
        """Until it has ended. Raises CommandFailed for another exit code, with the end of its stderr."""
        _, status, used = os.wait4(self.process.pid, 0)
        wall = time.monotonic() - self.began
        self._end_sampling()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        words = self.errors.read_text(errors="replace")[-2000:]
        self.errors.unlink()
        if self.process.returncode not in codes:
            raise CommandFailed(f"{' '.join(self.words)} ended with {self.process.returncode}: {words}")
        samples = self._samples or [0.0]
        early, late = samples[len(samples) // 4], samples[-1]
        return Cost(wall, used.ru_utime + used.ru_stime, sum(self._peaks.values()), early, late)

    def kill(self) -> None:
        """SIGKILL for it and whatever it has started, if any of it is still there."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._end_sampling()
        self.errors.unlink(missing_ok=True)

    def stop(self) -> Cost:
        """SIGTERM, and wait."""
        self.process.terminate()
        return self.wait(codes=(0, -signal.SIGTERM))

    def _end_sampling(self) -> None:
        self._ended.set()
        self._sampler.join()

    def _sample(self) -> None:
        """Not by ru_maxrss: that is the memory of the process that forked, where it was larger."""
        while not self._ended.wait(_SAMPLED):
            for pid in (self.process.pid, *_children(self.process.pid)):
                resident, peak = memory(pid)
                self._peaks[pid] = max(peak, self._peaks.get(pid, 0.0))
                if pid == self.process.pid and resident:
                    self._samples.append(resident)


def start(words: Sequence[str], *, environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Started:
    """Start a command in a process group of its own, its stdout thrown away."""
    handle, name = tempfile.mkstemp()
    with os.fdopen(handle, "wb") as errors:
        began = time.monotonic()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            start_new_session=True,
        )
    return Started(words, process, began, Path(name))


def run(words: Sequence[str], *, environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Cost:
    """Run a command to its end. Raises CommandFailed."""
    return start(words, environment=environment, folder=folder).wait()


def memory(pid: int) -> tuple[float, float]:
    """What a process holds in memory now, and at most until now, in MB; 0 where it has ended."""
    try:
        words = Path(f"/proc/{pid}/status").read_text().split()
    except OSError:
        return 0.0, 0.0
    if "VmRSS:" not in words:
        return 0.0, 0.0
    found = [int(words[words.index(name) + 1]) * _KIB / 1e6 for name in ("VmRSS:", "VmHWM:")]
    return found[0], found[1]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def cpu_of_tree(pid: int) -> float:
    """CPU seconds of a process, its living descendants, and those it has waited for."""
    total = 0.0
    for one in _tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15]) / _TICKS
    return total


def _tree(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for one in found:
        found.extend(parents.get(one, []))
    return found
