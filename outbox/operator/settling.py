"""The desk for what is at executing: what is known of each, and a person's decision about it."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from outbox.agreement import read_ledger
from outbox.clock import Clock, new_id
from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, OutboxError, StateRefused, TryLater, UsageError
from outbox.core.lifecycle import POSSIBLY_SENT, Outcome, Phase, Settled
from outbox.ledger import Ledger
from outbox.ledger_id import known_ledger_id
from outbox.lock import is_alive
from outbox.operator.evidence import gather
from outbox.operator.sought import Sought
from outbox.store.engine import Database
from outbox.store.evidence import EvidenceView, evidence_of, insert_evidence
from outbox.store.presence import present
from outbox.store.rows import load_draft
from outbox.store.settlements import (
    Gone,
    Held,
    Settlement,
    held,
    refuse_unexecuting,
    release_if_unsent,
    settle_not_sent_if_held,
    settle_sent_if_held,
)
from outbox.store.views import story
from outbox.store.writer import Transaction, Writer

ANSWERS_COME_FOR = 30 * 60  # seconds after relay.final_timeout in which an answer to the final dot may still come
_SETTLE = {
    Settled.SENT: settle_sent_if_held,
    Settled.NOT_SENT: settle_not_sent_if_held,
    Settled.RELEASED: release_if_unsent,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One draft at executing, and what is known of it. Instants are microseconds UTC.

    `finding` is what can be proved; `because` says by what. `may_settle_at` is when no answer can come any more.
    """

    held: Held
    message_id: str
    subject: str
    recipients: tuple[str, ...]
    relay: str
    is_alive: bool
    last_seen: int
    finding: Literal["not_sent", "sent", "unknown"]
    because: str
    last_reply: str | None
    may_settle_at: int
    is_sure_to_live: bool
    is_refused: bool
    evidence: tuple[EvidenceView, ...]

    @property
    def is_awaited(self) -> bool:
        """Whether its worker lives and has not closed the attempt: then it may still hear an answer."""
        return self.is_alive and self.held.phase != Phase.DONE.value

    def todo(self, now: int) -> str:
        """What to do about it at `now` (microseconds UTC), in a line."""
        command = f"outbox reconcile {self.held.draft_id}"
        if self.is_awaited:
            return "wait: its worker lives and may still be answered"
        if self.finding == "not_sent" and self.is_refused:
            return f"{command} --not-sent --note WHY: the relay refused it for good"
        if self.finding == "not_sent":
            return f"{command} --release: it is sent again, under the grants it has"
        if self.finding == "sent":
            return f"{command} --sent --note WHY"
        if now < self.may_settle_at:
            until = datetime.fromtimestamp(self.may_settle_at // MICROSECONDS, UTC)
            return f"wait until {until:%Y-%m-%d %H:%M:%SZ}: till then the relay may still take it"
        if not self.evidence:
            return f"{command}: looks for evidence"
        return f"look yourself, then {command} --sent, or --not-sent, with --note WHY; if you cannot tell, say --sent"


class Settling:
    """Reads cases, gathers evidence, settles. `by` is who does it, as the journal will name him."""

    def __init__(self, settings: Settings, database: Database, writer: Writer, clock: Clock) -> None:
        self._settings, self._database, self._writer, self._clock = settings, database, writer, clock
        self.by = person()

    def cases(self, draft_id: str | None = None) -> list[Case]:
        """What is at executing, the longest first. Raises DraftUnknown or StateRefused for one that is not there."""
        with self._database.reading() as connection:
            rows = held(connection, draft_id)
        if draft_id is not None and not rows:
            with self._database.reading() as connection:
                story(connection, draft_id)  # raises where there is none
            raise refuse_unexecuting(draft_id)
        ledger = self._ledger()
        try:
            return [self._case(row, ledger) for row in rows]
        finally:
            if isinstance(ledger, Ledger):
                ledger.close()

    def examine(self, draft_id: str) -> Case:
        """One case, after looking for evidence everywhere; what was found is kept."""
        (case,) = self.cases(draft_id)
        sought = Sought(
            draft_id=draft_id,
            message_id=case.message_id,
            recipients=case.recipients,
            gap_at=case.held.gap_at,
            queue_id=case.held.queue_id,
            wire_digest=case.held.wire_digest,
            message=self._octets(draft_id),
        )
        known = {(one.source, one.detail) for one in case.evidence}
        for item in gather(self._settings, sought):
            if (item.source, item.detail) not in known:
                now = self._clock()
                keep = partial(
                    insert_evidence,
                    item=item,
                    evidence_id=new_id(now),
                    draft_id=draft_id,
                    attempt_id=case.held.attempt_id,
                    now=now,
                )
                self._writer.run(keep)
        (examined,) = self.cases(draft_id)
        return examined

    def settle(self, draft_id: str, settled_as: Settled, *, note: str | None, at_once: bool) -> None:
        """Settle one draft as a person decided it.

        Raises UsageError without a note where one is needed, TryLater while its worker lives or, unless `at_once`, an
        answer may still come, StateRefused where what is known speaks against it.
        """
        if not note and (at_once or settled_as is not Settled.RELEASED):
            raise UsageError(Code.USAGE, "say why with --note: it is kept with the decision", field="--note")
        (case,) = self.cases(draft_id)
        self._refuse_early(case, at_once=at_once)
        _refuse_against_what_is_known(case, settled_as)
        self._store(case, settled_as, note or case.because)

    def settle_proven(self) -> Iterator[tuple[Case, Settled | OutboxError]]:
        """Settle every case whose end can be proved, and say how, or why not."""
        for case in self.cases():
            if case.finding == "unknown":
                continue
            try:
                self._refuse_early(case, at_once=case.finding == "sent")
                yield case, self._settle_proven(case)
            except (StateRefused, TryLater) as error:
                yield case, error

    def _settle_proven(self, case: Case) -> Settled:
        if case.finding == "sent":
            self._store(case, Settled.SENT, case.because)
            return Settled.SENT
        if case.is_refused:
            self._store(case, Settled.NOT_SENT, case.because)
            return Settled.NOT_SENT
        try:
            self._store(case, Settled.RELEASED, case.because)
        except StateRefused:  # stopped, or its time is past: it is not sent any more
            self._store(case, Settled.NOT_SENT, case.because)
            return Settled.NOT_SENT
        return Settled.RELEASED

    def _store(self, case: Case, settled_as: Settled, note: str) -> None:
        settlement, now = Settlement(settled_as, self.by, note), self._clock()

        def work(tx: Transaction) -> None:
            _SETTLE[settled_as](tx, case.held, settlement, now=now)

        self._writer.run(work)

    def _refuse_early(self, case: Case, *, at_once: bool) -> None:
        draft_id = case.held.draft_id
        if case.is_awaited and (case.is_sure_to_live or not at_once):
            hint = "" if case.is_sure_to_live else f"; if {case.held.host} is gone for good, say --now with a --note"
            raise TryLater(
                Code.WORKER_ALIVE,
                f"draft {draft_id}: worker {case.held.worker_id} (pid {case.held.pid} on {case.held.host}) lives and "
                f"may still be answered; wait, or stop it first{hint}",
            )
        if self._clock() < case.may_settle_at and not at_once:
            minutes = -(-(case.may_settle_at - self._clock()) // (60 * MICROSECONDS))
            raise TryLater(
                Code.ANSWER_POSSIBLE,
                f"draft {draft_id}: the relay may still be taking it; come back in {minutes} min, or say --now with a "
                "--note",
            )

    def _case(self, row: Held, ledger: Ledger | str) -> Case:
        if self._is_of_another_folder(row):
            ledger = f"its worker's ledger is not here: on {row.host} `outbox reconcile` can look into it"
        with self._database.reading() as connection:
            told = story(connection, row.draft_id)
            evidence = evidence_of(connection, row.draft_id)
        written = ledger.entered(row.attempt_id, row.draft_id) if isinstance(ledger, Ledger) else None
        if written is not None:
            row = replace(row, gone=Gone(row.draft_id, row.attempt_id, bytes.fromhex(written.wire_digest), written.at))
        finding, because = _finding(row, ledger, evidence)
        lives = self._lives(row)
        gap_at = row.gap_at or (written.at if written is not None else None)
        waits = gap_at is not None and finding == "unknown"
        heard = ledger.heard(row.attempt_id, row.draft_id) if isinstance(ledger, Ledger) else None
        row = replace(row, is_heard_unsent=heard is not None and heard.outcome not in POSSIBLY_SENT)
        patience = (self._settings.relay.final_timeout + ANSWERS_COME_FOR) * MICROSECONDS
        said = " ".join(str(part) for part in (row.code, row.text) if part)
        return Case(
            held=row,
            message_id=told.draft.message_id,
            subject=told.draft.subject,
            recipients=told.draft.envelope.recipients,
            relay=f"{self._settings.relay.host}:{self._settings.relay.port}",
            is_alive=lives is not False,
            is_sure_to_live=lives is True,
            is_refused=heard is not None and heard.outcome == Outcome.REFUSED_PERMANENT,
            last_seen=max(row.since, row.gap_at or 0, row.worker_ended_at or 0),
            finding=finding,
            because=because,
            last_reply=said or None,
            may_settle_at=gap_at + patience if waits and gap_at is not None else 0,
            evidence=evidence,
        )

    def _lives(self, row: Held) -> bool | None:
        """Whether its worker lives; None where that cannot be told from here: it ran on another host."""
        if row.worker_ended_at is not None:
            return False
        if self._is_of_another_folder(row):
            return self._is_present(row.worker_id) if row.visible else None
        alive = is_alive(self._settings.state_dir, row.worker_id, bury=False)
        if alive is None:
            return None if row.host != socket.gethostname() else False
        return alive

    def _is_of_another_folder(self, row: Held) -> bool:
        """Whether another ledger, as a rule another host's, knows what became of it."""
        return row.ledger is not None and row.ledger != known_ledger_id(self._settings.state_dir)

    def _is_present(self, worker_id: str) -> bool:
        with self._database.reading() as connection:
            return bool(present(connection, [worker_id]))

    def _ledger(self) -> Ledger | str:
        """The ledger to look things up in, or why it cannot be."""
        if not self._settings.has_key("grant"):
            return "the ledger was not looked into: this user cannot read the grant key"
        try:
            return read_ledger(self._settings.state_dir, self._settings.record_ring("grant"), self._database)
        except OutboxError as error:
            return error.message

    def _octets(self, draft_id: str) -> bytes:
        with self._database.reading() as connection:
            return load_draft(connection, draft_id).draft.message


def _finding(
    row: Held, ledger: Ledger | str, evidence: Sequence[EvidenceView]
) -> tuple[Literal["not_sent", "sent", "unknown"], str]:
    """What can be proved, and by what. Presence proves that it left; absence proves nothing."""
    for one in evidence:
        if one.found:
            return "sent", f"{one.source}: {one.detail}"
    if isinstance(ledger, str):
        return "unknown", ledger
    heard = ledger.heard(row.attempt_id, row.draft_id)
    if heard is not None and heard.outcome == Outcome.ACCEPTED:
        return "sent", f"its worker heard {heard.code} {heard.text} and died before that was stored"
    if heard is not None and heard.outcome not in POSSIBLY_SENT and row.phase != Phase.DONE.value:
        return "not_sent", f"its worker heard {heard.code or ''} {heard.text} and died before that was stored"
    gone = ledger.possibly_sent(row.draft_id)
    if gone is not None and gone.attempt != row.attempt_id:
        return "unknown", f"by the ledger another attempt, {gone.attempt}, may have sent it; was it restored?"
    written = ledger.entered(row.attempt_id, row.draft_id)
    if row.phase == Phase.CLAIMED.value and written is None and ledger.index.has_forgotten(row.expires_at):
        return "unknown", "its time is over, and the ledger has forgotten drafts like it, which would know"
    if row.phase == Phase.CLAIMED.value and written is None:
        return "not_sent", "it never entered the gap, and the ledger agrees: not sent"
    if row.phase == Phase.CLAIMED.value:
        return "unknown", "by the ledger it was in the gap, which the database does not know; was it restored?"
    return "unknown", "in the gap: the message was written, and no answer to its final dot is known"


def _refuse_against_what_is_known(case: Case, settled_as: Settled) -> None:
    draft_id = case.held.draft_id
    if settled_as is Settled.RELEASED and case.is_refused:
        why = f"draft {draft_id} was refused for good ({case.because}); settle it as not sent"
    elif settled_as is Settled.RELEASED and case.finding != "not_sent":
        why = f"draft {draft_id} is not provably unsent ({case.because}); settle it as sent or not sent"
    elif settled_as is Settled.SENT and case.finding == "not_sent":
        why = f"draft {draft_id} cannot have been sent: {case.because}"
    elif settled_as is Settled.NOT_SENT and case.finding == "sent":
        why = f"draft {draft_id} was sent: {case.because}"
    else:
        return
    raise StateRefused(Code.NOT_PROVEN, why)


def person() -> str:
    """Who runs this, by the name that the system has for him."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
