"""How the store meets a server: durable or not at all, nothing kept in a session, and no password in any word."""

from __future__ import annotations

import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from outbox import config
from outbox.core.errors import ConfigError, Unavailable
from outbox.core.lifecycle import Room
from outbox.store.engine import Database, connect
from outbox.store.events import settled_place
from outbox.store.journal import Chain
from outbox.store.server import Server, parse_server
from outbox.store.writer import CommitUnknown, Transaction, Writer
from tests.house import SECOND
from tests.postgres import server
from tests.postgres.by_role import ByRole
from tests.store.stage import RING

BOUND = 30.0
LOCAL = "postgresql+psycopg://outbox_worker@127.0.0.1:5432/outbox"
SECRET = "wrong horse battery"


def said(database: Database, name: str) -> str:
    with database.writer.begin() as connection:
        return str(connection.execute(text(f"SHOW {name}")).scalar_one())


# What is trusted


@pytest.mark.parametrize("value", ["off", "local", "remote_write"])
def test_a_server_that_may_forget_a_commit_is_refused(name: str, by_role: ByRole, value: str) -> None:
    with by_role.plain() as owner:
        owner.raw.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {value}')
    with pytest.raises(Unavailable, match=f"synchronous_commit is {value}"):
        connect(server.server_of(name), Room.WORKER)


@pytest.mark.parametrize("value", ["on", "remote_apply"])
def test_a_commit_is_as_durable_as_the_server_says(name: str, by_role: ByRole, value: str) -> None:
    with by_role.plain() as owner:
        owner.raw.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {value}')
    with closing(connect(server.server_of(name))) as database:
        assert said(database, "synchronous_commit") == value


def test_what_a_session_was_told_meanwhile_changes_no_transaction(database: Database) -> None:
    raw = database.writer.raw_connection()
    raw.driver_connection.execute("SET synchronous_commit = off; SET search_path = pg_temp; SET lock_timeout = 0")  # type: ignore[union-attr]
    raw.close()
    found = {name: said(database, name) for name in ("synchronous_commit", "search_path", "lock_timeout")}
    assert found == {"synchronous_commit": "on", "search_path": "public, pg_temp", "lock_timeout": "10s"}


def test_a_reader_sees_one_moment_and_cannot_write(database: Database) -> None:
    with database.reading() as connection:
        assert connection.execute(text("SHOW transaction_isolation")).scalar_one() == "repeatable read"
        assert connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on"


def test_a_transaction_may_begin_with_a_stream(database: Database) -> None:
    with database.reading() as connection:
        streamed = connection.execution_options(yield_per=2).execute(text("SELECT generate_series(1, 5)"))
        assert streamed.scalars().all() == [1, 2, 3, 4, 5]


def test_no_statement_is_prepared(database: Database) -> None:
    for _ in range(20):
        with database.reading() as connection:
            connection.execute(text("SELECT count(*) FROM drafts"))
            assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() == 0


def test_the_server_is_told_which_room_it_is(name: str) -> None:
    with closing(connect(server.server_of(name), Room.INBOX)) as database:
        assert said(database, "application_name") == "outbox inbox"


def test_a_table_of_somebody_s_own_does_not_go_before_ours(by_role: ByRole, name: str) -> None:
    with by_role.plain() as owner:
        owner.raw.execute(f'GRANT TEMPORARY ON DATABASE "{name}" TO PUBLIC')
    with closing(connect(server.server_of(name, user=server.login_of(Room.DRAFTER)))) as database:
        raw = database.reader.raw_connection()
        raw.driver_connection.execute("CREATE TEMPORARY TABLE pause (id integer)")  # type: ignore[union-attr]
        raw.close()
        with database.reading() as connection:
            assert connection.execute(text("SELECT id FROM pause")).scalars().all() == [1]


# Clocks


@pytest.mark.parametrize(("moved", "words"), [(3, "ahead of"), (-3, "behind")])
def test_a_clock_that_is_not_the_server_s_is_told(database: Database, moved: int, words: str) -> None:
    import time

    assert database.apart() is None
    told = database.apart(lambda: time.time_ns() + moved * SECOND * 1000)
    assert told is not None
    assert f"3.0 s {words} the database server's" in told


# Loss


def test_a_connection_that_was_lost_between_two_transactions_is_made_anew(database: Database, by_role: ByRole) -> None:
    with database.writer.begin() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    terminate(by_role, pid)
    with database.writer.begin() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid


def terminate(by_role: ByRole, pid: int) -> None:
    with by_role.plain() as owner:
        owner.raw.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


