"""Read what arrived, judge it, and carry the verdict out, each message exactly once.

The record of a message and what it did are one transaction, under the mailbox's own name for the message: however often
this process dies between reading and deciding, a message is taken once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from outbox.alerts import Alerts
from outbox.clock import Clock, new_id
from outbox.core.canonical import sha256
from outbox.core.draft import DAY, MICROSECONDS
from outbox.core.errors import Code, ConfigError, OutboxError, StateRefused, Unavailable
from outbox.core.finding import printable
from outbox.core.grant import Channel, Grant, Request, sign_grant, without_tokens
from outbox.core.lifecycle import Room, State
from outbox.core.notice import NOTICE_TTL, sign_notice
from outbox.core.signed import SignedDraft
from outbox.core.signing import KeyRing
from outbox.inbox.authenticity import Times
from outbox.inbox.incoming import Incoming, parse_incoming
from outbox.inbox.judgement import MOST_WRONG_CODES, MOST_WRONG_CODES_A_DAY, Judge, Judgement
from outbox.inbox.mailbox import Delivered, Mailbox
from outbox.inbox.reports import Reports
from outbox.inbox.signature import signature_digests
from outbox.inbox.verdict import Reading, Verdict
from outbox.inbox.wording import Manner, answer_notice, below_reply, stranger_text, unclear_text
from outbox.store.engine import Database
from outbox.store.notices import insert_system
from outbox.store.stop import cancel_if_not_sent, stop_was_asked
from outbox.store.tellings import note_told
from outbox.store.verdicts import (
    ReplyRecord,
    SignedReply,
    approve_if_pending,
    insert_proof,
    insert_reply_once,
    insert_signed_reply,
    insert_wrong_code,
    reject_if_pending,
    spend_request_once,
    spend_requests,
    spoil_codes,
    use_code_once,
    wrong_codes_given,
)
from outbox.store.views import answered_senders, is_recorded, oldest_asked, was_renumbered
from outbox.store.writer import Transaction, Writer

log = logging.getLogger("outbox.inbox")
MOST_ANSWERS = 3
MOST_TRIES = 5  # at a message that the mailbox lists and does not give
MOST_KNOWN = 100_000
LOOK_BACK = 7 * DAY * MICROSECONDS  # for answers to what has ended
DNS_PAUSES = (60, 120, 300, 900)  # seconds between looks at a reply whose proof cannot be had; the last repeats


@dataclass(frozen=True, slots=True)
class Done:
    """What a reply did. `answered` where its author is told at once, `ended` where nothing is left to tell him."""

    said: str
    answered: bool = False
    ended: bool = False


_STOPPED = Done("Stopped: the draft is cancelled and nothing was sent.", answered=True, ended=True)
_STOPPING = Done(
    "It is being sent at this moment, or was, without an answer of the relay's. It stops if it has not left yet; you "
    "will be told which it was.",
    answered=True,
)
_STOPPING_ALREADY = Done("It was asked to stop before.")
Effect = Callable[[Transaction, Judgement, Request, int], Done]


@dataclass(slots=True)
class _Postponed:
    """A reply that cannot be judged now: why, how often it was tried, and when next (microseconds UTC)."""

    delivered: Delivered
    error: OutboxError
    tries: int = 0
    not_before: int = 0


class Answering:
    """Takes each message of one mailbox once."""

    def __init__(
        self,
        *,
        mailbox: Mailbox,
        judge: Judge,
        database: Database,
        writer: Writer,
        alerts: Alerts,
        ring: KeyRing,
        manner: Manner,
        grant_ttl: int,
        clock: Clock,
    ) -> None:
        self._mailbox, self._judge, self._database, self._writer = mailbox, judge, database, writer
        self._alerts, self._ring, self._manner = alerts, ring, manner
        self._grant_ttl, self._clock = grant_ttl, clock
        self._reports = Reports(mailbox, database, writer, alerts, ring, clock)
        self._known: set[str] = set()
        self._postponed: dict[str, _Postponed] = {}
        self._not_given: dict[str, int] = {}

    def read(self) -> None:
        """Take every message that was not taken before; what carries no token of ours is left as it is."""
        for postponed in list(self._postponed.values()):
            if postponed.not_before <= self._clock():
                self._look_at(postponed.delivered)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()  # they are looked at once more, by their heads
        for delivered in self._mailbox.messages(self._known | self._postponed.keys(), since=self._since()):
            self._look_at(delivered)

    @property
    def postponed(self) -> tuple[OutboxError, ...]:
        """Why replies wait, one for each: DNS that does not answer, or a secret that cannot be read."""
        return tuple(waiting.error for waiting in self._postponed.values())

    def _since(self) -> int:
        with self._database.reading() as connection:
            oldest = oldest_asked(connection)
        recent = self._clock() - LOOK_BACK
        return recent if oldest is None else min(oldest, recent)

    def _look_at(self, delivered: Delivered) -> None:
        uid, head = delivered.uid, parse_incoming(delivered.head)
        if (recorded := self._is_recorded(uid)) or not self._judge.is_ours(head):
            if not recorded:
                self._reports.look_at(uid, head)
            self._settle(uid)
            return
        octets = self._mailbox.read(uid)
        if octets is None:
            self._miss(delivered)
            return
        try:
            self._take(delivered, octets)
        except (Unavailable, ConfigError) as error:
            if isinstance(error, Unavailable) and error.code is not Code.DNS_UNAVAILABLE:
                raise
            self._postpone(delivered, error)

    def _miss(self, delivered: Delivered) -> None:
        """It was moved or marked as it was read, and is listed again; or the mailbox cannot give it, ever."""
        uid = delivered.uid
        self._postponed.pop(uid, None)
        self._not_given[uid] = self._not_given.get(uid, 0) + 1
        if self._not_given[uid] >= MOST_TRIES:
            self._set_aside(uid, delivered.head, "the mailbox lists it and does not give it")

    def _postpone(self, delivered: Delivered, error: OutboxError) -> None:
        postponed = self._postponed.setdefault(delivered.uid, _Postponed(delivered, error))
        pause = DNS_PAUSES[min(postponed.tries, len(DNS_PAUSES) - 1)]
        postponed.tries += 1
        postponed.not_before = self._clock() + pause * MICROSECONDS
        log.warning("a reply waits: %s", error, extra={"action": "postponed", "uid": delivered.uid})
        if postponed.tries == len(DNS_PAUSES):
            self._alerts.tell(error.code, f"a reply has been waiting, as it cannot be judged: {error}")

    def _settle(self, uid: str) -> None:
        """It needs no other look."""
        self._postponed.pop(uid, None)
        self._not_given.pop(uid, None)
        self._known.add(uid)

    def _is_recorded(self, uid: str) -> bool:
        with self._database.reading() as connection:
            return is_recorded(connection, self._mailbox.name, uid)

    def _take(self, delivered: Delivered, octets: bytes) -> None:
        incoming, now = parse_incoming(octets), self._clock()
        if self._judge.is_by_us(incoming) or self._was_renumbered(delivered.uid, octets):
            self._settle(delivered.uid)
            return
        arrived_at = min(now, delivered.arrived_at if delivered.arrived_at is not None else now)
        try:
            judgement = self._judge.judge(incoming, Times(arrived_at, now))
        except (Unavailable, ConfigError):
            raise
        except Exception:  # one bad message never stops the loop
            log.exception("a message could not be read", extra={"action": "set-aside", "uid": delivered.uid})
            self._set_aside(delivered.uid, octets, "it could not be read")
            return
        self._record(delivered.uid, incoming, judgement)
        self._settle(delivered.uid)
        self._mailbox.taken(delivered.uid)

    def _was_renumbered(self, uid: str, octets: bytes) -> bool:
        """Whether this very message was taken under another UIDVALIDITY."""
        validity, dot, _ = uid.rpartition(".")
        if not dot or not self._mailbox.numbered:
            return False
        with self._database.reading() as connection:
            return was_renumbered(connection, self._mailbox.name, sha256(octets), f"{validity}.")

    def _set_aside(self, uid: str, octets: bytes, why: str) -> None:
        """Record a message that cannot be judged, tell the operator, and look at it no more."""
        incoming = parse_incoming(octets)
        judgement = Judgement(None, "", "", Reading(Verdict.UNCLEAR, None, why), ())
        self._store_without_effect(uid, incoming, judgement, why)
        self._settle(uid)
        self._alerts.tell(Code.REPLY_SET_ASIDE, f"a reply was set aside, {why}: message {uid} of {self._mailbox.name}")

    def _record(self, uid: str, incoming: Incoming, judgement: Judgement) -> None:
        """Try the verdict's effects in turn; the first that its draft's state allows is recorded with the reply."""
        why_not = judgement.why
        for effect in self._effects(judgement):
            try:
                self._store(uid, incoming, judgement, effect)
            except StateRefused as refused:
                why_not = refused.message
                continue
            return
        self._store_without_effect(uid, incoming, judgement, why_not)

    def _effects(self, judgement: Judgement) -> tuple[Effect, ...]:
        if not judgement.counts or judgement.request is None:
            return ()
        match judgement.reading.verdict:
            case Verdict.APPROVE:
                return (self._approve,)
            case Verdict.REJECT:
                return (_reject, _cancel)
            case Verdict.CANCEL:
                return (_cancel,)
            case Verdict.UNCLEAR:
                return ()

    def _store(self, uid: str, incoming: Incoming, judgement: Judgement, effect: Effect) -> None:
        request = judgement.request
        assert request is not None
        now = self._clock()

        def carry_out(tx: Transaction) -> Done:
            done = effect(tx, judgement, request, now)
            answer = self._answer(judgement, request, "Your reply", done.said, now) if done.answered else None
            record = self._record_of(uid, incoming, judgement, counted=True, why=done.said, answer=answer, now=now)
            _insert(tx, record, answer)
            _keep_evidence(tx, record.id, incoming, judgement, now=now)
            if done.ended:
                note_told(tx, request, now=now)
            return done

        done = self._writer.run(carry_out)
        log.info("%s", done.said, extra={"action": judgement.reading.verdict.value, "draft": request.draft_id})

    def _store_without_effect(self, uid: str, incoming: Incoming, judgement: Judgement, why: str) -> None:
        now, why = self._clock(), printable(without_tokens(why))
        answer = self._explaining(judgement, why, now)
        record = self._record_of(uid, incoming, judgement, counted=False, why=why, answer=answer, now=now)
        try:
            exhausted = self._writer.run(partial(_insert_unbelieved, record=record, answer=answer, judgement=judgement))
        except StateRefused:
            return  # another inbox took it at the same time
        log.info("%s", why, extra={"action": "not-counted", "uid": uid})
        if exhausted and judgement.request is not None:
            request = judgement.request
            words = f"too many wrong codes in the name of {request.approver}: no reply of his approves for now"
            self._alerts.tell(Code.CODES_EXHAUSTED, words, draft_id=request.draft_id)

    def _explaining(self, judgement: Judgement, why: str, now: int) -> SignedDraft | None:
        """What the registered approver is told of a reply that changed nothing, at most MOST_ANSWERS times a draft."""
        request = judgement.request
        if request is None or not self._answers_left(request, judgement):
            return None
        if judgement.may_be_answered:
            text = unclear_text(why, judgement.reading, with_code=judgement.with_code)
            return self._answer(judgement, request, "Your reply changed nothing", text, now)
        if judgement.is_of_a_stranger:
            text = stranger_text(without_tokens(judgement.sender), with_code=judgement.with_code)
            return self._answer(judgement, request, "Somebody else replied", text, now)
        return None

    def _answers_left(self, request: Request, judgement: Judgement) -> bool:
        """Strangers' replies and his own are counted apart, so that nobody else can use up what he would be told."""
        with self._database.reading() as connection:
            answered = answered_senders(connection, request.draft_id)
        his = [self._judge.is_his(sender, request) for sender in answered]
        return his.count(True) < MOST_ANSWERS if judgement.may_be_answered else False not in his

    def _answer(self, judgement: Judgement, request: Request, subject: str, text: str, now: int) -> SignedDraft:
        reply_id = judgement.message_id if judgement.may_be_answered else ""
        notice = answer_notice(
            request,
            self._manner,
            subject=subject,
            text=text,
            thread=below_reply(reply_id),
            expires_at=now + NOTICE_TTL,
        )
        return sign_notice(self._ring, notice, Room.INBOX, new_id(now), now)

    def _record_of(
        self,
        uid: str,
        incoming: Incoming,
        judgement: Judgement,
        *,
        counted: bool,
        why: str,
        answer: SignedDraft | None,
        now: int,
    ) -> ReplyRecord:
        return ReplyRecord(
            id=new_id(now),
            mailbox=self._mailbox.name,
            uid=uid,
            digest=sha256(incoming.octets),
            received_at=now,
            sender=without_tokens(judgement.sender),
            message_id=without_tokens(judgement.message_id),
            draft_id=judgement.request.draft_id if judgement.request else None,
            verdict=judgement.reading.verdict.value,
            counted=counted,
            why=without_tokens(why),
            answer_id=answer.draft.id if answer else None,
            signatures=signature_digests(incoming),
        )

    def _approve(self, tx: Transaction, _judgement: Judgement, request: Request, now: int) -> Done:
        grant = Grant(
            id=new_id(now),
            draft_id=request.draft_id,
            digest=request.digest,
            approver=request.approver,
            channel=Channel.REPLY,
            at=now,
            expires_at=now + self._grant_ttl * MICROSECONDS,
        )
        spend_request_once(tx, request.id, now=now)
        approve_if_pending(tx, grant, sign_grant(self._ring, grant), now=now)
        return Done(f"{request.approver} approved it")


