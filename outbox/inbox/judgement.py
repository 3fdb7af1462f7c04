"""Whether a message counts as an approver's answer: every check, each with its reason.

Reads the database, changes nothing: `inbox explain` and the loop see the same judgement. A message's text is read only
where its token and author are right, so that a stranger never reaches the parser.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from outbox.config import Settings
from outbox.core.address import comparable
from outbox.core.canonical import sha256
from outbox.core.draft import DAY, MICROSECONDS
from outbox.core.errors import Code, ConfigError, PolicyRefused, VerificationFailed
from outbox.core.grant import Request, placeholder
from outbox.core.lifecycle import FINAL, SYSTEM_KIND, State
from outbox.core.notice import carried_request
from outbox.core.rendering import render
from outbox.core.signed import SignedDraft, verify_digest, verify_draft
from outbox.core.signing import KeyRing
from outbox.inbox.authenticity import Authenticity, Disproved, Evidence, Times
from outbox.inbox.carriers import Asked, Carriers
from outbox.inbox.codes import CODE_FORM
from outbox.inbox.incoming import (
    Incoming,
    Letter,
    dated_at,
    message_id_of,
    only_author,
    read_letter,
    why_automatic,
)
from outbox.inbox.signature import signature_digests
from outbox.inbox.verdict import BUILT_IN, Reading, Verdict, Words, read_letter_verdict
from outbox.store.engine import Database
from outbox.store.rows import load_draft
from outbox.store.verdicts import other_open_requests, wrong_codes_given
from outbox.store.views import letters_about, state_of, was_seen

MOST_WRONG_CODES = 5  # for one draft
MOST_WRONG_CODES_A_DAY = 10
LARGEST_KEPT = 4 * 1024 * 1024  # octets of a reply that are worth keeping


@dataclass(frozen=True, slots=True)
class Check:
    """One check: passed, failed, or None where it was not asked for or could not be made."""

    name: str
    passed: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one message would do, and why.

    `evidence` is there where an approval was proved, however that is done; `shown_codes` are the time steps of the good
    one-time codes that stand anywhere in it. `may_be_kept` where it proves to others too who approved, and what it
    shows of secrets is spent by it; `arrived_at` in microseconds UTC.
    """

    request: Request | None
    sender: str
    message_id: str
    reading: Reading
    checks: tuple[Check, ...]
    evidence: Evidence | None = None
    wrong_code: bool = False
    with_code: bool = False
    shown_codes: frozenset[int] = frozenset()
    by_a_stranger: bool = False
    may_be_kept: bool = False
    arrived_at: int = 0

    @property
    def counts(self) -> bool:
        """Whether every check that was made passed, and an approval was proved."""
        proved = self.evidence is not None or self.reading.verdict is not Verdict.APPROVE
        return proved and all(check.passed is not False for check in self.checks)

    @property
    def why(self) -> str:
        """The first check that failed, or what was read."""
        return next((f"{check.name}: {check.why}" for check in self.checks if check.passed is False), self.reading.why)

    @property
    def may_be_answered(self) -> bool:
        """Whether the known approver, and no machine, wrote it: only then is he told what was wrong."""
        return self.request is not None and self._passed("from", "automatic", "replay")

    @property
    def is_of_a_stranger(self) -> bool:
        """Whether one other person answered with the approver's token: then the approver is told."""
        return self.by_a_stranger and self._passed("automatic", "replay")

    def _passed(self, *names: str) -> bool:
        return all(check.passed for check in self.checks if check.name in names)