def test_whoever_waits_for_a_commit_that_was_lost_does_not_know_and_the_writer_goes_on(
    database: Database, by_role: ByRole
) -> None:
    writer = Writer(database, Chain(Room.OPERATOR, "1", RING))

    def lost(tx: Transaction) -> None:
        tx.journal("lost", now=1)
        terminate(by_role, tx.connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    def note(tx: Transaction) -> None:
        tx.journal("noted", now=1)

    try:
        writer.run(note)
        with pytest.raises(CommitUnknown):
            writer.run(lost)
        writer.run(note)
    finally:
        writer.close()
    with database.reading() as connection:
        found = connection.execute(text("SELECT seq, action FROM journal ORDER BY seq")).all()
    assert found == [(1, "noted"), (2, "noted")]


def test_a_transaction_that_failed_unseen_is_no_commit(database: Database) -> None:
    writer = Writer(database, Chain(Room.OPERATOR, "1", RING))

    def ended(tx: Transaction) -> None:
        tx.connection.exec_driver_sql("ROLLBACK")

    try:
        with pytest.raises(CommitUnknown):
            writer.run(ended)
    finally:
        writer.close()


# Places


def test_a_settled_place_is_waited_for_until_nobody_can_come_below_it(database: Database, name: str) -> None:
    reached, let_go = threading.Event(), threading.Event()
    first, second = (Writer(connect(server.server_of(name)), Chain(Room.OPERATOR, run, RING)) for run in ("1", "2"))

    def slow(tx: Transaction) -> None:
        tx.journal("slow", now=1)
        reached.set()
        assert let_go.wait(BOUND)

    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(first.run, slow)
        assert reached.wait(BOUND)
        second.run(lambda tx: tx.journal("quick", now=1))
        looked = threads.submit(settled_place, database)
        assert not looked.done()
        let_go.set()
        waiting.result(BOUND)
        assert looked.result(BOUND) == 2
    for writer in (first, second):
        writer.close()
        writer._database.close()


# Words


def test_text_from_a_hostile_mail_may_hold_a_nul(database: Database) -> None:
    with database.writer.begin() as connection:
        found = connection.execute(text("SELECT CAST(:word AS text)"), {"word": "a\0b"}).scalar_one()
    assert found == "a\N{REPLACEMENT CHARACTER}b"


def test_nothing_that_is_said_or_shown_holds_the_password() -> None:
    place = parse_server("postgresql+psycopg://outbox_worker@127.0.0.1:1/outbox?connect_timeout=2", SECRET)
    with pytest.raises(Unavailable) as refused:
        connect(place, Room.WORKER)
    told = "".join(traceback.format_exception(refused.value)) + repr(place) + str(place)
    assert SECRET not in told
    assert "postgresql://outbox_worker@127.0.0.1:1/outbox" in str(refused.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql+psycopg://me:hunter2@127.0.0.1/outbox", "it holds a password"),
        ("postgresql+psycopg://me@127.0.0.1/outbox?password=hunter2", "'password' is no parameter"),
        ("postgresql+psycopg://me@127.0.0.1/outbox?options=-c%20fsync", "'options' is no parameter"),
        ("postgresql+psycopg://me@db.acme.example/outbox", "db.acme.example is not this machine"),
        ("postgresql+psycopg://me@127.0.0.1,db.acme.example/outbox", "db.acme.example is not this machine"),
        ("postgresql+psycopg://me@db.acme.example/outbox?sslmode=prefer", "db.acme.example is not this machine"),
        ("postgresql+psycopg://me@localhost/outbox?hostaddr=192.0.2.1", "192.0.2.1 is not this machine"),
        ("postgresql+psycopg://me@127.0.0.1", "its form is"),
        ("postgresql+psycopg://me@127.0.0.1:port/outbox", "a port is a number"),
        ("postgresql+psycopg2://me@127.0.0.1/outbox", "its form is"),
        ("postgresql://me@127.0.0.1/outbox", "its form is"),
        ("postgresql+psycopg://me@[::1/outbox", "it cannot be read"),
    ],
)
def test_an_address_that_cannot_be_is_refused_in_one_line_without_it(url: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_server(url)
    assert words in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert refused.value.field == "database.url"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (LOCAL, "postgresql://outbox_worker@127.0.0.1:5432/outbox"),
        ("postgresql+psycopg:///outbox?host=/run/postgresql", "postgresql:///run/postgresql/outbox"),
        ("postgresql+psycopg://me@[::1]:5433/outbox", "postgresql://me@::1:5433/outbox"),
        (
            "postgresql+psycopg://me@a.example,b.example:5433/outbox?sslmode=verify-full",
            "postgresql://me@a.example,b.example:5433/outbox",
        ),
    ],
)
def test_an_address_has_a_name_for_people(url: str, name: str) -> None:
    assert str(parse_server(url)) == name


def test_the_password_is_in_a_file_that_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "outbox.toml"
    file.write_text(f'[database]\nurl = "{LOCAL}"\npassword_file = "secret"\n')
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ConfigError, match=r"database\.password_file"):
        _ = config.load(file).database_place
    (tmp_path / "secret").chmod(0o600)
    place = config.load(file).database_place
    assert isinstance(place, Server)
    assert place.password == SECRET
    assert SECRET not in repr(config.load(file))
