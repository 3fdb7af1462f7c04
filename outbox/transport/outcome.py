"""How a send went, decided by SMTP step in one place (DESIGN section 4, "Outcomes").

Only the final dot can hand a message over: whatever happens before it, the relay has not accepted anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

_QUEUE_ID = re.compile(
    r"(?:queued as|queued mail for delivery, id|queued \(|id=|mid=)\s*<?([A-Za-z0-9._@+/=-]{4,100})", re.IGNORECASE
)


class Step(StrEnum):
    """Where in the transaction something was heard, or broke off."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BODY = "the message"


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply: its code, its enhanced code (RFC 3463) if it has one, and its text on one line."""

    code: int
    enhanced: str | None
    text: str

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.code, self.enhanced, self.text) if part)


@dataclass(frozen=True, slots=True)
class Break:
    """No complete reply: a timeout, a drop, or words that are not SMTP."""

    why: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What the relay said of one recipient."""

    address: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Accepted:
    """The relay has taken responsibility for every recipient that it did not refuse (RFC 5321 6.1).

    Only a spare one can have been refused.
    """

    reply: Reply
    queue_id: str | None
    heard: tuple[Heard, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The relay said no. Transient where trying again may help."""

    transient: bool
    reply: Reply
    heard: tuple[Heard, ...] = ()


@dataclass(frozen=True, slots=True)
class NotSent:
    """The final dot was not written. `halt` where the next draft would fare no better: nothing more is claimed."""

    why: str
    transient: bool = True
    halt: bool = False
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class InDoubt:
    """The final dot was written and no complete 2yz, 4yz or 5yz reply came."""

    why: str


Outcome = Accepted | Refused | NotSent | InDoubt


def judge(step: Step, heard: Reply | Break, recipients: Sequence[Heard] = ()) -> Outcome | None:
    """What a reply, or the want of one, means at a step before the dot; None means go on."""
    if isinstance(heard, Break):
        return NotSent(f"{step}: {heard.why}")
    expected = 3 if step is Step.DATA else 2
    match heard.code // 100:
        case 4:
            return Refused(True, heard, tuple(recipients))
        case 5:
            return Refused(False, heard, tuple(recipients))
        case digit if digit == expected:
            return None
        case _:
            return NotSent(f"{step}: the relay said {heard}, which is no answer to it", reply=heard)


def judge_dot(heard: Reply | Break, recipients: Sequence[Heard]) -> Outcome:
    """What a reply, or the want of one, means after the final dot. The first digit decides (RFC 5321 4.2.1)."""
    if isinstance(heard, Break):
        return InDoubt(f"after the final dot: {heard.why}")
    match heard.code // 100:
        case 2:
            return Accepted(heard, _queue_id(heard.text), tuple(recipients))
        case 4:
            return Refused(True, heard, tuple(recipients))
        case 5:
            return Refused(False, heard, tuple(recipients))
        case _:
            return InDoubt(f"after the final dot the relay said {heard}, which is no answer to it")


def judge_recipients(heard: Sequence[Heard], spare: Collection[str] = ()) -> Outcome | None:
    """All recipients or none: any 5yz is permanent, else any 4yz transient, else go on.

    A spare one may be refused, and is never the only one that is sent to.
    """
    judged = [(one.address, outcome) for one in heard if (outcome := judge(Step.RCPT, one.reply, heard)) is not None]
    refusals = [outcome for address, outcome in judged if address not in spare or not isinstance(outcome, Refused)]
    permanent = (one for one in refusals if isinstance(one, Refused) and not one.transient)
    return next(permanent, next(iter(refusals), None))


def _queue_id(text: str) -> str | None:
    found = _QUEUE_ID.search(text)
    return found[1].rstrip(".") if found else None
