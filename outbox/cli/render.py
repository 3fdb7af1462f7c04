"""Drafts, replies and judgements as JSON (the contract's keys) and as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from outbox.core.draft import MICROSECONDS
from outbox.core.errors import OutboxError

if TYPE_CHECKING:
    from outbox.inbox.judgement import Judgement
    from outbox.store.views import AttemptView, DraftView, ReplyView, Story

Json = dict[str, object]


def dumps(fields: Json) -> str:
    """One object on one line."""
    return json.dumps(fields, ensure_ascii=False)


def rfc3339(instant: int | None) -> str | None:
    """Microseconds UTC as RFC 3339 with Z."""
    if instant is None:
        return None
    seconds, micros = divmod(instant, MICROSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06}Z"


def error_json(error: OutboxError) -> Json:
    """An error's code, words and field."""
    return {"error": error.code.value, "message": error.message, "field": error.field}


def draft_json(draft: DraftView) -> Json:
    """One line of `outbox list --json`."""
    return {
        "id": draft.id,
        "kind": draft.kind,
        "agent": draft.agent,
        "state": draft.state.value,
        "from": draft.envelope.sender,
        "to": list(draft.envelope.to),
        "cc": list(draft.envelope.cc),
        "bcc": list(draft.envelope.bcc),
        "subject": draft.subject,
        "digest": draft.digest.hex(),
        "fingerprint": draft.fingerprint.hex(),
        "message_id": draft.message_id,
        "about": draft.about,
        "created_at": rfc3339(draft.created_at),
        "expires_at": rfc3339(draft.expires_at),
        "not_before": rfc3339(draft.not_before),
        "stop_asked_at": rfc3339(draft.stop_asked_at),
        "error": {"code": draft.error[0], "message": draft.error[1]} if draft.error else None,
        "rejection": {
            "reason": draft.rejection.reason,
            "by": draft.rejection.approver,
            "at": rfc3339(draft.rejection.at),
        }
        if draft.rejection
        else None,
        "grants": [
            {
                "approver": grant.approver,
                "channel": grant.channel,
                "at": rfc3339(grant.at),
                "expires_at": rfc3339(grant.expires_at),
            }
            for grant in draft.grants
        ],
        "settlement": {
            "as": draft.settlement.settled_as,
            "by": draft.settlement.by,
            "note": draft.settlement.note,
            "at": rfc3339(draft.settlement.at),
        }
        if draft.settlement
        else None,
        "resubmitted": draft.resubmitted,
    }


def story_json(story: Story) -> Json:
    """`outbox show --json`."""
    asked = [
        {"approver": request.approver, "draft": request.draft_id, "at": rfc3339(request.at)}
        for request in story.requests
    ]
    return draft_json(story.draft) | {"requests": asked, "attempts": [_attempt_json(one) for one in story.attempts]}


def _attempt_json(attempt: AttemptView) -> Json:
    return {
        "id": attempt.id,
        "worker": attempt.worker_id,
        "phase": attempt.phase,
        "outcome": attempt.outcome,
        "code": attempt.code,
        "enhanced": attempt.enhanced,
        "text": attempt.text,
        "queue_id": attempt.queue_id,
        "wire_digest": attempt.wire_digest.hex() if attempt.wire_digest else None,
        "started_at": rfc3339(attempt.started_at),
        "gap_at": rfc3339(attempt.gap_at),
        "ended_at": rfc3339(attempt.ended_at),
        "recipients": [{"address": one.address, "code": one.code, "text": one.text} for one in attempt.recipients],
    }


def reply_json(reply: ReplyView) -> Json:
    """One line of `outbox replies --json`."""
    return {
        "received_at": rfc3339(reply.received_at),
        "from": reply.sender,
        "message_id": reply.message_id,
        "draft": reply.draft_id,
        "verdict": reply.verdict,
        "counted": reply.counted,
        "why": reply.why,
    }


def judgement_json(judgement: Judgement) -> Json:
    """`outbox inbox explain --json`."""
    return {
        "draft": judgement.request.draft_id if judgement.request else None,
        "verdict": judgement.reading.verdict.value,
        "reason": judgement.reading.reason or None,
        "counts": judgement.counts,
        "checks": [{"check": one.name, "passed": one.passed, "why": one.why} for one in judgement.checks],
    }


