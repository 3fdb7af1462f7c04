"""Copies of what was sent, in the Sent and archive folders of an IMAP mailbox.

Folders are opened with EXAMINE and only PEEK is fetched. What the server finds is looked at again here: SEARCH matches
parts of words, and an archive, or a folder of all mail, holds what anybody sent there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, OutboxError, Unavailable
from outbox.core.evidence import Evidence
from outbox.core.grant import without_tokens
from outbox.core.message import DRAFT_HEADER
from outbox.imap.session import BROKEN, Account, is_refusal, reach, unavailable, words_of
from outbox.operator.sought import Sought

_MOST_FOLDERS = 10
_MOST_HEADERS = 50  # of one folder; a search finds one or two, where nobody fills the folder on purpose
_MOST_WHOLE = 5  # of one folder that are compared octet for octet
_LARGEST = 64 * 1024 * 1024  # octets of one
_PIECE = 4 * 1024 * 1024  # octets that are asked for at a time
_HEADER = "BODY.PEEK[HEADER]<0.65536>"
_EARLIER = timedelta(days=2)  # SINCE knows days alone, in a time zone of the server's
_SPECIAL = (b"\\sent", b"\\archive", b"\\all")  # RFC 6154
_SENT_NAMES = {"sent", "sent mail", "sent-mail", "sent items", "sent messages"}
_NO_FOLDER = {b"\\noselect", b"\\nonexistent"}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Folder:
    """`is_sent`: what is filed there is what the account has sent."""

    name: str
    is_sent: bool


@dataclass(frozen=True, slots=True)
class _Listed:
    name: str
    delimiter: str
    flags: frozenset[bytes]


class _Refused(Unavailable):
    """A whole NO or BAD: the connection is in order, and this was not to be had."""


def look(account: Account, secret: Callable[[], str], folders: Sequence[str], sought: Sought) -> Iterator[Evidence]:
    """What the folders hold, one after the other: those named, and those that the server says are for such copies.

    Never raises: what cannot be looked at is said.
    """
    place = f"imap {account.place}"
    try:
        client, wire = reach(account, secret())
    except OutboxError as error:
        yield Evidence(place, None, f"no folder was looked into: {error.message}")
        return
    try:
        yield from _Look(account, client, wire, sought).through(folders)
    except OutboxError as error:
        yield Evidence(place, None, f"not every folder was looked into: {error.message}")
    finally:
        wire.leave()


class _Look:
    """One connection. What it asks raises Unavailable once anything went wrong on it."""

    def __init__(self, account: Account, client: Any, wire: Any, sought: Sought) -> None:
        self._account, self._client, self._wire, self._sought = account, client, wire, sought

    def through(self, names: Sequence[str]) -> Iterator[Evidence]:
        """Every folder that is to be looked into."""
        for folder in self._folders(names)[:_MOST_FOLDERS]:
            found, detail, octets = self._into(folder)
            kept = without_tokens(octets.decode("latin-1")).encode("latin-1") if octets else None
            source = f"imap {self._account.place} {_printable(folder.name)}"
            yield Evidence(source, found, without_tokens(detail), kept)

    def _folders(self, names: Sequence[str]) -> list[_Folder]:
        """Sent first. Where the server does not say which that is, it is a folder of that name."""
        try:
            told = self._ask("list its folders", lambda client: list(client.list_folders()))
        except _Refused:
            told = []
        listed = [_listed(*one) for one in told]
        listed = [one for one in listed if not one.flags & _NO_FOLDER]
        sent = {one.name for one in listed if _SPECIAL[0] in one.flags}
        flagged = [one.name for flag in _SPECIAL for one in listed if flag in one.flags]
        spelled = [next((one.name for one in listed if _is_meant(name, one)), name) for name in names]
        chosen = [
            _Folder(name, name in sent if sent else _sounds_sent(name)) for name in dict.fromkeys([*flagged, *spelled])
        ]
        return sorted(chosen, key=lambda folder: not folder.is_sent)

    def _into(self, folder: _Folder) -> tuple[bool | None, str, bytes | None]:
        where = _printable(folder.name)
        try:
            self._ask("open a folder", lambda client: client.select_folder(folder.name, readonly=True))
            heads = self._heads()
            return self._judged(folder, heads)
        except _Refused as refused:
            return None, f"{where} could not be looked into: {refused.message}", None

    def _judged(self, folder: _Folder, heads: Mapping[int, bytes]) -> tuple[bool | None, str, bytes | None]:
        where, sought = _printable(folder.name), self._sought
        named = {number: head for number, head in heads.items() if sought.is_named_in(head)}
        for number, head in list(named.items())[:_MOST_WHOLE]:
            if folder.is_sent:
                likeness: str | None = f"{where} is for what was sent"
            else:
                likeness = sought.likeness(self._whole(number))
            if likeness:
                return True, f"message {number} of {where} carries this draft's id, and {likeness}", head
        for number, head in named.items():
            other = "carries this draft's id, but is not, octet for octet, what was sent"
            return None, f"message {number} of {where} {other}: it proves nothing; look at it", head
        for number, head in heads.items():
            if sought.has_message_id(head):
                only = "has its Message-ID, but not this draft's id; a mail program's own copy has that too"
                return None, f"message {number} of {where} {only}: it proves nothing", head
        return None, f"nothing in {where} carries this draft's id: that proves nothing", None

    def _heads(self) -> dict[int, bytes]:
        """By number, the headers of what the server finds by either name; the newest last."""
        sought = [(DRAFT_HEADER, self._sought.draft_id), ("Message-ID", self._sought.message_id)]
        searches = [(name, value) for name, value in sought if value.isascii() and value.isprintable()]
        numbers: set[int] = set()
        refusals = []
        for name, value in searches:
            try:
                numbers |= set(self._search(name, value))
            except _Refused as refused:
                refusals.append(refused)
        if refusals and len(refusals) == len(searches):
            raise refusals[0]
        newest = sorted(number for number in numbers if 0 < number < 2**32)[-_MOST_HEADERS:]
        if not newest:
            return {}
        told = self._fetch(newest, _HEADER)
        heads = {number: _octets(told.get(number, {}), b"BODY[HEADER") for number in newest}
        return {number: head for number, head in heads.items() if head}

    def _search(self, name: str, value: str) -> list[int]:
        criteria = [*self._since(), "HEADER", name, value]
        return self._ask("search", lambda client: list(client.search(criteria)))

    def _fetch(self, numbers: list[int], wanted: str) -> dict[int, Mapping[bytes, object]]:
        return self._ask("give messages", lambda client: dict(client.fetch(numbers, [wanted])))

    def _since(self) -> list[str | date]:
        if self._sought.gap_at is None:
            return []
        return ["SINCE", (datetime.fromtimestamp(self._sought.gap_at // MICROSECONDS, UTC) - _EARLIER).date()]

    def _whole(self, number: int) -> bytes:
        """A message's octets; none where it is too large, or the server does not give them."""
        octets = bytearray()
        while len(octets) <= _LARGEST:
            told = self._fetch([number], f"BODY.PEEK[]<{len(octets)}.{_PIECE}>")
            piece = _octets(told.get(number, {}), b"BODY[]")
            octets += piece
            if len(piece) < _PIECE:
                return bytes(octets)
        return b""

    def _ask(self, asked: str, ask: Callable[[Any], T]) -> T:
        """One command. Raises _Refused for a NO, and Unavailable for whatever ends the connection."""
        self._wire.allow()
        self._wire.untagged_responses.clear()
        try:
            return ask(self._client)
        except BROKEN as error:
            if is_refusal(error):
                raise _Refused(Code.MAILBOX_REFUSED, words_of(error)) from None
            raise unavailable(self._account, f"failed as it was asked to {asked}", error) from None


def _listed(flags: Sequence[bytes], delimiter: bytes | None, name: str | bytes) -> _Listed:
    text = name if isinstance(name, str) else name.decode("utf-8", "replace")
    separator = (delimiter or b"").decode("ascii", "replace")
    return _Listed(text, separator, frozenset(flag.lower() for flag in flags))


def _is_meant(name: str, listed: _Listed) -> bool:
    """Some servers keep every folder below INBOX."""
    return listed.name in {name, f"INBOX{listed.delimiter}{name}"}


def _sounds_sent(name: str) -> bool:
    """`Sent`, `INBOX.Sent`, `Mail/Sent Items`."""
    return name.replace("/", ".").rpartition(".")[2].lower() in _SENT_NAMES


def _octets(about: Mapping[bytes, object], section: bytes) -> bytes:
    """A literal by the beginning of its name, which servers spell in their own ways; none for NIL."""
    for name, value in about.items():
        if name.upper().startswith(section) and isinstance(value, bytes):
            return value
    return b""


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:80])
