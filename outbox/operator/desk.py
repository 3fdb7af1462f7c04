"""The desk: verdicts, settlements, pauses and redrafts of a person with a key."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from outbox.clock import Clock, new_id, wall
from outbox.config import Settings, required
from outbox.core.address import comparable
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, NotPermitted, StateRefused, UsageError
from outbox.core.finding import one_line
from outbox.core.grant import Channel, Grant, sign_grant
from outbox.core.lifecycle import SYSTEM_KIND, Room
from outbox.core.signed import verify_digest, verify_draft
from outbox.core.signing import KeyRing
from outbox.operator.fence import Fence, FenceReport
from outbox.operator.redraft import redraft
from outbox.operator.rings import journal_ring
from outbox.operator.settling import Settling, person
from outbox.store.engine import connect
from outbox.store.instants import believe_clock
from outbox.store.journal import Chain
from outbox.store.pause import pause_if_running, resume_if_paused
from outbox.store.revision import refuse_other_revision
from outbox.store.rows import load_draft
from outbox.store.stop import cancel_if_not_sent
from outbox.store.verdicts import approve_if_pending, reject_if_pending
from outbox.store.views import Story, story
from outbox.store.writer import Writer

SHORTEST_DIGEST = 32  # hex digits of ID@DIGEST


class Desk:
    """Verdicts from the terminal. Use as a context manager."""

    def __init__(self, settings: Settings, *, verdicts: bool, clock: Clock = wall) -> None:
        self._settings, self._clock = settings, clock
        if verdicts:
            self._terminal_ring()
            required(settings.approvers, "approval.approvers")
        ring = journal_ring(settings)
        self._database = connect(settings.database_place, Room.OPERATOR)
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
