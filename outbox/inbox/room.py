"""The inbox's door: expire, ask, remind, read, tell."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from outbox.alerts import Alerts
from outbox.clock import Clock, ClockWatch, new_id, wall
from outbox.config import Settings, required
from outbox.core.errors import Code, ConfigError, OutboxError, TryLater
from outbox.core.lifecycle import Room
from outbox.core.signing import KeyRing
from outbox.imap.token_command import access_token
from outbox.inbox.answering import Answering
from outbox.inbox.asking import Asking
from outbox.inbox.authenticity import UNPROVEN_MODE, Authenticity, Times
from outbox.inbox.carriers import Carriers
from outbox.inbox.ending import Ending
from outbox.inbox.incoming import parse_incoming
from outbox.inbox.judgement import Judge, Judgement
from outbox.inbox.mailbox import Mailbox
from outbox.inbox.maildir import Maildir
from outbox.inbox.wording import Manner
from outbox.outage import Outage
from outbox.overdue import expire_overdue
from outbox.store.engine import Database, connect
from outbox.store.journal import Chain
from outbox.store.revision import refuse_other_revision
from outbox.store.selftest import refuse_untrustworthy
from outbox.store.writer import Writer
from outbox.supervisor import StopSignals, Supervisor

log = logging.getLogger("outbox.inbox")
POLL = 2.0  # seconds between looks at the database and, where it cannot say that something arrived, at the mailbox


class Inbox:
    """Asks approvers, reads their replies, grants, and tells them how it ended. Use as a context manager."""

    def __init__(self, settings: Settings, *, clock: Clock = wall) -> None:
        address = required(settings.approval.address, "approval.address")
        required(settings.mailbox.url, "mailbox.url")
        refuse_unproven_replies(settings)
        approvers = settings.approvers
        self._clock = clock
        ring = settings.grant_ring()
        authenticity = Authenticity(settings)
        self._mailbox = open_mailbox(settings)
        self._database = connect(settings.database_place, Room.INBOX)
        refuse_untrustworthy(self._database)
        self._writer = Writer(self._database, Chain(Room.INBOX, new_id(clock()), ring))
        self._watch = ClockWatch(clock)
        self._supervisor = Supervisor(settings.supervision)
        self._alerts = Alerts(settings, Room.INBOX, ring, self._writer, clock)
        extended = settings.approval.addressing == "plus"
        manner = Manner(address, extended=extended, return_path=settings.relay.return_path)
        self._asking = Asking(
            approvers=approvers,
            authenticity=authenticity,
            database=self._database,
            writer=self._writer,
            alerts=self._alerts,
            ring=ring,
            manner=manner,
            clock=clock,
        )
        self._answering = Answering(
            mailbox=self._mailbox,
            judge=_judge(settings, self._database, ring, authenticity),
            database=self._database,
            writer=self._writer,
            alerts=self._alerts,
            ring=ring,
            manner=manner,
            grant_ttl=settings.approval.grant_ttl,
            clock=clock,
        )
        self._ending = Ending(
            approvers=approvers,
            confirm=settings.approval.confirm,
            database=self._database,
            writer=self._writer,
            alerts=self._alerts,
            ring=ring,
            manner=manner,
            clock=clock,
        )
        if settings.approval.authenticity == "none":
            log.warning("%s", UNPROVEN_MODE, extra={"action": "unproven"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the room."""
        self._mailbox.close()
        self._writer.close()
        self._database.close()

    def once(self) -> None:
        """One look at everything. Raises TryLater where a reply waits for a proof that cannot be had now."""
        for work in self._rounds():
            work()
        if waiting := self._answering.postponed:
            what = "1 reply waits" if len(waiting) == 1 else f"{len(waiting)} replies wait"
            raise TryLater(Code.REPLIES_WAIT, f"{what}: {waiting[0]}; look again in a minute")

    def _rounds(self) -> tuple[Callable[[], None], ...]:
        return (self.expire, self._asking.ask, self._asking.remind, self._answering.read, self._ending.tell)

    def run(self) -> None:
        """`once` again and again until SIGTERM or SIGINT. What fails is logged and tried again; the rest goes on."""
        outages = [(work, Outage(self._alerts, self._clock)) for work in self._rounds()]
        with StopSignals() as signals:
            self._supervisor.ready("asking, and reading replies")
            while not signals.asked.is_set():
                for work, outage in outages:
                    self._try(work, outage)
                failing = [outage.words for _, outage in outages if outage.words]
                self._supervisor.status("; ".join(failing) or "asking, and reading replies")
                self._alerts.state.write({"state": "; ".join(failing) or "ok"})
                self._mailbox.wait(POLL, signals.asked)
            self._supervisor.stopping("done")

    def _try(self, work: Callable[[], None], outage: Outage) -> None:
        self._supervisor.alive()
        try:
            work()
        except OutboxError as error:
            outage.failed(error)
        except Exception:  # the loop: what failed once is looked at again
            log.exception("a look at the mailbox failed", extra={"action": "inbox"})
        else:
            outage.worked()

    def expire(self) -> None:
        """Expire what nobody answered in time, and what was approved and did not leave in time.

        A clock that jumped expires nothing.
        """
        if (jump := self._watch.jumped() or self._database.apart()) is not None:
            raise TryLater(Code.CLOCK_JUMPED, f"{jump}; nothing is expired until that is mended")
        expire_overdue(self._database, self._writer, self._alerts, now=self._clock())


