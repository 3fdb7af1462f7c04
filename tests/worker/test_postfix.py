"""The same path into Postfix's own smtp-sink, which is nobody's test double."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from outbox.core.lifecycle import State
from tests.house import House

SINK = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(SINK is None, reason="make servers")


class Sink:
    """What a house needs to know of a relay."""

    def __init__(self, port: int) -> None:
        self.port = port


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:  # without SO_REUSEPORT: nobody else has it
        return int(probe.getsockname()[1])


@contextmanager
def _sink(folder: Path, *flags: str) -> Iterator[Sink]:
    port = _free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [str(SINK), *user, "-D", "dump.", *flags, f"127.0.0.1:{port}", "100"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for_greeting(port, process)
        yield Sink(port)
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _wait_for_greeting(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(200):
        assert process.poll() is None, "smtp-sink ended"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
                assert probe.recv(100).startswith(b"220")
                probe.sendall(b"QUIT\r\n")
                return
        except ConnectionRefusedError:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
    raise AssertionError("smtp-sink never listened")


def test_what_the_sink_received_is_the_message_with_its_dots(tmp_path: Path) -> None:
    folder = tmp_path / "sink"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with _sink(folder) as sink:
        house = House.build(tmp_path / "house", sink)  # type: ignore[arg-type]
        draft = house.approved(text=".\n..\n.a line\n")
        house.drain()
    assert house.story(draft.id).draft.state is State.COMPLETED
    (stored,) = house.rows("SELECT octets FROM messages WHERE draft_id = ?", draft.id)
    (dump,) = folder.glob("dump.*")
    assert bytes(stored[0]).replace(b"\r\n", b"\n") in dump.read_bytes().replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        (("-q", "."), State.EXECUTING),
        (("-Q", "."), State.APPROVED),
        (("-r", "RCPT"), State.APPROVED),
        (("-f", "RCPT"), State.FAILED),
        (("-r", "."), State.APPROVED),
        (("-f", "."), State.FAILED),
        (("-q", "DATA"), State.APPROVED),
        (("-8",), State.COMPLETED),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else None,
)
def test_the_sinks_own_faults_have_the_outcomes_of_the_table(
    tmp_path: Path, flags: tuple[str, ...], state: State
) -> None:
    folder = tmp_path / "sink"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with _sink(folder, *flags) as sink:
        house = House.build(tmp_path / "house", sink)  # type: ignore[arg-type]
        draft = house.approved()
        house.drain()
        assert house.story(draft.id).draft.state is state
