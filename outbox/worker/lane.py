"""One attempt, from its claim to its record."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import assert_never

from outbox.alerts import Alerts
from outbox.clock import Clock
from outbox.core.canonical import sha256
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, OutboxError, PolicyRefused, StateRefused, Unavailable, VerificationFailed
from outbox.core.lifecycle import SYSTEM_KIND
from outbox.core.lifecycle import Outcome as Stored
from outbox.core.message import date_line
from outbox.core.notice import fill_token
from outbox.core.signed import SignedDraft
from outbox.store.claims import (
    Claim,
    Report,
    complete_if_held,
    enter_gap_if_held,
    fail_if_held,
    finish_if_open,
    refuse_if_held,
    release_if_held,
)
from outbox.store.engine import Database
from outbox.store.rows import load_draft, load_grants
from outbox.store.views import attempts_made
from outbox.store.writer import Transaction, Writer
from outbox.transport.outcome import Accepted, Heard, InDoubt, NotSent, Outcome, Refused, Reply
from outbox.transport.smtp import GapEntered, GapRefused, SmtpTransport, boottime
from outbox.worker.verification import Verifier

log = logging.getLogger("outbox.worker")
_STORE_AGAIN = 1.0  # seconds between tries to store what is known


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: what to store, the error that its draft ends with if it ends, and whether to halt."""

    report: Report
    error: tuple[Code, str] | None = None
    halt: bool = False


class Lane:
    """Verifies, sends and records one claim at a time."""

    def __init__(
        self,
        *,
        transport: SmtpTransport,
        verifier: Verifier,
        database: Database,
        writer: Writer,
        alerts: Alerts,
        retry: tuple[int, ...],
        clock: Clock,
    ) -> None:
        self._transport, self._verifier, self._database, self._writer = transport, verifier, database, writer
        self._alerts, self._retry, self._clock = alerts, retry, clock

    async def attempt(self, claim: Claim) -> Ended:
        """Verify, send, record. Whatever goes wrong, the row tells the truth about it."""
        try:
            signed = self._verified(claim)
        except (VerificationFailed, PolicyRefused) as refused:
            ended = _not_sent(refused.message, (refused.code, refused.message))
            kind = None
        except OutboxError as error:
            ended, kind = _not_sent(error.message), None
        else:
            ended, kind = await self._send(claim, signed), signed.draft.kind
        await self._record(claim, ended, kind)
        return ended

    def _verified(self, claim: Claim) -> SignedDraft:
        with self._database.reading() as connection:
            signed = load_draft(connection, claim.draft_id)
            grants = load_grants(connection, claim.draft_id)
        self._verifier.verify(signed, grants, now=self._clock())
        return signed

    async def _send(self, claim: Claim, signed: SignedDraft) -> Ended:
        message = signed.draft.message
        if signed.draft.kind == SYSTEM_KIND:
            message = fill_token(self._verifier.grant_ring, message)
        octets = date_line(self._clock()) + message
        gap = _Gap(self._writer, claim, sha256(octets), self._clock)
        try:
            return ended_of(await self._transport.send(signed.draft.envelope, octets, gap.enter))
        except Exception as error:  # one bad row never stops the loop, and is never tried for ever
            log.exception("an attempt failed", extra={"action": "attempt", "draft": claim.draft_id})
            why = f"the worker failed while it sent: {type(error).__name__}"
            if gap.asked_for:
                return ended_of(InDoubt(why))
            return _not_sent(why, (Code.WORKER_FAILED, why))

    async def _record(self, claim: Claim, ended: Ended, kind: str | None) -> None:
        now = self._clock()

        def store(tx: Transaction) -> None:
            finish_if_open(tx, claim, ended.report, now=now)
            self._conclude(tx, claim, ended, kind, now)

        while True:
            try:
                await asyncio.wrap_future(self._writer.submit(store))
                break
            except StateRefused as lost:
                log.warning("%s", lost, extra={"action": "lost", "draft": claim.draft_id})
                return
            except Unavailable as error:
                log.error("%s", error, extra={"action": "store-again", "draft": claim.draft_id})
                await asyncio.sleep(_STORE_AGAIN)
        log.info("%s", ended.report.text, extra={"action": ended.report.outcome.value, "draft": claim.draft_id})
        await self._tell(claim, ended, kind)

    def _conclude(self, tx: Transaction, claim: Claim, ended: Ended, kind: str | None, now: int) -> None:
        if ended.report.outcome is Stored.ACCEPTED:
            complete_if_held(tx, claim, now=now)
        elif ended.error is None and ended.report.outcome is not Stored.IN_DOUBT:
            release_if_held(tx, claim, not_before=now + self._pause(claim), now=now)
        elif ended.error is not None and ended.error[0] is Code.NON_DELEGABLE_KIND:
            refuse_if_held(tx, claim, message=ended.error[1], now=now)
        elif ended.error is not None and (ended.report.outcome is not Stored.IN_DOUBT or kind == SYSTEM_KIND):
            fail_if_held(tx, claim, code=ended.error[0], message=ended.error[1], now=now)

    def _pause(self, claim: Claim) -> int:
        with self._database.reading() as connection:
            made = attempts_made(connection, claim.draft_id)
        return self._retry[min(made, len(self._retry)) - 1] * MICROSECONDS

    async def _tell(self, claim: Claim, ended: Ended, kind: str | None) -> None:
        if ended.error is None:
            return
        code, message = ended.error
        await asyncio.to_thread(self._alerts.tell, code, message, draft_id=claim.draft_id, by_mail=kind != SYSTEM_KIND)


