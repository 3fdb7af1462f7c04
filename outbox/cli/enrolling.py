"""How a fresh set-up and an approver's secret are shown: the secret only on a terminal, or where it was asked for."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import click

from outbox.cli.render import Json, dumps
from outbox.core.errors import Code, UsageError

if TYPE_CHECKING:
    from outbox.config import Settings
    from outbox.operator.enrolment import Enrolment
    from outbox.operator.setup import Made

QUIET_ZONE = 2  # modules around the QR code; readers of today need no more, and it fits into 24 lines more often
_LIGHT_ON_DARK, _PLAIN = "\x1b[97;40m", "\x1b[0m"  # else a light terminal would show it inverted


def show_made(made: Made, *, as_json: bool) -> None:
    """What `outbox init` made, what to know about it, and what is left to do."""
    if as_json:
        told: Json = {"files": [str(file) for file in made.files], "notes": [*made.notes, *made.left_to_do]}
        click.echo(dumps(told))
        return
    for file in made.files:
        click.echo(f"made {file}")
    for note in made.notes:
        click.echo(note)
    if sys.stdout.isatty():
        for enrolment in made.enrolments:
            click.echo(f"\n{secret_text(enrolment)}")
    for number, left in enumerate(made.left_to_do, start=1):
        click.echo(f"  {number}. {left}")


def refuse_onlookers(*, as_json: bool, show: bool) -> None:
    """Raise UsageError where the secret would go to a file, a pipe or a log without having been asked for."""
    if as_json and show:
        raise UsageError(Code.USAGE, "--show and --json contradict each other", field="--show")
    if not (as_json or show or sys.stdout.isatty()):
        words = (
            "stdout is no terminal, and whoever reads the secret can approve; --json names its file, --show prints it"
        )
        raise UsageError(Code.USAGE, words, field="--show")


def show_enrolment(enrolment: Enrolment, settings: Settings, *, as_json: bool, again: bool) -> None:
    """What `outbox enrol` made or found."""
    if as_json:
        file = str(enrolment.file)
        click.echo(dumps({"approver": enrolment.approver, "file": file, "made": enrolment.made}))
        return
    click.echo(f"{'made' if enrolment.made else 'found'} {enrolment.file}")
    if again:
        click.echo(f"Codes of the old secret count no more: {enrolment.approver} scans this one, and deletes the old.")
    if settings.approval.authenticity != "code":
        click.echo(
            f'approval.authenticity is "{settings.approval.authenticity}": a code is asked for only by '
            "approval.code_for_kinds and approval.code_for_recipients."
        )
    click.echo(f"\n{secret_text(enrolment)}")


def secret_text(enrolment: Enrolment) -> str:
    """The QR code, the same for typing, and what it is for."""
    return (
        f"For {enrolment.approver}: scan this with an authenticator app,\n"
        f"{_qr(enrolment.uri)}"
        f"or type it in: {enrolment.groups}\n"
        "Each approval then has the six digits of the moment alone on its second line, below the word that approves.\n"
        "Whoever has seen this can make the digits: clear the screen.\n"
    )


def _qr(uri: str) -> str:
    """A QR code of half blocks; of whole ones where the terminal has no such characters."""
    import segno

    code, drawn = segno.make(uri, error="l", micro=False), io.StringIO()
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        code.terminal(drawn, border=QUIET_ZONE)
        return drawn.getvalue()
    code.terminal(drawn, border=QUIET_ZONE, compact=True)
    if not sys.stdout.isatty():
        return drawn.getvalue()
    return "".join(f"{_LIGHT_ON_DARK}{line}{_PLAIN}\n" for line in drawn.getvalue().splitlines())
