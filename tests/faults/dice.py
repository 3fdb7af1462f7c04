"""Scripts that chance made: any reply at any step, in any pieces, and what DESIGN section 4 says that it means."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.faults.shapes import BOTH, JANE, Fault, Meaning, meaning_at
from tests.relay.adversary import Drip, Fin, Hold, Keep, Phase, Rst, Say, Script, Wait
from tests.relay.scripted import Action

STEPS = (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT)
LONGEST = 400  # octets of a line, so that a reply is always one that can be read


@dataclass(frozen=True)
class Reply:
    """Octets of a whole reply, and its code."""

    octets: bytes
    code: int


def faults(dice: random.Random, count: int) -> list[list[Fault]]:
    """For each of so many drafts the faults that it meets, one transaction after the other."""
    return [[fault(dice) for _ in range(dice.randrange(1, 5))] for _ in range(count)]


def fault(dice: random.Random) -> Fault:
    """One transaction that goes wrong at one step, or at the recipients, or not at all."""
    roll = dice.random()
    if roll < 0.2:
        return _at_the_recipients(dice)
    phase = dice.choice(STEPS)
    if roll < 0.4:
        return _well(dice)
    if roll < 0.75:
        return _told(dice, phase)
    return _broken(dice, phase)


def connection(dice: random.Random) -> Script:
    """What happens before MAIL: mostly nothing, else something that passes."""
    if dice.random() < 0.9:
        return {}
    phase = dice.choice([Phase.GREETING, Phase.EHLO])
    said = pieces(dice, reply(dice, 4)) if dice.random() < 0.5 else [*_part(dice)]
    return {phase: [*said, dice.choice([Fin(), Rst()])]}


def reply(dice: random.Random, digit: int) -> Reply:
    """A whole reply of one class, of one line or several, with whatever words."""
    code = 100 * digit + dice.randrange(60)
    lines = [_words(dice) for _ in range(dice.choice([1, 1, 1, 2, 5, 40]))]
    end = dice.choice([b"\r\n", b"\r\n", b"\n"])
    firsts = b"".join(b"%d-%s%s" % (code, line, end) for line in lines[:-1])
    return Reply(firsts + b"%d %s%s" % (code, lines[-1], end), code)


def pieces(dice: random.Random, whole: Reply) -> list[Action | Wait]:
    """The reply in one piece, or cut where chance will, or octet by octet."""
    roll = dice.random()
    if roll < 0.6:
        return [Say(whole.octets)]
    if roll < 0.7:
        return [Say(whole.octets[:LONGEST], piecemeal=True), Say(whole.octets[LONGEST:])]
    cut = dice.randrange(len(whole.octets))
    return [Say(whole.octets[:cut]), Wait(dice.random() / 20), Say(whole.octets[cut:])]


def _words(dice: random.Random) -> bytes:
    alphabet = bytes(octet for octet in range(256) if octet not in b"\r\n")
    drawn = bytes(dice.choice(alphabet) for _ in range(dice.choice([0, 5, 40, LONGEST])))
    return dice.choice([b"", b"2.0.0 ", b"4.3.0 ", b"5.7.1 "]) + drawn


def _well(dice: random.Random) -> Fault:
    answer = reply(dice, 2)
    return Fault("well", {Phase.DOT: [Keep(), *pieces(dice, answer)]}, Meaning("accepted", answer.code))  # type: ignore[list-item]


def _told(dice: random.Random, phase: Phase) -> Fault:
    digit = dice.choice([4, 4, 4, 5] if phase is not Phase.DOT else [3, 4, 4, 4, 5])
    answer = reply(dice, digit)
    kept = [Keep()] if digit == 3 and dice.random() < 0.5 else []
    then = [Fin()] if digit == 3 else []
    return Fault(f"{phase}: told", {phase: [*kept, *pieces(dice, answer), *then]}, meaning_at(phase, answer.code))  # type: ignore[list-item]


def _at_the_recipients(dice: random.Random) -> Fault:
    first, second = (reply(dice, dice.choice([2, 4, 5])) for _ in range(2))
    script: Script = {Phase.RCPT: pieces(dice, first), JANE: pieces(dice, second)}  # type: ignore[dict-item]
    codes = [one.code for one in (first, second) if one.code // 100 != 2]
    permanent = [code for code in codes if code // 100 == 5]
    if not codes:
        return Fault("RCPT: taken", script, Meaning("accepted", 250), recipients=BOTH)
    return Fault("RCPT: told", script, meaning_at(Phase.RCPT, (permanent or codes)[0]), recipients=BOTH)


def _broken(dice: random.Random, phase: Phase) -> Fault:
    kept = [Keep()] if phase is Phase.DOT and dice.random() < 0.5 else []
    return Fault(
        f"{phase}: broken",
        {phase: [*kept, *_part(dice), dice.choice([Fin(), Fin(), Rst()])]},
        meaning_at(phase, None),
    )


def hanging(dice: random.Random) -> Fault:
    """One transaction that comes to no end at a step."""
    phase = dice.choice(STEPS)
    kept = [Keep()] if phase is Phase.DOT and dice.random() < 0.5 else []
    part: list[Action] = dice.choice([[], [Drip(reply(dice, 2).octets)], [*_part(dice)]])
    return Fault(f"{phase}: hangs", {phase: [*kept, *part, Hold()]}, meaning_at(phase, None), hangs=True)


def _part(dice: random.Random) -> list[Say]:
    """A reply without its last octets, or what is no reply."""
    roll = dice.random()
    if roll < 0.3:
        return []
    if roll < 0.7:
        octets = reply(dice, dice.choice([2, 3, 4, 5])).octets
        last = octets.rstrip(b"\r\n").rfind(b"\n") + 1  # where its last line begins
        return [Say(octets[: dice.randrange(last, len(octets) - 1)].rstrip(b"\r"))]
    return [Say(b"!" + _words(dice) + b"\r\n")]
