"""Which ledger is whose: the name of a state folder on a server that several hosts write to, each with a ledger."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from outbox.core.errors import Code, ConfigError
from outbox.ledger import put_in_place

NAME = "ledger.id"


def ledger_id(state_dir: Path) -> str:
    """The name of this folder's ledger, made once and kept beside it. Raises ConfigError where that cannot be."""
    known = known_ledger_id(state_dir)
    if known is not None:
        return known
    file, draft = state_dir / NAME, state_dir / f"{NAME}.{os.getpid()}.tmp"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="ascii") as written:
            written.write(f"{secrets.token_hex(16)}\n")
            written.flush()
            os.fsync(written.fileno())
        draft.chmod(0o644)
        put_in_place(draft, file)
    except OSError as error:
        raise _unread(file, str(error.strerror)) from error
    made = known_ledger_id(state_dir)
    if made is None:
        raise _unread(file, "it was taken away")
    return made


def known_ledger_id(state_dir: Path) -> str | None:
    """The name, where it has one. Raises ConfigError where what is there is no name."""
    file = state_dir / NAME
    try:
        said = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unread(file, str(error.strerror)) from error
    except UnicodeDecodeError:
        said = ""
    if len(said) != 32 or not said.isalnum():
        raise _unread(file, "it is no name of a ledger; where it is lost, see docs/howto/postgresql.md")
    return said


def _unread(file: Path, why: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, f"database.state_dir: {file}: {why}", field="database.state_dir")
