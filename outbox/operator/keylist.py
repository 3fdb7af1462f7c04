"""The lists of key files in the settings file: one is changed, and every other word of the file stays as it is.

TOML has many ways to write a list. Only the plain one is changed, and the result is kept only where it parses to
exactly what was there with that one list replaced; for any other the line to write is said. (A library that keeps
comments would be a dependency for one line.)
"""

from __future__ import annotations

import copy
import json
import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from outbox.config import Settings, parse_text
from outbox.core.errors import Code, ConfigError, StateRefused
from outbox.operator.enrolment import write_new
from outbox.sections import KeySettings

Name = Literal["draft", "grant"]
_SECTION = re.compile(r"^[ \t]*\[[ \t]*keys[ \t]*\][ \t]*(?:#[^\n]*)?\r?$", re.MULTILINE)
_ANY_SECTION = re.compile(r"^[ \t]*\[", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Change:
    """One list as it is to be. `text` is the whole file with it, or None where that cannot be written safely."""

    file: Path
    name: Name
    before: bytes
    text: str | None
    line: str

    def refuse_unsafe(self, done: str = "", *, todo: str = "") -> None:
        """Raise ConfigError with the line to write, where a person has to write it. `done` says what was done."""
        if self.text is None:
            words = f"{done}keys.{self.name} is not set by a plain list in {self.file}; write {self.line} where it is"
            raise ConfigError(Code.NOT_SUPPORTED, f"{words}{todo}", field=f"keys.{self.name}")

    def apply(self) -> None:
        """Replace the file: the old one or the new one, whenever the machine stops. Raises where it changed since."""
        if self.text is None or self.text.encode() == self.before:
            return
        try:
            facts = self.file.stat()
            if self.file.read_bytes() != self.before:
                raise StateRefused(Code.STATE_CONFLICT, f"{self.file} was changed meanwhile; do it again")
            if os.geteuid() not in {0, facts.st_uid}:
                words = f"{self.file} belongs to another user, and would be this one's; run this as him"
                raise ConfigError(Code.CONFIG_INVALID, words, field="--config")
            replace_file(self.file, self.text.encode(), like=facts)
        except OSError as error:
            words = f"{self.file} cannot be replaced: {error.strerror}"
            raise ConfigError(Code.CONFIG_INVALID, words, field="--config") from error


@dataclass(frozen=True, slots=True)
class KeyList:
    """One name's list, newest first, with its files as they are written; `text` is None where it is set elsewhere."""

    file: Path
    name: Name
    written: tuple[str, ...]
    text: str | None

    @classmethod
    def read(cls, settings: Settings, file: Path | None, name: Name) -> KeyList:
        """The list in force, and the settings file's text where it is from there: not from the environment."""
        file = (file or settings.path(Path("outbox.toml"))).resolve()
        believed: tuple[Path, ...] = getattr(settings.keys, name)
        try:
            text = file.read_bytes().decode()
            said = tomllib.loads(text).get("keys", {}).get(name)
        except (OSError, ValueError):
            return cls(file, name, tuple(map(str, believed)), None)
        written = tuple(map(str, getattr(KeySettings(), name) if said is None else said))
        if tuple(map(Path, written)) != believed:
            return cls(file, name, tuple(map(str, believed)), None)
        return cls(file, name, written, text)

    def changed_to(self, written: tuple[str, ...]) -> Change:
        """The file with another list."""
        line = f"{self.name} = {json.dumps(written, ensure_ascii=False)}"  # a list of JSON strings is TOML too
        if written == self.written:
            text: str | None = self.text or ""
        else:
            text = _edited(self.text, self.name, written) if self.text is not None else None
        return Change(self.file, self.name, (self.text or "").encode(), text, line)


def _edited(text: str, name: Name, written: tuple[str, ...]) -> str | None:
    """`text` with one list replaced; None where the plain way of doing that comes to anything else."""
    line = f"{name} = {json.dumps(written, ensure_ascii=False)}"
    section = _SECTION.search(text)
    if section is None:
        candidate = f"{text}\n\n[keys]\n{line}\n"
    else:
        following = _ANY_SECTION.search(text, section.end())
        end = following.start() if following is not None else len(text)
        inside = text[section.end() : end]
        found = re.search(rf"^([ \t]*{name}[ \t]*=[ \t]*)\[[^\]#]*\]", inside, re.MULTILINE)
        if found is None:
            inside = f"\n{line}{inside}"
        else:
            inside = f"{inside[: found.end(1)]}{json.dumps(written, ensure_ascii=False)}{inside[found.end() :]}"
        candidate = f"{text[: section.end()]}{inside}{text[end:]}"
    return candidate if _is_exactly(candidate, text, name, written) else None


def _is_exactly(candidate: str, text: str, name: Name, written: tuple[str, ...]) -> bool:
    wanted: dict[str, Any] = copy.deepcopy(tomllib.loads(text))
    wanted.setdefault("keys", {})[name] = list(written)
    try:
        if tomllib.loads(candidate) != wanted:
            return False
    except tomllib.TOMLDecodeError:
        return False
    parse_text(candidate)
    return True


def replace_file(file: Path, octets: bytes, *, like: os.stat_result) -> None:
    """Have a file with these octets, and the mode and owner of another, durably: whole or not at all."""
    written = file.with_name(f".{file.name}.new")
    written.unlink(missing_ok=True)  # what an earlier try left, when the machine stopped
    write_new(written, octets, 0o600)
    written.chmod(stat.S_IMODE(like.st_mode))
    own_like(written, like)
    written.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_like(path: Path, model: os.stat_result) -> None:
    """Give `path` the owner of what it stands beside, where root makes it: its room has to be able to read it."""
    if os.geteuid() == 0:
        os.chown(path, model.st_uid, model.st_gid)
