"""The journal, looked through: that nothing in it was changed, taken out, put elsewhere or cut off.

Every chain is followed from its first row by whoever holds its keys. That a chain ends too early, or is gone, only a
seal shows: so its file is read too, and whatever the operator has from his mail. Then each draft is held against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from outbox.config import Settings
from outbox.core.errors import Code, UsageError, VerificationFailed
from outbox.core.lifecycle import Room, State, Verb
from outbox.core.seal import FIRST, SignedSeal, parse_seal, verify_seal
from outbox.core.signing import Purpose
from outbox.operator.replay import Broken, broken_drafts, facts_in
from outbox.operator.rings import Rings, has_key
from outbox.store.chains import ChainedLink, Link, links_after, links_by_chain, mac_at, rows_until
from outbox.store.engine import connect
from outbox.store.identity import identity_of
from outbox.store.journal import GENESIS
from outbox.store.revision import refuse_other_revision

if TYPE_CHECKING:
    from sqlalchemy import Connection

MOST_SHOWN = 100
SEALS = "seals"
# What an operator journals about drafts only with the grant key: whoever holds the draft key alone is an agent, too.
_NEEDS_GRANT_KEY = frozenset((Verb.APPROVE.value, Verb.REJECT.value, "grant", "seal"))


@dataclass(frozen=True, slots=True)
class Unverified:
    """Rows that a key made which is not held here, and the writer of the first of them."""

    key_id: str
    rows: int
    writer: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look through the journal found: the first MOST_SHOWN things that are broken, and how many there are.

    `newest_seal` is the number and the digest of the newest that was read.
    """

    rows: int
    chains: int
    seals: int
    newest_seal: tuple[int, str] | None
    broken: tuple[Broken, ...]
    found: int
    unverified: tuple[Unverified, ...]


@dataclass(slots=True)
class _Seen:
    """What is kept of the rows that were passed: nothing that grows with them but for seals."""

    rows: int = 0
    chains: int = 0
    unverified: Counter[str] = field(default_factory=Counter)
    writers: dict[str, str] = field(default_factory=dict)
    sealed: dict[int, str] = field(default_factory=dict)
    unnamed: dict[str, str] = field(default_factory=dict)


def seals_file(settings: Settings, named: Path | None = None) -> Path:
    """Where seals are kept."""
    return named if named is not None else settings.state_dir / SEALS


def verify(settings: Settings, rings: Rings, *, seals: Iterable[Path] = ()) -> Inspection:
    """Look through the whole journal, against the seals in the state folder and in the files named.

    One moment is looked at, however long it takes; rooms go on meanwhile. Raises Unavailable, ConfigError, UsageError.
    """
    database = connect(settings.database_place, Room.OPERATOR)
    try:
        refuse_other_revision(database)
        with database.reading() as connection:
            seen = _Seen()
            known = _KnownSeals(connection, rings, seen)
            shown: list[Broken] = []
            found = 0
            for broken in _broken(connection, rings, seen, known, seals_file(settings), tuple(seals)):
                found += 1
                if found <= MOST_SHOWN:
                    shown.append(broken)
    finally:
        database.close()
    unverified = tuple(Unverified(key, rows, seen.writers[key]) for key, rows in seen.unverified.items())
    return Inspection(seen.rows, seen.chains, known.count, known.newest, tuple(shown), found, unverified)


def export(settings: Settings, *, after: int = 0) -> Iterator[ChainedLink]:
    """Every row after a place, in the order of commits, with what its MAC was made over."""
    database = connect(settings.database_place, Room.OPERATOR)
    try:
        refuse_other_revision(database)
        with database.reading() as connection:
            yield from links_after(connection, after)
    finally:
        database.close()


def _broken(
    connection: Connection, rings: Rings, seen: _Seen, known: _KnownSeals, file: Path, others: tuple[Path, ...]
) -> Iterator[Broken]:
    yield from _broken_chains(links_by_chain(connection), rings, seen)
    if file.exists():
        yield from known.read(file)
    for other in others:
        yield from known.read(other)
    yield from known.missing(file)
    yield from broken_drafts(connection, seen.unnamed)


def _broken_chains(links: Iterable[Link], rings: Rings, seen: _Seen) -> Iterator[Broken]:
    last: Link | None = None
    for link in links:
        entry = link.entry
        if last is None or last.entry.writer != entry.writer:
            last = None
            seen.chains += 1
        seen.rows += 1
        _note(entry.action, link, seen)
        why = _why_broken(link, last, rings, seen)
        if why is not None:
            yield Broken(*why, entry.writer, entry.seq, entry.draft_id)
        last = link


def _why_broken(link: Link, last: Link | None, rings: Rings, seen: _Seen) -> tuple[str, str] | None:
    """What is wrong with a row behind the `last` one of its chain: a word, and why; None where nothing is."""
    entry = link.entry
    before = last.entry.seq if last is not None else 0
    if entry.seq != before + 1:
        gone = entry.seq - before - 1
        return "missing", f"{gone} {'row is' if gone == 1 else 'rows are'} missing before this one"
    if last is not None and link.place <= last.place:
        return "order", "it was put before a row that it follows"
    if (room := _room(entry.writer)) is None:
        return "altered", "its writer is no room"
    if not rings.hold(link.signature.key_id):
        seen.unverified[link.signature.key_id] += 1
        seen.writers.setdefault(link.signature.key_id, entry.writer)
        return None
    payload = _canonical(link, last.signature.octets if last is not None else GENESIS)
    may = [ring for ring in rings.of(room) if not _is_beyond(link) or ring is rings.grant]
    if payload is None or not any(ring.verify(Purpose.JOURNAL, payload, link.signature) for ring in may):
        if has_key(rings.draft, link.signature.key_id) and rings.draft not in may:
            return "altered", "the draft key is named for it, which nobody writes this with"
        return "altered", "it is not what was written, or its predecessor is not"
    return None


