"""Tell each approver who was asked how it ended: once, briefly, in the thread of his request."""

from __future__ import annotations

import logging
from typing import Literal

from outbox.alerts import Alerts
from outbox.clock import Clock, new_id
from outbox.core.address import comparable
from outbox.core.errors import Code, PolicyRefused, StateRefused, VerificationFailed
from outbox.core.grant import without_tokens
from outbox.core.lifecycle import Outcome, Room, State
from outbox.core.notice import NOTICE_TTL, sign_notice
from outbox.core.rendering import fenced, visible
from outbox.core.signed import SignedDraft, derived, verify_digest
from outbox.core.signing import KeyRing
from outbox.inbox.wording import Manner, answer_notice, below_request, rfc_time
from outbox.store.engine import Database
from outbox.store.rows import load_draft
from outbox.store.tellings import Telling, due_endings, tell_ending_once
from outbox.store.views import AttemptView, Story, last_counted_reply, story
from outbox.store.writer import Writer

_MAY_HAVE_LEFT = {Code.RESTORED.value, Code.POSSIBLY_SENT.value, Code.IN_DOUBT.value, Code.SETTLED.value}
log = logging.getLogger("outbox.inbox")
_PROBLEMS = {State.FAILED, State.REFUSED, State.EXPIRED, State.EXECUTING}


class Ending:
    """Confirms what became of a draft, as far as `approval.confirm` asks for it."""

    def __init__(
        self,
        *,
        approvers: tuple[str, ...],
        confirm: Literal["all", "problems", "none"],
        database: Database,
        writer: Writer,
        alerts: Alerts,
        ring: KeyRing,
        manner: Manner,
        clock: Clock,
    ) -> None:
        self._approvers = {comparable(approver) for approver in approvers}
        self._confirm = confirm
        self._database, self._writer, self._alerts = database, writer, alerts
        self._ring, self._manner, self._clock = ring, manner, clock

    def tell(self) -> None:
        """One mail for each approver and draft that has ended, or is in doubt, since the last look."""
        with self._database.reading() as connection:
            due = due_endings(connection)
        for telling in due:
            self._tell_of(telling)

    def _tell_of(self, telling: Telling) -> None:
        now = self._clock()
        try:
            notice = self._notice(telling, now) if self._is_wanted(telling) else None
        except (VerificationFailed, PolicyRefused) as error:  # one bad row never stops the others
            self._alerts.tell(error.code, error.message, draft_id=telling.request.draft_id)
            notice = None
        try:
            self._writer.run(lambda tx: tell_ending_once(tx, telling.request, notice, now=now))
        except StateRefused:
            return  # another inbox told him
        log.info("%s knows", telling.request.approver, extra={"action": "tell", "draft": telling.request.draft_id})

    def _is_wanted(self, telling: Telling) -> bool:
        if comparable(telling.request.approver) not in self._approvers:
            return False
        wanted = self._confirm == "all" or (self._confirm == "problems" and telling.state in _PROBLEMS)
        return wanted or telling.stop_asked  # who asked to stop was promised to hear of it

    def _notice(self, telling: Telling, now: int) -> SignedDraft:
        request = telling.request
        with self._database.reading() as connection:
            told = story(connection, request.draft_id)
            signed = load_draft(connection, request.draft_id)
            reply_id = last_counted_reply(connection, request.draft_id)
        verify_digest(signed)
        subject, message_id = derived(signed.draft)
        what, text = _in_words(told, message_id)
        notice = answer_notice(
            request,
            self._manner,
            subject=f"{what}: {visible(subject)}",
            text=text,
            thread=below_request(request, telling.carrier_id, self._manner, reply_id),
            expires_at=now + NOTICE_TTL,
        )
        return sign_notice(self._ring, notice, Room.INBOX, new_id(now), now)


def _in_words(told: Story, message_id: str) -> tuple[str, str]:
    """What happened in two or three words, and the whole of it."""
    draft = told.draft
    last = told.attempts[-1] if told.attempts else None
    if draft.state is not State.COMPLETED and draft.error and draft.error[0] in _MAY_HAVE_LEFT:
        why = fenced(visible(without_tokens(draft.error[1])))
        return (
            "Not sent again",
            f"It is not sent again by itself; whether it left before, only the operator knows:\n\n{why}",
        )
    match draft.state:
        case State.COMPLETED:
            return "Sent", _sent(told, last, message_id)
        case State.EXECUTING:
            return "Not known whether sent", _in_doubt(last)
        case State.EXPIRED if draft.grants:
            return "Not sent", "It was approved, and its time passed before it was sent. Nothing was sent."
        case State.EXPIRED:
            return "Expired", "Nobody answered in time, so nothing was sent. The agent can draft it again."
        case State.REJECTED:
            return "Rejected", _rejected(told)
        case State.CANCELLED if draft.stop_asked_at is not None:
            return "Stopped", "The stop came in time: nothing was sent."
        case State.CANCELLED:
            return "Cancelled", "It was cancelled. Nothing was sent."
        case _:
            why = visible(without_tokens(draft.error[1])) if draft.error else "its record does not say why"
            return "Not sent", f"It was not sent:\n\n{fenced(why)}\n\nThe agent can see this too."


def _sent(told: Story, last: AttemptView | None, message_id: str) -> str:
    late = "The stop came too late. " if told.draft.stop_asked_at is not None else ""
    if last is None or last.outcome != Outcome.ACCEPTED.value or last.ended_at is None:
        return f"{late}It was sent; it was settled by hand."
    rows = [("Queue id", last.queue_id or "(the relay gave none)"), ("Message-ID", message_id)]
    facts = "\n".join(f"    {name:<11} {visible(without_tokens(value))}" for name, value in rows)
    said = fenced(f"{last.code or ''} {last.text or ''}".strip())
    return f"{late}The relay took it at {rfc_time(last.ended_at)}:\n\n{said}\n\n{facts}"


def _in_doubt(last: AttemptView | None) -> str:
    why = fenced(visible(last.text)) if last is not None and last.text else ""
    return (
        f"It may have been sent, and may not: the relay's answer was not heard.\n\n{why}\n\n"
        "It is not sent again by itself. The operator looks into it; nothing need be done here."
    )


def _rejected(told: Story) -> str:
    rejection = told.draft.rejection
    by = visible(rejection.approver) if rejection else "an approver"
    reason = f"\n\n{fenced(rejection.reason)}" if rejection and rejection.reason else ""
    return f"{by} rejected it, and nothing was sent. The agent can read the reason.{reason}"
