"""`outbox up`: the inbox and the worker as real processes, what happens in sentences, and an end that loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import IO

import pytest

from outbox.clock import wall
from outbox.core.lifecycle import State
from tests.cli.shell import Shell
from tests.house import FOUNDER, JANE, House
from tests.relay.recording import RecordingRelay
from tests.relay.scripted import Hold, Keep, Phase, Say, ScriptedRelay

PATIENCE = 40.0  # seconds that a test waits for a line or an end before it gives up
SIGNALS = [signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.torture) for one in (signal.SIGINT, signal.SIGHUP))]
HELD_IN_GAP = {Phase.DOT: [Keep(), Hold(), Say(b"250 2.0.0 Ok: queued as 1F2E3D\r\n")]}


@dataclass
class Up:
    """A running `outbox up`, its lines as they come, and the processes that it started."""

    process: subprocess.Popen[str]
    queue: Queue[str] = field(default_factory=Queue)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        streams = (self.process.stdout, self.process.stderr)
        self.readers = [threading.Thread(target=self._read, args=(stream,)) for stream in streams]
        for reader in self.readers:
            reader.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.queue.put(line)

    def wait_for(self, pattern: str) -> str:
        """The next line, of either stream, that matches."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                line = self.queue.get(timeout=0.2).rstrip("\n")
            except Empty:
                continue
            self.lines.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"nothing said {pattern!r}:\n" + "\n".join(self.lines))

    def children(self) -> dict[str, int]:
        """Room to process id."""
        found = {}
        for number in self._child_ids():
            words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
            found.update({room: number for room in ("inbox", "worker") if room.encode() in words})
        return found

    def _child_ids(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(number) for number in listed.split()]

    def ended(self) -> int:
        """The exit code; every line has been taken then."""
        code = self.process.wait(PATIENCE)
        for reader in self.readers:
            reader.join(PATIENCE)
        while not self.queue.empty():
            self.lines.append(self.queue.get().rstrip("\n"))
        return code


@contextmanager
def up(house: House, *flags: str, ready: bool = True, **environment: str) -> Iterator[Up]:
    """Start `outbox up`; when the worker is at work, the block begins. Nothing outlives the block."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "CREDENTIALS_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "outbox", "--config", str(house.folder / "outbox.toml"), "up", *flags],
        env=kept | environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    running = Up(process)
    children: dict[str, int] = {}
    try:
        if ready:
            until = time.monotonic() + PATIENCE
            while house.rows("SELECT count(*) FROM workers") == [(0,)] and time.monotonic() < until:
                running.process.poll()
            children = running.children()
            house.clock.now = wall()
        yield running
    finally:
        process.kill()
        process.wait()
        for number in children.values():
            if alive(number):
                os.kill(number, signal.SIGKILL)
        for reader in running.readers:
            reader.join(PATIENCE)


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def answer(house: House, draft_id: str, text: str) -> None:
    """Reply as soon as the request has reached the relay."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            request = house.request_for(draft_id)
        except AssertionError:
            continue
        house.clock.now = wall()
        house.reply(request, text)
        return
    raise AssertionError("no request reached the relay")


def test_the_loop_runs_by_itself_and_is_told_in_sentences(house: House) -> None:
    with up(house) as running:
        draft = house.draft(subject="Your offer", agent="sales-bot")
        drafted = running.wait_for("drafted")
        assert re.fullmatch(rf'\d\d:\d\d:\d\d  sales-bot drafted "Your offer" for {JANE} \({draft.id}\)', drafted)
        running.wait_for(rf'  asked {FOUNDER} about "Your offer"$')
        answer(house, draft.id, "Perhaps")
        running.wait_for(rf"  a reply from {FOUNDER} .*did not count")
        answer(house, draft.id, "Ship it")
        running.wait_for(rf'  {FOUNDER} approved "Your offer"$')
        running.wait_for(r'  sent "Your offer": the relay said 250 2\.0\.0 Ok: queued as')
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 0
        assert [line for line in running.lines if "INFO" in line or '"info"' in line] == []
    assert len(house.relay.to(JANE)) == 1


