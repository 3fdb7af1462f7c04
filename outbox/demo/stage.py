"""What the demonstration prints, and the claims it keeps count of."""

from __future__ import annotations

import time

import click

from outbox.core.errors import Code, OutboxError

_WIDTH = 100


class Stage:
    """Prints for people; a claim that does not hold ends the demonstration."""

    def __init__(self) -> None:
        self._claims = 0
        self._began = time.monotonic()
        self._acts = 0

    def act(self, title: str) -> None:
        """Begin the next act."""
        self._acts += 1
        click.secho(f"\n{self._acts}. {title}", bold=True)

    def say(self, sentence: str) -> None:
        """One sentence of the narrator's."""
        click.echo(f"   {sentence}")

    def command(self, line: str) -> None:
        """What a person types."""
        click.echo(click.style("   $ ", dim=True) + click.style(line, fg="cyan"))

    def paper(self, text: str) -> None:
        """Something that one of the people sees, in a frame."""
        click.secho(f"   ┌{'─' * 96}", dim=True)
        for line in text.rstrip("\n").split("\n"):
            shown = line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
            click.echo(click.style("   │ ", dim=True) + shown)
        click.secho(f"   └{'─' * 96}", dim=True)

    def claim(self, sentence: str, holds: bool) -> None:
        """Say what is so. Raises OutboxError(demo_failed) where it is not."""
        self.claim_silently(sentence, holds)
        click.echo(click.style("   ✓ ", fg="green", bold=True) + sentence)

    def claim_silently(self, sentence: str, holds: bool) -> None:
        """`claim`, without a line of its own where it holds."""
        if not holds:
            raise OutboxError(Code.DEMO_FAILED, f"the demonstration failed: it is not so that {sentence}")
        self._claims += 1

    def curtain(self) -> None:
        """The last line."""
        elapsed = time.monotonic() - self._began
        click.secho(f"\nAll {self._claims} claims held, in {elapsed:.1f} s.", fg="green", bold=True)
