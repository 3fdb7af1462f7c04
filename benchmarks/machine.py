"""Where a run was made: what the machine is, what is installed, and what its disk and its loopback can do at most."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "outbox-gate",
    "SQLAlchemy",
    "aiosmtplib",
    "django",
    "django-post-office",
    "django-mailer",
    "huey",
    "procrastinate",
    "psycopg",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that a figure depends on, as text."""

    at: str
    commit: str
    processor: str
    cores: int
    memory_gb: float
    kernel: str
    file_system: str
    versions: dict[str, str]

    @classmethod
    def look(cls, work: Path) -> Machine:
        """This machine, and the file system of the folder that databases are made in."""
        return cls(
            at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            commit=_output("git", "describe", "--always", "--dirty"),
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)),
            memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            kernel=platform.release(),
            file_system=_output("stat", "-f", "-c", "%T", str(work)),
            versions=_versions(),
        )


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def syncs_per_second(folder: Path, seconds: float) -> float:
    """How often 4 KB can be appended and synced in a second: no commit is faster than that."""
    file = folder / "synced"
    with file.open("wb", buffering=0) as opened:
        ends, count = time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            opened.write(b"x" * 4096)
            os.fdatasync(opened.fileno())
            count += 1
    file.unlink()
    return count / seconds


def commits_per_second(folder: Path, seconds: float) -> float:
    """How many one-row transactions SQLite commits durably in a second (WAL, synchronous=FULL)."""
    file = folder / "committed.db"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, octets BLOB)")
    ends, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        connection.execute("INSERT INTO rows (octets) VALUES (randomblob(200))")
        count += 1
    connection.close()
    for each in folder.glob("committed.db*"):
        each.unlink()
    return count / seconds


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {"Python": sys.version.split()[0], "SQLite": sqlite3.sqlite_version}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    from benchmarks.relays import smtp_program

    if smtp_program("smtp-sink") is not None:
        found["Postfix"] = _output("postconf", "-h", "mail_version")
    return found


def _output(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
