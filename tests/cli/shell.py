"""The command line as a person or a script uses it: a process, its two streams and its exit code."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cli import zygote

TIMEOUT = 60  # seconds


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        return dict(json.loads(self.out))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON object on stderr."""
        return dict(json.loads(self.err))


@dataclass
class Shell:
    """A folder to run `outbox` in, without a developer's own environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str | bytes | Path, stdin: bytes = b"", **more: str) -> Done:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "CREDENTIALS_"))}
        code, out, err = zygote.run(
            [os.fsdecode(word) for word in words], self.folder, kept | self.environment | more, stdin
        )
        return Done(code, out.decode(), err.decode("utf-8", "replace"))

    def fails(self, code: int, *words: str | bytes | Path, stdin: bytes = b"", **more: str) -> dict[str, Any]:
        """A refusal: `code`, nothing on stdout, one JSON object on stderr; returns that object."""
        done = self.run(*words, "--json", stdin=stdin, **more)
        assert done.code == code, (done.code, done.err[-2000:])
        assert done.out == ""
        assert len(done.err.splitlines()) == 1
        assert set(done.error) == {"error", "message", "field"}
        assert done.error["message"].isprintable()
        return done.error

    def says(self, code: int, *words: str | bytes | Path, stdin: bytes = b"", **more: str) -> str:
        """A refusal in words: `code`, nothing on stdout, one line on stderr; returns that line."""
        done = self.run(*words, stdin=stdin, **more)
        assert done.code == code, (done.code, done.err[-2000:])
        assert done.out == ""
        (line,) = done.err.splitlines()
        assert line.startswith("outbox: ")
        return line

    def snapshot(self) -> dict[str, tuple[int, int, int]]:
        """Every file of the folder with size, time of change and mode: equal means untouched."""
        found = {}
        for file in sorted(self.folder.rglob("*")):
            facts = file.lstat()
            found[str(file.relative_to(self.folder))] = (facts.st_size, facts.st_mtime_ns, facts.st_mode)
        return found

    def without(self, setting: str) -> None:
        """Take one setting out of outbox.toml."""
        file, section, kept = self.folder / "outbox.toml", "", []
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            if f"{section}.{line.partition('=')[0].strip()}" != setting:
                kept.append(line)
        file.write_text("\n".join(kept) + "\n")
