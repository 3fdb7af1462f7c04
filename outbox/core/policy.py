"""The rules a draft must keep, as facts about it: at drafting they raise, at the worker they are looked at again."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from outbox.core.address import domain, is_plain, parse_address, parse_mailboxes, without_extension
from outbox.core.draft import MICROSECONDS, Draft
from outbox.core.errors import Code, PolicyRefused
from outbox.core.lifecycle import SYSTEM_KIND
from outbox.core.message import is_normal, normalise_lines, split_headers
from outbox.core.rendering import render

NON_DELEGABLE = frozenset(
    {
        "force_push_shared",
        "ruleset_disable",
        "account_switch",
        "cross_account_ops",
        "irreversible_capital_commit",
        "constitutional_rewrite",
        "authority_class_expansion",
        "venture_kill",
        "permission_escalation",
        "public_truth_claim",
    }
)
KINDS = frozenset({"email"})
LONGEST_SUBJECT = 200
LARGEST_ATTACHMENT = 10 * 1024 * 1024
LARGEST_ATTACHMENTS = 25 * 1024 * 1024
_LONGEST_REMEMBERED = 64  # characters of a kind
_SEPARATORS = re.compile(r"[\s_\-./:]+")


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules as they are now. `refuse_kinds` adds to the non-delegable ones; `max_ttl` is in seconds.

    `return_path` may be an envelope's sender although replies go there too; `archive` is no recipient that is counted.
    """

    from_domains: frozenset[str]
    approval_address: str | None
    max_recipients: int = 10
    max_ttl: int = 30 * 86400
    refuse_kinds: frozenset[str] = frozenset()
    return_path: str | None = None
    archive: str | None = None
    _approval: str | None = field(init=False, repr=False, compare=False)
    _approval_begins: str = field(init=False, repr=False, compare=False)
    _kinds: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        approval = None if self.approval_address is None else without_extension(self.approval_address)
        object.__setattr__(self, "_approval", approval)
        object.__setattr__(self, "_approval_begins", (approval or "").rpartition("@")[0].casefold())
        object.__setattr__(self, "_kinds", frozenset(kind for kind in KINDS if not any(kind_violations(kind, self))))

    def is_approval(self, address: str) -> bool:
        """Whether mail to `address` reaches the approval mailbox."""
        if self._approval is None or not address.casefold().startswith(self._approval_begins):
            return False  # each character by itself: neither the case nor an extension can make it another
        return without_extension(address) == self._approval

    def allows_kind(self, kind: str) -> bool:
        """Whether kind_violations finds nothing."""
        return kind in self._kinds


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule broken: a stable code, a sentence for people, and the field it is about."""

    code: Code
    message: str
    field: str


def is_non_delegable(kind: str, refuse_kinds: frozenset[str] = frozenset()) -> bool:
    """Whether a kind may never be sent by a program, whoever approved it, however it is spelt."""
    plain = _remembered(kind) if len(kind) <= _LONGEST_REMEMBERED else _plain(kind)
    return plain in _refused(refuse_kinds)


@lru_cache(maxsize=16)
def _refused(refuse_kinds: frozenset[str]) -> frozenset[str]:
    return frozenset(_plain(name) for name in NON_DELEGABLE | refuse_kinds)


@lru_cache(maxsize=64)
def _remembered(kind: str) -> str:
    return _plain(kind)


def _plain(kind: str) -> str:
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", kind).casefold()).replace("\u0131", "i")
    visible = "".join(
        "-" if unicodedata.category(c) == "Pd" else c
        for c in folded
        if unicodedata.category(c) not in {"Cf", "Cc", "Mn"}
    )
    return _SEPARATORS.sub("_", visible).strip("_")


def violations(draft: Draft, policy: Policy) -> Iterator[Violation]:
    """Every rule that a new draft breaks, the gravest first."""
    yield from standing_violations(draft, policy)
    yield from _content_violations(draft)


def standing_violations(draft: Draft, policy: Policy) -> Iterator[Violation]:
    """The rules that settings can change after drafting: the worker asks again, under the policy as it is then."""
    yield from kind_violations(draft.kind, policy)
    yield from form_violations(draft)
    yield from _envelope_violations(draft, policy)
    yield from _header_violations(draft, policy)
    ttl = draft.expires_at - draft.created_at
    if not MICROSECONDS <= ttl <= policy.max_ttl * MICROSECONDS:
        yield Violation(Code.TTL_OUT_OF_RANGE, f"a draft lives for 1 second to {policy.max_ttl} seconds", "ttl")


def refuse_violations(draft: Draft, policy: Policy, fields: dict[str, str] | None) -> None:
    """Raise PolicyRefused for the first of standing_violations; `fields` are the message's usual_fields.

    One look says of nearly every draft that it breaks none. Any other is asked about rule by rule.
    """
    if fields is None or not _is_usual(draft, policy, fields):
        raise_first(standing_violations(draft, policy))


def refuse_form(draft: Draft) -> None:
    """Raise PolicyRefused for the first of form_violations."""
    if not _is_in_form(draft, draft.envelope.recipients):
        raise_first(form_violations(draft))


def _is_usual(draft: Draft, policy: Policy, fields: dict[str, str]) -> bool:
    """Whether a draft is seen at first sight to break none of standing_violations; False says nothing."""
    sender, recipients = draft.envelope.sender, draft.envelope.recipients
    return (
        policy.allows_kind(draft.kind)
        and _is_in_form(draft, recipients)
        and domain(sender) in policy.from_domains
        and 0 < len(recipients) <= policy.max_recipients
        and not policy.is_approval(sender)
        and not any(map(policy.is_approval, recipients))
        and (fields.get("from") == sender or _names_allowed(fields, "from", policy, policy.from_domains))
        and (fields.get("to") in recipients or _names_allowed(fields, "to", policy))
        and _names_allowed(fields, "cc", policy)
        and _names_allowed(fields, "reply-to", policy)
        and MICROSECONDS <= draft.expires_at - draft.created_at <= policy.max_ttl * MICROSECONDS
    )


def _is_in_form(draft: Draft, recipients: tuple[str, ...]) -> bool:
    return is_plain(draft.envelope.sender) and all(map(is_plain, recipients)) and is_normal(draft.message)


def _names_allowed(fields: dict[str, str], name: str, policy: Policy, domains: frozenset[str] | None = None) -> bool:
    if name not in fields:
        return True
    try:
        named = [mailbox.address for mailbox in parse_mailboxes(fields[name], name)]
    except PolicyRefused:
        return False
    return not any(map(policy.is_approval, named)) and (domains is None or domains.issuperset(map(domain, named)))


def form_violations(draft: Draft) -> Iterator[Violation]:
    """Whether addresses and octets can be said to a relay as they are: who holds the draft key can sign anything."""
    for address in (draft.envelope.sender, *draft.envelope.recipients):
        if parse_address(address, "envelope") != address:
            yield Violation(Code.ADDRESS_INVALID, f"{address[:100]!a} is not an address as an envelope says it", "to")
    if normalise_lines(draft.message) != draft.message:
        yield Violation(Code.MESSAGE_MALFORMED, "the message does not end each line with CRLF", "message")


def kind_violations(kind: str, policy: Policy) -> Iterator[Violation]:
    """Whether `kind` may be drafted at all."""
    if is_non_delegable(kind, policy.refuse_kinds):
        yield Violation(Code.NON_DELEGABLE_KIND, f"kind {kind!a} may never be delegated; a person has to do it", "kind")
    elif kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        reserved = " is reserved for the outbox's own mail" if kind == SYSTEM_KIND else " is not known"
        yield Violation(Code.UNKNOWN_KIND, f"kind {kind[:60]!a}{reserved}; known: {known}", "kind")


def _envelope_violations(draft: Draft, policy: Policy) -> Iterator[Violation]:
    envelope = draft.envelope
    yield from _domain_violation(envelope.sender, policy, "from")
    if not envelope.recipients:
        yield Violation(Code.NO_RECIPIENT, "no recipient was given", "to")
    counted = sum(address != policy.archive for address in envelope.recipients)
    if counted > policy.max_recipients:
        message = f"{counted} recipients are more than policy.max_recipients, {policy.max_recipients}"
        yield Violation(Code.TOO_MANY_RECIPIENTS, message, "to")
    if envelope.sender != policy.return_path:
        yield from _approval_violations((envelope.sender,), policy, "from")
    yield from _approval_violations(envelope.recipients, policy, "to")


def _domain_violation(address: str, policy: Policy, field: str) -> Iterator[Violation]:
    if domain(address) not in policy.from_domains:
        allowed = ", ".join(sorted(policy.from_domains))
        message = f"{address} is not in policy.from_domains ({allowed})"
        yield Violation(Code.FROM_DOMAIN, message, field)


def _approval_violations(addresses: tuple[str, ...], policy: Policy, field: str) -> Iterator[Violation]:
    for address in addresses:
        if policy.is_approval(address):
            message = f"{address} is the approval address; no draft may write to it, from it or ask for replies to it"
            yield Violation(Code.APPROVAL_ADDRESS, message, field)


def _header_violations(draft: Draft, policy: Policy) -> Iterator[Violation]:
    for name, value in split_headers(draft.message):
        field = name.lower()
        if field not in {"from", "to", "cc", "reply-to"}:
            continue
        addresses = tuple(mailbox.address for mailbox in parse_mailboxes(value, name))
        yield from _approval_violations(addresses, policy, field)
        if field == "from":
            for address in addresses:
                yield from _domain_violation(address, policy, "from")


def _content_violations(draft: Draft) -> Iterator[Violation]:
    rendering = render(draft.message)
    if not rendering.subject.strip():
        yield Violation(Code.SUBJECT_EMPTY, "the subject is empty", "subject")
    if len(rendering.subject) > LONGEST_SUBJECT:
        message = f"the subject has {len(rendering.subject)} characters; at most {LONGEST_SUBJECT} are allowed"
        yield Violation(Code.SUBJECT_TOO_LONG, message, "subject")
    if not (rendering.text or "").strip() and not (rendering.html or "").strip():
        yield Violation(Code.BODY_EMPTY, "the body is empty", "text")
    yield from attachment_violations([(part.name, part.size) for part in rendering.attachments])


def attachment_violations(sizes: list[tuple[str, int]]) -> Iterator[Violation]:
    """Whether attachments, as (name, octets), are too large one by one or together."""
    for name, size in sizes:
        if size > LARGEST_ATTACHMENT:
            yield Violation(Code.ATTACHMENT_TOO_LARGE, f"attachment {name!a} is over 10 MiB", "attach")
    if sum(size for _, size in sizes) > LARGEST_ATTACHMENTS:
        yield Violation(Code.ATTACHMENTS_TOO_LARGE, "the attachments are over 25 MiB together", "attach")


def raise_first(found: Iterator[Violation]) -> None:
    """Raise PolicyRefused for the first violation, if there is one."""
    for violation in found:
        raise PolicyRefused(violation.code, violation.message, field=violation.field)
