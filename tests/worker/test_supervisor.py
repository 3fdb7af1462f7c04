"""What a supervisor hears, what signals do, and the state file: with real sockets, processes and files."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outbox.state_file import REFRESH, StateFile
from outbox.supervisor import StopSignals, Supervision, Supervisor
from tests.house import HandClock

MINUTE = 60_000_000


@dataclass
class HandTime:
    """Seconds that only the test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Listener:
    """A supervisor's end of the socket."""

    socket: socket.socket
    address: str
    time: HandTime = field(default_factory=HandTime)

    def heard(self) -> list[str]:
        """The datagrams that have arrived since the last look."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def supervisor(self, watchdog_usec: int | None = None) -> Supervisor:
        return Supervisor(Supervision(self.address, watchdog_usec), monotonic=self.time)


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@outbox-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        bound.setblocking(False)
        yield Listener(bound, address)


def test_ready_status_and_stopping_reach_the_supervisor(listener: Listener) -> None:
    supervisor = listener.supervisor()
    supervisor.ready("looks for drafts")
    supervisor.status("sends 2")
    supervisor.stopping("waits for 1 reply")
    assert listener.heard() == [
        "READY=1\nSTATUS=looks for drafts",
        "STATUS=sends 2",
        "STOPPING=1\nSTATUS=waits for 1 reply",
    ]


def test_a_status_that_has_not_changed_is_not_sent_again(listener: Listener) -> None:
    supervisor = listener.supervisor()
    supervisor.ready("idle")
    for text in ("idle", "idle", "sends 1", "sends 1", "idle"):
        supervisor.status(text)
    assert listener.heard() == ["READY=1\nSTATUS=idle", "STATUS=sends 1", "STATUS=idle"]


@pytest.mark.parametrize(
    "end", ["\n", "\r", "\u2028", "\x00", "\x85", "\ud800"], ids=["lf", "cr", "u2028", "nul", "nel", "surrogate"]
)
def test_a_status_has_one_line_whatever_is_in_it(listener: Listener, end: str) -> None:
    listener.supervisor().status(f"the relay says 250 ok{end}MAINPID=1")
    assert listener.heard() == ["STATUS=the relay says 250 ok MAINPID=1"]


def test_a_long_status_is_cut_so_that_the_datagram_is_taken(listener: Listener) -> None:
    listener.supervisor().ready("\U0001f4ee" * 100_000)
    (heard,) = listener.heard()
    assert heard.startswith("READY=1\nSTATUS=\U0001f4ee")
    assert len(heard.encode()) < 2048


def test_the_watchdog_hears_at_every_third_of_its_time(listener: Listener) -> None:
    supervisor = listener.supervisor(watchdog_usec=3 * MINUTE)
    for seconds in (0, 59, 1, 59.5, 0, 0.5):
        listener.time.now += seconds
        supervisor.alive()
    assert listener.heard() == ["WATCHDOG=1"] * 3


def test_the_watchdog_still_hears_while_the_worker_stops(listener: Listener) -> None:
    supervisor = listener.supervisor(watchdog_usec=3 * MINUTE)
    supervisor.stopping("waits")
    supervisor.alive()
    assert listener.heard()[-1] == "WATCHDOG=1"


def test_without_a_watchdog_nothing_is_said_of_being_alive(listener: Listener) -> None:
    listener.supervisor(watchdog_usec=None).alive()
    assert listener.heard() == []


def test_without_a_supervisor_nothing_is_sent_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor(Supervision())
    supervisor.ready("a")
    supervisor.status("b")
    supervisor.alive()
    supervisor.stopping("c")
    assert caplog.records == []


@pytest.mark.parametrize(
    "address",
    ["/nowhere/notify", "@outbox-nobody-listens", "/" + "x" * 200, "/a\0b"],
    ids=["gone", "no", "long", "nul"],
)
def test_a_supervisor_that_is_gone_is_logged_once(address: str, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor(Supervision(address, MINUTE))
    supervisor.ready("a")
    for number in range(5):
        supervisor.status(f"{number}")
        supervisor.alive()
    supervisor.stopping("b")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].action == "supervisor"  # type: ignore[attr-defined]


def test_a_supervisor_that_reads_nothing_does_not_hold_the_loop_up(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = listener.supervisor()
    for number in range(2000):
        supervisor.status(f"{number}")
    assert 0 < len(listener.heard()) < 2000
    assert len(caplog.records) == 1


def test_a_supervisor_that_comes_back_is_told_of_being_alive_at_once(tmp_path: Path) -> None:
    supervisor = Supervisor(Supervision(str(tmp_path / "notify"), MINUTE))
    supervisor.alive()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(10)
        supervisor.alive()
        assert bound.recv(100) == b"WATCHDOG=1"


OWN = str(os.getpid())


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ((None, None, None), Supervision()),
        (("", "", ""), Supervision()),
        (("/run/systemd/notify", None, None), Supervision("/run/systemd/notify")),
        (("@notify", "30000000", OWN), Supervision("@notify", 30_000_000)),
        (("/n", "30000000", None), Supervision("/n", 30_000_000)),
        (("/n", "30000000", "1234567890"), Supervision("/n")),
        ((None, "30000000", OWN), Supervision()),
        (("/n", "0", OWN), Supervision("/n")),
        (("/n", "-5", OWN), Supervision("/n")),
        (("/n", "soon", OWN), Supervision("/n")),
        (("/n", "١٢", OWN), Supervision("/n")),
        (("/n", "9" * 5000, OWN), Supervision("/n")),
        (("vsock:2:1", "30000000", OWN), Supervision()),
        (("relative/path", None, None), Supervision()),
        (("@", None, None), Supervision()),
    ],
    ids=[
        "unset", "empty", "a path", "all", "a watchdog of anybody", "a watchdog of another process",
        "a watchdog without a socket", "no time", "less than none", "a word", "other digits", "endless digits",
        "another kind of address", "a relative path", "an empty name",
    ],
)  # fmt: skip
def test_the_environment_is_read_as_systemd_writes_it(
    said: tuple[str | None, str | None, str | None], understood: Supervision
) -> None:
    assert Supervision.parse(*said) == understood


WAITS = """
import threading
from outbox.supervisor import StopSignals
called = threading.Event()
with StopSignals(called.set) as signals:
    print("ready", flush=True)
    signals.asked.wait()
    called.wait()
    print("stops", flush=True)
    {then}
