"""Tables and indexes as they are now. A test compares what the migrations make with every word of this.

Instants are microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import SchemaItem

from outbox.core.lifecycle import FINAL, SYSTEM_KIND, Gate, Outcome, Phase, Settled, State
from outbox.store.dialect import Whole, Words
from outbox.store.looking import REVISION as REVISION  # noqa: PLC0414  whoever has SQLAlchemy takes it from here

metadata = MetaData()
Instant = Whole
MOST_ASKS = 3


def one_of(column: str, values: Iterable[str]) -> str:
    """A condition that `column` is one of `values`."""
    return f"{column} IN ({quoted(values)})"


def quoted(values: Iterable[str]) -> str:
    """Words of ours as SQL text, with commas between."""
    return ", ".join(f"'{value}'" for value in values)


def _table(name: str, *items: SchemaItem) -> Table:
    return Table(name, metadata, *items, sqlite_strict=True)


def _partial(name: str, *columns: Column[Any], where: str, unique: bool = False) -> None:
    """An index over some of a table's rows."""
    # The other database's words are in `info`: to name its option here would import its dialect at every start.
    Index(name, *columns, unique=unique, sqlite_where=text(where), info={"where": where})


# Final states but for the usual one, in words that the partial index and its queries share.
ENDED_UNSENT = one_of("state", (state for state in State if state in FINAL and state is not State.COMPLETED))

