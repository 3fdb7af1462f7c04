"""Check a receipt, part by part, without the database: what anyone can check, and what only a holder of the keys can.

Digests and the signatures of other people's mail servers are anyone's to check. What we made ourselves is under keys
that can make as well as verify: to who does not hold them it is our word.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from outbox.core.canonical import canonical, sha256
from outbox.core.errors import PolicyRefused, VerificationFailed
from outbox.core.grant import REQUEST_ID_OCTETS, TOKEN_CHARACTERS, Channel, placeholder, split_token
from outbox.core.lifecycle import SYSTEM_KIND, Room, State
from outbox.core.notice import carried_request
from outbox.core.receipt import (
    DraftSection,
    GrantSection,
    KeptReply,
    Receipt,
    ReplySection,
    ShownSection,
    parse_receipt,
)
from outbox.core.signed import purpose_of
from outbox.core.signing import KeyRing, Purpose, Signature
from outbox.operator.replay import broken_attempts, broken_draft, facts_in
from outbox.operator.rings import Rings, has_key
from outbox.store.chains import AttemptFacts, DraftFacts, Link
from outbox.store.journal import Entry

_DATE = re.compile(r"Date: [A-Za-z0-9:,+ -]{20,40}\r\n")
WhyUnproven = Callable[[KeptReply], str | None]


@dataclass(frozen=True, slots=True)
class Part:
    """One check: who can make it, and whether it passed; None where it was not made."""

    name: str
    by: Literal["anyone", "keys"]
    passed: bool | None
    why: str


def check_receipt(octets: bytes, rings: Rings, why_unproven: WhyUnproven) -> list[Part]:
    """Every part of a receipt. `why_unproven` is the inbox's look at a signed reply. Raises VerificationFailed."""
    receipt = parse_receipt(octets)
    try:
        return list(_parts(receipt, rings, why_unproven))
    except VerificationFailed as failed:  # a value that no outbox writes
        return [Part("whole", "anyone", passed=False, why=failed.message)]


def _parts(receipt: Receipt, rings: Rings, why_unproven: WhyUnproven) -> Iterator[Part]:
    yield _whole(receipt, rings)
    yield _digest("draft", receipt.draft)
    yield _signature("draft", receipt.draft, rings)
    for number, shown in enumerate(receipt.shown, 1):
        yield _shown(f"shown {number}", shown, receipt)
        yield _signature(f"shown {number}", shown.carrier, rings)
    for number, grant in enumerate(receipt.approved, 1):
        yield from _approval(str(number), grant, receipt, rings, why_unproven)
    yield from _sent(receipt)
    yield _story(receipt)
    yield _rows(receipt, rings)


def _by_key(name: str, ring: KeyRing | None, purpose: Purpose, payload: bytes, signature: Signature) -> Part:
    if ring is None or not has_key(ring, signature.key_id):
        return Part(name, "keys", None, f"key {signature.key_id} is not held here")
    if not ring.verify(purpose, payload, signature):
        return Part(name, "keys", passed=False, why=f"key {signature.key_id} did not make this")
    return Part(name, "keys", passed=True, why=f"made with key {signature.key_id}")


def _whole(receipt: Receipt, rings: Rings) -> Part:
    if receipt.key_id is None or receipt.mac is None:
        return Part("whole", "keys", None, "it was written without the grant key, and anyone can have written it")
    signature = Signature(receipt.key_id, receipt.mac)
    return _by_key("whole", rings.grant, Purpose.RECEIPT, receipt.canonical(), signature)


def _digest(name: str, section: DraftSection) -> Part:
    octets = canonical(section.draft)
    if octets.decode() != section.canonical or not hmac.compare_digest(sha256(octets), section.digest):
        return Part(name, "anyone", passed=False, why="envelope or octets are not what the digest was taken over")
    return Part(name, "anyone", passed=True, why=f"envelope and octets have the digest {section.digest.hex()}")


def _signature(name: str, section: DraftSection, rings: Rings) -> Part:
    ring = rings.grant if section.kind == SYSTEM_KIND else rings.draft
    return _by_key(name, ring, purpose_of(section.kind), section.digest, section.made_by)


