"""Connections that wait for the next message: for a while, and not for ever."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from outbox.transport.transaction import Connection

_LONGEST_LIFE = 300.0  # seconds since it was made: relays move, and their names with them
_LONGEST_REST = 60.0  # seconds without a message: many relays drop what is silent for minutes


class Idle:
    """The last one used is used first, so that those that are too many come to their end.

    A relay that speaks or leaves while nothing is asked of it loses the connection at once.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connections: list[Connection] = []

    def __len__(self) -> int:
        return len(self._connections)

    def keep(self, connection: Connection) -> None:
        """Let it wait, where nothing is left over from what it did."""
        if not connection.dialogue.is_even:
            connection.dialogue.abort()
            return
        connection.rested_at = now = self._clock()
        self._connections.append(connection)
        left = min(connection.made_at + _LONGEST_LIFE - now, _LONGEST_REST)  # past already, it ends in the next turn
        connection.dialogue.rest(left, partial(self._end, connection))

    def take(self) -> Connection | None:
        """One that can be used now, if there is one."""
        now = self._clock()
        while self._connections:
            connection = self._connections.pop()
            connection.dialogue.rise()
            is_young = now < connection.made_at + _LONGEST_LIFE and now < connection.rested_at + _LONGEST_REST
            if is_young and connection.dialogue.is_quiet:
                return connection
            connection.dialogue.quit()
        return None

    def close(self) -> list[Connection]:
        """Say goodbye on all of them; returns them, since one that cannot say it at once is still there."""
        left, self._connections = self._connections, []
        for connection in left:
            connection.dialogue.quit()
        return left

    def _end(self, connection: Connection) -> None:
        self._connections.remove(connection)
        connection.dialogue.quit()
