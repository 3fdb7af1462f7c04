CREATE TABLE clock (
    id INTEGER NOT NULL,
    believed_at BIGINT NOT NULL,
    ignored_until BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT clock_one CHECK (id = 1)
)

CREATE TABLE counters (
    state TEXT COLLATE "C" NOT NULL,
    shard INTEGER NOT NULL,
    n BIGINT NOT NULL,
    PRIMARY KEY (state, shard),
    CONSTRAINT counters_state CHECK (state IN ('completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused'))
)

CREATE TABLE drafts (
    id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    agent TEXT COLLATE "C" NOT NULL,
    envelope TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    message_id TEXT COLLATE "C" NOT NULL,
    thread_references TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    fingerprint BYTEA NOT NULL,
    signature BYTEA NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C",
    about TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    not_before BIGINT,
    stop_asked_at BIGINT,
    attempt_id TEXT COLLATE "C",
    error_code TEXT COLLATE "C",
    error_message TEXT COLLATE "C",
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
    FOREIGN KEY(about) REFERENCES drafts (id)
)

CREATE TABLE gate (
    name TEXT COLLATE "C" NOT NULL,
    tripped_at BIGINT,
    until BIGINT,
    claims BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (name),
    CONSTRAINT gate_name CHECK (name IN ('mail', 'system')),
    CONSTRAINT gate_tripped CHECK ((tripped_at IS NULL) = (until IS NULL))
)

CREATE TABLE identity (
    id TEXT COLLATE "C" NOT NULL,
    ledger_since BIGINT NOT NULL,
    PRIMARY KEY (id)
)

CREATE TABLE journal (
    writer TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    action TEXT COLLATE "C" NOT NULL,
    draft_id TEXT COLLATE "C",
    attempt_id TEXT COLLATE "C",
    detail TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL,
    PRIMARY KEY (writer, seq),
    CONSTRAINT journal_mac CHECK (length(mac) = 32)
)

CREATE TABLE pause (
    id INTEGER NOT NULL,
    paused_at BIGINT,
    reason TEXT COLLATE "C",
    paused_by TEXT COLLATE "C",
    PRIMARY KEY (id),
    CONSTRAINT pause_one CHECK (id = 1),
    CONSTRAINT pause_whole CHECK ((paused_at IS NULL) = (reason IS NULL) AND (paused_at IS NULL) = (paused_by IS NULL))
)

CREATE TABLE workers (
    id TEXT COLLATE "C" NOT NULL,
    host TEXT COLLATE "C" NOT NULL,
    pid INTEGER NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    ledger TEXT COLLATE "C",
    visible INTEGER DEFAULT 0 NOT NULL,
    PRIMARY KEY (id)
)

