"""Print the schema as PostgreSQL has it, statement by statement with blank lines between: what a migration is made of.

    python -m tests.postgres.baseline > migrations/postgresql/NUMBER.sql

A migration that was released is never written anew; tests/postgres/test_schema.py holds what it makes against this.
"""

from __future__ import annotations

import sys

from sqlalchemy import ForeignKeyConstraint, Index
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import AddConstraint, CreateIndex, CreateTable

from outbox.store.plpgsql import SHARDS, statements
from outbox.store.schema import metadata

PLACE = (
    "ALTER TABLE public.journal ADD COLUMN place BIGINT GENERATED ALWAYS AS IDENTITY",
    "CREATE UNIQUE INDEX journal_places ON public.journal (place)",
)
_SHARDS = f"generate_series(0, {SHARDS - 1})"
_COUNTED = "unnest(ARRAY['completed', 'rejected', 'expired', 'cancelled', 'failed', 'refused'])"
ROWS = (
    "INSERT INTO gate (name) VALUES ('mail'), ('system')",
    "INSERT INTO pause (id) VALUES (1)",
    "INSERT INTO clock (id, believed_at, ignored_until) VALUES (1, 0, 0)",
    "INSERT INTO identity (id, ledger_since) VALUES (replace(gen_random_uuid()::text, '-', ''), 0)",
    f"INSERT INTO counters (state, shard, n)\nSELECT state, shard, 0\nFROM {_COUNTED} AS state, {_SHARDS} AS shard",
)


def baseline() -> tuple[str, ...]:
    """Tables, the foreign key that closes a circle, indexes, guards and the first rows."""
    dialect = postgresql.dialect()
    made = [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables]
    for table in metadata.sorted_tables:
        late = [one for one in table.constraints if isinstance(one, ForeignKeyConstraint) and one.use_alter]
        for one in late:
            one.name = f"{table.name}_{'_'.join(one.column_keys)}_fkey"
            made.append(str(AddConstraint(one, isolate_from_table=False).compile(dialect=dialect)))
            one.name = None
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        made += [_index(index) for index in indexes]
    words = [_plain(one) for one in made]
    return (*words, *PLACE, *ROWS, *statements())


def _index(index: Index) -> str:
    where = f" WHERE {index.info['where']}" if "where" in index.info else ""
    return f"{CreateIndex(index).compile(dialect=postgresql.dialect())}{where}"


def _plain(statement: str) -> str:
    lines = (line.rstrip().replace("\t", "    ") for line in statement.strip().splitlines())
    return "\n".join(line for line in lines if line)


if __name__ == "__main__":
    sys.stdout.write("\n\n".join(baseline()) + "\n")
