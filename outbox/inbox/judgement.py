"""Whether a message counts as an approver's answer: every check, each with its reason.

Reads the database, changes nothing: `inbox explain` and the loop see the same judgement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from outbox.core.canonical import sha256
from outbox.core.draft import MICROSECONDS
from outbox.core.grant import Request, split_token
from outbox.core.signing import KeyRing
from outbox.inbox.incoming import Incoming, dated_at, message_id_of, only_author, plain_text, why_automatic
from outbox.inbox.verdict import Reading, Verdict, read_verdict
from outbox.store.engine import Database
from outbox.store.rows import load_request
from outbox.store.views import was_seen

_DAY = 86400 * MICROSECONDS
_TOKEN = "[a-z2-7]{39}"  # noqa: S105  a pattern
_RECIPIENT_FIELDS = ("to", "cc", "delivered-to", "x-original-to", "envelope-to")
_THREAD_FIELDS = ("in-reply-to", "references")


@dataclass(frozen=True, slots=True)
class Check:
    """One check: passed, failed, or None where it was not asked for or could not be made."""

    name: str
    passed: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one message would do, and why."""

    request: Request | None
    sender: str
    message_id: str
    reading: Reading
    checks: tuple[Check, ...]

    @property
    def counts(self) -> bool:
        """Whether every check that was made passed."""
        return all(check.passed is not False for check in self.checks)

    @property
    def why(self) -> str:
        """The first check that failed, or what was read."""
        return next((f"{check.name}: {check.why}" for check in self.checks if check.passed is False), self.reading.why)

    @property
    def may_be_answered(self) -> bool:
        """Whether the known approver, and no machine, wrote it: only then is he told what was wrong."""
        told = {"token", "from", "automatic", "replay"}
        return self.request is not None and all(check.passed for check in self.checks if check.name in told)


class Judge:
    """Knows the approval address, the approvers as they are now, and the keys that made our tokens."""

    def __init__(
        self,
        database: Database,
        ring: KeyRing,
        *,
        address: str,
        approvers: tuple[str, ...],
        closing: tuple[str, ...],
    ) -> None:
        local, _, host = address.rpartition("@")
        self._recipient = re.compile(
            rf"(?<![\w.+-]){re.escape(local)}\+({_TOKEN})@{re.escape(host)}(?![\w.-])", re.IGNORECASE
        )
        self._thread = re.compile(rf"<({_TOKEN})\.[0-9a-f-]{{36}}@", re.IGNORECASE)
        self._database = database
        self._ring = ring
        self._approvers = {approver.casefold() for approver in approvers}
        self._closing = closing

    def tokens(self, incoming: Incoming) -> set[str]:
        """Every token of our form in the recipient and thread headers; never from the body."""
        found = [self._recipient.findall(value) for value in incoming.values(*_RECIPIENT_FIELDS)]
        found += [self._thread.findall(value) for value in incoming.values(*_THREAD_FIELDS)]
        return {token.lower() for tokens in found for token in tokens}

    def judge(self, incoming: Incoming, *, uid_known: bool = False) -> Judgement:
        """Make every check. `uid_known` where the mailbox has shown this very message before."""
        request, asked_at, token = self._check_token(incoming)
        sender, from_check = self._check_from(incoming, request)
        text, missing = plain_text(incoming)
        reading = Reading(Verdict.UNCLEAR, None, missing) if text is None else read_verdict(text, self._closing)
        checks = (
            token,
            from_check,
            Check("authenticity", None, 'approval.authenticity is "none": whoever knows the token is believed'),
            _check_automatic(incoming),
            self._check_replay(incoming, uid_known),
            _check_fresh(incoming, asked_at),
            Check("verdict", reading.verdict is not Verdict.UNCLEAR, reading.why),
        )
        return Judgement(request, sender, message_id_of(incoming), reading, checks)

    def _check_token(self, incoming: Incoming) -> tuple[Request | None, int | None, Check]:
        tokens = self.tokens(incoming)
        if len(tokens) != 1:
            why = "no token of ours in recipient or thread" if not tokens else "its tokens do not agree"
            return None, None, Check("token", False, why)
        parts = split_token(tokens.pop())
        if parts is None:
            return None, None, Check("token", False, "it is not the one spelling of a token")
        with self._database.reading() as connection:
            stored = load_request(connection, parts[0])
        if stored is None or not self._ring.verify_reply_mac(stored[0].canonical(), parts[1]):
            return None, None, Check("token", False, "no request of ours has this token")
        request, asked_at, _ = stored
        if request.approver.casefold() not in self._approvers:
            return request, asked_at, Check("token", False, f"{request.approver} is not an approver any more")
        return request, asked_at, Check("token", True, f"it names draft {request.draft_id} and {request.approver}")

    def _check_from(self, incoming: Incoming, request: Request | None) -> tuple[str, Check]:
        sender, why = only_author(incoming)
        if sender is None:
            return "", Check("from", False, why)
        if request is None:
            return sender, Check("from", None, "without a token there is nobody to compare it with")
        if sender.casefold() != request.approver.casefold():
            return sender, Check("from", False, f"{sender} was not asked; {request.approver} was")
        return sender, Check("from", True, f"{sender} was asked")

    def _check_replay(self, incoming: Incoming, uid_known: bool) -> Check:
        with self._database.reading() as connection:
            seen = uid_known or was_seen(connection, sha256(incoming.octets), message_id_of(incoming))
        return Check("replay", not seen, "it came before, or is mail of ours" if seen else "it was not seen before")


def _check_automatic(incoming: Incoming) -> Check:
    why = why_automatic(incoming)
    return Check("automatic", why is None, why or "nothing says that a machine wrote it")


def _check_fresh(incoming: Incoming, asked_at: int | None) -> Check:
    dated = dated_at(incoming)
    if dated is None:
        return Check("fresh", False, "it has no readable Date")
    if asked_at is None:
        return Check("fresh", None, "without a token there is no request to compare its Date with")
    if dated < asked_at - _DAY:
        return Check("fresh", False, "it is dated before the request")
    return Check("fresh", True, "it is dated after the request, within a day's grace")
