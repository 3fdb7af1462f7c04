"""The commands on a server: made, upgraded, given its roles, looked over; and what is for files says so."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox.store.roles import role_statements
from outbox.store.schema import REVISION
from tests import house as houses
from tests.cli import zygote
from tests.house import House
from tests.postgres import server
from tests.relay.recording import RecordingRelay


@pytest.fixture
def on_server(tmp_path: Path, relay: RecordingRelay) -> Iterator[House]:
    before, houses.DATABASE = houses.DATABASE, "postgresql"
    try:
        yield House.build(tmp_path, relay)
    finally:
        houses.DATABASE = before


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    code, out, err = zygote.run([*arguments], folder, dict(os.environ), b"")
    return code, out.decode(), err.decode()


def test_an_empty_database_is_upgraded_and_given_its_roles(tmp_path: Path, relay: RecordingRelay) -> None:
    house = House.build(tmp_path, relay)
    house.set("database", url=f'"{server.url_of(server.make_database("template0"))}"')
    assert run(tmp_path, "db", "current") == (0, f"none (this outbox works with {REVISION})\n", "")
    code, out, err = run(tmp_path, "list")
    assert (code, out) == (78, "")
    assert "is at revision none" in err
    assert run(tmp_path, "db", "upgrade") == (0, f"at revision {REVISION}\n", "")
    code, out, _ = run(tmp_path, "db", "roles", "--apply", "--json")
    assert code == 0
    assert json.loads(out)["applied"].startswith("postgresql://")
    assert run(tmp_path, "list")[0] == 0


def test_the_roles_are_printed_without_a_database(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "db", "roles")
    assert (code, err) == (0, "")
    assert out == "".join(f"{statement};\n" for statement in role_statements())
    assert json.loads(run(tmp_path, "db", "roles", "--json")[1]) == {"sql": out}


def test_a_file_has_no_roles(tmp_path: Path, relay: RecordingRelay) -> None:
    House.build(tmp_path, relay)
    if houses.DATABASE == "sqlite":
        code, _, err = run(tmp_path, "db", "roles", "--apply")
        assert code == 78
        assert "a SQLite file has no roles" in err


def test_roles_are_given_by_the_owner_alone(on_server: House) -> None:
    from outbox.core.lifecycle import Room

    user = server.url_of(on_server.name, user=server.login_of(Room.OPERATOR))
    on_server.set("database", url=f'"{user}"')
    code, _, err = run(on_server.folder, "db", "roles", "--apply")
    assert code == 69
    assert len(err.splitlines()) == 1


def test_a_server_is_not_backed_up_by_the_command_for_files(on_server: House) -> None:
    code, _, err = run(on_server.folder, "backup", "copy.db")
    assert code == 78
    assert "docs/howto/postgresql.md" in err
    assert not (on_server.folder / "copy.db").exists()


def test_doctor_looks_a_server_over(on_server: House) -> None:
    out = run(on_server.folder, "doctor", "--json")[1]
    found = {each["check"]: each for each in map(json.loads, out.splitlines())}
    for check in ("database", "database-integrity", "database-revision", "database-guards"):
        assert found[check]["passed"] is True, found[check]
    assert "fsync and synchronous_commit are on" in found["database"]["why"]


@pytest.mark.parametrize("command", [["status"], ["list"], ["replies"], ["journal", "verify"], ["journal", "seal"]])
def test_what_is_looked_at_can_be_looked_at_on_a_server(on_server: House, command: list[str]) -> None:
    draft = on_server.approved()
    on_server.drain()
    code, out, err = run(on_server.folder, *command)
    assert (code, err) == (0, ""), (out, err)
    if command == ["list"]:
        assert draft.id in out


def test_a_server_that_cannot_be_reached_is_one_line(on_server: House) -> None:
    on_server.set("database", url='"postgresql+psycopg://me@127.0.0.1:1/outbox?connect_timeout=2"')
    code, out, err = run(on_server.folder, "list")
    assert (code, out) == (69, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("outbox: postgresql://me@127.0.0.1:1/outbox: connection failed: ")