def draft_line(draft: DraftView) -> str:
    """One line of `outbox list`."""
    recipients = shown(", ".join(draft.envelope.recipients))
    return f"{draft.id}  {draft.state:<9}  {moment(draft.created_at)}  {recipients}  {shown(draft.subject)}"


def story_text(story: Story) -> str:
    """`outbox show`: what the draft is, then everything that happened to it, each with its time."""
    draft = story.draft
    rows = [
        ("Draft", draft.id),
        ("State", draft.state.value + (f" ({draft.error[0]}: {shown(draft.error[1])})" if draft.error else "")),
        ("From", shown(draft.envelope.sender)),
        *(("To", shown(address)) for address in draft.envelope.to),
        *(("Cc", shown(address)) for address in draft.envelope.cc),
        *(("Bcc", shown(address)) for address in draft.envelope.bcc),
        ("Subject", shown(draft.subject)),
        ("Digest", draft.digest.hex()),
    ]
    head = "".join(f"{label:<9}{value}\n" for label, value in rows)
    happened = sorted(_events(story), key=lambda event: event[0])
    return f"{head}\n" + "".join(f"{moment(at)}  {what}\n" for at, what in happened).rstrip("\n")


def _events(story: Story) -> Iterator[tuple[int, str]]:
    draft = story.draft
    yield draft.created_at, f"drafted by {shown(draft.agent)}, kind {draft.kind}, expires {moment(draft.expires_at)}"
    for request in story.requests:
        yield request.at, f"asked {request.approver} (system draft {request.draft_id})"
    for grant in draft.grants:
        yield grant.at, f"approved by {grant.approver} through {grant.channel}, until {moment(grant.expires_at)}"
    if draft.rejection is not None:
        reason = f": {shown(draft.rejection.reason)}" if draft.rejection.reason else ""
        yield draft.rejection.at, f"rejected by {draft.rejection.approver}{reason}"
    if draft.stop_asked_at is not None:
        yield draft.stop_asked_at, "asked to stop"
    for attempt in story.attempts:
        yield attempt.started_at, f"claimed by worker {attempt.worker_id}"
        if attempt.gap_at is not None:
            yield attempt.gap_at, "message written, gap entered"
        if attempt.ended_at is not None:
            yield attempt.ended_at, _ending(attempt)
    if draft.settlement is not None:
        decided = draft.settlement.settled_as.replace("_", " ")
        yield draft.settlement.at, f"settled as {decided} by {draft.settlement.by}: {shown(draft.settlement.note)}"


def _ending(attempt: AttemptView) -> str:
    reply = " ".join(str(part) for part in (attempt.code, attempt.enhanced, shown(attempt.text or "")) if part)
    queue_id = f", queue id {shown(attempt.queue_id)}" if attempt.queue_id else ""
    words = {"accepted": "sent: the relay said", "in_doubt": "in doubt, it may have been sent:"}
    return f"{words.get(attempt.outcome or '', f'{attempt.outcome}:')} {reply}{queue_id}"


def reply_line(reply: ReplyView) -> str:
    """One line of `outbox replies`."""
    counted = "counted" if reply.counted else "did not count"
    sender = reply.sender or "(no sender)"
    said = f"{sender}  {reply.verdict}, {counted}: {shown(reply.why)}"
    return f"{moment(reply.received_at)}  {said}  {reply.draft_id or ''}".rstrip()


def judgement_text(judgement: Judgement) -> str:
    """`outbox inbox explain`: each check, then what it comes to."""
    marks = {True: "passed", False: "FAILED", None: "-"}
    lines = [f"{one.name:<13} {marks[one.passed]:<7} {shown(one.why)}" for one in judgement.checks]
    draft = judgement.request.draft_id if judgement.request else "none"
    counts = "counts" if judgement.counts else "changes nothing"
    return "\n".join([*lines, "", f"Draft {draft}: {judgement.reading.verdict}, and it {counts}."])


def moment(instant: int) -> str:
    """UTC, to the second."""
    return f"{datetime.fromtimestamp(instant // MICROSECONDS, UTC):%Y-%m-%d %H:%M:%SZ}"


def shown(text: str) -> str:
    """Text of an agent or a stranger, on one line, without what a terminal would act on."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
