"""That this worker is there, for whoever looks: its lock file, its session on a server, and its row."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from outbox.core.errors import Code, Unavailable
from outbox.ledger_id import ledger_id
from outbox.lock import WorkerLock
from outbox.store.claims import insert_worker
from outbox.store.engine import Database
from outbox.store.presence import Presence
from outbox.store.writer import Transaction


class Standing:
    """Held from before its row is inserted until after that says that it has ended. Raises ConfigError, Unavailable."""

    def __init__(self, database: Database, state_dir: Path, worker_id: str) -> None:
        self._worker_id = worker_id
        self._lock = WorkerLock(state_dir, worker_id)
        with ExitStack() as unless_held:
            unless_held.callback(self._lock.release)
            self.ledger_name = ledger_id(state_dir) if database.is_server else None
            self.presence = Presence(database, worker_id)
            unless_held.pop_all()

    def register(self, tx: Transaction, *, now: int) -> None:
        """Insert its row."""
        insert_worker(
            tx,
            self._worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            now=now,
            ledger=self.ledger_name,
            visible=self.presence.is_seen,
        )

    def refuse_presumed_dead(self) -> None:
        """Raise Unavailable where others let go of what it holds, or may."""
        if not self._lock.is_held:
            raise Unavailable(Code.PRESUMED_DEAD, "this worker's lock file was taken away; start it again")
        if self.presence.is_ended:
            words = "another host could not see this worker any more, and ended it; start it again"
            raise Unavailable(Code.PRESUMED_DEAD, words)

    def release(self, *, keep_file: bool = False) -> None:
        """Let go of both locks; the file stays to say that this worker is dead, where its row does not say so."""
        self.presence.close()
        self._lock.release(keep_file=keep_file)
