"""Whether a message counts as an approver's answer: every check, each with its reason.

Reads the database, changes nothing: `inbox explain` and the loop see the same judgement. A message's text is read only
where its token and author are right, so that a stranger never reaches the parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from outbox.core.canonical import sha256
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import PolicyRefused
from outbox.core.grant import TOKEN_CHARACTERS, Request, split_token
from outbox.core.lifecycle import FINAL, State
from outbox.core.rendering import render
from outbox.core.signing import KeyRing
from outbox.inbox.incoming import Incoming, Written, dated_at, message_id_of, only_author, plain_text, why_automatic
from outbox.inbox.verdict import Reading, Verdict, read_verdict
from outbox.store.engine import Database
from outbox.store.rows import load_request
from outbox.store.views import letters_about, state_of, was_seen

MOST_TOKENS = 10  # looked at in one message
_DAY = 86400 * MICROSECONDS
_FORM = f"[a-z2-7]{{{TOKEN_CHARACTERS}}}"
_RECIPIENT_FIELDS = {"to", "cc", "delivered-to", "x-original-to", "envelope-to"}
_THREAD_FIELDS = {"in-reply-to", "references"}


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
        told = {"from", "automatic", "replay"}
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
            rf"(?<![\w.+-]){re.escape(local)}\+({_FORM})@{re.escape(host)}(?![\w.-])", re.IGNORECASE
        )
        self._approval = re.compile(
            rf"(?<![\w.+-]){re.escape(local)}(?:\+[\w=.-]{{0,64}})?@{re.escape(host)}(?![\w.-])", re.IGNORECASE
        )
        self._thread = re.compile(rf"<({_FORM})\.[0-9a-f-]{{36}}@", re.IGNORECASE)
        self._database = database
        self._ring = ring
        self._approvers = {approver.casefold() for approver in approvers}
        self._closing = closing

    def tokens(self, incoming: Incoming) -> set[str]:
        """Every token of our form in the recipient and thread headers; never from the body.

        The thread's count only in a message to the approval address: a "Yes" to a colleague in the same thread is none.
        """
        recipients = incoming.values(_RECIPIENT_FIELDS)
        found = [self._recipient.findall(value) for value in recipients]
        if any(self._approval.search(value) for value in recipients):
            found += [self._thread.findall(value) for value in incoming.values(_THREAD_FIELDS)]
        return {token.lower() for tokens in found for token in tokens}

    def judge(self, incoming: Incoming) -> Judgement:
        """Make every check."""
        asked, why_not = self._find_request(incoming)
        request, asked_at = asked if asked is not None else (None, None)
        names = f"it names draft {request.draft_id} and {request.approver}" if request else why_not
        sender, author = self._check_author(incoming, request)
        written = plain_text(incoming) if author.passed else Written(None, "its text was not read")
        reading = self._read(written, request)
        checks = (
            Check("token", request is not None, names),
            author,
            Check("authenticity", None, 'approval.authenticity is "none": whoever knows the token is believed'),
            _check_automatic(incoming, written),
            self._check_replay(incoming),
            _check_fresh(incoming, asked_at),
            self._check_verdict(request, reading) if author.passed else Check("verdict", None, reading.why),
        )
        return Judgement(request, sender, message_id_of(incoming), reading, checks)

    def _read(self, written: Written, request: Request | None) -> Reading:
        if written.text is None or request is None:
            return Reading(Verdict.UNCLEAR, None, written.why)
        with self._database.reading() as connection:
            letters = letters_about(connection, request.draft_id)
        return read_verdict(written.text, self._closing, [_text_of(letter) for letter in letters])

    def is_ours(self, incoming: Incoming) -> bool:
        """Whether the header carries a token that we made; what does not is left as it is."""
        return any(self._request_of(token) is not None for token in sorted(self.tokens(incoming))[:MOST_TOKENS])

    def _request_of(self, token: str) -> tuple[Request, int] | None:
        parts = split_token(token)
        if parts is None:
            return None
        with self._database.reading() as connection:
            stored = load_request(connection, parts[0])
        if stored is None or not self._ring.verify_reply_mac(stored[0].canonical(), parts[1]):
            return None
        return stored[0], stored[1]

    def _find_request(self, incoming: Incoming) -> tuple[tuple[Request, int] | None, str]:
        tokens = self.tokens(incoming)
        if len(tokens) != 1:
            return None, "no token of ours in recipient or thread" if not tokens else "its tokens do not agree"
        found = self._request_of(tokens.pop())
        return found, "" if found is not None else "no request of ours has this token"

    def _check_author(self, incoming: Incoming, request: Request | None) -> tuple[str, Check]:
        sender, why = only_author(incoming)
        if sender is None:
            return "", Check("from", False, why)
        if request is None:
            return sender, Check("from", None, "without a token there is nobody to compare it with")
        if sender.casefold() != request.approver.casefold():
            return sender, Check("from", False, f"{sender} was not asked; {request.approver} was")
        if sender.casefold() not in self._approvers:
            return sender, Check("from", False, f"{sender} is not an approver any more")
        return sender, Check("from", True, f"{sender} was asked")

    def _check_verdict(self, request: Request | None, reading: Reading) -> Check:
        """Whether it is clear, and can still be carried out: stop and reject hold until the draft is final."""
        if reading.verdict is Verdict.UNCLEAR or request is None:
            return Check("verdict", False, reading.why)
        with self._database.reading() as connection:
            state = state_of(connection, request.draft_id)
        if state is None or state in FINAL:
            return Check("verdict", False, f"draft {request.draft_id} is {state or 'gone'}; that is final")
        if reading.verdict is Verdict.APPROVE and state is not State.PENDING:
            return Check("verdict", False, f"draft {request.draft_id} is {state} already")
        return Check("verdict", True, reading.why)

    def _check_replay(self, incoming: Incoming) -> Check:
        with self._database.reading() as connection:
            seen = was_seen(connection, sha256(incoming.octets), message_id_of(incoming))
        return Check("replay", not seen, "it came before, or is mail of ours" if seen else "it was not seen before")


def _check_automatic(incoming: Incoming, written: Written) -> Check:
    why = why_automatic(incoming) or written.automatic
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


def _text_of(letter: bytes) -> str:
    try:
        return render(letter).text or ""
    except PolicyRefused:  # the agent's text in it looks like more parts than are read; then no quote of it is known
        return ""
