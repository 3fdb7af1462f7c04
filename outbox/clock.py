"""Instants and ids for the rooms: parameters of theirs, so that tests and replays bring their own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from outbox.core.draft import uuid7

Clock = Callable[[], int]


def wall() -> int:
    """Now, in microseconds UTC."""
    return time.time_ns() // 1000


def new_id(now: int) -> str:
    """A fresh UUIDv7."""
    return uuid7(now, secrets.token_bytes(10))
