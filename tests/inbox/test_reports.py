"""Delivery reports that came back: evidence where they repeat an envelope id of ours, else a stranger's mail."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.core import delivery
from outbox.core.delivery import Submission, envid, is_delivery_report, parse_report, split_envid, verified_envid
from outbox.core.grant import without_tokens
from outbox.core.lifecycle import State
from outbox.core.signing import KeyRing, Purpose
from outbox.inbox.reports import LARGEST_KEPT, MOST_REPORTS, SOURCE
from tests.house import JANE, House
from tests.postgres import server
from tests.relay.recording import RecordingRelay
from tests.relay.scripted import Fin, Phase, ScriptedRelay

BOUNCES = "bounces@acme.example"
JACK = "jack@customer.example"
RING = KeyRing([b"n" * 32, b"o" * 32])
DRAFT, ATTEMPT = "01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8058"


@dataclass(frozen=True)
class Sent:
    """A house with one draft that the relay has taken, and the envelope id that its attempt had."""

    house: House
    draft_id: str
    attempt_id: str
    envid: str

    def report(self, octets: bytes) -> None:
        """Let a message come in, and look."""
        self.house.deliver(octets)
        self.house.inbox()

    def evidence(self) -> list[tuple[object, ...]]:
        """What was kept: attempt, whether it proves that it left, and the line for people."""
        return self.house.rows("SELECT attempt_id, found, detail FROM evidence WHERE source = ? ORDER BY id", SOURCE)

    def alerts(self) -> list[tuple[object, ...]]:
        """The subjects of what the operator was mailed about it."""
        return self.house.rows("SELECT subject FROM drafts WHERE kind = 'system' AND about = ?", self.draft_id)

    def left_alone(self) -> bool:
        """Whether nothing at all was recorded."""
        return self.evidence() == [] and self.house.replies() == [] and self.alerts() == []


def _sent(house: House, draft_id: str) -> Sent:
    (attempt,) = house.story(draft_id).attempts
    return Sent(house, draft_id, attempt.id, envid(house.settings.grant_ring(), draft_id, attempt.id))


@pytest.fixture(scope="module")
def sent_once(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    before = server.made()
    with RecordingRelay() as relay:
        house = House.build(tmp_path_factory.mktemp("sent"), relay)
        draft = house.approved()
        house.drain()
    server.keep_databases(before)
    return _sent(house, draft.id)


@pytest.fixture
def sent(sent_once: Sent, tmp_path: Path) -> Sent:
    """A house of its own, whose draft is completed."""
    house = sent_once.house.copied(tmp_path / "house", sent_once.house.relay)
    return replace(sent_once, house=house)


def report(
    about: str,
    *each: str,
    kind: str = 'multipart/report; report-type=delivery-status; boundary="b1"',
    text: str = "This is the mail system.",
    returned: str = "Subject: Offer\n",
    headers: str = "",
) -> bytes:
    """A report as an MTA would write it: `about` and `each` are its groups of fields."""
    groups = "\n\n".join(group.strip("\n") for group in (about, *each))
    return (
        f"Return-Path: <>\nFrom: Mail Delivery System <MAILER-DAEMON@mx.relay.example>\nTo: {BOUNCES}\n"
        f"Subject: Delivery report\nMessage-ID: <report@mx.relay.example>\nAuto-Submitted: auto-replied\n"
        f"MIME-Version: 1.0\n{headers}Content-Type: {kind}\n\n"
        f"--b1\nContent-Type: text/plain; charset=us-ascii\n\n{text}\n\n"
        f"--b1\nContent-Description: Delivery report\nContent-Type: message/delivery-status\n\n{groups}\n\n"
        f"--b1\nContent-Type: text/rfc822-headers\n\n{returned}\n--b1--\n"
    ).encode()


def simple(name: str, action: str = "failed", status: str = "5.1.1", address: str = JANE) -> bytes:
    """The least that counts."""
    return report(
        f"Reporting-MTA: dns; mx.relay.example\nOriginal-Envelope-Id: {name}",
        f"Final-Recipient: rfc822; {address}\nAction: {action}\nStatus: {status}\n",
    )


# As MTAs write them


def postfix(name: str) -> bytes:
    return report(
        f"""
