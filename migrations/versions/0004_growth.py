"""Growth: how many ended in each state, how many attempts were begun, and indexes for what would read all history."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    """
    CREATE TABLE counters (
        state TEXT NOT NULL,
        shard INTEGER NOT NULL,
        n INTEGER NOT NULL,
        PRIMARY KEY (state, shard),
        CONSTRAINT counters_state CHECK (state IN ('completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused'))
    )
     STRICT
    """,
    """
    INSERT INTO counters (state, shard, n)
    VALUES ('completed', 0, 0), ('rejected', 0, 0), ('expired', 0, 0), ('cancelled', 0, 0), ('failed', 0, 0), ('refused', 0, 0)
    """,
    """
    UPDATE counters SET n = found.n
    FROM (SELECT state, count(*) AS n FROM drafts WHERE kind <> 'system' GROUP BY state) AS found
    WHERE found.state = counters.state
    """,
    """
    ALTER TABLE gate ADD COLUMN claims INTEGER DEFAULT 0 NOT NULL
    """,
    """
    UPDATE gate SET claims = (SELECT count(*) FROM attempts WHERE attempts.gate = gate.name)
    """,
    """
    ALTER TABLE workers ADD COLUMN ledger TEXT
    """,
    """
    ALTER TABLE workers ADD COLUMN visible INTEGER DEFAULT 0 NOT NULL
    """,
    """
    CREATE INDEX drafts_ended ON drafts (state, id) WHERE state IN ('rejected', 'expired', 'cancelled', 'failed', 'refused')
    """,
    """
    CREATE INDEX drafts_failed ON drafts (error_code) WHERE state = 'failed'
    """,
    """
    CREATE INDEX drafts_attempt ON drafts (attempt_id) WHERE attempt_id IS NOT NULL
    """,
    """
    CREATE INDEX workers_living ON workers (id) WHERE ended_at IS NULL
    """,
    """
    CREATE INDEX replies_counted ON replies (draft_id) WHERE counted = 1
    """,
    """
    CREATE TRIGGER drafts_counted AFTER UPDATE OF state ON drafts
    WHEN NEW.state IN ('completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused') AND NEW.kind <> 'system'
    BEGIN UPDATE counters SET n = n + 1 WHERE state = NEW.state AND shard = 0; END
    """,
    """
    CREATE TRIGGER attempts_counted AFTER INSERT ON attempts
    BEGIN UPDATE gate SET claims = claims + 1 WHERE name = NEW.gate; END
    """,
    """
    CREATE TRIGGER counters_kept BEFORE DELETE ON counters
    BEGIN SELECT RAISE(ABORT, 'outbox: counters are never deleted'); END
    """,
    """
    CREATE TRIGGER gate_claims BEFORE UPDATE OF claims ON gate
    WHEN NEW.claims < OLD.claims
    BEGIN SELECT RAISE(ABORT, 'outbox: what was claimed stays counted'); END
    """,
    """
    CREATE TRIGGER gate_kept BEFORE DELETE ON gate
    BEGIN SELECT RAISE(ABORT, 'outbox: gate are never deleted'); END
    """,
)


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        made = Path(__file__).parents[1] / "postgresql" / "0004.sql"
        for statement in made.read_text(encoding="utf-8").split("\n\n"):
            op.get_bind().exec_driver_sql(statement)
        return
    for statement in STATEMENTS:
        op.execute(statement)
