"""One run of the benchmarks: how large, where its folders are, and what it remembers for all of them."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.machine import Machine, load
from benchmarks.postgres import Postgres
from benchmarks.results import Result

REPETITIONS = 3


@dataclass(slots=True)
class Run:
    """Use as a context manager: its folder, and a PostgreSQL where one is asked for, last as long as it does."""

    quick: bool = False
    huge: bool = False
    repetitions: int = REPETITIONS
    folder: Path = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)
    _postgres: Postgres | None = None
    _names: Iterator[int] = field(default_factory=itertools.count)

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-benchmarks-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def postgres(self) -> Postgres:
        """The run's own server, started when it is first asked for. Raises NoPostgres."""
        if self._postgres is None:
            self._postgres = self._stack.enter_context(Postgres())
        return self._postgres

    def fresh(self) -> Path:
        """A path for a folder that is not there yet, on the disk that is measured."""
        return self.folder / str(next(self._names))

    def size(self, full: int, quick: int) -> int:
        """How many: in a full run, or in a quick one."""
        return quick if self.quick else full

    def result(self, name: str) -> Result:
        """An empty result for one benchmark."""
        return Result(name, self.quick, Machine.look(self.folder))

    def say(self, words: str) -> None:
        """Tell whoever waits how far it is."""
        print(words, file=sys.stderr, flush=True)

    def note_load(self, result: Result) -> None:
        """Remember how busy the machine was before a measurement."""
        result.loads.append(round(load(), 2))
