"""What the migrations make is word for word what the schema says, and nothing works on anything else."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import cache
from pathlib import Path

import click
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import outbox
from outbox.cli.main import outbox as command_line
from outbox.core.errors import Code, ConfigError, Unavailable
from outbox.core.lifecycle import FINAL, Gate
from outbox.store.engine import connect
from outbox.store.migrate import scripts, upgrade
from outbox.store.revision import current, expected_guards, refuse_altered, refuse_other_revision
from outbox.store.schema import REVISION, metadata
from outbox.store.selftest import refuse_untrustworthy
from outbox.store.triggers import TRIGGERS
from tests.cli import zygote
from tests.house import House
from tests.relay.recording import RecordingRelay
from tests.store.stage import Stage, dump

pytestmark = pytest.mark.sqlite  # tests/postgres/test_schema.py is about the other
PACKAGE = Path(outbox.__file__).parent
ALEMBIC_TABLE = "alembic_version"


def described(file: Path) -> dict[tuple[str, str], str | None]:
    """Type and name of everything in a database, with its text, white space folded."""
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    return {(kind, name): sql and " ".join(sql.split()) for kind, name, table, sql in rows if table != ALEMBIC_TABLE}


@pytest.fixture
def wanted(tmp_path: Path) -> dict[tuple[str, str], str | None]:
    """What schema.py and triggers.py describe, made without any migration."""
    file = tmp_path / "wanted.db"
    engine = create_engine(f"sqlite:///{file}")
    metadata.create_all(engine)
    engine.dispose()
    with closing(sqlite3.connect(file)) as connection:
        for trigger in TRIGGERS:
            connection.execute(trigger)
        connection.commit()
    return described(file)


@pytest.mark.parametrize("what", ["table", "index", "trigger"])
def test_migrations_make_word_for_word_what_the_schema_says(
    stage: Stage, wanted: dict[tuple[str, str], str | None], what: str
) -> None:
    made = described(stage.path)
    assert {key: words for key, words in made.items() if key[0] == what} == {
        key: words for key, words in wanted.items() if key[0] == what
    }


def test_migrations_make_tables_indexes_triggers_and_nothing_else(
    stage: Stage, wanted: dict[tuple[str, str], str | None]
) -> None:
    assert described(stage.path).keys() == wanted.keys()
    assert {kind for kind, _ in wanted} == {"table", "index", "trigger"}


def test_migrations_fill_in_gates_counters_pause_clock_and_identity_and_nothing_else(stage: Stage) -> None:
    rows = {table: stage.rows(f"SELECT * FROM {table}") for table in metadata.tables}
    assert rows.pop("gate") == [(name, None, None, 0) for name in Gate]
    assert set(rows.pop("counters")) == {(state, 0, 0) for state in FINAL}
    assert rows.pop("pause") == [(1, None, None, None)]
    assert rows.pop("clock") == [(1, 0, 0)]
    ((name, since),) = rows.pop("identity")
    assert (len(bytes.fromhex(str(name))), since) == (16, 0)
    assert not any(rows.values())


def test_every_table_is_strict(stage: Stage) -> None:
    strict = {name: flag for _, name, kind, _, _, flag in stage.rows("PRAGMA table_list") if kind == "table"}
    assert {name for name, flag in strict.items() if not flag} == {ALEMBIC_TABLE, "sqlite_schema", "sqlite_temp_schema"}
    assert metadata.tables.keys() <= strict.keys()


@cache
def names_in(module: Path) -> set[str]:
    """Tables that a module imports, and everything it names: attributes, keywords, keys and words of literal SQL."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.ImportFrom(module="outbox.store.schema", names=names):
                found |= {name.name for name in names}
            case ast.Dict(keys=keys):
                found |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
            case ast.Call(func=ast.Name(id="text"), args=[ast.Constant(value=str(sql))]):
                found |= set(sql.replace(".", " ").split())
            case ast.Constant(value=str(sql)) if sql.startswith("SELECT "):
                found |= set(re.findall(r"\w+", sql))
            case _:
                pass
    return found


