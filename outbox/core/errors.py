"""Everything that Outbox refuses, as one tree; each class says who can mend it.

    OutboxError
    ├── ConfigError          78  the operator: a setting, a key file, the database's revision
    ├── UsageError            2  the caller: what was asked for makes no sense
    ├── PolicyRefused         1  the agent: the draft breaks a rule; nothing was written
    ├── StateRefused          1  the caller: the draft is no longer where the verb needs it
    │   └── DraftUnknown      1  the caller: there is no such draft
    ├── VerificationFailed    1  the operator: a row is not what was signed
    ├── NotPermitted         77  whoever runs the command: this user or setting may not do it
    ├── Unavailable          69  the operator: relay, mailbox or database cannot be reached
    └── TryLater             75  nobody: it will pass (thermal cutout, a living worker)

An error carries its evidence as attributes and is rendered once, at the edge: one line for people, the same words as
JSON with a stable code. docs/reference/errors.md explains every code.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """Stable codes: of errors on the command line, of policy violations, and in a draft's `error`."""

    # Set-up
    CONFIG_MISSING = "config_missing"
    CONFIG_INVALID = "config_invalid"
    CONFIG_UNKNOWN = "config_unknown"
    SETTING_MISSING = "setting_missing"
    NOT_SUPPORTED = "not_supported"
    KEY_MISSING = "key_missing"
    KEY_SHORT = "key_short"
    KEY_SHARED = "key_shared"
    KEY_EXPOSED = "key_exposed"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105  a code, not a secret
    DATABASE_MISSING = "database_missing"
    DATABASE_REVISION = "database_revision"
    DATABASE_ALTERED = "database_altered"
    DATABASE_UNAVAILABLE = "database_unavailable"
    FILE_EXISTS = "file_exists"
    EXTRA_MISSING = "extra_missing"
    LEDGER_MISSING = "ledger_missing"
    LEDGER_ALTERED = "ledger_altered"
    LEDGER_AHEAD = "ledger_ahead"
    LEDGER_UNWRITABLE = "ledger_unwritable"
    RELAY_LOGIN = "relay_login"
    # Use
    USAGE = "usage"
    FILE_UNREADABLE = "file_unreadable"
    DRAFT_UNKNOWN = "draft_unknown"
    STATE_CONFLICT = "state_conflict"
    APPROVER_UNKNOWN = "approver_unknown"
    TERMINAL_OFF = "terminal_off"
    DEMO_FAILED = "demo_failed"
    CHECK_FAILED = "check_failed"
    ALERTS_OPEN = "alerts_open"
    NOT_PROVEN = "not_proven"
    MAY_DUPLICATE = "may_duplicate"
    KEY_UNKNOWN = "key_unknown"
    KEY_IN_USE = "key_in_use"
    JOURNAL_BROKEN = "journal_broken"
    RECEIPT_INVALID = "receipt_invalid"
    OCTETS_PRUNED = "octets_pruned"
    # Policy at drafting, looked at again by the worker
    FROM_DOMAIN = "from_domain"
    NO_RECIPIENT = "no_recipient"
    TOO_MANY_RECIPIENTS = "too_many_recipients"
    ADDRESS_INVALID = "address_invalid"
    APPROVAL_ADDRESS = "approval_address"
    SUBJECT_EMPTY = "subject_empty"
    SUBJECT_TOO_LONG = "subject_too_long"
    BODY_EMPTY = "body_empty"
    ATTACHMENT_MISSING = "attachment_missing"
    ATTACHMENT_UNREADABLE = "attachment_unreadable"
    ATTACHMENT_TOO_LARGE = "attachment_too_large"
    ATTACHMENTS_TOO_LARGE = "attachments_too_large"
    AGENT_INVALID = "agent_invalid"
    HEADER_INJECTION = "header_injection"
    MESSAGE_MALFORMED = "message_malformed"
    NON_DELEGABLE_KIND = "non_delegable_kind"
    UNKNOWN_KIND = "unknown_kind"
    TTL_OUT_OF_RANGE = "ttl_out_of_range"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    ALREADY_REJECTED = "already_rejected"
    SOME_REFUSED = "some_refused"
    # What the inbox finds
    MAILBOX_UNREACHABLE = "mailbox_unreachable"
    MAILBOX_REFUSED = "mailbox_refused"
    DNS_UNAVAILABLE = "dns_unavailable"
    REPLIES_WAIT = "replies_wait"
    REPLY_SET_ASIDE = "reply_set_aside"
    CODES_EXHAUSTED = "codes_exhausted"
    # What the worker finds before it connects
    ROW_UNREADABLE = "row_unreadable"
    DIGEST_MISMATCH = "digest_mismatch"
    SIGNATURE_INVALID = "signature_invalid"
    GRANT_MISSING = "grant_missing"
    GRANT_INVALID = "grant_invalid"
    SYSTEM_RECIPIENT = "system_recipient"
    DATED_AHEAD = "dated_ahead"
    POSSIBLY_SENT = "possibly_sent"
    # How a draft ends
    EXPIRED = "expired"
    STOPPED = "stopped"
    RELAY_REFUSED = "relay_refused"
    RELAY_LACKS = "relay_lacks"
    IN_DOUBT = "in_doubt"
    SETTLED = "settled"
    RESTORED = "restored"
    KEY_REVOKED = "key_revoked"
    WORKER_FAILED = "worker_failed"
    PRESUMED_DEAD = "presumed_dead"
    WORKER_DEAD = "worker_dead"
    NO_WORKER = "no_worker"
    LATE_REPLY = "late_reply"
    UNDELIVERED = "undelivered"
    # Pauses
    THERMAL = "thermal"
    CIRCUIT_OPEN = "circuit_open"
    PAUSED = "paused"
    CLOCK_JUMPED = "clock_jumped"
    WORKER_ALIVE = "worker_alive"
    ANSWER_POSSIBLE = "answer_possible"


class OutboxError(Exception):
    """What went wrong, to what, and what to do, in one line; `code` is stable, `field` names a setting or flag."""

    exit_code: ClassVar[int] = 1

    def __init__(self, code: Code, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


class ConfigError(OutboxError):
    """The operator mends it: a setting, a key file or the database's revision; nothing was opened."""

    exit_code = 78


class UsageError(OutboxError):
    """The caller mends it: flags that are missing or contradict each other."""

    exit_code = 2


class PolicyRefused(OutboxError):
    """The agent mends it: the draft breaks a rule. No row was written."""


class StateRefused(OutboxError):
    """Nobody need mend it: the draft is no longer in a state that allows what was asked."""


class DraftUnknown(StateRefused):
    """The caller mends it: there is no such draft, or none of his."""


class VerificationFailed(OutboxError):
    """The operator looks into it: a stored row is not what was signed. Nothing was sent."""


class NotPermitted(OutboxError):
    """Whoever asked may not do it: by settings, or for want of a key."""

    exit_code = 77


class Unavailable(OutboxError):
    """The operator mends it: the relay, the mailbox or the database cannot be reached."""

    exit_code = 69


class TryLater(OutboxError):
    """Time mends it: the thermal cutout is open, or a living worker holds the draft."""

    exit_code = 75
