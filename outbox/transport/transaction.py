"""One message through one connection: MAIL, RCPT, DATA, the message, the gap, the dot, the reply.

Where the relay offers PIPELINING (RFC 2920) the envelope and DATA are one write, and their replies are heard in order;
where it does not, each waits for the reply to the one before. What each reply means is outcome.py's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from outbox.transport.commands import Offers, Sending, commands, lacking, stuffed
from outbox.transport.dialogue import Dialogue
from outbox.transport.gap import GAP_AGE, EnterGap, GapRefused, boottime
from outbox.transport.outcome import (
    Accepted,
    Break,
    Heard,
    NotSent,
    Outcome,
    Refused,
    Reply,
    Step,
    judge,
    judge_dot,
    judge_recipients,
)

CLOSING = 421  # the relay is about to close the connection, whatever it was asked (RFC 5321 3.8)


@dataclass(slots=True, eq=False)
class Connection:
    """A dialogue with a relay that let us in; `made_at` and `rested_at` in seconds of the transport's clock."""

    dialogue: Dialogue
    offers: Offers
    made_at: float
    rested_at: float
    needs_reset: bool = False  # an envelope was begun and refused


class Fate(Enum):
    """What a connection is good for after a transaction."""

    REST = "both sides know where they are: it can be used again"
    LEAVE = "the same, but the relay is leaving: say goodbye"
    ABORT = "what the relay makes of the next octets is not known"


class Transaction:
    """One message on its way through a connection. `fate` is the connection's, whatever becomes of `send`.

    `was_answered` unless the relay said nothing to MAIL but that it is leaving: then it provably took nothing.
    """

    __slots__ = ("_connection", "_dialogue", "_final_timeout", "_sending", "_timeout", "fate", "was_answered")

    def __init__(self, connection: Connection, sending: Sending, *, timeout: float, final_timeout: float) -> None:
        self._connection, self._dialogue, self._sending = connection, connection.dialogue, sending
        self._timeout, self._final_timeout = timeout, final_timeout
        self.fate = Fate.ABORT
        self.was_answered = False

    async def send(self, enter_gap: EnterGap) -> Outcome:
        """How it went."""
        lacks = lacking(self._sending, self._connection.offers)
        if lacks is not None:
            self.was_answered, self.fate = True, Fate.REST
            return lacks
        if self._connection.needs_reset and (stuck := await self._reset()) is not None:
            return stuck
        heard: list[Heard] = []
        refused = await self._hand_over_envelope(heard)
        if refused is not None:
            return refused
        broken = await self._dialogue.write(stuffed(self._sending.octets), self._timeout)
        if broken is not None:
            return NotSent(f"{Step.BODY}: {broken.why}")
        return await self._cross_gap(heard, enter_gap)

    async def _reset(self) -> NotSent | None:
        self._dialogue.ask(b"RSET\r\n", 1, self._timeout)
        reply = await self._dialogue.hear()
        if isinstance(reply, Break):
            return NotSent(f"RSET: {reply.why}")
        if reply.code // 100 != 2:
            return NotSent(f"RSET: the relay said {reply}", reply=reply)
        self._connection.needs_reset = False
        return None

    async def _hand_over_envelope(self, heard: list[Heard]) -> Outcome | None:
        """None where the relay waits for the message; `heard` is what it said of each recipient."""
        lines = commands(self._sending, self._connection.offers)
        pipelined = self._connection.offers.pipelining
        if pipelined:
            self._dialogue.ask(b"".join(lines), len(lines), self._timeout)
            lines = [b""] * len(lines)
        mail = await self._answer(lines[0])
        self.was_answered = isinstance(mail, Reply) and mail.code != CLOSING
        if (outcome := judge(Step.MAIL, mail)) is not None:
            return outcome if pipelined else self._begun(outcome, needs_reset=False)
        for line, address in zip(lines[1:-1], self._sending.envelope.recipients, strict=True):
            reply = await self._answer(line)
            if isinstance(reply, Break):
                return judge_recipients(heard, self._sending.spare) or NotSent(f"{Step.RCPT}: {reply.why}")
            heard.append(Heard(address, reply))
        outcome = judge_recipients(heard, self._sending.spare)
        if outcome is None:
            outcome = judge(Step.DATA, await self._answer(lines[-1]), heard)
        return outcome if pipelined else self._begun(outcome, needs_reset=True)

    async def _answer(self, line: bytes) -> Reply | Break:
        """The next reply: to this line, or where it is empty to what was asked already."""
        if line:
            self._dialogue.ask(line, 1, self._timeout)
        return await self._dialogue.hear()

    def _begun(self, outcome: Outcome | None, *, needs_reset: bool) -> Outcome | None:
        """A refusal with no DATA under way leaves the connection where a RSET finds it."""
        if isinstance(outcome, Refused):
            self._connection.needs_reset = needs_reset
            self.fate = _fate_after(outcome.reply)
        return outcome

    async def _cross_gap(self, heard: list[Heard], enter_gap: EnterGap) -> Outcome:
        entered = await enter_gap()
        if isinstance(entered, GapRefused):
            return NotSent(entered.why)
        unsettled = await self._dialogue.unsettled()
        if unsettled is not None:
            return NotSent(f"{Step.BODY}: {unsettled.why}")
        if boottime() - entered.at >= GAP_AGE:
            return NotSent(f"the gap was entered over {GAP_AGE:g} s ago; this process was held up")
        self._dialogue.write_dot(self._final_timeout)
        outcome = judge_dot(await self._dialogue.hear(), heard)
        if isinstance(outcome, (Accepted, Refused)):
            self.fate = _fate_after(outcome.reply)
        return outcome


def _fate_after(reply: Reply) -> Fate:
    return Fate.LEAVE if reply.code == CLOSING else Fate.REST
