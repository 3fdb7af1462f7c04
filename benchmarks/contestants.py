"""Who competes: each fills its queue once, and drains a fresh copy of it whenever it is asked to."""

from __future__ import annotations

import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.command import Cost, Started, run, start
from benchmarks.house import House, worker_command
from benchmarks.postgres import Postgres
from benchmarks.relays import smtp_program
from benchmarks.run import Run

ROOT = Path(__file__).parents[1]
IMPORTS = {"PYTHONPATH": str(ROOT)}
LANES = 20


class Contestant(ABC):
    """One of them. `name` is what tables and plots call it."""

    name: str
    remark: str = ""
    checked: bool = True  # whether its mails have numbers, so that the sink can tell them apart

    @abstractmethod
    def prepare(self, run: Run, count: int) -> None:
        """Queue `count` mails; not timed."""

    @abstractmethod
    def fresh(self, run: Run) -> Path:
        """A copy of what was prepared, to be drained."""

    @abstractmethod
    def start(self, folder: Path, port: int) -> list[Started]:
        """Begin to drain a copy into the relay at that port of loopback."""

    def drain(self, run: Run, port: int) -> Cost:
        """Drain a fresh copy, and throw it away. Raises CommandFailed."""
        folder = self.fresh(run)
        try:
            return together([started.wait() for started in self.start(folder, port)])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def mend(self, folder: Path) -> bool:  # noqa: ARG002  most have nothing to mend
        """Do what a person has to do before it starts again after a kill; whether there was anything."""
        return False

    def in_doubt(self, folder: Path) -> int:  # noqa: ARG002  none but ours knows of any
        """How many mails it says that it does not know about."""
        return 0

    def waiting(self, folder: Path) -> int:  # noqa: ARG002  see above
        """How many it will try again by itself later."""
        return 0


def together(costs: list[Cost]) -> Cost:
    """What processes cost that ran at the same time."""
    return Cost(
        wall=max(cost.wall for cost in costs),
        cpu=sum(cost.cpu for cost in costs),
        peak=sum(cost.peak for cost in costs),
        early=sum(cost.early for cost in costs),
        late=sum(cost.late for cost in costs),
    )


@dataclass(slots=True)
class Outbox(Contestant):
    """This project on SQLite."""

    lanes: int = LANES
    workers: int = 1
    label: str = "outbox"
    environment: Mapping[str, str] = field(default_factory=dict)
    _template: House | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """With how many workers."""
        return self.label if self.workers == 1 else f"{self.label}, {self.workers} workers"

    def prepare(self, run: Run, count: int) -> None:
        """Draft, sign and grant."""
        self._template = House.build(run.fresh())
        self._template.approved(count)

    def fresh(self, run: Run) -> Path:
        """The whole folder, ledger and all."""
        assert self._template is not None
        return self._template.copy(run.fresh()).folder

    def start(self, folder: Path, port: int) -> list[Started]:
        """One process for each worker."""
        environment = House(folder).environment(port=port, lanes=self.lanes) | IMPORTS | dict(self.environment)
        return [start(worker_command(), environment=environment) for _ in range(self.workers)]

    def in_doubt(self, folder: Path) -> int:
        """Attempts that were left in the gap."""
        return House(folder).in_doubt()

    def waiting(self, folder: Path) -> int:
        """Drafts that are approved still."""
        return House(folder).count("approved")


@dataclass(slots=True)
class OutboxOnPostgres(Outbox):
    """This project on PostgreSQL: the queue is a database of the run's server, copied as a template."""

    label: str = "outbox on PostgreSQL"
    filled: str = ""

    def prepare(self, run: Run, count: int) -> None:
        """Draft, sign and grant, in a database that is then only copied."""
        folder = run.fresh()
        self.filled = f"outbox_template_{folder.name}"
        self._template = House.on_postgres(folder, run.postgres.database(self.filled))
        for started in self.start(folder, port=1):  # while no gap was entered a worker may come without a ledger
            started.wait()
        self._template.approved(count)

    def fresh(self, run: Run) -> Path:
        """A database with the queue in it, and a folder whose settings name it."""
        assert self._template is not None
        house = self._template.copy(run.fresh())
        house.move_to(run.postgres.copy("outbox", self.filled))
        return house.folder

    def start(self, folder: Path, port: int) -> list[Started]:
        """One process for each worker, each with a state folder and a ledger of its own."""
        environment = House(folder).environment(port=port, lanes=self.lanes) | IMPORTS
        states = [str(folder / f"state-{number}") for number in range(self.workers)]
        return [
            start(worker_command(), environment=environment | {"OUTBOX_DATABASE__STATE_DIR": one}) for one in states
        ]


