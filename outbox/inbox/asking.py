"""What the approver reads: the request, and answers to his replies."""

from __future__ import annotations

from datetime import UTC, datetime

from outbox.core.canonical import sha256
from outbox.core.draft import MICROSECONDS, Thread
from outbox.core.grant import Request
from outbox.core.message import Attachment, decode_words, header_disagreements, split_headers
from outbox.core.notice import Notice
from outbox.core.rendering import Rendering, fenced, render, visible
from outbox.core.signed import SignedDraft

LARGEST_ATTACHED = 1024 * 1024
_HOW = """\
How to answer: reply to this mail. Only the first line counts, and it must stand alone:

    Ship it             it is sent, to exactly these recipients, in exactly these words
    Reject: your reason it is not sent, and the agent can read the reason
    Stop                it is not sent; also after "Ship it", as long as it has not left
"""


def request_notice(request: Request, signed: SignedDraft, *, sender: str) -> Notice:
    """The approval request for one draft. Raises PolicyRefused where the message cannot be shown."""
    rendering = render(signed.draft.message)
    return Notice(
        sender=sender,
        recipient=request.approver,
        subject=f"[outbox {request.tag}] Send this? {visible(rendering.subject)}"[:200].replace("=?", "= ?"),
        text=_request_text(signed, rendering),
        expires_at=request.expires_at,
        about=signed.draft.id,
        request=request,
        attachments=_exact_message(signed),
    )


def _request_text(signed: SignedDraft, rendering: Rendering) -> str:
    draft = signed.draft
    parts = [
        f'The agent {visible(draft.agent)} asks to send this mail. Reply "Ship it", and it is sent; else it is not.\n',
        _envelope_text(signed, rendering),
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
    parts += ["", _HOW, f"{_exactly(signed)}\nDraft {draft.id}\nDigest {signed.digest.hex()}\n"]
    return "\n".join(parts)


def _envelope_text(signed: SignedDraft, rendering: Rendering) -> str:
    draft = signed.draft
    headers = {name.lower(): decode_words(value) for name, value in split_headers(draft.message)}
    rows = [("From", visible(draft.envelope.sender))]
    if headers["from"] != draft.envelope.sender:
        rows.append(("shown as", visible(headers["from"])))
    if "reply-to" in headers:
        rows.append(("Answers", f"would go to {visible(headers['reply-to'])}"))
    for label, addresses in (("To", draft.envelope.to), ("Cc", draft.envelope.cc), ("Bcc", draft.envelope.bcc)):
        rows += [(label, visible(address)) for address in addresses]
    rows += [("Subject", visible(rendering.subject)), ("Expires", rfc_time(draft.expires_at))]
    text = "".join(f"    {label:<9}{value}\n" for label, value in rows)
    disagreements = header_disagreements(draft.message, draft.envelope)
    return text + "".join(f"    Beware   {sentence}\n" for sentence in disagreements)


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


def answer_notice(request: Request, *, text: str, sender: str, subject: str, reply_id: str, expires_at: int) -> Notice:
    """An answer to an approver's reply, in its thread, that can itself be replied to."""
    return Notice(
        sender=sender,
        recipient=request.approver,
        subject=f"[outbox {request.tag}] {subject}"[:200],
        text=text,
        expires_at=expires_at,
        about=request.draft_id,
        request=request,
        thread=Thread(reply_id, (reply_id,)) if reply_id else Thread(),
    )


def unclear_text(why: str, excerpt: str, draft_id: str) -> str:
    """What would count, after a reply that did not; `excerpt` is the line that it came down to."""
    line = f"{fenced(excerpt)}\n\n" if excerpt else ""
    return f"Your reply changed nothing. {why[:1].upper()}{why[1:]}.\n\n{line}{_HOW}\nDraft {draft_id}\n"


def rfc_time(instant: int) -> str:
    """An instant in microseconds UTC for people."""
    return datetime.fromtimestamp(instant // MICROSECONDS, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
