"""The operator's door."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from outbox.clock import Clock, new_id, wall
from outbox.config import Settings, required
from outbox.core.address import comparable
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, ConfigError, NotPermitted, StateRefused, UsageError, VerificationFailed
from outbox.core.finding import one_line
from outbox.core.grant import Channel, Grant, sign_grant
from outbox.core.lifecycle import SYSTEM_KIND, Room, State
from outbox.core.notice import fill_token
from outbox.core.signed import verify_digest, verify_draft
from outbox.core.signing import KeyRing
from outbox.operator.fence import Fence, FenceReport
from outbox.operator.redraft import redraft
from outbox.operator.settling import Settling, person
from outbox.operator.status import Status, status
from outbox.store.engine import Database, connect
from outbox.store.events import Event, events_after, newest_place
from outbox.store.instants import believe_clock
from outbox.store.journal import Chain
from outbox.store.pause import pause_if_running, resume_if_paused
from outbox.store.revision import current, refuse_other_revision
from outbox.store.rows import load_draft
from outbox.store.schema import REVISION
from outbox.store.stop import cancel_if_not_sent
from outbox.store.verdicts import approve_if_pending, reject_if_pending
from outbox.store.views import DraftView, ReplyView, Story, list_drafts, list_replies, story
from outbox.store.writer import Writer

SHORTEST_DIGEST = 32  # hex digits of ID@DIGEST


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

    def is_altered(self, draft_id: str) -> bool:
        """Whether the row, or its octets, is not what the digest was taken over: then what `show` shows is not it."""
        try:
            with self._database.reading() as connection:
                verify_digest(load_draft(connection, draft_id))
        except VerificationFailed:
            return True
        return False

    def octets(self, draft_id: str) -> bytes:
        """The stored message; a request's with its reply token, where this user can read the grant key."""
        with self._database.reading() as connection:
            signed = load_draft(connection, draft_id)
        if signed.draft.kind != SYSTEM_KIND or not self._settings.has_key("grant"):
            return signed.draft.message
        ring = self._settings.grant_ring()
        verify_draft(ring, signed)  # a forged request gets no token
        return fill_token(ring, signed.draft.message).octets

    def replies(self) -> list[ReplyView]:
        """Every message that carried a token of ours, and what became of it."""
        with self._database.reading() as connection:
            return list_replies(connection)

    def status(self, *, clock: Clock = wall) -> Status:
        """How it stands, and what is wrong now."""
        return status(self._settings, self._database, clock=clock)

    def newest_place(self) -> int:
        """Where the journal ends now, for `events`."""
        with self._database.reading() as connection:
            return newest_place(connection)

    def events(self, after: int) -> list[Event]:
        """What was journalled after a place, the oldest first; there may be more after the last one's."""
        with self._database.reading() as connection:
            return events_after(connection, after)


class Desk:
    """Verdicts from the terminal. Use as a context manager."""

    def __init__(self, settings: Settings, *, verdicts: bool, clock: Clock = wall) -> None:
        self._settings, self._clock = settings, clock
        if verdicts:
            self._terminal_ring()
            required(settings.approvers, "approval.approvers")
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

    def approve(self, named_draft: str, *, named: str | None) -> Story:
        """Grant a pending draft, `ID` or `ID@DIGEST`, in the name of `named`, or of the only approver.

        With the digest that `show` printed, at least 32 digits of it, only what was shown is granted. Raises
        NotPermitted, StateRefused, VerificationFailed.
        """
        ring = self._terminal_ring()
        approver = self._approver(named)
        now = self._clock()
        draft_id, bound, shown = named_draft.partition("@")
        with self._database.reading() as connection:
            signed = load_draft(connection, draft_id)
        if signed.draft.kind == SYSTEM_KIND:
            raise StateRefused(Code.STATE_CONFLICT, f"draft {draft_id} is the outbox's own; nobody need approve it")
        if self._settings.has_key("draft"):
            verify_draft(self._settings.draft_ring(), signed)
        verify_digest(signed)
        if bound and not (len(shown) >= SHORTEST_DIGEST and signed.digest.hex().startswith(shown.lower())):
            raise StateRefused(
                Code.DIGEST_MISMATCH, f"draft {draft_id} has not the digest {shown}: it is not what was shown"
            )
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
        self._terminal_ring()
        approver = self._approver(named)
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

    def show(self, draft_id: str) -> Story:
        """Everything that happened to one draft."""
        return self._story(draft_id)

    @property
    def settling(self) -> Settling:
        """What is at executing, and decisions about it."""
        return Settling(self._settings, self._database, self._writer, self._clock)

    def redraft(self, draft_id: str, *, may_duplicate: bool) -> Story:
        """Draft again what ended, to be approved anew. Raises StateRefused where it may have been sent, unless told."""
        with_keys = self._settings, self._database, self._writer
        return self._story(redraft(*with_keys, draft_id, may_duplicate=may_duplicate, clock=self._clock))

    def pause(self, *, reason: str) -> None:
        """Let nothing leave until `resume`, whoever runs and however often it is restarted."""
        now, by = self._clock(), person()
        self._writer.run(lambda tx: pause_if_running(tx, reason=one_line(reason), by=by, now=now))

    def resume(self) -> None:
        """Let mail leave again. Raises StateRefused where it is not paused."""
        now, by = self._clock(), person()
        self._writer.run(lambda tx: resume_if_paused(tx, by=by, now=now))

    def believe_clock(self) -> None:
        """Say that the clock is right now, and was ahead before. Raises StateRefused where nothing is ahead of it."""
        now, by = self._clock(), person()
        longest = 2 * max(self._settings.relay.retry) * MICROSECONDS
        self._writer.run(lambda tx: believe_clock(tx, by=by, now=now, longest=longest))

    def accept_fence(self, *, note: str | None, even_so: bool = False) -> FenceReport:
        """Vouch for a database that was restored. Raises TryLater, StateRefused, UsageError."""
        return Fence(self._settings, self._database, self._writer, self._clock).accept(note, even_so=even_so)

    def _story(self, draft_id: str) -> Story:
        with self._database.reading() as connection:
            return story(connection, draft_id)

    def _terminal_ring(self) -> KeyRing:
        if self._settings.approval.terminal == "off":
            raise NotPermitted(
                Code.TERMINAL_OFF,
                'approval.terminal is "off": answer by replying to the request',
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
            if comparable(approver) == comparable(named):
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


def open(settings: Settings, *, verdicts: bool = False, clock: Clock = wall) -> Desk:
    """Enter the room with a key; for `verdicts` what they need is asked for before anything is opened.

    Raises ConfigError, NotPermitted or Unavailable.
    """
    return Desk(settings, verdicts=verdicts, clock=clock)


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
