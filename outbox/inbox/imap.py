"""Replies from a folder on an IMAP server, which may be somebody's own mailbox.

Only PEEK is fetched, and a folder that is not ours alone is opened with EXAMINE: reading changes nothing that its owner
could see. A connection on which anything went wrong is never used again, and the next one is made later each time.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, OutboxError, Unavailable
from outbox.imap.session import BROKEN, Account, Session, connect, is_refusal, unavailable, words_of
from outbox.inbox.incoming import LARGEST_HEADER, LARGEST_MESSAGE
from outbox.inbox.mailbox import Delivered
from outbox.inbox.patience import FIRST_AFTER_REFUSAL, LONGEST_AFTER_REFUSAL, Backoff, Troubles

log = logging.getLogger("outbox.inbox")
POLL_FALLBACK = 60.0  # seconds after which the folder is listed although nothing was heard
_SLICE = 0.25  # seconds in which `stop` is noticed
_BATCH = 100
_STRANGERS = "BODY.PEEK[HEADER.FIELDS (TO CC DELIVERED-TO IN-REPLY-TO REFERENCES CONTENT-TYPE)]<0.65536>"
_HEADER = f"BODY.PEEK[HEADER]<0.{LARGEST_HEADER}>"
_WHOLE = f"BODY.PEEK[]<0.{LARGEST_MESSAGE + 1}>"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Examined:
    """What the server said as the folder was opened; capabilities in upper case, sorted."""

    folder: str
    uidvalidity: int
    messages: int
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Listed:
    """A listing that came to its end: from which day on, and when by the monotonic clock."""

    first_day: date
    at: float


class _Refused(Unavailable):
    """A whole NO or BAD: the connection is in order, and this was not to be had."""


class ImapMailbox:
    """One folder. Connects in the first call that needs it, asks `secret` at each login, and keeps none.

    `dedicated` says that the folder is ours alone: it is opened with SELECT, whole headers are read, and what was taken
    is marked as seen. `timeout` is in seconds for each silence of the server.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: bool,
        folder: str,
        username: str,
        secret: Callable[[], str],
        xoauth2: bool,
        dedicated: bool,
        timeout: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        randomness: Callable[[], float] = random.random,
    ) -> None:
        context = ssl.create_default_context() if tls else None
        self._account = Account(host, port, context, username, xoauth2, folder, not dedicated, timeout)
        self._secret, self._monotonic = secret, monotonic
        self._heads_wanted = _HEADER if dedicated else _STRANGERS
        self._session: Session | None = None
        self._backoff = Backoff(monotonic, randomness)
        self._validity = 0  # that the troubles are of
        self._troubles = Troubles(monotonic)
        self._listed: _Listed | None = None
        self._changed = False

    @property
    def name(self) -> str:
        """The folder as a URL, without the password."""
        account = self._account
        host = f"[{account.host}]" if ":" in account.host else account.host
        scheme = "imap" if account.context is None else "imaps"
        return f"{scheme}://{quote(account.username, safe='')}@{host}:{account.port}/{quote(account.folder)}"

    @property
    def numbered(self) -> bool:
        """Names are UIDVALIDITY.UID."""
        return True

    def examine(self) -> Examined:
        """Connect if need be, and say what is there; nothing is fetched."""
        session = self._connected()
        capabilities = tuple(sorted(session.capabilities))
        return Examined(self._account.folder, session.validity, session.messages, capabilities)

    def messages(self, known: Collection[str], *, since: int) -> Iterator[Delivered]:
        """What arrived since the day before `since` and is not in `known`; those that a fetch failed on come last.

        Yields nothing, and asks nothing, where the last listing came to its end and nothing can have changed.
        """
        first_day = (datetime.fromtimestamp(max(since, 0) // MICROSECONDS, UTC) - timedelta(days=1)).date()
        if not self._is_due(first_day):
            return
        session = self._roused(for_news=True)
        self._listed, self._changed = None, False
        begun = self._monotonic()
        numbers = self._ask("list its messages", lambda client: list(client.search(["SINCE", first_day])))
        fresh = {number for number in numbers if 0 < number < 2**32 and session.uid(number) not in known}
        self._troubles.keep_only(numbers)
        for batch in self._troubles.batches(fresh, _BATCH):
            yield from self._heads(session, batch)
            if self._session is not session:
                return  # lost between two messages: these numbers may be of another life of the folder
        self._listed = _Listed(first_day, begun)
        self._backoff.worked(self._monotonic() - session.made_at)

    def read(self, uid: str) -> bytes | None:
        """The octets, at most one more than LARGEST_MESSAGE; None where it is gone, or is set aside for an hour."""
        number = self._roused().number(uid)
        if number is None or self._troubles.is_aside(number):
            return None
        found = self._fetch([number], _WHOLE).get(number)
        if found is None:
            return None
        octets = _octets(found, b"BODY[]")
        if octets is None:
            self._failed_alone(number, "the server gives no octets")
        else:
            self._troubles.over(number)
        return octets

    def taken(self, uid: str) -> None:
        """Mark it as seen, in a folder that is ours alone. Where that cannot be, nothing is lost by it."""
        if self._account.read_only or self._session is None:
            return
        number = self._roused().number(uid)
        if number is None:
            return
        try:
            self._ask(
                "mark a message as seen",
                lambda client: client.add_flags([number], rb"\Seen", silent=True),
                refusable=True,
            )
        except _Refused as refused:
            log.info("%s is not marked as seen: %s", uid, refused, extra={"action": "unmarked", "uid": uid})

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Listen where the server offers IDLE, else only wait; a connection that ends meanwhile is left quietly."""
        session = self._session
        if session is None or not session.idles:
            stop.wait(seconds)
            return
        end = time.monotonic() + seconds
        try:
            while not (self._changed or stop.is_set()) and (left := end - time.monotonic()) > 0:
                self._changed |= session.listen(min(left, _SLICE), self._monotonic())
        except BROKEN as error:
            if is_refusal(error):
                session.idles = False  # it offers IDLE and does not know it
            else:
                self._leave_quietly(error)

    def close(self) -> None:
        """Say goodbye, and leave without waiting for an answer."""
        if self._session is not None:
            self._session.wire.leave()
        self._session = self._listed = None

    def _is_due(self, first_day: date) -> bool:
        listed = self._listed
        if self._session is None or listed is None or self._changed:
            return True
        return first_day < listed.first_day or self._monotonic() - listed.at >= POLL_FALLBACK

    def _heads(self, session: Session, batch: list[int]) -> Iterator[Delivered]:
        """Of a batch, what is still there and has a header."""
        found = self._fetch(batch, self._heads_wanted)
        for number in batch:
            about = found.get(number)
            if about is None:
                continue
            head = _octets(about, b"BODY[HEADER")
            if head is None:
                self._failed_alone(number, "the server gives no header")
                continue
            self._troubles.trust(number)
            yield Delivered(session.uid(number), head, _arrived_at(about.get(b"INTERNALDATE")))

    def _fetch(self, numbers: list[int], wanted: str) -> dict[int, Mapping[bytes, object]]:
        """By number, what the server says of those that are still there; a batch that is refused, each by itself."""
        try:
            return self._ask(
                "give messages",
                lambda client: dict(client.fetch(numbers, ["INTERNALDATE", wanted])),
                refusable=True,
            )
        except _Refused as refused:
            if len(numbers) > 1:
                return {n: about for number in numbers for n, about in self._fetch([number], wanted).items()}
            self._failed_alone(numbers[0], refused.message)
            return {}
        except Unavailable as lost:
            if len(numbers) > 1:
                self._troubles.suspect(numbers)
            else:
                self._failed_alone(numbers[0], lost.message)
            raise

    def _failed_alone(self, number: int, why: str) -> None:
        if self._troubles.failed(number):
            uid = f"{self._validity}.{number}"
            words = "%s: message %s cannot be read, and is tried again in an hour: %s; look at it with a mail client"
            log.error(words, self.name, uid, why, extra={"action": "unreadable", "uid": uid})

    def _ask(self, asked: str, ask: Callable[[Any], T], *, refusable: bool = False) -> T:
        """One command on the connection that there is. Raises Unavailable, and _Refused for a NO if `refusable`."""
        session = self._session
        assert session is not None
        with ExitStack() as unless_answered:
            unless_answered.callback(self._drop)
            try:
                session.wire.allow()
                try:
                    answer = ask(session.client)
                finally:
                    self._changed |= session.wire.changed()
            except BROKEN as error:
                if refusable and is_refusal(error):
                    unless_answered.pop_all()
                    raise _Refused(Code.MAILBOX_UNREACHABLE, words_of(error)) from None
                failed = unavailable(self._account, f"failed as it was asked to {asked}", error)
                self._backoff.failed(failed)
                raise failed from None
            unless_answered.pop_all()
        return answer

    def _roused(self, *, for_news: bool = False) -> Session:
        """A connection that may be asked: one that idles no more, or where that one is dead, a new one."""
        if self._session is not None:
            try:
                self._changed |= self._session.rouse(for_news=for_news)
            except BROKEN as error:
                self._leave_quietly(error)
        return self._connected()

    def _connected(self) -> Session:
        if self._session is not None:
            return self._session
        self._backoff.refuse_early()
        try:
            session = connect(self._account, self._secret(), self._monotonic())
        except OutboxError as error:
            if error.code is Code.MAILBOX_REFUSED:
                self._backoff.failed(error, first=FIRST_AFTER_REFUSAL, longest=LONGEST_AFTER_REFUSAL)
            else:
                self._backoff.failed(error)
            raise
        if session.validity != self._validity:
            self._validity, self._troubles = session.validity, Troubles(self._monotonic)
        self._session = session
        return session

    def _leave_quietly(self, error: BaseException) -> None:
        log.info("%s: the connection ended: %s", self._account.place, words_of(error), extra={"action": "imap"})
        self._drop()
        self._backoff.lost(unavailable(self._account, "ended the connection", error))

    def _drop(self) -> None:
        if self._session is not None:
            self._session.wire.shutdown()
        self._session = self._listed = None


def _octets(about: Mapping[bytes, object], section: bytes) -> bytes | None:
    """A literal by the beginning of its name, which servers spell in their own ways; None for NIL or none."""
    for name, value in about.items():
        if name.upper().startswith(section) and isinstance(value, bytes):
            return value
    return None


def _arrived_at(moment: object) -> int | None:
    """INTERNALDATE in microseconds UTC, where it is one."""
    if not isinstance(moment, datetime):
        return None
    try:
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * MICROSECONDS
    except (ValueError, OverflowError):
        return None
