"""The drafter's door."""

from __future__ import annotations

import mimetypes
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
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
from outbox.drafter.intake import Additions, Asked, Intake, Overrides, Wanted, Whole
from outbox.store.drafts import OWN_KEYS, NewDraft, insert_many_pending, withdraw_if_not_sent
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.revision import refuse_other_revision
from outbox.store.views import DraftView, Story, story
from outbox.store.writer import MOST_IN_ONE_COMMIT, Writer

LONGEST_KEY = 200
LARGEST_COMMIT = 16 * 1024 * 1024  # octets of messages, after which what is there is inserted
VERDICT_POLL = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Drafted:
    """One of many, stored; not `is_new` where its idempotency key already named the same draft."""

    id: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is inserted in one transaction, and what comes of it."""

    made: Sequence[NewDraft | PolicyRefused]
    inserted: Future[list[str | PolicyRefused]]

    def results(self) -> list[Drafted | PolicyRefused]:
        inserted = iter(self.inserted.result())
        return [_drafted(one, next(inserted)) if isinstance(one, NewDraft) else one for one in self.made]


class Drafter:
    """Parses, checks, signs and inserts drafts. Use as a context manager."""

    def __init__(self, settings: Settings, *, clock: Clock = wall) -> None:
        self._clock = clock
        ring = settings.draft_ring()
        additions = Additions(settings.relay.return_path, settings.policy.archive)
        self._intake = Intake(ring, settings.rules(), settings.policy.default_ttl, additions)
        self._database = connect(settings.database_place, Room.DRAFTER)
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
        return self.ask(Asked(wanted, idempotency_key))

    def adopt(self, octets: bytes, overrides: Overrides, *, idempotency_key: str | None = None) -> Story:
        """Take over a whole RFC 5322 message, keeping its octets; returns the draft as stored. Raises PolicyRefused."""
        return self.ask(Asked(Whole(octets, overrides), idempotency_key))

    def ask(self, asked: Asked) -> Story:
        """Sign and insert a draft; returns it as stored. Raises PolicyRefused."""
        new = self._made(asked)
        now = new.signed.draft.created_at
        (result,) = self._writer.run(lambda tx: insert_many_pending(tx, [new], now=now))
        if isinstance(result, PolicyRefused):
            raise result
        return _as_inserted(new.signed) if result == new.id else self.story(result)

    def draft_many(self, asked: Iterable[Asked | PolicyRefused]) -> list[Drafted | PolicyRefused]:
        """Sign and insert many; returns for each, in order, what it became or why it was, or had been, refused.

        They are inserted together, in one transaction for at most MOST_IN_ONE_COMMIT drafts or LARGEST_COMMIT octets,
        and taken from `asked` as they are needed; while one transaction is written, the next is prepared.
        Raises Unavailable: then those of earlier transactions are stored.
        """
        results: list[Drafted | PolicyRefused] = []
        underway: _Batch | None = None
        for made in self._batches(asked):
            batch = self._submit(made)
            if underway is not None:
                results += underway.results()
            underway = batch
        return results if underway is None else results + underway.results()

    def story(self, draft_id: str) -> Story:
        """A draft as it is stored now. Raises DraftUnknown."""
        with self._database.reading() as connection:
            return story(connection, draft_id)

    def _made_or_refused(self, asked: Asked | PolicyRefused) -> NewDraft | PolicyRefused:
        if isinstance(asked, PolicyRefused):
            return asked
        try:
            return self._made(asked)
        except PolicyRefused as refused:
            return refused

    def _made(self, asked: Asked) -> NewDraft:
        now = self._clock()
        draft_id = new_id(now)
        match asked.wanted:
            case Wanted():
                signed = self._intake.compose(asked.wanted, draft_id, now)
            case Whole(octets, overrides):
                signed = self._intake.adopt(octets, overrides, draft_id, now)
        return NewDraft(signed, _key(asked.idempotency_key))

    def _batches(self, asked: Iterable[Asked | PolicyRefused]) -> Iterator[list[NewDraft | PolicyRefused]]:
        made: list[NewDraft | PolicyRefused] = []
        octets = 0
        for one in asked:
            made.append(self._made_or_refused(one))
            octets += _size(made[-1])
            if len(made) >= MOST_IN_ONE_COMMIT or octets >= LARGEST_COMMIT:
                yield made
                made, octets = [], 0
        if made:
            yield made

    def _submit(self, made: Sequence[NewDraft | PolicyRefused]) -> _Batch:
        new = [one for one in made if isinstance(one, NewDraft)]
        now = self._clock()
        return _Batch(made, self._writer.submit(lambda tx: insert_many_pending(tx, new, now=now)))

    def withdraw(self, draft_id: str, *, agent: str) -> State:
        """Cancel an agent's own draft; EXECUTING where it is being sent and was asked to stop. Raises StateRefused."""
        now = self._clock()
        return self._writer.run(lambda tx: withdraw_if_not_sent(tx, draft_id, agent=agent, now=now))


def _key(idempotency_key: str | None) -> str | None:
    if idempotency_key is not None and (
        not 0 < len(refuse_control(idempotency_key, "idempotency_key")) <= LONGEST_KEY
        or idempotency_key.startswith(OWN_KEYS)
    ):
        message = f'idempotency_key: 1 to {LONGEST_KEY} characters, and not "{OWN_KEYS}" first'
        raise PolicyRefused(Code.IDEMPOTENCY_CONFLICT, message, field="idempotency_key")
    return idempotency_key


def _size(one: NewDraft | PolicyRefused) -> int:
    return len(one.signed.draft.message) if isinstance(one, NewDraft) else 0


def _drafted(one: NewDraft, result: str | PolicyRefused) -> Drafted | PolicyRefused:
    return result if isinstance(result, PolicyRefused) else Drafted(result, result == one.id)


def _as_inserted(signed: SignedDraft) -> Story:
    """What `story` reads of a draft that nobody else has touched yet."""
    draft = signed.draft
    view = DraftView(
        id=draft.id,
        kind=draft.kind,
        agent=draft.agent,
        state=State.PENDING,
        envelope=draft.envelope,
        subject=signed.subject,
        digest=signed.digest,
        fingerprint=signed.fingerprint,
        message_id=signed.message_id,
        about=signed.about,
        created_at=draft.created_at,
        expires_at=draft.expires_at,
        not_before=None,
        stop_asked_at=None,
        error=None,
        rejection=None,
        settlement=None,
        grants=(),
        resubmitted=draft.resubmitted,
    )
    return Story(view, (), ())


def wait_for_verdict(settings: Settings, draft_id: str, timeout: float) -> DraftView:
    """The draft as soon as it is not pending, or as it is after `timeout` seconds. Raises DraftUnknown, Unavailable."""
    ends = time.monotonic() + timeout
    database = connect(settings.database_place, Room.DRAFTER)
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
