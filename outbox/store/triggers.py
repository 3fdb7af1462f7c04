"""The guards in the database, as they are now. A test compares what the migrations make with every word of this.

Each is said once, in words that SQLite and PostgreSQL share; how each of them has it, its own module says.
They refuse what the program would not do, so that a bug or a hand at the SQL prompt cannot make a draft leave twice.
They do not stop a thief of the file; the signatures do.
"""

from __future__ import annotations

from dataclasses import dataclass

from outbox.core.lifecycle import FINAL, State, targets
from outbox.store.schema import quoted

SIGNED_COLUMNS = (
    "id", "kind", "agent", "envelope", "subject", "message_id", "thread_references", "digest", "fingerprint",
    "signature", "key_id", "idempotency_key", "about", "created_at", "expires_at",
)  # fmt: skip
_FROZEN_ATTEMPT = ("id", "draft_id", "worker_id", "gate", "started_at")


@dataclass(frozen=True, slots=True)
class Guard:
    """Before an event on a row of `table`: refuse it where `when` is true of the row and `lookup` of other rows.

    `held` is a row that no other transaction may change meanwhile: on PostgreSQL several write at once.
    """

    name: str
    event: str
    table: str
    refusal: str
    when: str | None = None
    lookup: str | None = None
    held: str | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """After an event on a row of `table`: where `when` is true of it, count it in a row of another."""

    name: str
    event: str
    table: str
    counted_in: str
    column: str
    where: str
    when: str | None = None
    is_sharded: bool = False


def in_sqlite(rule: Guard | Count) -> str:
    """The trigger as SQLite has it."""
    conditions = [one for one in (rule.when, rule.lookup if isinstance(rule, Guard) else None) if one]
    when = f"\nWHEN {' AND '.join(conditions)}" if conditions else ""
    if isinstance(rule, Guard):
        moment, does = "BEFORE", f"SELECT RAISE(ABORT, 'outbox: {rule.refusal}')"
    else:
        where = f"{rule.where} AND shard = 0" if rule.is_sharded else rule.where
        moment = "AFTER"
        does = f"UPDATE {rule.counted_in} SET {rule.column} = {rule.column} + 1 WHERE {where}"
    return f"CREATE TRIGGER {rule.name} {moment} {rule.event} ON {rule.table}{when}\nBEGIN {does}; END"


def _edge_condition() -> str:
    allowed = " OR ".join(
        f"(OLD.state = '{source}' AND NEW.state IN ({quoted(targets(source))}))" for source in State if targets(source)
    )
    return f"NEW.state <> OLD.state AND NOT ({allowed})"


def _frozen(table: str, columns: tuple[str, ...] = ()) -> Guard:
    of = f" OF {', '.join(columns)}" if columns else ""
    return Guard(f"{table}_frozen", f"UPDATE{of}", table, f"this part of {table} never changes")


def _kept(table: str) -> Guard:
    return Guard(f"{table}_kept", "DELETE", table, f"{table} are never deleted")


