"""One attempt, from its claim to its record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from outbox.alerts import Alerts
from outbox.clock import Clock, ClockWatch, new_id
from outbox.core.canonical import sha256
from outbox.core.delivery import envid
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, OutboxError, PolicyRefused, StateRefused, Unavailable, VerificationFailed
from outbox.core.evidence import Evidence
from outbox.core.lifecycle import SYSTEM_KIND, Outcome
from outbox.core.message import date_line
from outbox.core.notice import Filled, fill_token
from outbox.core.signed import SignedDraft
from outbox.ledger import Entered, Ledger
from outbox.outage import Outage
from outbox.store.claims import Claim, enter_gaps_if_held
from outbox.store.engine import Database
from outbox.store.evidence import insert_evidence
from outbox.store.loading import Loaded, load_for_sending
from outbox.store.open_attempts import attempts_made
from outbox.store.writer import Transaction, Writer
from outbox.switches import Switches
from outbox.transport.outcome import InDoubt
from outbox.transport.smtp import GapEntered, GapRefused, SmtpTransport, boottime
from outbox.worker.ending import Conclusion, Ended, conclude, ended_of, ledger_line, not_sent, without_words_of_tokens
from outbox.worker.turn import Turn
from outbox.worker.verification import Verifier

log = logging.getLogger("outbox.worker")
_STORE_AGAIN = 1.0  # seconds between tries to store what is known
_JITTER = 0.1  # of a pause at most, so that what was deferred together does not come back together


class Lane:
    """Verifies, sends and records one claim at a time."""

    def __init__(
        self,
        *,
        transport: SmtpTransport,
        verifier: Verifier,
        database: Database,
        writer: Writer,
        turn: Turn,
        ledger: Ledger,
        switches: Switches,
        alerts: Alerts,
        retry: tuple[int, ...],
        clock: Clock,
        watch: ClockWatch,
        archive: str | None = None,
        return_path: str | None = None,
    ) -> None:
        self._spare = () if archive is None else (archive,)
        self._return_path = return_path
        self._transport, self._verifier, self._database, self._writer = transport, verifier, database, writer
        self._turn, self._ledger, self._switches, self._watch = turn, ledger, switches, watch
        self._alerts, self._retry, self._clock = alerts, retry, clock

    def load(self, claims: Sequence[Claim]) -> dict[str, Loaded]:
        """The rows and octets of what was claimed, read at one time, by draft id. Raises Unavailable."""
        with self._database.reading() as connection:
            loaded = load_for_sending(connection, [claim.draft_id for claim in claims])
        self._ledger.catch_up()
        return loaded

    async def attempt(self, claim: Claim, loaded: Loaded | Unavailable, free: Callable[[Ended | None], None]) -> None:
        """Verify, send, record. Whatever goes wrong, the row tells the truth about it.

        `free` is called with how it ended, or None where that is not known, before that is stored: what is claimed in
        its place is claimed together with that.
        """
        gap = _Gap(self._database, self._turn, self._switches, claim, self._clock)
        ended = None
        try:
            ended = await self._ended(claim, loaded, gap)
        finally:
            free(ended)
        await self._record(claim, ended, gap)

    async def _ended(self, claim: Claim, loaded: Loaded | Unavailable, gap: _Gap) -> Ended:
        try:
            ended = await self._send(self._verified(claim, loaded, gap), claim, gap)
        except (VerificationFailed, PolicyRefused) as refused:
            ended = not_sent(refused.message, (refused.code, refused.message))
        except OutboxError as error:
            ended = ended_of(InDoubt(error.message)) if gap.entered else not_sent(error.message)
        except Exception as error:  # one bad row never stops the loop, and is never tried for ever
            log.exception("an attempt failed", extra={"action": "attempt", "draft": claim.draft_id})
            why = f"the worker failed at it: {type(error).__name__}"
            ended = ended_of(InDoubt(why)) if gap.entered else not_sent(why, (Code.WORKER_FAILED, why))
        return replace(ended, halt=True) if gap.failed else ended

    def _verified(self, claim: Claim, loaded: Loaded | Unavailable, gap: _Gap) -> SignedDraft:
        if isinstance(loaded, Unavailable):
            raise loaded
        signed, grants = loaded.draft(), loaded.grants()
        self._verifier.verify(signed, grants, now=self._clock())
        gone = self._ledger.possibly_sent(claim.draft_id)
        if gone is not None:
            raise VerificationFailed(
                Code.POSSIBLY_SENT,
                f"draft {claim.draft_id}: by the ledger attempt {gone.attempt} may have sent it; it was not sent again",
            )
        if self._ledger.index.has_forgotten(signed.draft.expires_at):
            why = "its time was over by the clock when the ledger forgot, which would know if it left; not sent"
            raise VerificationFailed(Code.POSSIBLY_SENT, f"draft {claim.draft_id}: {why}")
        if loaded.proof is not None:
            raise VerificationFailed(
                Code.POSSIBLY_SENT,
                f"draft {claim.draft_id} was sent, by {loaded.proof[0]}: {loaded.proof[1]}; not sent again",
            )
        gap.digest, gap.expires_at = signed.digest, signed.draft.expires_at
        gap.grants = tuple(grant.id for grant, _ in grants)
        return signed

    async def _send(self, signed: SignedDraft, claim: Claim, gap: _Gap) -> Ended:
        filled = Filled(signed.draft.message, None)
        if signed.draft.kind == SYSTEM_KIND:
            filled = fill_token(self._verifier.grant_ring, signed.draft.message)
        octets = date_line(self._clock()) + filled.octets
        gap.wire_digest = sha256(octets)
        envelope = signed.draft.envelope
        reported = not claim.is_system and envelope.sender == self._return_path
        name = envid(self._verifier.grant_ring, claim.draft_id, claim.attempt_id) if reported else None
        ended = ended_of(await self._transport.send(envelope, octets, gap.enter, spare=self._spare, envid=name))
        return without_words_of_tokens(ended, filled.token)

    async def _record(self, claim: Claim, ended: Ended, gap: _Gap) -> None:
        """Store how it ended; what was heard in the gap is put into the ledger first, should this process die now."""
        now = self._clock()
        line = ledger_line(claim, ended) if gap.entered or gap.failed else None
        outage = Outage(self._alerts, self._clock, "worker")
        while True:
            due = now if ended.report.outcome is Outcome.ACCEPTED else now + self._pause(claim)
            may_expire = self._watch.jumped() is None
            try:
                alert = await self._turn.ask(conclude, Conclusion(claim, ended, due, now, may_expire), first=line)
                break
            except StateRefused as lost:
                log.warning("%s", lost, extra={"action": "lost", "draft": claim.draft_id})
                await self._keep_late(claim, ended)
                return
            except Unavailable as error:
                if not self._writer.is_alive:  # it stays as it is in the row; whoever comes next looks after it
                    raise
                line = None
                await asyncio.to_thread(outage.failed, error)
                await asyncio.sleep(max(_STORE_AGAIN, outage.pause))
        if outage.words:
            await asyncio.to_thread(outage.worked)
        log.info("%s", ended.report.text, extra={"action": ended.report.outcome.value, "draft": claim.draft_id})
        if alert is not None:
            tell = partial(self._alerts.tell, *alert, draft_id=claim.draft_id, by_mail=not claim.is_system)
            await asyncio.to_thread(tell)

    async def _keep_late(self, claim: Claim, ended: Ended) -> None:
        """What came after a person, or another worker, had closed the attempt is evidence, and somebody is told."""
        said = f"{ended.report.outcome.value}: {ended.report.text}"
        found = True if ended.report.outcome is Outcome.ACCEPTED else None
        message = f"draft {claim.draft_id}: its attempt was closed, and then its worker heard: {said}"
        now = self._clock()

        def keep(tx: Transaction) -> None:
            item = Evidence("worker", found, said)
            where = {"draft_id": claim.draft_id, "attempt_id": claim.attempt_id}
            insert_evidence(tx, item, evidence_id=new_id(now), now=now, **where)

        try:
            await asyncio.wrap_future(self._writer.submit(keep))
        except OutboxError as error:
            log.error("%s", error, extra={"action": "late", "draft": claim.draft_id})
        tell = partial(
            self._alerts.tell, Code.LATE_REPLY, message, draft_id=claim.draft_id, by_mail=not claim.is_system
        )
        await asyncio.to_thread(tell)

    def _pause(self, claim: Claim) -> int:
        """Microseconds until the next try: by the number of tries, and a little more, drawn from the attempt's id."""
        try:
            with self._database.reading() as connection:
                made = attempts_made(connection, claim.draft_id)
        except Unavailable:  # what was heard is kept all the same
            made = len(self._retry)
        pause = self._retry[min(made, len(self._retry)) - 1] * MICROSECONDS
        drawn = int(claim.attempt_id[-8:], 16) / 0xFFFFFFFF
        return pause + int(pause * _JITTER * drawn)