print("left", flush=True)
"""


class Waiting:
    """A process that waits for its signals; one that is read line by line."""

    def __init__(self, then: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WAITS.format(then=then)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str]:
        """The exit code and what was still printed."""
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_first_signal_only_asks_to_stop(number: signal.Signals) -> None:
    waiting = Waiting("pass")
    waiting.process.send_signal(number)
    assert waiting.end() == (0, "stops\nleft\n")


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGTERM, signal.SIGINT, 130),
        (signal.SIGINT, signal.SIGTERM, 143),
    ],
)
def test_a_second_signal_exits_at_once(first: signal.Signals, second: signal.Signals, code: int) -> None:
    waiting = Waiting("threading.Event().wait()")
    waiting.process.send_signal(first)
    assert waiting.line() == "stops"
    waiting.process.send_signal(second)
    assert waiting.end() == (code, "")


def test_a_second_signal_exits_where_the_log_cannot_be_written() -> None:
    """Nobody reads stderr, its pipe is full, and the thread that logs holds the log's own guard."""
    waiting = Waiting(
        "import logging; logging.basicConfig(); "
        "threading.Thread(target=lambda: logging.error('x' * 1_000_000), daemon=True).start(); threading.Event().wait()"
    )
    waiting.process.send_signal(signal.SIGTERM)
    assert waiting.line() == "stops"
    waiting.process.send_signal(signal.SIGTERM)
    assert waiting.process.wait(30) == 143
    waiting.end()


def test_a_wrapper_that_passes_ctrl_c_on_does_not_kill() -> None:
    with StopSignals(monotonic=HandTime()) as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert signals.asked.wait(30)


def test_the_handlers_before_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals() as signals:
        assert signal.getsignal(signal.SIGTERM) not in before
        assert not signals.asked.is_set()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_room_in_another_thread_leaves_the_handlers_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter() -> None:
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(10)
    assert seen == [before]


ASYNCIO = """
import asyncio
from outbox.supervisor import StopSignals
async def room():
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    with StopSignals(lambda: loop.call_soon_threadsafe(stop.set)):
        print("ready", flush=True)
        await asyncio.wait_for(stop.wait(), 30)
asyncio.run(room())
"""


