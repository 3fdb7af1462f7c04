"""The last look before a connection is made: signature, grants, time and policy as they are now. Fails closed."""

from __future__ import annotations

from dataclasses import dataclass, field

from outbox.core.address import comparable
from outbox.core.draft import MICROSECONDS, Draft
from outbox.core.errors import Code, VerificationFailed
from outbox.core.grant import Grant, verify_grant
from outbox.core.lifecycle import SYSTEM_KIND
from outbox.core.policy import Policy, refuse_form, refuse_violations
from outbox.core.signed import SignedDraft, verify_draft
from outbox.core.signing import KeyRing, Signature

CLOCK_GRACE = 5 * 60 * MICROSECONDS


@dataclass(frozen=True, slots=True)
class Verifier:
    """Keys, policy and people as they are now. Addresses are compared without regard to case."""

    draft_ring: KeyRing
    grant_ring: KeyRing
    policy: Policy
    approvers: tuple[str, ...]
    operators: tuple[str, ...]
    _approvers: frozenset[str] = field(init=False, repr=False, compare=False)
    _people: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_approvers", frozenset(map(comparable, self.approvers)))
        object.__setattr__(self, "_people", frozenset(map(comparable, (*self.approvers, *self.operators))))

    def verify(self, signed: SignedDraft, grants: list[tuple[Grant, Signature]], *, now: int) -> None:
        """Raise VerificationFailed or PolicyRefused unless this draft may be sent now."""
        draft = signed.draft
        is_system = draft.kind == SYSTEM_KIND
        fields = verify_draft(self.grant_ring if is_system else self.draft_ring, signed)
        if draft.created_at > now + CLOCK_GRACE:
            raise VerificationFailed(Code.DATED_AHEAD, f"draft {draft.id}: it is dated more than 5 minutes ahead")
        if is_system:
            refuse_form(draft)
            self._verify_recipients(draft)
            return
        refuse_violations(draft, self.policy, fields)
        self._verify_grants(signed, grants, now)

    def _verify_recipients(self, draft: Draft) -> None:
        strangers = [address for address in draft.envelope.recipients if comparable(address) not in self._people]
        if strangers:
            raise VerificationFailed(
                Code.SYSTEM_RECIPIENT, f"draft {draft.id}: {', '.join(strangers)} is neither approver nor operator"
            )

    def _verify_grants(self, signed: SignedDraft, grants: list[tuple[Grant, Signature]], now: int) -> None:
        if not grants:
            raise VerificationFailed(Code.GRANT_MISSING, f"draft {signed.draft.id}: nobody granted it; it was not sent")
        for grant, signature in grants:
            why = self._why_invalid(signed, grant, signature, now)
            if why is not None:
                raise VerificationFailed(Code.GRANT_INVALID, f"draft {signed.draft.id}: {why}; it was not sent")

    def _why_invalid(self, signed: SignedDraft, grant: Grant, signature: Signature, now: int) -> str | None:
        if not verify_grant(self.grant_ring, grant, signature):
            return "no key of ours made its grant"
        if grant.draft_id != signed.draft.id or grant.digest != signed.digest:
            return "its grant is for something else"
        if comparable(grant.approver) not in self._approvers:
            return f"{grant.approver} is not an approver any more"
        if not grant.at - CLOCK_GRACE <= now < grant.expires_at:
            return "its grant's time is not now"
        return None
