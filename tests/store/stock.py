"""A draft in every state, named after it, an attempt `try-of-NAME` in every phase, and a row in every table."""

from __future__ import annotations

from dataclasses import replace

from outbox.core.errors import Code
from outbox.core.evidence import Evidence
from outbox.core.grant import Channel, Request
from outbox.core.lifecycle import Outcome, Room, Settled, State
from outbox.store.claims import Claim, end_worker_once, fail_if_held, finish_if_open, refuse_if_held
from outbox.store.evidence import insert_evidence
from outbox.store.expiry import expire_if_overdue
from outbox.store.notices import insert_request
from outbox.store.settlements import Settlement, held, settle_sent_if_held
from outbox.store.stop import cancel_if_not_sent
from outbox.store.verdicts import (
    ReplyRecord,
    SignedReply,
    insert_proof,
    insert_reply_once,
    insert_signed_reply,
    insert_wrong_code,
    reject_if_pending,
    use_code_once,
)
from outbox.store.views import state_of
from outbox.store.writer import Transaction
from tests.house import FOUNDER, HOUR, SECOND
from tests.store.stage import ROOMY_SYSTEM, Stage, report

# Drafts that are executing, by what their attempt has come to.
EXECUTING = ("claimed", "gap", "unsent", "doubtful", "accepted")


def fill(stage: Stage) -> None:
    """Bring everything about by the store's own verbs."""
    stage.register("w0")
    stage.run(Room.WORKER, lambda tx: end_worker_once(tx, "w0", now=stage.clock.now), "w0")
    stage.register("w1")
    _executing(stage)
    _settled(stage)
    _ended(stage)
    stage.insert("pending", ttl=24 * HOUR, key="once")
    _asked(stage)
    stage.insert("again", ttl=24 * HOUR, resubmitted="it was changed")
    stage.approved("approved", ttl=24 * HOUR)
    stage.insert_notice("notice", about="pending")
    for state in State:
        name = "claimed" if state is State.EXECUTING else state.value
        assert stage.read(lambda connection, name=name: state_of(connection, name)) is state


def _claim(stage: Stage, name: str) -> Claim:
    stage.clock.advance(SECOND)
    stage.approved(name, ttl=24 * HOUR)
    claim = stage.claim(attempt_id=f"try-of-{name}")
    assert claim.draft_id == name
    return claim


def _executing(stage: Stage) -> None:
    for name in EXECUTING:
        claim = _claim(stage, name)
        if name in ("gap", "doubtful", "accepted"):
            stage.enter_gap(claim)
        if name == "unsent":
            stage.finish(claim, Outcome.NOT_SENT)
        if name == "doubtful":
            stage.finish(claim, Outcome.IN_DOUBT)
        if name == "accepted":
            stage.finish(claim, Outcome.ACCEPTED)


def _settled(stage: Stage) -> None:
    claim, now = _claim(stage, "settled"), stage.clock.now
    stage.enter_gap(claim)
    (row,) = stage.read(lambda connection: held(connection, "settled"))
    found, settlement = Evidence("sent folder", True, "it is there"), Settlement(Settled.SENT, "operator", "seen")

    def settle(tx: Transaction) -> None:
        insert_evidence(tx, found, evidence_id="found", draft_id="settled", attempt_id=claim.attempt_id, now=now)
        settle_sent_if_held(tx, row, settlement, now=now)

    stage.run(Room.OPERATOR, settle)


def _ended(stage: Stage) -> None:
    now = stage.clock.now
    claim = _claim(stage, "completed")
    stage.enter_gap(claim)
    heard = replace(report(Outcome.ACCEPTED), heard=((FOUNDER, 250, "ok"),))
    stage.run(Room.WORKER, lambda tx: finish_if_open(tx, [(claim, heard)], now=now), "w1")
    stage.complete(claim)
    failed, refused = _claim(stage, "failed"), _claim(stage, "refused")
    for one in (failed, refused):
        stage.finish(one, Outcome.NOT_SENT)
    stage.run(Room.WORKER, lambda tx: fail_if_held(tx, failed, code=Code.GRANT_INVALID, message="no", now=now), "w1")
    stage.run(Room.WORKER, lambda tx: refuse_if_held(tx, refused, message="no", now=now), "w1")
    stage.insert("rejected")
    stage.run(
        Room.OPERATOR,
        lambda tx: reject_if_pending(tx, "rejected", approver=FOUNDER, channel=Channel.TERMINAL, reason="no", now=now),
    )
    stage.insert("expired", ttl=SECOND)
    stage.clock.advance(2 * SECOND)
    later = stage.clock.now
    stage.run(Room.INBOX, lambda tx: expire_if_overdue(tx, "expired", State.PENDING, now=later))
    stage.insert("cancelled")
    stage.run(Room.DRAFTER, lambda tx: cancel_if_not_sent(tx, "cancelled", now=later))


def _asked(stage: Stage) -> None:
    now = stage.clock.now
    carrier = stage.notice("carrier", about="pending")
    request = Request(bytes(8), "pending", bytes(32), FOUNDER, now + HOUR)
    stage.run(Room.INBOX, lambda tx: insert_request(tx, request, carrier, ask=1, now=now))
    stage.claim(heat=ROOMY_SYSTEM, attempt_id="try-of-carrier")
    reply = ReplyRecord("reply", "maildir", "uid", bytes(32), now, FOUNDER, "<1@x>", "pending", "unclear", False, "why")
    signed = replace(reply, signatures=(bytes(32),))
    of_another = replace(request, draft_id="again")  # so that the request's token stays unspent

    def keep(tx: Transaction) -> None:
        insert_reply_once(tx, signed)
        insert_proof(tx, "reply", FOUNDER, method="dkim", domain="acme.example", selector="s1")
        use_code_once(tx, FOUNDER, 1, "reply")
        insert_wrong_code(tx, "reply", "pending", FOUNDER)
        insert_signed_reply(tx, SignedReply("reply", b"octets", "v=DKIM1", now), of_another, now=now)

    stage.run(Room.INBOX, keep)
