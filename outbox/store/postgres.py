"""Connections to PostgreSQL, set up so that COMMIT is durable, also on the replica that may take over.

Nothing that matters is kept in a session: each transaction says what it needs in the message that begins it, so that
PgBouncer may give every transaction another one. No statement is prepared, for the same reason.
"""

from __future__ import annotations

import select
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from outbox.core.errors import Code, ConfigError
from outbox.store.dialect import PATIENT, SETTLED
from outbox.store.server import SCHEME, Server

OLDEST = 150000  # PostgreSQL 15, as the server numbers it
PATIENCE = 10_000  # milliseconds that a writer waits for another process
STATEMENT_TIMEOUT = 60_000  # milliseconds
WRITERS = 0x6F7574626F78  # the advisory lock that every writing transaction shares
_DURABLE = ("on", "remote_apply")
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "target_session_attrs": "read-write",  # of several hosts the primary: a replica may not know of a stop yet
}
_LOOK = (
    "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), "
    "current_setting('fsync'), current_setting('synchronous_commit')"
)
_PATH = "SET LOCAL search_path = public, pg_temp; "  # no table of somebody's own goes before ours
_READ = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_PATH}"

_READ_ALONE = (  # each statement sees what was committed before it: what the lock was waited for, too
    f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {_PATH}SET LOCAL lock_timeout = {PATIENCE}; "
    f"SELECT pg_advisory_xact_lock({WRITERS})"
)


def open_server(server: Server, room: str) -> tuple[Engine, Engine]:
    """The writing and the reading engine. Raises ConfigError, or OperationalError where it cannot be trusted."""
    psycopg = _driver()
    told: dict[str, Any] = _DEFAULTS | dict(server.parameters)
    if server.password is not None:
        told["password"] = server.password
    name = f"outbox {room}".strip()

    def connect() -> Any:
        connection = psycopg.connect(
            **told, application_name=name, client_encoding="UTF8", autocommit=True, prepare_threshold=None
        )
        connection.adapters.register_dumper(str, _text_dumper())
        return connection

    options: dict[str, Any] = {"creator": connect, "hide_parameters": True, "use_native_hstore": False}
    writer = create_engine(f"{SCHEME}://", poolclass=QueuePool, pool_size=1, max_overflow=0, **options)
    reader = create_engine(f"{SCHEME}://", poolclass=QueuePool, max_overflow=-1, **options)
    for engine in (writer, reader):
        event.listen(engine, "connect", _refuse_untrustworthy)
        event.listen(engine, "checkout", _refuse_broken)
    event.listen(writer, "begin", _begin_writing)
    event.listen(writer, "commit", _refuse_ended)
    event.listen(reader, "begin", _begin_reading)
    with writer.connect():  # what is wrong with it is said here
        pass
    return writer, reader


def _driver() -> Any:
    try:
        import psycopg
    except ImportError:
        words = "database.url: PostgreSQL needs a driver; pip install 'outbox-gate[postgres]'"
        raise ConfigError(Code.EXTRA_MISSING, words, field="database.url") from None
    return psycopg


@cache
def _text_dumper() -> Any:
    """What writes text: without NUL, which PostgreSQL holds none of, and which a hostile mail may bring."""
    from psycopg.types.string import StrDumperUnknown

    class Dumper(StrDumperUnknown):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in obj else obj)

    return Dumper


def _refuse_untrustworthy(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    """Raise OperationalError where a commit could be forgotten, or the server is not as the store needs it."""
    cursor = connection.cursor()
    cursor.execute(_LOOK)
    row = cursor.fetchone()
    assert row is not None
    version, encoding, fsync, commit = row
    cursor.close()
    if version < OLDEST:
        raise _refusal(f"the server is PostgreSQL {version // 10000}; it is to be {OLDEST // 10000} or later")
    if encoding != "UTF8":
        raise _refusal(f"the database's encoding is {encoding}, not UTF8")
    if fsync != "on":
        raise _refusal("the server runs with fsync off: what it has committed, a power cut undoes")
    if commit not in _DURABLE:
        words = f"synchronous_commit is {commit}: a claim or a stop could be forgotten; set it on for this role"
        raise _refusal(words)
    entry.info["durable"] = commit


def _refusal(words: str) -> OperationalError:
    return OperationalError(None, None, Exception(words))


def _refuse_broken(connection: DBAPIConnection, _entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    """Raise DisconnectionError, so that another is made, where the server has hung up meanwhile; nothing is sent."""
    raw: Any = connection
    if raw.closed or _is_readable(raw.fileno()):
        raise DisconnectionError("the server has closed the connection")


def _is_readable(descriptor: int) -> bool:
    """Whether something came that nobody asked for: of an idle connection, its end."""
    looked = select.poll()
    looked.register(descriptor, select.POLLIN)
    return bool(looked.poll(0))


def _begin_writing(connection: Connection) -> None:
    longest = 0 if connection.get_execution_options().get(PATIENT, False) else STATEMENT_TIMEOUT
    durable = connection.connection.info["durable"]
    _begin(
        connection,
        f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {_PATH}SET LOCAL synchronous_commit = {durable}; "
        f"SET LOCAL lock_timeout = {PATIENCE}; SET LOCAL statement_timeout = {longest}; "
        f"SET LOCAL idle_in_transaction_session_timeout = {STATEMENT_TIMEOUT}; "
        f"SELECT pg_advisory_xact_lock_shared({WRITERS})",
    )


def _refuse_ended(connection: Connection) -> None:
    """Raise OperationalError where COMMIT would say that all is well, and store nothing: the server rolls back then."""
    raw: Any = connection.connection.dbapi_connection
    if raw.info.transaction_status.name != "INTRANS":
        raise _refusal("the transaction had failed, or was ended before its COMMIT")


def _begin_reading(connection: Connection) -> None:
    settled = connection.get_execution_options().get(SETTLED, False)
    _begin(connection, _READ_ALONE if settled else _READ)


def _begin(connection: Connection, words: str) -> None:
    # Whatever the statement that it is begun for asked for: a cursor on the server is made in a transaction alone.
    connection.exec_driver_sql(words, execution_options={"stream_results": False, "yield_per": None}).close()
