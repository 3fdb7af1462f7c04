"""What the approver reads: the request, its reminder, answers to his replies, and how it ended."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from outbox.core.address import parse_mailboxes
from outbox.core.canonical import sha256
from outbox.core.draft import MICROSECONDS, Draft, Thread
from outbox.core.grant import Request, placeholder
from outbox.core.message import Attachment, decode_words, header_disagreements, split_headers
from outbox.core.notice import Notice
from outbox.core.rendering import Rendering, fenced, render, visible
from outbox.core.signed import SignedDraft
from outbox.inbox.verdict import Reading

_YEAR_9999 = 253_370_764_800 * MICROSECONDS
CHECKS = ("token", "from", "authenticity", "automatic", "replay", "fresh", "verdict")
LARGEST_ATTACHED = 1024 * 1024
_HOW = """\
How to answer: reply to this mail. Only the first line counts, and it must stand alone:

    Ship it             it is sent, to exactly these recipients, in exactly these words
    Reject: your reason it is not sent, and the agent can read the reason
    Stop                it is not sent; also after "Ship it", as long as it has not left
"""
_DOUBTED = """\
If you wrote it: answer from your own account, so that your provider signs it; the operator can see more with
`outbox replies` and `outbox doctor`. If you did not, somebody else has read the request and wrote in your name."""
_WITH_CODE = """\

"Ship it" needs the six digits that your authenticator shows now, on the second line:

    Ship it
    123456
"""


@dataclass(frozen=True, slots=True)
class Manner:
    """How the outbox writes to its approvers. `extended` where the address that they answer to carries the token.

    `return_path` is where settings have bounces go: an envelope's sender that is no news.
    """

    sender: str
    extended: bool = True
    return_path: str | None = None


def request_notice(
    request: Request, signed: SignedDraft, manner: Manner, *, with_code: bool, carrier_id: str | None = None
) -> Notice:
    """The approval request for one draft, or the reminder of it: then `carrier_id` is what asked first.

    Raises PolicyRefused where the message cannot be shown.
    """
    rendering = render(signed.draft.message)
    asks = "Send this?" if carrier_id is None else "Expires soon, send this?"
    return Notice(
        sender=manner.sender,
        extended=manner.extended,
        recipient=request.approver,
        subject=_subject(request, f"{asks} {visible(rendering.subject)}"),
        text=_request_text(signed, rendering, manner, with_code=with_code),
        expires_at=request.expires_at,
        about=signed.draft.id,
        request=request,
        thread=below_request(request, carrier_id, manner) if carrier_id is not None else Thread(),
        attachments=_exact_message(signed),
    )


def _subject(request: Request, words: str) -> str:
    """Ours is the first tag; what looks like one in the agent's own words is none."""
    plain = re.sub(r"\[(?=outbox)", "(", words, flags=re.IGNORECASE).replace("=?", "= ?")
    return f"[outbox {request.tag}] {plain}"[:200]


def below_request(request: Request, carrier_id: str, manner: Manner, reply_id: str = "") -> Thread:
    """Below the request, whose Message-ID holds the placeholder until it is sent, and below a reply if there is one."""
    asked = f"<{placeholder(request.id)}.{carrier_id}@{manner.sender.rpartition('@')[2]}>"
    return Thread(reply_id or asked, (asked, reply_id) if reply_id else (asked,))


def _request_text(signed: SignedDraft, rendering: Rendering, manner: Manner, *, with_code: bool) -> str:
    draft = signed.draft
    parts = [
        f'The agent {visible(draft.agent)} asks to send this mail. Reply "Ship it", and it is sent; else it is not.\n',
        *_resubmission(draft),
        _envelope_text(signed, rendering, manner),
        'The whole text, with "| " before each of its lines:\n',
        fenced(rendering.text) if rendering.text is not None else "| (it has no plain text part)",
    ]
    if rendering.html is not None:
        parts += ["\nIts HTML part, which most readers will see instead, in words:\n", fenced(rendering.html)]
    if rendering.may_hide:
        parts.append(
            "\nBeware: the HTML part has styles or scripts; a reader may see less, or other, than these words."
        )
    for attachment in rendering.attachments:
        name = f"    {visible(attachment.name)}"
        kind = f"{attachment.media_type}, {attachment.size} octets"
        parts.append(f"\nAttachment:\n{name}\n    {kind}\n    sha256 {attachment.sha256}")
    parts += [
        "",
        how_to_answer(with_code=with_code),
        f"{_exactly(signed)}\nDraft {draft.id}\nDigest {signed.digest.hex()}\n",
    ]
    return "\n".join(parts)


def how_to_answer(*, with_code: bool) -> str:
    """What the first line of a reply may say."""
    return _HOW + _WITH_CODE if with_code else _HOW


