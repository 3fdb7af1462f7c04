"""What comes after a COMMIT, in a thread of its own: the ledger is synced while the next transaction is under way."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from outbox.core.errors import Code, OutboxError
from outbox.store.waiting import Batch, Batches, Waiting, give_up_all, waiting_now


class Follower:
    """Calls `after_commit` with what came with those that were stored, in the order of COMMITs, and wakes them.

    What waits is followed together. Where `after_commit` raises an OutboxError, those with whom it came get it.
    """

    def __init__(self, after_commit: Callable[[Sequence[Any]], None]) -> None:
        self._after_commit = after_commit
        self._has_ended = threading.Event()
        self._batches: Batches = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox-follower", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether anything that is given to it would be done."""
        return not self._has_ended.is_set()

    def follow(self, batch: Batch) -> None:
        """Do what comes after, for all of it, and wake it."""
        self._batches.put(batch)
        if self._has_ended.is_set():
            give_up_all(self._batches)

    def close(self) -> None:
        """Do what was given, then stop."""
        self._batches.put(None)
        self._thread.join()

    def _run(self) -> None:
        with ExitStack() as at_end:
            at_end.callback(give_up_all, self._batches)
            at_end.callback(self._has_ended.set)
            while (first := self._batches.get()) is not None:
                batches, closing = waiting_now(self._batches, first)
                with ExitStack() as unless_done:
                    for batch in batches:
                        unless_done.callback(batch.give_up)
                    self._follow([one for batch in batches for one in batch.asked])
                    for batch in batches:
                        batch.end()
                    unless_done.pop_all()
                if closing:
                    return

    def _follow(self, asked: Sequence[Waiting]) -> None:
        try:
            self._after_commit([one.then for one in asked])
        except OutboxError as error:
            if len(asked) == 1 or error.code is not Code.POSSIBLY_SENT:
                for one in asked:
                    one.error = error
                return
            for one in asked:  # one that is refused does not take the others with it
                self._follow([one])
