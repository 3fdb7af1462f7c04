"""The container recipe, its compose example and supervisord's file: numbers, users and keys as everywhere else."""

from __future__ import annotations

import configparser
import json
import re

import pytest

from outbox.core.errors import ConfigError, NotPermitted, Unavailable, UsageError
from outbox.sections import WorkerSettings
from tests.contracts.markdown import page, rows, sections
from tests.deploy.units import DEPLOY, seconds, tree

RECIPE = (DEPLOY / "container" / "Containerfile").read_text()
COMPOSE = tree((DEPLOY / "container" / "compose.yaml").read_text())
SUPERVISORD = configparser.ConfigParser(interpolation=None)
SUPERVISORD.read_string((DEPLOY / "supervisord.conf").read_text())
ROOMS = ("worker", "inbox")


def service(room: str) -> dict[str, object]:
    services = COMPOSE["services"]
    assert isinstance(services, dict)
    found = services[room]
    assert isinstance(found, dict)
    return found


def listed(room: str, name: str) -> list[str]:
    found = service(room)[name]
    assert isinstance(found, list)
    return found


def instructions(name: str) -> list[str]:
    """What stands behind an instruction of the recipe, each time."""
    return re.findall(rf"^{name} (.+)$", RECIPE.replace("\\\n", " "), re.MULTILINE)


def test_the_image_is_built_from_what_the_wheel_is_built_from() -> None:
    copied = {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}
    assert copied == {
        "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "CHANGELOG.md", "migrations", "outbox",
    }  # fmt: skip


def test_the_image_runs_the_worker_and_never_as_root() -> None:
    assert instructions("USER") == ["10001:10000"]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["outbox"]
    assert json.loads(instructions("CMD")[0]) == ["worker"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2]) == ["outbox", "status", "--check"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_container_has_one_room_no_rights_and_nothing_to_write_but_its_volumes(room: str) -> None:
    found = service(room)
    assert found["command"] == room
    assert found["read_only"] == "true"
    assert listed(room, "cap_drop") == ["ALL"]
    assert listed(room, "security_opt") == ["no-new-privileges:true"]
    assert re.fullmatch(r"1000[12]:10000", str(found["user"]))


def test_the_containers_are_two_users_with_secrets_of_their_own() -> None:
    assert service("worker")["user"] != service("inbox")["user"]
    volumes = {room: set(listed(room, "volumes")) for room in ROOMS}
    assert volumes["worker"] & volumes["inbox"] == {
        "./outbox.toml:/etc/outbox/outbox.toml:ro",
        "database:/var/lib/outbox",
        "state:/var/lib/outbox-state",
    }
    assert volumes["worker"] - volumes["inbox"] == {"./worker:/run/outbox:ro"}
    assert volumes["inbox"] - volumes["worker"] == {"./inbox:/run/outbox:ro"}


def test_the_volumes_of_the_compose_file_are_those_of_the_image() -> None:
    mounted = {
        one.split(":")[1]
        for room in ROOMS
        for one in listed(room, "volumes")
        if one.split(":")[0] in ("database", "state")
    }
    assert mounted == set(json.loads(instructions("VOLUME")[0]))
    assert COMPOSE["volumes"] == {"database": None, "state": None}


def test_docker_waits_longer_for_the_worker_than_the_worker_for_the_relay() -> None:
    assert seconds(str(service("worker")["stop_grace_period"])) >= WorkerSettings().stop_timeout + 30


@pytest.mark.parametrize("room", ROOMS)
def test_a_container_that_cannot_start_is_not_restarted_for_ever(room: str) -> None:
    assert re.fullmatch(r"on-failure:\d+", str(service(room)["restart"]))


def test_the_page_s_volumes_are_those_of_the_image() -> None:
    named = {row[0].strip("`") for row in rows(sections(page("docs/howto/container.md"))["Build"])}
    assert named == set(json.loads(instructions("VOLUME")[0]))


@pytest.mark.parametrize("room", ROOMS)
def test_supervisord_runs_each_room_as_a_user_of_its_own(room: str) -> None:
    program = SUPERVISORD[f"program:outbox-{room}"]
    assert program["command"] == f"/opt/outbox/bin/outbox {room}"
    assert program["user"] == f"outbox-{room}"
    assert program["environment"] == f'OUTBOX_CONFIG="/etc/outbox/{room}/outbox.toml"'


@pytest.mark.parametrize("room", ROOMS)
def test_supervisord_leaves_down_what_a_restart_does_not_mend(room: str) -> None:
    program = SUPERVISORD[f"program:outbox-{room}"]
    left = {int(number) for number in program["exitcodes"].split(",")}
    assert program["autorestart"] == "unexpected"
    assert left == {0, UsageError.exit_code, NotPermitted.exit_code, ConfigError.exit_code, 130, 143}
    assert Unavailable.exit_code not in left
    assert program["startsecs"] == "0"  # else exit codes of the first second do not count


def test_supervisord_waits_longer_for_the_worker_than_the_worker_for_the_relay() -> None:
    assert SUPERVISORD["program:outbox-worker"].getint("stopwaitsecs") >= WorkerSettings().stop_timeout + 30
    assert SUPERVISORD["program:outbox-worker"]["stopsignal"] == "TERM"
    assert SUPERVISORD["program:outbox-worker"]["stopasgroup"] == "false"


def test_the_reader_of_compose_files_refuses_what_it_does_not_understand() -> None:
    assert tree("a:\n  b: 1\n  c:\n    - x:y\n    # no\n    - z\nd:\n") == {
        "a": {"b": "1", "c": ["x:y", "z"]},
        "d": None,
    }
    for text in ("a\n", "a: 1\na: 2\n", "a: 1\n   b: 2\n", "- a\n"):
        with pytest.raises(AssertionError):
            tree(text)
