"""Delivery status notifications that came back: kept as evidence of their draft, never a verdict, never answered.

A report counts where it repeats an envelope id that we made (RFC 3461): then the relay had taken that attempt, whatever
became of it afterwards. Any other is a stranger's mail and is left as it is, also one that returns headers of ours: who
received a draft knows them.
"""

from __future__ import annotations

import logging

from outbox.alerts import Alerts
from outbox.clock import Clock, new_id
from outbox.core.canonical import sha256
from outbox.core.delivery import Action, DeliveryReport, Submission, is_delivery_report, parse_report, verified_envid
from outbox.core.errors import Code, DraftUnknown, StateRefused, VerificationFailed
from outbox.core.evidence import Evidence
from outbox.core.grant import without_tokens
from outbox.core.lifecycle import SYSTEM_KIND, State
from outbox.core.signing import KeyRing
from outbox.inbox.incoming import Incoming, only_author, parse_incoming
from outbox.inbox.mailbox import Mailbox
from outbox.store.engine import Database
from outbox.store.evidence import evidence_of, insert_evidence
from outbox.store.verdicts import ReplyRecord, insert_reply_once
from outbox.store.views import Story, story, was_seen
from outbox.store.writer import Transaction, Writer

log = logging.getLogger("outbox.inbox")
SOURCE = "delivery-report"
MOST_REPORTS = 100  # kept of one draft: who has its envelope id can write any number
LARGEST_KEPT = 32 * 1024  # octets
_LONGEST_DETAIL = 1000
_WHERE_IT_MAY_HAVE_LEFT = frozenset({State.EXECUTING, State.COMPLETED})


class Reports:
    """Takes each report about a draft of ours once."""

    def __init__(
        self, mailbox: Mailbox, database: Database, writer: Writer, alerts: Alerts, ring: KeyRing, clock: Clock
    ) -> None:
        self._mailbox, self._database, self._writer = mailbox, database, writer
        self._alerts, self._ring, self._clock = alerts, ring, clock

    def look_at(self, uid: str, head: Incoming) -> None:
        """Record a message without a token of ours where it is a report about a draft; else leave it as it is."""
        types = head.values({"content-type"})
        if len(types) != 1 or not is_delivery_report(types[0]):
            return
        octets = self._mailbox.read(uid)
        report = parse_report(octets) if octets is not None else None
        told = verified_envid(self._ring, report.envid) if report is not None else None
        if octets is not None and report is not None and told is not None and self._take(uid, octets, report, told):
            self._mailbox.taken(uid)

    def _take(self, uid: str, octets: bytes, report: DeliveryReport, told: Submission) -> bool:
        try:
            with self._database.reading() as connection:
                known = story(connection, told.draft_id)
                again = was_seen(connection, sha256(octets), "", ())
        except (DraftUnknown, VerificationFailed) as error:  # of a database restored, or altered, since
            log.warning("a delivery report: %s", error, extra={"action": "report", "uid": uid})
            return False
        if again or known.draft.kind == SYSTEM_KIND:
            return False
        return self._record(uid, octets, report, told, known)

    def _record(self, uid: str, octets: bytes, report: DeliveryReport, told: Submission, known: Story) -> bool:
        now, detail = self._clock(), str(report)[:_LONGEST_DETAIL]
        attempt_id = told.attempt_id if told.attempt_id in {one.id for one in known.attempts} else None
        item = Evidence(SOURCE, True, detail, _kept(octets))
        record = self._record_of(uid, octets, told.draft_id, detail, now)

        def store(tx: Transaction) -> tuple[str, ...] | None:
            earlier = tuple(one.detail for one in evidence_of(tx.connection, told.draft_id) if one.source == SOURCE)
            if len(earlier) >= MOST_REPORTS:
                return None
            insert_reply_once(tx, record)
            insert_evidence(tx, item, evidence_id=new_id(now), draft_id=told.draft_id, attempt_id=attempt_id, now=now)
            return earlier

        try:
            earlier = self._writer.run(store)
        except StateRefused:
            return False  # another inbox took it at the same time
        if earlier is None:
            return False
        log.info("%s", detail, extra={"action": "report", "draft": told.draft_id})
        self._tell(known, report, detail, earlier)
        return True

    def _record_of(self, uid: str, octets: bytes, draft_id: str, detail: str, now: int) -> ReplyRecord:
        sender, _ = only_author(parse_incoming(octets))
        return ReplyRecord(
            id=new_id(now),
            mailbox=self._mailbox.name,
            uid=uid,
            digest=sha256(octets),
            received_at=now,
            sender=without_tokens(sender or ""),
            message_id="",  # a Message-ID that a stranger chose makes no other message a replay
            draft_id=draft_id,
            verdict="unclear",
            counted=False,
            why=f"a delivery report: {detail}",
        )

    def _tell(self, known: Story, report: DeliveryReport, detail: str, earlier: tuple[str, ...]) -> None:
        """Once a draft that it came back, and once that it left where nobody thinks so."""
        draft = known.draft
        if report.failed and not any(said.startswith(Action.FAILED) for said in earlier):
            self._alerts.tell(Code.UNDELIVERED, f"it was sent, and came back: {detail}", draft_id=draft.id)
        elif draft.state not in _WHERE_IT_MAY_HAVE_LEFT and not earlier:
            words = f"it is {draft.state.value}, and by a delivery report it was sent: {detail}"
            self._alerts.tell(Code.LATE_REPLY, words, draft_id=draft.id)


def _kept(octets: bytes) -> bytes:
    """As it came, but short, and without what has the form of a reply token: no row may hold one."""
    return without_tokens(octets[:LARGEST_KEPT].decode("latin-1")).encode("latin-1")
