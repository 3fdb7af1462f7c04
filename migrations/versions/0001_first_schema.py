"""The first schema: drafts, messages, requests, grants, attempts, replies, journal, and the guards around them."""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE drafts (
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        agent TEXT NOT NULL,
        envelope TEXT NOT NULL,
        subject TEXT NOT NULL,
        message_id TEXT NOT NULL,
        thread_references TEXT NOT NULL,
        digest BLOB NOT NULL,
        fingerprint BLOB NOT NULL,
        signature BLOB NOT NULL,
        key_id TEXT NOT NULL,
        idempotency_key TEXT,
        about TEXT,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        not_before INTEGER,
        stop_asked_at INTEGER,
        attempt_id TEXT,
        error_code TEXT,
        error_message TEXT,
        PRIMARY KEY (id),
        CONSTRAINT drafts_state CHECK (state IN ('pending', 'approved', 'executing', 'completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused')),
        CONSTRAINT drafts_octets CHECK (length(digest) = 32 AND length(fingerprint) = 32 AND length(signature) = 32),
        CONSTRAINT drafts_lifetime CHECK (expires_at > created_at),
        CONSTRAINT drafts_due CHECK (state NOT IN ('approved', 'executing', 'completed') OR not_before IS NOT NULL),
        CONSTRAINT drafts_held CHECK (state NOT IN ('executing', 'completed', 'refused') OR attempt_id IS NOT NULL),
        CONSTRAINT drafts_error CHECK ((error_code IS NULL) = (error_message IS NULL)),
        CONSTRAINT drafts_reason CHECK (state NOT IN ('failed', 'refused') OR error_code IS NOT NULL),
        CONSTRAINT drafts_about CHECK (about IS NULL OR kind = 'system'),
        CONSTRAINT drafts_once UNIQUE (agent, idempotency_key),
        FOREIGN KEY(about) REFERENCES drafts (id),
        FOREIGN KEY(attempt_id) REFERENCES attempts (id) DEFERRABLE INITIALLY DEFERRED
    )
     STRICT
    """,
    """
    CREATE INDEX drafts_approved ON drafts (not_before) WHERE state = 'approved' AND kind <> 'system'
    """,
    """
    CREATE INDEX drafts_approved_system ON drafts (not_before) WHERE state = 'approved' AND kind = 'system'
    """,
    """
    CREATE INDEX drafts_expiring ON drafts (expires_at) WHERE state IN ('pending', 'approved')
    """,
    """
    CREATE INDEX drafts_message_id ON drafts (message_id)
    """,
    """
    CREATE INDEX drafts_pending ON drafts (id) WHERE state = 'pending'
    """,
    """
    CREATE INDEX drafts_executing ON drafts (id) WHERE state = 'executing'
    """,
    """
    CREATE TABLE workers (
        id TEXT NOT NULL,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at INTEGER,
        PRIMARY KEY (id)
    )
     STRICT
    """,
    """
    CREATE TABLE gate (
        name TEXT NOT NULL,
        tripped_at INTEGER,
        until INTEGER,
        PRIMARY KEY (name),
        CONSTRAINT gate_name CHECK (name IN ('mail', 'system')),
        CONSTRAINT gate_tripped CHECK ((tripped_at IS NULL) = (until IS NULL))
    )
     STRICT
    """,
    """
    CREATE TABLE journal (
        writer TEXT NOT NULL,
        seq INTEGER NOT NULL,
        at INTEGER NOT NULL,
        action TEXT NOT NULL,
        draft_id TEXT,
        attempt_id TEXT,
        detail TEXT NOT NULL,
        key_id TEXT NOT NULL,
        mac BLOB NOT NULL,
        PRIMARY KEY (writer, seq),
        CONSTRAINT journal_mac CHECK (length(mac) = 32)
    )
     STRICT
    """,
    """
    CREATE INDEX journal_of_draft ON journal (draft_id)
    """,
    """
    CREATE TABLE messages (
        draft_id TEXT NOT NULL,
        octets BLOB NOT NULL,
        PRIMARY KEY (draft_id),
        FOREIGN KEY(draft_id) REFERENCES drafts (id)
    )
     STRICT
    """,
    """
    CREATE TABLE requests (
        id BLOB NOT NULL,
        draft_id TEXT NOT NULL,
        approver TEXT NOT NULL,
        digest BLOB NOT NULL,
        carrier_id TEXT NOT NULL,
        ask INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        spent_at INTEGER,
        PRIMARY KEY (id),
        CONSTRAINT requests_octets CHECK (length(id) = 8 AND length(digest) = 32),
        CONSTRAINT requests_ask CHECK (ask BETWEEN 1 AND 3),
        CONSTRAINT requests_once UNIQUE (draft_id, approver, ask),
        FOREIGN KEY(draft_id) REFERENCES drafts (id),
        FOREIGN KEY(carrier_id) REFERENCES drafts (id)
    )
     STRICT
    """,
    """
    CREATE TABLE grants (
        id TEXT NOT NULL,
        draft_id TEXT NOT NULL,
        digest BLOB NOT NULL,
        approver TEXT NOT NULL,
        channel TEXT NOT NULL,
        at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        signature BLOB NOT NULL,
        key_id TEXT NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT grants_octets CHECK (length(digest) = 32 AND length(signature) = 32),
        CONSTRAINT grants_channel CHECK (channel IN ('reply', 'terminal')),
        CONSTRAINT grants_once UNIQUE (draft_id, approver),
        FOREIGN KEY(draft_id) REFERENCES drafts (id)
    )
     STRICT
    """,
    """
    CREATE TABLE rejections (
        draft_id TEXT NOT NULL,
        approver TEXT NOT NULL,
        channel TEXT NOT NULL,
        reason TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (draft_id),
        CONSTRAINT rejections_channel CHECK (channel IN ('reply', 'terminal')),
        FOREIGN KEY(draft_id) REFERENCES drafts (id)
    )
     STRICT
    """,
    """
    CREATE TABLE attempts (
        id TEXT NOT NULL,
        draft_id TEXT NOT NULL,
        worker_id TEXT NOT NULL,
        gate TEXT NOT NULL,
        phase TEXT NOT NULL,
        outcome TEXT,
        code INTEGER,
        enhanced TEXT,
        text TEXT,
        queue_id TEXT,
        wire_digest BLOB,
        started_at INTEGER NOT NULL,
        gap_at INTEGER,
        ended_at INTEGER,
        PRIMARY KEY (id),
        CONSTRAINT attempts_phase CHECK (phase IN ('claimed', 'gap', 'done')),
        CONSTRAINT attempts_outcome CHECK (outcome IN ('accepted', 'refused_transient', 'refused_permanent', 'not_sent', 'in_doubt')),
        CONSTRAINT attempts_done CHECK ((phase = 'done') = (outcome IS NOT NULL)),
        CONSTRAINT attempts_ended CHECK ((phase = 'done') = (ended_at IS NOT NULL)),
        CONSTRAINT attempts_wire CHECK ((gap_at IS NULL) = (wire_digest IS NULL)),
        CONSTRAINT attempts_gap CHECK (phase <> 'gap' OR gap_at IS NOT NULL),
        CONSTRAINT attempts_claimed CHECK (phase <> 'claimed' OR gap_at IS NULL),
        CONSTRAINT attempts_possibly_sent CHECK (outcome NOT IN ('accepted', 'in_doubt') OR gap_at IS NOT NULL),
        FOREIGN KEY(draft_id) REFERENCES drafts (id),
        FOREIGN KEY(worker_id) REFERENCES workers (id),
        FOREIGN KEY(gate) REFERENCES gate (name)
    )
     STRICT
    """,
    """
    CREATE INDEX attempts_of_draft ON attempts (draft_id)
    """,
    """
    CREATE INDEX attempts_heat ON attempts (gate, gap_at) WHERE gap_at IS NOT NULL
    """,
    """
    CREATE UNIQUE INDEX attempts_at_most_once ON attempts (draft_id) WHERE phase = 'gap' OR outcome IN ('accepted', 'in_doubt')
    """,
    """
    CREATE UNIQUE INDEX attempts_open ON attempts (draft_id) WHERE phase <> 'done'
    """,
    """
    CREATE TABLE replies (
        id TEXT NOT NULL,
        mailbox TEXT NOT NULL,
        uid TEXT NOT NULL,
        digest BLOB NOT NULL,
        received_at INTEGER NOT NULL,
        sender TEXT NOT NULL,
        message_id TEXT NOT NULL,
        draft_id TEXT,
        verdict TEXT NOT NULL,
        counted INTEGER NOT NULL,
        why TEXT NOT NULL,
        answer_id TEXT,
        PRIMARY KEY (id),
        CONSTRAINT replies_verdict CHECK (verdict IN ('approve', 'reject', 'cancel', 'unclear')),
        CONSTRAINT replies_counted CHECK (counted IN (0, 1)),
        CONSTRAINT replies_once UNIQUE (mailbox, uid),
        FOREIGN KEY(draft_id) REFERENCES drafts (id),
        FOREIGN KEY(answer_id) REFERENCES drafts (id)
    )
     STRICT
    """,
    """
    CREATE INDEX replies_digest ON replies (digest)
    """,
    """
    CREATE INDEX replies_answered ON replies (draft_id) WHERE answer_id IS NOT NULL
    """,
    """
    CREATE INDEX replies_message_id ON replies (message_id)
    """,
    """
    CREATE TABLE recipients (
        attempt_id TEXT NOT NULL,
        address TEXT NOT NULL,
        code INTEGER NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (attempt_id, address),
        FOREIGN KEY(attempt_id) REFERENCES attempts (id)
    )
     STRICT
    """,
    """
    CREATE TRIGGER drafts_birth BEFORE INSERT ON drafts
    WHEN NOT ((NEW.kind <> 'system' AND NEW.state = 'pending') OR (NEW.kind = 'system' AND NEW.state = 'approved'))
    BEGIN SELECT RAISE(ABORT, 'outbox: a draft is born pending, a system draft approved'); END
    """,
    """
    CREATE TRIGGER drafts_edges BEFORE UPDATE OF state ON drafts
    WHEN NEW.state <> OLD.state AND NOT ((OLD.state = 'pending' AND NEW.state IN ('approved', 'rejected', 'expired', 'failed', 'cancelled')) OR (OLD.state = 'approved' AND NEW.state IN ('cancelled', 'expired', 'executing')) OR (OLD.state = 'executing' AND NEW.state IN ('failed', 'refused', 'expired', 'cancelled', 'completed', 'approved')))
    BEGIN SELECT RAISE(ABORT, 'outbox: there is no such transition'); END
    """,
    """
    CREATE TRIGGER drafts_grant BEFORE UPDATE OF state ON drafts
    WHEN OLD.state = 'pending' AND NEW.state = 'approved' AND NOT EXISTS (SELECT 1 FROM grants WHERE draft_id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'outbox: approval needs a grant'); END
    """,
    """
    CREATE TRIGGER drafts_rejection BEFORE UPDATE OF state ON drafts
    WHEN NEW.state = 'rejected' AND NOT EXISTS (SELECT 1 FROM rejections WHERE draft_id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'outbox: a rejection needs its reason'); END
    """,
    """
    CREATE TRIGGER drafts_release BEFORE UPDATE OF state ON drafts
    WHEN OLD.state = 'executing' AND NEW.state IN ('approved', 'cancelled', 'expired', 'refused') AND EXISTS (SELECT 1 FROM attempts WHERE draft_id = NEW.id AND (phase <> 'done' OR outcome IN ('accepted', 'in_doubt')))
    BEGIN SELECT RAISE(ABORT, 'outbox: an attempt is open or may have sent it'); END
    """,
    """
    CREATE TRIGGER drafts_failure BEFORE UPDATE OF state ON drafts
    WHEN OLD.state = 'executing' AND NEW.state = 'failed' AND EXISTS (SELECT 1 FROM attempts WHERE draft_id = NEW.id AND phase <> 'done')
    BEGIN SELECT RAISE(ABORT, 'outbox: an attempt is still open'); END
    """,
    """
    CREATE TRIGGER drafts_completion BEFORE UPDATE OF state ON drafts
    WHEN NEW.state = 'completed' AND NOT EXISTS (SELECT 1 FROM attempts WHERE id = NEW.attempt_id AND draft_id = NEW.id AND phase = 'done' AND outcome IN ('accepted', 'in_doubt'))
    BEGIN SELECT RAISE(ABORT, 'outbox: completion needs an attempt that may have sent it'); END
    """,
    """
    CREATE TRIGGER drafts_final BEFORE UPDATE ON drafts
    WHEN OLD.state IN ('completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused')
    BEGIN SELECT RAISE(ABORT, 'outbox: a final draft never changes'); END
    """,
    """
    CREATE TRIGGER drafts_stop BEFORE UPDATE OF stop_asked_at ON drafts
    WHEN OLD.stop_asked_at IS NOT NULL AND NEW.stop_asked_at IS NOT OLD.stop_asked_at
    BEGIN SELECT RAISE(ABORT, 'outbox: a stop cannot be taken back'); END
    """,
    """
    CREATE TRIGGER drafts_frozen BEFORE UPDATE OF id, kind, agent, envelope, subject, message_id, thread_references, digest, fingerprint, signature, key_id, idempotency_key, about, created_at, expires_at ON drafts
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of drafts never changes'); END
    """,
    """
    CREATE TRIGGER drafts_kept BEFORE DELETE ON drafts
    BEGIN SELECT RAISE(ABORT, 'outbox: drafts are never deleted'); END
    """,
    """
    CREATE TRIGGER messages_frozen BEFORE UPDATE ON messages
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of messages never changes'); END
    """,
    """
    CREATE TRIGGER messages_kept BEFORE DELETE ON messages
    WHEN (SELECT state FROM drafts WHERE id = OLD.draft_id) NOT IN ('completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused')
    BEGIN SELECT RAISE(ABORT, 'outbox: the octets of a live draft are never deleted'); END
    """,
    """
    CREATE TRIGGER requests_frozen BEFORE UPDATE OF id, draft_id, approver, digest, carrier_id, ask, created_at, expires_at ON requests
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of requests never changes'); END
    """,
    """
    CREATE TRIGGER requests_spent BEFORE UPDATE OF spent_at ON requests
    WHEN OLD.spent_at IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'outbox: a reply token is spent once'); END
    """,
    """
    CREATE TRIGGER requests_kept BEFORE DELETE ON requests
    BEGIN SELECT RAISE(ABORT, 'outbox: requests are never deleted'); END
    """,
    """
    CREATE TRIGGER grants_frozen BEFORE UPDATE ON grants
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of grants never changes'); END
    """,
    """
    CREATE TRIGGER grants_kept BEFORE DELETE ON grants
    BEGIN SELECT RAISE(ABORT, 'outbox: grants are never deleted'); END
    """,
    """
    CREATE TRIGGER rejections_frozen BEFORE UPDATE ON rejections
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of rejections never changes'); END
    """,
    """
    CREATE TRIGGER rejections_kept BEFORE DELETE ON rejections
    BEGIN SELECT RAISE(ABORT, 'outbox: rejections are never deleted'); END
    """,
    """
    CREATE TRIGGER attempts_birth BEFORE INSERT ON attempts
    WHEN NEW.phase <> 'claimed' OR EXISTS (SELECT 1 FROM attempts WHERE id = NEW.id) OR NOT EXISTS (SELECT 1 FROM drafts WHERE id = NEW.draft_id AND state = 'executing' AND attempt_id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'outbox: an attempt begins with its claim'); END
    """,
    """
    CREATE TRIGGER attempts_phases BEFORE UPDATE OF phase ON attempts
    WHEN NEW.phase <> OLD.phase AND NOT ((OLD.phase = 'claimed' AND NEW.phase IN ('gap', 'done')) OR (OLD.phase = 'gap' AND NEW.phase = 'done'))
    BEGIN SELECT RAISE(ABORT, 'outbox: phases only go forward'); END
    """,
    """
    CREATE TRIGGER attempts_gap_guard BEFORE UPDATE OF phase ON attempts
    WHEN OLD.phase = 'claimed' AND NEW.phase = 'gap' AND NOT EXISTS (SELECT 1 FROM drafts WHERE id = NEW.draft_id AND state = 'executing' AND attempt_id = NEW.id AND stop_asked_at IS NULL AND expires_at > NEW.gap_at)
    BEGIN SELECT RAISE(ABORT, 'outbox: the gap is entered only for a draft that may still be sent'); END
    """,
    """
    CREATE TRIGGER attempts_gap_once BEFORE UPDATE OF gap_at, wire_digest ON attempts
    WHEN OLD.gap_at IS NOT NULL OR NEW.phase <> 'gap'
    BEGIN SELECT RAISE(ABORT, 'outbox: the gap is entered once'); END
    """,
    """
    CREATE TRIGGER attempts_finished BEFORE UPDATE ON attempts
    WHEN OLD.phase = 'done'
    BEGIN SELECT RAISE(ABORT, 'outbox: a finished attempt never changes'); END
    """,
    """
    CREATE TRIGGER attempts_frozen BEFORE UPDATE OF id, draft_id, worker_id, gate, started_at ON attempts
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of attempts never changes'); END
    """,
    """
    CREATE TRIGGER attempts_kept BEFORE DELETE ON attempts
    BEGIN SELECT RAISE(ABORT, 'outbox: attempts are never deleted'); END
    """,
    """
    CREATE TRIGGER recipients_frozen BEFORE UPDATE ON recipients
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of recipients never changes'); END
    """,
    """
    CREATE TRIGGER recipients_kept BEFORE DELETE ON recipients
    BEGIN SELECT RAISE(ABORT, 'outbox: recipients are never deleted'); END
    """,
    """
    CREATE TRIGGER replies_frozen BEFORE UPDATE ON replies
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of replies never changes'); END
    """,
    """
    CREATE TRIGGER replies_kept BEFORE DELETE ON replies
    BEGIN SELECT RAISE(ABORT, 'outbox: replies are never deleted'); END
    """,
    """
    CREATE TRIGGER journal_frozen BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'outbox: this part of journal never changes'); END
    """,
    """
    CREATE TRIGGER journal_kept BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'outbox: journal are never deleted'); END
    """,
    """
    CREATE TRIGGER workers_ended BEFORE UPDATE ON workers
    WHEN OLD.ended_at IS NOT NULL OR NEW.id <> OLD.id OR NEW.started_at <> OLD.started_at
    BEGIN SELECT RAISE(ABORT, 'outbox: a worker ends once'); END
    """,
    """
    CREATE TRIGGER workers_kept BEFORE DELETE ON workers
    BEGIN SELECT RAISE(ABORT, 'outbox: workers are never deleted'); END
    """,
    """
    INSERT INTO gate (name) VALUES ('mail'), ('system')
    """,
)


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        return  # no database there was ever of this revision: 0004 makes the first
    for statement in STATEMENTS:
        op.execute(statement)