CREATE TABLE attempts (
    id TEXT COLLATE "C" NOT NULL,
    draft_id TEXT COLLATE "C" NOT NULL,
    worker_id TEXT COLLATE "C" NOT NULL,
    gate TEXT COLLATE "C" NOT NULL,
    phase TEXT COLLATE "C" NOT NULL,
    outcome TEXT COLLATE "C",
    code INTEGER,
    enhanced TEXT COLLATE "C",
    text TEXT COLLATE "C",
    queue_id TEXT COLLATE "C",
    wire_digest BYTEA,
    started_at BIGINT NOT NULL,
    gap_at BIGINT,
    ended_at BIGINT,
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

CREATE TABLE grants (
    id TEXT COLLATE "C" NOT NULL,
    draft_id TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    approver TEXT COLLATE "C" NOT NULL,
    channel TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    signature BYTEA NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT grants_octets CHECK (length(digest) = 32 AND length(signature) = 32),
    CONSTRAINT grants_channel CHECK (channel IN ('reply', 'terminal')),
    CONSTRAINT grants_once UNIQUE (draft_id, approver),
    FOREIGN KEY(draft_id) REFERENCES drafts (id)
)

CREATE TABLE messages (
    draft_id TEXT COLLATE "C" NOT NULL,
    octets BYTEA NOT NULL,
    PRIMARY KEY (draft_id),
    FOREIGN KEY(draft_id) REFERENCES drafts (id)
)

CREATE TABLE rejections (
    draft_id TEXT COLLATE "C" NOT NULL,
    approver TEXT COLLATE "C" NOT NULL,
    channel TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (draft_id),
    CONSTRAINT rejections_channel CHECK (channel IN ('reply', 'terminal')),
    FOREIGN KEY(draft_id) REFERENCES drafts (id)
)

CREATE TABLE replies (
    id TEXT COLLATE "C" NOT NULL,
    mailbox TEXT COLLATE "C" NOT NULL,
    uid TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    received_at BIGINT NOT NULL,
    sender TEXT COLLATE "C" NOT NULL,
    message_id TEXT COLLATE "C" NOT NULL,
    draft_id TEXT COLLATE "C",
    verdict TEXT COLLATE "C" NOT NULL,
    counted INTEGER NOT NULL,
    why TEXT COLLATE "C" NOT NULL,
    answer_id TEXT COLLATE "C",
    PRIMARY KEY (id),
    CONSTRAINT replies_verdict CHECK (verdict IN ('approve', 'reject', 'cancel', 'unclear')),
    CONSTRAINT replies_counted CHECK (counted IN (0, 1)),
    CONSTRAINT replies_once UNIQUE (mailbox, uid),
    FOREIGN KEY(draft_id) REFERENCES drafts (id),
    FOREIGN KEY(answer_id) REFERENCES drafts (id)
)

CREATE TABLE requests (
    id BYTEA NOT NULL,
    draft_id TEXT COLLATE "C" NOT NULL,
    approver TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    carrier_id TEXT COLLATE "C" NOT NULL,
    ask INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    spent_at BIGINT,
    PRIMARY KEY (id),
    CONSTRAINT requests_octets CHECK (length(id) = 8 AND length(digest) = 32),
    CONSTRAINT requests_ask CHECK (ask BETWEEN 1 AND 3),
    CONSTRAINT requests_once UNIQUE (draft_id, approver, ask),
    FOREIGN KEY(draft_id) REFERENCES drafts (id),
    FOREIGN KEY(carrier_id) REFERENCES drafts (id)
)

CREATE TABLE resubmissions (
    draft_id TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (draft_id),
    FOREIGN KEY(draft_id) REFERENCES drafts (id)
)

CREATE TABLE codes (
    approver TEXT COLLATE "C" NOT NULL,
    step BIGINT NOT NULL,
    reply_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (approver, step),
    FOREIGN KEY(reply_id) REFERENCES replies (id)
)

CREATE TABLE evidence (
    id TEXT COLLATE "C" NOT NULL,
    draft_id TEXT COLLATE "C" NOT NULL,
    attempt_id TEXT COLLATE "C",
    source TEXT COLLATE "C" NOT NULL,
    found INTEGER,
    detail TEXT COLLATE "C" NOT NULL,
    octets BYTEA,
    at BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT evidence_found CHECK (found IN (0, 1)),
    FOREIGN KEY(draft_id) REFERENCES drafts (id),
    FOREIGN KEY(attempt_id) REFERENCES attempts (id)
)

CREATE TABLE proofs (
    reply_id TEXT COLLATE "C" NOT NULL,
    approver TEXT COLLATE "C" NOT NULL,
    method TEXT COLLATE "C" NOT NULL,
    domain TEXT COLLATE "C" NOT NULL,
    selector TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (reply_id),
    FOREIGN KEY(reply_id) REFERENCES replies (id)
)

CREATE TABLE recipients (
    attempt_id TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    code INTEGER NOT NULL,
    text TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (attempt_id, address),
    FOREIGN KEY(attempt_id) REFERENCES attempts (id)
)

CREATE TABLE seen_signatures (
    digest BYTEA NOT NULL,
    reply_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (digest),
    FOREIGN KEY(reply_id) REFERENCES replies (id)
)

CREATE TABLE settlements (
    attempt_id TEXT COLLATE "C" NOT NULL,
    draft_id TEXT COLLATE "C" NOT NULL,
    settled_as TEXT COLLATE "C" NOT NULL,
    settled_by TEXT COLLATE "C" NOT NULL,
    note TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (attempt_id),
    CONSTRAINT settlements_as CHECK (settled_as IN ('sent', 'not_sent', 'released')),
    FOREIGN KEY(attempt_id) REFERENCES attempts (id),
    FOREIGN KEY(draft_id) REFERENCES drafts (id)
)

CREATE TABLE signed_replies (
    reply_id TEXT COLLATE "C" NOT NULL,
    octets BYTEA NOT NULL,
    key_record TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (reply_id),
    FOREIGN KEY(reply_id) REFERENCES replies (id)
)

CREATE TABLE tellings (
    draft_id TEXT COLLATE "C" NOT NULL,
    approver TEXT COLLATE "C" NOT NULL,
    request_id BYTEA NOT NULL,
    reminded_at BIGINT,
    told_at BIGINT,
    PRIMARY KEY (draft_id, approver),
    FOREIGN KEY(draft_id) REFERENCES drafts (id),
    FOREIGN KEY(request_id) REFERENCES requests (id)
)

CREATE TABLE wrong_codes (
    reply_id TEXT COLLATE "C" NOT NULL,
    draft_id TEXT COLLATE "C" NOT NULL,
    approver TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (reply_id),
    FOREIGN KEY(reply_id) REFERENCES replies (id),
    FOREIGN KEY(draft_id) REFERENCES drafts (id)
)

ALTER TABLE drafts ADD CONSTRAINT drafts_attempt_id_fkey FOREIGN KEY(attempt_id) REFERENCES attempts (id) DEFERRABLE INITIALLY DEFERRED

CREATE INDEX drafts_approved ON drafts (not_before) WHERE state = 'approved' AND kind <> 'system'

CREATE INDEX drafts_approved_system ON drafts (not_before) WHERE state = 'approved' AND kind = 'system'

CREATE INDEX drafts_attempt ON drafts (attempt_id) WHERE attempt_id IS NOT NULL

CREATE INDEX drafts_ended ON drafts (state, id) WHERE state IN ('rejected', 'expired', 'cancelled', 'failed', 'refused')

CREATE INDEX drafts_executing ON drafts (id) WHERE state = 'executing'

CREATE INDEX drafts_expiring ON drafts (expires_at) WHERE state IN ('pending', 'approved')

CREATE INDEX drafts_failed ON drafts (error_code) WHERE state = 'failed'

CREATE INDEX drafts_message_id ON drafts (message_id)

CREATE INDEX drafts_of_draft ON drafts (about) WHERE about IS NOT NULL

CREATE INDEX drafts_pending ON drafts (id) WHERE state = 'pending'

CREATE INDEX drafts_rejected ON drafts (fingerprint) WHERE state = 'rejected'

CREATE INDEX journal_of_draft ON journal (draft_id)

CREATE INDEX workers_living ON workers (id) WHERE ended_at IS NULL

CREATE UNIQUE INDEX attempts_at_most_once ON attempts (draft_id) WHERE phase = 'gap' OR outcome IN ('accepted', 'in_doubt')

CREATE INDEX attempts_heat ON attempts (gate, gap_at) WHERE gap_at IS NOT NULL

CREATE INDEX attempts_of_draft ON attempts (draft_id)

CREATE UNIQUE INDEX attempts_open ON attempts (draft_id) WHERE phase <> 'done'

CREATE INDEX replies_answered ON replies (draft_id) WHERE answer_id IS NOT NULL

CREATE INDEX replies_counted ON replies (draft_id) WHERE counted = 1

CREATE INDEX replies_digest ON replies (digest)

CREATE INDEX replies_message_id ON replies (message_id)

CREATE INDEX evidence_of_draft ON evidence (draft_id)

CREATE INDEX settlements_of_draft ON settlements (draft_id)

CREATE INDEX tellings_open ON tellings (draft_id) WHERE told_at IS NULL

CREATE INDEX wrong_codes_of_approver ON wrong_codes (approver)

ALTER TABLE public.journal ADD COLUMN place BIGINT GENERATED ALWAYS AS IDENTITY

CREATE UNIQUE INDEX journal_places ON public.journal (place)

INSERT INTO gate (name) VALUES ('mail'), ('system')

INSERT INTO pause (id) VALUES (1)

INSERT INTO clock (id, believed_at, ignored_until) VALUES (1, 0, 0)

INSERT INTO identity (id, ledger_since) VALUES (replace(gen_random_uuid()::text, '-', ''), 0)

INSERT INTO counters (state, shard, n)
SELECT state, shard, 0
FROM unnest(ARRAY['completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused']) AS state, generate_series(0, 63) AS shard

CREATE FUNCTION public.outbox_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation';
END
$$

CREATE FUNCTION public.outbox_rooms() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    edge text := CASE TG_OP WHEN 'INSERT' THEN '' ELSE OLD.state END || ' ' || NEW.state;
    is_room boolean := false;
BEGIN
    IF pg_catalog.pg_has_role(pg_catalog.to_regrole('outbox_drafter')::oid, 'MEMBER') THEN
        IF edge IN (' pending', 'approved cancelled', 'pending cancelled') THEN
            RETURN NEW;
        END IF;
        is_room := true;
    END IF;
    IF pg_catalog.pg_has_role(pg_catalog.to_regrole('outbox_inbox')::oid, 'MEMBER') THEN
        IF edge IN (' approved', 'approved cancelled', 'approved expired', 'pending approved', 'pending cancelled', 'pending expired', 'pending failed', 'pending rejected') THEN
            RETURN NEW;
        END IF;
        is_room := true;
    END IF;
    IF pg_catalog.pg_has_role(pg_catalog.to_regrole('outbox_worker')::oid, 'MEMBER') THEN
        IF edge IN (' approved', 'approved executing', 'approved expired', 'executing approved', 'executing cancelled', 'executing completed', 'executing expired', 'executing failed', 'executing refused', 'pending expired') THEN
            RETURN NEW;
        END IF;
        is_room := true;
    END IF;
    IF pg_catalog.pg_has_role(pg_catalog.to_regrole('outbox_operator')::oid, 'MEMBER') THEN
        IF edge IN (' approved', ' pending', 'approved cancelled', 'approved executing', 'executing approved', 'executing completed', 'executing failed', 'pending approved', 'pending cancelled', 'pending rejected') THEN
            RETURN NEW;
        END IF;
        is_room := true;
    END IF;
    IF is_room AND edge IN (' approved', ' pending', 'approved cancelled', 'approved executing', 'approved expired', 'executing approved', 'executing cancelled', 'executing completed', 'executing expired', 'executing failed', 'executing refused', 'pending approved', 'pending cancelled', 'pending expired', 'pending failed', 'pending rejected') THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: this is not for this room to do', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$

CREATE FUNCTION public.drafts_grant() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT 1 FROM public.grants WHERE draft_id = NEW.id) THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: approval needs a grant', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$

