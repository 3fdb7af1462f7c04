"""Files that hold secrets: read whole, refused where anybody else may read them too."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from outbox.core.errors import Code, ConfigError
from outbox.core.signing import MINIMUM_KEY_OCTETS


def read_key(file: Path, setting: str, *, in_credentials: bool) -> bytes:
    """A key file's octets, at least 32. Raises ConfigError naming `setting`."""
    octets = read_secret(file, setting, in_credentials=in_credentials)
    if len(octets) < MINIMUM_KEY_OCTETS:
        raise ConfigError(
            Code.KEY_SHORT,
            f"{setting}: {file} has {len(octets)} octets; a key has at least {MINIMUM_KEY_OCTETS}",
            field=setting,
        )
    return octets


def read_secret(file: Path, setting: str, *, in_credentials: bool) -> bytes:
    """A secret file's octets; others may not read it (systemd makes credentials readable by their group)."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError(Code.KEY_MISSING, f"{setting}: there is no file {file}", field=setting) from None
    except (OSError, ValueError) as error:  # ValueError: a path with NUL
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            Code.SECRET_UNREADABLE, f"{setting}: {str(file)!a} cannot be read: {why}", field=setting
        ) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise ConfigError(Code.SECRET_UNREADABLE, f"{setting}: {file} is not a file", field=setting)
    with os.fdopen(descriptor, "rb") as opened:
        if stat.S_IMODE(mode) & (0o037 if in_credentials else 0o077):
            raise ConfigError(
                Code.KEY_EXPOSED,
                f"{setting}: {file} has mode {stat.S_IMODE(mode):04o}; run chmod 600 on it, nobody else may read it",
                field=setting,
            )
        return opened.read(65536)
