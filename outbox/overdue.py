"""What is past its time ends by itself; where it was approved, the operator is told that it never left."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from outbox.alerts import Alerts, never_left
from outbox.core.errors import StateRefused
from outbox.core.lifecycle import SYSTEM_KIND, State
from outbox.store.engine import Database
from outbox.store.expiry import expire_if_overdue, overdue
from outbox.store.writer import Writer


def expire_overdue(database: Database, writer: Writer, alerts: Alerts, *, now: int) -> None:
    """Expire every pending or approved draft whose own time, or whose grant's, is past."""
    with database.reading() as connection:
        found = overdue(connection, now=now)
    for draft in found:
        with suppress(StateRefused):  # it moved meanwhile
            writer.run(partial(expire_if_overdue, draft_id=draft.id, source=draft.state, now=now))
            if draft.state is State.APPROVED:
                alerts.tell(*never_left(draft.id), draft_id=draft.id, by_mail=draft.kind != SYSTEM_KIND)
