"""System drafts: requests, answers and alerts, composed and signed under the purpose "system".

The reply token exists only in the mail as it is sent: the stored octets hold a placeholder, and a header says what the
token is made from, so that the worker fills in a token for exactly what was shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from outbox.core.address import Mailbox
from outbox.core.canonical import encode, sha256
from outbox.core.draft import DAY, MICROSECONDS, Draft, Envelope, Thread
from outbox.core.errors import Code, VerificationFailed
from outbox.core.grant import Request, placeholder, reply_token
from outbox.core.lifecycle import SYSTEM_KIND, Room
from outbox.core.message import Attachment, Content, compose, decode_words, split_headers
from outbox.core.signed import SignedDraft, sign_draft
from outbox.core.signing import KeyRing

NOTICE_TTL = 7 * DAY * MICROSECONDS  # how long mail of the outbox's own may wait for its relay
REQUEST_HEADER = "X-Outbox-Request"
_REQUEST = re.compile(
    r"id=(?P<id>[0-9a-f]{16}); draft=(?P<draft>[0-9a-f-]{36}); digest=(?P<digest>[0-9a-f]{64}); "
    r"expires=(?P<expires>[0-9]{1,19}); approver=(?P<approver>\S+)"
)
_TOKEN_LINES = (b"reply-to:", b"message-id:", b"in-reply-to:", b"references:")


@dataclass(frozen=True, slots=True)
class Notice:
    """One mail of the outbox's own: to one approver or operator.

    `request` makes it one that can be answered; unless `extended`, the token is then in its Message-ID alone.
    """

    sender: str
    recipient: str
    subject: str
    text: str
    expires_at: int
    about: str | None = None
    request: Request | None = None
    extended: bool = True
    thread: Thread = Thread()
    attachments: tuple[Attachment, ...] = ()


def sign_notice(ring: KeyRing, notice: Notice, room: Room, draft_id: str, now: int) -> SignedDraft:
    """Compose a system draft and sign it with the grant key."""
    local, _, host = notice.sender.rpartition("@")
    headers = [("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All")]
    message_id = f"<{draft_id}@{host}>"
    if notice.request is not None:
        held = placeholder(notice.request.id)
        message_id = f"<{held}.{draft_id}@{host}>"
        extension = f"+{held}" if notice.extended else ""
        headers += [("Reply-To", f"{local}{extension}@{host}"), (REQUEST_HEADER, _request_value(notice.request))]
    content = Content(
        sender=Mailbox("Outbox", notice.sender),
        to=(Mailbox("", notice.recipient),),
        cc=(),
        subject=notice.subject,
        text=notice.text,
        attachments=notice.attachments,
        thread=notice.thread,
        headers=tuple(headers),
    )
    draft = Draft(
        id=draft_id,
        kind=SYSTEM_KIND,
        agent=room.value,
        envelope=Envelope(notice.sender, (notice.recipient,)),
        message=compose(content, draft_id, message_id),
        created_at=now,
        expires_at=notice.expires_at,
        thread=notice.thread,
    )
    fingerprint = sha256(encode({"to": notice.recipient, "subject": notice.subject, "text": notice.text}))
    return sign_draft(ring, draft, fingerprint, notice.about)


def _request_value(request: Request) -> str:
    return (
        f"id={request.id.hex()}; draft={request.draft_id}; digest={request.digest.hex()}; "
        f"expires={request.expires_at}; approver={request.approver}"
    )


def carried_request(message: bytes) -> Request | None:
    """The request that a system draft's verified octets carry, if any. Raises VerificationFailed for half of one."""
    values = [value for name, value in split_headers(message) if name == REQUEST_HEADER]
    if not values:
        return None
    found = _REQUEST.fullmatch(decode_words(values[0])) if len(values) == 1 else None
    if found is None:
        raise VerificationFailed(Code.ROW_UNREADABLE, f"a system draft's {REQUEST_HEADER} cannot be read")
    return Request(
        id=bytes.fromhex(found["id"]),
        draft_id=found["draft"],
        digest=bytes.fromhex(found["digest"]),
        approver=found["approver"],
        expires_at=int(found["expires"]),
    )


@dataclass(frozen=True, slots=True)
class Filled:
    """A system draft's octets as they are sent, and the token that they carry, if any."""

    octets: bytes
    token: str | None


def fill_token(ring: KeyRing, message: bytes) -> Filled:
    """Put the reply token in place of its placeholder: in Reply-To, Message-ID and the thread, nowhere else."""
    request = carried_request(message)
    if request is None:
        return Filled(message, None)
    held, token = placeholder(request.id).encode(), reply_token(ring, request)
    head, separator, body = message.partition(b"\r\n\r\n")
    fields = re.split(rb"\r\n(?![ \t])", head)  # with their continuation lines
    filled = [
        field.replace(held, token.encode()) if field.lower().startswith(_TOKEN_LINES) else field for field in fields
    ]
    return Filled(b"\r\n".join(filled) + separator + body, token)
