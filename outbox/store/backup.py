"""SQLite's own online copy: one moment of the database, while others write."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from outbox.core.errors import Code, Unavailable
from outbox.store.engine import connect, translated


def copy_database(source: Path, target: Path) -> None:
    """Copy `source` into the empty file `target`, and look whether it is sound. Raises Unavailable, ConfigError."""
    connect(source).close()
    with (
        translated(str(source)),
        closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as from_there,
        closing(sqlite3.connect(target)) as to_there,
    ):
        from_there.backup(to_there)  # at one go: in parts it begins anew whenever somebody writes
        to_there.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        found = to_there.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{source}: its copy is not sound: {found}")