class Judge:
    """Knows the approval address, the approvers as they are now, and the keys that made our tokens."""

    def __init__(
        self, settings: Settings, database: Database, ring: KeyRing, carriers: Carriers, authenticity: Authenticity
    ) -> None:
        self._settings, self._database, self._carriers, self._ring = settings, database, carriers, ring
        self._authenticity = authenticity
        self._approvers = {comparable(approver) for approver in settings.approvers}
        self._closing = settings.approval.closing
        self._address = settings.approval.address or ""
        self._words = _words(settings)

    def is_ours(self, incoming: Incoming) -> bool:
        """Whether the header carries a token that we made; what does not is left as it is."""
        return self._carriers.name_a_request(incoming)

    def is_his(self, sender: str, request: Request) -> bool:
        """Whether an address is one of the approver's whom the request was made for."""
        his = {request.approver, *self._settings.details_of(request.approver).also}
        return comparable(sender) in {comparable(address) for address in his}

    def is_by_us(self, incoming: Incoming) -> bool:
        """Whether it is mail of the outbox's own, come back to a mailbox that is the approver's too."""
        return self._carriers.made(incoming)

    def judge(self, incoming: Incoming, times: Times) -> Judgement:
        """Make every check. Raises Unavailable(dns_unavailable) where whether it counts cannot be known yet."""
        asked, why_not = self._carriers.find(incoming)
        request = asked.request if asked is not None else None
        sender, author = self._check_author(incoming, request)
        letter = read_letter(incoming) if author.passed else Letter(None, None, "its text was not read")
        signed = self._draft_of(request)
        with_code = self._authenticity.needs_code(signed) if author.passed else False
        reading = self._read(letter, request, with_code=with_code)
        others = (
            _check_token(asked, why_not, reading, times.now),
            author,
            _check_automatic(incoming, letter),
            self._check_replay(incoming),
            _check_fresh(incoming, asked),
            self._check_verdict(asked, reading, times.now) if author.passed else Check("verdict", None, reading.why),
        )
        found: Evidence | Disproved | None = None
        if asked is not None and reading.verdict is Verdict.APPROVE and all(check.passed for check in others):
            found = self._authenticity.examine(incoming, asked, sender, reading.code, with_code=with_code, times=times)
        checks = (*others[:2], _check_authenticity(found, reading, author), *others[2:])
        evidence = found if isinstance(found, Evidence) else None
        known = request is not None and comparable(request.approver) in self._approvers
        return Judgement(
            request,
            sender,
            message_id_of(incoming),
            reading,
            checks,
            evidence,
            wrong_code=isinstance(found, Disproved) and found.wrong_code,
            with_code=with_code,
            shown_codes=self._codes_in(letter, request, times) if with_code else frozenset(),
            by_a_stranger=known and author.passed is False and sender != "",
            may_be_kept=evidence is not None and self._may_be_kept(incoming, letter, request, evidence, times.now),
            arrived_at=times.arrived_at,
        )

    def _may_be_kept(
        self, incoming: Incoming, letter: Letter, request: Request | None, evidence: Evidence, now: int
    ) -> bool:
        """Whether a DKIM signature proves it and no reply token stands in it but those that it spends."""
        is_signed = evidence.proof is not None and evidence.proof.method == "dkim"
        if request is None or not is_signed or len(incoming.octets) > LARGEST_KEPT:
            return False
        with self._database.reading() as connection:
            others = other_open_requests(connection, request, now=now)
        texts = (incoming.octets.decode("latin-1"), letter.plain or "", letter.html or "")
        whole = "".join("".join(texts).lower().split())
        # A token begins with its request's id, and so does the placeholder, which goes on in zeros.
        return not any(placeholder(other).rstrip("0") in whole for other in others)

    def _draft_of(self, request: Request | None) -> SignedDraft | None:
        """The draft that was shown with this request; None where it is not what is stored now."""
        if request is None:
            return None
        try:
            with self._database.reading() as connection:
                signed = load_draft(connection, request.draft_id)
            verify_digest(signed)
        except VerificationFailed:
            return None
        return signed if signed.digest == request.digest else None

    def _read(self, letter: Letter, request: Request | None, *, with_code: bool) -> Reading:
        if request is None or (letter.plain is None and letter.html is None):
            return Reading(Verdict.UNCLEAR, None, letter.why)
        with self._database.reading() as connection:
            ids = letters_about(connection, request.draft_id)
        originals = [text for text in (self._own_words(letter_id, request) for letter_id in ids) if text]
        reading = read_letter_verdict(
            letter, self._closing, originals, words=self._words, with_code=with_code, address=self._address
        )
        return _without_codes(reading) if with_code else reading

    def _own_words(self, letter_id: str, request: Request) -> str:
        """The text of a letter that we wrote about this draft; empty where it is not ours, whatever its row says."""
        try:
            with self._database.reading() as connection:
                signed = load_draft(connection, letter_id)
            verify_draft(self._ring, signed)
            carried = carried_request(signed.draft.message) if signed.draft.kind == SYSTEM_KIND else None
            ours = carried is not None and carried.draft_id == request.draft_id
            return (render(signed.draft.message).text or "") if ours else ""
        except (VerificationFailed, PolicyRefused):  # or the agent's text in it looks like more parts than are read
            return ""

    def _codes_in(self, letter: Letter, request: Request | None, times: Times) -> frozenset[int]:
        if request is None:
            return frozenset()
        text = f"{letter.plain or ''}\n{letter.html or ''}"
        return self._authenticity.codes_in(text, request.approver, times)

    def _check_author(self, incoming: Incoming, request: Request | None) -> tuple[str, Check]:
        sender, why = only_author(incoming)
        if sender is None:
            return "", Check("from", False, why)
        if request is None:
            return sender, Check("from", None, "without a token there is nobody to compare it with")
        if not self.is_his(sender, request):
            return sender, Check("from", False, f"{sender} was not asked; {request.approver} was")
        if comparable(request.approver) not in self._approvers:
            return sender, Check("from", False, f"{request.approver} is not an approver any more")
        return sender, Check("from", True, f"{sender} was asked")

    def _check_verdict(self, asked: Asked | None, reading: Reading, now: int) -> Check:
        """Whether it is clear, and can still be carried out: stop and reject hold until the draft is final."""
        if reading.verdict is Verdict.UNCLEAR or asked is None:
            return Check("verdict", False, reading.why)
        draft_id = asked.request.draft_id
        with self._database.reading() as connection:
            state = state_of(connection, draft_id)
            here, lately = wrong_codes_given(
                connection, draft_id, asked.request.approver, since=now - DAY * MICROSECONDS
            )
        if state is None or state in FINAL:
            return Check("verdict", False, f"draft {draft_id} is {state or 'gone'}; that is final")
        if reading.verdict is Verdict.APPROVE and state is not State.PENDING:
            return Check("verdict", False, f"draft {draft_id} is {state} already")
        exhausted = asked.spent or here >= MOST_WRONG_CODES or lately >= MOST_WRONG_CODES_A_DAY
        if reading.verdict is Verdict.APPROVE and exhausted:
            return Check("verdict", False, "no reply can approve it now: too many codes in his name were wrong")
        return Check("verdict", True, reading.why)

    def _check_replay(self, incoming: Incoming) -> Check:
        with self._database.reading() as connection:
            signatures = signature_digests(incoming)
            seen = was_seen(connection, sha256(incoming.octets), message_id_of(incoming), signatures)
        return Check("replay", not seen, "it came before, or is mail of ours" if seen else "it was not seen before")


