"""A reply that approved and was kept, looked at once more by whoever holds its receipt: no database, no DNS, no key."""

from __future__ import annotations

import re
from dataclasses import dataclass

from outbox.core.address import without_extension
from outbox.core.grant import TOKEN_CHARACTERS, placeholder
from outbox.core.receipt import KeptReply
from outbox.inbox.carriers import mailboxes_in
from outbox.inbox.dkim import key_name, verify_dkim
from outbox.inbox.incoming import Incoming, only_author, parse_incoming
from outbox.inbox.proof import Unproven

_RECIPIENTS = ("to", "cc")
_NAMING = (*_RECIPIENTS, "in-reply-to", "references")


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The one TXT record that a receipt has; every other name has none."""

    name: str
    record: str

    def txt(self, name: str) -> tuple[bytes, ...]:
        return (self.record.encode(),) if name == self.name else ()


def why_unproven(reply: KeptReply) -> str | None:
    """Why the signature, with the key as it was seen, does not show that its author answered the request; or None.

    The rules are those that the inbox judged it by, the selector and domain those that it found.
    """
    incoming = parse_incoming(reply.octets)
    author, why = only_author(incoming)
    if author is None:
        return why
    naming = _naming(incoming, reply.request_id)
    if not naming:
        return "it names another request, or none"
    found = verify_dkim(
        incoming,
        author=author,
        domains=frozenset({reply.domain}),
        selectors=frozenset({reply.selector}),
        naming=naming,
        addressed=_addressed(incoming, reply.approval_address),
        resolver=_Recorded(key_name(reply.domain, reply.selector), reply.key_record),
        now=reply.arrived_at,
    )
    if isinstance(found, Unproven):
        return found.why
    return None if found.domain == reply.domain else f"it is signed by {found.domain}"


def _naming(incoming: Incoming, request_id: bytes) -> frozenset[str]:
    begins = placeholder(request_id).rstrip("0")
    token = re.compile(rf"(?<![a-z2-7]){begins}[a-z2-7]{{{TOKEN_CHARACTERS - len(begins)}}}(?![a-z2-7])")
    return frozenset(name for name in _NAMING if any(token.search(value.lower()) for value in incoming.values({name})))


def _addressed(incoming: Incoming, address: str) -> frozenset[str]:
    return frozenset(
        name
        for name in _RECIPIENTS
        for value in incoming.values({name})
        if without_extension(address) in map(without_extension, mailboxes_in(value))
    )