def open(settings: Settings, *, clock: Clock = wall) -> Inbox:
    """Enter the room. Raises ConfigError or Unavailable where a setting, key, mailbox or database is not as needed."""
    return Inbox(settings, clock=clock)


def explain(settings: Settings, octets: bytes, *, clock: Clock = wall) -> Judgement:
    """What a raw message would do, check by check, without changing anything."""
    refuse_unproven_replies(settings)
    required(settings.approval.address, "approval.address")
    required(settings.approvers, "approval.approvers")
    ring = settings.grant_ring()
    authenticity = Authenticity(settings)
    database = connect(settings.database_place, Room.INBOX)
    try:
        refuse_other_revision(database)
        judge = _judge(settings, database, ring, authenticity)
        return judge.judge(parse_incoming(octets), Times(clock(), clock()))
    finally:
        database.close()


def _judge(settings: Settings, database: Database, ring: KeyRing, authenticity: Authenticity) -> Judge:
    address = required(settings.approval.address, "approval.address")
    carriers = Carriers(database, ring, address=address, plain=settings.approval.addressing == "plain")
    return Judge(settings, database, ring, carriers, authenticity)


def open_mailbox(settings: Settings, *, timeout: float = 30.0) -> Mailbox:
    """The mailbox of the settings; a server may be silent for `timeout` seconds.

    Raises ConfigError, or Unavailable for a Maildir that is not there.
    """
    url = required(settings.mailbox.url, "mailbox.url")
    scheme, _, path = url.partition(":")
    if scheme == "maildir" and path:
        return Maildir(settings.path(Path(path)))
    if scheme not in {"imap", "imaps"}:
        words = 'mailbox.url: "maildir:PATH" or "imaps://HOST:993/FOLDER"'
        raise ConfigError(Code.NOT_SUPPORTED, words, field="mailbox.url")
    from outbox.inbox.imap import ImapMailbox

    parts = urlsplit(url)
    return ImapMailbox(
        host=parts.hostname or "",
        port=parts.port or (993 if scheme == "imaps" else 143),
        tls=scheme == "imaps",
        folder=unquote(parts.path.lstrip("/")) or "INBOX",
        username=required(settings.mailbox.username, "mailbox.username"),
        secret=_secret(settings),
        xoauth2=settings.mailbox.auth == "xoauth2",
        dedicated=settings.mailbox.dedicated,
        timeout=timeout,
    )


def _secret(settings: Settings) -> Callable[[], str]:
    if settings.mailbox.token_command:
        return lambda: access_token(settings.mailbox.token_command)
    settings.mailbox_password()  # asked for before anything is opened
    return settings.mailbox_password


def refuse_unproven_replies(settings: Settings) -> None:
    """Raise ConfigError for "none" where others could have the token."""
    local = settings.relay_is_local and settings.mailbox_is_local
    if settings.approval.authenticity == "none" and not local:
        raise ConfigError(
            Code.CONFIG_INVALID,
            'approval.authenticity: "none" believes whoever knows the token, and is only for a relay.host on loopback, '
            "with a Maildir or a mailbox on loopback",
            field="approval.authenticity",
        )
