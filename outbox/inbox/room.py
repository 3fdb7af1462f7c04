"""The inbox's door: ask, read, expire."""

from __future__ import annotations

import logging
import secrets
import signal
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from outbox.alerts import Alerts
from outbox.clock import Clock, new_id, wall
from outbox.config import Settings, required
from outbox.core.errors import (
    Code,
    ConfigError,
    OutboxError,
    PolicyRefused,
    StateRefused,
    Unavailable,
    VerificationFailed,
)
from outbox.core.grant import REQUEST_ID_OCTETS, Request
from outbox.core.lifecycle import Room
from outbox.core.notice import sign_notice
from outbox.core.signed import SignedDraft, verify_digest
from outbox.core.signing import KeyRing
from outbox.inbox.answering import Answering
from outbox.inbox.asking import request_notice
from outbox.inbox.incoming import parse_incoming
from outbox.inbox.judgement import Judge, Judgement
from outbox.inbox.maildir import Maildir
from outbox.overdue import expire_overdue
from outbox.store.engine import Database, connect
from outbox.store.journal import Chain
from outbox.store.notices import insert_request
from outbox.store.revision import refuse_other_revision
from outbox.store.rows import load_draft
from outbox.store.selftest import refuse_untrustworthy
from outbox.store.verdicts import fail_pending
from outbox.store.views import unasked
from outbox.store.writer import Writer

log = logging.getLogger("outbox.inbox")
POLL = 2.0  # seconds between looks at the mailbox


class Inbox:
    """Asks approvers, reads their replies, grants. Use as a context manager."""

    def __init__(self, settings: Settings, *, clock: Clock = wall) -> None:
        _refuse_unproven_replies(settings)
        self._address = required(settings.approval.address, "approval.address")
        self._approvers = settings.approvers
        self._clock = clock
        self._ring = settings.grant_ring()
        mailbox = _open_mailbox(settings)
        self._database = connect(settings.database_path)
        refuse_untrustworthy(self._database)
        self._writer = Writer(self._database, Chain(Room.INBOX, new_id(clock()), self._ring))
        self._alerts = Alerts(settings, Room.INBOX, self._ring, self._writer, clock)
        self._answering = Answering(
            mailbox=mailbox,
            judge=_judge(settings, self._database, self._ring),
            database=self._database,
            writer=self._writer,
            ring=self._ring,
            sender=self._address,
            grant_ttl=settings.approval.grant_ttl,
            clock=clock,
        )

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

    def once(self) -> None:
        """Expire what is overdue, ask for what is pending and not yet asked for, read what is in the mailbox."""
        self.expire()
        self.ask()
        self._answering.read()

    def run(self) -> None:
        """`once` again and again until SIGTERM or SIGINT. What fails is logged and tried again."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: stop.set())
        while not stop.is_set():
            try:
                self.once()
            except OutboxError as error:
                log.error("%s", error, extra={"action": "inbox", "code": error.code.value})
            except Exception:  # the loop: what failed once is looked at again
                log.exception("a look at the mailbox failed", extra={"action": "inbox"})
            stop.wait(POLL)

    def expire(self) -> None:
        """Expire what nobody answered in time, and what was approved and did not leave in time."""
        expire_overdue(self._database, self._writer, self._alerts, now=self._clock())

    def ask(self) -> None:
        """Insert one request for each pending draft and approver that has none under way."""
        for approver in self._approvers:
            with self._database.reading() as connection:
                waiting = unasked(connection, approver, now=self._clock())
            for draft_id, ask in waiting:
                self._ask_about(draft_id, approver, ask)

    def _ask_about(self, draft_id: str, approver: str, ask: int) -> None:
        now = self._clock()
        try:
            with self._database.reading() as connection:
                signed = load_draft(connection, draft_id)
            verify_digest(signed)
            request, carrier = self._request(signed, approver, now)
        except (VerificationFailed, PolicyRefused) as error:
            self._fail(draft_id, error, now)
            return
        except Unavailable:
            raise
        except Exception:  # one bad row never stops the loop, and is never tried for ever
            log.exception("a draft cannot be shown", extra={"action": "ask", "draft": draft_id})
            self._fail(draft_id, VerificationFailed(Code.ROW_UNREADABLE, f"draft {draft_id}: it cannot be shown"), now)
            return
        try:
            self._writer.run(lambda tx: insert_request(tx, request, carrier, ask=ask, now=now))
        except StateRefused:
            return  # another inbox asked at the same time
        log.info("asked %s", approver, extra={"action": "ask", "draft": draft_id})

    def _request(self, signed: SignedDraft, approver: str, now: int) -> tuple[Request, SignedDraft]:
        request = Request(
            id=secrets.token_bytes(REQUEST_ID_OCTETS),
            draft_id=signed.draft.id,
            digest=signed.digest,
            approver=approver,
            expires_at=signed.draft.expires_at,
        )
        notice = request_notice(request, signed, sender=self._address)
        return request, sign_notice(self._ring, notice, Room.INBOX, new_id(now), now)

    def _fail(self, draft_id: str, error: OutboxError, now: int) -> None:
        try:
            self._writer.run(lambda tx: fail_pending(tx, draft_id, code=error.code, message=error.message, now=now))
        except StateRefused:
            return  # another inbox saw it first
        self._alerts.tell(error.code, error.message, draft_id=draft_id)


def open(settings: Settings, *, clock: Clock = wall) -> Inbox:
    """Enter the room. Raises ConfigError or Unavailable where a setting, key, mailbox or database is not as needed."""
    return Inbox(settings, clock=clock)


def explain(settings: Settings, octets: bytes) -> Judgement:
    """What a raw message would do, check by check, without changing anything."""
    _refuse_unproven_replies(settings)
    required(settings.approval.address, "approval.address")
    required(settings.approvers, "approval.approvers")
    ring = settings.grant_ring()
    database = connect(settings.database_path)
    try:
        refuse_other_revision(database)
        return _judge(settings, database, ring).judge(parse_incoming(octets))
    finally:
        database.close()


def _judge(settings: Settings, database: Database, ring: KeyRing) -> Judge:
    return Judge(
        database,
        ring,
        address=required(settings.approval.address, "approval.address"),
        approvers=settings.approvers,
        closing=settings.approval.closing,
    )


def _open_mailbox(settings: Settings) -> Maildir:
    url = required(settings.mailbox.url, "mailbox.url")
    scheme, _, path = url.partition(":")
    if scheme != "maildir" or not path:
        raise ConfigError(Code.NOT_SUPPORTED, "mailbox.url: this version reads maildir:PATH", field="mailbox.url")
    return Maildir(settings.path(Path(path)))


def _refuse_unproven_replies(settings: Settings) -> None:
    """Raise ConfigError unless approval.authenticity is one that this version can keep."""
    if settings.approval.authenticity != "none":
        raise ConfigError(
            Code.NOT_SUPPORTED,
            f'approval.authenticity: "{settings.approval.authenticity}" comes with a later version; this one can only '
            'take "none", written out, beside a relay on loopback',
            field="approval.authenticity",
        )
    if not settings.relay_is_local:
        raise ConfigError(
            Code.CONFIG_INVALID,
            'approval.authenticity: "none" believes whoever knows the token, and is only for a relay.host on loopback',
            field="approval.authenticity",
        )
