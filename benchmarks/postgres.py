"""A PostgreSQL of our own, durable as it ships, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self


class NoPostgres(Exception):
    """No server's programs are here."""


class Postgres:
    """A server on loopback, trusting everybody there. `url` is libpq's, without a database."""

    def __enter__(self) -> Self:
        programs = _programs()
        self._as = _server_user()
        self._folder = Path(tempfile.mkdtemp(prefix="benchmark-postgres-"))
        if self._as is not None:
            os.chown(self._folder, self._as.pw_uid, self._as.pw_gid)
        data = self._folder / "data"
        self._run(str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "outbox", "-E", "UTF8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        options = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        options += " -c max_connections=300 -c shared_buffers=256MB"
        self._control = [str(programs / "pg_ctl"), "-D", str(data), "-w"]
        self._run(*self._control, "-o", options, "-l", str(self._folder / "log"), "start")
        self.pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        self._client = str(programs / "psql")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(*self._control, "-m", "immediate", "stop")
        shutil.rmtree(self._folder)

    def database(self, name: str) -> str:
        """A fresh, empty database; returns its libpq address."""
        for words in (f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"'):
            self._sql(words)
        return self.address(name)

    def copy(self, name: str, template: str) -> str:
        """A database that is as `template` is; returns its libpq address."""
        for words in (
            f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)',
            f'CREATE DATABASE "{name}" TEMPLATE "{template}"',
        ):
            self._sql(words)
        return self.address(name)

    def address(self, name: str) -> str:
        """The libpq address of one database."""
        return f"postgresql://outbox@127.0.0.1:{self.port}/{name}"

    def number(self, name: str, query: str) -> int:
        """The one number that a query of that database finds."""
        return int(self._run(self._client, "-qAt", "-d", self.address(name), "-c", query))

    def _sql(self, words: str) -> None:
        self._run(self._client, "-q", "-v", "ON_ERROR_STOP=1", "-d", self.address("postgres"), "-c", words)

    def _run(self, *words: str) -> str:
        user = self._as.pw_name if self._as is not None else None
        with tempfile.TemporaryFile("w+") as said:  # a server that goes on keeps a pipe open
            done = subprocess.run(
                words, user=user, cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, check=False
            )
            said.seek(0)
            found = said.read()
        if done.returncode:
            raise NoPostgres(f"{words[0]} ended with {done.returncode}: {found.strip()[-500:]}")
        return found


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[4]))
    if found:
        return found[-1].parent
    if (program := shutil.which("initdb")) is not None:
        return Path(program).resolve().parent
    raise NoPostgres("PostgreSQL's server is not installed (apt-get install postgresql)")


def _server_user() -> pwd.struct_passwd | None:
    """Whom the server runs as where we are root: it refuses that; None is ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None
