"""One attempt, from its claim to its record."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import assert_never

from outbox.alerts import Alerts, never_left
from outbox.clock import Clock
from outbox.core.canonical import sha256
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, OutboxError, PolicyRefused, StateRefused, Unavailable, VerificationFailed
from outbox.core.grant import without_tokens
from outbox.core.lifecycle import SYSTEM_KIND, State
from outbox.core.lifecycle import Outcome as Stored
from outbox.core.message import date_line
from outbox.core.notice import Filled, fill_token
from outbox.core.signed import SignedDraft
from outbox.store.claims import (
    Claim,
    Report,
    cancel_if_stopped,
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
        gap = _Gap(self._writer, claim, self._clock)
        try:
            ended = await self._send(self._verified(claim), gap)
        except (VerificationFailed, PolicyRefused) as refused:
            ended = _not_sent(refused.message, (refused.code, refused.message))
        except OutboxError as error:
            ended = _not_sent(error.message)
        except Exception as error:  # one bad row never stops the loop, and is never tried for ever
            log.exception("an attempt failed", extra={"action": "attempt", "draft": claim.draft_id})
            why = f"the worker failed at it: {type(error).__name__}"
            ended = ended_of(InDoubt(why)) if gap.entered else _not_sent(why, (Code.WORKER_FAILED, why))
        await self._record(claim, ended)
        return ended

    def _verified(self, claim: Claim) -> SignedDraft:
        with self._database.reading() as connection:
            signed = load_draft(connection, claim.draft_id)
            grants = load_grants(connection, claim.draft_id)
        self._verifier.verify(signed, grants, now=self._clock())
        return signed

    async def _send(self, signed: SignedDraft, gap: _Gap) -> Ended:
        filled = Filled(signed.draft.message, None)
        if signed.draft.kind == SYSTEM_KIND:
            filled = fill_token(self._verifier.grant_ring, signed.draft.message)
        octets = date_line(self._clock()) + filled.octets
        gap.wire_digest = sha256(octets)
        ended = ended_of(await self._transport.send(signed.draft.envelope, octets, gap.enter))
        return _without_tokens(ended, filled.token)

    async def _record(self, claim: Claim, ended: Ended) -> None:
        now = self._clock()

        def store(tx: Transaction) -> tuple[Code, str] | None:
            finish_if_open(tx, claim, ended.report, now=now)
            return self._conclude(tx, claim, ended, now)

        while True:
            try:
                alert = await asyncio.wrap_future(self._writer.submit(store))
                break
            except StateRefused as lost:
                log.warning("%s", lost, extra={"action": "lost", "draft": claim.draft_id})
                return
            except Unavailable as error:
                log.error("%s", error, extra={"action": "store-again", "draft": claim.draft_id})
                await asyncio.sleep(_STORE_AGAIN)
        log.info("%s", ended.report.text, extra={"action": ended.report.outcome.value, "draft": claim.draft_id})
        if alert is not None:
            tell = partial(self._alerts.tell, *alert, draft_id=claim.draft_id, by_mail=not claim.is_system)
            await asyncio.to_thread(tell)

    def _conclude(self, tx: Transaction, claim: Claim, ended: Ended, now: int) -> tuple[Code, str] | None:
        """Move the draft to where its attempt's end puts it; returns what the operator is to be told, if anything."""
        outcome, error = ended.report.outcome, ended.error
        if outcome is Stored.ACCEPTED:
            complete_if_held(tx, claim, now=now)
        elif error is None:
            state = release_if_held(tx, claim, not_before=now + self._pause(claim), now=now)
            if state is State.EXPIRED:
                return never_left(claim.draft_id)
        elif outcome is Stored.IN_DOUBT and not claim.is_system:
            pass  # it stays executing, for a person to settle
        elif error[0] is Code.NON_DELEGABLE_KIND:
            refuse_if_held(tx, claim, message=error[1], now=now)
        elif outcome is not Stored.IN_DOUBT and cancel_if_stopped(tx, claim, now=now):
            pass
        else:
            fail_if_held(tx, claim, code=error[0], message=error[1], now=now)
        return error

    def _pause(self, claim: Claim) -> int:
        with self._database.reading() as connection:
            made = attempts_made(connection, claim.draft_id)
        return self._retry[min(made, len(self._retry)) - 1] * MICROSECONDS


class _Gap:
    """The door between the message and its final dot, for one attempt."""

    def __init__(self, writer: Writer, claim: Claim, clock: Clock) -> None:
        self._writer, self._claim, self._clock = writer, claim, clock
        self.wire_digest = b""
        self.entered = False

    async def enter(self) -> GapEntered | GapRefused:
        """Commit the gap; a COMMIT whose fate is unknown is no leave to write the dot."""

        def work(tx: Transaction) -> float:
            before = boottime()
            enter_gap_if_held(tx, self._claim, wire_digest=self.wire_digest, now=self._clock())
            return before

        try:
            at = await asyncio.wrap_future(self._writer.submit(work))
        except StateRefused as refused:
            return GapRefused(refused.message)
        except Unavailable as error:
            return GapRefused(f"it is not known whether the gap was stored: {error.message}")
        self.entered = True
        return GapEntered(at)


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


def _without_tokens(ended: Ended, token: str | None) -> Ended:
    """Relays repeat Message-IDs and addresses; a reply token may not reach a row or a log by way of their words."""

    def clean(text: str) -> str:
        repeated = token is not None and token in "".join(text.split()).lower()
        return "(it repeats a reply token)" if repeated else without_tokens(text)

    report = ended.report
    heard = tuple((address, code, clean(text)) for address, code, text in report.heard)
    queue_id = clean(report.queue_id) if report.queue_id else None
    cleaned = replace(report, text=clean(report.text), queue_id=queue_id, heard=heard)
    error = (ended.error[0], clean(ended.error[1])) if ended.error else None
    return Ended(cleaned, error, ended.halt)