CREATE FUNCTION public.drafts_rejection() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT 1 FROM public.rejections WHERE draft_id = NEW.id) THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: a rejection needs its reason', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$

CREATE FUNCTION public.drafts_release() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF EXISTS (SELECT 1 FROM public.attempts WHERE draft_id = NEW.id AND (phase <> 'done' OR outcome IN ('accepted', 'in_doubt'))) THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: an attempt is open or may have sent it', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$

CREATE FUNCTION public.drafts_failure() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF EXISTS (SELECT 1 FROM public.attempts WHERE draft_id = NEW.id AND (phase <> 'done' OR (outcome = 'in_doubt' AND NEW.kind <> 'system' AND NOT EXISTS (SELECT 1 FROM public.settlements WHERE attempt_id = attempts.id AND settled_as = 'not_sent')))) THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: an attempt is still open, or in doubt and not settled as not sent', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$

CREATE FUNCTION public.drafts_completion() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT 1 FROM public.attempts WHERE id = NEW.attempt_id AND draft_id = NEW.id AND phase = 'done' AND (outcome = 'accepted' OR (outcome = 'in_doubt' AND EXISTS (SELECT 1 FROM public.settlements WHERE attempt_id = attempts.id AND settled_as = 'sent')))) THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: completion needs an attempt that was accepted, or settled as sent', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$

