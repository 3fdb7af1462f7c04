"""One outbox in a folder of its own, entered by its rooms' doors, with a clock that the test moves."""

from __future__ import annotations

import atexit
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache
from pathlib import Path

import psycopg

from outbox import config, drafter, inbox, operator, worker
from outbox.config import Settings
from outbox.core.lifecycle import Room
from outbox.drafter.intake import Wanted
from outbox.operator.setup import Plan, initialise
from outbox.store.server import Server, parse_server
from outbox.store.views import DraftView, ReplyView, Story
from tests.postgres import server
from tests.postgres.plain import Plain
from tests.relay.recording import RecordingRelay

DATABASE = "sqlite"  # what houses are built on, where nobody says otherwise; see --database
SECOND = 1_000_000
HOUR = 3600 * SECOND
FOUNDER = "founder@acme.example"
APPROVAL = "approve@acme.example"
SALES = "sales@acme.example"
JANE = "jane@customer.example"


@dataclass
class HandClock:
    """Microseconds UTC that only the test moves."""

    now: int = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now

    def advance(self, microseconds: int) -> None:
        self.now += microseconds


@cache
def _pattern() -> Path:
    """A folder that was initialised once for this process: its migrations would take every test 20 ms."""
    kept = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    folder = Path(kept) / "house"
    for part in ("new", "cur", "tmp"):
        (folder / "Maildir" / part).mkdir(parents=True)
    plan = Plan(
        folder=folder,
        from_domains=("acme.example",),
        approvers=(FOUNDER,),
        address=APPROVAL,
        mailbox="maildir:Maildir",
        authenticity="none",
        relay_host="127.0.0.1",
        relay_port=1,
    )
    initialise(plan)
    return folder