def _words(settings: Settings) -> Words:
    more = settings.approval.words
    try:
        return BUILT_IN.with_more(more.approve, more.reject, more.cancel)
    except ValueError as error:
        raise ConfigError(Code.CONFIG_INVALID, f"approval.words: {error}", field="approval.words") from None


def _without_codes(reading: Reading) -> Reading:
    """What is kept of a reply, and shown, has no one-time code in it."""
    reason = CODE_FORM.sub("(code)", reading.reason) if reading.reason else reading.reason
    return replace(reading, reason=reason, excerpt=CODE_FORM.sub("(code)", reading.excerpt), closing_hint=())


def _check_token(asked: Asked | None, why_not: str, reading: Reading, now: int) -> Check:
    if asked is None:
        return Check("token", False, why_not)
    if asked.elsewhere and reading.verdict is Verdict.APPROVE:
        why = "its address alone names the request; thread and subject are of some other mail"
        return Check("token", False, why)
    if asked.request.expires_at <= now:
        return Check("token", False, f"the request for draft {asked.request.draft_id} has expired")
    return Check("token", True, f"it names draft {asked.request.draft_id} and {asked.request.approver}")


def _check_authenticity(found: Evidence | Disproved | None, reading: Reading, author: Check) -> Check:
    if isinstance(found, Evidence):
        return Check("authenticity", True if found.proof is not None else None, found.words)
    if isinstance(found, Disproved):
        return Check("authenticity", False, found.why)
    refusing = reading.verdict in {Verdict.REJECT, Verdict.CANCEL} and author.passed
    return Check(
        "authenticity", None, "refusing needs no proof" if refusing else "not looked at: it would not count anyway"
    )


def _check_automatic(incoming: Incoming, letter: Letter) -> Check:
    why = why_automatic(incoming) or letter.automatic
    return Check("automatic", why is None, why or "nothing says that a machine wrote it")


def _check_fresh(incoming: Incoming, asked: Asked | None) -> Check:
    dated = dated_at(incoming)
    if dated is None:
        return Check("fresh", False, "it has no readable Date")
    if asked is None:
        return Check("fresh", None, "without a token there is no request to compare its Date with")
    if dated < asked.asked_at - DAY * MICROSECONDS:
        return Check("fresh", False, "it is dated before the request")
    return Check("fresh", True, "it is dated after the request, within a day's grace")