drafts = _table(
    "drafts",
    Column("id", Words, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("agent", Words, nullable=False),
    Column("envelope", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("message_id", Words, nullable=False),
    Column("thread_references", Words, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", Words, nullable=False),
    Column("idempotency_key", Words),
    Column("about", Words, ForeignKey("drafts.id")),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("state", Words, nullable=False),
    Column("not_before", Instant),
    Column("stop_asked_at", Instant),
    Column("attempt_id", Words, ForeignKey("attempts.id", deferrable=True, initially="DEFERRED", use_alter=True)),
    Column("error_code", Words),
    Column("error_message", Words),
    CheckConstraint(one_of("state", State), name="drafts_state"),
    CheckConstraint(
        "length(digest) = 32 AND length(fingerprint) = 32 AND length(signature) = 32", name="drafts_octets"
    ),
    CheckConstraint("expires_at > created_at", name="drafts_lifetime"),
    CheckConstraint("state NOT IN ('approved', 'executing', 'completed') OR not_before IS NOT NULL", name="drafts_due"),
    CheckConstraint("state NOT IN ('executing', 'completed', 'refused') OR attempt_id IS NOT NULL", name="drafts_held"),
    CheckConstraint("(error_code IS NULL) = (error_message IS NULL)", name="drafts_error"),
    CheckConstraint("state NOT IN ('failed', 'refused') OR error_code IS NOT NULL", name="drafts_reason"),
    CheckConstraint(f"about IS NULL OR kind = '{SYSTEM_KIND}'", name="drafts_about"),
    UniqueConstraint("agent", "idempotency_key", name="drafts_once"),
)
_partial("drafts_pending", drafts.c.id, where="state = 'pending'")
_partial("drafts_approved", drafts.c.not_before, where="state = 'approved' AND kind <> 'system'")
_partial("drafts_approved_system", drafts.c.not_before, where="state = 'approved' AND kind = 'system'")
_partial("drafts_executing", drafts.c.id, where="state = 'executing'")
_partial("drafts_expiring", drafts.c.expires_at, where="state IN ('pending', 'approved')")
Index("drafts_message_id", drafts.c.message_id)
_partial("drafts_of_draft", drafts.c.about, where="about IS NOT NULL")
_partial("drafts_rejected", drafts.c.fingerprint, where="state = 'rejected'")
_partial("drafts_attempt", drafts.c.attempt_id, where="attempt_id IS NOT NULL")  # else each claim reads all drafts
_partial("drafts_ended", drafts.c.state, drafts.c.id, where=ENDED_UNSENT)
_partial("drafts_failed", drafts.c.error_code, where="state = 'failed'")

messages = _table(
    "messages",
    Column("draft_id", Words, ForeignKey("drafts.id"), primary_key=True),
    Column("octets", LargeBinary, nullable=False),
)

requests = _table(
    "requests",
    Column("id", LargeBinary, primary_key=True),
    Column("draft_id", Words, ForeignKey("drafts.id"), nullable=False),
    Column("approver", Words, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("carrier_id", Words, ForeignKey("drafts.id"), nullable=False),
    Column("ask", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("spent_at", Instant),
    CheckConstraint("length(id) = 8 AND length(digest) = 32", name="requests_octets"),
    CheckConstraint(f"ask BETWEEN 1 AND {MOST_ASKS}", name="requests_ask"),
    UniqueConstraint("draft_id", "approver", "ask", name="requests_once"),
)

grants = _table(
    "grants",
    Column("id", Words, primary_key=True),
    Column("draft_id", Words, ForeignKey("drafts.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("approver", Words, nullable=False),
    Column("channel", Words, nullable=False),
    Column("at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", Words, nullable=False),
    CheckConstraint("length(digest) = 32 AND length(signature) = 32", name="grants_octets"),
    CheckConstraint(one_of("channel", ("reply", "terminal")), name="grants_channel"),
    UniqueConstraint("draft_id", "approver", name="grants_once"),
)

rejections = _table(
    "rejections",
    Column("draft_id", Words, ForeignKey("drafts.id"), primary_key=True),
    Column("approver", Words, nullable=False),
    Column("channel", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("at", Instant, nullable=False),
    CheckConstraint(one_of("channel", ("reply", "terminal")), name="rejections_channel"),
)

resubmissions = _table(  # signed: why a rejected text is drafted again
    "resubmissions",
    Column("draft_id", Words, ForeignKey("drafts.id"), primary_key=True),
    Column("reason", Words, nullable=False),
)

workers = _table(
    "workers",
    Column("id", Words, primary_key=True),
    Column("host", Words, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("ledger", Words),  # on a server: which, of those of several hosts,
    Column("visible", Integer, nullable=False, server_default=text("0")),  # and whether it holds one there
)
_partial("workers_living", workers.c.id, where="ended_at IS NULL")

attempts = _table(
    "attempts",
    Column("id", Words, primary_key=True),
    Column("draft_id", Words, ForeignKey("drafts.id"), nullable=False),
    Column("worker_id", Words, ForeignKey("workers.id"), nullable=False),
    Column("gate", Words, ForeignKey("gate.name"), nullable=False),
    Column("phase", Words, nullable=False),
    Column("outcome", Words),
    Column("code", Integer),
    Column("enhanced", Words),
    Column("text", Words),
    Column("queue_id", Words),
    Column("wire_digest", LargeBinary),
    Column("started_at", Instant, nullable=False),
    Column("gap_at", Instant),
    Column("ended_at", Instant),
    CheckConstraint(one_of("phase", Phase), name="attempts_phase"),
    CheckConstraint(one_of("outcome", Outcome), name="attempts_outcome"),
    CheckConstraint("(phase = 'done') = (outcome IS NOT NULL)", name="attempts_done"),
    CheckConstraint("(phase = 'done') = (ended_at IS NOT NULL)", name="attempts_ended"),
    CheckConstraint("(gap_at IS NULL) = (wire_digest IS NULL)", name="attempts_wire"),
    CheckConstraint("phase <> 'gap' OR gap_at IS NOT NULL", name="attempts_gap"),
    CheckConstraint("phase <> 'claimed' OR gap_at IS NULL", name="attempts_claimed"),
    CheckConstraint("outcome NOT IN ('accepted', 'in_doubt') OR gap_at IS NOT NULL", name="attempts_possibly_sent"),
)
_partial("attempts_open", attempts.c.draft_id, where="phase <> 'done'", unique=True)
_partial(
    "attempts_at_most_once",
    attempts.c.draft_id,
    where="phase = 'gap' OR outcome IN ('accepted', 'in_doubt')",
    unique=True,
)
_partial("attempts_heat", attempts.c.gate, attempts.c.gap_at, where="gap_at IS NOT NULL")
Index("attempts_of_draft", attempts.c.draft_id)

recipients = _table(
    "recipients",
    Column("attempt_id", Words, ForeignKey("attempts.id"), primary_key=True),
    Column("address", Words, primary_key=True),
    Column("code", Integer, nullable=False),
    Column("text", Words, nullable=False),
)

replies = _table(
    "replies",
    Column("id", Words, primary_key=True),
    Column("mailbox", Words, nullable=False),
    Column("uid", Words, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("sender", Words, nullable=False),
    Column("message_id", Words, nullable=False),
    Column("draft_id", Words, ForeignKey("drafts.id")),
    Column("verdict", Words, nullable=False),
    Column("counted", Integer, nullable=False),
    Column("why", Words, nullable=False),
    Column("answer_id", Words, ForeignKey("drafts.id")),
    CheckConstraint(one_of("verdict", ("approve", "reject", "cancel", "unclear")), name="replies_verdict"),
    CheckConstraint("counted IN (0, 1)", name="replies_counted"),
    UniqueConstraint("mailbox", "uid", name="replies_once"),
)
Index("replies_digest", replies.c.digest)
Index("replies_message_id", replies.c.message_id)
_partial("replies_answered", replies.c.draft_id, where="answer_id IS NOT NULL")
_partial("replies_counted", replies.c.draft_id, where="counted = 1")

proofs = _table(  # how it was known who wrote a reply that approved
    "proofs",
    Column("reply_id", Words, ForeignKey("replies.id"), primary_key=True),
    Column("approver", Words, nullable=False),
    Column("method", Words, nullable=False),
    Column("domain", Words, nullable=False),
    Column("selector", Words, nullable=False),
)

seen_signatures = _table(  # SHA-256 over what a DKIM signature covers: a signed reply is read once, however it is sent
    "seen_signatures",
    Column("digest", LargeBinary, primary_key=True),
    Column("reply_id", Words, ForeignKey("replies.id"), nullable=False),
)

codes = _table(  # one-time codes that were used; `step` counts 30 s of Unix time
    "codes",
    Column("approver", Words, primary_key=True),
    Column("step", Whole, primary_key=True),
    Column("reply_id", Words, ForeignKey("replies.id"), nullable=False),
)

wrong_codes = _table(
    "wrong_codes",
    Column("reply_id", Words, ForeignKey("replies.id"), primary_key=True),
    Column("draft_id", Words, ForeignKey("drafts.id"), nullable=False),
    Column("approver", Words, nullable=False),
)
Index("wrong_codes_of_approver", wrong_codes.c.approver)

tellings = _table(  # what an approver who was asked is still to be told: one reminder, one end
    "tellings",
    Column("draft_id", Words, ForeignKey("drafts.id"), primary_key=True),
    Column("approver", Words, primary_key=True),
    Column("request_id", LargeBinary, ForeignKey("requests.id"), nullable=False),
    Column("reminded_at", Instant),
    Column("told_at", Instant),
)
_partial("tellings_open", tellings.c.draft_id, where="told_at IS NULL")

signed_replies = _table(  # the raw reply that approved, and the DKIM key that its signature was verified with
    "signed_replies",
    Column("reply_id", Words, ForeignKey("replies.id"), primary_key=True),
    Column("octets", LargeBinary, nullable=False),
    Column("key_record", Words, nullable=False),
)

evidence = _table(  # what was found out about a draft after its attempt; `found` is NULL where it proves nothing
    "evidence",
    Column("id", Words, primary_key=True),
    Column("draft_id", Words, ForeignKey("drafts.id"), nullable=False),
    Column("attempt_id", Words, ForeignKey("attempts.id")),
    Column("source", Words, nullable=False),
    Column("found", Integer),
    Column("detail", Words, nullable=False),
    Column("octets", LargeBinary),
    Column("at", Instant, nullable=False),
    CheckConstraint("found IN (0, 1)", name="evidence_found"),
)
Index("evidence_of_draft", evidence.c.draft_id)

settlements = _table(  # who decided an attempt that was left at executing, and why
    "settlements",
    Column("attempt_id", Words, ForeignKey("attempts.id"), primary_key=True),
    Column("draft_id", Words, ForeignKey("drafts.id"), nullable=False),
    Column("settled_as", Words, nullable=False),
    Column("settled_by", Words, nullable=False),
    Column("note", Words, nullable=False),
    Column("at", Instant, nullable=False),
    CheckConstraint(one_of("settled_as", Settled), name="settlements_as"),
)
Index("settlements_of_draft", settlements.c.draft_id)

pause = _table(  # one row; nothing is claimed and no gap is entered while `paused_at` is there
    "pause",
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("paused_at", Instant),
    Column("reason", Words),
    Column("paused_by", Words),
    CheckConstraint("id = 1", name="pause_one"),
    CheckConstraint(
        "(paused_at IS NULL) = (reason IS NULL) AND (paused_at IS NULL) = (paused_by IS NULL)", name="pause_whole"
    ),
)

clock = _table(  # one row; what a clock that was ahead wrote after the one and up to the other says nothing
    "clock",
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("believed_at", Instant, nullable=False),
    Column("ignored_until", Instant, nullable=False),
    CheckConstraint("id = 1", name="clock_one"),
)

identity = _table(  # which database this is, and since when its gaps are in a ledger
    "identity",
    Column("id", Words, primary_key=True),
    Column("ledger_since", Instant, nullable=False),
)

gate = _table(
    "gate",
    Column("name", Words, primary_key=True),
    Column("tripped_at", Instant),
    Column("until", Instant),
    Column("claims", Whole, nullable=False, server_default=text("0")),  # attempts that ever began through it
    CheckConstraint(one_of("name", Gate), name="gate_name"),
    CheckConstraint("(tripped_at IS NULL) = (until IS NULL)", name="gate_tripped"),
)

counters = _table(  # how many drafts, the outbox's own left out, have ended in each final state
    "counters",
    Column("state", Words, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("n", Whole, nullable=False),
    CheckConstraint(one_of("state", (state for state in State if state in FINAL)), name="counters_state"),
)

journal = _table(
    "journal",
    Column("writer", Words, primary_key=True),
    Column("seq", Whole, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("action", Words, nullable=False),
    Column("draft_id", Words),
    Column("attempt_id", Words),
    Column("detail", Words, nullable=False),
    Column("key_id", Words, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    CheckConstraint("length(mac) = 32", name="journal_mac"),
)
Index("journal_of_draft", journal.c.draft_id)
