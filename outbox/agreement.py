"""Whether the ledger and the database are of one time: where they are not, no worker starts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from outbox.core.errors import Code, Unavailable
from outbox.core.signing import KeyRing
from outbox.forgetting import Needed, clear, forget, is_worth_it
from outbox.ledger import NAME, Ledger, LedgerRefused, sync_folder
from outbox.ledger_id import known_ledger_id
from outbox.lock import living
from outbox.store.engine import Database
from outbox.store.identity import (
    NEWEST,
    Whose,
    has_gaps_since,
    identity_of,
    knows_fence,
    newest_accepted,
    newest_gap,
    now_executing,
    unknown_gaps,
)
from outbox.store.instants import newest_instant_of_workers

Found = TypeVar("Found")
log = logging.getLogger("outbox.worker")
_TODO = (
    "nothing is sent till then. Put back what belongs together, or see docs/howto/backup.md and run "
    "`outbox fence accept`"
)


@dataclass(frozen=True, slots=True)
class _Extent:
    """How much of both is read: octets at the ledger's end, all where None, and how many of the newest that left."""

    octets: int | None = None
    left: int = NEWEST
    read_only: bool = True


_WHOLE, _TO_WRITE = _Extent(), _Extent(read_only=False)
_GLANCE = _Extent(64 * 1024, 20)  # in so many octets are some eighty that left
_TRIES = 3  # at a file that is written anew just then
_WRITTEN_ANEW = 60.0  # seconds that another worker may take for that


def open_ledger(
    state_dir: Path, ring: KeyRing, database: Database, *, worker_id: str | None = None, now: int = 0
) -> Ledger:
    """The ledger, begun where this database has never entered a gap. Raises LedgerRefused, or Unavailable.

    For a worker that holds its lock, and is the only one here, it is made shorter first where that is worth it at `now`
    (microseconds UTC).
    """
    ledger = _open(state_dir, ring, database, extent=_TO_WRITE)
    if ledger is None:
        with database.reading() as connection:
            return Ledger.begin(state_dir, ring, identity_of(connection).id)
    with ExitStack() as unless_kept:
        unless_kept.callback(ledger.close)
        if worker_id is None or not _made_shorter(ledger, ring, database, worker_id, now):
            unless_kept.pop_all()
            return ledger
    return open_ledger(state_dir, ring, database)


def disagreement(
    state_dir: Path, ring: KeyRing, database: Database, *, at_a_glance: bool = False
) -> LedgerRefused | None:
    """Why no worker would start, if so. Raises Unavailable where that cannot be looked at.

    At a glance, all is well where the newest lines are, and all of them are read only where those show anything amiss.
    """
    for extent in (_GLANCE, _WHOLE) if at_a_glance else (_WHOLE,):
        try:
            ledger = _open(state_dir, ring, database, extent=extent)
        except LedgerRefused as error:
            found = error
            continue
        if ledger is None:
            return None
        ledger.close()
        if extent is _WHOLE or ledger.index.newest_at:  # else there was no gap among them to compare
            return None
    return found


def read_ledger(state_dir: Path, ring: KeyRing, database: Database) -> Ledger:
    """The ledger, to look things up in. Raises LedgerRefused, or Unavailable."""
    with database.reading() as connection:
        named = identity_of(connection)
    return _at_rest(state_dir, lambda: Ledger.open(state_dir, ring, named.id, read_only=True))


def _made_shorter(ledger: Ledger, ring: KeyRing, database: Database, worker_id: str, now: int) -> bool:
    """Whether the file is another one now. Where it cannot be written, the old one will do."""
    with ExitStack() as held:
        try:
            held.enter_context(ledger.held())
            if living(ledger.folder) != [worker_id]:  # whoever comes now waits till this is over
                return False
            clear(ledger.folder)
        except (OSError, Unavailable) as error:
            return _stays(error)
        if not is_worth_it(ledger, now=now) or not _is_believed(now, ledger, database):
            return False
        with database.reading() as connection:
            executing = now_executing(connection)
        try:
            count = forget(ledger, ring, Needed(executing.attempts, executing.claimed_until), now=now)
        except OSError as error:
            return _stays(error)
    log.info("the ledger let go of %d lines", count, extra={"action": "ledger"})
    return True