CREATE FUNCTION public.messages_kept() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF (SELECT state FROM public.drafts WHERE id = OLD.draft_id) NOT IN ('completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused') THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: the octets of a live draft are never deleted', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END
$$

CREATE FUNCTION public.attempts_birth() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NEW.phase <> 'claimed' OR EXISTS (SELECT 1 FROM public.attempts WHERE id = NEW.id) OR NOT EXISTS (SELECT 1 FROM public.drafts WHERE id = NEW.draft_id AND state = 'executing' AND attempt_id = NEW.id) THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: an attempt begins with its claim', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$

CREATE FUNCTION public.attempts_gap_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM public.drafts WHERE id = NEW.draft_id FOR SHARE;
    IF (NOT EXISTS (SELECT 1 FROM public.drafts WHERE id = NEW.draft_id AND state = 'executing' AND attempt_id = NEW.id AND stop_asked_at IS NULL AND expires_at > NEW.gap_at) OR EXISTS (SELECT 1 FROM public.pause WHERE paused_at IS NOT NULL)) AND NOT EXISTS (SELECT 1 FROM public.evidence WHERE attempt_id = NEW.id AND (found = 1 OR source = 'ledger')) THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: the gap is entered only for a draft that may still be sent', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$

CREATE FUNCTION public.identity_one() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF EXISTS (SELECT 1 FROM public.identity) THEN
        RAISE EXCEPTION USING MESSAGE = 'outbox: a database has one identity', ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$

