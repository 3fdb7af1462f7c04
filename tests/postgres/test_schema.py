"""What the migrations make on PostgreSQL is what the schema says, and nothing works on anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from outbox.core.errors import Code, ConfigError, Unavailable
from outbox.core.lifecycle import Gate
from outbox.store.engine import Database, connect
from outbox.store.made import expected_in_server, found_in_server
from outbox.store.migrate import apply_roles, upgrade
from outbox.store.plpgsql import SHARDS
from outbox.store.revision import current, refuse_altered, refuse_other_revision
from outbox.store.schema import REVISION, metadata
from outbox.store.selftest import refuse_untrustworthy
from outbox.store.soundness import first_fault, newest_instant
from outbox.store.triggers import RULES
from tests.postgres import server
from tests.postgres.baseline import baseline
from tests.postgres.by_role import ByRole

COLUMNS = """
    SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation::text,
    attidentity, pg_get_expr(adbin, adrelid)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND relname <> 'alembic_version'
    ORDER BY relname, attname"""


@pytest.fixture
def described() -> Iterator[Database]:
    """What schema.py and triggers.py describe, made without any migration."""
    name = server.make_database("template0")
    with closing(connect(server.server_of(name))) as made, made.writer.begin() as connection:
        for statement in baseline():
            connection.exec_driver_sql(statement)
        connection.commit()
        yield made


def test_migrations_make_the_columns_that_the_schema_says(database: Database, described: Database) -> None:
    with database.reading() as migrated, described.reading() as wanted:
        assert migrated.execute(text(COLUMNS)).all() == wanted.execute(text(COLUMNS)).all()


def test_migrations_make_the_guards_that_the_schema_says(database: Database, described: Database) -> None:
    with database.reading() as migrated, described.reading() as wanted:
        assert found_in_server(migrated) == found_in_server(wanted) == expected_in_server()


def test_migrations_fill_in_the_first_rows_and_nothing_else(database: Database) -> None:
    with database.reading() as connection:
        rows = {table: connection.execute(text(f"SELECT * FROM {table}")).all() for table in metadata.tables}
    assert sorted(rows.pop("gate")) == [(gate, None, None, 0) for gate in sorted(Gate)]
    assert rows.pop("pause") == [(1, None, None, None)]
    assert rows.pop("clock") == [(1, 0, 0)]
    ((name, since),) = rows.pop("identity")
    assert (len(bytes.fromhex(name)), since) == (16, 0)
    counted = rows.pop("counters")
    assert len(counted) == 6 * SHARDS
    assert {number for _, _, number in counted} == {0}
    assert not any(rows.values())


def test_every_rule_is_a_trigger_of_its_name() -> None:
    triggers = {name.removeprefix("trigger ") for name in expected_in_server() if name.startswith("trigger ")}
    assert {rule.name for rule in RULES} <= triggers
    assert {f"{table}_whole" for table in metadata.tables} <= triggers


def test_a_second_upgrade_changes_nothing(database: Database) -> None:
    with database.reading() as connection:
        before = found_in_server(connection)
    assert upgrade(database) == REVISION
    assert current(database) == REVISION
    with database.reading() as connection:
        assert found_in_server(connection) == before


def test_roles_may_be_given_again(database: Database) -> None:
    apply_roles(database)
    refuse_untrustworthy(database)


def test_a_database_as_the_migrations_made_it_is_trusted_and_sound(database: Database) -> None:
    refuse_untrustworthy(database)
    assert first_fault(database, seconds=10) is None
    assert newest_instant(database) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("DROP TRIGGER drafts_grant ON drafts", "trigger drafts_grant"),
        ("ALTER TABLE drafts DISABLE TRIGGER drafts_final", "trigger drafts_final"),
        ("DROP TRIGGER journal_whole ON journal", "trigger journal_whole"),
        ("DROP INDEX attempts_at_most_once", "index attempts_at_most_once"),
        ("ALTER TABLE drafts DROP CONSTRAINT drafts_due", "constraint drafts_due"),
        ("ALTER TABLE grants DROP CONSTRAINT grants_draft_id_fkey", "constraint grants_draft_id_fkey"),
        ("CREATE RULE planted AS ON UPDATE TO drafts DO INSTEAD NOTHING", "rule planted"),
        ("CREATE INDEX planted ON drafts (agent)", "index planted"),
        (
            "CREATE OR REPLACE FUNCTION drafts_grant() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "function drafts_grant",
        ),
        ("ALTER FUNCTION drafts_grant() SECURITY INVOKER", "function drafts_grant"),
        (
            "CREATE TRIGGER planted AFTER INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION attempts_counted()",
            "trigger planted",
        ),
    ],
)
def test_a_guard_that_is_missing_changed_or_added_is_refused(
    database: Database, by_role: ByRole, change: str, named: str
) -> None:
    with by_role.plain() as owner:
        owner.raw.execute(change)
    with pytest.raises(Unavailable, match=rf"\b{named} is not what the migrations made") as refused:
        refuse_altered(database)
    assert refused.value.code is Code.DATABASE_ALTERED


def test_an_illegal_edge_that_is_let_through_is_refused(database: Database, by_role: ByRole) -> None:
    with by_role.plain() as owner:
        owner.raw.execute("ALTER TABLE drafts DISABLE TRIGGER drafts_edges")
    with pytest.raises(Unavailable, match="drafts_edges is not what the migrations made"):
        refuse_untrustworthy(database)


def test_another_revision_is_refused(database: Database, by_role: ByRole) -> None:
    with by_role.plain() as owner:
        owner.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="is at revision 9999"):
        refuse_other_revision(database)


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_no_table_is_emptied(by_role: ByRole, table: str) -> None:
    import psycopg

    with by_role.plain() as owner, pytest.raises(psycopg.IntegrityError, match=f"outbox: {table} are never deleted"):
        owner.execute(f"TRUNCATE {table} CASCADE" if table != "drafts" else "TRUNCATE drafts CASCADE")