@dataclass(slots=True)
class Peer(Contestant):
    """A program of benchmarks.peers; "PORT" and "COUNT" in its words are filled in."""

    name: str
    module: str
    words: tuple[str, ...]
    has_queue: bool = True
    remark: str = ""
    locks: tuple[str, ...] = ()  # what a kill leaves behind and nobody else takes away
    environment: Mapping[str, str] = field(default_factory=dict)
    _template: Path | None = None
    _count: int = 0

    def prepare(self, run: Run, count: int) -> None:
        """Let it fill its queue in a folder of its own."""
        self._count = count
        self._template = run.fresh()
        self._template.mkdir()
        if self.has_queue:
            self._run(self._template, "prepare", str(count))

    def fresh(self, run: Run) -> Path:
        """The folder with its queue."""
        assert self._template is not None
        folder = run.fresh()
        shutil.copytree(self._template, folder)
        return folder

    def start(self, folder: Path, port: int) -> list[Started]:
        """Its own way to drain."""
        filled = {"PORT": str(port), "COUNT": str(self._count)}
        words = self._command("drain", *(filled.get(word, word) for word in self.words))
        return [start(words, environment=self._environment(), folder=folder)]

    def mend(self, folder: Path) -> bool:
        """Take stale locks away."""
        stale = {file for pattern in self.locks for file in folder.glob(pattern)}
        for file in stale:
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
        return bool(stale)

    def _run(self, folder: Path, *words: str) -> None:
        run(self._command(*words), environment=self._environment(), folder=folder)

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", f"benchmarks.peers.{self.module}", *words]

    def _environment(self) -> dict[str, str]:
        return IMPORTS | {"BENCHMARK_PORT": "0"} | dict(self.environment)


@dataclass(slots=True)
class Procrastinate(Peer):
    """procrastinate: its queue is a database of the run's server, copied as a template."""

    _server: Postgres | None = None

    def prepare(self, run: Run, count: int) -> None:
        """Queue them in a database that is then only copied."""
        self.environment = {"BENCHMARK_POSTGRES": run.postgres.database("procrastinate_template")}
        Peer.prepare(self, run, count)

    def fresh(self, run: Run) -> Path:
        """A database with the queue in it."""
        self._server = run.postgres
        address = self._server.copy("procrastinate", "procrastinate_template")
        self.environment = {"BENCHMARK_POSTGRES": address}
        return Peer.fresh(self, run)

    def in_doubt(self, folder: Path) -> int:
        """Jobs that are being done for ever, until somebody looks for stalled ones."""
        del folder
        assert self._server is not None
        return self._server.number("procrastinate", "SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'")


class SmtpSource(Contestant):
    """Postfix's own load generator: what the sink can take."""

    name = "smtp-source"
    checked = False

    def __init__(self, sessions: int = LANES) -> None:
        self._sessions, self._count = sessions, 0
        self.remark = f"{sessions} sessions, no queue"

    def prepare(self, run: Run, count: int) -> None:
        """Nothing to queue."""
        del run
        self._count = count

    def fresh(self, run: Run) -> Path:
        """An empty folder."""
        folder = run.fresh()
        folder.mkdir()
        return folder

    def start(self, folder: Path, port: int) -> list[Started]:
        """As many sessions as lanes, each kept."""
        del folder
        words = [str(smtp_program("smtp-source")), "-s", str(self._sessions), "-d", "-m", str(self._count)]
        return [start([*words, "-l", "2048", f"127.0.0.1:{port}"])]


def plain(connections: int = LANES, *, compose: bool = False) -> Peer:
    """Nothing around aiosmtplib."""
    words = ("PORT", str(connections), "COUNT", *(["compose"] if compose else []))
    name = "aiosmtplib, composing" if compose else "aiosmtplib"
    return Peer(
        name, "plain_aiosmtplib", words, has_queue=False, remark=f"{connections} kept connections, no queue, no record"
    )


def post_office_as_shipped() -> Peer:
    """`send_queued_mail` with no settings."""
    words = ("PORT", "1", "-", "-", "-")
    return Peer("django-post-office", "post_office", words, remark="as shipped", locks=("post_office*.lock",))


def post_office_at_its_best(*, processes: int = 1, threads: int = 2, batch: int = 5000) -> Peer:
    """What `python -m benchmarks tune` found best; nothing is logged."""
    words = ("PORT", str(processes), str(batch), str(threads), "0")
    name = "django-post-office, tuned" + (f", {processes} processes" if processes > 1 else "")
    remark = f"BATCH_SIZE {batch}, THREADS_PER_PROCESS {threads}, LOG_LEVEL 0"
    return Peer(name, "post_office", words, remark=remark, locks=("post_office*.lock",))


def mailer() -> Peer:
    """`send_mail` with no settings."""
    return Peer("django-mailer", "mailer", ("PORT",), locks=("send_mail.lock",))


def huey(threads: int = 10) -> Peer:
    """The consumer of huey, with threads."""
    return Peer("huey", "huey_smtplib", ("PORT", str(threads)), remark=f"{threads} threads, smtplib, SQLite")


def procrastinate(concurrency: int = LANES) -> Procrastinate:
    """The worker of procrastinate."""
    words = ("PORT", str(concurrency))
    return Procrastinate(
        "procrastinate",
        "procrastinate_aiosmtplib",
        words,
        remark=f"concurrency {concurrency}, aiosmtplib, PostgreSQL; its server's CPU is counted apart",
    )
