"""`outbox draft --eml-dir` and `--mbox`: many whole messages, a line for each, and a bar where somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outbox import drafter
from outbox.cli.render import draft_json, dumps, error_json, shown
from outbox.core.errors import Code, PolicyRefused
from outbox.drafter.sources import Found, asked, in_folder, in_mbox

if TYPE_CHECKING:
    from outbox.config import Settings
    from outbox.drafter.intake import Overrides
    from outbox.drafter.room import Drafted, Drafter

KEY_PREFIX = "eml"  # of idempotency keys that are made of messages
_MOST, _LARGEST = 256, 16 * 1024 * 1024  # messages, octets that are in memory together
_CLEAR = "\r\x1b[K"  # the bar's line, before another is written


def draft_all(
    settings: Settings, folder: Path | None, mbox: Path | None, over: Overrides, *, prefix: str | None, as_json: bool
) -> None:
    """Draft every message of a folder or an mbox. Raises PolicyRefused, when all are through, where one was refused."""
    source = in_folder(folder) if folder is not None else in_mbox(mbox or Path())
    tally = _Tally(as_json, sys.stderr.isatty())
    with (
        drafter.open(settings) as room,
        click.progressbar(length=source.size, file=sys.stderr, hidden=not tally.has_bar, label="drafting") as bar,
    ):
        done = 0
        for batch in _batches(source.messages):
            tally.draft(room, batch, over, KEY_PREFIX if prefix is None else prefix)
            bar.update(batch[-1].read - done)
            done = batch[-1].read
    tally.end()


def _batches(messages: Iterator[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    octets = 0
    for one in messages:
        batch.append(one)
        octets += len(one.octets) if isinstance(one.octets, bytes) else 0
        if len(batch) >= _MOST or octets >= _LARGEST:
            yield batch
            batch, octets = [], 0
    if batch:
        yield batch


class _Tally:
    """Says what became of each, and counts."""

    def __init__(self, as_json: bool, has_bar: bool) -> None:
        self.has_bar, self._as_json = has_bar, as_json
        self._new = self._there = self._refused = 0

    def draft(self, room: Drafter, batch: list[Found], over: Overrides, prefix: str) -> None:
        """Draft one batch in one transaction, and say a line for each."""
        results = room.draft_many(
            one.octets if isinstance(one.octets, PolicyRefused) else asked(prefix, one.octets, over) for one in batch
        )
        if self.has_bar:
            click.echo(_CLEAR, nl=False, err=True)
        for one, result in zip(batch, results, strict=True):
            if isinstance(result, PolicyRefused):
                self._refuse(one.name, result)
            else:
                self._say(room, one.name, result)

    def _say(self, room: Drafter, name: str, drafted: Drafted) -> None:
        self._new += drafted.is_new
        self._there += not drafted.is_new
        if self._as_json:
            facts = {"file": name, "is_new": drafted.is_new} | draft_json(room.story(drafted.id).draft)
            click.echo(dumps(facts))
        else:
            click.echo(f"{drafted.id}  {shown(name)}{'' if drafted.is_new else '  (was there already)'}")

    def _refuse(self, name: str, error: PolicyRefused) -> None:
        self._refused += 1
        words = f"outbox: {shown(name)}: {' '.join(error.message.split())} ({error.code})"
        click.echo(dumps({"file": name} | error_json(error)) if self._as_json else words, err=True)

    def end(self) -> None:
        """The sum, and PolicyRefused where not all of it could be drafted."""
        said = f"{self._new} drafted, {self._there} there already, {self._refused} refused"
        if self._refused:
            again = "mend them and run it again: what was drafted is not drafted twice"
            raise PolicyRefused(Code.SOME_REFUSED, f"{said}; {again}")
        if not self._as_json:
            click.echo(said, err=True)
