"""Every fault of a relay at every step, against a real worker: each ends as the table of outcomes says, and once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from outbox.core.errors import Code, Unavailable
from outbox.core.lifecycle import State
from outbox.drafter.intake import Wanted
from tests.crash.faults_table import Tally, write
from tests.faults import dice as dice_of
from tests.faults.shapes import (
    BOTH,
    Fault,
    Meaning,
    faults_in_connecting,
    faults_in_steps,
    garbled_in_connecting,
)
from tests.faults.truth import assert_the_promises_hold, draft_and_approve, rows_of
from tests.house import HOUR, House
from tests.relay.adversary import EXTENSIONS, ONE_AT_A_TIME, Adversary, Fin, Phase, Say, Script, complete
from tests.relay.certificate import Certificate, make_certificate
from tests.seeds import seeds
from tests.worker.hand import codes

PATIENT = 20  # seconds: no reply here takes so long, however busy the machine
STATES = {
    "accepted": State.COMPLETED,
    "refused_transient": State.APPROVED,
    "refused_permanent": State.FAILED,
    "not_sent": State.APPROVED,
    "in_doubt": State.EXECUTING,
}


def build(folder: Path, relay: Adversary, *, timeout: int = PATIENT, final_timeout: int = PATIENT) -> House:
    """A house with many lanes, to which the limits are not what is tried."""
    house = House.build(folder, relay)  # type: ignore[arg-type]
    house.set("thermal", count="100000")
    house.set("thermal.system", count="100000")
    house.set("relay", lanes="40", retry="[60]", timeout=str(timeout), final_timeout=str(final_timeout))
    return house


def drafts_for(house: House, faults: Sequence[Fault]) -> list[str]:
    """One draft a fault; the relay knows it by its sender."""
    return draft_and_approve(
        house,
        [
            Wanted(sender=sender_of(number), to=fault.recipients, subject=fault.name, text="Dear Jane,\n\nhere it is.")
            for number, fault in enumerate(faults)
        ],
    )


def sender_of(number: int) -> str:
    return f"n{number}@acme.example"


def first_attempts(house: House) -> dict[str, tuple[str, int | None, State]]:
    """How the only attempt at each draft ended, and where the draft is."""
    found = house.rows(
        "SELECT d.id, a.outcome, a.code, d.state FROM drafts d JOIN attempts a ON a.draft_id = d.id "
        "WHERE d.kind <> 'system' AND a.phase = 'done'"
    )
    assert len({draft_id for draft_id, *_ in found}) == len(found)
    return {str(row[0]): (str(row[1]), row[2], State(str(row[3]))) for row in found}  # type: ignore[misc]


def meant(fault: Fault, number: int, relay: Adversary) -> tuple[str, int | None, State]:
    meaning = fault.meaning
    if fault.unless_dotted is not None and relay.dots_of(sender_of(number)) == 0:
        meaning = fault.unless_dotted
    return meaning.outcome, meaning.code, STATES[meaning.outcome]


# A login that fails leaves asyncio a TLS transport to collect, where the loop ends before its goodbye.
UNCOLLECTED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def drain_in_health(house: House) -> None:
    """An hour later, with a relay that is well."""
    house.set("relay", timeout=str(PATIENT), final_timeout=str(PATIENT))
    house.clock.advance(HOUR)
    house.drain()


GROUPS = {
    "told at once": (lambda fault: not fault.hangs, {}),
    "hanging before the dot": (lambda fault: fault.hangs and fault.meaning.outcome == "not_sent", {"timeout": 1}),
    "hanging at the dot": (lambda fault: fault.hangs and fault.meaning.outcome != "not_sent", {"final_timeout": 1}),
}


@pytest.mark.parametrize("extensions", [EXTENSIONS, ONE_AT_A_TIME], ids=["pipelined", "one_at_a_time"])
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.replace(" ", "_"))
def test_each_fault_from_mail_on_ends_as_the_table_says_and_is_sent_once(
    tmp_path: Path, group: str, extensions: tuple[str, ...]
) -> None:
    chosen, timeouts = GROUPS[group]
    faults = [fault for fault in faults_in_steps() if chosen(fault)]
    tally = Tally("relay faults", faults=len(faults))
    senders = {sender_of(n): [fault.script] for n, fault in enumerate(faults)}
    with Adversary(senders=senders, extensions=extensions) as relay:
        house = build(tmp_path, relay, **timeouts)
        drafts = drafts_for(house, faults)
        house.drain()
        relay.settle()
        ended = first_attempts(house)
        found = {fault.name: ended[draft_id] for fault, draft_id in zip(faults, drafts, strict=True)}
        assert found == {fault.name: meant(fault, number, relay) for number, fault in enumerate(faults)}
        drain_in_health(house)
        relay.settle()
        assert_the_promises_hold(house, relay, tally)
        assert not [row for row in rows_of(house) if row.state is State.APPROVED]
        assert not [line for seen in relay.seen for line in seen.commands_in_body]
    write([tally])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"), "IP:127.0.0.1")


def secured(house: House, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, password: str = "right") -> None:
    """STARTTLS and a login, with a certificate that the system of this test trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    (house.folder / "password").write_text(password)
    (house.folder / "password").chmod(0o600)
    house.set("relay", security='"starttls"', username='"sales"', password_file='"password"')


