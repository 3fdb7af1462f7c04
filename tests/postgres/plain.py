"""A stranger's connection to PostgreSQL that takes the plain SQL which tests write for SQLite."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from outbox.store.postgres import WRITERS

TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname"

GUARDS = "SELECT pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal"


class Plain:
    """`execute` as sqlite3 has it. What fails leaves a transaction as it was, as on SQLite.

    With `kept` false all of it is undone at the end: BEGIN and COMMIT are savepoints then. With `unchecked` no CHECK
    stands in the way; those that did are put back as `close` hangs up.
    """

    def __init__(self, raw: psycopg.Connection[Any], *, kept: bool = True, unchecked: bool = False) -> None:
        self.raw, self._kept, self._unchecked = raw, kept, unchecked
        self._dropped: list[tuple[str, str, str]] = []  # table, name and definition
        self._dump: str | None = None
        if not kept:
            raw.execute("BEGIN")

    def execute(self, query: str, values: Any = ()) -> psycopg.Cursor[Any]:
        """Do one statement."""
        words = self._in_words_of_postgres(query)
        while self._unchecked:
            try:
                return self._execute(words, values)
            except psycopg.errors.CheckViolation as error:
                self._drop_check(str(error.diag.table_name), str(error.diag.constraint_name))
        return self._execute(words, values)

    def _execute(self, words: str, values: Any) -> psycopg.Cursor[Any]:
        if self.raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE or words.split(maxsplit=1)[0] in _ENDS:
            return self._do(words, values)
        with self.raw.transaction():
            return self._do(words, values)

    def _do(self, words: str, values: Any) -> psycopg.Cursor[Any]:
        if not values:
            return self.raw.execute(words)  # type: ignore[call-overload,no-any-return]
        return self.raw.execute(words.replace("%", "%%").replace("?", "%s"), values)  # type: ignore[call-overload,no-any-return]

    def _in_words_of_postgres(self, query: str) -> str:
        if not self._kept and query in _SAVED:
            return _SAVED[query]
        if query == "BEGIN IMMEDIATE":  # nobody else writes till this is over
            self.raw.execute("BEGIN")
            return f"SELECT pg_advisory_xact_lock({WRITERS})"
        if found := _TRIGGER.fullmatch(query):
            name, does = (
                found["name"],
                _RAISE.sub(r"RAISE EXCEPTION \1", found["does"].replace(_TOO_LARGE, "PERFORM 1 / 0")),
            )
            self.raw.execute(_FUNCTION.format(name=name, does=does))  # type: ignore[call-overload]
            when = f" WHEN ({found['when']})" if found["when"] else ""
            return f"{found['head']} FOR EACH ROW{when} EXECUTE FUNCTION made_by_a_test_{name}()"
        words = re.sub(r"zeroblob\((\d+)\)", r"decode(repeat('00', \1), 'hex')", query)
        words = re.sub(r"randomblob\(length\((\w+)\)\)", r"substring(sha256(\1) FROM 1 FOR length(\1))", words)
        words = re.sub(
            r"randomblob\((\d+)\)", r"substring(sha256(clock_timestamp()::text::bytea) FROM 1 FOR \1)", words
        )
        words = _REPLACED.sub(r"convert_to(replace(convert_from(octets, 'UTF8'), \1), 'UTF8')", words)
        words = words.replace("CAST(octets || 'x' AS BLOB)", "octets || 'x'::bytea")
        words = re.sub(r"\bx'([0-9a-f]*)'", r"'\\x\1'::bytea", words)
        words = re.sub(r"\browid\b", "place" if " journal" in words else "ctid", words)
        if words.startswith("INSERT OR IGNORE"):
            words = words.replace("INSERT OR IGNORE", "INSERT", 1) + " ON CONFLICT DO NOTHING"
        if found := re.fullmatch(r"DROP TRIGGER (\w+)", words):
            ((table,),) = self.raw.execute(
                "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = %s", found.groups()
            )
            words = f"{words} ON {table}; DROP FUNCTION IF EXISTS made_by_a_test_{found[1]}()"
        return words

    def iterdump(self) -> list[str]:
        """Every guard, and every row of every table, as text."""
        if self._dump is None:
            tables = [table for (table,) in self.raw.execute(TABLES).fetchall()]
            rows = [f"SELECT '{table} ' || t::text FROM {table} AS t" for table in tables]
            self._dump = " UNION ALL ".join([GUARDS, *rows]) + " ORDER BY 1"
        return [str(said) for (said,) in self.raw.execute(self._dump)]  # type: ignore[call-overload]

    def _drop_check(self, table: str, name: str) -> None:
        query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND conname = %s"
        ((definition,),) = self.raw.execute(query, (table, name)).fetchall()
        self._dropped.append((table, name, definition))
        self.raw.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")  # type: ignore[call-overload]

    def close(self) -> None:
        """Hang up, and undo what is not kept."""
        for table, name, definition in self._dropped:  # as if it held for the rows that are there
            words = f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID"
            self.raw.execute(words)  # type: ignore[call-overload]
            self.raw.execute("SET allow_system_table_mods = on")
            self.raw.execute("UPDATE pg_constraint SET convalidated = true WHERE conname = %s", (name,))
        self.raw.close()


# What a test makes a database fail by.
_TRIGGER = re.compile(
    r"(?P<head>CREATE TRIGGER (?P<name>\w+) BEFORE .* ON \w+?)(?: WHEN (?P<when>.*?))? BEGIN (?P<does>.*); END"
)
_REPLACED = re.compile(r"(?:CAST\()?replace\((?:CAST\(octets AS TEXT\)|octets), ('[^']*', '[^']*')\)(?: AS BLOB\))?")
_TOO_LARGE = "SELECT abs(-9223372036854775808)"
_RAISE = re.compile(r"SELECT RAISE\(ABORT, ('[^']*')\)")
_FUNCTION = (
    "CREATE OR REPLACE FUNCTION made_by_a_test_{name}() RETURNS trigger LANGUAGE plpgsql"
    " AS $$ BEGIN {does}; RETURN NEW; END $$"
)
_SAVED = {"BEGIN": "SAVEPOINT plain", "COMMIT": "RELEASE SAVEPOINT plain", "ROLLBACK": "ROLLBACK TO SAVEPOINT plain"}
_ENDS = {"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"}
