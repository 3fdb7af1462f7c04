"""The one table of states and transitions. Triggers, docs and tests are held against it.

             insert          approve           claim            complete
(drafter) ----------> pending -------> approved ------> executing -------> completed
                         |   |            |  ^              |
                  reject |   | fail       |  |    defer     | fail, settle, refuse,
                         v   v            |  +--------------+ expire, cancel
                  rejected  failed        v                 v
                      expired, cancelled      failed, refused, expired, cancelled
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a draft is."""

    PENDING = "pending"
    APPROVED = "approved"
    EXECUTING = "executing"
    COMPLETED = "completed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REFUSED = "refused"


class Phase(StrEnum):
    """How far an attempt got. Only one that ends at GAP is in doubt."""

    CLAIMED = "claimed"
    GAP = "gap"
    DONE = "done"


class Outcome(StrEnum):
    """How a finished attempt is stored."""

    ACCEPTED = "accepted"
    REFUSED_TRANSIENT = "refused_transient"
    REFUSED_PERMANENT = "refused_permanent"
    NOT_SENT = "not_sent"
    IN_DOUBT = "in_doubt"


POSSIBLY_SENT = frozenset({Outcome.ACCEPTED, Outcome.IN_DOUBT})  # with any other outcome an attempt handed nothing over


class Settled(StrEnum):
    """How a person decided about an attempt that was left at executing."""

    SENT = "sent"
    NOT_SENT = "not_sent"
    RELEASED = "released"


class Verb(StrEnum):
    """What moves a draft."""

    INSERT = "insert"
    APPROVE = "approve"
    REJECT = "reject"
    EXPIRE = "expire"
    CANCEL = "cancel"
    FAIL = "fail"
    CLAIM = "claim"
    REFUSE = "refuse"
    COMPLETE = "complete"
    DEFER = "defer"
    SETTLE = "settle"


class Room(StrEnum):
    """Who may walk an edge."""

    DRAFTER = "drafter"
    INBOX = "inbox"
    WORKER = "worker"
    OPERATOR = "operator"


class Gate(StrEnum):
    """Which thermal cutout a transmission counts for: people's mail, or the outbox's own."""

    MAIL = "mail"
    SYSTEM = "system"


SYSTEM_KIND = "system"
FINAL = frozenset({State.COMPLETED, State.REJECTED, State.EXPIRED, State.CANCELLED, State.FAILED, State.REFUSED})


@dataclass(frozen=True, slots=True)
class Edge:
    """One permitted transition; `source` is None for a birth."""

    source: State | None
    verb: Verb
    target: State
    rooms: frozenset[Room]


def _edge(source: State | None, verb: Verb, target: State, *rooms: Room) -> Edge:
    return Edge(source, verb, target, frozenset(rooms))


EDGES: tuple[Edge, ...] = (
    _edge(None, Verb.INSERT, State.PENDING, Room.DRAFTER, Room.OPERATOR),  # the operator: redraft
    _edge(None, Verb.INSERT, State.APPROVED, Room.INBOX, Room.WORKER, Room.OPERATOR),  # kind system only
    _edge(State.PENDING, Verb.APPROVE, State.APPROVED, Room.INBOX, Room.OPERATOR),
    _edge(State.PENDING, Verb.REJECT, State.REJECTED, Room.INBOX, Room.OPERATOR),
    _edge(State.PENDING, Verb.EXPIRE, State.EXPIRED, Room.INBOX, Room.WORKER),
    _edge(State.PENDING, Verb.FAIL, State.FAILED, Room.INBOX),
    _edge(State.PENDING, Verb.CANCEL, State.CANCELLED, Room.DRAFTER, Room.INBOX, Room.OPERATOR),
    _edge(State.APPROVED, Verb.CANCEL, State.CANCELLED, Room.DRAFTER, Room.INBOX, Room.OPERATOR),
    _edge(State.APPROVED, Verb.EXPIRE, State.EXPIRED, Room.INBOX, Room.WORKER),
    _edge(State.APPROVED, Verb.CLAIM, State.EXECUTING, Room.WORKER, Room.OPERATOR),
    _edge(State.EXECUTING, Verb.FAIL, State.FAILED, Room.WORKER),
    _edge(State.EXECUTING, Verb.REFUSE, State.REFUSED, Room.WORKER),
    _edge(State.EXECUTING, Verb.EXPIRE, State.EXPIRED, Room.WORKER),
    _edge(State.EXECUTING, Verb.CANCEL, State.CANCELLED, Room.WORKER),
    _edge(State.EXECUTING, Verb.COMPLETE, State.COMPLETED, Room.WORKER, Room.OPERATOR),
    _edge(State.EXECUTING, Verb.SETTLE, State.FAILED, Room.OPERATOR),
    _edge(State.EXECUTING, Verb.DEFER, State.APPROVED, Room.WORKER, Room.OPERATOR),
)

_BY_SOURCE_AND_VERB = {(edge.source, edge.verb): edge for edge in EDGES if edge.source is not None}


def edge_from(source: State, verb: Verb) -> Edge:
    """The edge that `verb` walks from `source`; KeyError where there is none."""
    return _BY_SOURCE_AND_VERB[source, verb]


def targets(source: State) -> tuple[State, ...]:
    """Every state that can follow `source`, in the table's order, each once."""
    return tuple(dict.fromkeys(edge.target for edge in EDGES if edge.source is source))