CREATE FUNCTION public.drafts_counted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.counters SET n = n + 1 WHERE state = NEW.state AND shard = mod(pg_backend_pid(), 64);
    RETURN NULL;
END
$$

CREATE FUNCTION public.attempts_counted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.gate SET claims = claims + 1 WHERE name = NEW.gate;
    RETURN NULL;
END
$$

CREATE TRIGGER drafts_birth BEFORE INSERT ON public.drafts FOR EACH ROW WHEN (NOT ((NEW.kind <> 'system' AND NEW.state = 'pending') OR (NEW.kind = 'system' AND NEW.state = 'approved'))) EXECUTE FUNCTION outbox_refuse('outbox: a draft is born pending, a system draft approved')

CREATE TRIGGER drafts_edges BEFORE UPDATE OF state ON public.drafts FOR EACH ROW WHEN (NEW.state <> OLD.state AND NOT ((OLD.state = 'pending' AND NEW.state IN ('approved', 'rejected', 'expired', 'failed', 'cancelled')) OR (OLD.state = 'approved' AND NEW.state IN ('cancelled', 'expired', 'executing')) OR (OLD.state = 'executing' AND NEW.state IN ('failed', 'refused', 'expired', 'cancelled', 'completed', 'approved')))) EXECUTE FUNCTION outbox_refuse('outbox: there is no such transition')

CREATE TRIGGER drafts_grant BEFORE UPDATE OF state ON public.drafts FOR EACH ROW WHEN (OLD.state = 'pending' AND NEW.state = 'approved') EXECUTE FUNCTION drafts_grant()

CREATE TRIGGER drafts_rejection BEFORE UPDATE OF state ON public.drafts FOR EACH ROW WHEN (NEW.state = 'rejected') EXECUTE FUNCTION drafts_rejection()

CREATE TRIGGER drafts_release BEFORE UPDATE OF state ON public.drafts FOR EACH ROW WHEN (OLD.state = 'executing' AND NEW.state IN ('approved', 'cancelled', 'expired', 'refused')) EXECUTE FUNCTION drafts_release()

CREATE TRIGGER drafts_failure BEFORE UPDATE OF state ON public.drafts FOR EACH ROW WHEN (OLD.state = 'executing' AND NEW.state = 'failed') EXECUTE FUNCTION drafts_failure()

CREATE TRIGGER drafts_completion BEFORE UPDATE OF state ON public.drafts FOR EACH ROW WHEN (NEW.state = 'completed') EXECUTE FUNCTION drafts_completion()

