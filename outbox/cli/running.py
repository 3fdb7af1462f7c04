"""What `outbox up` needs: the inbox and the worker as two child processes, and what happens in sentences.

The children are processes of their own, as they are under a supervisor: this one holds no key and opens no room but to
read. They have a session of their own too, so that Ctrl-C reaches this process alone, and each is told to stop once.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

import click

from outbox.cli.render import Json, dumps, rfc3339
from outbox.cli.sentences import clock_time, sentence, shown
from outbox.clock import wall
from outbox.core.errors import Code, Unavailable

if TYPE_CHECKING:
    from outbox.config import Settings
    from outbox.operator.records import Records
    from outbox.store.events import Event

ROOMS = ("inbox", "worker")
POLL = 0.25  # seconds between looks at the journal and at the children
GRACE = 20.0  # seconds for a child to end, after what it may wait for
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAST_WORDS = 1.0  # seconds for what a child said before it ended; what it started may hold its stderr for ever
_AGAIN = 1.0  # seconds in which a second Ctrl-C is the same one: some programs that start others pass it on
_SAME = 60.0  # seconds in which a child's warning is not repeated
_LONGEST_LINE = 1 << 20
_LONGEST_WARNING = 1000


@dataclass(slots=True)
class Child:
    """One room's process, and when it warned of what."""

    room: str
    process: subprocess.Popen[bytes]
    warned: dict[str, float] = field(default_factory=dict)
    lines: SimpleQueue[str] = field(default_factory=SimpleQueue)
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True, name=self.room)
        self.reader.start()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            while line := stream.readline(_LONGEST_LINE):
                self.lines.put(line.decode("utf-8", "replace").rstrip("\r\n"))


class Teller:
    """Says what happens: events on stdout, warnings on stderr; to people in sentences, to programs as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._said: set[str] = set()  # errors that a child ended with: two may end with the same one

    def event(self, event: Event) -> None:
        """One event, where it says something."""
        words = sentence(event)
        if words is None:
            return
        if self._as_json:
            told: Json = {"at": rfc3339(event.at), "action": event.action, "draft": event.draft_id, "text": words}
            click.echo(dumps(told))
        else:
            click.echo(f"{clock_time(event.at)}  {words}")

    def warning(self, words: str, *, room: str | None = None) -> None:
        """One warning, in a room's name or in that of `outbox up` itself."""
        if self._as_json:
            click.echo(dumps({"at": rfc3339(wall()), "level": "warning", "room": room, "message": words}), err=True)
        else:
            click.echo(f"{clock_time(wall())}  {f'{room}: ' if room else ''}{words}", err=True)

    def line(self, child: Child, line: str) -> None:
        """One line of a child's stderr: a log record, or an error that it ended with."""
        record = _record(line)
        if record is None:
            if line not in self._said:
                self._said.add(line)
                self.warning(shown(line.removeprefix("outbox: "), _LONGEST_WARNING), room=child.room)
        elif _is_news(record):
            for words in _words(record):
                if _is_fresh(child, words):
                    self.warning(words, room=child.room)


def _record(line: str) -> dict[str, object] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "message" in record else None


def _is_news(record: dict[str, object]) -> bool:
    """An alert about a draft is what the journal says too; but not where its worker died in the gap."""
    is_told = record.get("action") == "alert" and record.get("draft") is not None
    return not is_told or record.get("code") == Code.IN_DOUBT


def _words(record: dict[str, object]) -> Iterator[str]:
    yield shown(record["message"], _LONGEST_WARNING)
    for line in str(record.get("exception", "")).splitlines():
        yield shown(f"    {line}", _LONGEST_WARNING)


def _is_fresh(child: Child, words: str) -> bool:
    now = time.monotonic()
    child.warned = {said: at for said, at in child.warned.items() if now - at < _SAME}
    return child.warned.setdefault(words, now) == now


