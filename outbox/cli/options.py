"""What commands share: their flags, the settings, and what they read."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import click

from outbox.core.errors import Code, UsageError

if TYPE_CHECKING:
    from outbox.config import Settings

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object (a line each for lists).")
quietly = click.option("--quiet", is_flag=True, help="Log warnings only.")
LARGEST_INPUT = 64 * 1024 * 1024


def settings() -> Settings:
    """The settings that this command runs under. Raises ConfigError."""
    from outbox.config import load

    found = load(click.get_current_context().find_root().obj)
    has_started()
    return found


def has_started() -> None:
    """What has been imported stays, out of the garbage collector's sight; from here on it looks at the rest."""
    gc.freeze()
    gc.enable()


def read_input(name: str) -> bytes:
    """A file, or `-` for standard input, of at most LARGEST_INPUT octets. Raises UsageError."""
    try:
        with click.open_file(name, "rb") as opened:
            octets = bytes(opened.read(LARGEST_INPUT + 1))
    except OSError as error:
        raise UsageError(Code.FILE_UNREADABLE, f"{name} cannot be read: {error.strerror}", field=name) from None
    if len(octets) > LARGEST_INPUT:
        raise UsageError(Code.FILE_UNREADABLE, f"{name} is over 64 MiB", field=name)
    return octets


def read_text(name: str) -> str:
    """The same, as UTF-8 text."""
    try:
        return read_input(name).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(Code.FILE_UNREADABLE, f"{name} is not UTF-8 text", field=name) from None
