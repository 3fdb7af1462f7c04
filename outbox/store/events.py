"""What happened, as the journal has it, with what a sentence about it needs: shown to people, never acted on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Row, func, select

from outbox.core.errors import DraftUnknown, VerificationFailed
from outbox.store.dialect import PLACE
from outbox.store.engine import Database
from outbox.store.schema import drafts, journal, replies, requests
from outbox.store.views import DraftView, Story, story

MOST_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom a system draft asks, about which draft."""

    approver: str
    draft_id: str
    subject: str


@dataclass(frozen=True, slots=True)
class Event:
    """One journal row: its place, when (microseconds UTC), by which room, the draft as it is now if it can be read.

    `asked` is there where the draft is one that carries a request, `sender` where a reply is what happened.
    """

    place: int
    at: int
    room: str
    action: str
    draft_id: str | None
    attempt_id: str | None
    detail: Mapping[str, str | int | None]
    story: Story | None
    asked: Asked | None
    sender: str


def newest_place(connection: Connection) -> int:
    """The place of the newest journal row; 0 where there is none."""
    return connection.execute(select(func.max(PLACE)).select_from(journal)).scalar_one() or 0


def settled_place(database: Database) -> int:
    """The place of the newest journal row, when none that is lower can come any more; 0 where there is none.

    On a server rows get their places before they are committed, by several writers at once.
    """
    with database.reading(settled=True) as connection:
        return newest_place(connection)


def events_after(connection: Connection, place: int, *, until: int) -> list[Event]:
    """What was journalled after a place and up to another, the oldest first, at most MOST_AT_ONCE."""
    rows = connection.execute(
        select(journal, PLACE.label("place")).where(place < PLACE, until >= PLACE).order_by(PLACE).limit(MOST_AT_ONCE)
    ).all()
    return [_event(connection, row) for row in rows]


def _event(connection: Connection, row: Row[tuple[object, ...]]) -> Event:
    detail, told = _parse_detail(row.detail), _story(connection, row.draft_id)
    return Event(
        place=row.place,
        at=row.at,
        room=row.writer.partition(":")[0],
        action=row.action,
        draft_id=row.draft_id,
        attempt_id=row.attempt_id,
        detail=detail,
        story=told,
        asked=_asked(connection, told.draft) if told is not None else None,
        sender=_sender(connection, detail.get("reply")),
    )


def _parse_detail(stored: str) -> dict[str, str | int | None]:
    try:
        facts = json.loads(stored)
    except (ValueError, RecursionError):  # an altered row says nothing
        return {}
    if not isinstance(facts, dict):
        return {}
    return {name: value for name, value in facts.items() if value is None or isinstance(value, (str, int))}


def _story(connection: Connection, draft_id: str | None) -> Story | None:
    if draft_id is None:
        return None
    try:
        return story(connection, draft_id)
    except (DraftUnknown, VerificationFailed):
        return None


def _asked(connection: Connection, carrier: DraftView) -> Asked | None:
    if carrier.about is None:
        return None
    row = connection.execute(
        select(requests.c.approver, drafts.c.id, drafts.c.subject)
        .join(drafts, drafts.c.id == requests.c.draft_id)
        .where(requests.c.draft_id == carrier.about, requests.c.carrier_id == carrier.id)
        .limit(1)
    ).one_or_none()
    return Asked(row.approver, row.id, row.subject) if row is not None else None


def _sender(connection: Connection, reply_id: str | int | None) -> str:
    if not isinstance(reply_id, str):
        return ""
    found: str | None = connection.execute(
        select(replies.c.sender).where(replies.c.id == reply_id)
    ).scalar_one_or_none()
    return found or ""
