"""Whether a reply was written by whom its From names: the proof that the settings ask for.

Asked only of a reply that would approve: refusing needs no proof, and nobody's DNS is asked for a message that changes
nothing anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from outbox.config import Settings
from outbox.core.address import without_extension
from outbox.core.draft import DAY, MICROSECONDS
from outbox.core.errors import Code, ConfigError, OutboxError
from outbox.core.grant import Request
from outbox.core.signed import SignedDraft
from outbox.inbox.carriers import Asked
from outbox.inbox.codes import GRACE
from outbox.inbox.dns import Resolver
from outbox.inbox.incoming import Incoming
from outbox.inbox.proof import Proof, Unproven

LONGEST_ON_ITS_WAY = 3600 * MICROSECONDS
MOST_CODES = 50  # six digits in one reply that are looked at
LONGEST_SEARCHED = 200_000
UNPROVEN_MODE = 'approval.authenticity is "none": whoever knows the token is believed'


@dataclass(frozen=True, slots=True)
class Times:
    """When a message arrived, as its mailbox says, and when it is read; microseconds UTC."""

    arrived_at: int
    now: int

    @property
    def typed_at(self) -> int:
        """What its code is judged by: who may write to the mailbox can have a message arrive long ago."""
        return max(self.arrived_at, self.now - LONGEST_ON_ITS_WAY)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What showed who wrote an approval; `step` is the time step of the one-time code that was in it."""

    proof: Proof | None
    step: int | None = None

    @property
    def words(self) -> str:
        """What `inbox explain` says of it."""
        if self.proof is None:
            return UNPROVEN_MODE
        if self.proof.method == "dkim":
            return f"signed by {self.proof.domain}, selector {self.proof.selector}" + self._code
        if self.proof.method == "code":
            return "its code is right"
        return f"the mail server of ours says dmarc=pass for {self.proof.domain}" + self._code

    @property
    def _code(self) -> str:
        return ", and its code is right" if self.step is not None else ""


@dataclass(frozen=True, slots=True)
class Disproved:
    """Why an approval is not believed; `wrong_code` where a code was guessed."""

    why: str
    wrong_code: bool = False


class Authenticity:
    """The settings of who is believed, and whom to ask. Holds the approvers' code secrets while it looks at one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mode = settings.approval.authenticity
        self._kinds = settings.approval.code_for_kinds
        self._recipients = settings.approval.code_for_recipients
        self._resolver = Resolver(settings.dns.nameservers)
        if self._mode == "code" or self._kinds or self._recipients:
            for approver in settings.approvers:
                self._secret(approver)

    def needs_code(self, signed: SignedDraft | None) -> bool:
        """Whether approving this draft takes a one-time code; where it cannot be read, it does."""
        if self._mode == "code":
            return True
        if not self._kinds and not self._recipients:
            return False
        return signed is None or self._is_asked_for(signed)

    def _is_asked_for(self, signed: SignedDraft) -> bool:
        if signed.draft.kind in self._kinds:
            return True
        addresses = [without_extension(address) for address in signed.draft.envelope.recipients]
        return any(
            address.endswith(pattern) if pattern.startswith("@") else address == without_extension(pattern)
            for address in addresses
            for pattern in self._recipients
        )

    def examine(
        self, incoming: Incoming, asked: Asked, author: str, code: str | None, *, with_code: bool, times: Times
    ) -> Evidence | Disproved:
        """What shows that `author` wrote this, as it was when it arrived: some signatures hold for a day alone.

        Raises Unavailable(dns_unavailable) where it cannot be known yet.
        """
        found = self._prove(incoming, asked, author, times.arrived_at)
        if isinstance(found, Unproven):
            return Disproved(found.why)
        return self._with_code(Evidence(found), asked.request, code, times.typed_at) if with_code else Evidence(found)

    def codes_in(self, text: str, approver: str, times: Times) -> frozenset[int]:
        """The time steps of every good code that a text shows: whoever reads it could use them for another draft."""
        from outbox.inbox.codes import CODE_FORM

        found = {found[0][:3] + found[0][-3:] for found in CODE_FORM.finditer(text[:LONGEST_SEARCHED])}
        steps = (self._match(approver, code, GRACE, times.typed_at) for code in sorted(found)[:MOST_CODES])
        return frozenset(step for step in steps if step is not None)

    def _prove(self, incoming: Incoming, asked: Asked, author: str, arrived_at: int) -> Proof | Unproven | None:
        details = self._settings.details_of(asked.request.approver)
        match self._mode:
            case "dkim":
                from outbox.inbox.dkim import verify_dkim

                return verify_dkim(
                    incoming,
                    author=author,
                    domains=frozenset(details.domains),
                    selectors=frozenset(selector.lower() for selector in details.selectors),
                    naming=asked.naming,
                    addressed=asked.addressed,
                    resolver=self._resolver,
                    now=arrived_at,
                )
            case "authentication-results":
                from outbox.inbox.dkim import why_replayable
                from outbox.inbox.results import verify_results

                why = why_replayable(incoming, author=author, naming=asked.naming, addressed=asked.addressed)
                if why is not None:
                    return Unproven(why)
                return verify_results(
                    incoming,
                    author=author,
                    authserv_id=self._settings.approval.authserv_id or "",
                    received_by=self._settings.approval.received_by,
                )
            case "code":
                return Proof("code", author.rpartition("@")[2].lower(), "")
            case "none":
                return None
        assert_never(self._mode)

    def _with_code(self, evidence: Evidence, request: Request, code: str | None, typed_at: int) -> Evidence | Disproved:
        if code is None:
            return Disproved("the second line has no code; put the six digits there that your authenticator shows now")
        step = self._match(request.approver, code, GRACE, typed_at)
        if step is not None:
            return replace(evidence, step=step)
        if self._match(request.approver, code, DAY, typed_at) is not None:
            return Disproved("its code is too old; answer again, with the one that your authenticator shows now")
        return Disproved("its code is wrong", wrong_code=True)

    def _match(self, approver: str, code: str, back: int, typed_at: int) -> int | None:
        """The time step of a code that was good at most `back` seconds before `typed_at`, or None."""
        from outbox.inbox.codes import STEP, match_code

        since, until = typed_at - back * MICROSECONDS, typed_at + STEP * MICROSECONDS
        found = match_code(self._secret(approver), code, since=since, until=until)
        return found.step if found is not None else None

    def _secret(self, approver: str) -> str:
        from outbox.inbox.codes import parse_secret

        name = f"approver.{approver}.code_file"
        try:
            return parse_secret(self._settings.code_text(approver).encode())
        except ValueError as error:
            raise ConfigError(
                Code.SECRET_UNREADABLE, f"{name}: {error}; make one with `outbox enrol {approver}`", field=name
            ) from None
        except OutboxError as error:
            raise ConfigError(
                error.code, f"{error.message}; make one with `outbox enrol {approver}`", field=name
            ) from None
