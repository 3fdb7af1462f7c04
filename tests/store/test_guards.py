"""Each guard in the database refuses, in its own words, what a hand at the SQL prompt tries."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, LargeBinary, UniqueConstraint

from outbox.core.lifecycle import EDGES, FINAL, State
from outbox.store.schema import metadata
from outbox.store.triggers import SIGNED_COLUMNS, TRIGGERS
from tests.house import House
from tests.postgres.plain import Plain
from tests.store.stage import dump
from tests.store.stock import EXECUTING

OCTETS = "zeroblob(32)"
DONE = "phase = 'done', ended_at = 1"
GAP = f"phase = 'gap', gap_at = 1, wire_digest = {OCTETS}"
DRAFT = {
    "id": "'new'", "kind": "'email'", "agent": "'agent'", "envelope": "'{}'", "subject": "''", "message_id": "''",
    "thread_references": "'{}'", "digest": OCTETS, "fingerprint": OCTETS, "signature": OCTETS, "key_id": "''",
    "created_at": "1", "expires_at": "2", "state": "'pending'",
}  # fmt: skip
REQUEST = {
    "id": "x'0000000000000001'", "draft_id": "'pending'", "approver": "'other'", "digest": OCTETS,
    "carrier_id": "'notice'", "ask": "1", "created_at": "1", "expires_at": "2",
}  # fmt: skip
GRANT = {
    "id": "'new'", "draft_id": "'pending'", "digest": OCTETS, "approver": "'other'", "channel": "'reply'", "at": "1",
    "expires_at": "2", "signature": OCTETS, "key_id": "''",
}  # fmt: skip
REJECTION = {"draft_id": "'pending'", "approver": "'other'", "channel": "'reply'", "reason": "''", "at": "1"}
ATTEMPT = {
    "id": "'second'", "draft_id": "'approved'", "worker_id": "'w1'", "gate": "'mail'", "phase": "'claimed'",
    "started_at": "1",
}  # fmt: skip
REPLY = {
    "id": "'new'", "mailbox": "'maildir'", "uid": "'2'", "digest": OCTETS, "received_at": "1", "sender": "''",
    "message_id": "''", "verdict": "'unclear'", "counted": "0", "why": "''",
}  # fmt: skip
SETTLEMENT = {
    "attempt_id": "'try-of-doubtful'", "draft_id": "'doubtful'", "settled_as": "'sent'", "settled_by": "''",
    "note": "''", "at": "1",
}  # fmt: skip
EVIDENCE = {"id": "'new'", "draft_id": "'doubtful'", "source": "''", "detail": "''", "at": "1"}
PAUSED = "UPDATE pause SET paused_at = 1, reason = 'x', paused_by = 'x'"
JOURNAL = {
    "writer": "'w'", "seq": "1", "at": "1", "action": "'x'", "detail": "'{}'", "key_id": "''", "mac": OCTETS,
}  # fmt: skip


def row(table: str, base: dict[str, str], *, insert: str = "INSERT", **changes: str) -> str:
    """An INSERT of SQL expressions."""
    values = base | changes
    return f"{insert} INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def moved(name: str, state: str, more: str = "") -> str:
    return f"UPDATE drafts SET state = '{state}'{', ' if more else ''}{more} WHERE id = '{name}'"


def tried(name: str, changes: str) -> str:
    return f"UPDATE attempts SET {changes} WHERE id = 'try-of-{name}'"


def held_by(name: str, attempt: str) -> str:
    return f"UPDATE drafts SET attempt_id = '{attempt}' WHERE id = '{name}'"


@dataclass(frozen=True)
class Break:
    """One way to get past a guard: `steps` are accepted, `last` is refused. `without` are triggers in front of it."""

    guard: str
    last: str
    steps: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


BREAKS = [
    # Birth
    Break("drafts_birth", row("drafts", DRAFT, state="'approved'", not_before="1")),
    Break("drafts_birth", row("drafts", DRAFT, state="'failed'", error_code="'x'", error_message="'x'")),
    Break("drafts_birth", row("drafts", DRAFT, state="'executing'", not_before="1", attempt_id="'try-of-gap'")),
    Break("drafts_birth", row("drafts", DRAFT, kind="'system'")),
    Break("drafts_birth", row("drafts", DRAFT, insert="INSERT OR IGNORE", state="'approved'", not_before="1")),
    Break("drafts_birth", "INSERT OR REPLACE INTO drafts SELECT * FROM drafts WHERE id = 'completed'"),
    Break("attempts_birth", row("attempts", ATTEMPT)),
    Break("attempts_birth", row("attempts", ATTEMPT, draft_id="'pending'")),
    Break("attempts_birth", row("attempts", ATTEMPT, draft_id="'unsent'")),
    Break("attempts_birth", row("attempts", ATTEMPT, draft_id="'completed'")),
    Break(
        "attempts_birth",
        row("attempts", ATTEMPT, draft_id="'unsent'", phase="'gap'", gap_at="1", wire_digest=OCTETS),
        (held_by("unsent", "second"),),
    ),
    # Edges
    Break("drafts_edges", moved("pending", "executing", "not_before = 1, attempt_id = 'try-of-gap'")),
    Break("drafts_edges", moved("approved", "pending")),
    Break("drafts_edges", moved("unsent", "pending")),
    Break("drafts_edges", moved("notice", "pending")),
    Break("drafts_grant", moved("pending", "approved", "not_before = 1")),
    Break("drafts_rejection", moved("pending", "rejected")),
    Break("drafts_failure", moved("claimed", "failed", "error_code = 'x', error_message = 'x'")),
    Break("drafts_failure", moved("gap", "failed", "error_code = 'x', error_message = 'x'")),
    Break("drafts_failure", moved("doubtful", "failed", "error_code = 'x', error_message = 'x'")),
    *(
        Break(
            "drafts_failure",
            moved("doubtful", "failed", "error_code = 'x', error_message = 'x'"),
            (row("settlements", SETTLEMENT, settled_as=f"'{other}'"),),
        )
        for other in ("sent", "released")
    ),
    Break(
        "drafts_failure",
        moved("doubtful", "failed", "error_code = 'x', error_message = 'x'"),
        (row("settlements", SETTLEMENT, settled_as="'not_sent'", attempt_id="'try-of-unsent'"),),
    ),
    *(
        Break("drafts_release", moved(name, state, "error_code = 'x', error_message = 'x'"))
        for name in ("claimed", "gap", "doubtful", "accepted")
        for state in ("approved", "cancelled", "expired", "refused")
    ),
    *(Break("drafts_completion", moved(name, "completed")) for name in ("claimed", "gap", "unsent")),
    Break("drafts_completion", moved("unsent", "completed", "attempt_id = 'try-of-accepted'")),
    Break("drafts_completion", moved("doubtful", "completed")),
    *(
        Break("drafts_completion", moved("doubtful", "completed"), (row("settlements", SETTLEMENT, **changes),))
        for changes in (
            {"settled_as": "'not_sent'"}, {"settled_as": "'released'"}, {"attempt_id": "'try-of-unsent'"},
        )
    ),
    Break(
        "drafts_completion",
        moved("unsent", "completed"),
        (row("settlements", SETTLEMENT, attempt_id="'try-of-unsent'", draft_id="'unsent'"),),
    ),
    *(
        Break("drafts_final", f"UPDATE drafts SET {column} = 1 WHERE id = '{state}'")
        for state in sorted(FINAL)
        for column in ("not_before", "stop_asked_at", "attempt_id", "error_code", "error_message")
    ),
    Break("drafts_stop", "UPDATE drafts SET stop_asked_at = NULL WHERE id = 'claimed'",
          ("UPDATE drafts SET stop_asked_at = 1 WHERE id = 'claimed'",)),
    Break("drafts_stop", "UPDATE drafts SET stop_asked_at = 2 WHERE id = 'gap'",
          ("UPDATE drafts SET stop_asked_at = 1 WHERE id = 'gap'",)),
    # Phases
    Break("attempts_phases", tried("gap", "phase = 'claimed'")),
    Break("attempts_gap_guard", tried("claimed", GAP), ("UPDATE drafts SET stop_asked_at = 1 WHERE id = 'claimed'",)),
    Break("attempts_gap_guard", tried("claimed", GAP.replace("gap_at = 1", "gap_at = 9000000000000000000"))),
    Break("attempts_gap_guard", tried("claimed", GAP), (PAUSED,)),
    Break("attempts_gap_guard", tried("claimed", GAP), (held_by("claimed", "try-of-gap"),)),
    Break("attempts_gap_guard", tried("claimed", GAP), (held_by("claimed", "try-of-doubtful"),)),
    Break("attempts_gap_once", tried("gap", "gap_at = 2")),
    Break("attempts_gap_once", tried("gap", "gap_at = NULL, wire_digest = NULL")),
    Break("attempts_gap_once", tried("gap", "wire_digest = randomblob(32)")),
    Break("attempts_gap_once", tried("claimed", f"gap_at = 1, wire_digest = {OCTETS}")),
    Break("attempts_gap_once", tried("claimed", f"{DONE}, outcome = 'accepted', gap_at = 1, wire_digest = {OCTETS}")),
    Break("attempts_finished", tried("unsent", "outcome = 'accepted'")),
    Break("attempts_finished", tried("doubtful", "outcome = 'not_sent'")),
    Break("attempts_finished", tried("accepted", "text = 'x'")),
    # At most once
    Break("attempts_open", row("attempts", ATTEMPT, draft_id="'claimed'"), (held_by("claimed", "second"),)),
    Break("attempts_open", row("attempts", ATTEMPT, draft_id="'gap'"), (held_by("gap", "second"),)),
    *(
        Break(
            "attempts_at_most_once",
            f"UPDATE attempts SET {GAP} WHERE id = 'second'",
            (held_by(name, "second"), row("attempts", ATTEMPT, draft_id=f"'{name}'")),
        )
        for name in ("doubtful", "accepted")
    ),
    # Rows that stay
    Break("messages_kept", "DELETE FROM messages WHERE draft_id = 'pending'"),
    Break("messages_kept", "DELETE FROM messages WHERE draft_id = 'approved'"),
    Break("messages_kept", "DELETE FROM messages WHERE draft_id = 'gap'"),
    Break("messages_kept", "INSERT OR REPLACE INTO messages VALUES ('approved', x'00')"),
    *(
        Break(f"{table}_kept", f"DELETE FROM {table}")
        for table in sorted(metadata.tables.keys() - {"messages"})
    ),
    *(
        # that an attempt is there already is seen before it is taken out, so even where triggers do not recurse
        Break(
            {"attempts": "attempts_birth", "identity": "identity_one"}.get(table, f"{table}_kept"),
            f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} {which}",
        )
        for table, which in {
            "drafts": "WHERE id = 'pending'", "requests": "", "grants": "", "rejections": "",
            "attempts": "WHERE id = 'try-of-claimed'", "recipients": "", "replies": "", "journal": "", "workers": "",
            "resubmissions": "", "proofs": "", "seen_signatures": "", "codes": "", "wrong_codes": "", "tellings": "",
            "signed_replies": "", "evidence": "", "settlements": "", "pause": "", "clock": "", "identity": "",
            "counters": "", "gate": "",
        }.items()
    ),
    Break("drafts_kept", row("drafts", DRAFT, insert="INSERT OR REPLACE", idempotency_key="'once'")),
    Break(
        "attempts_kept",
        row("attempts", ATTEMPT, insert="INSERT OR REPLACE", draft_id="'gap'"),
        (held_by("gap", "second"),),
    ),
    Break(
        "attempts_kept",
        f"UPDATE OR REPLACE attempts SET {GAP} WHERE id = 'second'",
        (held_by("doubtful", "second"), row("attempts", ATTEMPT, draft_id="'doubtful'")),
    ),
    Break("requests_spent", "UPDATE requests SET spent_at = NULL", ("UPDATE requests SET spent_at = 1",)),
    Break("requests_spent", "UPDATE requests SET spent_at = 2", ("UPDATE requests SET spent_at = 1",)),
    *(
        Break("tellings_once", f"UPDATE tellings SET {then}", (f"UPDATE tellings SET {first}",))
        for first, then in (
            ("told_at = 1", "told_at = NULL"), ("told_at = 1", "told_at = 2"), ("told_at = 1", "reminded_at = 1"),
            ("reminded_at = 1", "reminded_at = NULL"), ("reminded_at = 1", "reminded_at = 2, told_at = 1"),
        )
    ),
    Break("workers_ended", "UPDATE workers SET ended_at = NULL WHERE id = 'w0'"),
    Break("workers_ended", "UPDATE workers SET ended_at = 9 WHERE id = 'w0'"),
    # Columns that never change: each of them is in FROZEN too
    Break("drafts_frozen", "UPDATE drafts SET digest = zeroblob(32) WHERE id = 'pending'"),
    Break(
        "drafts_frozen",
        row("drafts", DRAFT, id="'pending'") + " ON CONFLICT (id) DO UPDATE SET envelope = excluded.envelope",
    ),
    Break("messages_frozen", "UPDATE messages SET octets = x'00' WHERE draft_id = 'completed'"),
    Break("requests_frozen", "UPDATE requests SET digest = zeroblob(32)"),
    Break("grants_frozen", "UPDATE grants SET expires_at = expires_at + 1"),
    Break("rejections_frozen", "UPDATE rejections SET reason = 'x'"),
    Break("attempts_frozen", tried("claimed", "draft_id = 'approved'")),
    Break("recipients_frozen", "UPDATE recipients SET text = 'x'"),
    Break("replies_frozen", "UPDATE replies SET counted = 1"),
    Break("resubmissions_frozen", "UPDATE resubmissions SET reason = 'x'"),
    Break("proofs_frozen", "UPDATE proofs SET selector = 'x'"),
    Break("seen_signatures_frozen", "UPDATE seen_signatures SET digest = zeroblob(32)"),
    Break("codes_frozen", "UPDATE codes SET step = step + 1"),
    Break("wrong_codes_frozen", "UPDATE wrong_codes SET approver = 'x'"),
    Break("tellings_frozen", "UPDATE tellings SET approver = 'x'"),
    Break("signed_replies_frozen", "UPDATE signed_replies SET octets = x'00'"),
    Break("evidence_frozen", "UPDATE evidence SET found = 0"),
    Break("settlements_frozen", "UPDATE settlements SET settled_as = 'not_sent'"),
    Break("identity_frozen", "UPDATE identity SET ledger_since = 9000000000000000000"),
    Break("journal_frozen", "UPDATE journal SET detail = '{}'"),
    # What a row may hold
    Break("drafts_state", moved("pending", "sent"), without=("drafts_edges",)),
    Break("drafts_state", row("drafts", DRAFT, state="'sent'"), without=("drafts_birth",)),
    *(
        Break("drafts_octets", row("drafts", DRAFT, **{column: "zeroblob(31)"}))
        for column in ("digest", "fingerprint", "signature")
    ),
    Break("drafts_lifetime", row("drafts", DRAFT, expires_at="1")),
    Break("drafts_due", moved("pending", "approved"), (row("grants", GRANT),)),
    Break("drafts_due", "UPDATE drafts SET not_before = NULL WHERE id = 'approved'"),
    Break("drafts_due", row("drafts", DRAFT, kind="'system'", state="'approved'")),
    Break("drafts_held", moved("approved", "executing")),
    Break("drafts_held", "UPDATE drafts SET attempt_id = NULL WHERE id = 'gap'"),
    Break("drafts_error", "UPDATE drafts SET error_code = 'x' WHERE id = 'pending'"),
    Break("drafts_error", "UPDATE drafts SET error_message = 'x' WHERE id = 'pending'"),
    Break("drafts_reason", moved("pending", "failed")),
    Break("drafts_reason", moved("unsent", "refused")),
    Break("drafts_about", row("drafts", DRAFT, about="'pending'")),
    Break("drafts_once", row("drafts", DRAFT, idempotency_key="'once'")),
    Break("requests_octets", row("requests", REQUEST, id="zeroblob(7)")),
    Break("requests_octets", row("requests", REQUEST, digest="zeroblob(31)")),
    Break("requests_ask", row("requests", REQUEST, ask="0")),
    Break("requests_ask", row("requests", REQUEST, ask="4")),
    Break("requests_once", row("requests", REQUEST, approver="(SELECT approver FROM requests)")),
    Break("grants_octets", row("grants", GRANT, digest="zeroblob(31)")),
    Break("grants_octets", row("grants", GRANT, signature="zeroblob(33)")),
    Break("grants_channel", row("grants", GRANT, channel="'link'")),
    Break("grants_once", row("grants", GRANT, id="'another'"), (row("grants", GRANT),)),
    Break("rejections_channel", row("rejections", REJECTION, channel="'link'")),
    Break("attempts_phase", tried("claimed", "phase = 'sent'"), without=("attempts_phases",)),
    Break("attempts_outcome", tried("claimed", "phase = 'done', ended_at = 1, outcome = 'sent'")),
    Break("attempts_done", tried("claimed", "phase = 'done', ended_at = 1")),
    Break("attempts_done", tried("claimed", "outcome = 'not_sent'")),
    Break("attempts_ended", tried("claimed", "phase = 'done', outcome = 'not_sent'")),
    Break("attempts_ended", tried("gap", "ended_at = 1")),
    Break("attempts_wire", tried("claimed", "phase = 'gap', gap_at = 1")),
    Break("attempts_wire", tried("claimed", f"{DONE}, outcome = 'not_sent', wire_digest = {OCTETS}"),
          without=("attempts_gap_once",)),
    Break("attempts_gap", tried("claimed", "phase = 'gap'"), without=("attempts_gap_guard",)),
    Break(
        "attempts_claimed",
        row("attempts", ATTEMPT, draft_id="'unsent'", gap_at="1", wire_digest=OCTETS),
        (held_by("unsent", "second"),),
    ),
    *(
        Break("attempts_possibly_sent", tried("claimed", f"phase = 'done', ended_at = 1, outcome = '{outcome}'"))
        for outcome in ("accepted", "in_doubt")
    ),
    Break("replies_verdict", row("replies", REPLY, verdict="'maybe'")),
    Break("replies_counted", row("replies", REPLY, counted="2")),
    Break("replies_once", row("replies", REPLY, uid="'uid'")),
    Break("evidence_found", row("evidence", EVIDENCE, found="2")),
    Break("settlements_as", row("settlements", SETTLEMENT, settled_as="'delivered'")),
    Break("pause_one", "INSERT INTO pause (id) VALUES (2)"),
    Break("pause_one", "UPDATE pause SET id = 2"),
    Break("clock_one", "INSERT INTO clock VALUES (2, 0, 0)"),
    Break("clock_one", "UPDATE clock SET id = 2"),
    Break("identity_one", "INSERT INTO identity VALUES ('another', 0)"),
    Break("pause_whole", PAUSED.replace(", reason = 'x'", "")),
    Break("pause_whole", PAUSED.replace(", paused_by = 'x'", "")),
    Break("pause_whole", "UPDATE pause SET paused_at = NULL", (PAUSED,)),
    Break("gate_name", "INSERT INTO gate (name) VALUES ('other')"),
    Break("gate_tripped", "UPDATE gate SET tripped_at = 1"),
    Break("gate_tripped", "UPDATE gate SET until = 1"),
    Break("gate_claims", "UPDATE gate SET claims = claims - 1"),
    Break("gate_claims", "UPDATE gate SET claims = 0 WHERE name = 'mail'"),
    Break("counters_state", "INSERT INTO counters VALUES ('pending', 0, 0)"),
    Break("journal_mac", row("journal", JOURNAL, mac="zeroblob(31)")),
]  # fmt: skip


COUNT = {"drafts_counted", "attempts_counted"}  # they refuse nothing: tests/store/test_counters.py


def trigger_words() -> dict[str, str]:
    """What each trigger says as it refuses."""
    said = {sql.split()[2]: re.search(r"'(outbox: [^']+)'", sql) for sql in TRIGGERS}
    assert {name for name, words in said.items() if words is None} == COUNT
    return {name: words[1] for name, words in said.items() if words is not None}


def unique_words(kind: str) -> dict[str, str]:
    """What the database says for each named constraint and index that keeps rows apart."""
    return {
        str(one.name): f'duplicate key value violates unique constraint "{one.name}"'
        if kind == "postgresql"
        else "UNIQUE constraint failed: " + ", ".join(f"{table.name}.{column.name}" for column in one.columns)
        for table in metadata.tables.values()
        for one in (*table.constraints, *(index for index in table.indexes if index.unique))
        if one.name and not isinstance(one, CheckConstraint)
    }


def check_words(kind: str) -> dict[str, str]:
    """What the database says for each named CHECK."""
    return {
        str(one.name): f'new row for relation "{table.name}" violates check constraint "{one.name}"'
        if kind == "postgresql"
        else f"CHECK constraint failed: {one.name}"
        for table in metadata.tables.values()
        for one in table.constraints
        if isinstance(one, CheckConstraint)
    }


WORDS = {kind: trigger_words() | unique_words(kind) | check_words(kind) for kind in ("sqlite", "postgresql")}


def refused(connection: sqlite3.Connection | Plain, sql: str) -> str:
    """The words that a statement is refused with; nothing has changed then."""
    before = dump(connection)
    with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)) as error:
        connection.execute(sql)
    assert dump(connection) == before
    return str(error.value).partition("\n")[0]


def is_of_sqlite(broken: Break) -> bool:
    """Whether it is said in a way that SQLite alone understands."""
    return any(" OR REPLACE " in sql or " OR IGNORE " in sql for sql in (broken.last, *broken.steps))


BREAKS_OF_BOTH = [
    pytest.param(broken, marks=pytest.mark.sqlite) if is_of_sqlite(broken) else broken for broken in BREAKS
]


@pytest.mark.parametrize("broken", BREAKS_OF_BOTH, ids=lambda broken: f"{broken.guard}: {broken.last}"[:120])
def test_a_guard_refuses_in_its_own_words(stock: House, broken: Break, kind: str) -> None:
    with stock.connection() as connection:
        for name in broken.without:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("BEGIN")
        for step in broken.steps:
            connection.execute(step)
        assert refused(connection, broken.last) == WORDS[kind][broken.guard]


def test_every_trigger_check_and_unique_index_has_a_test_that_tries_to_break_it() -> None:
    assert {broken.guard for broken in BREAKS} == WORDS["sqlite"].keys()
    named = {one.name for table in metadata.tables.values() for one in table.constraints if one.name}
    uniques = {index.name for table in metadata.tables.values() for index in table.indexes if index.unique}
    assert named | uniques | {sql.split()[2] for sql in TRIGGERS} == WORDS["sqlite"].keys() | COUNT
    assert not [
        one
        for table in metadata.tables.values()
        for one in table.constraints
        if isinstance(one, (CheckConstraint, UniqueConstraint)) and not one.name
    ]


# Columns

MAY_CHANGE = {
    "drafts.state": "along EDGES",
    "drafts.not_before": "at approval and deferral",
    "drafts.stop_asked_at": "once",
    "drafts.attempt_id": "at the claim and at deferral",
    "drafts.error_code": "as it ends",
    "drafts.error_message": "as it ends",
    "requests.spent_at": "once",
    "attempts.phase": "forward",
    "attempts.outcome": "as it ends",
    "attempts.code": "as it ends",
    "attempts.enhanced": "as it ends",
    "attempts.text": "as it ends",
    "attempts.queue_id": "as it ends",
    "attempts.ended_at": "as it ends",
    "tellings.reminded_at": "once",
    "tellings.told_at": "once",
    "pause.paused_at": "it begins and ends",
    "pause.reason": "it begins and ends",
    "pause.paused_by": "it begins and ends",
    "clock.believed_at": "a person says it again",
    "clock.ignored_until": "a person says it again",
    "workers.host": "it has no authority",
    "workers.pid": "it has no authority",
    "workers.ended_at": "once",
    "gate.name": "attempts refer to it",
    "gate.tripped_at": "it opens and closes",
    "gate.until": "it opens and closes",
    "gate.claims": "up",
    "counters.state": "it has no authority",
    "counters.shard": "it has no authority",
    "counters.n": "it has no authority",
}
COLUMNS = {f"{table.name}.{column.name}": column for table in metadata.tables.values() for column in table.columns}


def changed(column: Column[object]) -> str:
    """An SQL expression for another value."""
    if isinstance(column.type, LargeBinary):
        return f"randomblob(length({column.name}))"
    return f"{column.name} + 1" if isinstance(column.type, (BigInteger, Integer)) else f"{column.name} || 'x'"


@pytest.mark.parametrize("column", sorted(COLUMNS.keys() - MAY_CHANGE.keys()))
def test_what_is_signed_or_recorded_never_changes(stock: House, kind: str, column: str) -> None:
    table, name = column.split(".")
    which = "WHERE id = 'try-of-gap'" if table == "attempts" else ""
    with stock.connection() as connection:
        assert connection.execute(f"SELECT 1 FROM {table} {which}").fetchone()
        said = refused(connection, f"UPDATE {table} SET {name} = {changed(COLUMNS[column])} {which}")
    guards = {f"{table}_frozen", "workers_ended", "attempts_gap_once", "pause_one", "clock_one"}
    assert said in {WORDS[kind][guard] for guard in guards & WORDS[kind].keys()}


@pytest.mark.parametrize("column", sorted(column for column in COLUMNS if column.startswith("attempts.")))
@pytest.mark.parametrize("name", ["unsent", "doubtful", "completed"])
def test_no_column_of_a_finished_attempt_changes(stock: House, name: str, column: str) -> None:
    with stock.connection() as connection:
        said = refused(connection, tried(name, f"{column.partition('.')[2]} = {changed(COLUMNS[column])}"))
    assert said.startswith("outbox: ")


@pytest.mark.parametrize("column", sorted(column for column in COLUMNS if column.startswith("drafts.")))
@pytest.mark.parametrize("state", sorted(FINAL))
def test_no_column_of_a_final_draft_changes(stock: House, state: str, column: str) -> None:
    name = column.partition(".")[2]
    with stock.connection() as connection:
        said = refused(connection, f"UPDATE drafts SET {name} = {changed(COLUMNS[column])} WHERE id = '{state}'")
    assert said.startswith("outbox: ")


def test_the_signed_columns_are_the_ones_that_never_change() -> None:
    frozen = {column for column in COLUMNS if column.startswith("drafts.")} - MAY_CHANGE.keys()
    assert frozen == {f"drafts.{name}" for name in SIGNED_COLUMNS}


def test_the_octets_of_a_final_draft_may_be_deleted(stock: House) -> None:
    with stock.connection() as connection:
        assert connection.execute("DELETE FROM messages WHERE draft_id = 'completed'").rowcount == 1


# States and phases

PAIRS = {(edge.source, edge.target) for edge in EDGES if edge.source is not None}
# The attempt that a transition asks for, so that what is refused is the pair itself.
READY = {State.COMPLETED: "accepted", State.FAILED: "doubtful"}
# What asks for more than the pair; out of the way where the pair itself is to be refused.
CONDITIONS = ("drafts_grant", "drafts_rejection", "drafts_release", "drafts_failure", "drafts_completion")


def ready(connection: sqlite3.Connection | Plain, source: State, target: State) -> str:
    """The draft in `source` for which everything is there that any transition asks for."""
    name = READY.get(target, "unsent") if source is State.EXECUTING else source.value
    connection.execute(row("grants", GRANT, draft_id=f"'{name}'"))
    connection.execute(row("rejections", REJECTION, insert="INSERT OR IGNORE", draft_id=f"'{name}'"))
    if name == "doubtful":
        connection.execute(row("settlements", SETTLEMENT, settled_as="'not_sent'"))
    return name


@pytest.mark.parametrize("target", State)
@pytest.mark.parametrize("source", State)
def test_a_draft_goes_along_the_edges_and_nowhere_else(stock: House, kind: str, source: State, target: State) -> None:
    with stock.connection() as connection:
        name = ready(connection, source, target)
        more = (
            "not_before = coalesce(not_before, 1), attempt_id = coalesce(attempt_id, 'try-of-gap'), "
            "error_code = 'x', error_message = 'x'"
        )
        if (source, target) in PAIRS or (source is target and source not in FINAL):
            connection.execute(moved(name, target, more))
        else:
            for guard in CONDITIONS:
                connection.execute(f"DROP TRIGGER {guard}")
            said = refused(connection, moved(name, target, more))
            assert said in {WORDS[kind]["drafts_edges"], WORDS[kind]["drafts_final"]}
        ((found,),) = connection.execute("SELECT state FROM drafts WHERE id = ?", (name,)).fetchall()
        assert found == (target if (source, target) in PAIRS else source)


PHASES = {"claimed": "claimed", "gap": "gap", "done": "doubtful"}
FORWARD = {("claimed", "gap"), ("claimed", "done"), ("gap", "done")}


@pytest.mark.parametrize("target", PHASES)
@pytest.mark.parametrize("source", PHASES)
def test_a_phase_goes_forward_and_never_back(stock: House, kind: str, source: str, target: str) -> None:
    changes = {
        "claimed": "phase = 'claimed'",
        "gap": "phase = 'gap'" if source == "gap" else GAP,
        "done": "phase = 'done', outcome = 'not_sent', ended_at = 1",
    }[target]
    with stock.connection() as connection:
        if (source, target) in FORWARD or (source == target != "done"):
            connection.execute(tried(PHASES[source], changes))
        else:
            said = refused(connection, tried(PHASES[source], changes))
            words = WORDS[kind]
            assert said in {words["attempts_phases"], words["attempts_finished"], words["attempts_gap_once"]}


# What each guard lets through: else it would guard nothing that matters


@pytest.mark.parametrize("state", ["approved", "cancelled", "expired", "refused"])
def test_a_draft_that_was_provably_not_sent_may_be_let_go(stock: House, state: str) -> None:
    with stock.connection() as connection:
        connection.execute(moved("unsent", state, "error_code = 'x', error_message = 'x'"))


@pytest.mark.parametrize("name", ["unsent", "accepted"])
def test_a_draft_whose_attempt_is_over_may_fail(stock: House, name: str) -> None:
    with stock.connection() as connection:
        connection.execute(moved(name, "failed", "error_code = 'x', error_message = 'x'"))


def test_a_draft_in_doubt_that_a_person_settled_as_not_sent_may_fail(stock: House) -> None:
    with stock.connection() as connection:
        connection.execute(row("settlements", SETTLEMENT, settled_as="'not_sent'"))
        connection.execute(moved("doubtful", "failed", "error_code = 'x', error_message = 'x'"))


def test_a_system_draft_in_doubt_may_fail_without_a_person(stock: House) -> None:
    with stock.connection() as connection:
        connection.execute(tried("carrier", GAP))
        connection.execute(tried("carrier", f"{DONE}, outcome = 'in_doubt'"))
        connection.execute(moved("carrier", "failed", "error_code = 'x', error_message = 'x'"))


def test_a_draft_that_was_accepted_may_be_completed(stock: House) -> None:
    with stock.connection() as connection:
        connection.execute(moved("accepted", "completed"))


def test_a_draft_in_doubt_that_a_person_settled_as_sent_may_be_completed(stock: House) -> None:
    with stock.connection() as connection:
        connection.execute(row("settlements", SETTLEMENT))
        connection.execute(moved("doubtful", "completed"))


def test_after_a_pause_has_ended_the_gap_may_be_entered(stock: House) -> None:
    with stock.connection() as connection:
        connection.execute(PAUSED)
        connection.execute("UPDATE pause SET paused_at = NULL, reason = NULL, paused_by = NULL")
        connection.execute(tried("claimed", GAP))


def test_a_draft_deferred_after_a_refused_dot_may_be_tried_again(stock: House) -> None:
    with stock.connection() as connection:
        connection.execute(tried("gap", "phase = 'done', outcome = 'refused_transient', ended_at = 1"))
        connection.execute(moved("gap", "approved", "attempt_id = NULL"))
        connection.execute("BEGIN")
        connection.execute(moved("gap", "executing", "attempt_id = 'second'"))
        connection.execute(row("attempts", ATTEMPT, draft_id="'gap'"))
        connection.execute(f"UPDATE attempts SET {GAP} WHERE id = 'second'")
        connection.execute("COMMIT")


@pytest.mark.sqlite
@pytest.mark.parametrize("name", EXECUTING)
def test_ignoring_conflicts_does_not_get_a_second_attempt_in(stock: House, name: str) -> None:
    with stock.connection() as connection:
        before = dump(connection)
        connection.execute("BEGIN")
        connection.execute(held_by(name, "second"))
        taken = connection.execute(row("attempts", ATTEMPT, insert="INSERT OR IGNORE", draft_id=f"'{name}'")).rowcount
        if taken:
            entered = connection.execute(f"UPDATE OR IGNORE attempts SET {GAP} WHERE id = 'second'").rowcount
            assert entered == (name == "unsent")
        assert taken == (name in {"unsent", "doubtful", "accepted"})
        connection.execute("ROLLBACK")
        assert dump(connection) == before
