"""What every crash must leave whole: the journal's chains, and each draft where its rows lead."""

from __future__ import annotations

from outbox.core.lifecycle import EDGES
from outbox.core.signing import KeyRing
from tests.house import House
from tests.store.replay import replayed
from tests.store.stage import broken_links, journal_of


def ring(house: House, name: str) -> KeyRing:
    return KeyRing([(house.folder / "keys" / f"{name}.key").read_bytes()])


def assert_the_journal_holds(house: House) -> None:
    """Every chain verifies, and every draft is where its rows lead along EDGES."""
    with house.connection() as connection:
        recorded = journal_of(connection)
        states = dict(connection.execute("SELECT id, state FROM drafts").fetchall())
    drafted = [row for row in recorded if row.entry.writer.startswith("drafter:")]
    assert broken_links(drafted, ring(house, "draft")) == []
    assert broken_links([row for row in recorded if row not in drafted], ring(house, "grant")) == []
    assert replayed(recorded, EDGES) == states