CREATE TRIGGER drafts_final BEFORE UPDATE ON public.drafts FOR EACH ROW WHEN (OLD.state IN ('completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused')) EXECUTE FUNCTION outbox_refuse('outbox: a final draft never changes')

CREATE TRIGGER drafts_stop BEFORE UPDATE OF stop_asked_at ON public.drafts FOR EACH ROW WHEN (OLD.stop_asked_at IS NOT NULL AND NEW.stop_asked_at IS DISTINCT FROM OLD.stop_asked_at) EXECUTE FUNCTION outbox_refuse('outbox: a stop cannot be taken back')

CREATE TRIGGER drafts_frozen BEFORE UPDATE OF id, kind, agent, envelope, subject, message_id, thread_references, digest, fingerprint, signature, key_id, idempotency_key, about, created_at, expires_at ON public.drafts FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of drafts never changes')

CREATE TRIGGER drafts_kept BEFORE DELETE ON public.drafts FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: drafts are never deleted')

CREATE TRIGGER messages_frozen BEFORE UPDATE ON public.messages FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of messages never changes')

CREATE TRIGGER messages_kept BEFORE DELETE ON public.messages FOR EACH ROW EXECUTE FUNCTION messages_kept()

CREATE TRIGGER requests_frozen BEFORE UPDATE OF id, draft_id, approver, digest, carrier_id, ask, created_at, expires_at ON public.requests FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of requests never changes')

CREATE TRIGGER requests_spent BEFORE UPDATE OF spent_at ON public.requests FOR EACH ROW WHEN (OLD.spent_at IS NOT NULL) EXECUTE FUNCTION outbox_refuse('outbox: a reply token is spent once')

CREATE TRIGGER requests_kept BEFORE DELETE ON public.requests FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: requests are never deleted')

CREATE TRIGGER grants_frozen BEFORE UPDATE ON public.grants FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of grants never changes')

CREATE TRIGGER grants_kept BEFORE DELETE ON public.grants FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: grants are never deleted')

CREATE TRIGGER rejections_frozen BEFORE UPDATE ON public.rejections FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of rejections never changes')

CREATE TRIGGER rejections_kept BEFORE DELETE ON public.rejections FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: rejections are never deleted')

CREATE TRIGGER attempts_birth BEFORE INSERT ON public.attempts FOR EACH ROW EXECUTE FUNCTION attempts_birth()

CREATE TRIGGER attempts_phases BEFORE UPDATE OF phase ON public.attempts FOR EACH ROW WHEN (NEW.phase <> OLD.phase AND NOT ((OLD.phase = 'claimed' AND NEW.phase IN ('gap', 'done')) OR (OLD.phase = 'gap' AND NEW.phase = 'done'))) EXECUTE FUNCTION outbox_refuse('outbox: phases only go forward')

CREATE TRIGGER attempts_gap_guard BEFORE UPDATE OF phase ON public.attempts FOR EACH ROW WHEN (OLD.phase = 'claimed' AND NEW.phase = 'gap') EXECUTE FUNCTION attempts_gap_guard()

CREATE TRIGGER attempts_gap_once BEFORE UPDATE OF gap_at, wire_digest ON public.attempts FOR EACH ROW WHEN (OLD.gap_at IS NOT NULL OR NEW.phase <> 'gap') EXECUTE FUNCTION outbox_refuse('outbox: the gap is entered once')

CREATE TRIGGER attempts_finished BEFORE UPDATE ON public.attempts FOR EACH ROW WHEN (OLD.phase = 'done') EXECUTE FUNCTION outbox_refuse('outbox: a finished attempt never changes')

CREATE TRIGGER attempts_frozen BEFORE UPDATE OF id, draft_id, worker_id, gate, started_at ON public.attempts FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of attempts never changes')

CREATE TRIGGER attempts_kept BEFORE DELETE ON public.attempts FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: attempts are never deleted')

CREATE TRIGGER recipients_frozen BEFORE UPDATE ON public.recipients FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of recipients never changes')