def _enter_gaps(tx: Transaction, entering: Sequence[tuple[Claim, bytes, int]]) -> list[float]:
    """When it was asked for, by a clock that goes on while the machine sleeps, for each."""
    before = boottime()
    held = [(claim, wire_digest) for claim, wire_digest, _ in entering]
    enter_gaps_if_held(tx, held, now=max(now for _, _, now in entering))
    return [before] * len(entering)


class _Gap:
    """The door between the message and its final dot, for one attempt."""

    def __init__(self, database: Database, turn: Turn, switches: Switches, claim: Claim, clock: Clock) -> None:
        self._database, self._turn, self._switches = database, turn, switches
        self._claim, self._clock = claim, clock
        self.digest, self.wire_digest = b"", b""
        self.grants: tuple[str, ...] = ()
        self.expires_at = 0
        self.entered = self.failed = False

    async def enter(self) -> GapEntered | GapRefused:
        """Commit the gap, and have it in the ledger; where either is not known, there is no leave to write the dot."""
        if (reason := self._switches.thrown()) is not None:
            return GapRefused(f"the worker is paused: {reason}")
        try:
            self._database.refuse_replaced()
        except Unavailable as error:
            return GapRefused(error.message)
        now = self._clock()
        if now >= self.expires_at:  # what is signed says so, whatever the column says
            return GapRefused("its time has passed")
        line = Entered(
            draft=self._claim.draft_id,
            attempt=self._claim.attempt_id,
            digest=self.digest.hex(),
            grants=self.grants,
            wire_digest=self.wire_digest.hex(),
            at=now,
            expires_at=self.expires_at,
        )
        try:
            at = await self._turn.ask(_enter_gaps, (self._claim, self.wire_digest, now), then=line)
        except StateRefused as refused:
            return GapRefused(refused.message)
        except OutboxError as error:
            self.failed = True
            return GapRefused(f"it is not known whether the gap was stored: {error.message}")
        self.entered = True
        return GapEntered(at)
