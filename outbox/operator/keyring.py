"""Keys as files: list them, rotate, retire and revoke them while drafts, grants and reply tokens are under way.

Rooms read their keys as they start. So a new key is made to verify first, last in the list, and signs only when the
workers that run know it. A key that is not needed any more is moved to `retired` beside the others, where the journal,
the ledger and receipts still find it; a revoked one gets the suffix `.revoked` there. Every step leaves, wherever the
machine stops in it, settings with which the rooms start, and can be done again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, get_args

from outbox.clock import Clock, new_id, wall
from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, ConfigError, StateRefused, TryLater
from outbox.core.lifecycle import Room
from outbox.core.signing import MINIMUM_KEY_OCTETS, KeyRing, Purpose
from outbox.keyfiles import read_key
from outbox.operator.enrolment import write_new
from outbox.operator.keylist import Change, KeyList, Name, own_like, replace_file, sync_folder
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.key_use import (
    KeyUse,
    Rotations,
    cancel_if_signed_with,
    last_signed,
    rotations_told,
    use_of,
    workers_signing_with,
    workers_since_before,
)
from outbox.store.pause import pause_if_running, standing_pause
from outbox.store.revision import refuse_other_revision
from outbox.store.writer import Transaction, Writer

Result = TypeVar("Result")
NAMES: tuple[Name, ...] = get_args(Name)
QUIET = 3600 * MICROSECONDS  # a key that a room signed with since it was replaced, and within this, is still in use
RETIRED, REVOKED = "retired", ".revoked"
_KNOWN_BY = {"draft": "the worker", "grant": "inbox and worker"}


class KeyState(StrEnum):
    """What a key does: only the newest signs, and those below `older` verify nothing that could be sent."""

    NEWEST = "newest"
    WAITS = "waits"
    OLDER = "older"
    UNLISTED = "unlisted"
    RETIRED = "retired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Key:
    """One key file. `id` is None where this user cannot read it; `use` where nobody asked."""

    name: Name
    id: str | None
    file: Path
    state: KeyState
    octets: bytes = field(default=b"", repr=False)
    use: KeyUse | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a revocation did. `made` is the key that had to be made; `workers` still believe the revoked one."""

    key: Key
    made: Key | None
    cancelled: tuple[str, ...]
    stopping: tuple[str, ...]
    workers: tuple[str, ...]


def parse_name(text: str) -> Name:
    """One of the two names."""
    return "draft" if text == "draft" else "grant"


def known_by(name: Name) -> str:
    """The rooms that have to know a key before it signs."""
    return _KNOWN_BY[name]


