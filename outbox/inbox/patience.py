"""How long a mail server, or one message on it, is left alone after it failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from outbox.core.errors import OutboxError

STEADY = 60.0  # seconds after which a connection has proved itself
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
FIRST_AFTER_REFUSAL, LONGEST_AFTER_REFUSAL = 60.0, 3600.0  # servers lock an account that knocks on
MOST_FAILURES = 3  # of one message fetched alone, before it is set aside
ASIDE = 3600.0  # seconds until it is tried once more


class Backoff:
    """Pauses that double, each with up to as much again at random; a failure of another kind begins anew."""

    def __init__(self, monotonic: Callable[[], float], randomness: Callable[[], float]) -> None:
        self._monotonic, self._randomness = monotonic, randomness
        self._failures = 0
        self._until = 0.0
        self._error: OutboxError | None = None

    def refuse_early(self) -> None:
        """Raise the last failure again while its pause lasts."""
        if self._error is not None and self._monotonic() < self._until:
            raise _again(self._error)

    def failed(self, error: OutboxError, *, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> None:
        """Pause from now on."""
        if self._error is not None and self._error.code is not error.code:
            self._failures = 0
        self._failures += 1
        pause = first * 2.0 ** min(self._failures - 1, 16) * (1 + self._randomness())
        self._error, self._until = _again(error), self._monotonic() + min(longest, pause)

    def lost(self, error: OutboxError) -> None:
        """The same, for a connection that ended while nothing was asked of it; the first time there is no pause."""
        self.failed(error)
        if self._failures == 1:
            self._until = self._monotonic()

    def worked(self, seconds: float) -> None:
        """A connection of so many seconds did what it is for."""
        self._failures = 0 if seconds >= STEADY else min(self._failures, 2)


def _again(error: OutboxError) -> OutboxError:
    """The same error without its traceback, in whose frames a password may be."""
    return type(error)(error.code, error.message, field=error.field)


class Troubles:
    """Messages, by number, that were in a fetch that failed. The others go first, and each of these goes alone.

    So one that the server cannot give, or breaks off at, does not keep the rest away.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failures: dict[int, int] = {}
        self._until: dict[int, float] = {}

    def suspect(self, numbers: Collection[int]) -> None:
        """One of these is what failed."""
        for number in numbers:
            self._failures.setdefault(number, 0)

    def failed(self, number: int) -> bool:
        """This one failed by itself; whether it is set aside from now on."""
        self._failures[number] = failures = self._failures.get(number, 0) + 1
        if failures >= MOST_FAILURES:
            self._until[number] = self._monotonic() + ASIDE
        return failures >= MOST_FAILURES

    def is_aside(self, number: int) -> bool:
        """Whether it is left alone now."""
        return self._monotonic() < self._until.get(number, 0.0)

    def trust(self, number: int) -> None:
        """It was not this one, if it has not failed by itself."""
        if self._failures.get(number) == 0:
            self.over(number)

    def over(self, number: int) -> None:
        """It could be fetched after all."""
        self._failures.pop(number, None)
        self._until.pop(number, None)

    def keep_only(self, numbers: Collection[int]) -> None:
        """Forget those that are no longer there."""
        for gone in self._failures.keys() - set(numbers):
            self.over(gone)

    def _order(self, number: int) -> tuple[int, int]:
        return self._failures[number], number

    def batches(self, numbers: Collection[int], size: int) -> Iterator[list[int]]:
        """In the order of the numbers, those without trouble together; then whichever failed least."""
        easy = [number for number in sorted(numbers) if number not in self._failures]
        hard = sorted((number for number in numbers if number in self._failures), key=self._order)
        yield from (easy[start : start + size] for start in range(0, len(easy), size))
        yield from ([number] for number in hard if not self.is_aside(number))