def test_an_event_loop_that_sleeps_is_woken_by_the_first_signal() -> None:
    with subprocess.Popen([sys.executable, "-c", ASYNCIO], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(30) == 0


class Written:
    """A state file, and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.clock, self.time = folder / "worker.json", HandClock(), HandTime()
        self.file = StateFile(self.path, "worker", self.clock, monotonic=self.time)

    def fields(self) -> dict[str, object]:
        return dict(json.loads(self.path.read_bytes()))

    def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(int(seconds * 1_000_000))
        self.time.now += seconds


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_the_state_file_is_one_object_of_everything_that_was_said(written: Written) -> None:
    written.file.write({"alerts": [{"code": "thermal"}]})
    written.file.write({"state": "sends 2", "sending": 2})
    assert written.fields() == {
        "room": "worker",
        "pid": os.getpid(),
        "at": "2027-01-15T08:00:00.000000Z",
        "alerts": [{"code": "thermal"}],
        "state": "sends 2",
        "sending": 2,
    }


def test_the_state_file_is_for_everybody_to_read_whatever_the_umask(written: Written) -> None:
    before = os.umask(0o077)
    try:
        written.file.write({"state": "idle"})
    finally:
        os.umask(before)
    assert written.path.stat().st_mode & 0o777 == 0o644
    assert list(written.path.parent.iterdir()) == [written.path]


def test_what_has_not_changed_is_written_again_after_ten_seconds_only(written: Written) -> None:
    seen = []
    for _ in range(12):
        written.file.write({"state": "idle"})
        seen.append(written.fields()["at"])
        written.pass_seconds(2)
    assert len(set(seen)) == 3
    assert seen.count(seen[0]) == REFRESH / 2


def test_what_has_changed_is_written_at_once(written: Written) -> None:
    alerts = ["one"]
    written.file.write({"alerts": alerts})
    alerts.append("two")
    written.file.write({"alerts": alerts})
    assert written.fields()["alerts"] == ["one", "two"]


def test_a_reader_never_sees_half_a_state_file(written: Written) -> None:
    written.file.write({"text": ""})
    done = threading.Event()

    def write() -> None:
        for number in range(300):
            written.file.write({"text": f"{number}" * 2000})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    looks = 0
    while not done.is_set() or looks == 0:
        assert written.fields()["room"] == "worker"
        looks += 1
    writer.join(30)


def test_two_threads_write_into_one_object(written: Written) -> None:
    def write(name: str) -> None:
        for number in range(100):
            written.file.write({name: number})

    threads = [threading.Thread(target=write, args=(name,)) for name in ("alerts", "state")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (written.fields()["alerts"], written.fields()["state"]) == (99, 99)


def test_a_folder_that_cannot_be_written_is_logged_once_and_again_after_it_could(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    folder = written.path.parent / "state"
    folder.write_text("not a folder")
    file = StateFile(folder / "worker.json", "worker", written.clock, monotonic=written.time)
    for number in range(5):
        file.write({"state": number})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    folder.unlink()
    file.write({"state": 6})
    assert json.loads((folder / "worker.json").read_bytes())["state"] == 6
    (folder / "worker.json").unlink()
    (folder / "worker.json").mkdir()
    for number in range(7, 10):
        file.write({"state": number})
    assert len(caplog.records) == 2
    assert [one.name for one in folder.iterdir()] == ["worker.json"]


def test_a_link_that_lies_in_the_way_is_not_followed(written: Written) -> None:
    victim = written.path.parent / "victim"
    victim.write_text("kept")
    written.path.with_suffix(f".{os.getpid()}.tmp").symlink_to(victim)
    written.path.symlink_to(victim)
    written.file.write({"state": "idle"})
    assert victim.read_text() == "kept"
    assert not written.path.is_symlink()


def test_what_the_last_process_left_can_be_read(written: Written) -> None:
    written.file.write({"alerts": [{"code": "thermal"}]})
    assert Written(written.path.parent).file.earlier()["alerts"] == [{"code": "thermal"}]


@pytest.mark.parametrize(
    "octets", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=["empty", "half", "a list", "no text", "deep"]
)
def test_a_state_file_that_cannot_be_read_is_an_empty_one(written: Written, octets: bytes) -> None:
    written.path.write_bytes(octets)
    assert written.file.earlier() == {}


def test_no_state_file_is_an_empty_one(written: Written) -> None:
    assert written.file.earlier() == {}
