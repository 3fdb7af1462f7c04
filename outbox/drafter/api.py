"""`outbox.draft(...)`: the drafter's room for programs in Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from outbox import config
from outbox.core.errors import Code, PolicyRefused
from outbox.core.message import Attachment
from outbox.drafter.intake import Wanted
from outbox.drafter.room import open, read_attachments, wait_for_verdict
from outbox.sections import parse_duration
from outbox.store.views import DraftView


def draft(
    *,
    sender: str,
    to: str | Sequence[str],
    subject: str,
    text: str | None = None,
    html: str | None = None,
    cc: str | Sequence[str] = (),
    bcc: str | Sequence[str] = (),
    attachments: Sequence[str | Path | Attachment] = (),
    in_reply_to: str | None = None,
    references: Sequence[str] = (),
    kind: str = "email",
    agent: str = "python",
    ttl: int | str | None = None,
    resubmit: str | None = None,
    idempotency_key: str | None = None,
    config_file: str | Path | None = None,
) -> DraftView:
    """Ask for a mail to be sent; nothing leaves before a person approves it. Blocks until the draft is stored.

    Addresses are `jane@example.org` or `Jane <jane@example.org>`, one a string. Attachments are paths, read now, or
    `Attachment(name, media_type, octets)`. `ttl` is in seconds, or "24h". `resubmit` says why it should be asked for
    again what was rejected before. Settings are found as on the command line.
    The returned draft's `id` is what `outbox show` takes. Raises PolicyRefused with a stable `code`, and writes
    nothing, where a rule is broken; ConfigError or Unavailable where the outbox cannot be used.
    """
    wanted = Wanted(
        sender=sender,
        to=_each(to),
        subject=subject,
        text=text,
        html=html,
        cc=_each(cc),
        bcc=_each(bcc),
        attachments=read_attachments([one if isinstance(one, Attachment) else Path(one) for one in attachments]),
        in_reply_to=in_reply_to,
        references=tuple(references),
        kind=kind,
        agent=agent,
        ttl=parse_ttl(ttl),
        resubmit=resubmit,
    )
    with open(config.load(Path(config_file) if config_file is not None else None)) as drafter:
        return drafter.draft(wanted, idempotency_key=idempotency_key).draft


def verdict(draft_id: str, timeout: float, *, config_file: str | Path | None = None) -> DraftView:
    """Wait until a draft is no longer pending, at most `timeout` seconds, and return it as it is then.

    Its `state` says what became of it, and is still "pending" where nobody answered in time; a rejection's words are in
    `rejection.reason`. Needs the database alone. Raises DraftUnknown, ConfigError or Unavailable.
    """
    settings = config.load(Path(config_file) if config_file is not None else None)
    return wait_for_verdict(settings, draft_id, timeout)


def _each(addresses: str | Sequence[str]) -> tuple[str, ...]:
    return (addresses,) if isinstance(addresses, str) else tuple(addresses)


def parse_ttl(ttl: int | str | None) -> int | None:
    """Seconds out of a number or a duration. Raises PolicyRefused(ttl_out_of_range) for anything else."""
    try:
        seconds = parse_duration(ttl)
    except ValueError as error:
        raise PolicyRefused(Code.TTL_OUT_OF_RANGE, f"ttl: {error}", field="ttl") from error
    if seconds is not None and not isinstance(seconds, int):
        raise PolicyRefused(Code.TTL_OUT_OF_RANGE, "ttl: a whole number of seconds is needed", field="ttl")
    return seconds