_FINAL_STATES = quoted(state for state in State if state in FINAL)
_POSSIBLY_SENT = "(phase <> 'done' OR outcome IN ('accepted', 'in_doubt'))"
RULES: tuple[Guard | Count, ...] = (
    Guard(
        "drafts_birth",
        "INSERT",
        "drafts",
        "a draft is born pending, a system draft approved",
        "NOT ((NEW.kind <> 'system' AND NEW.state = 'pending') OR (NEW.kind = 'system' AND NEW.state = 'approved'))",
    ),
    Guard("drafts_edges", "UPDATE OF state", "drafts", "there is no such transition", _edge_condition()),
    Guard(
        "drafts_grant",
        "UPDATE OF state",
        "drafts",
        "approval needs a grant",
        "OLD.state = 'pending' AND NEW.state = 'approved'",
        "NOT EXISTS (SELECT 1 FROM grants WHERE draft_id = NEW.id)",
    ),
    Guard(
        "drafts_rejection",
        "UPDATE OF state",
        "drafts",
        "a rejection needs its reason",
        "NEW.state = 'rejected'",
        "NOT EXISTS (SELECT 1 FROM rejections WHERE draft_id = NEW.id)",
    ),
    Guard(
        "drafts_release",
        "UPDATE OF state",
        "drafts",
        "an attempt is open or may have sent it",
        "OLD.state = 'executing' AND NEW.state IN ('approved', 'cancelled', 'expired', 'refused')",
        f"EXISTS (SELECT 1 FROM attempts WHERE draft_id = NEW.id AND {_POSSIBLY_SENT})",
    ),
    Guard(
        "drafts_failure",
        "UPDATE OF state",
        "drafts",
        "an attempt is still open, or in doubt and not settled as not sent",
        "OLD.state = 'executing' AND NEW.state = 'failed'",
        "EXISTS (SELECT 1 FROM attempts WHERE draft_id = NEW.id AND (phase <> 'done' OR (outcome = 'in_doubt' "
        "AND NEW.kind <> 'system' AND NOT EXISTS (SELECT 1 FROM settlements WHERE attempt_id = attempts.id "
        "AND settled_as = 'not_sent'))))",
    ),
    Guard(
        "drafts_completion",
        "UPDATE OF state",
        "drafts",
        "completion needs an attempt that was accepted, or settled as sent",
        "NEW.state = 'completed'",
        "NOT EXISTS (SELECT 1 FROM attempts WHERE id = NEW.attempt_id "
        "AND draft_id = NEW.id AND phase = 'done' AND (outcome = 'accepted' OR (outcome = 'in_doubt' AND EXISTS "
        "(SELECT 1 FROM settlements WHERE attempt_id = attempts.id AND settled_as = 'sent'))))",
    ),
    Guard("drafts_final", "UPDATE", "drafts", "a final draft never changes", f"OLD.state IN ({_FINAL_STATES})"),
    Guard(
        "drafts_stop",
        "UPDATE OF stop_asked_at",
        "drafts",
        "a stop cannot be taken back",
        "OLD.stop_asked_at IS NOT NULL AND NEW.stop_asked_at IS NOT OLD.stop_asked_at",
    ),
    _frozen("drafts", SIGNED_COLUMNS),
    _kept("drafts"),
    _frozen("messages"),
    Guard(
        "messages_kept",
        "DELETE",
        "messages",
        "the octets of a live draft are never deleted",
        lookup=f"(SELECT state FROM drafts WHERE id = OLD.draft_id) NOT IN ({_FINAL_STATES})",
    ),
    _frozen("requests", ("id", "draft_id", "approver", "digest", "carrier_id", "ask", "created_at", "expires_at")),
    Guard(
        "requests_spent",
        "UPDATE OF spent_at",
        "requests",
        "a reply token is spent once",
        "OLD.spent_at IS NOT NULL",
    ),
    _kept("requests"),
    _frozen("grants"),
    _kept("grants"),
    _frozen("rejections"),
    _kept("rejections"),
    Guard(
        "attempts_birth",
        "INSERT",
        "attempts",
        "an attempt begins with its claim",
        lookup="NEW.phase <> 'claimed' OR EXISTS (SELECT 1 FROM attempts WHERE id = NEW.id) OR NOT EXISTS "
        "(SELECT 1 FROM drafts WHERE id = NEW.draft_id AND state = 'executing' AND attempt_id = NEW.id)",
    ),
    Guard(
        "attempts_phases",
        "UPDATE OF phase",
        "attempts",
        "phases only go forward",
        "NEW.phase <> OLD.phase AND NOT ((OLD.phase = 'claimed' AND NEW.phase IN ('gap', 'done')) "
        "OR (OLD.phase = 'gap' AND NEW.phase = 'done'))",
    ),
    Guard(
        "attempts_gap_guard",
        "UPDATE OF phase",
        "attempts",
        "the gap is entered only for a draft that may still be sent",
        "OLD.phase = 'claimed' AND NEW.phase = 'gap'",
        "(NOT EXISTS (SELECT 1 FROM drafts WHERE id = NEW.draft_id "
        "AND state = 'executing' AND attempt_id = NEW.id AND stop_asked_at IS NULL AND expires_at > NEW.gap_at) "
        "OR EXISTS (SELECT 1 FROM pause WHERE paused_at IS NOT NULL)) AND NOT EXISTS (SELECT 1 FROM evidence "
        "WHERE attempt_id = NEW.id AND (found = 1 OR source = 'ledger'))",
        held="FROM drafts WHERE id = NEW.draft_id",
    ),
    Guard(
        "attempts_gap_once",
        "UPDATE OF gap_at, wire_digest",
        "attempts",
        "the gap is entered once",
        "OLD.gap_at IS NOT NULL OR NEW.phase <> 'gap'",
    ),
    Guard("attempts_finished", "UPDATE", "attempts", "a finished attempt never changes", "OLD.phase = 'done'"),
    _frozen("attempts", _FROZEN_ATTEMPT),
    _kept("attempts"),
    _frozen("recipients"),
    _kept("recipients"),
    _frozen("replies"),
    _kept("replies"),
    _frozen("resubmissions"),
    _kept("resubmissions"),
    _frozen("proofs"),
    _kept("proofs"),
    _frozen("seen_signatures"),
    _kept("seen_signatures"),
    _frozen("codes"),
    _kept("codes"),
    _frozen("wrong_codes"),
    _kept("wrong_codes"),
    _frozen("signed_replies"),
    _kept("signed_replies"),
    _frozen("evidence"),
    _kept("evidence"),
    _frozen("settlements"),
    _kept("settlements"),
    _kept("pause"),
    _kept("clock"),
    Guard(
        "identity_one",
        "INSERT",
        "identity",
        "a database has one identity",
        lookup="EXISTS (SELECT 1 FROM identity)",
    ),
    _frozen("identity"),
    _kept("identity"),
    _frozen("tellings", ("draft_id", "approver", "request_id")),
    Guard(
        "tellings_once",
        "UPDATE",
        "tellings",
        "an approver is told once",
        "OLD.told_at IS NOT NULL OR (OLD.reminded_at IS NOT NULL AND NEW.reminded_at IS NOT OLD.reminded_at)",
    ),
    _kept("tellings"),
    _frozen("journal"),
    _kept("journal"),
    Guard(
        "workers_ended",
        "UPDATE",
        "workers",
        "a worker ends once",
        "OLD.ended_at IS NOT NULL OR NEW.id <> OLD.id OR NEW.started_at <> OLD.started_at",
    ),
    _kept("workers"),
    # Counts: nothing reads all of history to say how much there is.
    Count(
        "drafts_counted",
        "UPDATE OF state",
        "drafts",
        "counters",
        "n",
        "state = NEW.state",
        f"NEW.state IN ({_FINAL_STATES}) AND NEW.kind <> 'system'",
        is_sharded=True,
    ),
    Count("attempts_counted", "INSERT", "attempts", "gate", "claims", "name = NEW.gate"),
    _kept("counters"),
    Guard("gate_claims", "UPDATE OF claims", "gate", "what was claimed stays counted", "NEW.claims < OLD.claims"),
    _kept("gate"),
)
TRIGGERS = tuple(in_sqlite(rule) for rule in RULES)
