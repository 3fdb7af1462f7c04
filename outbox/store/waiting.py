"""What is asked of the thread that writes, and who waits for it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from outbox.core.errors import Code, Unavailable

if TYPE_CHECKING:
    from outbox.store.writer import Transaction

MOST_TOGETHER = 256


class CommitUnknown(Unavailable):
    """COMMIT did not return: what was asked may or may not be stored. Nobody may send on the strength of it."""


Work = Callable[["Transaction", Sequence[Any]], Sequence[Any]]  # for items, a result each


class Waiter(Protocol):
    """Whoever waits for a one, and may have given it up before it was begun."""

    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        ...


@dataclass(slots=True, eq=False)
class Waiting:
    """One transition that is asked for: `work` does it for `item`, and for the items of others that ask the same.

    `work` returns a result for each item, in their order, or raises: then each is done alone. `first` goes to
    `before_begin`, `then` to `after_commit`; what locks a gate `is_last` in its transaction. What became of it is in
    `result` or `error`, after COMMIT; `is_done` unless nobody waited for it by then.
    """

    work: Work
    item: Any
    waiter: Waiter
    first: object | None = None
    then: object | None = None
    is_last: bool = False
    result: Any = None
    error: Exception | None = None
    is_done: bool = False

    @property
    def is_followed(self) -> bool:
        """Whether it is stored, and something comes after that before anybody may hear of it."""
        return self.is_done and self.error is None and self.then is not None


@dataclass(slots=True, eq=False)
class Batch:
    """What one waiter asks for, or many, who are woken together."""

    asked: Sequence[Waiting]
    wake: Callable[[Sequence[Waiting]], None]
    is_over: bool = False

    def end(self) -> None:
        """Wake all of them."""
        if not self.is_over:
            self.is_over = True
            self.wake(self.asked)

    def end_but_followed(self) -> Batch | None:
        """Wake those that nothing comes after; returns the others, if there are any."""
        followed = [one for one in self.asked if one.is_followed]
        if not followed:
            self.end()
            return None
        self.is_over = True
        if ended := [one for one in self.asked if not one.is_followed]:
            self.wake(ended)
        return Batch(followed, self.wake)

    def give_up(self) -> None:
        """Tell all of them that nobody knows, unless they were woken."""
        if not self.is_over:
            for one in self.asked:
                one.error = CommitUnknown(Code.DATABASE_UNAVAILABLE, "the writer has ended; start again")
            self.end()


Batches = queue.SimpleQueue[Batch | None]  # None: nothing comes after this


def waiting_now(batches: Batches, first: Batch) -> tuple[list[Batch], bool]:
    """What waits behind `first`, up to 256 transitions, and whether nothing will come after it."""
    found, count = [first], len(first.asked)
    while count < MOST_TOGETHER:
        try:
            batch = batches.get_nowait()
        except queue.Empty:
            return found, False
        if batch is None:
            return found, True
        found.append(batch)
        count += len(batch.asked)
    return found, False


def give_up_all(batches: Batches) -> None:
    """Nobody waits for a thread that has ended, whatever it ended by."""
    while True:
        try:
            batch = batches.get_nowait()
        except queue.Empty:
            return
        if batch is not None:
            batch.give_up()
