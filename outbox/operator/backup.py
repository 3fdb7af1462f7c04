"""A copy of the database while it is in use, whole and durable when the command returns."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path

from outbox.config import Settings
from outbox.core.errors import Code, ConfigError, Unavailable
from outbox.store.backup import copy_database

MODE = 0o600


def backup(settings: Settings, file: Path) -> int:
    """Copy the database to a new file, and return its octets. Raises ConfigError where there is one already."""
    half = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        os.close(os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))
    except OSError as error:
        raise Unavailable(Code.FILE_UNREADABLE, f"{file} cannot be made: {error.strerror}") from error
    with ExitStack() as afterwards:
        afterwards.callback(half.unlink, missing_ok=True)
        try:
            copy_database(settings.database_path, half)
            _sync(half)
            os.link(half, file)
            _sync(file.parent)
        except FileExistsError:
            words = f"{file} is there already; a backup gets a new name"
            raise ConfigError(Code.FILE_EXISTS, words, field="FILE") from None
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{file} was not made: {error}") from error
    return file.stat().st_size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