def _shown(name: str, shown: ShownSection, receipt: Receipt) -> Part:
    found = _digest(name, shown.carrier)
    if not found.passed:
        return found
    try:
        carried = carried_request(shown.carrier.message)
    except (PolicyRefused, VerificationFailed) as refused:
        return Part(name, "anyone", passed=False, why=refused.message)
    if shown.carrier.kind != SYSTEM_KIND or carried != shown.request(receipt.draft.id):
        return Part(name, "anyone", passed=False, why="its mail asks something else")
    if shown.digest != receipt.draft.digest:
        return Part(name, "anyone", passed=False, why="what was shown is not this draft")
    return Part(name, "anyone", passed=True, why=f"the mail to {shown.approver} shows the draft of this digest")


def _approval(
    number: str, grant: GrantSection, receipt: Receipt, rings: Rings, why_unproven: WhyUnproven
) -> Iterator[Part]:
    name = f"grant {number}"
    octets = grant.grant(receipt.draft.id).canonical()
    if octets.decode() != grant.canonical or grant.digest != receipt.draft.digest:
        yield Part(name, "anyone", passed=False, why="it is for something else")
    else:
        yield Part(name, "anyone", passed=True, why=f"{grant.approver}'s, by {grant.channel}, for this digest")
    yield _by_key(name, rings.grant, Purpose.GRANT, octets, Signature(grant.key_id, grant.signature))
    name = f"reply {number}"
    if grant.channel is Channel.TERMINAL:
        yield Part(name, "anyone", None, "it was given at the terminal: there is no reply")
        return
    reply = grant.reply
    if reply is None or reply.octets is None or reply.key_record is None:
        how = f", by {reply.method}" if reply is not None and reply.method else ""
        yield Part(name, "anyone", None, f"the reply was not kept; who wrote it was known then{how}")
        return
    asked = [one for one in receipt.shown if one.approver == grant.approver]
    yield _signed_reply(name, reply, reply.octets, asked, receipt, why_unproven)
    yield _token(name, reply.octets, grant, asked, receipt, rings)


def _signed_reply(
    name: str,
    reply: ReplySection,
    octets: bytes,
    asked: list[ShownSection],
    receipt: Receipt,
    why_unproven: WhyUnproven,
) -> Part:
    """Whether the approver's own mail server signed it, as an answer to what he was shown."""
    if sha256(octets) != reply.digest or not _is_as_journalled(reply, octets, receipt):
        return Part(name, "anyone", passed=False, why="its octets are not those that were recorded")
    why = "he was not asked"
    for shown in asked:
        kept = KeptReply(
            octets=octets,
            key_record=reply.key_record or "",
            domain=reply.domain or "",
            selector=reply.selector or "",
            request_id=shown.id,
            approval_address=shown.carrier.sender,
            arrived_at=reply.arrived_at or reply.received_at,
        )
        found = why_unproven(kept) if len(shown.id) == REQUEST_ID_OCTETS else "its request has no id"
        if found is None:
            words = f"{reply.domain} signed it, by the key that was seen then for selector {reply.selector}"
            return Part(name, "anyone", passed=True, why=f"{words}; whether that was its key, DNS or an archive knows")
        why = found
    return Part(name, "anyone", passed=False, why=why)


def _is_as_journalled(reply: ReplySection, octets: bytes, receipt: Receipt) -> bool:
    kept = [facts_in(row.detail) for row in receipt.journal if row.action == "keep"]
    said = [facts for facts in kept if facts.get("reply") == reply.id]
    record = sha256((reply.key_record or "").encode()).hex()
    return all(facts.get("digest") == sha256(octets).hex() and facts.get("key_record") == record for facts in said)


