"""The one intake: parse at the border, compose, check, sign. What comes out of here may be inserted as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from outbox.core.address import Mailbox, comparable, domain, parse_address, parse_mailbox
from outbox.core.canonical import encode, envelope_fields, sha256, thread_fields
from outbox.core.draft import MICROSECONDS, Draft, Envelope, Thread
from outbox.core.errors import Code, PolicyRefused
from outbox.core.lifecycle import Room
from outbox.core.message import Attachment, Content, adopt, compose, parse_message_ids, refuse_control
from outbox.core.policy import Policy, kind_violations, raise_first, standing_violations, violations
from outbox.core.signed import SignedDraft, sign_draft
from outbox.core.signing import KeyRing

_LONGEST_NAME = 200
LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an agent asks for, as it came. `ttl` in seconds; None takes the default.

    `resubmit` is why it asks again for what was rejected; the approver reads it.
    """

    sender: str
    to: tuple[str, ...]
    subject: str
    text: str | None = None
    html: str | None = None
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    kind: str = "email"
    agent: str = "python"
    ttl: int | None = None
    resubmit: str | None = None


@dataclass(frozen=True, slots=True)
class Overrides:
    """What may be said beside a whole message; None takes it from the headers."""

    sender: str | None = None
    to: tuple[str, ...] | None = None
    cc: tuple[str, ...] | None = None
    bcc: tuple[str, ...] | None = None
    kind: str = "email"
    agent: str = "python"
    ttl: int | None = None
    resubmit: str | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole RFC 5322 message, and what is said beside it."""

    octets: bytes
    overrides: Overrides = Overrides()


@dataclass(frozen=True, slots=True)
class Asked:
    """One of many that are asked for together. The same key of an agent with the same content is the same draft."""

    wanted: Wanted | Whole
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Additions:
    """What settings make of every envelope: where bounces go, for its sender, and one more Bcc; None is none."""

    return_path: str | None = None
    archive: str | None = None

    def to(self, envelope: Envelope) -> Envelope:
        """The envelope that is signed. Whoever is in it already is not added."""
        there = {comparable(address) for address in envelope.recipients}
        added = () if self.archive is None or comparable(self.archive) in there else (self.archive,)
        return replace(envelope, sender=self.return_path or envelope.sender, bcc=envelope.bcc + added)


class Intake:
    """Makes signed drafts out of what agents ask for."""

    def __init__(self, ring: KeyRing, policy: Policy, default_ttl: int, additions: Additions) -> None:
        self._ring, self._policy, self._default_ttl, self._additions = ring, policy, default_ttl, additions

    def compose(self, wanted: Wanted, draft_id: str, now: int) -> SignedDraft:
        """A signed draft of parts. Raises PolicyRefused for the first rule that is broken."""
        raise_first(kind_violations(wanted.kind, self._policy))
        content = _content(wanted)
        envelope = _envelope(content.sender.address, content.to, content.cc, _mailboxes(wanted.bcc, "bcc"))
        message_id = f"<{draft_id}@{domain(envelope.sender)}>"
        message = compose(content, draft_id, message_id)
        draft = self._draft(wanted, draft_id, envelope, message, content.thread, now)
        return self._sign(draft, _fingerprint(draft, _content_fields(content)))

    def adopt(self, octets: bytes, overrides: Overrides, draft_id: str, now: int) -> SignedDraft:
        """A signed draft of a whole message. Raises PolicyRefused for the first rule that is broken."""
        raise_first(kind_violations(overrides.kind, self._policy))
        host = next(iter(sorted(self._policy.from_domains)))
        adopted = adopt(octets, draft_id, f"<{draft_id}@{host}>")
        sender = adopted.sender.address if overrides.sender is None else parse_address(overrides.sender, "from")
        envelope = _envelope(
            sender,
            adopted.to if overrides.to is None else _mailboxes(overrides.to, "to"),
            adopted.cc if overrides.cc is None else _mailboxes(overrides.cc, "cc"),
            adopted.bcc if overrides.bcc is None else _mailboxes(overrides.bcc, "bcc"),
        )
        draft = self._draft(overrides, draft_id, envelope, adopted.message, adopted.thread, now)
        return self._sign(draft, _fingerprint(draft, {"message": sha256(adopted.stripped).hex()}))

    def _draft(
        self, asked: Wanted | Overrides, draft_id: str, envelope: Envelope, message: bytes, thread: Thread, now: int
    ) -> Draft:
        ttl = self._default_ttl if asked.ttl is None else asked.ttl
        if not 1 <= ttl <= self._policy.max_ttl:
            raise PolicyRefused(
                Code.TTL_OUT_OF_RANGE, f"ttl: a draft lives for 1 to {self._policy.max_ttl} seconds", field="ttl"
            )
        return Draft(
            id=draft_id,
            kind=asked.kind,
            agent=_agent(asked.agent),
            envelope=envelope,
            message=message,
            created_at=now,
            expires_at=now + ttl * MICROSECONDS,
            thread=thread,
            resubmitted=_reason(asked.resubmit),
        )

    def _sign(self, draft: Draft, fingerprint: bytes) -> SignedDraft:
        """The rules hold for what was asked, and for what settings make of it."""
        raise_first(violations(draft, self._policy))
        final = replace(draft, envelope=self._additions.to(draft.envelope))
        if final.envelope != draft.envelope:
            raise_first(standing_violations(final, self._policy))
        return sign_draft(self._ring, final, fingerprint)


def _reason(text: str | None) -> str | None:
    if text is None:
        return None
    refuse_control(text, "resubmit")
    _refuse_unwritable(text, "resubmit")
    if not text.strip() or len(text) > LONGEST_REASON:
        message = f"resubmit: say why in 1 to {LONGEST_REASON} characters"
        raise PolicyRefused(Code.ALREADY_REJECTED, message, field="resubmit")
    return text.strip()


def _agent(name: str) -> str:
    refuse_control(name, "agent")
    if not 0 < len(name) <= _LONGEST_NAME or name in set(Room):
        message = f"agent: 1 to {_LONGEST_NAME} characters, and not the name of a room"
        raise PolicyRefused(Code.AGENT_INVALID, message, field="agent")
    return name


def _content(wanted: Wanted) -> Content:
    if not (wanted.text or "").strip() and not (wanted.html or "").strip():
        raise PolicyRefused(Code.BODY_EMPTY, "the body is empty", field="text")
    for field, text in (("text", wanted.text), ("html", wanted.html)):
        _refuse_unwritable(text or "", field)
    return Content(
        sender=parse_mailbox(wanted.sender, "from"),
        to=_mailboxes(wanted.to, "to"),
        cc=_mailboxes(wanted.cc, "cc"),
        subject=wanted.subject,
        text=wanted.text,
        html=wanted.html,
        attachments=wanted.attachments,
        thread=Thread(
            _one_message_id(wanted.in_reply_to) if wanted.in_reply_to else None,
            tuple(_one_message_id(reference) for reference in wanted.references),
        ),
    )


def _refuse_unwritable(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PolicyRefused(
            Code.MESSAGE_MALFORMED, f"{field}: it has octets that are no text; is it UTF-8?", field=field
        ) from None


def _one_message_id(text: str) -> str:
    refuse_control(text, "references")
    bracketed = text if text.startswith("<") else f"<{text}>"
    if parse_message_ids(bracketed) != (bracketed,):
        raise PolicyRefused(Code.MESSAGE_MALFORMED, f"{text[:100]!a} is not a Message-ID", field="references")
    return bracketed


def _mailboxes(texts: Iterable[str], field: str) -> tuple[Mailbox, ...]:
    return tuple(parse_mailbox(text, field) for text in texts)


def _envelope(sender: str, to: Iterable[Mailbox], cc: Iterable[Mailbox], bcc: Iterable[Mailbox]) -> Envelope:
    """Each mailbox once, where it is first named: RCPT twice may mean two copies."""
    seen: set[str] = set()
    lists: list[tuple[str, ...]] = []
    for mailboxes in (to, cc, bcc):
        fresh = []
        for mailbox in mailboxes:
            if comparable(mailbox.address) not in seen:
                seen.add(comparable(mailbox.address))
                fresh.append(mailbox.address)
        lists.append(tuple(fresh))
    return Envelope(sender, *lists)


def _fingerprint(draft: Draft, given: dict[str, object]) -> bytes:
    """SHA-256 over what the agent gave: without id, time, Message-ID and boundaries."""
    fields = {"kind": draft.kind, "envelope": envelope_fields(draft.envelope), "thread": thread_fields(draft.thread)}
    return sha256(encode(fields | given))


def _content_fields(content: Content) -> dict[str, object]:
    return {
        "from": [content.sender.name, content.sender.address],
        "names": [mailbox.name for mailbox in (*content.to, *content.cc)],
        "subject": content.subject,
        "text": content.text,
        "html": content.html,
        "attachments": [[one.name, one.media_type, sha256(one.octets).hex()] for one in content.attachments],
    }
