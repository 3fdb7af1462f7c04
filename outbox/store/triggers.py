"""The guards in the database, as they are now. A test compares what the migrations make with every word of this.

They refuse what the program would not do, so that a bug or a hand at the SQL prompt cannot make a draft leave twice.
They do not stop a thief of the file; the signatures do.
"""

from __future__ import annotations

from outbox.core.lifecycle import FINAL, State, targets
from outbox.store.schema import quoted

SIGNED_COLUMNS = (
    "id", "kind", "agent", "envelope", "subject", "message_id", "thread_references", "digest", "fingerprint",
    "signature", "key_id", "idempotency_key", "about", "created_at", "expires_at",
)  # fmt: skip
_FROZEN_ATTEMPT = ("id", "draft_id", "worker_id", "gate", "started_at")


def _trigger(name: str, event: str, table: str, condition: str | None, refusal: str) -> str:
    when = f"\nWHEN {condition}" if condition else ""
    return f"CREATE TRIGGER {name} BEFORE {event} ON {table}{when}\nBEGIN SELECT RAISE(ABORT, 'outbox: {refusal}'); END"


def _edge_condition() -> str:
    allowed = " OR ".join(
        f"(OLD.state = '{source}' AND NEW.state IN ({quoted(targets(source))}))" for source in State if targets(source)
    )
    return f"NEW.state <> OLD.state AND NOT ({allowed})"


def _frozen(table: str, columns: tuple[str, ...] = ()) -> str:
    of = f" OF {', '.join(columns)}" if columns else ""
    return _trigger(f"{table}_frozen", f"UPDATE{of}", table, None, f"this part of {table} never changes")


def _kept(table: str) -> str:
    return _trigger(f"{table}_kept", "DELETE", table, None, f"{table} are never deleted")