class Keys:
    """The keys of both names. `file` is the settings file, where it is not ./outbox.toml beside the rest."""

    def __init__(self, settings: Settings, *, file: Path | None = None, clock: Clock = wall) -> None:
        self._settings, self._file, self._clock = settings, file, clock
        self._database = connect(settings.database_place, Room.OPERATOR)
        refuse_other_revision(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def all_keys(self) -> list[Key]:
        """Every key file that there is, with what needs it: the draft keys, then the grant keys, newest first."""
        now, told = self._clock(), self._rotations()
        with self._database.reading() as connection:
            return [
                replace(key, use=use_of(connection, key.id, now=now) if key.id is not None else None)
                for name in NAMES
                for key in self._all(name, told)
            ]

    def rotate(self, name: Name) -> Key:
        """Make a key that verifies and does not sign yet. Raises StateRefused where one waits already."""
        listed = self._in_use(name)
        if waiting := next((key for key in listed if key.state is KeyState.WAITS), None):
            words = f"key {waiting.id} waits already; once {known_by(name)} were started again, rotate with --activate"
            raise StateRefused(Code.STATE_CONFLICT, words)
        listing = KeyList.read(self._settings, self._file, name)
        new, written = self._new(listing, listed)
        change = listing.changed_to((*listing.written, written))
        self._write(new, listed)
        now = self._clock()

        def list_last(tx: Transaction) -> None:
            tx.journal("rotate_key", now=now, detail={"name": name, "key": new.id})
            change.apply()

        self._run(name, listed, list_last)
        change.refuse_unsafe(f"made {new.file}; ")
        return new

    def activate(self, name: Name) -> Key:
        """Let the key that waits sign. Raises TryLater while a worker runs that was started before it was made."""
        listed, told = self._in_use(name), self._rotations()
        waiting = next((key for key in listed if key.state is KeyState.WAITS), None)
        if waiting is None or waiting.id is None:
            raise StateRefused(Code.STATE_CONFLICT, f"no {name} key waits; `outbox keys rotate {name}` makes one")
        listing = KeyList.read(self._settings, self._file, name)
        place, now = listed.index(waiting), self._clock()
        others = (*listing.written[:place], *listing.written[place + 1 :])
        change = listing.changed_to((listing.written[place], *others))
        change.refuse_unsafe(todo=", then do this again")
        made_at, key_id, before = told.made[waiting.id], waiting.id, listed[0].id

        def list_first(tx: Transaction) -> None:
            if unaware := workers_since_before(tx.connection, made_at):
                words = f"worker {unaware[0]} was started before key {key_id} was made; start it again, then activate"
                raise TryLater(Code.WORKER_ALIVE, words)
            tx.journal("activate_key", now=now, detail={"name": name, "key": key_id, "before": before})
            change.apply()

        self._run(name, listed, list_first)
        return replace(waiting, state=KeyState.NEWEST)

    def retire(self, named: str) -> Key:
        """Take a key out of use, by id or file. Raises StateRefused where something needs it, or there is none."""
        key = self._find(named)
        if key.state in {KeyState.RETIRED, KeyState.REVOKED}:
            raise StateRefused(Code.STATE_CONFLICT, f"key {key.id} is {key.state} already")
        if key.state is KeyState.NEWEST:
            words = f"key {key.id} is the newest, and signs; `outbox keys rotate {key.name}` makes another"
            raise StateRefused(Code.KEY_IN_USE, words)
        listed = self._in_use(key.name)
        staying = [one for one in listed if one.id != key.id]
        change = self._without(key, listed)
        change.refuse_unsafe(todo=", then do this again")
        retired = _place(key, KeyState.RETIRED)

        def take_out(tx: Transaction) -> None:
            self._refuse_in_use(tx, key, staying[0])
            tx.journal("retire_key", now=self._clock(), detail={"name": key.name, "key": key.id})
            self._copy(key, retired)
            change.apply()

        self._run(key.name, staying, take_out)
        _remove(key.file)
        return replace(key, file=retired, state=KeyState.RETIRED)

    def revoke(self, named: str) -> Revocation:
        """Void a key that leaked, by id or file: its drafts, grants and tokens with it. May be done again.

        Where a worker runs, which goes on believing the key until it is started again, the outbox is paused.
        """
        key = self._find(named)
        listed = self._in_use(key.name)
        staying = [one for one in listed if one.id != key.id]
        made = None
        change = self._without(key, listed)
        if not staying:
            listing = KeyList.read(self._settings, self._file, key.name)
            made, written = self._new(listing, listed)
            change = listing.changed_to((written,))
            self._write(made, listed)
            staying = [made]
        change.refuse_unsafe(f"made {made.file}; " if made is not None else "", todo=", then do this again")
        revoked = _place(key, KeyState.REVOKED)

        def void(tx: Transaction) -> Revocation:
            self._copy(key, revoked)
            change.apply()  # first: whatever fails below, no room that starts now believes it
            return self._void(tx, replace(key, file=revoked, state=KeyState.REVOKED), made)

        done = self._run(key.name, staying, void)
        _remove(key.file if key.state is not KeyState.REVOKED else None)
        _remove(_place(key, KeyState.RETIRED))
        return done

    def _void(self, tx: Transaction, key: Key, made: Key | None) -> Revocation:
        now, key_id = self._clock(), str(key.id)
        voided = cancel_if_signed_with(tx, key_id, now=now)
        workers = tuple(workers_since_before(tx.connection, now))
        counted = {"cancelled": len(voided.cancelled), "stopping": len(voided.stopping)}
        made_id = made.id if made is not None else None
        tx.journal("revoke_key", now=now, detail={"name": key.name, "key": key_id, "made": made_id, **counted})
        if workers and standing_pause(tx.connection) is None:
            reason = f"key {key_id} was revoked: start inbox and worker again, then resume"
            pause_if_running(tx, reason=reason, by="outbox keys revoke", now=now)
        return Revocation(key, made, voided.cancelled, voided.stopping, workers)

    def _refuse_in_use(self, tx: Transaction, key: Key, newest: Key) -> None:
        now, key_id = self._clock(), str(key.id)
        use = use_of(tx.connection, key_id, now=now)
        if use.is_live:
            needed = f"{use.drafts} live drafts, {use.grants} grants and {use.requests} open requests need it"
            raise StateRefused(Code.KEY_IN_USE, f"key {key_id}: {needed}; retire it when they have ended")
        if signing := workers_signing_with(tx.connection, key_id):
            words = f"key {key_id}: worker {signing[0]} still signs with it; start that again"
            raise StateRefused(Code.KEY_IN_USE, words)
        replaced_at = rotations_told(tx.connection).activated.get(str(newest.id))
        if replaced_at is None:
            return
        last = last_signed(tx.connection, key_id, since=max(replaced_at, now - QUIET))
        if last is not None:
            room, at = last
            words = (
                f"the {room} signed with it {(now - at) // (60 * MICROSECONDS)} minutes ago, though another is newer"
            )
            raise StateRefused(Code.KEY_IN_USE, f"key {key_id}: {words}; start that again, and retire it in an hour")

    def _rotations(self) -> Rotations:
        with self._database.reading() as connection:
            return rotations_told(connection)

    def _run(self, name: Name, staying: list[Key], work: Callable[[Transaction], Result]) -> Result:
        """One transaction, journalled with a key that stays: the grant key where this user can read it."""
        ring = KeyRing([key.octets for key in staying])
        if name != "grant" and self._settings.has_key("grant"):
            ring = self._settings.grant_ring()
        writer = Writer(self._database, Chain(Room.OPERATOR, new_id(self._clock()), ring))
        try:
            return writer.run(work)
        finally:
            writer.close()

    def _find(self, named: str) -> Key:
        keys = [key for name in NAMES for key in self._all(name, self._rotations())]
        for key in keys:
            if named == key.id or self._settings.path(Path(named)) == key.file:
                if key.id is None:
                    read_key(key.file, f"keys.{key.name}", in_credentials=False)  # raises, and says why
                return key
        raise StateRefused(Code.KEY_UNKNOWN, f"there is no key {named} here; `outbox keys list` has them", field="KEY")

    def _in_use(self, name: Name) -> list[Key]:
        """The listed keys. Raises ConfigError where one cannot be read, or credentials take their place."""
        ring = self._settings.draft_ring() if name == "draft" else self._settings.grant_ring()
        listed = [key for key in self._all(name, self._rotations()) if key.state in _LISTED]
        if not listed or listed[0].id != _newest(ring) or any(key.id is None for key in listed):
            words = f"keys.{name}: the key is a credential, {name}.key, and only whoever makes that can change it"
            raise ConfigError(Code.NOT_SUPPORTED, words, field=f"keys.{name}")
        return listed

    def _all(self, name: Name, told: Rotations) -> Iterator[Key]:
        """Listed keys first; then those that lie beside them, as a crash may leave them; then those put away."""
        listed = [self._read(name, self._settings.path(file)) for file in getattr(self._settings.keys, name)]
        made = {key.id: told.made.get(key.id or "", 0) for key in listed}
        newest = listed[0].id if listed else None
        waits = max(made, key=lambda key_id: made[key_id], default=None)
        for place, key in enumerate(listed):
            is_waiting = key.id == waits and made[key.id] > made[newest]
            older = KeyState.WAITS if is_waiting else KeyState.OLDER
            yield replace(key, state=older if place else KeyState.NEWEST)
        for folder in dict.fromkeys(key.file.parent for key in listed):
            beside = {*folder.glob(f"{name}.key"), *folder.glob(f"{name}-*.key")} - {key.file for key in listed}
            for file in sorted(beside):
                yield replace(self._read(name, file), state=KeyState.UNLISTED)
            for file in sorted((folder / RETIRED).glob(f"{name}-*.key*")):
                state = KeyState.REVOKED if file.suffix == REVOKED else KeyState.RETIRED
                yield replace(self._read(name, file), state=state)

    def _read(self, name: Name, file: Path) -> Key:
        try:
            octets = read_key(file, f"keys.{name}", in_credentials=False)
        except ConfigError:
            return Key(name, None, file, KeyState.OLDER)
        return Key(name, _newest(KeyRing([octets])), file, KeyState.OLDER, octets)

    def _new(self, listing: KeyList, listed: list[Key]) -> tuple[Key, str]:
        """A fresh key, not written yet, and how the list is to name it: beside the newest."""
        octets = secrets.token_bytes(MINIMUM_KEY_OCTETS)
        key_id = _newest(KeyRing([octets]))
        name = f"{listing.name}-{key_id}.key"
        file = listed[0].file.with_name(name)
        return Key(listing.name, key_id, file, KeyState.WAITS, octets), str(Path(listing.written[0]).with_name(name))

    def _without(self, key: Key, listed: list[Key]) -> Change:
        listing = KeyList.read(self._settings, self._file, key.name)
        named = zip(listing.written, listed, strict=True)
        return listing.changed_to(tuple(written for written, one in named if one.id != key.id))

    def _write(self, key: Key, beside: list[Key]) -> None:
        """Write a key file that was not there, durably, readable for the rooms that read its neighbour alone."""
        with _as_config_error(key):
            write_new(key.file, key.octets, 0o600)
            own_like(key.file, beside[0].file.stat())
            sync_folder(key.file.parent)

    def _copy(self, key: Key, place: Path) -> None:
        """Have a key where it is kept, before it leaves where it was used. Half a copy that is there is replaced."""
        if key.file == place:
            return
        with _as_config_error(key):
            place.parent.mkdir(mode=0o700, exist_ok=True)
            own_like(place.parent, key.file.parent.stat())
            sync_folder(place.parent.parent)
            replace_file(place, key.octets, like=key.file.stat())


@contextmanager
def _as_config_error(key: Key) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        words = f"{error.filename or key.file}: {error.strerror}; nothing was changed that the rooms read"
        raise ConfigError(Code.SECRET_UNREADABLE, words, field=f"keys.{key.name}") from error


_LISTED = {KeyState.NEWEST, KeyState.WAITS, KeyState.OLDER}


def _newest(ring: KeyRing) -> str:
    return ring.sign(Purpose.KEY_ID, b"").key_id


def _place(key: Key, state: KeyState) -> Path:
    """Where a key is kept that is not used any more."""
    folder = key.file.parent if key.state in {KeyState.RETIRED, KeyState.REVOKED} else key.file.parent / RETIRED
    return folder / f"{key.name}-{key.id}.key{REVOKED if state is KeyState.REVOKED else ''}"


def _remove(file: Path | None) -> None:
    """Take a key file away whose copy is kept. One that cannot be taken away is listed no more all the same."""
    if file is not None:
        with suppress(OSError):
            file.unlink(missing_ok=True)
            sync_folder(file.parent)


def open(settings: Settings, *, file: Path | None = None, clock: Clock = wall) -> Keys:
    """Enter the room for its keys. Raises ConfigError or Unavailable where the database is not as needed."""
    return Keys(settings, file=file, clock=clock)
