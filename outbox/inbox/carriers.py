"""Which request a message answers: the token in its recipients and thread, the tag in its subject; never its body."""

from __future__ import annotations

import re
from dataclasses import dataclass

from outbox.core.address import parse_mailboxes
from outbox.core.errors import PolicyRefused, VerificationFailed
from outbox.core.grant import TOKEN_CHARACTERS, Request, split_token
from outbox.core.message import decode_words
from outbox.core.signing import KeyRing
from outbox.inbox.incoming import Incoming
from outbox.store.engine import Database
from outbox.store.rows import load_request

MOST_TOKENS = 10  # looked at in one message
_FORM = f"[a-z2-7]{{{TOKEN_CHARACTERS}}}"
_TOKEN = re.compile(_FORM, re.IGNORECASE)
_TAG = re.compile(r"\[outbox ([a-z2-7]{6})\]", re.IGNORECASE)
_LONGEST_SUBJECT = 2000
_ADDRESSED_FIELDS = ("to", "cc")
_DELIVERY_FIELDS = ("delivered-to", "x-original-to", "envelope-to")  # anybody's hand may add them: they only contradict
_THREAD_FIELDS = ("in-reply-to", "references")


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that a message names.

    By lower-case name, `naming` are the fields that name it in the message, and `addressed` those of To and Cc in which
    the approval address stands. `elsewhere` is true where an address alone names it, and the message answers another:
    somebody else's mail may have had our address in its Reply-To.
    """

    request: Request
    asked_at: int
    spent: bool
    naming: frozenset[str]
    addressed: frozenset[str]
    elsewhere: bool


class Carriers:
    """Knows the approval address and the keys that made our tokens."""

    def __init__(self, database: Database, ring: KeyRing, *, address: str, plain: bool) -> None:
        local, _, host = address.rpartition("@")
        self._local, self._host = local.lower(), host.lower()
        self._recipient = re.compile(
            rf"(?<![\w.+-]){re.escape(local)}\+({_FORM})@{re.escape(host)}(?![\w.-])", re.IGNORECASE
        )
        self._thread = re.compile(rf"<({_FORM})\.[0-9a-f-]{{36}}@", re.IGNORECASE)
        self._database, self._ring, self._plain = database, ring, plain

    def tokens(self, incoming: Incoming) -> dict[str, set[str]]:
        """Every token of our form in To, Cc and the thread, with the names of the fields that it stands in.

        Those of the thread count only in a message to the approval address: a "Yes" to a colleague in the same thread
        is none. Addresses alone are looked at: a display name is whatever somebody wrote.
        """
        found: dict[str, set[str]] = {}
        extensions = self._extensions(incoming)
        for name, extension in extensions:
            if _TOKEN.fullmatch(extension):
                found.setdefault(extension.lower(), set()).add(name)
        if extensions:
            for name in _THREAD_FIELDS:
                for value in incoming.values({name}):
                    for token in self._thread.findall(value):
                        found.setdefault(token.lower(), set()).add(name)
        return found

    def _extensions(self, incoming: Incoming) -> list[tuple[str, str]]:
        """In To and Cc, what stands behind the + of each approval address; empty where there is no +."""
        found = []
        for name in _ADDRESSED_FIELDS:
            for value in incoming.values({name}):
                for address in mailboxes_in(value):
                    local, _, host = address.lower().rpartition("@")
                    own, _, extension = local.partition("+")
                    if (own, host) == (self._local, self._host):
                        found.append((name, extension))
        return found

    def name_a_request(self, incoming: Incoming) -> bool:
        """Whether any token in it is one that we made, also where it stands in a field that cannot be read plainly."""
        found = {*self.tokens(incoming), *self._mentioned(incoming)}
        return any(self._request_of(token) is not None for token in sorted(found)[:MOST_TOKENS])

    def made(self, incoming: Incoming) -> bool:
        """Whether its own Message-ID is one that only we can have made, and it says that a program wrote it."""
        ids = incoming.values({"message-id"})
        own = self._thread.match(ids[0]) if len(ids) == 1 else None
        is_automatic = any(value.strip().lower() == "auto-generated" for value in incoming.values({"auto-submitted"}))
        return is_automatic and own is not None and self._request_of(own[1]) is not None

    def find(self, incoming: Incoming) -> tuple[Asked | None, str]:
        """The one request that every carrier names, or None and why there is none."""
        tokens = self.tokens(incoming)
        if len(tokens) != 1:
            return None, "its tokens do not agree" if tokens else self._why_none(incoming)
        token, fields = tokens.popitem()
        if self._mentioned(incoming) - {token}:
            return None, "its tokens do not agree"
        found = self._request_of(token)
        if found is None:
            return None, "no request of ours has this token"
        request, asked_at, spent_at = found
        tags = _tags(incoming)
        if any(tag not in {None, request.tag} for tag in tags):
            return None, "its subject names another request"
        tag = tags[0] if len(tags) == 1 else None
        if self._plain and not (tag and fields & set(_THREAD_FIELDS)):
            return None, f"with plain addressing the subject must keep [outbox {request.tag}], and the thread its token"
        naming = frozenset(fields | {"subject"} if tag else fields)
        addressed = frozenset(name for name, _ in self._extensions(incoming))
        elsewhere = naming <= set(_ADDRESSED_FIELDS) and any(incoming.values(_THREAD_FIELDS))
        return Asked(request, asked_at, spent_at is not None, naming, addressed, elsewhere), ""

    def _mentioned(self, incoming: Incoming) -> set[str]:
        """Every token in recipient fields, wherever it stands there: enough to look at a message, and to contradict."""
        values = incoming.values((*_ADDRESSED_FIELDS, *_DELIVERY_FIELDS))
        return {token.lower() for value in values for token in self._recipient.findall(value)}

    def _why_none(self, incoming: Incoming) -> str:
        if self._mentioned(incoming):
            return "the token is not in an address of To or Cc that can be read plainly"
        return "no token of ours in recipient or thread"

    def _request_of(self, token: str) -> tuple[Request, int, int | None] | None:
        parts = split_token(token)
        if parts is None:
            return None
        with self._database.reading() as connection:
            stored = load_request(connection, parts[0])
        try:
            return stored if stored and self._ring.verify_reply_mac(stored[0].canonical(), parts[1]) else None
        except VerificationFailed:  # a row that we never wrote
            return None


def mailboxes_in(value: str) -> tuple[str, ...]:
    """The addresses of an unfolded To or Cc; none where any part of it is not plainly one."""
    try:
        return tuple(mailbox.address for mailbox in parse_mailboxes(value, "To"))
    except PolicyRefused:
        return ()


def _tags(incoming: Incoming) -> list[str | None]:
    """Of each Subject the tag that we wrote, which is the first; what the agent's own subject says comes behind it."""
    found = [_TAG.search(decode_words(value[:_LONGEST_SUBJECT])) for value in incoming.values({"subject"})]
    return [tag[1].lower() if tag is not None else None for tag in found]