_FINAL_STATES = quoted(state for state in State if state in FINAL)
_POSSIBLY_SENT = "(phase <> 'done' OR outcome IN ('accepted', 'in_doubt'))"
TRIGGERS: tuple[str, ...] = (
    _trigger(
        "drafts_birth",
        "INSERT",
        "drafts",
        "NOT ((NEW.kind <> 'system' AND NEW.state = 'pending') OR (NEW.kind = 'system' AND NEW.state = 'approved'))",
        "a draft is born pending, a system draft approved",
    ),
    _trigger("drafts_edges", "UPDATE OF state", "drafts", _edge_condition(), "there is no such transition"),
    _trigger(
        "drafts_grant",
        "UPDATE OF state",
        "drafts",
        "OLD.state = 'pending' AND NEW.state = 'approved' "
        "AND NOT EXISTS (SELECT 1 FROM grants WHERE draft_id = NEW.id)",
        "approval needs a grant",
    ),
    _trigger(
        "drafts_rejection",
        "UPDATE OF state",
        "drafts",
        "NEW.state = 'rejected' AND NOT EXISTS (SELECT 1 FROM rejections WHERE draft_id = NEW.id)",
        "a rejection needs its reason",
    ),
    _trigger(
        "drafts_release",
        "UPDATE OF state",
        "drafts",
        "OLD.state = 'executing' AND NEW.state IN ('approved', 'cancelled', 'expired', 'refused') "
        f"AND EXISTS (SELECT 1 FROM attempts WHERE draft_id = NEW.id AND {_POSSIBLY_SENT})",
        "an attempt is open or may have sent it",
    ),
    _trigger(
        "drafts_failure",
        "UPDATE OF state",
        "drafts",
        "OLD.state = 'executing' AND NEW.state = 'failed' "
        "AND EXISTS (SELECT 1 FROM attempts WHERE draft_id = NEW.id AND (phase <> 'done' OR (outcome = 'in_doubt' "
        "AND NEW.kind <> 'system' AND NOT EXISTS (SELECT 1 FROM settlements WHERE attempt_id = attempts.id "
        "AND settled_as = 'not_sent'))))",
        "an attempt is still open, or in doubt and not settled as not sent",
    ),
    _trigger(
        "drafts_completion",
        "UPDATE OF state",
        "drafts",
        "NEW.state = 'completed' AND NOT EXISTS (SELECT 1 FROM attempts WHERE id = NEW.attempt_id "
        "AND draft_id = NEW.id AND phase = 'done' AND (outcome = 'accepted' OR (outcome = 'in_doubt' AND EXISTS "
        "(SELECT 1 FROM settlements WHERE attempt_id = attempts.id AND settled_as = 'sent'))))",
        "completion needs an attempt that was accepted, or settled as sent",
    ),
    _trigger(
        "drafts_final",
        "UPDATE",
        "drafts",
        f"OLD.state IN ({_FINAL_STATES})",
        "a final draft never changes",
    ),
    _trigger(
        "drafts_stop",
        "UPDATE OF stop_asked_at",
        "drafts",
        "OLD.stop_asked_at IS NOT NULL AND NEW.stop_asked_at IS NOT OLD.stop_asked_at",
        "a stop cannot be taken back",
    ),
    _frozen("drafts", SIGNED_COLUMNS),
    _kept("drafts"),
    _frozen("messages"),
    _trigger(
        "messages_kept",
        "DELETE",
        "messages",
        f"(SELECT state FROM drafts WHERE id = OLD.draft_id) NOT IN ({_FINAL_STATES})",
        "the octets of a live draft are never deleted",
    ),
    _frozen("requests", ("id", "draft_id", "approver", "digest", "carrier_id", "ask", "created_at", "expires_at")),
    _trigger(
        "requests_spent",
        "UPDATE OF spent_at",
        "requests",
        "OLD.spent_at IS NOT NULL",
        "a reply token is spent once",
    ),
    _kept("requests"),
    _frozen("grants"),
    _kept("grants"),
    _frozen("rejections"),
    _kept("rejections"),
    _trigger(
        "attempts_birth",
        "INSERT",
        "attempts",
        "NEW.phase <> 'claimed' OR EXISTS (SELECT 1 FROM attempts WHERE id = NEW.id) OR NOT EXISTS "
        "(SELECT 1 FROM drafts WHERE id = NEW.draft_id AND state = 'executing' AND attempt_id = NEW.id)",
        "an attempt begins with its claim",
    ),
    _trigger(
        "attempts_phases",
        "UPDATE OF phase",
        "attempts",
        "NEW.phase <> OLD.phase AND NOT ((OLD.phase = 'claimed' AND NEW.phase IN ('gap', 'done')) "
        "OR (OLD.phase = 'gap' AND NEW.phase = 'done'))",
        "phases only go forward",
    ),
    _trigger(
        "attempts_gap_guard",
        "UPDATE OF phase",
        "attempts",
        "OLD.phase = 'claimed' AND NEW.phase = 'gap' AND (NOT EXISTS (SELECT 1 FROM drafts WHERE id = NEW.draft_id "
        "AND state = 'executing' AND attempt_id = NEW.id AND stop_asked_at IS NULL AND expires_at > NEW.gap_at) "
        "OR EXISTS (SELECT 1 FROM pause WHERE paused_at IS NOT NULL)) AND NOT EXISTS (SELECT 1 FROM evidence "
        "WHERE attempt_id = NEW.id AND (found = 1 OR source = 'ledger'))",
        "the gap is entered only for a draft that may still be sent",
    ),
    _trigger(
        "attempts_gap_once",
        "UPDATE OF gap_at, wire_digest",
        "attempts",
        "OLD.gap_at IS NOT NULL OR NEW.phase <> 'gap'",
        "the gap is entered once",
    ),
    _trigger("attempts_finished", "UPDATE", "attempts", "OLD.phase = 'done'", "a finished attempt never changes"),
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
    _trigger(
        "identity_one",
        "INSERT",
        "identity",
        "EXISTS (SELECT 1 FROM identity)",
        "a database has one identity",
    ),
    _frozen("identity"),
    _kept("identity"),
    _frozen("tellings", ("draft_id", "approver", "request_id")),
    _trigger(
        "tellings_once",
        "UPDATE",
        "tellings",
        "OLD.told_at IS NOT NULL OR (OLD.reminded_at IS NOT NULL AND NEW.reminded_at IS NOT OLD.reminded_at)",
        "an approver is told once",
    ),
    _kept("tellings"),
    _frozen("journal"),
    _kept("journal"),
    _trigger(
        "workers_ended",
        "UPDATE",
        "workers",
        "OLD.ended_at IS NOT NULL OR NEW.id <> OLD.id OR NEW.started_at <> OLD.started_at",
        "a worker ends once",
    ),
    _kept("workers"),
)
