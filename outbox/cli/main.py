"""Every command: five lines that parse, open one room, call it and render. Imports wait until they are needed."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outbox import __version__
from outbox.cli.desk import backup, fence, pause, reconcile, redraft, resume, status
from outbox.cli.journal import journal, receipt
from outbox.cli.keys import keys
from outbox.cli.logs import configure
from outbox.cli.options import as_json, has_started, quietly, read_input, read_text, settings
from outbox.cli.pruning import prune
from outbox.cli.render import (
    draft_json,
    draft_line,
    dumps,
    error_json,
    judgement_json,
    judgement_text,
    reply_json,
    reply_line,
    story_json,
    story_text,
)
from outbox.core.errors import Code, OutboxError, UsageError
from outbox.core.lifecycle import State

if TYPE_CHECKING:
    from outbox.store.views import Story


def main() -> None:
    """Run a command; one line on stderr and an exit code (docs/reference/errors.md) where it cannot be done."""
    gc.disable()  # until `has_started`: what is imported stays, and to look through it takes long
    try:
        _run()
    finally:
        gc.freeze()  # it goes with the process: Python would look through all of it once more


def _run() -> None:
    try:
        _refuse_octets(sys.argv)
        outbox.main(standalone_mode=False)
        sys.stdout.flush()
    except OutboxError as error:
        _fail(error)
    except OSError as error:
        _fail(UsageError(Code.FILE_UNREADABLE, f"{error.filename or 'output'}: {error.strerror}"))
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        click.echo(help_wanted.format_message(), err=True)
        sys.exit(help_wanted.exit_code)
    except click.ClickException as error:
        _fail(UsageError(Code.USAGE, " ".join(error.format_message().split())))
    except click.Abort:
        sys.exit(130)


def _refuse_octets(words: list[str]) -> None:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(Code.USAGE, f"{word!a} is not UTF-8 text") from None


def _fail(error: OutboxError) -> None:
    line = dumps(error_json(error)) if "--json" in sys.argv else f"outbox: {' '.join(error.message.split())}"
    click.echo(line, err=True)
    sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file; else $OUTBOX_CONFIG, then ./outbox.toml."
)
@click.version_option(__version__, prog_name="outbox")
@click.pass_context
def outbox(context: click.Context, config: Path | None) -> None:
    """Programs draft mail, a person approves it by reply, and it is sent at most once."""
    configure(logging.WARNING)
    context.obj = config


def _print_story(story: Story, *, json: bool) -> None:
    click.echo(dumps(story_json(story)) if json else story_text(story))


@outbox.command()
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), default=Path(), help="Where to make it; default here."
)
@click.option("--room", type=click.Choice(["all", "drafter"]), default="all", help="drafter: without a grant key.")
@click.option("--from-domain", "from_domains", multiple=True, help="A domain that drafts may be from; may be repeated.")
@click.option("--approver", "approvers", multiple=True, help="Who approves; may be repeated.")
@click.option("--address", help="The approval address that requests are answered to.")
@click.option("--mailbox", help="Where replies arrive: maildir:PATH.")
@click.option("--authenticity", help="How it is known who replied; none beside a loopback relay.")
@click.option("--relay-host", help="The submission server.")
@click.option("--relay-port", type=int)
@click.option("--relay-security", type=click.Choice(["tls", "starttls", "none"]))
@click.option("--provider", type=click.Choice(["gmail", "fastmail", "purelymail"]), help="Whose mailbox ADDRESS is.")
@click.argument("account", metavar="[ADDRESS]", required=False)
@as_json
def init(as_json: bool, **told: Any) -> None:
    """Make settings, keys and a database in a folder; with --provider, all of it for the mailbox ADDRESS there."""
    from outbox.cli.enrolling import show_made
    from outbox.operator.setup import Plan, initialise

    show_made(initialise(Plan(**told)), as_json=as_json)


@outbox.command()
@click.argument("address")
@click.option("--again", is_flag=True, help="Replace the secret that he has.")
@click.option("--show", is_flag=True, help="Print the secret even where stdout is no terminal.")
@as_json
def enrol(address: str, again: bool, show: bool, as_json: bool) -> None:
    """Give an approver the secret of his one-time codes, as a QR code for his authenticator app."""
    from outbox.cli.enrolling import refuse_onlookers, show_enrolment
    from outbox.operator.enrolment import enrol as make

    refuse_onlookers(as_json=as_json, show=show)
    found = settings()
    show_enrolment(make(found, address, again=again), found, as_json=as_json, again=again)


@outbox.command()
@click.option("--keep", is_flag=True, help="Leave the demo's folder behind and say where it is.")
def demo(keep: bool) -> None:
    """Run the whole loop against a real SMTP server on loopback, and try to break it."""
    from outbox.demo import run

    has_started()
    run(keep=keep)


@outbox.command()
@click.option("--from", "sender", help="jane@example.org, or Jane <jane@example.org>.")
@click.option("--to", multiple=True, help="One recipient; may be repeated. So may --cc and --bcc.")
@click.option("--cc", multiple=True)
@click.option("--bcc", multiple=True)
@click.option("--subject")
@click.option("--text")
@click.option("--text-file", help="A file, or - for standard input.")
@click.option("--html-file", help="A file, or - for standard input.")
@click.option("--attach", multiple=True, type=click.Path(path_type=Path), help="A file; may be repeated.")
@click.option("--in-reply-to", help="A Message-ID.")
@click.option("--references", multiple=True, help="A Message-ID; may be repeated.")
@click.option("--eml", help="A whole message instead of parts: a file, or - for standard input.")
@click.option("--eml-dir", type=click.Path(path_type=Path), help="A folder of whole messages: every file in it.")
@click.option("--mbox", type=click.Path(path_type=Path), help="A file of whole messages, as mail programs export them.")
@click.option("--kind", default="email", show_default=True)
@click.option("--agent", default="cli", show_default=True, help="Who drafts.")
@click.option("--ttl", help='How long it may wait: seconds, or "24h".')
@click.option("--resubmit", metavar="REASON", help="Why you ask again for what was rejected; the approver reads it.")
@click.option("--idempotency-key", help="The same key with the same content is the same draft.")
@as_json
def draft(  # the flags that say where a mail comes from, and how it is drafted
    as_json: bool, idempotency_key: str | None, eml: str | None, eml_dir: Path | None, mbox: Path | None, **asked: Any
) -> None:
    """Draft a mail, or many; nothing leaves before a person approves it. Prints each draft's id."""
    from outbox import drafter
    from outbox.cli.drafting import only_one, overrides, wanted

    beside = only_one(eml=eml, eml_dir=eml_dir, mbox=mbox)
    found = settings()
    if beside is not None and eml is None:
        from outbox.cli.bulk import draft_all

        draft_all(found, eml_dir, mbox, overrides(asked, beside), prefix=idempotency_key, as_json=as_json)
        return
    if eml is not None:
        octets, over = read_input(eml), overrides(asked)
        with drafter.open(found) as room:
            story = room.adopt(octets, over, idempotency_key=idempotency_key)
    else:
        parts = wanted(asked, read_text)
        with drafter.open(found) as room:
            story = room.draft(parts, idempotency_key=idempotency_key)
    click.echo(dumps(story_json(story)) if as_json else story.draft.id)