CREATE TRIGGER recipients_kept BEFORE DELETE ON public.recipients FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: recipients are never deleted')

CREATE TRIGGER replies_frozen BEFORE UPDATE ON public.replies FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of replies never changes')

CREATE TRIGGER replies_kept BEFORE DELETE ON public.replies FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: replies are never deleted')

CREATE TRIGGER resubmissions_frozen BEFORE UPDATE ON public.resubmissions FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of resubmissions never changes')

CREATE TRIGGER resubmissions_kept BEFORE DELETE ON public.resubmissions FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: resubmissions are never deleted')

CREATE TRIGGER proofs_frozen BEFORE UPDATE ON public.proofs FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of proofs never changes')

CREATE TRIGGER proofs_kept BEFORE DELETE ON public.proofs FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: proofs are never deleted')

CREATE TRIGGER seen_signatures_frozen BEFORE UPDATE ON public.seen_signatures FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of seen_signatures never changes')

CREATE TRIGGER seen_signatures_kept BEFORE DELETE ON public.seen_signatures FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: seen_signatures are never deleted')

CREATE TRIGGER codes_frozen BEFORE UPDATE ON public.codes FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of codes never changes')

CREATE TRIGGER codes_kept BEFORE DELETE ON public.codes FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: codes are never deleted')

CREATE TRIGGER wrong_codes_frozen BEFORE UPDATE ON public.wrong_codes FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of wrong_codes never changes')

CREATE TRIGGER wrong_codes_kept BEFORE DELETE ON public.wrong_codes FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: wrong_codes are never deleted')

CREATE TRIGGER signed_replies_frozen BEFORE UPDATE ON public.signed_replies FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of signed_replies never changes')

CREATE TRIGGER signed_replies_kept BEFORE DELETE ON public.signed_replies FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: signed_replies are never deleted')

CREATE TRIGGER evidence_frozen BEFORE UPDATE ON public.evidence FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of evidence never changes')

CREATE TRIGGER evidence_kept BEFORE DELETE ON public.evidence FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: evidence are never deleted')

CREATE TRIGGER settlements_frozen BEFORE UPDATE ON public.settlements FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of settlements never changes')

CREATE TRIGGER settlements_kept BEFORE DELETE ON public.settlements FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: settlements are never deleted')

CREATE TRIGGER pause_kept BEFORE DELETE ON public.pause FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: pause are never deleted')

CREATE TRIGGER clock_kept BEFORE DELETE ON public.clock FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: clock are never deleted')

CREATE TRIGGER identity_one BEFORE INSERT ON public.identity FOR EACH ROW EXECUTE FUNCTION identity_one()

CREATE TRIGGER identity_frozen BEFORE UPDATE ON public.identity FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of identity never changes')

CREATE TRIGGER identity_kept BEFORE DELETE ON public.identity FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: identity are never deleted')

CREATE TRIGGER tellings_frozen BEFORE UPDATE OF draft_id, approver, request_id ON public.tellings FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of tellings never changes')

CREATE TRIGGER tellings_once BEFORE UPDATE ON public.tellings FOR EACH ROW WHEN (OLD.told_at IS NOT NULL OR (OLD.reminded_at IS NOT NULL AND NEW.reminded_at IS DISTINCT FROM OLD.reminded_at)) EXECUTE FUNCTION outbox_refuse('outbox: an approver is told once')

CREATE TRIGGER tellings_kept BEFORE DELETE ON public.tellings FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: tellings are never deleted')

CREATE TRIGGER journal_frozen BEFORE UPDATE ON public.journal FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: this part of journal never changes')

CREATE TRIGGER journal_kept BEFORE DELETE ON public.journal FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: journal are never deleted')

CREATE TRIGGER workers_ended BEFORE UPDATE ON public.workers FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL OR NEW.id <> OLD.id OR NEW.started_at <> OLD.started_at) EXECUTE FUNCTION outbox_refuse('outbox: a worker ends once')

CREATE TRIGGER workers_kept BEFORE DELETE ON public.workers FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: workers are never deleted')

