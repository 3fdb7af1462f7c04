"""What happened, as `outbox up` says it: one sentence an event, of which no word can do more than be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from outbox.core.draft import MICROSECONDS
from outbox.core.lifecycle import SYSTEM_KIND, Outcome, State

if TYPE_CHECKING:
    from outbox.store.events import Event
    from outbox.store.views import AttemptView, DraftView

LONGEST = 200  # characters of one piece of text that somebody else wrote
MOST_RECIPIENTS = 3


def sentence(event: Event) -> str | None:
    """One event as a sentence; None for what is only a part of another one, or says nothing to a person."""
    if event.draft_id is None:
        on_its_own = _ON_ITS_OWN.get(event.action)
        return on_its_own(event) if on_its_own is not None else None
    about_draft = _ABOUT_A_DRAFT.get(event.action)
    if about_draft is None:
        return None
    if event.story is None:
        return f"{shown(event.action)} of draft {shown(event.draft_id)}, whose row cannot be read"
    return about_draft(event, event.story.draft)


def clock_time(instant: int) -> str:
    """Microseconds UTC as the time of day here."""
    try:
        local = datetime.fromtimestamp(instant // MICROSECONDS, UTC).astimezone()
    except (ValueError, OverflowError, OSError):  # an altered row may say any number
        return "--:--:--"
    return f"{local:%H:%M:%S}"


def shown(text: object, longest: int = LONGEST) -> str:
    """Text of an agent or a stranger: one line, cut short, without what a terminal would act on."""
    line = str(text)[: longest + 1]
    clean = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return clean if len(clean) <= longest else f"{clean[:longest]}\N{HORIZONTAL ELLIPSIS}"


def _name(draft: DraftView) -> str:
    if draft.kind == SYSTEM_KIND:
        return f'the mail "{shown(draft.subject)}" to {_recipients(draft)}'
    return f'"{shown(draft.subject)}"'


def _recipients(draft: DraftView) -> str:
    everybody = draft.envelope.recipients
    named = [shown(address) for address in everybody[:MOST_RECIPIENTS]]
    more = len(everybody) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _attempt(event: Event) -> AttemptView | None:
    tried = event.story.attempts if event.story is not None else ()
    return next((attempt for attempt in tried if attempt.id == event.attempt_id), None)


def _heard(attempt: AttemptView | None) -> str:
    """What the relay said, or why it said nothing."""
    if attempt is None:
        return ""
    return shown(" ".join(str(part) for part in (attempt.code, attempt.enhanced, attempt.text) if part))


def _error(draft: DraftView) -> str:
    return shown(draft.error[1]) if draft.error is not None else "no reason is stored"


def _drafted(_event: Event, draft: DraftView) -> str | None:
    if draft.kind == SYSTEM_KIND:
        return None  # told when it has left
    return f"{shown(draft.agent)} drafted {_name(draft)} for {_recipients(draft)} ({shown(draft.id)})"


def _replied(event: Event, draft: DraftView | None) -> str | None:
    if event.detail.get("counted"):
        return None  # what it did has an event of its own
    about = f" about {_name(draft)}" if draft is not None else ""
    sender = shown(event.sender) or "somebody without an address"
    return f"a reply from {sender}{about} did not count: {shown(event.detail.get('why'))}"


def _granted(event: Event, draft: DraftView) -> str:
    return f"{shown(event.detail.get('approver'))} approved {_name(draft)}"


def _rejected(_event: Event, draft: DraftView) -> str:
    if draft.rejection is None:
        return f"{_name(draft)} was rejected"
    reason = f": {shown(draft.rejection.reason)}" if draft.rejection.reason else ""
    return f"{shown(draft.rejection.approver)} rejected {_name(draft)}{reason}"


def _cancelled(event: Event, draft: DraftView) -> str:
    if event.detail.get("from") == State.EXECUTING:
        return f"stopped {_name(draft)} before it was sent"
    return f"{_name(draft)} was cancelled"


def _completed(event: Event, draft: DraftView) -> str:
    if event.asked is not None:
        return f'asked {shown(event.asked.approver)} about "{shown(event.asked.subject)}"'
    if draft.kind == SYSTEM_KIND:
        return f'told {_recipients(draft)}: "{shown(draft.subject)}"'
    return f"sent {_name(draft)}: the relay said {_heard(_attempt(event))}"


def _deferred(event: Event, draft: DraftView) -> str:
    again = ""
    if draft.state is State.APPROVED and draft.not_before is not None:
        again = f"; it is tried again at {clock_time(draft.not_before)}"
    return f"not sent yet, {_name(draft)}: {_heard(_attempt(event)) or 'nothing was heard'}{again}"


def _done(event: Event, draft: DraftView) -> str | None:
    if event.detail.get("outcome") != Outcome.IN_DOUBT or draft.kind == SYSTEM_KIND:
        return None  # where the draft went has an event of its own
    return (
        f"in doubt whether {_name(draft)} was sent: {_heard(_attempt(event))}. It is not sent again by itself; "
        f"`outbox reconcile {shown(draft.id)}` looks for evidence of it"
    )


def _gave_up_codes(event: Event, draft: DraftView) -> str:
    approver = shown(event.detail.get("approver"))
    return f"too many wrong codes in the name of {approver}: no reply of his can approve {_name(draft)} any more"


def _failed(_event: Event, draft: DraftView) -> str:
    return f"failed, {_name(draft)}: {_error(draft)} ({shown(draft.id)})"


def _refused(_event: Event, draft: DraftView) -> str:
    return f"refused, {_name(draft)}: {_error(draft)} ({shown(draft.id)})"


def _expired(_event: Event, draft: DraftView) -> str:
    return f"expired, {_name(draft)}: {_error(draft)}"


def _asked_to_stop(_event: Event, draft: DraftView) -> str:
    return f"asked to stop {_name(draft)}, which is being sent"


def _settled(event: Event, draft: DraftView) -> str:
    decided = shown(event.detail.get("as")).replace("_", " ")
    return f"{shown(event.detail.get('by'))} settled {_name(draft)} as {decided}: {shown(event.detail.get('note'))}"


def _tripped(event: Event) -> str:
    until = event.detail.get("until")
    when = f" before {clock_time(until)}" if isinstance(until, int) else ""
    return f"the thermal cutout is open: nothing of gate {shown(event.detail.get('gate'))} is sent{when}"


def _cooled(event: Event) -> str:
    return f"the thermal cutout of gate {shown(event.detail.get('gate'))} is closed again"


_ABOUT_A_DRAFT: dict[str, Callable[[Event, DraftView], str | None]] = {
    "insert": _drafted,
    "reply": _replied,
    "grant": _granted,
    "reject": _rejected,
    "spend": _gave_up_codes,
    "cancel": _cancelled,
    "stop": _asked_to_stop,
    "expire": _expired,
    "done": _done,
    "defer": _deferred,
    "complete": _completed,
    "fail": _failed,
    "refuse": _refused,
    "settlement": _settled,
}
_ON_ITS_OWN: dict[str, Callable[[Event], str | None]] = {
    "reply": lambda event: _replied(event, None),
    "trip": _tripped,
    "cool": _cooled,
    "pause": lambda event: f"{shown(event.detail.get('by'))} paused it: {shown(event.detail.get('reason'))}",
    "resume": lambda event: f"{shown(event.detail.get('by'))} let it go on",
    "fence": lambda event: f"{shown(event.detail.get('by'))} accepted a restored database",
}
