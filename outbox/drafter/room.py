"""The drafter's door."""

from __future__ import annotations

import mimetypes
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from outbox.clock import Clock, new_id, wall
from outbox.config import Settings
from outbox.core.errors import Code, PolicyRefused
from outbox.core.lifecycle import Room, State
from outbox.core.message import Attachment, refuse_control
from outbox.core.policy import LARGEST_ATTACHMENT, attachment_violations, raise_first
from outbox.core.signed import SignedDraft
from outbox.drafter.intake import Additions, Intake, Overrides, Wanted
from outbox.store.drafts import OWN_KEYS, insert_pending, withdraw_if_not_sent
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.revision import refuse_other_revision
from outbox.store.views import DraftView, Story, story
from outbox.store.writer import Writer

LONGEST_KEY = 200
VERDICT_POLL = 0.5  # seconds


class Drafter:
    """Parses, checks, signs and inserts drafts. Use as a context manager."""

    def __init__(self, settings: Settings, *, clock: Clock = wall) -> None:
        self._clock = clock
        ring = settings.draft_ring()
        additions = Additions(settings.relay.return_path, settings.policy.archive)
        self._intake = Intake(ring, settings.rules(), settings.policy.default_ttl, additions)
        self._database = connect(settings.database_path)
        refuse_other_revision(self._database)
        self._writer = Writer(self._database, Chain(Room.DRAFTER, new_id(clock()), ring))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the room."""
        self._writer.close()
        self._database.close()

    def draft(self, wanted: Wanted, *, idempotency_key: str | None = None) -> Story:
        """Compose, sign and insert a draft; returns it as stored.

        Raises PolicyRefused, and writes nothing, where it breaks a rule. The same idempotency key of an agent with the
        same content returns the draft that is there.
        """
        now = self._clock()
        return self._insert(self._intake.compose(wanted, new_id(now), now), now, idempotency_key)

    def adopt(self, octets: bytes, overrides: Overrides, *, idempotency_key: str | None = None) -> Story:
        """Take over a whole RFC 5322 message, keeping its octets; returns the draft as stored. Raises PolicyRefused."""
        now = self._clock()
        return self._insert(self._intake.adopt(octets, overrides, new_id(now), now), now, idempotency_key)

    def _insert(self, signed: SignedDraft, now: int, idempotency_key: str | None) -> Story:
        if idempotency_key is not None and (
            not 0 < len(refuse_control(idempotency_key, "idempotency_key")) <= LONGEST_KEY
            or idempotency_key.startswith(OWN_KEYS)
        ):
            message = f'idempotency_key: 1 to {LONGEST_KEY} characters, and not "{OWN_KEYS}" first'
            raise PolicyRefused(Code.IDEMPOTENCY_CONFLICT, message, field="idempotency_key")
        draft_id = self._writer.run(lambda tx: insert_pending(tx, signed, now=now, idempotency_key=idempotency_key))
        with self._database.reading() as connection:
            return story(connection, draft_id)

    def withdraw(self, draft_id: str, *, agent: str) -> State:
        """Cancel an agent's own draft; EXECUTING where it is being sent and was asked to stop. Raises StateRefused."""
        now = self._clock()
        return self._writer.run(lambda tx: withdraw_if_not_sent(tx, draft_id, agent=agent, now=now))


def wait_for_verdict(settings: Settings, draft_id: str, timeout: float) -> DraftView:
    """The draft as soon as it is not pending, or as it is after `timeout` seconds. Raises DraftUnknown, Unavailable."""
    ends = time.monotonic() + timeout
    database = connect(settings.database_path)
    try:
        refuse_other_revision(database)
        while True:
            with database.reading() as connection:
                draft = story(connection, draft_id).draft
            left = ends - time.monotonic()
            if draft.state is not State.PENDING or left <= 0:
                return draft
            time.sleep(min(VERDICT_POLL, left))
    finally:
        database.close()


def open(settings: Settings, *, clock: Clock = wall) -> Drafter:
    """Enter the room. Raises ConfigError where a key, from_domains or the database is not as needed."""
    return Drafter(settings, clock=clock)


def read_attachments(files: Sequence[Path | Attachment]) -> tuple[Attachment, ...]:
    """Read files whole, before anything is signed. Raises PolicyRefused naming the first that cannot be used."""
    attachments = tuple(one if isinstance(one, Attachment) else _read_attachment(one) for one in files)
    raise_first(attachment_violations([(one.name, len(one.octets)) for one in attachments]))
    return attachments


def _read_attachment(file: Path) -> Attachment:
    try:
        facts = file.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise PolicyRefused(Code.ATTACHMENT_UNREADABLE, f"attachment {file} is not a file", field="attach")
        raise_first(attachment_violations([(file.name, facts.st_size)]))
        with file.open("rb") as opened:
            octets = opened.read(LARGEST_ATTACHMENT + 1)
    except FileNotFoundError:
        raise PolicyRefused(Code.ATTACHMENT_MISSING, f"attachment {file} is not there", field="attach") from None
    except (OSError, ValueError) as error:  # ValueError: a path with NUL
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise PolicyRefused(
            Code.ATTACHMENT_UNREADABLE, f"attachment {str(file)!a} cannot be read: {why}", field="attach"
        ) from None
    guessed, encoding = mimetypes.guess_type(file.name)
    usable = guessed and not encoding and not guessed.startswith(("multipart/", "message/"))
    return Attachment(file.name, guessed if usable and guessed else "application/octet-stream", octets)