@UNCOLLECTED
@pytest.mark.parametrize("hangs", [False, True], ids=["told_at_once", "hanging"])
def test_each_passing_fault_before_mail_defers_and_is_sent_once(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    faults = [fault for fault in faults_in_connecting() if fault.hangs == hangs]
    tally = Tally("relay faults", faults=len(faults))
    scripts = [fault.script for fault in faults]
    with Adversary(*scripts, tls=certificate.server(), login=("sales", "right")) as relay:
        house = build(tmp_path, relay, **({"timeout": 1} if hangs else {}))
        secured(house, certificate, monkeypatch)
        drafts_for(house, faults)
        house.drain()
        relay.settle()
        assert relay.messages == []
        assert not [seen for seen in relay.seen if "MAIL" in seen.verbs]
        ended = Counter(first_attempts(house).values())
        assert ended == Counter((fault.meaning.outcome, fault.meaning.code, State.APPROVED) for fault in faults)
        assert codes(house) == []
        drain_in_health(house)
        relay.settle()
        assert_the_promises_hold(house, relay, tally)
        assert {row.state for row in rows_of(house)} == {State.COMPLETED}
    write([tally])


@UNCOLLECTED
def test_what_is_no_smtp_before_mail_burns_nothing_and_is_sent_once(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = garbled_in_connecting()
    tally = Tally("relay faults", faults=len(faults))
    scripts = [fault.script for fault in faults]
    with Adversary(*scripts, tls=certificate.server(), login=("sales", "right")) as relay:
        house = build(tmp_path, relay)
        secured(house, certificate, monkeypatch)
        drafts_for(house, faults)
        while relay.connections < len(faults):
            before = relay.connections
            with suppress(Unavailable):  # some of it opens the circuit, which a new worker knows nothing of
                house.drain()
            assert relay.connections > before
            house.clock.advance(HOUR)
        assert {outcome for row in rows_of(house) for outcome in row.outcomes} <= {"not_sent", "accepted"}
        drain_in_health(house)
        relay.settle()
        assert_the_promises_hold(house, relay, tally)
        assert {row.state for row in rows_of(house)} == {State.COMPLETED}
    write([tally])


REFUSALS: dict[str, tuple[Script, int]] = {
    "greeting: 554": ({Phase.GREETING: [complete(554, "5.3.2 Not for you")]}, 554),
    "EHLO: 550": ({Phase.EHLO: [complete(550, "5.7.1 Not for you")]}, 550),
    "STARTTLS: 500": ({Phase.STARTTLS: [complete(500, "5.5.1 What?")]}, 500),
    "AUTH: 535": ({Phase.AUTH: [complete(535, "5.7.8 Not you")]}, 535),
    "AUTH: 534 in two lines": ({Phase.AUTH: [complete(534, "5.7.9 Too", "5.7.9 weak")]}, 534),
}


@UNCOLLECTED
@pytest.mark.parametrize("refusal", seeds(REFUSALS, 2), ids=lambda name: name.replace(" ", "_"))
def test_a_relay_that_refuses_everything_opens_the_circuit_once_and_burns_nothing(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    script, code = REFUSALS[refusal]
    drafts, lanes = 6, 2
    with Adversary(*[script] * lanes, tls=certificate.server(), login=("sales", "right")) as relay:
        house = build(tmp_path, relay)
        secured(house, certificate, monkeypatch)
        house.set("relay", lanes=str(lanes))
        drafts_for(house, [Fault(refusal, {}, Meaning("not_sent"))] * drafts)
        with pytest.raises(Unavailable) as refused:
            house.drain()
        assert refused.value.code is Code.CIRCUIT_OPEN
        assert codes(house) == ["circuit_open"]
        assert set(first_attempts(house).values()) == {("not_sent", code, State.APPROVED)}
        assert 1 <= len(first_attempts(house)) <= lanes
        assert {row.state for row in rows_of(house)} == {State.APPROVED}
        assert relay.messages == []
        tally = Tally("relay refuses everything", faults=relay.connections)
        drain_in_health(house)
        relay.settle()
        assert_the_promises_hold(house, relay, tally)
        assert {row.state for row in rows_of(house)} == {State.COMPLETED}
    write([tally])


@UNCOLLECTED
@pytest.mark.parametrize("phase", [Phase.GREETING, Phase.AUTH])
@pytest.mark.parametrize("said", [b"421 4.3.2 occup\xe9\r\n", b"\xff\xfe\r\n", b"421 \x1b[2J\x00\r\n"], ids=ascii)
def test_words_before_mail_in_any_octets_are_stored(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, phase: Phase, said: bytes
) -> None:
    script: Script = {phase: [Say(said), Fin()]}
    with Adversary(script, tls=certificate.server(), login=("sales", "right")) as relay:
        house = build(tmp_path, relay)
        secured(house, certificate, monkeypatch)
        (draft_id,) = drafts_for(house, [Fault("words", {}, Meaning("not_sent"))])
        house.drain()
        story = house.story(draft_id)
        assert story.draft.state is State.APPROVED
        (attempt,) = story.attempts
        assert (attempt.outcome, attempt.code) == ("not_sent", 421 if said.startswith(b"421") else None)
        assert str(attempt.text).isprintable()


@UNCOLLECTED
def test_a_relay_that_offers_no_login_any_more_gets_no_mail(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Adversary(tls=certificate.server()) as relay:
        house = build(tmp_path, relay)
        secured(house, certificate, monkeypatch)
        drafts_for(house, [Fault("AUTH stripped", {}, Meaning("not_sent"))] * 3)
        with pytest.raises(Unavailable):
            house.drain()
        relay.settle()
        assert codes(house) == ["circuit_open"]
        assert {row.state for row in rows_of(house)} == {State.APPROVED}
        assert not [seen for seen in relay.seen if "MAIL" in seen.verbs]


# What chance makes


def predicted(faults: Sequence[Fault]) -> list[tuple[str, int | None]]:
    """How the attempts at one draft end, the relay being well after the last fault."""
    ended = []
    for fault in faults:
        ended.append((fault.meaning.outcome, fault.meaning.code))
        if STATES[fault.meaning.outcome] is not State.APPROVED:
            return ended
    return [*ended, ("accepted", 250)]


def transactions(house: House) -> dict[str, list[tuple[str, int | None]]]:
    """How each attempt that came as far as MAIL ended, by draft and in order."""
    found: dict[str, list[tuple[str, int | None]]] = {}
    for draft_id, outcome, code, text in house.rows(
        "SELECT a.draft_id, a.outcome, a.code, a.text FROM attempts a JOIN drafts d ON d.id = a.draft_id "
        "WHERE d.kind <> 'system' ORDER BY a.started_at"
    ):
        if not str(text).startswith("127.0.0.1:"):
            found.setdefault(str(draft_id), []).append((str(outcome), code))  # type: ignore[arg-type]
    return found


@UNCOLLECTED
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", seeds(map(str, range(12)), 12))
def test_whatever_a_relay_says_each_attempt_ends_as_the_table_says(tmp_path: Path, seed: str) -> None:
    dice = random.Random(int(seed))
    count = 100 if int(seed) else 30
    met = dice_of.faults(dice, count)
    tally = Tally("random relay faults", faults=sum(map(len, met)))
    scripts = [dice_of.connection(dice) for _ in range(3 * count)]
    senders = {sender_of(n): [fault.script for fault in faults] for n, faults in enumerate(met)}
    with Adversary(*scripts, senders=senders, extensions=(EXTENSIONS, ONE_AT_A_TIME)[int(seed) % 2]) as relay:
        house = build(tmp_path, relay)
        drafts = drafts_for(house, [Fault("by chance", {}, Meaning(""), recipients=BOTH)] * count)
        while [row for row in rows_of(house) if row.state is State.APPROVED]:
            house.drain()
            house.clock.advance(HOUR)
        relay.settle()
        ended = transactions(house)
        assert [ended[draft_id] for draft_id in drafts] == [predicted(faults) for faults in met]
        assert_the_promises_hold(house, relay, tally)
    write([tally])


@UNCOLLECTED
@pytest.mark.torture
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(100, 104))
def test_wherever_a_relay_hangs_nothing_is_sent_twice_or_lost(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    count = 100
    met = [[dice_of.hanging(dice), *faults] for faults in dice_of.faults(dice, count)]
    tally = Tally("random relay faults", faults=sum(map(len, met)))
    senders = {sender_of(n): [fault.script for fault in faults] for n, faults in enumerate(met)}
    with Adversary(senders=senders, extensions=(EXTENSIONS, ONE_AT_A_TIME)[seed % 2]) as relay:
        house = build(tmp_path, relay, timeout=1, final_timeout=1)
        drafts_for(house, [Fault("by chance", {}, Meaning(""), recipients=BOTH)] * count)
        while [row for row in rows_of(house) if row.state is State.APPROVED]:
            house.drain()
            house.clock.advance(HOUR)
        relay.settle()
        assert_the_promises_hold(house, relay, tally)
    write([tally])