@dataclass
class House:
    """An initialised outbox: one approver, a Maildir, and a relay on loopback."""

    folder: Path
    relay: RecordingRelay
    clock: HandClock = field(default_factory=HandClock)
    replies_written: int = 0
    url: str | None = None  # of a PostgreSQL database; else it is the file in the folder
    is_kept: bool = True  # whether what a stranger does over `connection` stays

    @classmethod
    def build(cls, folder: Path, relay: RecordingRelay, *, kind: str | None = None) -> House:
        """As `initialise` leaves it, the relay's port and the keys being its own, on a database of this kind."""
        shutil.copytree(_pattern(), folder, dirs_exist_ok=True)
        for key in (folder / "keys").iterdir():
            key.write_bytes(secrets.token_bytes(key.stat().st_size))
        house = cls(folder, relay)
        if (kind or DATABASE) == "postgresql":
            house.database.unlink()
            house.url = server.url_of(server.make_database())
            house.set("database", url=f'"{house.url}"')
        house.set("relay", port=str(relay.port))
        return house

    def copied(self, folder: Path, relay: RecordingRelay) -> House:
        """Another like it, as far as it has come, in a folder that is not there yet; nobody is in this one."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        other = House(folder, relay, HandClock(self.clock.now), self.replies_written)
        if self.url is not None:
            other.url = server.url_of(server.make_database(self.name))
            other.set("database", url=f'"{other.url}"')
        other.set("relay", port=str(relay.port))
        return other

    def backed_up(self) -> Path | str:
        """A copy of the database as it is now, whoever writes to it meanwhile: a file, or a database's name."""
        if self.url is not None:
            return server.copy_in_use(self.name)
        copy = self.folder / "backup.db"
        with closing(sqlite3.connect(self.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy

    def restore(self, copy: Path | str) -> None:
        """Put a copy in the database's place, as the manual says."""
        if isinstance(copy, str):
            server.put_back(self.name, copy)
            return
        for file in self.folder.glob("outbox.db*"):
            file.unlink()
        shutil.copy(copy, self.database)

    @property
    def database(self) -> Path:
        return self.folder / "outbox.db"

    @property
    def place(self) -> Path | Server:
        """Where the store finds the database."""
        return parse_server(self.url) if self.url is not None else self.database

    @property
    def maildir(self) -> Path:
        return self.folder / "Maildir"

    @property
    def settings(self) -> Settings:
        return config.load(self.folder / "outbox.toml")

    def settings_of(self, room: Room) -> Settings:
        """The settings as this room's own user has them: on PostgreSQL he has a role of his own."""
        if self.url is None:
            return self.settings
        file, user = self.folder / f"outbox-{room}.toml", server.url_of(self.name, user=server.login_of(room))
        draft = file.with_suffix(f".{secrets.token_hex(4)}")
        draft.write_text((self.folder / "outbox.toml").read_text().replace(self.url, user))
        draft.replace(file)  # whole at any moment: threads read it
        return config.load(file)

    @property
    def name(self) -> str:
        """What a database on a server is called there."""
        return dict(parse_server(self.url or "").parameters)["dbname"]

    def set(self, section: str, **values: str) -> None:
        """Write settings as TOML text into a section that may be there already."""
        file = self.folder / "outbox.toml"
        lines = file.read_text().splitlines()
        for name, value in values.items():
            head = f"[{section}]"
            if head not in lines:
                lines += ["", head]
            start = lines.index(head)
            end = next((n for n in range(start + 1, len(lines)) if lines[n].startswith("[")), len(lines))
            kept = [line for line in lines[start + 1 : end] if not line.removeprefix("# ").startswith(f"{name} =")]
            lines = [*lines[: start + 1], f"{name} = {value}", *kept, *lines[end:]]
        file.write_text("\n".join(lines) + "\n")

    def draft(self, *, idempotency_key: str | None = None, **given: object) -> DraftView:
        wanted: dict[str, object] = {
            "sender": SALES,
            "to": (JANE,),
            "subject": "Offer",
            "text": "Dear Jane,\n\nhere it is.",
        }
        with drafter.open(self.settings_of(Room.DRAFTER), clock=self.clock) as room:
            return room.draft(Wanted(**(wanted | given)), idempotency_key=idempotency_key).draft  # type: ignore[arg-type]

    def inbox(self) -> None:
        """Look once: expire, read, ask."""
        with inbox.open(self.settings_of(Room.INBOX), clock=self.clock) as room:
            room.once()

    def drain(self) -> None:
        """Send what is approved and due."""
        with worker.open(self.settings_of(Room.WORKER), clock=self.clock) as room:
            room.run(drain=True)

    def approve(self, draft_id: str) -> Story:
        """Approve at the terminal."""
        with operator.open(self.settings_of(Room.OPERATOR), clock=self.clock) as desk:
            return desk.approve(draft_id, named=None)

    def approved(self, **given: object) -> DraftView:
        """A draft that was approved at the terminal."""
        return self.approve(self.draft(**given).id).draft  # type: ignore[arg-type]

    def cancel(self, draft_id: str) -> Story:
        with operator.open(self.settings_of(Room.OPERATOR), clock=self.clock) as desk:
            return desk.cancel(draft_id)

    def story(self, draft_id: str) -> Story:
        with operator.read(self.settings_of(Room.OPERATOR)) as records:
            return records.show(draft_id)

    def drafts(self, *, system: bool = False) -> list[DraftView]:
        with operator.read(self.settings_of(Room.OPERATOR)) as records:
            return records.drafts(system=system)

    def replies(self) -> list[ReplyView]:
        with operator.read(self.settings_of(Room.OPERATOR)) as records:
            return records.replies()

    def request_for(self, draft_id: str) -> EmailMessage:
        """The request as the relay got it: ask and drain first."""
        for sent in reversed(self.relay.messages):
            message = message_from_bytes(sent.octets, policy=policy.default)
            if f"draft={draft_id};" in str(message.get("X-Outbox-Request", "")).replace("\n", ""):
                return message
        raise AssertionError(f"no request for {draft_id} reached the relay")

    def ask(self, draft_id: str) -> EmailMessage:
        """Ask, let the request leave, and return it as the approver got it."""
        self.inbox()
        self.drain()
        return self.request_for(draft_id)

    def reply(self, request: EmailMessage, text: str, *, sender: str = FOUNDER, **headers: str | None) -> Path:
        """Put a reply into the Maildir as a mail client would write it; a header that is None is left out."""
        self.replies_written += 1
        quoted = "\n".join(f"> {line}" for line in str(request.get_body().get_content()).splitlines()[:20])  # type: ignore[union-attr]
        values: dict[str, str | None] = {
            "From": f"The Founder <{sender}>",
            "To": str(request["Reply-To"]),
            "Subject": f"Re: {request['Subject']}",
            "Date": format_datetime(datetime.fromtimestamp(self.clock.now // SECOND, UTC)),
            "Message-ID": f"<reply-{self.replies_written}@phone.example>",
            "In-Reply-To": str(request["Message-ID"]),
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Transfer-Encoding": "8bit",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\n" for name, value in values.items() if value is not None)
        body = f"{text}\n\nOn Fri, 15 Jan 2027 at 08:00, Outbox <{APPROVAL}> wrote:\n{quoted}\n"
        return self.deliver(f"{head}\n{body}".encode())

    def deliver(self, octets: bytes) -> Path:
        """Put a raw message into the Maildir."""
        number = len(list((self.maildir / "new").iterdir())) + 1
        file = self.maildir / "new" / f"{self.clock.now}.{number}.test"
        file.write_bytes(octets)
        return file

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Plain SQL, read."""
        with self.connection() as connection:
            return connection.execute(query, values).fetchall()

    def _plain(self, *, unchecked: bool = False) -> Plain:
        told = dict(parse_server(self.url or "").parameters)
        return Plain(psycopg.connect(**told, autocommit=True), kept=self.is_kept, unchecked=unchecked)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection | Plain]:
        """A stranger's connection, with the guards in force."""
        if self.url is not None:
            with closing(self._plain()) as plain:
                yield plain
            return
        connection = sqlite3.connect(self.database, isolation_level=None)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA recursive_triggers = ON")
            yield connection
        finally:
            connection.close()

    @contextmanager
    def as_thief(self) -> Iterator[sqlite3.Connection | Plain]:
        """A connection to which no trigger or CHECK objects; they are put back afterwards, as a careful thief would."""
        if self.url is not None:
            with closing(self._plain(unchecked=True)) as plain:
                plain.execute("SET session_replication_role = replica")  # no trigger and no foreign key is looked at
                yield plain
            return
        connection = sqlite3.connect(self.database, isolation_level=None)
        try:
            triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            connection.execute("PRAGMA ignore_check_constraints = ON")
            yield connection
            for _, sql in triggers:
                connection.execute(sql)
        finally:
            connection.close()