def _resubmission(draft: Draft) -> list[str]:
    if draft.resubmitted is None:
        return []
    return [f"The agent says that it asks again for what was rejected, and why:\n{fenced(draft.resubmitted)}\n"]


def _envelope_text(signed: SignedDraft, rendering: Rendering, manner: Manner) -> str:
    draft = signed.draft
    headers = {name.lower(): decode_words(value) for name, value in split_headers(draft.message)}
    sender = draft.envelope.sender
    if sender == manner.return_path:
        sender = _first_author(draft.message) or sender
    rows = [("From", visible(sender))]
    if headers["from"] != sender:
        rows.append(("shown as", visible(headers["from"])))
    if sender != draft.envelope.sender:
        rows.append(("Bounces", f"would go to {visible(draft.envelope.sender)}"))
    if "reply-to" in headers:
        rows.append(("Answers", f"would go to {visible(headers['reply-to'])}"))
    for label, addresses in (("To", draft.envelope.to), ("Cc", draft.envelope.cc), ("Bcc", draft.envelope.bcc)):
        rows += [(label, visible(address)) for address in addresses]
    rows += [("Subject", visible(rendering.subject)), ("Expires", rfc_time(draft.expires_at))]
    text = "".join(f"    {label:<9}{value}\n" for label, value in rows)
    disagreements = header_disagreements(draft.message, replace(draft.envelope, sender=sender))
    return text + "".join(f"    Beware   {sentence}\n" for sentence in disagreements)


def _first_author(message: bytes) -> str | None:
    named = (value for name, value in split_headers(message) if name.lower() == "from")
    return next((mailbox.address for value in named for mailbox in parse_mailboxes(value, "From")), None)


def _exactly(signed: SignedDraft) -> str:
    if len(signed.draft.message) > LARGEST_ATTACHED:
        size, taken = len(signed.draft.message), sha256(signed.draft.message).hex()
        return f"The message has {size} octets, too many to attach.\nMessage sha256 {taken}"
    return "The exact message is attached."


def _exact_message(signed: SignedDraft) -> tuple[Attachment, ...]:
    message = signed.draft.message
    if len(message) > LARGEST_ATTACHED:
        return ()
    # message/rfc822 may not be encoded (RFC 2046 5.2.1), so octets beyond 7 bit go as a file.
    media_type = "message/rfc822" if message.isascii() else "application/octet-stream"
    return (Attachment("message.eml", media_type, message),)


def answer_notice(
    request: Request, manner: Manner, *, subject: str, text: str, thread: Thread, expires_at: int
) -> Notice:
    """A mail to an approver in the thread of his request, that can itself be replied to."""
    return Notice(
        sender=manner.sender,
        extended=manner.extended,
        recipient=request.approver,
        subject=_subject(request, subject),
        text=f"{text}\n\nDraft {request.draft_id}\n",
        expires_at=expires_at,
        about=request.draft_id,
        request=request,
        thread=thread,
    )


def below_reply(reply_id: str) -> Thread:
    """The thread of an answer to one reply; empty where its Message-ID cannot be named."""
    return Thread(reply_id, (reply_id,)) if reply_id else Thread()


def unclear_text(why: str, reading: Reading, *, with_code: bool) -> str:
    """What would count, after a reply that did not; `why` may begin with the name of the check that failed."""
    check, colon, words = why.partition(": ")
    named = colon != "" and check in CHECKS
    words = words if named else why
    line = f"\n\n{fenced(reading.excerpt)}" if reading.excerpt else ""
    doubted = f"\n\n{_DOUBTED}" if named and check == "authenticity" else ""
    return (
        f"Your reply changed nothing: {words}.{line}{doubted}\n\n"
        f"{how_to_answer(with_code=with_code)}{_closing_hint(reading)}"
    ).rstrip("\n")


def _closing_hint(reading: Reading) -> str:
    if not reading.closing_hint:
        return ""
    lines = ", ".join(json.dumps(visible(line), ensure_ascii=False) for line in reading.closing_hint)
    return (
        "\nIf what stands below your words is your signature, the operator can allow it in outbox.toml:\n\n"
        f"    [approval]\n    closing = [{lines}]\n"
    )


def stranger_text(sender: str, *, with_code: bool) -> str:
    """What the approver is told where somebody else answered with his token."""
    return (
        f"Somebody else answered the request that was sent to you, and changed nothing:\n\n{fenced(sender)}\n\n"
        "The request, or an answer to it, has reached him: by forwarding, by Cc, or because he reads your mail. "
        "Only your own reply counts. The request stands as it was, and can be answered from here too.\n\n"
        f"{how_to_answer(with_code=with_code)}"
    ).rstrip("\n")


def rfc_time(instant: int) -> str:
    """An instant in microseconds UTC for people."""
    if not 0 <= instant < _YEAR_9999:
        return "a time that no clock shows"
    return datetime.fromtimestamp(instant // MICROSECONDS, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
