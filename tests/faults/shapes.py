"""What a relay can do instead of answering well, and what DESIGN section 4 says that each of it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.relay.adversary import Drip, Fin, Hold, Keep, Phase, Rst, Say, Script, Wait, complete
from tests.relay.scripted import Action

CONNECTING = (Phase.GREETING, Phase.EHLO, Phase.STARTTLS, Phase.AUTH)
STEPS = (Phase.MAIL, Phase.RCPT, Phase.DATA)
JACK, JANE = "jack@customer.example", "jane@customer.example"  # as the envelope has them, in this order
BOTH = (JACK, JANE)
Actions = Sequence[Action | Wait]


@dataclass(frozen=True)
class Shape:
    """One misbehaviour; `code` is that of the complete reply in it, if any. `hangs` where a timeout ends it."""

    name: str
    actions: tuple[Action | Wait, ...]
    code: int | None = None
    hangs: bool = False


@dataclass(frozen=True)
class Meaning:
    """What has to be stored of an attempt."""

    outcome: str
    code: int | None = None


@dataclass(frozen=True)
class Fault:
    """A shape in its place, and what it means. `unless_dotted` is what it means where the relay got no final dot."""

    name: str
    script: Script
    meaning: Meaning
    hangs: bool = False
    unless_dotted: Meaning | None = None
    recipients: tuple[str, ...] = (JACK,)


REPLIES = (
    Shape("421, then FIN", (complete(421, "4.3.2 Going down"), Fin()), 421),
    Shape("421, then RST", (complete(421, "4.3.2 Going down"), Wait(0.05), Rst()), 421),
    Shape("450", (complete(450, "4.2.0 Busy"),), 450),
    Shape("451 in three lines", (complete(451, "4.3.0 Try", "4.3.0 again", "4.3.0 later"),), 451),
    Shape("452 in pieces", (Say(complete(452, "4.3.1 Disk full").octets, piecemeal=True),), 452),
    Shape("499 without a word", (Say(b"499\r\n"),), 499),
    Shape("500", (complete(500, "5.5.2 What?"),), 500),
    Shape("550", (complete(550, "5.7.1 Not for you"),), 550),
    Shape("554 in two lines", (complete(554, "5.7.1 Not", "5.7.1 ever"),), 554),
    Shape("599 without a word", (Say(b"599\r\n"),), 599),
)
WRONG = (
    Shape("334", (complete(334, ""),), 334),
    Shape("399", (complete(399, "Go"),), 399),
)
BROKEN = (
    Shape("FIN", (Fin(),)),
    Shape("RST", (Rst(),)),
    Shape("half a reply, then FIN", (Say(b"25"), Fin())),
    Shape("half a refusal, then RST", (Say(b"550 5.7.1 No"), Rst())),
    Shape("lines without the last, then FIN", (Say(b"250-one\r\n250-two\r\n"), Fin())),
)
GARBLED = (
    Shape("words that are not SMTP", (Say(b"HTTP/1.1 200 OK\r\n"), Fin())),
    Shape("octets", (Say(bytes(range(256)) * 4 + b"\r\n"), Fin())),
    Shape("200 and 550 in one reply", (Say(b"250-one\r\n550 two\r\n"), Fin())),
    Shape("421 in the middle of a reply", (Say(b"250-one\r\n421 4.3.2 Going down\r\n"), Fin())),
    Shape("a code of four digits", (Say(b"2500 Ok\r\n"), Fin())),
    Shape("150", (Say(b"150 Wait\r\n"), Fin())),
    Shape("an endless line", (Say(b"250 " + b"x" * 100_000), Fin())),
    Shape("a reply of 200 lines", (complete(250, *["more"] * 200), Fin())),
)
HANGING = (
    Shape("nothing", (Hold(),), hangs=True),
    Shape("half a reply, then nothing", (Say(b"25"), Hold()), hangs=True),
    Shape("lines without the last, then nothing", (Say(b"250-one\r\n"), Hold()), hangs=True),
    Shape("one octet a second", (Drip(b"250 2.0.0 Ok: queued as 4F2\r\n"),), hangs=True),
)
SHAPES = (*REPLIES, *WRONG, *BROKEN, *GARBLED, *HANGING)


def meaning_at(phase: Phase, code: int | None) -> Meaning:
    """DESIGN section 4's table, by phase and the complete reply that was given there, if one was."""
    digit = None if code is None else code // 100
    if phase in CONNECTING:
        return Meaning("not_sent", code)
    if digit == 4:
        return Meaning("refused_transient", code)
    if digit == 5:
        return Meaning("refused_permanent", code)
    if phase is Phase.DOT:
        return Meaning("accepted", code) if digit == 2 else Meaning("in_doubt")
    return Meaning("not_sent", code)


def faults_in_steps() -> list[Fault]:
    """Every shape at every command from MAIL on, and at the final dot: taken, and not taken."""
    found = []
    for phase in STEPS:
        for shape in SHAPES:
            if phase is Phase.DATA and shape in WRONG:
                continue  # any 3yz is what DATA wants
            found.append(_fault(phase, shape, shape.actions))
    for shape in SHAPES:
        found.append(_fault(Phase.DOT, shape, shape.actions, "not taken"))
        if meaning_at(Phase.DOT, shape.code).outcome == "in_doubt":  # who refuses and delivers breaks RFC 5321 4.2.5
            found.append(_fault(Phase.DOT, shape, (Keep(), *shape.actions), "taken"))
    return [*found, *_OTHERS]


