"""What a room that acts on the database tries before it trusts it."""

from __future__ import annotations

from sqlalchemy import insert, text, update
from sqlalchemy.exc import IntegrityError

from outbox.core.errors import Code, Unavailable
from outbox.core.lifecycle import SYSTEM_KIND, State
from outbox.store.engine import Database, translated
from outbox.store.revision import refuse_altered, refuse_other_revision
from outbox.store.schema import drafts

_PROBE = {
    "id": "self-test", "kind": SYSTEM_KIND, "agent": "self-test", "envelope": "{}", "subject": "", "message_id": "",
    "thread_references": "{}", "digest": bytes(32), "fingerprint": bytes(32), "signature": bytes(32), "key_id": "",
    "created_at": 0, "expires_at": 1, "not_before": 0, "state": State.APPROVED.value,
}  # fmt: skip


def refuse_untrustworthy(database: Database) -> None:
    """Raise unless commits are seen by others, guards are as made, and an illegal transition is refused."""
    refuse_other_revision(database)
    refuse_altered(database)
    with translated(database.name):
        _commit_and_read_back(database)
        _try_an_illegal_edge(database)


def _commit_and_read_back(database: Database) -> None:
    if database.is_server:
        _commit_on_server(database)
        return
    with database.writer.begin() as connection:
        before = connection.execute(text("PRAGMA user_version")).scalar_one()
        written = (before + 1) % 2**31
        connection.exec_driver_sql(f"PRAGMA user_version = {written}")
    with database.reader.connect() as connection:
        if connection.execute(text("PRAGMA user_version")).scalar_one() == before:
            raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{database.name}: a commit was not stored")


def _commit_on_server(database: Database) -> None:
    """A transaction that has a number and writes no row: every room may make one."""
    with database.writer.begin() as connection:
        number = connection.execute(text("SELECT pg_current_xact_id()::text")).scalar_one()
    asked = text("SELECT pg_xact_status(CAST(:number AS xid8))").bindparams(number=number)
    with database.reader.connect() as connection:
        if connection.execute(asked).scalar_one() != "committed":
            raise Unavailable(Code.DATABASE_UNAVAILABLE, f"{database.name}: a commit was not stored")


def _try_an_illegal_edge(database: Database) -> None:
    with database.writer.connect() as connection, connection.begin() as transaction:
        try:
            connection.execute(insert(drafts).values(_PROBE))
            connection.execute(update(drafts).where(drafts.c.id == _PROBE["id"]).values(state=State.PENDING.value))
        except IntegrityError:
            transaction.rollback()
            return
        transaction.rollback()
    raise Unavailable(Code.DATABASE_ALTERED, f"{database.name}: it let a draft go from approved to pending")
