"""`outbox journal` and `outbox receipt`: what was recorded, looked through, taken along, and proved to others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outbox.cli.options import as_json, read_input, settings
from outbox.cli.render import Json, dumps, shown
from outbox.core.errors import Code, UsageError, VerificationFailed

if TYPE_CHECKING:
    from outbox.operator.journal import Inspection
    from outbox.operator.receipt_check import Part
    from outbox.operator.replay import Broken
    from outbox.store.chains import ChainedLink

_MARKS = {True: "passed", False: "FAILED", None: "not checked"}
_COLOURS = {True: "green", False: "red", None: "yellow"}


@click.group()
def journal() -> None:
    """Look through the journal, seal it, or take it along."""


@journal.command("verify")
@click.option("--seal", "seals", type=click.Path(path_type=Path), multiple=True, help="A seal kept elsewhere.")
@click.option("--partial", is_flag=True, help="Pass over rows whose key is not held here.")
@as_json
def verify_command(as_json: bool, partial: bool, seals: tuple[Path, ...]) -> None:
    """Find whatever in the journal was changed, taken out, put elsewhere or cut off, and drafts that are elsewhere."""
    from outbox.operator.journal import verify
    from outbox.operator.rings import held_rings

    found = settings()
    inspection = verify(found, held_rings(found), seals=seals)
    for broken in inspection.broken:
        click.echo(dumps(_broken_json(broken)) if as_json else _broken_line(broken))
    for unverified in inspection.unverified:
        fields: Json = {"what": "unverified", "key_id": unverified.key_id, "rows": unverified.rows}
        said = f"not verified: {unverified.rows} of key {unverified.key_id}, the first of {unverified.writer}"
        click.echo(dumps(fields | {"writer": unverified.writer}) if as_json else said)
    _conclude(inspection, partial=partial, as_json=as_json)


def _conclude(inspection: Inspection, *, partial: bool, as_json: bool) -> None:
    rows = sum(unverified.rows for unverified in inspection.unverified)
    if inspection.found:
        most = len(inspection.broken)
        more = f", of which {most} are shown" if inspection.found > most else ""
        words = f"the journal is not as it was written: {inspection.found} found{more}; keep a copy of the database"
        raise VerificationFailed(Code.JOURNAL_BROKEN, words)
    if rows and not partial:
        words = f"{rows} rows and seals could not be verified for want of a key; run it as who holds it, or --partial"
        raise VerificationFailed(Code.KEY_MISSING, words)
    newest = inspection.newest_seal
    fields: Json = {
        "rows": inspection.rows,
        "chains": inspection.chains,
        "seals": inspection.seals,
        "newest_seal": {"seal": newest[0], "digest": newest[1]} if newest is not None else None,
        "unverified": rows,
    }
    sealed = f"seals: {inspection.seals}, the newest {newest[0]}, {newest[1]}" if newest is not None else "no seal yet"
    what = f"all but {rows} rows and seals, which were not verified, are" if rows else "all are"
    words = f"{inspection.rows} rows in {inspection.chains} chains: {what} as they were written; {sealed}"
    click.echo(dumps(fields) if as_json else words)


def _broken_json(broken: Broken) -> Json:
    return {
        "what": broken.what,
        "why": broken.why,
        "writer": broken.writer,
        "seq": broken.seq,
        "draft": broken.draft_id,
    }


def _broken_line(broken: Broken) -> str:
    where = f" row {broken.seq} of {broken.writer}:" if broken.writer is not None else ""
    line = f"{broken.what:<8}{where} {broken.why}"
    return shown(line)


@journal.command("seal")
@click.option("--file", type=click.Path(path_type=Path), help="Where seals are kept; default state/seals.")
@click.option("--all", "whole", is_flag=True, help="Every chain, not only those that grew since the last seal.")
@as_json
def seal_command(as_json: bool, whole: bool, file: Path | None) -> None:
    """Write where every chain of the journal stands to a file, and mail it to the operators."""
    from outbox.operator.sealing import seal_journal

    made = seal_journal(settings(), file=file, whole=whole)
    seal, digest = made.signed.seal, made.signed.digest.hex()
    fields: Json = {
        "seal": seal.number,
        "rows": seal.rows,
        "chains": len(seal.heads),
        "digest": digest,
        "file": str(made.file),
        "mailed": list(made.mailed),
    }
    mailed = f"and in a mail to {', '.join(made.mailed)}" if made.mailed else "and in no mail: nobody is an operator"
    words = f"seal {seal.number}: {seal.rows} rows, digest {digest}, in {made.file} {mailed}"
    click.echo(dumps(fields) if as_json else words)


@journal.command("export")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="PLACE", help="Only what came after a place.")
@as_json
def export_command(after: int, as_json: bool) -> None:
    """Print the journal as JSON lines, with everything that whoever holds the key needs to verify it."""
    from outbox.operator.journal import export

    del as_json  # it is JSON in any case
    for chained in export(settings(), after=after):
        click.echo(dumps(_row_json(chained)))


def _row_json(chained: ChainedLink) -> Json:
    link = chained.link
    entry = link.entry
    return {
        "place": link.place,
        "writer": entry.writer,
        "seq": entry.seq,
        "at": entry.at,
        "action": entry.action,
        "draft": entry.draft_id,
        "attempt": entry.attempt_id,
        "detail": entry.detail,
        "previous": chained.previous.hex() if chained.previous is not None else None,
        "key_id": link.signature.key_id,
        "mac": link.signature.octets.hex(),
    }


class _DraftOrCommand(click.Group):
    """A group whose first word is a draft's id, unless it is the name of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave the id empty for a command, and the command's own flags to it."""
        is_command = bool(args) and args[0] in self.commands
        ctx.allow_interspersed_args = not is_command
        return super().parse_args(ctx, ["", *args] if is_command else args)


@click.group(cls=_DraftOrCommand, invoke_without_command=True, subcommand_metavar="| verify FILE")
@click.argument("draft_id", metavar="ID")
@click.option("--out", help="The file to write; default ID.receipt.json here; - for stdout.")
@as_json
@click.pass_context
def receipt(context: click.Context, as_json: bool, out: str | None, draft_id: str) -> None:
    """Write down what was drafted, shown, approved with what proof, sent and answered, for others to check."""
    if context.invoked_subcommand is not None:
        return
    from outbox.operator.enrolment import write_new
    from outbox.operator.receipt import make_receipt

    made = make_receipt(settings(), draft_id)
    if out == "-":
        sys.stdout.buffer.write(made.octets)
        return
    file = Path(out or f"{draft_id}.receipt.json")
    try:
        write_new(file, made.octets, 0o600)
    except FileExistsError:
        raise UsageError(Code.FILE_EXISTS, f"{file} is there already; name another with --out", field="--out") from None
    fields: Json = {"draft": draft_id, "file": str(file), "sealed_with": made.key_id}
    under = f"under grant key {made.key_id}" if made.key_id else "under no key: this user holds no grant key"
    click.echo(dumps(fields) if as_json else f"wrote {file}, {under}")


@receipt.command("verify")
@click.argument("file")
@as_json
def verify_receipt_command(file: str, as_json: bool) -> None:
    """Check a receipt without a database, part by part, and say which parts anyone can check."""
    from outbox.inbox.kept import why_unproven
    from outbox.operator.receipt_check import check_receipt
    from outbox.operator.rings import held_rings

    parts = check_receipt(read_input(file), held_rings(settings()), why_unproven)
    for part in parts:
        click.echo(dumps(_part_json(part)) if as_json else _part_line(part))
    wrong = sum(part.passed is False for part in parts)
    if wrong:
        raise VerificationFailed(Code.RECEIPT_INVALID, f"{wrong} of {len(parts)} parts of {file} are not what they say")


def _part_json(part: Part) -> Json:
    return {"part": part.name, "by": part.by, "passed": part.passed, "why": part.why}


def _part_line(part: Part) -> str:
    mark = click.style(f"{_MARKS[part.passed]:<11}", fg=_COLOURS[part.passed])
    why = shown(part.why)
    return f"{mark}  {part.by:<9}  {part.name:<12}  {why}"
