"""The operator's door."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from outbox.clock import Clock, new_id, wall
from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, ConfigError, NotPermitted, UsageError
from outbox.core.grant import Channel, Grant, sign_grant
from outbox.core.lifecycle import Room, State
from outbox.core.notice import fill_token
from outbox.core.signed import verify_digest
from outbox.core.signing import KeyRing
from outbox.store.engine import Database, connect
from outbox.store.journal import Chain
from outbox.store.revision import current, refuse_other_revision
from outbox.store.rows import load_draft
from outbox.store.schema import REVISION
from outbox.store.stop import cancel_if_not_sent
from outbox.store.verdicts import approve_if_pending, reject_if_pending
from outbox.store.views import DraftView, ReplyView, Story, list_drafts, list_replies, story
from outbox.store.writer import Writer


class Records:
    """What anyone who can read the database may look at. Needs no key. Use as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: Database = connect(settings.database_path)
        refuse_other_revision(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def drafts(
        self, *, states: Sequence[State] = (), system: bool = False, limit: int = 100, after: str | None = None
    ) -> list[DraftView]:
        """Drafts, the oldest first."""
        with self._database.reading() as connection:
            return list_drafts(connection, states=states, system=system, limit=limit, after=after)

    def show(self, draft_id: str) -> Story:
        """Everything that happened to one draft. Raises DraftUnknown."""
        with self._database.reading() as connection:
            return story(connection, draft_id)

    def octets(self, draft_id: str) -> bytes:
        """The stored message; a request's with its reply token, where this user can read the grant key."""
        with self._database.reading() as connection:
            message = load_draft(connection, draft_id).draft.message
        return fill_token(self._settings.grant_ring(), message) if self._settings.has_key("grant") else message

    def replies(self) -> list[ReplyView]:
        """Every message that carried a token of ours, and what became of it."""
        with self._database.reading() as connection:
            return list_replies(connection)


class Desk:
    """Verdicts from the terminal. Use as a context manager."""

    def __init__(self, settings: Settings, *, clock: Clock = wall) -> None:
        self._settings, self._clock = settings, clock
        ring = _any_ring(settings)
        self._database = connect(settings.database_path)
        refuse_other_revision(self._database)
        self._writer = Writer(self._database, Chain(Room.OPERATOR, new_id(clock()), ring))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._database.close()

    def approve(self, draft_id: str, *, named: str | None) -> Story:
        """Grant a pending draft in the name of `named`, or of the only approver. Raises NotPermitted, StateRefused."""
        ring, approver = self._terminal("approve"), self._approver(named)
        now = self._clock()
        with self._database.reading() as connection:
            signed = load_draft(connection, draft_id)
        verify_digest(signed)
        grant = Grant(
            id=new_id(now),
            draft_id=draft_id,
            digest=signed.digest,
            approver=approver,
            channel=Channel.TERMINAL,
            at=now,
            expires_at=now + self._settings.approval.grant_ttl * MICROSECONDS,
        )
        self._writer.run(lambda tx: approve_if_pending(tx, grant, sign_grant(ring, grant), now=now))
        return self._story(draft_id)

    def reject(self, draft_id: str, *, reason: str, named: str | None) -> Story:
        """Reject one pending draft; its agent can read the reason. Raises NotPermitted, StateRefused."""
        approver = self._approver(named)
        self._terminal("reject")
        now = self._clock()
        self._writer.run(
            lambda tx: reject_if_pending(
                tx, draft_id, approver=approver, channel=Channel.TERMINAL, reason=reason, now=now
            )
        )
        return self._story(draft_id)

    def cancel(self, draft_id: str) -> Story:
        """Cancel what has not left; what is being sent is asked to stop. Raises StateRefused where it is final."""
        now = self._clock()
        self._writer.run(lambda tx: cancel_if_not_sent(tx, draft_id, now=now))
        return self._story(draft_id)

    def _story(self, draft_id: str) -> Story:
        with self._database.reading() as connection:
            return story(connection, draft_id)

    def _terminal(self, verb: str) -> KeyRing:
        if self._settings.approval.terminal == "off":
            raise NotPermitted(
                Code.TERMINAL_OFF,
                f'approval.terminal is "off": {verb} by replying to the request',
                field="approval.terminal",
            )
        return self._settings.grant_ring()

    def _approver(self, named: str | None) -> str:
        approvers = self._settings.approvers
        if named is None:
            if len(approvers) > 1:
                raise UsageError(Code.APPROVER_UNKNOWN, "there are several approvers; say who with --as", field="--as")
            return approvers[0]
        for approver in approvers:
            if approver.casefold() == named.casefold():
                return approver
        raise NotPermitted(Code.APPROVER_UNKNOWN, f"{named} is not in approval.approvers", field="--as")


def _any_ring(settings: Settings) -> KeyRing:
    """The key that journals what is done here: the grant key where this person can read it, else the draft key."""
    if settings.has_key("grant"):
        return settings.grant_ring()
    if settings.has_key("draft"):
        return settings.draft_ring()
    raise ConfigError(
        Code.KEY_MISSING,
        "keys.grant, keys.draft: this user can read neither, so nothing can be journalled",
        field="keys",
    )


def open(settings: Settings, *, clock: Clock = wall) -> Desk:
    """Enter the room with a key. Raises ConfigError or Unavailable where it cannot be."""
    return Desk(settings, clock=clock)


def read(settings: Settings) -> Records:
    """Enter the room to look only. Raises ConfigError or Unavailable where the database is not as needed."""
    return Records(settings)


def revision(settings: Settings) -> tuple[str | None, str]:
    """The database's revision, and the one this version works with."""
    database = connect(settings.database_path)
    try:
        return current(database), REVISION
    finally:
        database.close()