class Running:
    """The two children, from their start to their end. Use once."""

    def __init__(self, records: Records, command: Sequence[str], teller: Teller, *, stop_timeout: float) -> None:
        self._records, self._command, self._teller = records, command, teller
        self._patience = stop_timeout + GRACE
        self._stopped_at: float | None = None
        self._killed = False
        self._place = records.newest_place()
        self._is_unreadable = False

    def run(self) -> int:
        """Until a signal, or until a child ends by itself; returns what to exit with."""
        # What nohup, or a shell without jobs, has told this process to ignore stays ignored.
        taken = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in taken:
            signal.signal(number, self._take_signal)
        children: list[Child] = []
        try:
            children.extend(self._start(room) for room in ROOMS)
            while self._stopped_at is None and not any(child.has_ended for child in children):
                self._look(children)
                time.sleep(POLL)
            return self._end(children)
        finally:
            self._end_unheard(children)
            for number in taken:
                signal.signal(number, signal.SIG_IGN)  # the exit code is decided; one more Ctrl-C changes nothing

    def _start(self, room: str) -> Child:
        process = subprocess.Popen(  # noqa: S603  this very program
            [*self._command, room, "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return Child(room, process)

    def _take_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._stopped_at is None:
            self._stopped_at = now
        elif number == signal.SIGINT and now - self._stopped_at >= _AGAIN:
            self._killed = True

    def _look(self, children: Sequence[Child]) -> None:
        """Tell what was said and journalled since the last look. A database that cannot be read is looked at again."""
        for child in children:
            self._read_lines(child)
        try:
            while events := self._records.events(self._place):
                for event in events:
                    self._teller.event(event)
                    self._place = event.place
            self._is_unreadable = False
        except Unavailable as error:
            if not self._is_unreadable:
                self._teller.warning(error.message)
            self._is_unreadable = True

    def _read_lines(self, child: Child) -> None:
        while True:
            try:
                line = child.lines.get_nowait()
            except Empty:
                return
            self._teller.line(child, line)

    def _end(self, children: Sequence[Child]) -> int:
        """Tell the children to end, and wait; returns what to exit with."""
        first = next((child for child in children if child.has_ended), None) if self._stopped_at is None else None
        if first is None:
            self._teller.warning("stopping: what is being sent is waited for; Ctrl-C again kills it")
        for child in children:
            if not child.has_ended:
                child.process.terminate()
        late = self._wait(children)
        if first is not None:
            others = " and ".join(child.room for child in children if child is not first)
            self._teller.warning(f"the {first.room} ended by itself, {_how(first)}; the {others} was stopped")
            return _exit_code(first)
        if late:
            rooms = " and ".join(child.room for child in late)
            self._teller.warning(f"the {rooms} did not end and was killed; what was being sent may be in doubt")
            return 130 if self._killed else 1
        return max((_exit_code(child) for child in children if _is_amiss(child)), default=0)

    def _wait(self, children: Sequence[Child]) -> list[Child]:
        """Until all have ended, going on to tell what happens; returns those that had to be killed."""
        late = self._wait_for_end(children, self._look)
        for child in children:
            child.reader.join(_LAST_WORDS)
        self._look(children)
        return late

    def _wait_for_end(
        self, children: Sequence[Child], meanwhile: Callable[[Sequence[Child]], None] | None = None
    ) -> list[Child]:
        until = time.monotonic() + self._patience
        while not all(child.has_ended for child in children) and not self._killed and time.monotonic() < until:
            if meanwhile is not None:
                meanwhile(children)
            time.sleep(POLL)
        late = [child for child in children if not child.has_ended]
        for child in late:
            child.process.kill()
            child.process.wait()
        return late

    def _end_unheard(self, children: Sequence[Child]) -> None:
        """Where nothing can be told any more (stdout is closed), what is being sent is waited for all the same."""
        for child in children:
            if not child.has_ended:
                child.process.terminate()
        self._wait_for_end(children)


def _is_amiss(child: Child) -> bool:
    """Whether a child that was told to stop ended otherwise than by that."""
    return child.process.returncode not in {0, -signal.SIGTERM}


def _exit_code(child: Child) -> int:
    code = child.process.returncode or 0
    return code if code >= 0 else 128 - code


def _how(child: Child) -> str:
    code = child.process.returncode or 0
    return f"with exit code {code}" if code >= 0 else f"by signal {-code} ({signal.strsignal(-code)})"


def run(settings: Settings, records: Records, *, config: str | None, as_json: bool) -> int:
    """Run both rooms until they are stopped; returns what to exit with."""
    # -P: a folder that agents write into may be the current one, and must not be imported from.
    command = [sys.executable, "-P", "-m", "outbox", *(["--config", config] if config is not None else [])]
    teller = Teller(as_json=as_json)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a subject may have what this terminal has no letters for
    if not as_json:
        for line in _first_lines(settings, config):
            click.echo(line)

    return Running(records, command, teller, stop_timeout=settings.worker.stop_timeout).run()


def _first_lines(settings: Settings, config: str | None) -> Iterator[str]:
    """Who is asked, through what, and what to do next."""
    from outbox.operator.setup import TOGETHER

    approvers = ", ".join(settings.approval.approvers) or "nobody yet (approval.approvers)"
    login = f" as {settings.mailbox.username}" if settings.mailbox.username else ""
    yield f"Asks      {shown(approvers)}"
    yield f"Replies   {shown(settings.mailbox.url or 'nowhere yet (mailbox.url)')}{shown(login)}"
    yield f"Relay     {shown(settings.relay.host or 'none yet (relay.host)')}:{settings.relay.port}"
    if settings.has_key("draft") and settings.has_key("grant"):
        yield TOGETHER
    sender = f"you@{next(iter(settings.policy.from_domains), 'example.org')}"
    before = f"outbox --config {config}" if config is not None else "outbox"
    yield (
        "Draft a mail in another terminal; what becomes of it is told here. Ctrl-C stops.\n"
        f'    {before} draft --from {sender} --to jane@example.org --subject Hello --text "Dear Jane, hello."\n'
    )