CREATE TRIGGER drafts_counted AFTER UPDATE OF state ON public.drafts FOR EACH ROW WHEN (NEW.state IN ('completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused') AND NEW.kind <> 'system') EXECUTE FUNCTION drafts_counted()

CREATE TRIGGER attempts_counted AFTER INSERT ON public.attempts FOR EACH ROW EXECUTE FUNCTION attempts_counted()

CREATE TRIGGER counters_kept BEFORE DELETE ON public.counters FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: counters are never deleted')

CREATE TRIGGER gate_claims BEFORE UPDATE OF claims ON public.gate FOR EACH ROW WHEN (NEW.claims < OLD.claims) EXECUTE FUNCTION outbox_refuse('outbox: what was claimed stays counted')

CREATE TRIGGER gate_kept BEFORE DELETE ON public.gate FOR EACH ROW EXECUTE FUNCTION outbox_refuse('outbox: gate are never deleted')

CREATE TRIGGER drafts_rooms BEFORE UPDATE OF state ON public.drafts FOR EACH ROW WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION outbox_rooms()

CREATE TRIGGER drafts_rooms_birth BEFORE INSERT ON public.drafts FOR EACH ROW EXECUTE FUNCTION outbox_rooms()

CREATE TRIGGER drafts_whole BEFORE TRUNCATE ON public.drafts FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: drafts are never deleted')

CREATE TRIGGER messages_whole BEFORE TRUNCATE ON public.messages FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: messages are never deleted')

CREATE TRIGGER requests_whole BEFORE TRUNCATE ON public.requests FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: requests are never deleted')

CREATE TRIGGER grants_whole BEFORE TRUNCATE ON public.grants FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: grants are never deleted')

CREATE TRIGGER rejections_whole BEFORE TRUNCATE ON public.rejections FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: rejections are never deleted')

CREATE TRIGGER resubmissions_whole BEFORE TRUNCATE ON public.resubmissions FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: resubmissions are never deleted')

CREATE TRIGGER workers_whole BEFORE TRUNCATE ON public.workers FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: workers are never deleted')

CREATE TRIGGER attempts_whole BEFORE TRUNCATE ON public.attempts FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: attempts are never deleted')

CREATE TRIGGER recipients_whole BEFORE TRUNCATE ON public.recipients FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: recipients are never deleted')

CREATE TRIGGER replies_whole BEFORE TRUNCATE ON public.replies FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: replies are never deleted')

CREATE TRIGGER proofs_whole BEFORE TRUNCATE ON public.proofs FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: proofs are never deleted')

CREATE TRIGGER seen_signatures_whole BEFORE TRUNCATE ON public.seen_signatures FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: seen_signatures are never deleted')

CREATE TRIGGER codes_whole BEFORE TRUNCATE ON public.codes FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: codes are never deleted')

CREATE TRIGGER wrong_codes_whole BEFORE TRUNCATE ON public.wrong_codes FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: wrong_codes are never deleted')

CREATE TRIGGER tellings_whole BEFORE TRUNCATE ON public.tellings FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: tellings are never deleted')

CREATE TRIGGER signed_replies_whole BEFORE TRUNCATE ON public.signed_replies FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: signed_replies are never deleted')

CREATE TRIGGER evidence_whole BEFORE TRUNCATE ON public.evidence FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: evidence are never deleted')

CREATE TRIGGER settlements_whole BEFORE TRUNCATE ON public.settlements FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: settlements are never deleted')

CREATE TRIGGER pause_whole BEFORE TRUNCATE ON public.pause FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: pause are never deleted')

CREATE TRIGGER clock_whole BEFORE TRUNCATE ON public.clock FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: clock are never deleted')

CREATE TRIGGER identity_whole BEFORE TRUNCATE ON public.identity FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: identity are never deleted')

CREATE TRIGGER gate_whole BEFORE TRUNCATE ON public.gate FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: gate are never deleted')

CREATE TRIGGER counters_whole BEFORE TRUNCATE ON public.counters FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: counters are never deleted')

CREATE TRIGGER journal_whole BEFORE TRUNCATE ON public.journal FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse('outbox: journal are never deleted')
