"""What the rooms find out about what they stand on, a line each: with a mark for people, as an object for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from outbox.cli.render import dumps
from outbox.core.errors import OutboxError
from outbox.core.finding import Finding, failed

ROOMS = ("drafter", "inbox", "worker")
_COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "red", "-": "bright_black"}


def findings(file: Path | None, rooms: tuple[str, ...], *, send_test: bool) -> Iterator[Finding]:
    """What every room stands on, then what each of `rooms` needs, as it is found.

    Settings that cannot be read are one finding, and then the ConfigError that it is.
    """
    from outbox.config import load
    from outbox.operator.checks import check as check_ground

    try:
        settings = load(file)
    except OutboxError as error:
        yield failed("settings", error, "docs/reference/settings.md describes every setting")
        raise
    yield from check_ground(settings, file)
    if "drafter" in rooms:
        from outbox.drafter.checks import check as check_drafter

        yield from check_drafter(settings)
    if "inbox" in rooms:
        from outbox.inbox.checks import check as check_inbox

        yield from check_inbox(settings)
    if "worker" in rooms:
        from outbox.worker.checks import check as check_worker

        yield from check_worker(settings, send_test=send_test)


def finding_json(finding: Finding) -> dict[str, object]:
    """One line of `outbox doctor --json`."""
    return {"check": finding.check, "passed": finding.passed, "why": finding.why, "todo": finding.todo}


def finding_line(finding: Finding) -> str:
    """One line of `outbox doctor`; click takes the colour out where there is no terminal."""
    mark = click.style(f"{finding.mark:<4}", fg=_COLOURS[finding.mark])
    todo = f" -> {finding.todo}" if finding.todo else ""
    return f"{mark}  {finding.check:<18} {finding.why}{todo}"


def report(found: Iterable[Finding], *, as_json: bool) -> str | None:
    """Print each finding as it comes; what to say at the end where some of them failed."""
    count = wrong = 0
    for finding in found:
        click.echo(dumps(finding_json(finding)) if as_json else finding_line(finding))
        count += 1
        wrong += finding.passed is False
    return f"{wrong} of {count} checks failed" if wrong else None