@outbox.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice([state.value for state in State]))
@click.option("--system", is_flag=True, help="The outbox's own mail too.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--after", help="The id of the last draft seen.")
@as_json
def list_command(as_json: bool, states: tuple[str, ...], system: bool, limit: int, after: str | None) -> None:
    """List drafts, the oldest first."""
    from outbox import operator

    with operator.read(settings()) as records:
        found = records.drafts(states=[State(state) for state in states], system=system, limit=limit, after=after)
    for one in found:
        click.echo(dumps(draft_json(one)) if as_json else draft_line(one))


@outbox.command()
@click.argument("draft_id", metavar="ID")
@click.option("--eml", is_flag=True, help="The stored octets instead.")
@as_json
def show(draft_id: str, eml: bool, as_json: bool) -> None:
    """Tell the story of a draft."""
    from outbox import operator

    with operator.read(settings()) as records:
        if eml:
            sys.stdout.buffer.write(records.octets(draft_id))
        else:
            _print_story(records.show(draft_id), json=as_json)
            if records.is_altered(draft_id):
                click.echo(f"outbox: beware, draft {draft_id} is not what its digest was taken over", err=True)
            elif records.is_pruned(draft_id):
                click.echo(f"outbox: the octets of draft {draft_id} were pruned; the rest is as it was", err=True)


@outbox.command()
@click.argument("draft_id", metavar="ID")
@as_json
def cancel(draft_id: str, as_json: bool) -> None:
    """Cancel a draft that has not left; one that is being sent is asked to stop."""
    from outbox import operator

    with operator.open(settings()) as desk:
        _print_story(desk.cancel(draft_id), json=as_json)


@outbox.command()
@click.argument("draft_ids", metavar="ID[@DIGEST]...", nargs=-1, required=True)
@click.option("--as", "named", help="Which approver you are, where there are several.")
@as_json
def approve(draft_ids: tuple[str, ...], named: str | None, as_json: bool) -> None:
    """Approve drafts at the terminal, with the grant key; with @DIGEST only what `show` showed."""
    from outbox import operator

    with operator.open(settings(), verdicts=True) as desk:
        for draft_id in draft_ids:
            _print_story(desk.approve(draft_id, named=named), json=as_json)


