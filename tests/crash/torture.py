"""What a fault run needs: a relay that keeps the truth, a load of drafts, and the rows judged by that truth."""

from __future__ import annotations

import hashlib
import json
import socketserver
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path
from types import TracebackType
from typing import Self

from outbox import drafter, inbox, operator
from outbox.clock import wall
from outbox.drafter.intake import Wanted
from tests.crash.faults_table import Tally
from tests.crash.held_relay import Moment
from tests.crash.journals import assert_the_journal_holds
from tests.crash.shimmed import BOUND, Child, Zygote
from tests.house import JANE, SALES, House
from tests.relay.recording import RecordingRelay

GREY = "grey@customer.example"  # 451 to the first final dot of each draft
BUSY = "busy@customer.example"  # 451 to every other RCPT
GONE = "gone@customer.example"  # 550 to every RCPT


@dataclass(frozen=True, slots=True)
class Taken:
    """One message that the relay took responsibility for: its draft, None where it names none, and its digest."""

    draft_id: str | None
    digest: bytes


@dataclass
class TruthRelay:
    """Knows what it accepted, decided before it answers. Recipients of the load get the answers named above.

    The first connection with a message to `held_for` waits at DATA and, once its message is taken, before the reply.
    """

    taken: list[Taken] = field(default_factory=list)
    held_for: str | None = None
    at_data: Moment = field(default_factory=Moment)
    at_dot: Moment = field(default_factory=Moment)
    _is_holding: bool = False
    _grey: set[str | None] = field(default_factory=set)
    _busy: int = 0
    _talking: int = 0

    def __enter__(self) -> Self:
        relay = self
        self._turn = threading.Condition()

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with relay._turn:
                    relay._talking += 1
                try:
                    relay._converse(self)
                except OSError:  # the worker was killed
                    pass
                finally:
                    with relay._turn:
                        relay._talking -= 1
                        relay._turn.notify_all()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Session)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(BOUND)
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def settle(self) -> None:
        """Wait until every connection is over: what a dead worker wrote may still have been on its way."""
        with self._turn:
            assert self._turn.wait_for(lambda: self._talking == 0, BOUND), "a connection to the relay stays open"

    def wait_until_taken(self, number: int, bound: float = BOUND) -> bool:
        """Whether so many messages are accepted in time."""
        with self._turn:
            return self._turn.wait_for(lambda: len(self.taken) >= number, bound)

    def _converse(self, session: socketserver.StreamRequestHandler) -> None:
        recipients: list[str] = []
        session.wfile.write(b"220 relay.example ESMTP\r\n")
        while line := session.rfile.readline():
            verb = line[:4].upper()
            answer = b"250 2.0.0 Ok"
            if verb == b"EHLO":
                answer = b"250-relay.example\r\n250 8BITMIME"
            elif verb == b"MAIL":
                recipients = []
            elif verb == b"RCPT":
                answer = self._recipient(line.decode().split("<", 1)[1].split(">", 1)[0], recipients)
            elif verb == b"DATA":
                is_held = self._is_first_held(recipients)
                if is_held:
                    self.at_data.pass_by()
                session.wfile.write(b"354 Go ahead\r\n")
                octets = _message(session)
                if octets is None:
                    return
                answer = self._dot(octets, recipients)
                if is_held:
                    self.at_dot.pass_by()
            elif verb == b"QUIT":
                session.wfile.write(b"221 2.0.0 Bye\r\n")
                return
            session.wfile.write(answer + b"\r\n")

    def _is_first_held(self, recipients: list[str]) -> bool:
        with self._turn:
            is_first = self.held_for in recipients and not self._is_holding
            self._is_holding = self._is_holding or is_first
        return is_first

    def _recipient(self, address: str, recipients: list[str]) -> bytes:
        if address == GONE:
            return b"550 5.1.1 No such customer"
        if address == BUSY:
            with self._turn:
                self._busy += 1
                if self._busy % 2:
                    return b"451 4.3.0 Busy"
        recipients.append(address)
        return b"250 2.1.5 Ok"

    def _dot(self, octets: bytes, recipients: list[str]) -> bytes:
        named = message_from_bytes(octets).get("X-Outbox-Draft")
        with self._turn:
            if GREY in recipients and named not in self._grey:
                self._grey.add(named)
                return b"451 4.7.1 Greylisted"
            self.taken.append(Taken(named, hashlib.sha256(octets).digest()))
            self._turn.notify_all()
            return f"250 2.0.0 Ok: queued as {len(self.taken):06X}".encode()


def _message(session: socketserver.StreamRequestHandler) -> bytes | None:
    """The octets before the final dot; None where it never came."""
    lines = []
    while line := session.rfile.readline():
        if line == b".\r\n":
            return b"".join(lines)
        lines.append(line.removeprefix(b"."))
    return None


# A house under load


