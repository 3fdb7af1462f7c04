"""Ask each approver about each pending draft, and remind him once before its time is over."""

from __future__ import annotations

import logging
import secrets
from functools import partial

from outbox.alerts import Alerts
from outbox.clock import Clock, new_id
from outbox.core.errors import Code, OutboxError, PolicyRefused, StateRefused, Unavailable, VerificationFailed
from outbox.core.grant import REQUEST_ID_OCTETS, Request
from outbox.core.lifecycle import Room
from outbox.core.notice import sign_notice
from outbox.core.signed import SignedDraft, verify_digest
from outbox.core.signing import KeyRing
from outbox.inbox.authenticity import Authenticity
from outbox.inbox.wording import Manner, request_notice
from outbox.store.engine import Database
from outbox.store.notices import insert_request
from outbox.store.rows import load_draft
from outbox.store.tellings import Telling, due_reminders, remind_once
from outbox.store.verdicts import fail_pending
from outbox.store.views import unasked
from outbox.store.writer import Writer

log = logging.getLogger("outbox.inbox")
SHORTEST_REMINDED = 3600 * 1_000_000  # a draft that lives for less is not reminded of


class Asking:
    """Makes requests: what is shown is rendered from the octets that the request's digest is taken over."""

    def __init__(
        self,
        *,
        approvers: tuple[str, ...],
        authenticity: Authenticity,
        database: Database,
        writer: Writer,
        alerts: Alerts,
        ring: KeyRing,
        manner: Manner,
        clock: Clock,
    ) -> None:
        self._approvers, self._authenticity = approvers, authenticity
        self._database, self._writer, self._alerts = database, writer, alerts
        self._ring, self._manner, self._clock = ring, manner, clock

    def ask(self) -> None:
        """Insert one request for each pending draft and approver that has none under way."""
        for approver in self._approvers:
            with self._database.reading() as connection:
                waiting = unasked(connection, approver, now=self._clock())
            for draft_id, ask in waiting:
                self._ask_about(draft_id, approver, ask)

    def remind(self) -> None:
        """Send the request once more, in its thread, where three quarters of its time are over."""
        now = self._clock()
        with self._database.reading() as connection:
            due = due_reminders(connection, now=now, shortest=SHORTEST_REMINDED)
        for telling in due:
            self._remind_of(telling, now)

    def _ask_about(self, draft_id: str, approver: str, ask: int) -> None:
        now = self._clock()
        try:
            signed = self._load(draft_id)
            request = Request(
                id=secrets.token_bytes(REQUEST_ID_OCTETS),
                draft_id=signed.draft.id,
                digest=signed.digest,
                approver=approver,
                expires_at=signed.draft.expires_at,
            )
            carrier = self._carrier(request, signed, None, now)
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

    def _remind_of(self, telling: Telling, now: int) -> None:
        request = telling.request
        try:
            signed = self._load(request.draft_id)
            wanted = request.approver in self._approvers and signed.digest == request.digest  # it is what he was shown
            carrier = self._carrier(request, signed, telling.carrier_id, now) if wanted else None
            self._writer.run(partial(remind_once, request=request, notice=carrier, now=now))
        except (VerificationFailed, PolicyRefused) as error:
            self._fail(request.draft_id, error, now)
            return
        except StateRefused:
            return  # he answered, or another inbox reminded him
        log.info("reminded %s", request.approver, extra={"action": "remind", "draft": request.draft_id})

    def _load(self, draft_id: str) -> SignedDraft:
        with self._database.reading() as connection:
            signed = load_draft(connection, draft_id)
        verify_digest(signed)
        return signed

    def _carrier(self, request: Request, signed: SignedDraft, carrier_id: str | None, now: int) -> SignedDraft:
        with_code = self._authenticity.needs_code(signed)
        notice = request_notice(request, signed, self._manner, with_code=with_code, carrier_id=carrier_id)
        return sign_notice(self._ring, notice, Room.INBOX, new_id(now), now)

    def _fail(self, draft_id: str, error: OutboxError, now: int) -> None:
        try:
            self._writer.run(lambda tx: fail_pending(tx, draft_id, code=error.code, message=error.message, now=now))
        except StateRefused:
            return  # another inbox saw it first
        self._alerts.tell(error.code, error.message, draft_id=draft_id)
