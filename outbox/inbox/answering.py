"""Read what arrived, judge it, and carry the verdict out, each message exactly once.

The record of a message and what it did are one transaction, under the mailbox's own name for the message: however often
this process dies between reading and deciding, a message is taken once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from outbox.clock import Clock, new_id
from outbox.core.canonical import sha256
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import StateRefused, Unavailable
from outbox.core.grant import Channel, Grant, Request, sign_grant, without_tokens
from outbox.core.lifecycle import Room, State
from outbox.core.notice import sign_notice
from outbox.core.signed import SignedDraft
from outbox.core.signing import KeyRing
from outbox.inbox.asking import answer_notice, unclear_text
from outbox.inbox.incoming import LARGEST_HEADER, Incoming, parse_incoming
from outbox.inbox.judgement import Judge, Judgement
from outbox.inbox.maildir import Delivered, Maildir
from outbox.inbox.verdict import Reading, Verdict
from outbox.store.engine import Database
from outbox.store.notices import insert_system
from outbox.store.stop import cancel_if_not_sent
from outbox.store.verdicts import (
    ReplyRecord,
    approve_if_pending,
    insert_reply_once,
    reject_if_pending,
    spend_request_once,
)
from outbox.store.views import answers_given, is_recorded
from outbox.store.writer import Transaction, Writer

log = logging.getLogger("outbox.inbox")
MOST_ANSWERS = 3
_ANSWER_TTL = 7 * 86400 * MICROSECONDS
_STOPPED = "Stopped: the draft is cancelled and nothing was sent."
_STOPPING = "It is being sent at this moment. It stops if it has not left yet; `outbox show` tells which it was."

Effect = Callable[[Transaction, Request, Reading, int], str]


class Answering:
    """Takes each message of one mailbox once."""

    def __init__(
        self,
        *,
        mailbox: Maildir,
        judge: Judge,
        database: Database,
        writer: Writer,
        ring: KeyRing,
        sender: str,
        grant_ttl: int,
        clock: Clock,
    ) -> None:
        self._mailbox, self._judge, self._database, self._writer = mailbox, judge, database, writer
        self._ring, self._sender, self._grant_ttl, self._clock = ring, sender, grant_ttl, clock
        self._known: set[str] = set()

    def read(self) -> None:
        """Take every message that was not taken before; what carries no token of ours is left as it is."""
        present = set()
        for delivered in self._mailbox.messages():
            present.add(delivered.uid)
            if delivered.uid in self._known or self._is_recorded(delivered.uid) or self._take(delivered):
                self._known.add(delivered.uid)
        self._known &= present

    def _is_recorded(self, uid: str) -> bool:
        with self._database.reading() as connection:
            return is_recorded(connection, self._mailbox.name, uid)

    def _take(self, delivered: Delivered) -> bool:
        """Whether this message needs no other look; false where a mail client moved it away while it was read."""
        head = self._mailbox.read(delivered, LARGEST_HEADER)
        if head is None:
            return False
        if not self._judge.is_ours(parse_incoming(head)):
            return True
        octets = self._mailbox.read(delivered)
        if octets is None:
            return False
        incoming = parse_incoming(octets)
        try:
            judgement = self._judge.judge(incoming)
        except Unavailable:
            raise
        except Exception:  # one bad message never stops the loop
            log.exception("a message could not be read", extra={"action": "set-aside", "uid": delivered.uid})
            judgement = Judgement(None, "", "", Reading(Verdict.UNCLEAR, None, "it could not be read"), ())
        self._record(delivered.uid, incoming, judgement)
        return True

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

        def carry_out(tx: Transaction) -> str:
            said = effect(tx, request, judgement.reading, now)
            answer = self._answer(judgement, "Your reply", said, now) if said in (_STOPPED, _STOPPING) else None
            record = self._record_of(uid, incoming, judgement, counted=True, why=said, answer=answer, now=now)
            _insert(tx, record, answer)
            return said

        said = self._writer.run(carry_out)
        log.info("%s", said, extra={"action": judgement.reading.verdict.value, "draft": request.draft_id})

    def _store_without_effect(self, uid: str, incoming: Incoming, judgement: Judgement, why: str) -> None:
        now, why = self._clock(), without_tokens(why)
        answer = None
        if judgement.may_be_answered and judgement.request is not None and self._answers_left(judgement.request):
            text = unclear_text(why, judgement.reading.excerpt, judgement.request.draft_id)
            answer = self._answer(judgement, "Your reply changed nothing", text, now)
        record = self._record_of(uid, incoming, judgement, counted=False, why=why, answer=answer, now=now)
        try:
            self._writer.run(lambda tx: _insert(tx, record, answer))
        except StateRefused:
            return  # another inbox took it at the same time
        log.info("%s", why, extra={"action": "not-counted", "uid": uid})

    def _answers_left(self, request: Request) -> bool:
        with self._database.reading() as connection:
            return answers_given(connection, request.draft_id) < MOST_ANSWERS

    def _answer(self, judgement: Judgement, subject: str, text: str, now: int) -> SignedDraft:
        assert judgement.request is not None
        notice = answer_notice(
            judgement.request,
            text=text,
            sender=self._sender,
            subject=subject,
            reply_id=judgement.message_id,
            expires_at=now + _ANSWER_TTL,
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
        )

    def _approve(self, tx: Transaction, request: Request, _reading: Reading, now: int) -> str:
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
        return f"{request.approver} approved it"


def _insert(tx: Transaction, record: ReplyRecord, answer: SignedDraft | None) -> None:
    if answer is not None:
        insert_system(tx, answer, now=record.received_at)
    insert_reply_once(tx, record)


def _reject(tx: Transaction, request: Request, reading: Reading, now: int) -> str:
    reason = reading.reason or ""
    reject_if_pending(tx, request.draft_id, approver=request.approver, channel=Channel.REPLY, reason=reason, now=now)
    return f"{request.approver} rejected it"


def _cancel(tx: Transaction, request: Request, _reading: Reading, now: int) -> str:
    state = cancel_if_not_sent(tx, request.draft_id, now=now)
    return _STOPPED if state is State.CANCELLED else _STOPPING
