"""A PostgreSQL server for the tests: one that is there (OUTBOX_TEST_POSTGRES), or one in a folder of its own.

It is begun by whichever process first needs it, shared by all of them, and stopped as the run ends; also where the run
was killed. Every test has a database of its own, copied from a migrated one.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outbox.core.lifecycle import Room
from outbox.store.engine import connect
from outbox.store.migrate import apply_roles, upgrade
from outbox.store.plpgsql import ROLES
from outbox.store.server import SCHEME, Server, parse_server

WANTED, FOUND, FOLDER = "OUTBOX_TEST_POSTGRES", "TESTS_POSTGRES", "TESTS_POSTGRES_FOLDER"
MISSING = "PostgreSQL is not here: `make servers` installs it, or says how"
_PLACES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
_SEARCHED = os.pathsep.join([*map(str, _PLACES), os.environ.get("PATH", os.defpath)])
_ROOM = 2_000_000_000  # octets of memory that the server's folder may need
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "max_wal_size": "512MB",
    "jit": "off",
    "log_min_messages": "fatal",
}
# As the run ends, however it ends.
_WATCH = """
(
  while [ -e "/proc/$1" ] || kill -0 "$1"; do sleep 1; done
  "$2" -D "$3/data" -m immediate stop
  rm -rf "$3"
) </dev/null >/dev/null 2>&1 &
"""


def keep_in_mind() -> None:
    """Note what the environment says, before it is cleared, where the processes of this run find it."""
    if given := os.environ.get(WANTED):
        os.environ[FOUND] = given
    os.environ.setdefault(FOLDER, str(_parent() / f"outbox-{os.getpid()}-{secrets.token_hex(4)}"))


def _parent() -> Path:
    memory = Path("/dev/shm")
    is_roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM
    return memory if is_roomy else Path(tempfile.gettempdir())


def program(name: str) -> str | None:
    """Where a program of PostgreSQL's is."""
    return shutil.which(name, path=_SEARCHED)


@cache
def administrator() -> str:
    """What libpq is given to connect as somebody who may make databases and roles; a server is begun for it."""
    if given := os.environ.get(FOUND):
        return given
    folder = Path(os.environ[FOLDER])
    folder.mkdir(mode=0o755, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            _start(folder)
            (folder / "ready").touch()
    return f"host={folder} dbname=postgres user=postgres"


def _start(folder: Path) -> None:
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip(MISSING)
    owner = None
    if os.geteuid() == 0:  # it refuses to run as root
        owner = next(name for name in ("postgres", "nobody") if _is_user(name))
        os.chown(folder, pwd.getpwnam(owner).pw_uid, -1)
    data = str(folder / "data")
    begun = [initdb, "--no-sync", "-D", data, "-U", "postgres", "-A", "trust", "--encoding=UTF8", "--locale=C"]
    _run([*begun], owner)
    settings = {**_SETTINGS, "unix_socket_directories": str(folder)}
    said = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
    _run([pg_ctl, "-D", data, "-l", str(folder / "log"), "-o", said, "-w", "start"], owner)
    watched = str(os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid())
    subprocess.run(["sh", "-c", _WATCH, "watch", watched, pg_ctl, str(folder)], user=owner, cwd="/", check=True)


def _is_user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


def _run(command: list[str], owner: str | None) -> None:
    subprocess.run(
        command, user=owner, cwd="/", check=True, stdin=subprocess.DEVNULL, capture_output="initdb" in command[0],
        stdout=None if "initdb" in command[0] else subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


@contextmanager
def administering() -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection that may make databases."""
    with psycopg.connect(administrator(), autocommit=True) as connection:
        yield connection


def url_of(database: str, *, user: str | None = None) -> str:
    """What settings say for a database of this server."""
    told = conninfo_to_dict(administrator()) | {"dbname": database}
    name = user or str(told.pop("user", ""))
    told = {key: value for key, value in told.items() if key in {"host", "port", "sslmode", "sslrootcert"}}
    query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in told.items())
    return f"{SCHEME}://{name}@/{database}?{query}"


def server_of(database: str, *, user: str | None = None) -> Server:
    """The same, parsed."""
    return parse_server(url_of(database, user=user))


_LOGIN = """
DO $$ BEGIN CREATE ROLE {login} LOGIN IN ROLE {role};
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$
"""


def login_of(room: Room) -> str:
    """Who logs in as a room."""
    return f"outbox_test_{room}"


@cache
def _pattern() -> str:
    """A migrated database that nobody enters."""
    name = f"outbox_pattern_{os.getpid()}_{secrets.token_hex(4)}"
    with administering() as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(name))
        )
    database = connect(server_of(name))
    upgrade(database)
    apply_roles(database)
    database.close()
    with administering() as connection:
        for room, role in ROLES.items():
            connection.execute(_LOGIN.format(login=login_of(room), role=role))  # type: ignore[arg-type]
    _KEPT.append(name)
    return name


def make_database(template: str | None = None) -> str:
    """A database of its own, as the migrations leave it or as `template` is; its name."""
    name, pattern = f"outbox_test_{secrets.token_hex(8)}", template or _pattern()
    with administering() as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(*map(sql.Identifier, (name, pattern)))
        )
    _MADE.append(name)
    return name


def copy_in_use(name: str) -> str:
    """A database as another is at one moment, whoever writes to that meanwhile; its name."""
    dump, restore = program("pg_dump"), program("psql")
    assert dump is not None
    assert restore is not None
    copy = make_database("template0")
    dumped = subprocess.run([dump, "-d", conninfo(name)], check=True, capture_output=True, timeout=60).stdout
    told = [restore, "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", conninfo(copy)]
    subprocess.run(told, check=True, input=dumped, stdout=subprocess.DEVNULL, timeout=60)
    return copy


def put_back(name: str, copy: str) -> None:
    """A database is what its copy is now; whoever was in it is not any more."""
    with administering() as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(*map(sql.Identifier, (name, copy)))
        )


def conninfo(database: str) -> str:
    """What libpq is given for a database of this server, as its administrator."""
    return make_conninfo(**(conninfo_to_dict(administrator()) | {"dbname": database}))


_MADE: list[str] = []
_KEPT: list[str] = []


def keep_databases(since: int) -> None:
    """What was made since so many were there is for the whole run."""
    _KEPT.extend(_MADE[since:])
    del _MADE[since:]


def drop_kept() -> None:
    """Take away what was for the whole run; a server of the run's own goes with all it holds."""
    if FOUND in os.environ and _KEPT:
        _drop(_KEPT)


def _drop(names: list[str]) -> None:
    with administering() as connection:
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def drop_databases(since: int = 0) -> None:
    """Take away what was made since so many were there."""
    if gone := _MADE[since:]:
        _drop(gone)
    del _MADE[since:]


def made() -> int:
    """How many databases there are."""
    return len(_MADE)
