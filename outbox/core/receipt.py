"""What a receipt says of one draft: a file of JSON that others can check without the database.

Octets are base64, digests and MACs hexadecimal, instants microseconds UTC. The whole is under a MAC of the grant key
where whoever wrote it holds that. It holds no reply token but those that stand in replies, which are spent.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from outbox.core.canonical import encode
from outbox.core.draft import Draft, Envelope, Thread
from outbox.core.errors import Code, VerificationFailed
from outbox.core.grant import Channel, Grant, Request
from outbox.core.signed import SignedDraft
from outbox.core.signing import KeyRing, Purpose, Signature


def _from_base64(value: object) -> object:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except binascii.Error:
        raise ValueError("not base64") from None


def _from_hex(value: object) -> object:
    return bytes.fromhex(value) if isinstance(value, str) else value


Octets = Annotated[
    bytes, BeforeValidator(_from_base64), PlainSerializer(lambda value: base64.b64encode(value).decode("ascii"))
]
Hex = Annotated[bytes, BeforeValidator(_from_hex), PlainSerializer(lambda value: value.hex())]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class DraftSection(_Section):
    """A draft as it was signed; `canonical` is the text that its digest was taken over."""

    id: str
    kind: str
    agent: str
    sender: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]
    in_reply_to: str | None
    references: tuple[str, ...]
    created_at: int
    expires_at: int
    resubmitted: str | None
    message: Octets
    canonical: str
    digest: Hex
    signature: Hex
    key_id: str

    @classmethod
    def of(cls, signed: SignedDraft, canonical: str) -> DraftSection:
        """A stored draft."""
        draft = signed.draft
        return cls(
            id=draft.id,
            kind=draft.kind,
            agent=draft.agent,
            sender=draft.envelope.sender,
            to=draft.envelope.to,
            cc=draft.envelope.cc,
            bcc=draft.envelope.bcc,
            in_reply_to=draft.thread.in_reply_to,
            references=draft.thread.references,
            created_at=draft.created_at,
            expires_at=draft.expires_at,
            resubmitted=draft.resubmitted,
            message=draft.message,
            canonical=canonical,
            digest=signed.digest,
            signature=signed.signature.octets,
            key_id=signed.signature.key_id,
        )

    @property
    def draft(self) -> Draft:
        """The draft that it says it was."""
        return Draft(
            id=self.id,
            kind=self.kind,
            agent=self.agent,
            envelope=Envelope(self.sender, self.to, self.cc, self.bcc),
            message=self.message,
            created_at=self.created_at,
            expires_at=self.expires_at,
            thread=Thread(self.in_reply_to, self.references),
            resubmitted=self.resubmitted,
        )

    @property
    def made_by(self) -> Signature:
        """Its signature with the key that made it."""
        return Signature(self.key_id, self.signature)


class ShownSection(_Section):
    """One request: what it asked of whom, and the system draft that carried it, with a placeholder for the token."""

    id: Hex
    approver: str
    digest: Hex
    ask: int
    asked_at: int
    expires_at: int
    spent_at: int | None
    carrier: DraftSection

    def request(self, draft_id: str) -> Request:
        """The request, for the draft that the receipt is of."""
        return Request(self.id, draft_id, self.digest, self.approver, self.expires_at)


class ReplySection(_Section):
    """The reply that gave a grant, and how it was known who wrote it; octets and key record where they were kept."""

    id: str
    received_at: int
    arrived_at: int | None
    sender: str
    message_id: str
    verdict: str
    why: str
    digest: Hex
    method: str | None
    domain: str | None
    selector: str | None
    key_record: str | None
    octets: Octets | None


class GrantSection(_Section):
    """One grant; `canonical` is the text that is signed."""

    id: str
    approver: str
    channel: Channel
    digest: Hex
    at: int
    expires_at: int
    canonical: str
    signature: Hex
    key_id: str
    reply: ReplySection | None

    def grant(self, draft_id: str) -> Grant:
        """The grant, for the draft that the receipt is of."""
        return Grant(self.id, draft_id, self.digest, self.approver, self.channel, self.at, self.expires_at)


class RecipientSection(_Section):
    """What the relay said of one recipient, where it differed."""

    address: str
    code: int
    text: str


class AttemptSection(_Section):
    """One attempt. `date_line` is the line that went in front of the octets, where it could be found again."""

    id: str
    worker: str
    phase: str
    outcome: str | None
    code: int | None
    enhanced: str | None
    text: str | None
    queue_id: str | None
    started_at: int
    gap_at: int | None
    ended_at: int | None
    date_line: str | None
    wire_digest: Hex | None
    recipients: tuple[RecipientSection, ...]


class RejectionSection(_Section):
    """Who rejected it, how, and why."""

    approver: str
    channel: str
    reason: str
    at: int


class SettlementSection(_Section):
    """What a person decided about an attempt in doubt."""

    attempt: str
    settled_as: str
    by: str
    note: str
    at: int


class EvidenceSection(_Section):
    """What was found out afterwards; `found` is None where it proves nothing."""

    source: str
    found: bool | None
    detail: str
    at: int
    octets: Octets | None


class JournalSection(_Section):
    """One row of the journal, with the MAC of the row before it in its chain."""

    place: int
    writer: str
    seq: int
    at: int
    action: str
    draft: str | None
    attempt: str | None
    detail: str
    previous: Hex | None
    key_id: str
    mac: Hex


class Receipt(_Section):
    """Everything that happened to one draft."""

    receipt: Literal[1] = 1
    made_at: int
    database: str
    state: str
    error_code: str | None
    error_message: str | None
    draft: DraftSection
    shown: tuple[ShownSection, ...]
    approved: tuple[GrantSection, ...]
    rejected: RejectionSection | None
    sent: tuple[AttemptSection, ...]
    settled: tuple[SettlementSection, ...]
    evidence: tuple[EvidenceSection, ...]
    journal: tuple[JournalSection, ...]
    key_id: str | None = None
    mac: Hex | None = None

    def canonical(self) -> bytes:
        """The bytes under its MAC."""
        return encode(self.model_dump(mode="json", exclude={"key_id", "mac"}))

    def signed(self, ring: KeyRing) -> Receipt:
        """The same with the grant key's MAC."""
        signature = ring.sign(Purpose.RECEIPT, self.canonical())
        return self.model_copy(update={"key_id": signature.key_id, "mac": signature.octets})

    def text(self) -> bytes:
        """The file."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=1).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A reply that approved, as a receipt has it: what is asked of its DKIM signature, and the key as it was seen.

    `request_id` is of the request that it has to answer at `approval_address`; `arrived_at` in microseconds UTC.
    """

    octets: bytes
    key_record: str
    domain: str
    selector: str
    request_id: bytes
    approval_address: str
    arrived_at: int


def parse_receipt(octets: bytes) -> Receipt:
    """A receipt, read back. Raises VerificationFailed(receipt_invalid) for what none looks like."""
    try:
        json.loads(octets, object_pairs_hook=_each_once)
        return Receipt.model_validate_json(octets)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VerificationFailed(Code.RECEIPT_INVALID, f"it is no receipt: {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise VerificationFailed(Code.RECEIPT_INVALID, f"it is no receipt: {str(error)[:200]}") from None


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key stands twice: readers differ in which of the two they see."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found
