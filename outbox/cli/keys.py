"""`outbox keys`: what a key does, who needs it, and what is left for a person to do after each step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from outbox.cli.options import as_json, settings
from outbox.cli.render import Json, dumps

if TYPE_CHECKING:
    from outbox.operator.keyring import Key, Keys, Revocation

_NAME = click.Choice(["draft", "grant"])


@click.group()
def keys() -> None:
    """The keys that drafts and grants are signed with."""


@keys.command("list")
@as_json
def list_command(as_json: bool) -> None:
    """List the keys, and how much of what is under way needs each."""
    with _open() as opened:
        found = opened.all_keys()
    for key in found:
        click.echo(dumps(key_json(key)) if as_json else key_line(key))


@keys.command()
@click.argument("name", metavar="draft|grant", type=_NAME)
@click.option("--activate", is_flag=True, help="Let the key that was made before sign.")
@as_json
def rotate(name: str, activate: bool, as_json: bool) -> None:
    """Make a key that verifies; with --activate, let it sign."""
    from outbox.operator.keyring import parse_name

    with _open() as opened:
        key = opened.activate(parse_name(name)) if activate else opened.rotate(parse_name(name))
    _print(key, left_after_activation(key) if activate else left_after_rotation(key), as_json=as_json)


@keys.command()
@click.argument("key", metavar="KEY")
@as_json
def retire(key: str, as_json: bool) -> None:
    """Put a key away that nothing under way needs, by id or file."""
    with _open() as opened:
        retired = opened.retire(key)
    _print(retired, (f"Keep {retired.file}: the journal and the ledger are verified with it.",), as_json=as_json)


@keys.command()
@click.argument("key", metavar="KEY")
@as_json
def revoke(key: str, as_json: bool) -> None:
    """Void a key that leaked, by id or file, and cancel every draft that rests on it."""
    with _open() as opened:
        done = opened.revoke(key)
    click.echo(dumps(revocation_json(done)) if as_json else revocation_text(done))


def _open() -> Keys:
    from outbox.operator.keyring import open as open_keys

    return open_keys(settings(), file=click.get_current_context().find_root().obj)


def _print(key: Key, left_to_do: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(dumps(key_json(key)))
        return
    click.echo(f"{key.name} key {key.id}: {key.state}, {key.file}")
    for number, left in enumerate(left_to_do, start=1):
        click.echo(f"  {number}. {left}")


def key_json(key: Key) -> Json:
    """One line of `outbox keys list --json`."""
    use = key.use
    return {
        "name": key.name,
        "id": key.id,
        "file": str(key.file),
        "state": key.state.value,
        "drafts": use.drafts if use is not None else None,
        "grants": use.grants if use is not None else None,
        "requests": use.requests if use is not None else None,
        "journal": use.journal if use is not None else None,
    }


def key_line(key: Key) -> str:
    """One line of `outbox keys list`."""
    if key.use is None:
        return f"{key.name:<5}  {'(unreadable)':<16}  {key.state:<8}  {key.file}"
    needed = f"drafts {key.use.drafts}, grants {key.use.grants}, requests {key.use.requests}; journal {key.use.journal}"
    return f"{key.name:<5}  {key.id:<16}  {key.state:<8}  {key.file}  ({needed})"


def left_after_rotation(key: Key) -> tuple[str, ...]:
    """What makes the new key known before it signs."""
    from outbox.operator.keyring import known_by

    return (
        f"Start {known_by(key.name)} again, so that the key is known before it signs.",
        f"`outbox keys rotate {key.name} --activate` lets it sign.",
    )


def left_after_activation(key: Key) -> tuple[str, ...]:
    """What ends the use of the old key."""
    signing = "whatever drafts" if key.name == "draft" else "inbox and worker"
    return (
        f"Start {signing} again: until then the old key goes on signing, which does no harm.",
        "`outbox keys list` says when nothing under way needs the old one; `outbox keys retire KEY` puts it away.",
    )


def revocation_json(done: Revocation) -> Json:
    """`outbox keys revoke --json`."""
    return {
        "name": done.key.name,
        "id": done.key.id,
        "file": str(done.key.file),
        "made": done.made.id if done.made is not None else None,
        "cancelled": [*done.cancelled],
        "stopping": [*done.stopping],
        "workers": [*done.workers],
    }


def revocation_text(done: Revocation) -> str:
    """What was voided, and who still has to be told."""
    lines = [f"{done.key.name} key {done.key.id}: revoked, {done.key.file}"]
    lines += [f"made {done.made.file}, which signs from now on"] if done.made is not None else []
    lines += [f"cancelled {draft_id}" for draft_id in done.cancelled]
    lines += [f"asked to stop {draft_id}" for draft_id in done.stopping]
    if done.workers:
        lines.append("The outbox is paused: a worker runs that still believes this key.")
    rooms = "Start inbox, worker and whatever drafts again now"
    lines.append(f"{rooms}, then `outbox resume`." if done.workers else f"{rooms}, wherever one runs.")
    return "\n".join(lines)