Reporting-MTA: dns; mx.relay.example
Original-Envelope-Id: {name}
X-Postfix-Queue-ID: 4XyZab12Cd
X-Postfix-Sender: rfc822; {BOUNCES}
Arrival-Date: Fri, 15 Jan 2027 08:00:00 +0000 (UTC)
""",
        f"""
Final-Recipient: rfc822; {JANE}
Original-Recipient: rfc822;{JANE}
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.customer.example
Diagnostic-Code: smtp; 550 5.1.1 <{JANE}>: no such
    mailbox here
""",
    )


def postfix_success(name: str) -> bytes:
    return report(
        f"Reporting-MTA: dns; mx.relay.example\nOriginal-Envelope-Id: {name}\nX-Postfix-Queue-ID: 4XyZab12Cd\n",
        f"Final-Recipient: rfc822; {JANE}\nOriginal-Recipient: rfc822;{JANE}\nAction: relayed\nStatus: 2.0.0\n"
        "Remote-MTA: dns; mx.customer.example\nDiagnostic-Code: smtp; 250 2.0.0 Ok\n",
    )


def exim(name: str) -> bytes:
    kind = "multipart/report; report-type=delivery-status; boundary=b1"
    return report(
        f"Reporting-MTA: dns; mail.relay.example\nOriginal-Envelope-ID: {name}\n",
        f"Action: failed\nFinal-Recipient: rfc822;{JANE}\nStatus: 5.0.0\nRemote-MTA: dns; mx.customer.example\n"
        "Diagnostic-Code: smtp; 550 Unrouteable address\n",
        kind=kind,
        headers=f"X-Failed-Recipients: {JANE}\n",
    )


def exchange(name: str) -> bytes:
    kind = 'multipart/report; report-type=delivery-status;\n\tboundary="b1"'
    return report(
        f"Reporting-MTA: dns;EXCH01.relay.example\nOriginal-Envelope-Id: {name}\nReceived-From-MTA: dns;acme.example\n"
        "Arrival-Date: Fri, 15 Jan 2027 08:00:00 +0000\n",
        f"Original-Recipient: rfc822;{JANE}\nFinal-Recipient: rfc822;jd@inside.customer.example\nAction: delivered\n"
        "Status: 2.1.5\nX-Display-Name: Jane Doe\n",
        kind=kind,
    ).replace(b"\n", b"\r\n")


def global_report(name: str) -> bytes:
    octets = report(
        f"Reporting-MTA: dns; mx.relay.example\nOriginal-Envelope-Id: {name}\n",
        "Final-Recipient: utf-8; j\u00e4ne@customer.example\nAction: delayed (will be tried on)\nStatus: 4.4.1\n",
        kind='multipart/report; boundary="b1"; report-type="global-delivery-status"',
    )
    status = b"Content-Type: message/global-delivery-status\nContent-Transfer-Encoding: 8bit\n"
    return octets.replace(b"Content-Type: message/delivery-status\n", status)


def encoded(name: str) -> bytes:
    """As a gateway would leave it that encodes everything."""
    octets = simple(name, "delivered", "2.0.0")
    head, separator, rest = octets.partition(b"Content-Type: message/delivery-status\n\n")
    status, boundary, tail = rest.partition(b"\n--b1\n")
    inside = base64.encodebytes(status)
    return head + separator[:-1] + b"Content-Transfer-Encoding: base64\n\n" + inside + boundary + tail


def expanded(name: str) -> bytes:
    return report(
        f"Original-Envelope-Id:\n {name}\nReporting-MTA: dns; lists.example",
        f"Final-Recipient: rfc822; {JANE}\nAction: Delivered\nStatus: 2.1.5",
        f"Final-Recipient: rfc822; {JACK}\nAction: failed\nStatus: 5.2.2\nDiagnostic-Code: smtp; 552 full",
        "Final-Recipient: rfc822; jill@customer.example\nAction: vanished\nStatus: 5.0.0",
    )


@pytest.mark.parametrize(
    ("written", "detail"),
    [
        (
            postfix,
            f"failed to {JANE}: status 5.1.1 (smtp; 550 5.1.1 <{JANE}>: no such mailbox here); by MTA mx.relay.example",
        ),
        (postfix_success, f"relayed to {JANE}: status 2.0.0 (smtp; 250 2.0.0 Ok); by MTA mx.relay.example"),
        (exim, f"failed to {JANE}: status 5.0.0 (smtp; 550 Unrouteable address); by MTA mail.relay.example"),
        (exchange, f"delivered to {JANE}: status 2.1.5; by MTA EXCH01.relay.example"),
        (global_report, "delayed to j\u00e4ne@customer.example: status 4.4.1; by MTA mx.relay.example"),
        (encoded, f"delivered to {JANE}: status 2.0.0; by MTA mx.relay.example"),
        (
            expanded,
            f"failed to {JACK}: status 5.2.2 (smtp; 552 full); delivered to {JANE}: status 2.1.5; by MTA lists.example",
        ),
    ],
)
def test_a_report_under_our_envelope_id_is_evidence_that_the_draft_left(
    sent: Sent, written: Callable[[str], bytes], detail: str
) -> None:
    octets = written(sent.envid)
    sent.report(octets)
    assert sent.evidence() == [(sent.attempt_id, 1, detail)]
    assert written is encoded or sent.house.rows("SELECT octets FROM evidence") == [(octets,)]
    (reply,) = sent.house.replies()
    assert (reply.verdict, reply.counted, reply.draft_id) == ("unclear", False, sent.draft_id)
    assert reply.why == f"a delivery report: {detail}"
    assert sent.house.story(sent.draft_id).draft.state is State.COMPLETED
    assert len(sent.alerts()) == ("failed to" in detail)
    assert sent.house.rows("SELECT draft_id FROM journal WHERE action = 'evidence'") == [(sent.draft_id,)]


def test_a_report_is_taken_once_however_often_it_lies_there(sent: Sent) -> None:
    for _ in range(2):
        sent.report(simple(sent.envid))
        sent.house.inbox()
    assert len(sent.evidence()) == len(sent.house.replies()) == len(sent.alerts()) == 1


def test_the_operator_hears_once_that_a_draft_came_back_and_never_that_it_arrived(sent: Sent) -> None:
    sent.report(simple(sent.envid, "delivered", "2.0.0 (failed to smile)"))
    assert sent.alerts() == []
    for status in ("5.1.1", "5.1.2", "5.1.3"):
        sent.report(simple(sent.envid, "failed", status))
    assert len(sent.evidence()) == 4
    ((subject,),) = sent.alerts()
    assert f"it was sent, and came back: failed to {JANE}: status 5.1.1" in str(subject)


def test_a_draft_in_doubt_stays_so_with_the_report_beside_it(tmp_path: Path) -> None:
    with ScriptedRelay({Phase.DOT: [Fin()]}) as relay:
        house = House.build(tmp_path, relay)  # type: ignore[arg-type]
        draft = house.approved()
        house.drain()
    sent = _sent(house, draft.id)
    before = len(sent.alerts())
    sent.report(simple(sent.envid, "delivered", "2.0.0"))
    assert house.story(draft.id).draft.state is State.EXECUTING
    assert [found for _, found, _ in sent.evidence()] == [1]
    assert len(sent.alerts()) == before


def test_the_operator_hears_of_a_report_about_what_nobody_thinks_was_sent(house: House, relay: RecordingRelay) -> None:
    relay.refuse["DATA"] = "451 4.3.0 Later"
    draft = house.approved()
    house.drain()
    assert house.story(draft.id).draft.state is State.APPROVED
    sent = _sent(house, draft.id)
    for status in ("2.0.0", "2.1.5"):
        sent.report(simple(sent.envid, "delivered", status))
    ((subject,),) = sent.alerts()
    assert "it is approved, and by a delivery report it was sent: delivered to" in str(subject)


# What a stranger can write


def _flipped(name: str) -> str:
    return f"{name[:70]}{'A' if name[70] != 'A' else 'B'}{name[71:]}"


def _octets(name: str) -> bytes:
    return base64.urlsafe_b64decode(name.replace(".", ""))


def _spelt(octets: bytes) -> str:
    text = base64.urlsafe_b64encode(octets).decode()
    return ".".join((text[:32], text[32:64], text[64:]))


def _of_another_draft(sent: Sent) -> str:
    return _spelt(uuid.uuid4().bytes + _octets(sent.envid)[16:])


def _for_another_purpose(sent: Sent) -> str:
    ring = sent.house.settings.grant_ring()
    made = ring.sign(Purpose.SYSTEM, Submission(sent.draft_id, sent.attempt_id).canonical())
    return _spelt(_octets(sent.envid)[:-32] + made.octets)


@pytest.mark.parametrize(
    "forged",
    [
        lambda sent: _flipped(sent.envid),
        _of_another_draft,
        _for_another_purpose,
        lambda sent: envid(sent.house.settings.draft_ring(), sent.draft_id, sent.attempt_id),
        lambda sent: sent.envid[:-4],
        lambda sent: f"{sent.envid}AAAA",
        lambda sent: f"{sent.envid}\nOriginal-Envelope-Id: {sent.envid}",
        lambda sent: sent.draft_id,
        lambda _sent: "",
        lambda _sent: "\u00e4" * 96,
    ],
    ids=[
        "an octet flipped", "another draft", "another purpose", "the agent's key", "too short", "too long", "twice",
        "the draft's id alone", "nothing", "beyond ASCII",
    ],
)  # fmt: skip
def test_a_report_without_an_envelope_id_of_ours_is_left_as_it_is(sent: Sent, forged: Callable[[Sent], str]) -> None:
    sent.report(simple(forged(sent)))
    assert sent.left_alone()


def _gmail(sent: Sent) -> bytes:
    return report(
        "Reporting-MTA: dns; mail.relay.example\nReceived-From-MTA: dns; sales@acme.example\n"
        "Arrival-Date: Fri, 15 Jan 2027 08:00:00 -0000\nX-Original-Message-ID: <1@acme.example>",
        f"Final-Recipient: rfc822; {JANE}\nAction: failed\nStatus: 5.1.1\nRemote-MTA: dns; mx.customer.example\n"
        "Diagnostic-Code: smtp; 550-5.1.1 no such account\n",
        returned=f"X-Outbox-Draft: {sent.draft_id}\nSubject: Offer\n",
    )


def _in_the_words(sent: Sent) -> bytes:
    line = f"Original-Envelope-Id: {sent.envid}\n"
    return report("Reporting-MTA: dns; mx.relay.example", "Action: failed\nStatus: 5.0.0", text=line, returned=line)


def _in_a_recipients_group(sent: Sent) -> bytes:
    return report("Reporting-MTA: dns; mx.relay.example", f"Original-Envelope-Id: {sent.envid}\nAction: failed")


def _inside_a_message(sent: Sent) -> bytes:
    inner = simple(sent.envid).decode().replace("b1", "b2")
    whole = report("Reporting-MTA: dns; mx.relay.example", "Action: failed", returned=inner)
    return whole.replace(b"text/rfc822-headers", b"message/rfc822")


def _two_statuses(sent: Sent) -> bytes:
    octets = simple(sent.envid)
    start = octets.index(b"--b1\nContent-Description")
    return octets[:start] + octets[start : octets.index(b"--b1\nContent-Type: text/rfc822")] + octets[start:]


def _under_deep_nesting(sent: Sent) -> bytes:
    inner = simple(sent.envid)
    for depth in range(100):
        inner = b"Content-Type: multipart/mixed; boundary=n%d\n\n--n%d\n" % (depth, depth) + inner
    return (
        b"From: a@b.example\nContent-Type: multipart/report; report-type=delivery-status; boundary=q\n\n--q\n" + inner
    )


def _behind_much_text(sent: Sent) -> bytes:
    return report(f"Original-Envelope-Id: {sent.envid}", "Action: failed", text="x" * 70 + "\n" * delivery.LARGEST_READ)


@pytest.mark.parametrize(
    "written",
    [
        _gmail, _in_the_words, _in_a_recipients_group, _inside_a_message, _two_statuses, _under_deep_nesting,
        _behind_much_text,
        lambda sent: report(f"Original-Envelope-Id: {sent.envid}"),
        lambda sent: report(f"Original-Envelope-Id: {sent.envid}", "Action: danced\nStatus: 2.0.0"),
        lambda sent: simple(sent.envid).replace(b"=delivery-status", b"=disposition-notification"),
        lambda sent: simple(sent.envid).replace(b"multipart/report", b"multipart/mixed"),
        lambda sent: simple(sent.envid).replace(b"MIME-Version", b"Content-Type: text/plain\nMIME-Version"),
    ],
    ids=[
        "as Gmail writes them, with headers of ours", "in words and returned headers", "in a recipient's group",
        "inside a message", "two statuses", "nested", "behind much text", "nobody", "no action that is known",
        "another report", "no report", "two types",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_report_is_left_as_it_is(sent: Sent, written: Callable[[Sent], bytes]) -> None:
    sent.report(written(sent))
    assert sent.left_alone()


def test_a_report_about_a_draft_that_this_database_does_not_know_is_left_as_it_is(sent: Sent) -> None:
    sent.report(simple(envid(sent.house.settings.grant_ring(), str(uuid.uuid4()), sent.attempt_id)))
    assert sent.left_alone()


def test_a_report_about_an_attempt_that_this_database_does_not_know_is_the_drafts(sent: Sent) -> None:
    sent.report(simple(envid(sent.house.settings.grant_ring(), sent.draft_id, str(uuid.uuid4())), "delivered", "2.0.0"))
    assert sent.evidence() == [(None, 1, f"delivered to {JANE}: status 2.0.0; by MTA mx.relay.example")]


def test_what_is_kept_is_short_printable_and_holds_no_token(sent: Sent) -> None:
    token = "a2" * 20
    octets = simple(sent.envid, status=f"5.0.0 \x1b[31m {token} {'y' * 5000}")
    sent.report(octets + b"z " * LARGEST_KEPT)
    ((_, _, detail),) = sent.evidence()
    ((kept,),) = sent.house.rows("SELECT octets FROM evidence")
    assert isinstance(detail, str)
    assert isinstance(kept, bytes)
    assert detail.startswith(f"failed to {JANE}: status 5.0.0  [31m (token) (token)".replace("  ", " "))
    assert detail.isprintable()
    assert len(detail) <= 1000
    assert len(kept) <= LARGEST_KEPT
    assert token.encode() not in kept


def test_whoever_has_an_envelope_id_cannot_fill_the_database_with_reports(sent: Sent) -> None:
    for number in range(MOST_REPORTS + 2):
        sent.house.deliver(simple(sent.envid, "delivered", f"2.0.{number}"))
    sent.house.inbox()
    assert len(sent.evidence()) == len(sent.house.replies()) == MOST_REPORTS


# The envelope id and the parser by themselves


def test_an_envelope_id_is_short_plain_and_one_spelling() -> None:
    name = envid(RING, DRAFT, ATTEMPT)
    assert len(name) == 98  # RFC 3461 4.4: at most 100
    assert without_tokens(name) == name
    assert name.isascii()
    assert not set(name) & set("+= \r\n")
    assert verified_envid(RING, name) == Submission(DRAFT, ATTEMPT)
    for other in (f"{name[:-1]}!", f" {name}", f"{name}\n", name.swapcase(), name.replace(".", ""), f"{name}===="):
        assert split_envid(other) is None or verified_envid(RING, other) is None


def test_an_envelope_id_outlives_the_rotation_of_its_key_and_not_its_retirement() -> None:
    name = envid(KeyRing([b"o" * 32]), DRAFT, ATTEMPT)
    assert verified_envid(RING, name) == Submission(DRAFT, ATTEMPT)
    assert verified_envid(KeyRing([b"n" * 32]), name) is None


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("multipart/report; report-type=delivery-status; boundary=x", True),
        ('Multipart/Report ; boundary="a;b"; Report-Type="delivery-status"', True),
        ("multipart/report; boundary=x; report-type=global-delivery-status", True),
        ("multipart/report; boundary=x; report-type=delivery-status-2", False),
        ("multipart/report; boundary=x", False),
        ("multipart/mixed; report-type=delivery-status", False),
        ("multipart/report" + "; report-type" * 50_000, False),
    ],
)
def test_a_report_is_known_by_its_content_type(content_type: str, expected: bool) -> None:
    assert is_delivery_report(content_type) is expected


@given(octets=st.binary(max_size=300), cut=st.integers(0, 900), put=st.integers(0, 900))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_no_octets_make_the_parser_fail(octets: bytes, cut: int, put: int) -> None:
    whole = simple(envid(RING, DRAFT, ATTEMPT))
    parse_report(octets)
    parse_report(whole[:put] + octets + whole[put + cut :])
