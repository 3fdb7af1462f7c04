"""At most once, proven: the ledger's identity, pauses, evidence, settlements, and the replies that approved."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    """
    CREATE TABLE signed_replies (
        reply_id TEXT NOT NULL,
        octets BLOB NOT NULL,
        key_record TEXT NOT NULL,
        PRIMARY KEY (reply_id),
        FOREIGN KEY(reply_id) REFERENCES replies (id)
    )
     STRICT
    """,
    """
    CREATE TABLE evidence (
        id TEXT NOT NULL,
        draft_id TEXT NOT NULL,
        attempt_id TEXT,
        source TEXT NOT NULL,
        found INTEGER,
        detail TEXT NOT NULL,
        octets BLOB,
        at INTEGER NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT evidence_found CHECK (found IN (0, 1)),
        FOREIGN KEY(draft_id) REFERENCES drafts (id),
        FOREIGN KEY(attempt_id) REFERENCES attempts (id)
    )
     STRICT
    """,
    """
    CREATE INDEX evidence_of_draft ON evidence (draft_id)
    """,
    """
    CREATE TABLE settlements (
        attempt_id TEXT NOT NULL,
        draft_id TEXT NOT NULL,
        settled_as TEXT NOT NULL,
        settled_by TEXT NOT NULL,
        note TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (attempt_id),
        CONSTRAINT settlements_as CHECK (settled_as IN ('sent', 'not_sent', 'released')),
        FOREIGN KEY(attempt_id) REFERENCES attempts (id),
        FOREIGN KEY(draft_id) REFERENCES drafts (id)
    )
     STRICT
    """,
    """
    CREATE INDEX settlements_of_draft ON settlements (draft_id)
    """,
    """
    CREATE TABLE pause (
        id INTEGER NOT NULL,
        paused_at INTEGER,
        reason TEXT,
        paused_by TEXT,
        PRIMARY KEY (id),
        CONSTRAINT pause_one CHECK (id = 1),
        CONSTRAINT pause_whole CHECK ((paused_at IS NULL) = (reason IS NULL) AND (paused_at IS NULL) = (paused_by IS NULL))
    )
     STRICT
    """,
    """
    CREATE TABLE clock (
        id INTEGER NOT NULL,
        believed_at INTEGER NOT NULL,
        ignored_until INTEGER NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT clock_one CHECK (id = 1)
    )
     STRICT
    """,
    """
    CREATE TABLE identity (
        id TEXT NOT NULL,
        ledger_since INTEGER NOT NULL,
        PRIMARY KEY (id)
    )
     STRICT
    """,
    """
    INSERT INTO pause (id) VALUES (1)
    """,
    """
    INSERT INTO clock (id, believed_at, ignored_until) VALUES (1, 0, 0)
    """,
    """
    INSERT INTO identity (id, ledger_since)
    SELECT lower(hex(randomblob(16))), coalesce((SELECT max(gap_at) + 1 FROM attempts), 0)
    """,
    """
    DROP TRIGGER drafts_completion
    """,
    """
    DROP TRIGGER drafts_failure
    """,
    """
    DROP TRIGGER attempts_gap_guard
    """,
    """
    CREATE TRIGGER drafts_failure BEFORE UPDATE OF state ON drafts
    WHEN OLD.state = 'executing' AND NEW.state = 'failed' AND EXISTS (SELECT 1 FROM attempts WHERE draft_id = NEW.id AND (phase <> 'done' OR (outcome = 'in_doubt' AND NEW.kind <> 'system' AND NOT EXISTS (SELECT 1 FROM settlements WHERE attempt_id = attempts.id AND settled_as = 'not_sent'))))
    BEGIN SELECT RAISE(ABORT, 'outbox: an attempt is still open, or in doubt and not settled as not sent'); END
    """,
    """
    CREATE TRIGGER drafts_completion BEFORE UPDATE OF state ON drafts
    WHEN NEW.state = 'completed' AND NOT EXISTS (SELECT 1 FROM attempts WHERE id = NEW.attempt_id AND draft_id = NEW.id AND phase = 'done' AND (outcome = 'accepted' OR (outcome = 'in_doubt' AND EXISTS (SELECT 1 FROM settlements WHERE attempt_id = attempts.id AND settled_as = 'sent'))))
    BEGIN SELECT RAISE(ABORT, 'outbox: completion needs an attempt that was accepted, or settled as sent'); END
    """,
    """
    CREATE TRIGGER attempts_gap_guard BEFORE UPDATE OF phase ON attempts
    WHEN OLD.phase = 'claimed' AND NEW.phase = 'gap' AND (NOT EXISTS (SELECT 1 FROM drafts WHERE id = NEW.draft_id AND state = 'executing' AND attempt_id = NEW.id AND stop_asked_at IS NULL AND expires_at > NEW.gap_at) OR EXISTS (SELECT 1 FROM pause WHERE paused_at IS NOT NULL)) AND NOT EXISTS (SELECT 1 FROM evidence WHERE attempt_id = NEW.id AND (found = 1 OR source = 'ledger'))
    BEGIN SELECT RAISE(ABORT, 'outbox: the gap is entered only for a draft that may still be sent'); END
    """,
    """
    CREATE TRIGGER signed_replies_frozen BEFORE UPDATE ON signed_replies
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of signed_replies never changes'); END
    """,
    """
    CREATE TRIGGER signed_replies_kept BEFORE DELETE ON signed_replies
    BEGIN SELECT RAISE(ABORT, 'outbox: signed_replies are never deleted'); END
    """,
    """
    CREATE TRIGGER evidence_frozen BEFORE UPDATE ON evidence
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of evidence never changes'); END
    """,
    """
    CREATE TRIGGER evidence_kept BEFORE DELETE ON evidence
    BEGIN SELECT RAISE(ABORT, 'outbox: evidence are never deleted'); END
    """,
    """
    CREATE TRIGGER settlements_frozen BEFORE UPDATE ON settlements
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of settlements never changes'); END
    """,
    """
    CREATE TRIGGER settlements_kept BEFORE DELETE ON settlements
    BEGIN SELECT RAISE(ABORT, 'outbox: settlements are never deleted'); END
    """,
    """
    CREATE TRIGGER pause_kept BEFORE DELETE ON pause
    BEGIN SELECT RAISE(ABORT, 'outbox: pause are never deleted'); END
    """,
    """
    CREATE TRIGGER clock_kept BEFORE DELETE ON clock
    BEGIN SELECT RAISE(ABORT, 'outbox: clock are never deleted'); END
    """,
    """
    CREATE TRIGGER identity_one BEFORE INSERT ON identity
    WHEN EXISTS (SELECT 1 FROM identity)
    BEGIN SELECT RAISE(ABORT, 'outbox: a database has one identity'); END
    """,
    """
    CREATE TRIGGER identity_frozen BEFORE UPDATE ON identity
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of identity never changes'); END
    """,
    """
    CREATE TRIGGER identity_kept BEFORE DELETE ON identity
    BEGIN SELECT RAISE(ABORT, 'outbox: identity are never deleted'); END
    """,
)


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        return  # no database there was ever of this revision: 0004 makes the first
    for statement in STATEMENTS:
        op.execute(statement)