def users(table: str, column: str) -> set[str]:
    """Modules of the store, schema and triggers apart, that name a table and its column."""
    modules = [file for file in (PACKAGE / "store").glob("*.py") if file.stem not in {"schema", "triggers"}]
    return {file.stem for file in modules if {table, column} <= names_in(file)}


BY_TRIGGERS = {("gate", "claims"), ("counters", "shard")}  # columns that a trigger alone need name


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if (table.name, column.name) not in BY_TRIGGERS
    ],
)
def test_every_column_is_used(table: str, column: str) -> None:
    assert users(table, column)


def test_a_column_that_no_module_names_counts_as_unused() -> None:
    assert users("workers", "last_seen") == set()
    assert users("gate", "tripped_at") == {"claims"}


def script_directory() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    return ScriptDirectory.from_config(config)


def test_the_revision_is_the_only_head_of_the_migrations() -> None:
    assert script_directory().get_heads() == [REVISION]


@pytest.mark.parametrize("file", sorted((scripts() / "versions").glob("*.py")), ids=lambda file: file.stem)
def test_a_migration_imports_nothing_of_ours(file: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
    assert imported <= {"alembic", "__future__", "pathlib"}


def test_a_second_upgrade_changes_nothing(stock: House) -> None:
    with stock.connection() as connection:
        before = dump(connection)
    database = connect(stock.place)
    assert upgrade(database) == REVISION
    assert current(database) == REVISION
    database.close()
    with stock.connection() as connection:
        assert dump(connection) == before


def test_an_installed_package_migrates_with_the_scripts_beside_it(tmp_path: Path) -> None:
    elsewhere = tmp_path / "100% elsewhere"
    shutil.copytree(PACKAGE, elsewhere / "outbox", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(scripts(), elsewhere / "outbox" / "store" / "migrations")
    program = (
        "from pathlib import Path; from outbox.store.engine import connect; from outbox.store import migrate;"
        "print(migrate.scripts()); print(migrate.upgrade(connect(Path('made.db'), create=True)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(elsewhere)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.splitlines() == [str(elsewhere / "outbox" / "store" / "migrations"), REVISION]


# A database of another revision

COMMANDS = {
    "draft": ["--from", "sales@acme.example", "--to", "jane@customer.example", "--subject", "s", "--text", "t"],
    "list": [],
    "show": ["some-id"],
    "cancel": ["some-id"],
    "approve": ["some-id"],
    "reject": ["some-id", "--reason", "no"],
    "inbox": ["--once"],
    "inbox explain": ["reply.eml"],
    "replies": [],
    "worker": ["--drain"],
    "up": [],
    "status": [],
    "prune": ["--older-than", "90d"],
    "pause": [],
    "resume": [],
    "reconcile": [],
    "redraft": ["some-id"],
    "fence accept": ["--note", "why"],
    "receipt": ["some-id"],
    "journal verify": [],
    "journal seal": [],
    "journal export": [],
    "keys list": [],
    "keys rotate": ["draft"],
    "keys retire": ["some-key"],
    "keys revoke": ["some-key"],
}
WORK_ON_ANY_REVISION = {
    "init": "it makes a database of its own",
    "demo": "it makes a database of its own",
    "enrol": "it opens no database",
    "doctor": "it says so among its findings",
    "db upgrade": "it is the remedy",
    "backup": "it is what to do before that",
    "db current": "it says which revision it is",
    "receipt verify": "it opens no database",
    "db roles": "it prints SQL; with --apply it works on a server alone, and refuses another revision there",
}
OTHER = "UPDATE alembic_version SET version_num = '9999'"
NONE = "DROP TABLE alembic_version"


def leaves(group: click.Group, path: str = "") -> set[str]:
    """Every command as it is written, and groups that are commands themselves."""
    found = set()
    for name, command in group.commands.items():
        written = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            found |= leaves(command, written)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            found.add(written)
    return found


def outbox_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code, out, err = zygote.run([*arguments], folder, dict(os.environ), b"")
    return subprocess.CompletedProcess(arguments, code, out.decode(), err.decode())


@pytest.fixture
def other(tmp_path: Path) -> House:
    """A house whose database is about to be of another revision."""
    (tmp_path / "reply.eml").write_text("From: a@b.example\n\nShip it\n")
    return House.build(tmp_path, RecordingRelay(port=9))


def test_every_command_is_tried_on_another_revision_or_excused() -> None:
    assert leaves(command_line) == COMMANDS.keys() | WORK_ON_ANY_REVISION.keys()


@pytest.mark.parametrize(("change", "found"), [(OTHER, "9999"), (NONE, "none")])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_another_revision_in_one_line(other: House, command: str, change: str, found: str) -> None:
    with other.connection() as connection:
        connection.execute(change)
        before = dump(connection)
    ran = outbox_command(other.folder, *command.split(), *COMMANDS[command])
    why = f"{other.database} is at revision {found}, this outbox works with {REVISION}"
    assert ran.stderr.splitlines() == [f"outbox: {why}; back it up, then run `outbox db upgrade`"]
    assert (ran.returncode, ran.stdout) == (78, "")
    with other.connection() as connection:
        assert dump(connection) == before


def test_the_revision_of_another_database_can_be_asked_for(other: House) -> None:
    with other.connection() as connection:
        connection.execute(OTHER)
    ran = outbox_command(other.folder, "db", "current")
    assert (ran.returncode, ran.stdout) == (0, f"9999 (this outbox works with {REVISION})\n")


def test_a_database_of_a_later_outbox_is_not_upgraded_and_that_is_one_line(other: House) -> None:
    with other.connection() as connection:
        connection.execute(OTHER)
        before = dump(connection)
    ran = outbox_command(other.folder, "db", "upgrade")
    assert ran.returncode == 78
    assert len(ran.stderr.splitlines()) == 1
    assert "9999" in ran.stderr
    with other.connection() as connection:
        assert dump(connection) == before


def test_a_file_that_is_no_database_is_refused_in_one_line(other: House) -> None:
    other.database.write_bytes(b"not a database, " * 64)
    ran = outbox_command(other.folder, "list")
    assert (ran.returncode, ran.stdout) == (69, "")
    assert ran.stderr.splitlines() == [f"outbox: {other.database}: file is not a database"]


def test_refusing_names_the_setting(stage: Stage) -> None:
    with stage.house.connection() as connection:
        connection.execute(OTHER)
    with pytest.raises(ConfigError) as refused:
        refuse_other_revision(stage.database)
    assert (refused.value.code, refused.value.field) == (Code.DATABASE_REVISION, "database.url")


# Guards that are not what the migrations made


def test_a_database_as_the_migrations_made_it_is_trusted(stage: Stage) -> None:
    before = stage.rows("SELECT * FROM drafts")
    refuse_untrustworthy(stage.database)
    assert stage.rows("SELECT * FROM drafts") == before


def test_the_guards_looked_for_are_all_that_there_are(stage: Stage) -> None:
    made = {name for kind, name in described(stage.path) if kind != "table" and not name.startswith("sqlite_")}
    assert expected_guards().keys() == made


@pytest.mark.parametrize("guard", sorted(expected_guards()))
def test_a_database_without_a_guard_is_refused(stage: Stage, guard: str) -> None:
    kind = expected_guards()[guard].replace("UNIQUE ", "").split()[1]
    with stage.house.connection() as connection:
        connection.execute(f"DROP {kind} {guard}")
    with pytest.raises(Unavailable, match=rf"\b{guard} is not what the migrations made") as refused:
        refuse_altered(stage.database)
    assert refused.value.code is Code.DATABASE_ALTERED


def test_a_guard_with_other_words_is_refused(stage: Stage) -> None:
    with stage.house.connection() as connection:
        connection.execute("DROP TRIGGER drafts_grant")
        connection.execute("CREATE TRIGGER drafts_grant BEFORE UPDATE OF state ON drafts BEGIN SELECT 1; END")
    with pytest.raises(Unavailable, match="drafts_grant"):
        refuse_untrustworthy(stage.database)


def test_a_trigger_that_no_migration_made_is_refused(stage: Stage) -> None:
    with stage.house.connection() as connection:
        connection.execute(
            "CREATE TRIGGER planted AFTER INSERT ON attempts BEGIN UPDATE drafts SET not_before = 0 "
            "WHERE id = NEW.draft_id; END"
        )
    with pytest.raises(Unavailable, match="planted"):
        refuse_altered(stage.database)