def test_the_first_lines_say_who_is_asked_through_what_and_what_to_do_next(house: House) -> None:
    with up(house) as running:
        running.wait_for(f"^Asks +{FOUNDER}$")
        running.wait_for("^Replies +maildir:Maildir$")
        running.wait_for(f"^Relay +127.0.0.1:{house.relay.port}$")
        running.wait_for("lie together")
        running.wait_for(r"outbox --config \S+ draft --from you@acme\.example --to ")


@pytest.mark.parametrize("number", SIGNALS)
def test_both_children_end_when_it_is_told_to(house: House, number: signal.Signals) -> None:
    with up(house) as running:
        children = running.children()
        assert children.keys() == {"inbox", "worker"}
        running.process.send_signal(number)
        assert running.ended() == 0
        assert [room for room, child in children.items() if alive(child)] == []
    assert house.rows("SELECT count(*) FROM workers WHERE ended_at IS NULL") == [(0,)]


def test_what_is_owed_a_reply_is_waited_for_and_told(tmp_path: Path) -> None:
    with ScriptedRelay(then=HELD_IN_GAP) as relay:
        house = House.build(tmp_path, relay)
        with up(house) as running:
            draft = house.approved()
            relay.wait_until_holding()
            running.process.send_signal(signal.SIGINT)
            running.process.send_signal(signal.SIGINT)  # at once: the same Ctrl-C, handed on by a program between
            running.wait_for("stopping: ")
            relay.release()
            running.wait_for('sent "Offer": the relay said 250 2.0.0 Ok: queued as 1F2E3D')
            assert running.ended() == 0
        assert house.story(draft.id).draft.state is State.COMPLETED


@pytest.mark.torture
def test_a_second_ctrl_c_kills_what_does_not_end(tmp_path: Path) -> None:
    with ScriptedRelay(then=HELD_IN_GAP) as relay:
        house = House.build(tmp_path, relay)
        with up(house) as running:
            draft = house.approved()
            relay.wait_until_holding()
            children = running.children()
            until = time.monotonic() + PATIENCE
            while running.process.poll() is None and time.monotonic() < until:
                running.process.send_signal(signal.SIGINT)
                threading.Event().wait(0.2)
            assert running.ended() == 130
            assert "may be in doubt" in running.lines[-1]
            assert [room for room, child in children.items() if alive(child)] == []
        relay.release()
        assert house.story(draft.id).draft.state is State.EXECUTING


@pytest.mark.parametrize(
    ("room", "other"), [("worker", "inbox"), pytest.param("inbox", "worker", marks=pytest.mark.torture)]
)
def test_a_child_that_dies_is_named_and_the_other_is_stopped(house: House, room: str, other: str) -> None:
    with up(house) as running:
        children = running.children()
        os.kill(children[room], signal.SIGKILL)
        assert running.ended() == 128 + signal.SIGKILL
        assert running.lines[-1].endswith(f"the {room} ended by itself, by signal 9 (Killed); the {other} was stopped")
        assert not alive(children[other])


def test_what_is_wrong_with_the_settings_is_said_once_and_is_the_exit_code(house: House) -> None:
    (house.folder / "keys" / "grant.key").unlink()
    with up(house, ready=False) as running:
        assert running.ended() == 78
        said = [line for line in running.lines if "grant.key" in line]
        assert len(said) == 1
        assert running.lines[-1].count("ended by itself, with exit code 78") == 1


def test_without_a_database_nothing_is_started(unsent: House, shell: Shell) -> None:
    unsent.database.unlink()
    assert "there is no database" in shell.says(78, "up")
    assert shell.fails(78, "up")["error"] == "database_missing"


@pytest.mark.torture
def test_warnings_of_the_children_pass_through_and_a_draft_s_own_alert_does_not(house: House) -> None:
    house.relay.refuse[JANE] = "550 5.1.1 no such person"
    with up(house) as running:
        running.wait_for(r'^\d\d:\d\d:\d\d  inbox: .*authenticity is "none"')
        house.approved()
        running.wait_for("failed, ")
        running.wait_for(r'told founder@acme.example: "\[outbox\] relay_refused')
        assert [line for line in running.lines if line.count("no such person") and "worker: " in line] == []