def _is_beyond(link: Link) -> bool:
    """Whether the draft key is not enough to write this row."""
    entry = link.entry
    is_born_approved = entry.action == Verb.INSERT and facts_in(entry.detail).get("to") == State.APPROVED
    return entry.action in _NEEDS_GRANT_KEY or is_born_approved


def _canonical(link: Link, previous: bytes) -> bytes | None:
    try:
        return link.entry.canonical(previous)
    except VerificationFailed:  # nobody wrote such a value
        return None


def _room(writer: str) -> Room | None:
    room, colon, run = writer.partition(":")
    return Room(room) if room in set(Room) and colon and run else None


def _note(action: str, link: Link, seen: _Seen) -> None:
    entry = link.entry
    if action == "seal":
        facts = facts_in(entry.detail)
        number, digest = facts.get("seal"), facts.get("digest")
        if isinstance(number, int) and isinstance(digest, str):
            seen.sealed[number] = digest
    elif action == "done" and entry.draft_id is None and entry.attempt_id is not None:
        seen.unnamed[entry.attempt_id] = str(facts_in(entry.detail).get("outcome"))


class _KnownSeals:
    """The seals that were read so far, by number: the same number is the same seal, wherever it was kept."""

    def __init__(self, connection: Connection, rings: Rings, seen: _Seen) -> None:
        self._connection, self._rings, self._seen = connection, rings, seen
        self._digests: dict[int, str] = {}
        self._database = identity_of(connection).id

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._digests)

    @property
    def newest(self) -> tuple[int, str] | None:
        """Number and digest of the newest."""
        return max(self._digests.items(), default=None)

    def read(self, file: Path) -> Iterator[Broken]:
        """Read a file of seals, and hold the journal against each."""
        last: SignedSeal | None = None
        try:
            with file.open("rb") as opened:
                for number, line in enumerate(opened, 1):
                    try:
                        signed = parse_seal(line)
                    except VerificationFailed as failed:
                        yield Broken("seal", f"line {number} of {file}: {failed.message}")
                        continue
                    yield from self._broken(signed, file)
                    if last is not None and signed.seal.number == last.seal.number + 1:
                        yield from self._unlinked(signed, last.digest, file)
                    elif signed.seal.number == 1:
                        yield from self._unlinked(signed, FIRST, file)
                    last = signed
        except OSError as error:
            raise UsageError(Code.FILE_UNREADABLE, f"{file} cannot be read: {error.strerror}", field="--seal") from None
        if last is not None:
            yield from self._broken_count(last, file)

    def missing(self, file: Path) -> Iterator[Broken]:
        """Seals that the journal says were made, and that are in none of the files."""
        absent = sorted(number for number, digest in self._seen.sealed.items() if self._digests.get(number) != digest)
        if len(absent) == 1:
            yield Broken("seal", f"seal {absent[0]} was made, and it is not in {file}")
        elif absent:
            yield Broken("seal", f"{len(absent)} seals were made, from {absent[0]} on, that are not in {file}")

    def _unlinked(self, signed: SignedSeal, before: bytes, file: Path) -> Iterator[Broken]:
        if signed.seal.previous != before:
            yield Broken("seal", f"seal {signed.seal.number} in {file} does not follow the one before it")

    def _broken(self, signed: SignedSeal, file: Path) -> Iterator[Broken]:
        seal = signed.seal
        name, digest = f"seal {seal.number} in {file}", signed.digest.hex()
        if self._digests.setdefault(seal.number, digest) != digest:
            yield Broken("seal", f"{name} is not the one that was read before")
        if seal.database != self._database:
            yield Broken("seal", f"{name} is of another database")
            return
        if not has_key(self._rings.grant, signed.signature.key_id):
            self._seen.unverified[signed.signature.key_id] += 1
            self._seen.writers.setdefault(signed.signature.key_id, name)
        elif self._rings.grant is None or not verify_seal(self._rings.grant, signed):
            yield Broken("seal", f"{name} is not what was sealed")
        for head in seal.heads:
            mac = mac_at(self._connection, head.writer, head.seq)
            if mac != head.mac:
                words = "is not there any more" if mac is None else "is another one now"
                why = f"a row that {name} has {words}: the chain was cut off or written anew"
                yield Broken("cut", why, head.writer, head.seq)

    def _broken_count(self, signed: SignedSeal, file: Path) -> Iterator[Broken]:
        rows = rows_until(self._connection, signed.seal.place)
        if signed.seal.database == self._database and rows != signed.seal.rows:
            why = f"seal {signed.seal.number} in {file} counts {signed.seal.rows} rows, and {rows} are there of them"
            yield Broken("cut", why)