def _token(
    name: str, octets: bytes, grant: GrantSection, asked: list[ShownSection], receipt: Receipt, rings: Rings
) -> Part:
    """Whether the token in it is the one that we made for what he was shown. It names no key: any since may have."""
    named = {grant.key_id, *(shown.carrier.key_id for shown in asked)}
    if rings.grant is None or not all(has_key(rings.grant, key_id) for key_id in named):
        return Part(name, "keys", None, "the grant key, which made its token, is not held here")
    text = octets.decode("latin-1").lower()
    for shown in asked:
        begins = placeholder(shown.id).rstrip("0")
        for found in re.finditer(rf"{begins}[a-z2-7]{{{TOKEN_CHARACTERS - len(begins)}}}", text):
            parts = split_token(found[0])
            if parts is not None and rings.grant.verify_reply_mac(
                shown.request(receipt.draft.id).canonical(), parts[1]
            ):
                return Part(name, "keys", passed=True, why="its token, spent by it, is the one that his request had")
    return Part(name, "keys", passed=False, why="no key of ours made a token in it for what he was shown")


def _sent(receipt: Receipt) -> Iterator[Part]:
    for number, attempt in enumerate(receipt.sent, 1):
        if attempt.gap_at is None:
            continue
        name = f"sent {number}"
        granted = [one for one in receipt.approved if one.digest == receipt.draft.digest]
        if receipt.draft.kind != SYSTEM_KIND and not any(one.at <= attempt.gap_at < one.expires_at for one in granted):
            yield Part(name, "anyone", passed=False, why="no grant in this receipt allows it at that time")
        line = attempt.date_line
        if line is None or attempt.wire_digest is None:
            yield Part(name, "anyone", None, "its octets cannot be put together: a token or its Date is not here")
        elif not _DATE.fullmatch(line) or sha256(line.encode() + receipt.draft.message) != attempt.wire_digest:
            yield Part(name, "anyone", passed=False, why="what went over the wire is not the draft with one Date line")
        else:
            said = f"{attempt.outcome or attempt.phase}{f', queue id {attempt.queue_id}' if attempt.queue_id else ''}"
            yield Part(name, "anyone", passed=True, why=f"the draft with one Date line went over the wire: {said}")


def _story(receipt: Receipt) -> Part:
    """Whether the rows of the journal lead to the state and the attempts that it says."""
    links = _links(receipt)
    named = [link for link in links if link.entry.draft_id == receipt.draft.id]
    tried = {one.id for one in receipt.sent}
    strange = [one for one in links if one not in named and one.entry.attempt_id not in tried]
    if strange:
        return Part("story", "anyone", passed=False, why="a row of the journal in it is of something else")
    unnamed = {
        str(link.entry.attempt_id): str(facts_in(link.entry.detail).get("outcome"))
        for link in links
        if link.entry.draft_id is None and link.entry.action == "done"
    }
    attempts = [AttemptFacts(one.id, receipt.draft.id, one.phase, one.outcome, one.wire_digest) for one in receipt.sent]
    facts = DraftFacts(receipt.draft.id, receipt.state, receipt.draft.digest)
    broken = [
        *broken_draft(receipt.draft.id, named, facts),
        *broken_attempts(receipt.draft.id, named, attempts, unnamed),
    ]
    if broken:
        return Part("story", "anyone", passed=False, why=broken[0].why)
    return Part("story", "anyone", passed=True, why=f"the journal's rows lead to {State(receipt.state)}")


def _links(receipt: Receipt) -> list[Link]:
    return [
        Link(
            row.place,
            Entry(row.writer, row.seq, row.at, row.action, row.draft, row.attempt, row.detail),
            Signature(row.key_id, row.mac),
        )
        for row in receipt.journal
    ]


def _rows(receipt: Receipt, rings: Rings) -> Part:
    made = unheld = 0
    for link, row in zip(_links(receipt), receipt.journal, strict=True):
        room = link.entry.writer.partition(":")[0]
        if row.previous is None or not rings.hold(link.signature.key_id):
            unheld += 1
            continue
        payload = link.entry.canonical(row.previous)
        may = rings.of(Room(room)) if room in set(Room) else ()
        if not any(ring.verify(Purpose.JOURNAL, payload, link.signature) for ring in may):
            why = f"row {row.seq} of {row.writer} is not what was written"
            return Part("journal", "keys", passed=False, why=why)
        made += 1
    if unheld:
        return Part("journal", "keys", None, f"{unheld} of {made + unheld} rows: their key is not held here")
    return Part("journal", "keys", passed=True, why=f"{made} rows are as they were written")