@pytest.mark.torture
def test_where_nobody_listens_any_more_both_end_and_what_is_being_sent_is_waited_for(tmp_path: Path) -> None:
    with ScriptedRelay(then=HELD_IN_GAP) as relay:
        house = House.build(tmp_path, relay)
        house.clock.now = wall()
        draft = house.approved()
        process = subprocess.Popen(
            [sys.executable, "-m", "outbox", "--config", str(house.folder / "outbox.toml"), "up"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        try:
            relay.wait_until_holding()
            process.stdout.close()
            house.cancel(house.draft(subject="Another").id)  # something to tell
            relay.release()
            assert process.wait(PATIENCE) != 0
        finally:
            process.kill()
            process.wait()
        assert house.story(draft.id).draft.state is State.COMPLETED
        assert house.rows("SELECT count(*) FROM workers WHERE ended_at IS NULL") == [(0,)]


@pytest.mark.torture
def test_what_a_terminal_has_no_letters_for_is_spelled_out(house: House) -> None:
    with up(house, PYTHONIOENCODING="latin-1") as running:
        house.draft(subject="Offer \u2713")
        running.wait_for(re.escape(r'drafted "Offer \u2713"'))


def test_a_relay_that_is_not_there_is_told(tmp_path: Path) -> None:
    house = House.build(tmp_path, RecordingRelay(port=1))
    with up(house) as running:
        house.approved()
        running.wait_for(r'not sent yet, "Offer": 127\.0\.0\.1:1: .*; it is tried again at \d\d:\d\d:\d\d$')


@pytest.mark.torture
def test_what_a_stranger_wrote_reaches_the_terminal_as_text_alone(house: House) -> None:
    with up(house) as running:
        draft = house.draft()
        Shell(house.folder).run("reject", draft.id, "--reason", "\x1b[2J\x07\u202ereason" + "x" * 5000)
        line = running.wait_for("rejected")
        assert line.isprintable()
        assert len(line) < 400


@pytest.mark.torture
def test_in_json_each_event_is_an_object_and_so_is_each_warning(house: House) -> None:
    with up(house, "--json") as running:
        draft = house.draft()
        event = json.loads(running.wait_for('"action": "insert"'))
        assert set(event) == {"at", "action", "draft", "text"}
        assert event["draft"] == draft.id
        assert event["at"].endswith("Z")
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0
        for line in running.lines:
            assert isinstance(json.loads(line), dict)


def test_ctrl_c_at_a_terminal_reaches_this_process_alone(tmp_path: Path) -> None:
    with ScriptedRelay(then=HELD_IN_GAP) as relay:
        house = House.build(tmp_path, relay)
        spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
        command = [sys.executable, "-m", "outbox", "--config", str(house.folder / "outbox.toml"), "up"]
        terminal = subprocess.Popen(
            [sys.executable, "-c", spawn, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert terminal.stdin is not None
        try:
            house.clock.now = wall()
            draft = house.approved()
            relay.wait_until_holding()
            terminal.stdin.write(b"\x03")
            terminal.stdin.flush()
            assert terminal.stdout is not None
            said = b""
            while b"stopping: " not in said:
                chunk = terminal.stdout.read1(65536)
                assert chunk, said
                said += chunk
            relay.release()
            rest, _ = terminal.communicate(timeout=PATIENCE)
            assert b'sent "Offer": the relay said 250' in said + rest
            assert terminal.returncode == 0
        finally:
            terminal.kill()
            terminal.wait()
        assert house.story(draft.id).draft.state is State.COMPLETED


@pytest.mark.parametrize("command", [("inbox", "--once"), ("worker", "--drain")])
def test_quiet_leaves_warnings_alone(house: House, command: tuple[str, str]) -> None:
    house.clock.now = wall()
    house.draft()
    shell = Shell(house.folder)
    for _ in range(2):
        done = shell.run("inbox", "--once", "--quiet")
        assert done.code == 0
    done = shell.run(*command, "--quiet")
    assert done.code == 0
    assert '"level": "info"' not in done.err
    assert house.relay.messages or command[0] == "inbox"