@outbox.command()
@click.argument("draft_id", metavar="ID")
@click.option("--reason", required=True, help="The agent can read it.")
@click.option("--as", "named", help="Which approver you are, where there are several.")
@as_json
def reject(draft_id: str, reason: str, named: str | None, as_json: bool) -> None:
    """Reject a draft at the terminal."""
    from outbox import operator

    with operator.open(settings(), verdicts=True) as desk:
        _print_story(desk.reject(draft_id, reason=reason, named=named), json=as_json)


@outbox.group(invoke_without_command=True)
@click.option("--once", is_flag=True, help="Look once, and exit.")
@quietly
@click.pass_context
def inbox(context: click.Context, once: bool, quiet: bool) -> None:
    """Ask approvers, read their replies, grant. Runs until it is stopped."""
    if context.invoked_subcommand is not None:
        return
    from outbox.inbox import open as open_room

    configure(logging.WARNING if once or quiet else logging.INFO)
    with open_room(settings()) as room:
        if once:
            room.once()
        else:
            room.run()


@inbox.command()
@click.argument("file")
@as_json
def explain(file: str, as_json: bool) -> None:
    """Say what a raw message would do, check by check, without changing anything."""
    from outbox.inbox.room import explain as judge

    judgement = judge(settings(), read_input(file))
    click.echo(dumps(judgement_json(judgement)) if as_json else judgement_text(judgement))


@outbox.command()
@as_json
def replies(as_json: bool) -> None:
    """List the messages that carried a token of ours, and what became of each."""
    from outbox import operator

    with operator.read(settings()) as records:
        for reply in records.replies():
            click.echo(dumps(reply_json(reply)) if as_json else reply_line(reply))


@outbox.command()
@click.option("--drain", is_flag=True, help="Until nothing is approved and due, then exit.")
@quietly
def worker(drain: bool, quiet: bool) -> None:
    """Claim, verify again, send at most once. Runs until it is stopped."""
    from outbox.worker import open as open_room

    configure(logging.WARNING if quiet else logging.INFO)
    with open_room(settings()) as room:
        room.run(drain=drain)


@outbox.command()
@as_json
def up(as_json: bool) -> None:
    """Run the inbox and the worker together, and say in sentences what happens, until Ctrl-C."""
    from outbox import operator
    from outbox.cli.running import run

    found, config = settings(), click.get_current_context().find_root().obj
    with operator.read(found) as records:
        code = run(found, records, config=str(config) if config is not None else None, as_json=as_json)
    sys.exit(code)


@outbox.command()
@click.option("--room", "rooms", multiple=True, type=click.Choice(["drafter", "inbox", "worker"]), help="Only these.")
@click.option("--send-test", is_flag=True, help="Send one test message to the first operator.")
@as_json
def doctor(as_json: bool, rooms: tuple[str, ...], send_test: bool) -> None:
    """Check what the outbox stands on, one line each with what to do."""
    from outbox.cli.doctor import ROOMS, findings, report

    if send_test and "worker" not in (rooms or ROOMS):
        raise UsageError(Code.USAGE, "the worker sends the test; --room leaves it out", field="--send-test")
    has_started()
    found = findings(click.get_current_context().find_root().obj, rooms or ROOMS, send_test=send_test)
    if (complaint := report(found, as_json=as_json)) is not None:
        raise OutboxError(Code.CHECK_FAILED, complaint)


@outbox.group()
def db() -> None:
    """The database's revision, and on PostgreSQL the rooms' roles."""


@db.command("roles")
@click.option("--apply", "is_applied", is_flag=True, help="Do it, as the owner of the tables, instead of printing it.")
@as_json
def roles(is_applied: bool, as_json: bool) -> None:
    """Print the SQL that gives each room a role of its own on PostgreSQL."""
    from outbox.operator.roles import give_roles, roles_text

    if is_applied:
        name = give_roles(settings())
        click.echo(
            dumps({"applied": name}) if as_json else f"the rooms' roles are there, with what is theirs in {name}"
        )
    else:
        click.echo(dumps({"sql": roles_text()}) if as_json else roles_text(), nl=as_json)


@db.command("upgrade")
@as_json
def upgrade(as_json: bool) -> None:
    """Bring the database to this version's revision."""
    from outbox.operator.setup import upgrade_settings_database

    revision = upgrade_settings_database(settings())
    click.echo(dumps({"revision": revision}) if as_json else f"at revision {revision}")


@db.command("current")
@as_json
def current(as_json: bool) -> None:
    """Say which revision the database is at."""
    from outbox.operator.records import revision

    found, wanted = revision(settings())
    if as_json:
        click.echo(dumps({"revision": found, "head": wanted}))
    else:
        click.echo(f"{found or 'none'}{'' if found == wanted else f' (this outbox works with {wanted})'}")


for command in (reconcile, status, pause, resume, redraft, backup, prune, fence, keys, journal, receipt):
    outbox.add_command(command)