@dataclass(slots=True)
class Load:
    """A house whose relay keeps the truth, and the faults that were done to its workers."""

    house: House
    relay: TruthRelay
    faults: int = 0
    broken: list[str] = field(default_factory=list)  # what no fault excuses

    @classmethod
    def build(cls, folder: Path, relay: TruthRelay, *, lanes: int = 1) -> Load:
        folder.mkdir(parents=True, exist_ok=True)
        house = House.build(folder, RecordingRelay(port=relay.port))
        house.set("relay", retry="[0]", lanes=str(lanes), timeout="1", final_timeout="1")
        house.set("thermal", count="1000000")
        house.set("thermal.system", count="1000000")
        return cls(house, relay)

    def approve(self, number: int, recipient: str) -> None:
        """Draft and approve so many messages to one recipient."""
        ids = self.draft(number, recipient)
        with operator.open(self.house.settings, clock=wall) as desk:
            for draft_id in ids:
                desk.approve(draft_id, named=None)

    def draft(self, number: int, recipient: str) -> list[str]:
        """Draft so many messages to one recipient; their ids."""
        with drafter.open(self.house.settings, clock=wall) as room:
            wanted = Wanted(sender=SALES, to=(recipient,), subject="Offer", text="Dear customer,\n\nhere it is.")
            return [room.draft(wanted).draft.id for _ in range(number)]

    def ask(self, number: int) -> None:
        """Draft so many messages and ask for them: as many system drafts, each with a token of its own."""
        self.draft(number, JANE)
        with inbox.open(self.house.settings, clock=wall) as room:
            room.once()

    def due(self) -> int:
        """How many drafts could be sent now, or could once their dead worker is found."""
        query = (
            "SELECT count(*) FROM drafts WHERE state IN ('approved', 'executing') AND not_before <= ? AND id NOT IN ("
        )
        in_gap = "SELECT draft_id FROM attempts WHERE phase = 'gap' OR outcome = 'in_doubt')"
        ((found,),) = self.house.rows(query + in_gap, wall())
        return int(str(found))

    def note(self, child: Child, *, expected: Iterable[int] = (0,), where: str = "") -> int:
        """Wait for its end, and keep what a worker must not do, whatever was done to it. Returns its exit code."""
        code = child.wait()
        if code not in expected or "Traceback" in child.said:
            self.broken.append(f"{where}: a worker ended with {code}: {child.said[-2000:]}")
        times = Counter(taken.draft_id for taken in self.relay.taken)
        self.broken += [f"{where}: {key} was sent {n} times" for key, n in times.items() if n > 1]
        return code

    def cases(self, zygote: Zygote) -> dict[str, str]:
        """What `outbox reconcile` finds, by draft at executing."""
        child = zygote.start(self.house.folder, "reconcile", "--json")
        self.note(child, where="reconcile")
        told = [json.loads(line) for line in child.printed.splitlines()]
        return {case["id"]: case["finding"] for case in told}

    def judged(self, name: str, zygote: Zygote, *, waiting: int = 0) -> tuple[Tally, list[str]]:
        """The table's row, and every breach of the promise.

        All workers have ended, and the last had nothing left to do but for so many drafts that the cutout holds.
        """
        self.relay.settle()
        states = {str(key): (str(state), code) for key, state, code in self.house.rows(_DRAFTS)}
        attempts = self.house.rows("SELECT draft_id, phase, outcome, gap_at, wire_digest FROM attempts")
        doubtful = {str(row[0]) for row in attempts if _is_doubtful(row)}
        times = Counter(taken.draft_id for taken in self.relay.taken)
        lost = _lost(states, doubtful)
        tally = Tally(
            name,
            faults=self.faults,
            messages=len(states),
            accepted=len(self.relay.taken),
            duplicates=sum(number - 1 for number in times.values()),
            in_doubt=len(doubtful),
            provably_unsent=sum(row[2] in _UNSENT for row in attempts),
            lost=max(0, len(lost) - waiting),
        )
        breaches = [
            *self.broken,
            *(f"the relay took draft {key} {number} times" for key, number in times.items() if number > 1),
            *(f"the relay took what is no draft: {key}" for key in times if key not in states),
            *_told_wrongly(self.relay.taken, attempts),
            *(f"{row[0]} is in doubt without a gap" for row in attempts if _is_doubtful(row) and row[3] is None),
            *_sent_otherwise(states, set(times), doubtful),
            *_found_otherwise(states, set(times), self.cases(zygote)),
            *(lost if len(lost) != waiting else ()),
        ]
        assert_the_journal_holds(self.house)
        return tally, breaches


_DRAFTS = "SELECT id, state, error_code FROM drafts"
_UNSENT = {"not_sent", "refused_transient", "refused_permanent"}
States = dict[str, tuple[str, object]]  # state and error code by draft


def _is_doubtful(row: tuple[object, ...]) -> bool:
    return row[1] == "gap" or row[2] == "in_doubt"


def _told_wrongly(taken: Iterable[Taken], attempts: list[tuple[object, ...]]) -> list[str]:
    """What the relay took, and no attempt says that it took or may have: a wrong claim of "provably not sent"."""
    may_be = {(row[0], row[4]) for row in attempts if _is_doubtful(row) or row[2] == "accepted"}
    return [
        f"draft {one.draft_id} was sent and its attempt says it was not"
        for one in taken
        if (one.draft_id, one.digest) not in may_be
    ]


def _sent_otherwise(states: States, sent: set[str | None], doubtful: set[str]) -> Iterator[str]:
    """Completed is what the relay took; what it took and is not completed is in doubt."""
    for key, (state, _) in states.items():
        if state == "completed" and key not in sent:
            yield f"draft {key} is completed and was never sent"
        if state != "completed" and key in sent and key not in doubtful:
            yield f"draft {key} is {state}, was sent and is not in doubt"


def _found_otherwise(states: States, sent: set[str | None], cases: dict[str, str]) -> Iterator[str]:
    """The desk shows every draft at executing, and says "not sent" of none that the relay took."""
    if cases.keys() != {key for key, (state, _) in states.items() if state == "executing"}:
        yield f"the desk shows {sorted(cases)}"
    for key, finding in cases.items():
        if finding == "not_sent" and key in sent:
            yield f"the desk says that draft {key} was not sent, and it was"


def _lost(states: States, doubtful: set[str]) -> list[str]:
    """Drafts that ended nowhere: neither sent, nor in doubt, nor failed with a reason, nor still to be approved."""
    return [
        f"draft {key} is lost: {state} {code}"
        for key, (state, code) in states.items()
        if not {"completed": True, "executing": key in doubtful, "failed": code, "pending": True}.get(state)
    ]