class _Gap:
    """The door between the message and its final dot, for one attempt."""

    def __init__(self, writer: Writer, claim: Claim, wire_digest: bytes, clock: Clock) -> None:
        self._writer, self._claim, self._wire_digest, self._clock = writer, claim, wire_digest, clock
        self.asked_for = False

    async def enter(self) -> GapEntered | GapRefused:
        """Commit the gap; a COMMIT whose fate is unknown is no leave to write the dot."""
        self.asked_for = True

        def work(tx: Transaction) -> float:
            before = boottime()
            enter_gap_if_held(tx, self._claim, wire_digest=self._wire_digest, now=self._clock())
            return before

        try:
            return GapEntered(await asyncio.wrap_future(self._writer.submit(work)))
        except StateRefused as refused:
            return GapRefused(refused.message)
        except Unavailable as error:
            return GapRefused(f"it is not known whether the gap was stored: {error.message}")


def ended_of(outcome: Outcome) -> Ended:
    """What is stored of an outcome, and what its draft ends with where it ends."""
    match outcome:
        case Accepted(reply, queue_id, heard):
            return Ended(_report(Stored.ACCEPTED, reply, heard, queue_id))
        case Refused(transient, reply, heard):
            stored = Stored.REFUSED_TRANSIENT if transient else Stored.REFUSED_PERMANENT
            return Ended(
                _report(stored, reply, heard), None if transient else (Code.RELAY_REFUSED, f"the relay said {reply}")
            )
        case NotSent(why, transient, halt, reply):
            code, enhanced = (reply.code, reply.enhanced) if reply else (None, None)
            report = Report(Stored.NOT_SENT, code, enhanced, why)
            return Ended(report, None if transient else (Code.RELAY_LACKS, why), halt)
        case InDoubt(why):
            return Ended(Report(Stored.IN_DOUBT, None, None, why), (Code.IN_DOUBT, f"{why}; it may have been sent"))
    assert_never(outcome)


def _not_sent(why: str, error: tuple[Code, str] | None = None) -> Ended:
    return Ended(Report(Stored.NOT_SENT, None, None, why), error)


def _report(stored: Stored, reply: Reply, heard: tuple[Heard, ...], queue_id: str | None = None) -> Report:
    each = tuple((one.address, one.reply.code, f"{one.reply.enhanced or ''} {one.reply.text}".strip()) for one in heard)
    return Report(stored, reply.code, reply.enhanced, reply.text, queue_id, each)
