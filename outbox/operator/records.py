"""The operator's door, and what anyone who can read the database may look at. What one page needs waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from outbox.clock import Clock, wall
from outbox.config import Settings
from outbox.core.errors import Code, VerificationFailed
from outbox.core.lifecycle import SYSTEM_KIND, Room, State
from outbox.store.looking import REVISION

if TYPE_CHECKING:
    from outbox.operator.desk import Desk
    from outbox.operator.status import Status
    from outbox.store.events import Event
    from outbox.store.views import DraftView, ReplyView, Story


class Records:
    """What anyone who can read the database may look at. Needs no key. Use as a context manager."""

    def __init__(self, settings: Settings) -> None:
        from outbox.store.engine import connect
        from outbox.store.revision import refuse_other_revision

        self._settings = settings
        self._database = connect(settings.database_place, Room.OPERATOR)
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
        from outbox.store.views import list_drafts

        with self._database.reading() as connection:
            return list_drafts(connection, states=states, system=system, limit=limit, after=after)

    def show(self, draft_id: str) -> Story:
        """Everything that happened to one draft. Raises DraftUnknown."""
        from outbox.store.views import story

        with self._database.reading() as connection:
            return story(connection, draft_id)

    def is_altered(self, draft_id: str) -> bool:
        """Whether the row, or its octets, is not what the digest was taken over: then what `show` shows is not it."""
        from outbox.core.signed import verify_digest
        from outbox.store.rows import load_draft

        try:
            with self._database.reading() as connection:
                verify_digest(load_draft(connection, draft_id))
        except VerificationFailed as error:
            return error.code is not Code.OCTETS_PRUNED
        return False

    def is_pruned(self, draft_id: str) -> bool:
        """Whether its octets were taken out long after it ended (`outbox prune`)."""
        from outbox.store.retention import is_pruned

        with self._database.reading() as connection:
            return is_pruned(connection, draft_id)

    def octets(self, draft_id: str) -> bytes:
        """The stored message; a request's with its reply token, where this user can read the grant key."""
        from outbox.core.notice import fill_token
        from outbox.core.signed import verify_draft
        from outbox.store.rows import load_draft

        with self._database.reading() as connection:
            signed = load_draft(connection, draft_id)
        if signed.draft.kind != SYSTEM_KIND or not self._settings.has_key("grant"):
            return signed.draft.message
        ring = self._settings.grant_ring()
        verify_draft(ring, signed)  # a forged request gets no token
        return fill_token(ring, signed.draft.message).octets

    def replies(self) -> list[ReplyView]:
        """Every message that carried a token of ours, and what became of it."""
        from outbox.store.views import list_replies

        with self._database.reading() as connection:
            return list_replies(connection)

    def status(self, *, clock: Clock = wall) -> Status:
        """How it stands, and what is wrong now."""
        from outbox.operator.status import status

        return status(self._settings, clock=clock)

    def newest_place(self) -> int:
        """Where the journal ends now, for `events`."""
        from outbox.store.events import settled_place

        return settled_place(self._database)

    def events(self, after: int) -> list[Event]:
        """What was journalled after a place, the oldest first; there may be more after the last one's."""
        from outbox.store.events import events_after, settled_place

        until = settled_place(self._database)
        if until <= after:
            return []
        with self._database.reading() as connection:
            return events_after(connection, after, until=until)


def open(settings: Settings, *, verdicts: bool = False, clock: Clock = wall) -> Desk:
    """Enter the room with a key; for `verdicts` what they need is asked for before anything is opened.

    Raises ConfigError, NotPermitted or Unavailable.
    """
    from outbox.operator.desk import Desk

    return Desk(settings, verdicts=verdicts, clock=clock)


def read(settings: Settings) -> Records:
    """Enter the room to look only. Raises ConfigError or Unavailable where the database is not as needed."""
    return Records(settings)


def revision(settings: Settings) -> tuple[str | None, str]:
    """The database's revision, and the one this version works with."""
    from outbox.store.engine import connect
    from outbox.store.revision import current

    database = connect(settings.database_place, Room.OPERATOR)
    try:
        return current(database), REVISION
    finally:
        database.close()