def _stays(error: Exception) -> Literal[False]:
    log.warning("the ledger is not made shorter: %s", error, extra={"action": "ledger"})
    return False


def _is_believed(now: int, ledger: Ledger, database: Database) -> bool:
    """Whether nothing that was written is ahead of this clock."""
    with database.reading() as connection:
        return now >= max(ledger.index.newest_at, newest_instant_of_workers(connection), newest_gap(connection))


def _open(state_dir: Path, ring: KeyRing, database: Database, *, extent: _Extent) -> Ledger | None:
    return _at_rest(state_dir, lambda: _opened(state_dir, ring, database, extent))


def _at_rest(state_dir: Path, opened: Callable[[], Found]) -> Found:
    """Open it once more where it was another file by the end: a worker that starts may have written it anew."""
    for _ in range(_TRIES - 1):
        try:
            return opened()
        except LedgerRefused as error:
            if error.code is not Code.LEDGER_MISSING or not (state_dir / NAME).exists():
                raise
    return opened()


def _opened(state_dir: Path, ring: KeyRing, database: Database, extent: _Extent) -> Ledger | None:
    with database.reading() as connection:
        named = identity_of(connection)
        has_gaps = has_gaps_since(connection, named.ledger_since, _whose(state_dir, database))
    try:
        ledger = Ledger.open(state_dir, ring, named.id, read_only=extent.read_only, newest=extent.octets)
    except LedgerRefused as error:
        if error.code is not Code.LEDGER_MISSING:
            raise LedgerRefused(error.code, f"{error.message}; {_TODO}", field=error.field) from error
        if not has_gaps:
            return None
        words = f"{error.message}, and the database has entered gaps; {_TODO}"
        raise LedgerRefused(error.code, words, field=error.field) from error
    with ExitStack() as unless_agreed:
        unless_agreed.callback(ledger.close)
        if not extent.read_only:
            _wait_for_who_writes_it_anew(ledger)
        _refuse_other_times(ledger, database, named.ledger_since, extent.left)
        unless_agreed.pop_all()
    return ledger


def _whose(state_dir: Path, database: Database) -> Whose:
    return Whose(not database.is_server, known_ledger_id(state_dir), socket.gethostname())


def _wait_for_who_writes_it_anew(ledger: Ledger) -> None:
    """From here on nobody does: whoever holds it next finds this worker's lock."""
    with suppress(Unavailable), ledger.held(_WRITTEN_ANEW):  # where it cannot be held, each gap finds out
        pass
    sync_folder(ledger.folder)


def _refuse_other_times(ledger: Ledger, database: Database, since: int, most: int) -> None:
    """Each is read before what has to be in the other by then: a gap is committed first, and written down after."""
    index = ledger.index
    with database.reading() as connection:
        unknown = unknown_gaps(connection, index.unfenced())
        is_fenced = index.fence is None or knows_fence(connection, index.fence)
        accepted = newest_accepted(connection, max(since, index.fenced_at), _whose(ledger.folder, database), most)
    index.agreed()
    ledger.catch_up()
    if not is_fenced:
        raise LedgerRefused(
            Code.LEDGER_AHEAD,
            f"the ledger has a fence that {database.name} does not know: it was restored again since; {_TODO}",
            field="database.state_dir",
        )
    if unknown:
        raise LedgerRefused(
            Code.LEDGER_AHEAD,
            f"the ledger has {len(unknown)} attempts in the gap that {database.name} does not know (the first is "
            f"{unknown[0]}): it was restored from a backup, or set back; {_TODO}",
            field="database.state_dir",
        )
    missing = [
        one.attempt
        for one in accepted
        if ledger.entered(one.attempt, one.draft) is None
        and (one.expires_at is None or not index.has_forgotten(one.expires_at))
    ]
    if missing:
        raise LedgerRefused(
            Code.LEDGER_ALTERED,
            f"attempt {missing[0]} was accepted and is not in the ledger in {ledger.folder}: that is an older one, or "
            f"was cut; {_TODO}",
            field="database.state_dir",
        )
