"""`outbox prune`: what it took out, and what stays inside the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from outbox.cli.options import as_json, settings
from outbox.cli.render import Json, dumps
from outbox.core.errors import Code, UsageError

if TYPE_CHECKING:
    from outbox.operator.prune import Pruned


@click.command()
@click.option("--older-than", metavar="AGE", help='Nothing happened to it for so long: "90d", "12h".')
@click.option("--archive", type=click.Path(path_type=Path), help="A file that gets what goes, first; appended to.")
@click.option("--dry-run", is_flag=True, help="Say how many would go.")
@click.option("--vacuum", is_flag=True, help="Write the file anew, once; with every worker stopped.")
@as_json
def prune(older_than: str | None, archive: Path | None, dry_run: bool, vacuum: bool, as_json: bool) -> None:
    """Take the octets of what ended long ago out; drafts, grants, attempts and the journal stay."""
    from outbox.operator import prune as room

    if vacuum == (older_than is not None):
        raise UsageError(Code.USAGE, "say how old with --older-than 90d, or --vacuum alone", field="--older-than")
    if vacuum and (archive is not None or dry_run):
        raise UsageError(Code.USAGE, "--vacuum takes nothing out; leave --archive and --dry-run away", field="--vacuum")
    if older_than is None:
        found = room.vacuum(settings())
    else:
        age = room.parse_age(older_than)
        found = room.prune(settings(), older_than=age, archive=archive, dry_run=dry_run)
    click.echo(dumps(pruned_json(found)) if as_json else pruned_text(found))


def pruned_json(found: Pruned) -> Json:
    """`outbox prune --json`."""
    return {
        "drafts": found.drafts,
        "octets": found.octets,
        "archive": str(found.archive) if found.archive is not None else None,
        "dry_run": found.is_dry_run,
        "given_back": found.given_back,
        "left_inside": found.left_inside,
    }


def pruned_text(found: Pruned) -> str:
    """What went, and what became of the room that it took."""
    if found.is_dry_run:
        return f"would prune {found.drafts} drafts, {found.octets} octets"
    lines = [f"pruned {found.drafts} drafts, {found.octets} octets; {found.given_back} octets given back to the disk"]
    if found.todo is not None:
        lines.append(f"{found.left_inside} octets are free inside the file and used again; {found.todo}")
    return "\n".join(lines)