def _fault(phase: Phase, shape: Shape, actions: Actions, note: str = "") -> Fault:
    name = f"{phase}: {shape.name}{', ' if note else ''}{note}"
    return Fault(name, {phase: actions}, meaning_at(phase, shape.code), shape.hangs)  # type: ignore[dict-item]


def _second(reply: Say, *then: Action) -> Script:
    return {JANE: (reply, *then)}


_GO = complete(354, "Go")
_TAKEN = (Keep(), complete(250, "2.0.0 Ok: queued as 4F2"))
_ACCEPTED = Meaning("accepted", 250)
_IN_DOUBT = Meaning("in_doubt")
_NOT_SENT = Meaning("not_sent")
_REFUSED = Meaning("refused_permanent", 550)
_DEFERRED = Meaning("refused_transient", 451)
_OTHERS = (
    Fault("MAIL: 354", {Phase.MAIL: [_GO]}, Meaning("not_sent", 354)),
    Fault("RCPT: 354", {Phase.RCPT: [_GO]}, Meaning("not_sent", 354)),
    Fault("DATA: 250", {Phase.DATA: [complete(250, "2.0.0 Ok")]}, Meaning("not_sent", 250)),
    Fault("dot: 354", {Phase.DOT: [Keep(), _GO, Fin()]}, _IN_DOUBT),
    Fault("DATA: 354 and 250 at once", {Phase.DATA: [Say(b"354 Go\r\n250 2.0.0 Ok\r\n")]}, _NOT_SENT),
    Fault("DATA: 354 and 421 at once", {Phase.DATA: [Say(b"354 Go\r\n421 4.3.2 Bye\r\n"), Fin()]}, _NOT_SENT),
    Fault("RCPT: 550 for the second", _second(complete(550, "5.1.1 Nobody")), _REFUSED, recipients=BOTH),
    Fault("RCPT: 451 for the second", _second(complete(451, "4.7.1 Later")), _DEFERRED, recipients=BOTH),
    Fault("RCPT: FIN at the second", _second(Say(b""), Fin()), _NOT_SENT, recipients=BOTH),
    Fault(
        "RCPT: 451 for the first, 550 for the second",
        {Phase.RCPT: [complete(451, "4.7.1 Later")], **_second(complete(550, "5.1.1 Nobody"))},
        _REFUSED,
        recipients=BOTH,
    ),
    Fault(
        "RCPT: 550 for all, and 354 to DATA all the same",
        {Phase.RCPT: [complete(550, "5.1.1 Nobody")], Phase.DATA: [_GO]},
        _REFUSED,
        recipients=BOTH,
    ),
    Fault(
        "MAIL: 550, and well from there on",
        {Phase.MAIL: [complete(550, "5.7.1 No")], Phase.DATA: [_GO]},
        _REFUSED,
    ),
    Fault("body: FIN", {Phase.BODY: [Fin()], Phase.DOT: [Keep()]}, _IN_DOUBT, unless_dotted=_NOT_SENT),
    Fault("body: nothing is read", {Phase.BODY: [Hold()]}, _IN_DOUBT, hangs=True),
    Fault("dot: taken, and told too late", {Phase.DOT: [Keep(), Wait(1.5), *_TAKEN[1:]]}, _IN_DOUBT, hangs=True),
    Fault("dot: taken too late, and told", {Phase.DOT: [Wait(1.5), *_TAKEN]}, _IN_DOUBT, hangs=True),
    Fault("dot: 250 and RST", {Phase.DOT: [*_TAKEN, Wait(0.05), Rst()]}, _ACCEPTED),
    Fault("dot: 250 and 550 after it", {Phase.DOT: [Keep(), Say(b"250 Ok\r\n550 No\r\n")]}, _ACCEPTED),
    Fault("QUIT: nothing", {Phase.QUIT: [Hold()]}, _ACCEPTED),
    Fault("QUIT: RST", {Phase.QUIT: [Rst()]}, _ACCEPTED),
    Fault("QUIT: 550", {Phase.QUIT: [complete(550, "5.0.0 No")]}, _ACCEPTED),
    Fault("QUIT: 421", {Phase.QUIT: [complete(421, "4.0.0 No"), Fin()]}, _ACCEPTED),
)


def faults_in_connecting() -> list[Fault]:
    """What passes, at every step before MAIL."""
    passing = [*BROKEN, *HANGING, *(shape for shape in REPLIES if (shape.code or 0) // 100 == 4)]
    return [_fault(phase, shape, shape.actions) for phase in CONNECTING for shape in passing]


def garbled_in_connecting() -> list[Fault]:
    """What is no SMTP, or out of place, at every step before MAIL: it need not be told from a relay that says no."""
    return [_fault(phase, shape, shape.actions) for phase in CONNECTING for shape in (*GARBLED, *WRONG)]
