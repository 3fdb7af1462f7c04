"""A slower disk than the one there is: a shim in C before fsync and fdatasync."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.command import CommandFailed


@contextmanager
def slow_disk(microseconds: int) -> Iterator[dict[str, str]]:
    """The environment of a process whose disk is so much slower. Raises CommandFailed without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise CommandFailed("there is no C compiler (apt-get install gcc libc6-dev)")
    folder = Path(tempfile.mkdtemp())
    try:
        library = folder / "slow_disk.so"
        source = Path(__file__).with_name("slow_disk.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
        yield {"LD_PRELOAD": str(library), "SLOW_DISK": str(microseconds)}
    finally:
        shutil.rmtree(folder)
