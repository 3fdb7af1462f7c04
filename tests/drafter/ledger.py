"""What the drafter's tests share: the rows that a refusal must leave alone, whole messages, and a second reader."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from outbox import drafter
from outbox.core.errors import Code, PolicyRefused
from outbox.drafter.intake import Overrides
from outbox.store.views import DraftView
from tests.house import JANE, SALES, House

PLAIN = f"From: {SALES}\nTo: {JANE}\nSubject: Offer\n\nDear Jane,\n\nhere it is.\n"


def rows_of(house: House) -> tuple[int, ...]:
    """How many drafts, messages and journal rows there are."""
    return tuple(int(str(house.rows(f"SELECT count(*) FROM {table}")[0][0])) for table in _TABLES)


_TABLES = ("drafts", "messages", "journal")


def adopt(house: House, octets: bytes, *, idempotency_key: str | None = None, **over: object) -> DraftView:
    """Draft a whole message."""
    with drafter.open(house.settings, clock=house.clock) as room:
        overrides = Overrides(**over)  # type: ignore[arg-type]
        return room.adopt(octets, overrides, idempotency_key=idempotency_key).draft


def assert_refused(house: House, code: Code, **given: object) -> PolicyRefused:
    """Drafting is refused with `code`, a sentence and a field, and nothing was written."""
    before = rows_of(house)
    with pytest.raises(PolicyRefused) as caught:
        house.draft(**given)  # type: ignore[arg-type]
    return _nothing_written(house, code, caught.value, before)


def assert_not_adopted(
    house: House, code: Code, octets: bytes, *, idempotency_key: str | None = None, **over: object
) -> PolicyRefused:
    """The same for a whole message."""
    before = rows_of(house)
    with pytest.raises(PolicyRefused) as caught:
        adopt(house, octets, idempotency_key=idempotency_key, **over)
    return _nothing_written(house, code, caught.value, before)


def _nothing_written(house: House, code: Code, refused: PolicyRefused, before: tuple[int, ...]) -> PolicyRefused:
    assert refused.code is code, refused.message
    assert refused.message.strip()
    assert refused.message.isprintable()
    assert rows_of(house) == before
    return refused


def stored(house: House, draft_id: str) -> bytes:
    """The octets as they were signed."""
    ((octets,),) = house.rows("SELECT octets FROM messages WHERE draft_id = ?", draft_id)
    assert isinstance(octets, bytes)
    return octets


def read_back(octets: bytes) -> EmailMessage:
    """A message as another program's parser reads it."""
    return message_from_bytes(octets, policy=policy.default)


def header_names(octets: bytes) -> list[str]:
    """The names of the header fields, by a reading of its own: unfold, split at the first colon."""
    head = octets.split(b"\r\n\r\n", 1)[0]
    return [
        line.split(b":", 1)[0].decode("latin-1").lower()
        for line in head.split(b"\r\n")
        if not line.startswith((b" ", b"\t"))
    ]
