"""Tables and indexes as they are now. A test compares what the migrations make with every word of this.

Instants are microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from outbox.core.lifecycle import SYSTEM_KIND, Gate, Outcome, Phase, Settled, State

REVISION = "0003"  # the newest migration
metadata = MetaData()
Instant = BigInteger().with_variant(Integer(), "sqlite")  # STRICT refuses BIGINT
MOST_ASKS = 3


def one_of(column: str, values: Iterable[str]) -> str:
    """A condition that `column` is one of `values`."""
    return f"{column} IN ({quoted(values)})"


def quoted(values: Iterable[str]) -> str:
    """Words of ours as SQL text, with commas between."""
    return ", ".join(f"'{value}'" for value in values)


drafts = Table(
    "drafts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("envelope", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("thread_references", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("about", Text, ForeignKey("drafts.id")),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("not_before", Instant),
    Column("stop_asked_at", Instant),
    Column("attempt_id", Text, ForeignKey("attempts.id", deferrable=True, initially="DEFERRED", use_alter=True)),
    Column("error_code", Text),
    Column("error_message", Text),
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
    sqlite_strict=True,
)
Index("drafts_pending", drafts.c.id, sqlite_where=text("state = 'pending'"))
Index("drafts_approved", drafts.c.not_before, sqlite_where=text("state = 'approved' AND kind <> 'system'"))
Index("drafts_approved_system", drafts.c.not_before, sqlite_where=text("state = 'approved' AND kind = 'system'"))
Index("drafts_executing", drafts.c.id, sqlite_where=text("state = 'executing'"))
Index("drafts_expiring", drafts.c.expires_at, sqlite_where=text("state IN ('pending', 'approved')"))
Index("drafts_message_id", drafts.c.message_id)
Index("drafts_of_draft", drafts.c.about, sqlite_where=text("about IS NOT NULL"))
Index("drafts_rejected", drafts.c.fingerprint, sqlite_where=text("state = 'rejected'"))

messages = Table(
    "messages",
    metadata,
    Column("draft_id", Text, ForeignKey("drafts.id"), primary_key=True),
    Column("octets", LargeBinary, nullable=False),
    sqlite_strict=True,
)

requests = Table(
    "requests",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("draft_id", Text, ForeignKey("drafts.id"), nullable=False),
    Column("approver", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("carrier_id", Text, ForeignKey("drafts.id"), nullable=False),
    Column("ask", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("spent_at", Instant),
    CheckConstraint("length(id) = 8 AND length(digest) = 32", name="requests_octets"),
    CheckConstraint(f"ask BETWEEN 1 AND {MOST_ASKS}", name="requests_ask"),
    UniqueConstraint("draft_id", "approver", "ask", name="requests_once"),
    sqlite_strict=True,
)

grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("draft_id", Text, ForeignKey("drafts.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("approver", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    CheckConstraint("length(digest) = 32 AND length(signature) = 32", name="grants_octets"),
    CheckConstraint(one_of("channel", ("reply", "terminal")), name="grants_channel"),
    UniqueConstraint("draft_id", "approver", name="grants_once"),
    sqlite_strict=True,
)

rejections = Table(
    "rejections",
    metadata,
    Column("draft_id", Text, ForeignKey("drafts.id"), primary_key=True),
    Column("approver", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Instant, nullable=False),
    CheckConstraint(one_of("channel", ("reply", "terminal")), name="rejections_channel"),
    sqlite_strict=True,
)

resubmissions = Table(  # signed: why a rejected text is drafted again
    "resubmissions",
    metadata,
    Column("draft_id", Text, ForeignKey("drafts.id"), primary_key=True),
    Column("reason", Text, nullable=False),
    sqlite_strict=True,
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    sqlite_strict=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("draft_id", Text, ForeignKey("drafts.id"), nullable=False),
    Column("worker_id", Text, ForeignKey("workers.id"), nullable=False),
    Column("gate", Text, ForeignKey("gate.name"), nullable=False),
    Column("phase", Text, nullable=False),
    Column("outcome", Text),
    Column("code", Integer),
    Column("enhanced", Text),
    Column("text", Text),
    Column("queue_id", Text),
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
    sqlite_strict=True,
)
Index("attempts_open", attempts.c.draft_id, unique=True, sqlite_where=text("phase <> 'done'"))
Index(
    "attempts_at_most_once",
    attempts.c.draft_id,
    unique=True,
    sqlite_where=text("phase = 'gap' OR outcome IN ('accepted', 'in_doubt')"),
)
Index("attempts_heat", attempts.c.gate, attempts.c.gap_at, sqlite_where=text("gap_at IS NOT NULL"))
Index("attempts_of_draft", attempts.c.draft_id)

recipients = Table(
    "recipients",
    metadata,
    Column("attempt_id", Text, ForeignKey("attempts.id"), primary_key=True),
    Column("address", Text, primary_key=True),
    Column("code", Integer, nullable=False),
    Column("text", Text, nullable=False),
    sqlite_strict=True,
)

replies = Table(
    "replies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("mailbox", Text, nullable=False),
    Column("uid", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("sender", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("draft_id", Text, ForeignKey("drafts.id")),
    Column("verdict", Text, nullable=False),
    Column("counted", Integer, nullable=False),
    Column("why", Text, nullable=False),
    Column("answer_id", Text, ForeignKey("drafts.id")),
    CheckConstraint(one_of("verdict", ("approve", "reject", "cancel", "unclear")), name="replies_verdict"),
    CheckConstraint("counted IN (0, 1)", name="replies_counted"),
    UniqueConstraint("mailbox", "uid", name="replies_once"),
    sqlite_strict=True,
)
Index("replies_digest", replies.c.digest)
Index("replies_message_id", replies.c.message_id)
Index("replies_answered", replies.c.draft_id, sqlite_where=text("answer_id IS NOT NULL"))

proofs = Table(  # how it was known who wrote a reply that approved
    "proofs",
    metadata,
    Column("reply_id", Text, ForeignKey("replies.id"), primary_key=True),
    Column("approver", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("selector", Text, nullable=False),
    sqlite_strict=True,
)

seen_signatures = Table(  # SHA-256 over what a DKIM signature covers: a signed reply is read once, however it is sent
    "seen_signatures",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("reply_id", Text, ForeignKey("replies.id"), nullable=False),
    sqlite_strict=True,
)

codes = Table(  # one-time codes that were used; `step` counts 30 s of Unix time
    "codes",
    metadata,
    Column("approver", Text, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("reply_id", Text, ForeignKey("replies.id"), nullable=False),
    sqlite_strict=True,
)

wrong_codes = Table(
    "wrong_codes",
    metadata,
    Column("reply_id", Text, ForeignKey("replies.id"), primary_key=True),
    Column("draft_id", Text, ForeignKey("drafts.id"), nullable=False),
    Column("approver", Text, nullable=False),
    sqlite_strict=True,
)
Index("wrong_codes_of_approver", wrong_codes.c.approver)

tellings = Table(  # what an approver who was asked is still to be told: one reminder, one end
    "tellings",
    metadata,
    Column("draft_id", Text, ForeignKey("drafts.id"), primary_key=True),
    Column("approver", Text, primary_key=True),
    Column("request_id", LargeBinary, ForeignKey("requests.id"), nullable=False),
    Column("reminded_at", Instant),
    Column("told_at", Instant),
    sqlite_strict=True,
)
Index("tellings_open", tellings.c.draft_id, sqlite_where=text("told_at IS NULL"))

signed_replies = Table(  # the raw reply that approved, and the DKIM key that its signature was verified with
    "signed_replies",
    metadata,
    Column("reply_id", Text, ForeignKey("replies.id"), primary_key=True),
    Column("octets", LargeBinary, nullable=False),
    Column("key_record", Text, nullable=False),
    sqlite_strict=True,
)

evidence = Table(  # what was found out about a draft after its attempt; `found` is NULL where it proves nothing
    "evidence",
    metadata,
    Column("id", Text, primary_key=True),
    Column("draft_id", Text, ForeignKey("drafts.id"), nullable=False),
    Column("attempt_id", Text, ForeignKey("attempts.id")),
    Column("source", Text, nullable=False),
    Column("found", Integer),
    Column("detail", Text, nullable=False),
    Column("octets", LargeBinary),
    Column("at", Instant, nullable=False),
    CheckConstraint("found IN (0, 1)", name="evidence_found"),
    sqlite_strict=True,
)
Index("evidence_of_draft", evidence.c.draft_id)

settlements = Table(  # who decided an attempt that was left at executing, and why
    "settlements",
    metadata,
    Column("attempt_id", Text, ForeignKey("attempts.id"), primary_key=True),
    Column("draft_id", Text, ForeignKey("drafts.id"), nullable=False),
    Column("settled_as", Text, nullable=False),
    Column("settled_by", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Instant, nullable=False),
    CheckConstraint(one_of("settled_as", Settled), name="settlements_as"),
    sqlite_strict=True,
)
Index("settlements_of_draft", settlements.c.draft_id)

pause = Table(  # one row; nothing is claimed and no gap is entered while `paused_at` is there
    "pause",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("paused_at", Instant),
    Column("reason", Text),
    Column("paused_by", Text),
    CheckConstraint("id = 1", name="pause_one"),
    CheckConstraint(
        "(paused_at IS NULL) = (reason IS NULL) AND (paused_at IS NULL) = (paused_by IS NULL)", name="pause_whole"
    ),
    sqlite_strict=True,
)

clock = (
    Table(  # one row; of a clock that was ahead, what it wrote after `believed_at` up to `ignored_until` says nothing
        "clock",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("believed_at", Instant, nullable=False),
        Column("ignored_until", Instant, nullable=False),
        CheckConstraint("id = 1", name="clock_one"),
        sqlite_strict=True,
    )
)

identity = Table(  # which database this is, and since when its gaps are in a ledger
    "identity",
    metadata,
    Column("id", Text, primary_key=True),
    Column("ledger_since", Instant, nullable=False),
    sqlite_strict=True,
)

gate = Table(
    "gate",
    metadata,
    Column("name", Text, primary_key=True),
    Column("tripped_at", Instant),
    Column("until", Instant),
    CheckConstraint(one_of("name", Gate), name="gate_name"),
    CheckConstraint("(tripped_at IS NULL) = (until IS NULL)", name="gate_tripped"),
    sqlite_strict=True,
)

journal = Table(
    "journal",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("action", Text, nullable=False),
    Column("draft_id", Text),
    Column("attempt_id", Text),
    Column("detail", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    CheckConstraint("length(mac) = 32", name="journal_mac"),
    sqlite_strict=True,
)
Index("journal_of_draft", journal.c.draft_id)
