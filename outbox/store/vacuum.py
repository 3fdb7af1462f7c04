"""What a SQLite file holds that is free, and giving it back to the disk; a server looks after that itself."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from outbox.store.engine import Database, translated
from outbox.store.writer import Transaction

_INCREMENTAL = 2  # as PRAGMA auto_vacuum says it


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """Pages that hold nothing, of how many octets each, and whether they can be given back a few at a time."""

    pages: int
    page_octets: int
    is_incremental: bool

    @property
    def octets(self) -> int:
        """All of them."""
        return self.pages * self.page_octets


def free_space(connection: Connection) -> FreeSpace | None:
    """What is free inside the file; None for a server."""
    if connection.dialect.name != "sqlite":
        return None
    pages, octets, way = (
        int(connection.execute(text(f"PRAGMA {name}")).scalar_one())
        for name in ("freelist_count", "page_size", "auto_vacuum")
    )
    return FreeSpace(pages, octets, way == _INCREMENTAL)


def free_without_wiping(tx: Transaction) -> None:
    """From now on pages that this connection frees are not written full of zeros, which takes as long as a message is.

    Debian's SQLite does that. What was in them goes as others come in their place, or as they are given back.
    """
    if tx.connection.dialect.name == "sqlite":
        tx.connection.exec_driver_sql("PRAGMA secure_delete = FAST")


def give_back(tx: Transaction, pages: int) -> None:
    """Move what lies at the file's end into free pages, at most as many, and cut the end off."""
    cursor = tx.connection.connection.cursor()
    for _ in range(pages):  # Python's sqlite3 takes one step of it, which is one page, however many are asked for
        cursor.execute("PRAGMA incremental_vacuum(1)")
    cursor.close()


def rewrite(database: Database) -> None:
    """Write the whole file anew, without what is free; from then on it can be given back a few pages at a time.

    Nobody else can write meanwhile. Raises Unavailable.
    """
    raw = database.writer.raw_connection()
    try:
        with translated(database.name):
            cursor = raw.cursor()
            cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
            cursor.execute("VACUUM")
            cursor.close()
    finally:
        raw.close()
