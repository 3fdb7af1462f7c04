"""Replies for real: proofs, one-time codes, what approvers are still to be told, and why a draft is made again."""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    """
    CREATE TABLE resubmissions (
        draft_id TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (draft_id),
        FOREIGN KEY(draft_id) REFERENCES drafts (id)
    )
     STRICT
    """,
    """
    CREATE TABLE proofs (
        reply_id TEXT NOT NULL,
        approver TEXT NOT NULL,
        method TEXT NOT NULL,
        domain TEXT NOT NULL,
        selector TEXT NOT NULL,
        PRIMARY KEY (reply_id),
        FOREIGN KEY(reply_id) REFERENCES replies (id)
    )
     STRICT
    """,
    """
    CREATE TABLE seen_signatures (
        digest BLOB NOT NULL,
        reply_id TEXT NOT NULL,
        PRIMARY KEY (digest),
        FOREIGN KEY(reply_id) REFERENCES replies (id)
    )
     STRICT
    """,
    """
    CREATE TABLE codes (
        approver TEXT NOT NULL,
        step INTEGER NOT NULL,
        reply_id TEXT NOT NULL,
        PRIMARY KEY (approver, step),
        FOREIGN KEY(reply_id) REFERENCES replies (id)
    )
     STRICT
    """,
    """
    CREATE TABLE wrong_codes (
        reply_id TEXT NOT NULL,
        draft_id TEXT NOT NULL,
        approver TEXT NOT NULL,
        PRIMARY KEY (reply_id),
        FOREIGN KEY(reply_id) REFERENCES replies (id),
        FOREIGN KEY(draft_id) REFERENCES drafts (id)
    )
     STRICT
    """,
    """
    CREATE INDEX wrong_codes_of_approver ON wrong_codes (approver)
    """,
    """
    CREATE TABLE tellings (
        draft_id TEXT NOT NULL,
        approver TEXT NOT NULL,
        request_id BLOB NOT NULL,
        reminded_at INTEGER,
        told_at INTEGER,
        PRIMARY KEY (draft_id, approver),
        FOREIGN KEY(draft_id) REFERENCES drafts (id),
        FOREIGN KEY(request_id) REFERENCES requests (id)
    )
     STRICT
    """,
    """
    CREATE INDEX tellings_open ON tellings (draft_id) WHERE told_at IS NULL
    """,
    """
    CREATE INDEX drafts_rejected ON drafts (fingerprint) WHERE state = 'rejected'
    """,
    """
    CREATE INDEX drafts_of_draft ON drafts (about) WHERE about IS NOT NULL
    """,
    """
    CREATE TRIGGER resubmissions_frozen BEFORE UPDATE ON resubmissions
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of resubmissions never changes'); END
    """,
    """
    CREATE TRIGGER resubmissions_kept BEFORE DELETE ON resubmissions
    BEGIN SELECT RAISE(ABORT, 'outbox: resubmissions are never deleted'); END
    """,
    """
    CREATE TRIGGER proofs_frozen BEFORE UPDATE ON proofs
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of proofs never changes'); END
    """,
    """
    CREATE TRIGGER proofs_kept BEFORE DELETE ON proofs
    BEGIN SELECT RAISE(ABORT, 'outbox: proofs are never deleted'); END
    """,
    """
    CREATE TRIGGER seen_signatures_frozen BEFORE UPDATE ON seen_signatures
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of seen_signatures never changes'); END
    """,
    """
    CREATE TRIGGER seen_signatures_kept BEFORE DELETE ON seen_signatures
    BEGIN SELECT RAISE(ABORT, 'outbox: seen_signatures are never deleted'); END
    """,
    """
    CREATE TRIGGER codes_frozen BEFORE UPDATE ON codes
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of codes never changes'); END
    """,
    """
    CREATE TRIGGER codes_kept BEFORE DELETE ON codes
    BEGIN SELECT RAISE(ABORT, 'outbox: codes are never deleted'); END
    """,
    """
    CREATE TRIGGER wrong_codes_frozen BEFORE UPDATE ON wrong_codes
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of wrong_codes never changes'); END
    """,
    """
    CREATE TRIGGER wrong_codes_kept BEFORE DELETE ON wrong_codes
    BEGIN SELECT RAISE(ABORT, 'outbox: wrong_codes are never deleted'); END
    """,
    """
    CREATE TRIGGER tellings_frozen BEFORE UPDATE OF draft_id, approver, request_id ON tellings
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of tellings never changes'); END
    """,
    """
    CREATE TRIGGER tellings_once BEFORE UPDATE ON tellings
    WHEN OLD.told_at IS NOT NULL OR (OLD.reminded_at IS NOT NULL AND NEW.reminded_at IS NOT OLD.reminded_at)
    BEGIN SELECT RAISE(ABORT, 'outbox: an approver is told once'); END
    """,
    """
    CREATE TRIGGER tellings_kept BEFORE DELETE ON tellings
    BEGIN SELECT RAISE(ABORT, 'outbox: tellings are never deleted'); END
    """,
    """
    INSERT INTO tellings (draft_id, approver, request_id)
    SELECT requests.draft_id, requests.approver, requests.id FROM requests JOIN drafts ON drafts.id = requests.draft_id
    WHERE requests.ask = 1 AND drafts.state IN ('pending', 'approved', 'executing')
    """,
)


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        return  # no database there was ever of this revision: 0004 makes the first
    for statement in STATEMENTS:
        op.execute(statement)
