"""`outbox.draft(...)`, `outbox.draft_many(...)`: the drafter's room for programs in Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from outbox import config
from outbox.core.errors import Code, PolicyRefused
from outbox.core.message import Attachment
from outbox.drafter.intake import Asked, Overrides, Wanted, Whole
from outbox.drafter.room import Drafted, Drafter, read_attachments, wait_for_verdict
from outbox.drafter.room import open as open_room
from outbox.sections import parse_duration
from outbox.store.views import DraftView


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """What `draft` takes, for `draft_many`."""

    sender: str
    to: str | Sequence[str]
    subject: str
    text: str | None = None
    html: str | None = None
    cc: str | Sequence[str] = ()
    bcc: str | Sequence[str] = ()
    attachments: Sequence[str | Path | Attachment] = ()
    in_reply_to: str | None = None
    references: Sequence[str] = ()
    kind: str = "email"
    agent: str = "python"
    ttl: int | str | None = None
    resubmit: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeMessage:
    """A ready RFC 5322 message, for `draft_many`; its octets are kept. None takes addresses from its headers."""

    octets: bytes
    sender: str | None = None
    to: str | Sequence[str] | None = None
    cc: str | Sequence[str] | None = None
    bcc: str | Sequence[str] | None = None
    kind: str = "email"
    agent: str = "python"
    ttl: int | str | None = None
    resubmit: str | None = None
    idempotency_key: str | None = None


class Door:
    """The drafter's room, open: for a program that drafts more than once. Use as a context manager."""

    def __init__(self, room: Drafter) -> None:
        self.room = room

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.room.close()

    def draft(self, letter: Letter | WholeMessage) -> DraftView:
        """As `outbox.draft`."""
        return self.room.ask(_asked(letter)).draft

    def draft_many(self, letters: Iterable[Letter | WholeMessage]) -> list[Drafted | PolicyRefused]:
        """As `outbox.draft_many`."""
        return self.room.draft_many(map(_asked_or_refused, letters))


def open(config_file: str | Path | None = None) -> Door:
    """Enter the drafter's room under the settings of `config_file`, or as found on the command line.

    Raises ConfigError or Unavailable where the outbox cannot be used.
    """
    return Door(open_room(config.load(Path(config_file) if config_file is not None else None)))


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
    letter = Letter(
        sender=sender,
        to=to,
        subject=subject,
        text=text,
        html=html,
        cc=cc,
        bcc=bcc,
        attachments=attachments,
        in_reply_to=in_reply_to,
        references=references,
        kind=kind,
        agent=agent,
        ttl=ttl,
        resubmit=resubmit,
        idempotency_key=idempotency_key,
    )
    asked = _asked(letter)
    with open(config_file) as door:
        return door.room.ask(asked).draft


def draft_many(
    letters: Iterable[Letter | WholeMessage], *, config_file: str | Path | None = None
) -> list[Drafted | PolicyRefused]:
    """Ask for many mails at once; returns for each, in order, `Drafted(id, is_new)` or the PolicyRefused it met.

    What is accepted is stored together, at most 256 drafts or 16 MiB in one transaction; letters are taken as they are
    needed. Raises ConfigError or Unavailable where the outbox cannot be used: then an idempotency key for each letter
    makes it safe to ask again for all of them.
    """
    with open(config_file) as door:
        return door.draft_many(letters)


def verdict(draft_id: str, timeout: float, *, config_file: str | Path | None = None) -> DraftView:
    """Wait until a draft is no longer pending, at most `timeout` seconds, and return it as it is then.

    Its `state` says what became of it, and is still "pending" where nobody answered in time; a rejection's words are in
    `rejection.reason`. Needs the database alone. Raises DraftUnknown, ConfigError or Unavailable.
    """
    settings = config.load(Path(config_file) if config_file is not None else None)
    return wait_for_verdict(settings, draft_id, timeout)


def _asked_or_refused(letter: Letter | WholeMessage) -> Asked | PolicyRefused:
    try:
        return _asked(letter)
    except PolicyRefused as refused:
        return refused


def _asked(letter: Letter | WholeMessage) -> Asked:
    wanted = _whole(letter) if isinstance(letter, WholeMessage) else _wanted(letter)
    return Asked(wanted, letter.idempotency_key)


def _wanted(letter: Letter) -> Wanted:
    files = [one if isinstance(one, Attachment) else Path(one) for one in letter.attachments]
    return Wanted(
        sender=letter.sender,
        to=_each(letter.to),
        subject=letter.subject,
        text=letter.text,
        html=letter.html,
        cc=_each(letter.cc),
        bcc=_each(letter.bcc),
        attachments=read_attachments(files),
        in_reply_to=letter.in_reply_to,
        references=tuple(letter.references),
        kind=letter.kind,
        agent=letter.agent,
        ttl=parse_ttl(letter.ttl),
        resubmit=letter.resubmit,
    )


def _whole(letter: WholeMessage) -> Whole:
    said = Overrides(
        sender=letter.sender,
        to=None if letter.to is None else _each(letter.to),
        cc=None if letter.cc is None else _each(letter.cc),
        bcc=None if letter.bcc is None else _each(letter.bcc),
        kind=letter.kind,
        agent=letter.agent,
        ttl=parse_ttl(letter.ttl),
        resubmit=letter.resubmit,
    )
    return Whole(letter.octets, said)


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
