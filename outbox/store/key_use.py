"""Which live rows need a key, who signed with it last, and the end of everything that a leaked one vouched for.

A reply token names no key. The worker makes it with the key that signs its journal rows, and the inbox reads an answer
beside the letter that asked for it: so an open request needs the keys of its letters, and of the workers' rows on them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, text

from outbox.core.errors import Code
from outbox.core.lifecycle import Room, State, Verb
from outbox.store.schema import drafts, grants, journal, requests, workers
from outbox.store.stop import cancel_if_not_sent
from outbox.store.transition import move
from outbox.store.writer import Transaction

_WORKERS = f"{Room.WORKER}:"
_OPERATORS = f"{Room.OPERATOR}:"
# Literal, and each with a query of its own, so that SQLite sees that the partial indexes apply.
_LIVE = text(
    "drafts.id IN (SELECT id FROM drafts WHERE state IN ('pending', 'approved')"
    " UNION ALL SELECT id FROM drafts WHERE state = 'executing')"
)
_OF_DRAFT = requests.c.draft_id == drafts.c.id
_letter = drafts.alias("letter")


@dataclass(frozen=True, slots=True)
class KeyUse:
    """Live drafts and grants that a key signed, open requests that need it, and every journal row that it signed."""

    drafts: int
    grants: int
    requests: int
    journal: int

    @property
    def is_live(self) -> bool:
        """Whether something still under way would be lost without the key. The journal is read with retired keys."""
        return bool(self.drafts or self.grants or self.requests)


@dataclass(frozen=True, slots=True)
class Rotations:
    """Instants (microseconds UTC) by key id: when each key was made by a rotation, and when it began to sign."""

    made: dict[str, int]
    activated: dict[str, int]


@dataclass(frozen=True, slots=True)
class Voided:
    """What a revocation ended: drafts cancelled at once, and those under way that were asked to stop."""

    cancelled: tuple[str, ...]
    stopping: tuple[str, ...]


def use_of(connection: Connection, key_id: str, *, now: int) -> KeyUse:
    """What needs a key. The count over the journal reads all of it: not for a loop."""
    counted = [
        select(func.count()).select_from(drafts).where(_LIVE, drafts.c.key_id == key_id),
        select(func.count()).select_from(grants.join(drafts)).where(_LIVE, grants.c.key_id == key_id),
        select(func.count()).select_from(requests.join(drafts, _OF_DRAFT)).where(_LIVE, _is_open(key_id, now)),
        select(func.count()).select_from(journal).where(journal.c.key_id == key_id),
    ]
    return KeyUse(*(int(connection.execute(query).scalar_one()) for query in counted))


def cancel_if_signed_with(tx: Transaction, key_id: str, *, now: int) -> Voided:
    """Cancel every live draft that needs the key, saying why; what is being sent is asked to stop."""
    needing = tx.connection.execute(select(drafts.c.id, drafts.c.state).where(_LIVE, _needs(key_id, now))).all()
    why = (Code.KEY_REVOKED, f"key {key_id} was revoked, and this draft rests on it; draft it again")
    cancelled, stopping = [], []
    for row in needing:
        if row.state == State.EXECUTING:
            cancel_if_not_sent(tx, row.id, now=now)
            stopping.append(row.id)
        else:
            move(tx, Verb.CANCEL, row.id, source=State(row.state), now=now, error=why)
            cancelled.append(row.id)
    return Voided(tuple(cancelled), tuple(stopping))


def rotations_told(connection: Connection) -> Rotations:
    """What the journal says of rotations."""
    query = (
        select(journal.c.action, journal.c.at, journal.c.detail)
        .where(journal.c.action.in_(["rotate_key", "activate_key"]))
        .order_by(journal.c.at, journal.c.writer, journal.c.seq)
    )
    rotations = Rotations({}, {})
    for row in connection.execute(query):
        told = rotations.made if row.action == "rotate_key" else rotations.activated
        with suppress(ValueError, AttributeError, RecursionError):  # an altered row is found by `journal verify`
            told[str(json.loads(row.detail).get("key"))] = row.at
    return rotations


def workers_since_before(connection: Connection, instant: int) -> list[str]:
    """Workers that have not ended and were started before a key was made: they do not know it."""
    query = select(workers.c.id).where(workers.c.ended_at.is_(None), workers.c.started_at <= instant)
    return list(connection.execute(query).scalars())


def workers_signing_with(connection: Connection, key_id: str) -> list[str]:
    """Workers that have not ended and sign with a key."""
    signs = exists().where(journal.c.writer == _WORKERS + workers.c.id, journal.c.key_id == key_id)
    return list(connection.execute(select(workers.c.id).where(workers.c.ended_at.is_(None), signs)).scalars())


def last_signed(connection: Connection, key_id: str, *, since: int) -> tuple[str, int] | None:
    """Which room signed with a key last after an instant, and when; the operator's commands aside, which are short."""
    query = (
        select(journal.c.writer, journal.c.at)
        .where(journal.c.key_id == key_id, journal.c.at > since, journal.c.writer.not_like(f"{_OPERATORS}%"))
        .order_by(journal.c.at.desc(), journal.c.writer.desc(), journal.c.seq.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return (row.writer.partition(":")[0], row.at) if row is not None else None


def _needs(key_id: str, now: int) -> ColumnElement[bool]:
    return or_(
        drafts.c.key_id == key_id,
        exists().where(grants.c.draft_id == drafts.c.id, grants.c.key_id == key_id),
        exists().where(_OF_DRAFT, _is_open(key_id, now)),
    )


def _is_open(key_id: str, now: int) -> ColumnElement[bool]:
    """Whether a request can still be answered, to approve or to stop, through a letter that the key had a part in."""
    by_inbox = and_(
        text("letter.about IS NOT NULL"), _letter.c.about == requests.c.draft_id, _letter.c.agent == "inbox"
    )
    made_its_token = exists().where(
        journal.c.draft_id == _letter.c.id, journal.c.key_id == key_id, journal.c.writer.like(f"{_WORKERS}%")
    )
    letter = exists().where(
        or_(_letter.c.id == requests.c.carrier_id, by_inbox),
        _letter.c.state.in_([State.EXECUTING.value, State.COMPLETED.value]),
        or_(_letter.c.key_id == key_id, made_its_token),
    )
    return and_(requests.c.expires_at > now, letter)