def _insert(tx: Transaction, record: ReplyRecord, answer: SignedDraft | None) -> None:
    if answer is not None:
        insert_system(tx, answer, now=record.received_at)
    insert_reply_once(tx, record)


def _insert_unbelieved(
    tx: Transaction, *, record: ReplyRecord, answer: SignedDraft | None, judgement: Judgement
) -> bool:
    """Record a reply that changed nothing; true where it held the last wrong code that was allowed."""
    _insert(tx, record, answer)
    request, now = judgement.request, record.received_at
    if request is not None:
        spoil_codes(tx, request.approver, judgement.shown_codes, record.id)
    if not judgement.wrong_code or request is None:
        return False
    insert_wrong_code(tx, record.id, request.draft_id, request.approver)
    here, lately = wrong_codes_given(tx.connection, request.draft_id, request.approver, since=now - DAY * MICROSECONDS)
    if here == MOST_WRONG_CODES:
        spend_requests(tx, request.draft_id, request.approver, now=now)
    return here == MOST_WRONG_CODES or lately == MOST_WRONG_CODES_A_DAY


def _keep_evidence(tx: Transaction, reply_id: str, incoming: Incoming, judgement: Judgement, *, now: int) -> None:
    evidence, request = judgement.evidence, judgement.request
    assert request is not None
    approver = request.approver
    if evidence is not None and evidence.proof is not None:
        proof = evidence.proof
        insert_proof(tx, reply_id, approver, method=proof.method, domain=proof.domain, selector=proof.selector)
        if judgement.may_be_kept:
            kept = SignedReply(reply_id, incoming.octets, proof.key_record, judgement.arrived_at)
            insert_signed_reply(tx, kept, request, now=now)
    if evidence is not None and evidence.step is not None:
        use_code_once(tx, approver, evidence.step, reply_id)
    spoil_codes(tx, approver, judgement.shown_codes, reply_id)


def _reject(tx: Transaction, judgement: Judgement, request: Request, now: int) -> Done:
    reason = judgement.reading.reason or ""
    reject_if_pending(tx, request.draft_id, approver=request.approver, channel=Channel.REPLY, reason=reason, now=now)
    return Done(f"{request.approver} rejected it")


def _cancel(tx: Transaction, _judgement: Judgement, request: Request, now: int) -> Done:
    already = stop_was_asked(tx.connection, request.draft_id)
    if cancel_if_not_sent(tx, request.draft_id, now=now) is State.CANCELLED:
        return _STOPPED
    return _STOPPING_ALREADY if already else _STOPPING
