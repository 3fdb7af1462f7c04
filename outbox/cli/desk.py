"""The desk: what is at executing, how it stands, pauses, backups, and drafting again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from outbox.cli.desk_text import case_json, case_text, status_json, status_text
from outbox.cli.options import as_json, settings
from outbox.cli.render import dumps, error_json, story_json, story_text
from outbox.core.errors import Code, OutboxError, UsageError
from outbox.core.lifecycle import Settled

if TYPE_CHECKING:
    from outbox.operator.settling import Case, Settling
    from outbox.store.views import Story


@click.command()
@click.argument("draft_id", metavar="[ID]", required=False)
@click.option("--sent", "settled_as", flag_value=Settled.SENT.value, help="It left.")
@click.option("--not-sent", "settled_as", flag_value=Settled.NOT_SENT.value, help="It did not; it ends as failed.")
@click.option(
    "--release", "settled_as", flag_value=Settled.RELEASED.value, help="It provably did not; it is sent again."
)
@click.option("--note", help="Why; kept with the settlement.")
@click.option("--now", "at_once", is_flag=True, help="Do not wait for an answer that could still come.")
@click.option("--all-proven", is_flag=True, help="Settle every draft whose end can be proved.")
@as_json
def reconcile(
    draft_id: str | None, settled_as: str | None, note: str | None, at_once: bool, all_proven: bool, as_json: bool
) -> None:
    """List what is at executing and what is known of it; of one draft look for evidence, or settle it."""
    from outbox import operator

    if draft_id is None and settled_as is not None:
        raise UsageError(Code.USAGE, "say which draft to settle, or --all-proven", field="ID")
    if all_proven and (draft_id is not None or settled_as is not None):
        raise UsageError(Code.USAGE, "--all-proven settles every draft that it can; name none", field="--all-proven")
    with operator.open(settings()) as desk:
        if all_proven:
            _settle_proven(desk.settling, as_json=as_json)
        elif draft_id is None:
            _show_cases(desk.settling.cases(), as_json=as_json)
        elif settled_as is None:
            _show_cases([desk.settling.examine(draft_id)], as_json=as_json)
        else:
            desk.settling.settle(draft_id, Settled(settled_as), note=note, at_once=at_once)
            _show_story(desk.show(draft_id), as_json=as_json)


def _show_cases(cases: list[Case], *, as_json: bool) -> None:
    from outbox.clock import wall

    for case in cases:
        click.echo(dumps(case_json(case)) if as_json else case_text(case, wall()))
    if not cases and not as_json:
        click.echo("Nothing is at executing.")


def _settle_proven(settling: Settling, *, as_json: bool) -> None:
    for case, end in settling.settle_proven():
        failed = isinstance(end, OutboxError)
        if as_json:
            told = {"settled": None, **error_json(end)} if isinstance(end, OutboxError) else {"settled": end.value}
            click.echo(dumps({"id": case.held.draft_id, **told}))
        else:
            words = end.message if isinstance(end, OutboxError) else f"settled as {end.value.replace('_', ' ')}"
            click.echo(f"{case.held.draft_id}  {'left: ' if failed else ''}{words}")


def _show_story(story: Story, *, as_json: bool) -> None:
    click.echo(dumps(story_json(story)) if as_json else story_text(story))


@click.command()
@click.option("--check", is_flag=True, help="Exit with 1 where anything is wrong.")
@as_json
def status(check: bool, as_json: bool) -> None:
    """Say how it stands, and what is wrong now."""
    from outbox.operator.status import status as look

    found = look(settings())
    click.echo(dumps(status_json(found)) if as_json else status_text(found))
    if check and found.alerts:
        others = f" (and {len(found.alerts) - 1} more)" if len(found.alerts) > 1 else ""
        raise OutboxError(Code.ALERTS_OPEN, f"{found.alerts[0].code}: {found.alerts[0].message}{others}")


@click.command()
@click.option("--reason", default="no reason was given", show_default=True, help="Everybody can read it.")
@as_json
def pause(reason: str, as_json: bool) -> None:
    """Let nothing leave until `outbox resume`: no claim, and no final dot."""
    from outbox import operator

    with operator.open(settings()) as desk:
        desk.pause(reason=reason)
    click.echo(dumps({"paused": True}) if as_json else "paused; what has its final dot is not stopped by it")


@click.command()
@click.option("--clock", is_flag=True, help="The clock is right now and was ahead before: go by it.")
@as_json
def resume(clock: bool, as_json: bool) -> None:
    """Let mail leave again after a pause; with --clock, after a clock that was ahead."""
    from outbox import operator

    with operator.open(settings()) as desk:
        if clock:
            desk.believe_clock()
        else:
            desk.resume()
    click.echo(dumps({"paused": False}) if as_json else "resumed")


@click.command()
@click.argument("draft_id", metavar="ID")
@click.option("--may-duplicate", is_flag=True, help="Its recipients may get it twice.")
@as_json
def redraft(draft_id: str, may_duplicate: bool, as_json: bool) -> None:
    """Draft again what ended, to be approved anew. Prints the new draft's id."""
    from outbox import operator

    with operator.open(settings()) as desk:
        story = desk.redraft(draft_id, may_duplicate=may_duplicate)
    click.echo(dumps(story_json(story)) if as_json else story.draft.id)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@as_json
def backup(file: Path, as_json: bool) -> None:
    """Copy the database to a new file while it is in use."""
    from outbox.operator.backup import backup as make

    octets = make(settings(), file)
    click.echo(dumps({"file": str(file), "octets": octets}) if as_json else f"{file}: {octets} octets")


@click.group()
def fence() -> None:
    """After a restore: the ledger and the database."""


@fence.command()
@click.option("--note", help="Why the restored database may be believed; kept in the ledger.")
@click.option("--even-so", is_flag=True, help="It was restored, though the ledger has nothing that it lacks.")
@as_json
def accept(note: str | None, even_so: bool, as_json: bool) -> None:
    """Vouch for a database that was restored: what has left stays gone, and what waited in it is cancelled."""
    from outbox import operator

    with operator.open(settings()) as desk:
        report = desk.accept_fence(note=note, even_so=even_so)
    if as_json:
        aside = str(report.aside) if report.aside else None
        told = {"in_doubt": report.in_doubt, "cancelled": report.cancelled, "why": report.why, "aside": aside}
        click.echo(dumps(told))
    else:
        kept = f"; the old ledger is kept as {report.aside}" if report.aside else ""
        click.echo(f"accepted: {report.in_doubt} in doubt, {report.cancelled} cancelled{kept}; workers may start")
