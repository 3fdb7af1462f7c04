"""How an attempt ended, and where that puts its draft: as the lane heard it, or as the ledger kept it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from outbox.alerts import never_left
from outbox.core.errors import Code
from outbox.core.grant import without_tokens
from outbox.core.lifecycle import Outcome as Stored
from outbox.core.lifecycle import State
from outbox.ledger import Heard as LedgerHeard
from outbox.store.claims import (
    Claim,
    Report,
    cancel_if_stopped,
    complete_if_held,
    fail_if_held,
    finish_if_open,
    refuse_if_held,
    release_if_held,
)
from outbox.store.writer import Transaction
from outbox.transport.outcome import Accepted, Heard, InDoubt, NotSent, Outcome, Refused, Reply


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: what to store, the error that its draft ends with if it ends, and whether to halt."""

    report: Report
    error: tuple[Code, str] | None = None
    halt: bool = False


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


def not_sent(why: str, error: tuple[Code, str] | None = None) -> Ended:
    """What ended before anything was handed over."""
    return Ended(Report(Stored.NOT_SENT, None, None, why), error)


def _report(stored: Stored, reply: Reply, heard: tuple[Heard, ...], queue_id: str | None = None) -> Report:
    each = tuple((one.address, one.reply.code, f"{one.reply.enhanced or ''} {one.reply.text}".strip()) for one in heard)
    return Report(stored, reply.code, reply.enhanced, reply.text, queue_id, each)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What is to be stored of an attempt: how it ended, and when its draft is due again if it is let go of.

    A clock that is not believed ends nothing (`may_expire`).
    """

    claim: Claim
    ended: Ended
    not_before: int
    now: int
    may_expire: bool = True


def conclude(tx: Transaction, conclusions: Sequence[Conclusion]) -> list[tuple[Code, str] | None]:
    """Close attempts and move their drafts to where that puts them; returns what the operator is to be told of each.

    All of them or none: raises LostRace where an attempt is closed already.
    """
    now = max(one.now for one in conclusions)
    finish_if_open(tx, [(one.claim, one.ended.report) for one in conclusions], now=now)
    accepted = [one.claim for one in conclusions if one.ended.report.outcome is Stored.ACCEPTED]
    if accepted:
        complete_if_held(tx, accepted, now=now)
    return [None if one.ended.report.outcome is Stored.ACCEPTED else _end_unsent(tx, one) for one in conclusions]


def _end_unsent(tx: Transaction, one: Conclusion) -> tuple[Code, str] | None:
    claim, now, outcome, error = one.claim, one.now, one.ended.report.outcome, one.ended.error
    if error is None:
        released = release_if_held(tx, claim, not_before=one.not_before, now=now, may_expire=one.may_expire)
        return never_left(claim.draft_id) if released is State.EXPIRED else None
    if outcome is Stored.IN_DOUBT and not claim.is_system:
        pass  # it stays executing, for a person to settle
    elif error[0] is Code.NON_DELEGABLE_KIND:
        refuse_if_held(tx, claim, message=error[1], now=now)
    elif outcome is not Stored.IN_DOUBT and cancel_if_stopped(tx, claim, now=now):
        pass
    else:
        fail_if_held(tx, claim, code=error[0], message=error[1], now=now)
    return error


def without_words_of_tokens(ended: Ended, token: str | None) -> Ended:
    """Relays repeat Message-IDs and addresses; a reply token may not reach a row or a log by way of their words."""

    def clean(text: str) -> str:
        repeated = token is not None and token in "".join(text.split()).lower()
        return "(it repeats a reply token)" if repeated else without_tokens(text)

    report = ended.report
    text = clean(report.text)
    heard = tuple([(address, code, clean(words)) for address, code, words in report.heard])
    queue_id = clean(report.queue_id) if report.queue_id else None
    error = (ended.error[0], clean(ended.error[1])) if ended.error else None
    if (text, heard, queue_id, error) == (report.text, report.heard, report.queue_id, ended.error):
        return ended
    return Ended(replace(report, text=text, queue_id=queue_id, heard=heard), error, ended.halt)


def ledger_line(claim: Claim, ended: Ended) -> LedgerHeard:
    """The line that keeps an outcome should this process die before it is stored."""
    report = ended.report
    error = (ended.error[0].value, ended.error[1]) if ended.error else None
    return LedgerHeard(
        attempt=claim.attempt_id,
        outcome=report.outcome.value,
        code=report.code,
        enhanced=report.enhanced,
        text=report.text,
        queue_id=report.queue_id,
        recipients=report.heard,
        error=error,
    )


def as_heard(line: LedgerHeard) -> Ended:
    """The same, read back."""
    report = Report(Stored(line.outcome), line.code, line.enhanced, line.text, line.queue_id, tuple(line.recipients))
    return Ended(report, (Code(line.error[0]), line.error[1]) if line.error else None)
