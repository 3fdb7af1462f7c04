"""The first set-up: a folder with settings, keys and a database; never over something that is there."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from outbox.config import Settings, parse_text
from outbox.core.errors import Code, ConfigError
from outbox.core.signing import MINIMUM_KEY_OCTETS
from outbox.store.engine import connect
from outbox.store.migrate import upgrade


@dataclass(frozen=True, slots=True)
class Plan:
    """What `outbox init` was told. None leaves a setting to be filled in; `room` drafter makes no grant key."""

    folder: Path
    from_domains: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    address: str | None = None
    relay_host: str | None = None
    relay_port: int | None = None
    relay_security: str | None = None
    mailbox: str | None = None
    authenticity: str | None = None
    room: str = "all"


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, and what a person should know about it."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def initialise(plan: Plan) -> Made:
    """Make the folder's files. Raises ConfigError, and makes nothing, where one of them is there already."""
    text = _settings_text(plan)
    parse_text(text)
    keys = {"draft.key"} if plan.room == "drafter" else {"draft.key", "grant.key"}
    settings_file, database_file = plan.folder / "outbox.toml", plan.folder / "outbox.db"
    key_files = [plan.folder / "keys" / name for name in sorted(keys)]
    taken = [file for file in (settings_file, database_file, *key_files) if os.path.lexists(file)]
    if taken:
        raise ConfigError(Code.FILE_EXISTS, f"{taken[0]} is there already; init overwrites nothing", field="--dir")
    try:
        for folder in (plan.folder, plan.folder / "keys", plan.folder / "state"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        words = f"{plan.folder} cannot be made a folder: {error.strerror}"
        raise ConfigError(Code.CONFIG_INVALID, words, field="--dir") from error
    for file in key_files:
        _write_new(file, secrets.token_bytes(MINIMUM_KEY_OCTETS), 0o600)
    _write_new(settings_file, text.encode(), 0o644)
    upgrade_database(database_file)
    return Made((settings_file, *key_files, database_file), _notes(plan))


def _write_new(file: Path, octets: bytes, mode: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(octets)
        os.fsync(descriptor)


def upgrade_database(path: Path) -> str:
    """Bring a database to this version's revision, and return that. A missing one is made, for this user alone."""
    if not path.exists():
        _write_new(path, b"", 0o600)  # SQLite gives its other files the same mode
    database = connect(path)
    try:
        return upgrade(database)
    finally:
        database.close()


def upgrade_settings_database(settings: Settings) -> str:
    """`upgrade_database` for the database that the settings name."""
    return upgrade_database(settings.database_path)


def _notes(plan: Plan) -> tuple[str, ...]:
    if plan.room == "drafter":
        return ("This folder has no grant key: who uses it can draft and withdraw, not approve.",)
    together = (
        "The draft key and the grant key lie together: whoever runs as this user can draft and approve. "
        'Give each room its own user (docs/reference/privileges.md), or set approval.terminal = "off".'
    )
    return (together,)


def _settings_text(plan: Plan) -> str:
    sections = [
        ("database", [_line("url", "sqlite:///outbox.db"), _line("state_dir", "state")]),
        ("keys", [_line("draft", ["keys/draft.key"]), *_grant_line(plan)]),
        ("policy", [_line("from_domains", list(plan.from_domains) or None, ["example.org"])]),
        (
            "approval",
            [
                _line("approvers", list(plan.approvers) or None, ["you@example.org"]),
                _line("address", plan.address, "outbox@example.org"),
                _line("authenticity", plan.authenticity, "none"),
            ],
        ),
        ("mailbox", [_line("url", plan.mailbox, "maildir:Maildir")]),
        (
            "relay",
            [
                _line("host", plan.relay_host, "127.0.0.1"),
                _line("port", plan.relay_port, 587),
                _line("security", plan.relay_security, "starttls"),
            ],
        ),
    ]
    head = "# docs/reference/settings.md describes every setting. Lines that begin with # wait to be filled in.\n"
    return head + "".join(f"\n[{name}]\n{''.join(lines)}" for name, lines in sections)


def _grant_line(plan: Plan) -> list[str]:
    return [] if plan.room == "drafter" else [_line("grant", ["keys/grant.key"])]


def _line(name: str, value: str | int | list[str] | None, example: str | int | list[str] = "") -> str:
    """One TOML line; JSON strings, numbers and lists of strings are TOML too."""
    if value is None:
        return f"# {name} = {json.dumps(example, ensure_ascii=False)}\n"
    return f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
