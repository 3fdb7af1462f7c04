"""Whether the ledger and the database are of one time: where they are not, no worker starts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from outbox.core.errors import Code
from outbox.core.signing import KeyRing
from outbox.ledger import Ledger, LedgerRefused
from outbox.store.engine import Database
from outbox.store.identity import has_gaps_since, identity_of, knows_fence, newest_accepted, unknown_gaps

_TODO = (
    "nothing is sent till then. Put back what belongs together, or see docs/howto/backup.md and run "
    "`outbox fence accept`"
)


def open_ledger(state_dir: Path, ring: KeyRing, database: Database) -> Ledger:
    """The ledger, begun where this database has never entered a gap. Raises LedgerRefused, or Unavailable."""
    ledger = _open(state_dir, ring, database)
    if ledger is None:
        with database.reading() as connection:
            return Ledger.begin(state_dir, ring, identity_of(connection).id)
    return ledger


def disagreement(state_dir: Path, ring: KeyRing, database: Database) -> LedgerRefused | None:
    """Why no worker would start, if so. Raises Unavailable where that cannot be looked at."""
    try:
        ledger = _open(state_dir, ring, database, read_only=True)
    except LedgerRefused as error:
        return error
    if ledger is not None:
        ledger.close()
    return None


def read_ledger(state_dir: Path, ring: KeyRing, database: Database) -> Ledger:
    """The ledger, to look things up in. Raises LedgerRefused, or Unavailable."""
    with database.reading() as connection:
        named = identity_of(connection)
    return Ledger.open(state_dir, ring, named.id, read_only=True)


def _open(state_dir: Path, ring: KeyRing, database: Database, *, read_only: bool = False) -> Ledger | None:
    with database.reading() as connection:
        named = identity_of(connection)
        has_gaps = has_gaps_since(connection, named.ledger_since)
    try:
        ledger = Ledger.open(state_dir, ring, named.id, read_only=read_only)
    except LedgerRefused as error:
        if error.code is not Code.LEDGER_MISSING:
            raise LedgerRefused(error.code, f"{error.message}; {_TODO}", field=error.field) from error
        if not has_gaps:
            return None
        words = f"{error.message}, and the database has entered gaps; {_TODO}"
        raise LedgerRefused(error.code, words, field=error.field) from error
    with ExitStack() as unless_agreed:
        unless_agreed.callback(ledger.close)
        _refuse_other_times(ledger, database, named.ledger_since)
        unless_agreed.pop_all()
    return ledger


def _refuse_other_times(ledger: Ledger, database: Database, since: int) -> None:
    """Each is read before what has to be in the other by then: a gap is committed first, and written down after."""
    written = ledger.unfenced()
    with database.reading() as connection:
        unknown = unknown_gaps(connection, written)
        is_fenced = ledger.fence is None or knows_fence(connection, ledger.fence)
        accepted = newest_accepted(connection, max(since, ledger.fenced_at))
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
    missing = [one.attempt for one in accepted if ledger.entered(one.attempt, one.draft) is None]
    if missing:
        raise LedgerRefused(
            Code.LEDGER_ALTERED,
            f"attempt {missing[0]} was accepted and is not in the ledger in {ledger.folder}: that is an older one, or "
            f"was cut; {_TODO}",
            field="database.state_dir",
        )
