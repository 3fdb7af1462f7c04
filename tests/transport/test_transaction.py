"""What one transaction says and keeps: recipients together, queue ids, what the relay cannot take, cancellation."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from outbox.core.draft import Envelope
from outbox.transport.outcome import Accepted, NotSent, Outcome, Refused
from tests.relay.scripted import EXTENSIONS, PATIENCE, Fin, Hold, Keep, Phase, Say, ScriptedRelay
from tests.relay.submission import (
    ENVELOPE,
    JACK,
    JANE,
    LARGE,
    OCTETS,
    SENDER,
    entered,
    send_and_leave,
    submit,
    transport_to,
)

JILL = "jill@customer.example"
THREE = Envelope(SENDER, (JANE,), (JACK,), (JILL,))
NOBODY = Say(b"550 5.1.1 Nobody\r\n")
LATER = Say(b"451 4.7.1 Greylisted\r\n")
LEAVING = Say(b"421 4.3.2 Going down\r\n")


def _assert_no_data_is_ended(relay: ScriptedRelay) -> None:
    (seen,) = relay.seen
    assert seen.dots == 0
    assert not seen.commands_in_body
    unheard = {"QUIT"} if "PIPELINING" in relay.extensions else {"DATA"}
    assert not {"RSET", *unheard} & set(seen.verbs)


def test_one_recipient_refused_for_good_refuses_all_for_good(extensions: tuple[str, ...]) -> None:
    with ScriptedRelay({JACK: [NOBODY], JILL: [LATER]}, extensions=extensions) as relay:
        outcome = submit(transport_to(relay.port), envelope=THREE)
        relay.wait_until_over()
        assert isinstance(outcome, Refused)
        assert not outcome.transient
        assert outcome.reply.code == 550
        assert [(heard.address, heard.reply.code) for heard in outcome.heard] == [(JANE, 250), (JACK, 550), (JILL, 451)]
        assert relay.messages == []
        _assert_no_data_is_ended(relay)


def test_one_recipient_refused_for_now_defers_all(extensions: tuple[str, ...]) -> None:
    with ScriptedRelay({JILL: [LATER]}, extensions=extensions) as relay:
        outcome = submit(transport_to(relay.port), envelope=THREE)
        relay.wait_until_over()
        assert isinstance(outcome, Refused)
        assert outcome.transient
        assert outcome.reply.enhanced == "4.7.1"
        assert [heard.reply.code for heard in outcome.heard] == [250, 250, 451]
        assert relay.messages == []
        _assert_no_data_is_ended(relay)


@pytest.mark.parametrize("fault", [[Fin()], [LEAVING, Fin()], [Say(b"354 Go\r\n")]], ids=["FIN", "421", "354"])
def test_a_relay_that_fails_at_the_last_recipient_got_nothing(
    fault: list[Say | Fin], extensions: tuple[str, ...]
) -> None:
    with ScriptedRelay({JILL: fault}, extensions=extensions) as relay:
        outcome = submit(transport_to(relay.port), envelope=THREE)
        relay.wait_until_over()
        assert isinstance(outcome, (NotSent, Refused))
        assert outcome.transient
        assert relay.messages == []
        _assert_no_data_is_ended(relay)


def test_every_recipient_gets_one_message_and_its_reply_is_kept(extensions: tuple[str, ...]) -> None:
    with ScriptedRelay({JACK: [Say(b"251 2.1.5 will forward\r\n")]}, extensions=extensions) as relay:
        outcome = submit(transport_to(relay.port), envelope=THREE)
        relay.wait_until_over()
        assert isinstance(outcome, Accepted)
        assert [(heard.address, heard.reply.code) for heard in outcome.heard] == [(JANE, 250), (JACK, 251), (JILL, 250)]
        assert [sent.recipients for sent in relay.messages] == [(JANE, JACK, JILL)]


@pytest.mark.parametrize(
    ("reply", "queue_id"),
    [
        (b"250 2.0.0 Ok: queued as 4C9Xyz1Kz2\r\n", "4C9Xyz1Kz2"),
        (b"250 OK id=1tABcd-0000000Ab1-2xYz\r\n", "1tABcd-0000000Ab1-2xYz"),
        (b"250 Requested mail action okay, completed: id=0M8gGt-1uCnW93xzD-00wH3A\r\n", "0M8gGt-1uCnW93xzD-00wH3A"),
        (b"250-2.0.0 Thanks\r\n250 2.0.0 Ok: queued as 9F00D\r\n", "9F00D"),
        (b"250 2.0.0 Ok: queued as 9F00D.\r\n", "9F00D"),
        (b"250 2.0.0 Ok\r\n", None),
        (b"250\r\n", None),
    ],
)
def test_the_relays_queue_id_is_read_out_of_its_reply(reply: bytes, queue_id: str | None) -> None:
    with ScriptedRelay({Phase.DOT: [Keep(), Say(reply)]}) as relay:
        outcome = submit(transport_to(relay.port))
        assert isinstance(outcome, Accepted)
        assert outcome.queue_id == queue_id


def test_a_reply_is_kept_on_one_line_and_without_control_characters() -> None:
    reply = b"550-5.7.1 Not\x1b[2J you\r\n550 5.7.1 ung\xc3\xbcltig \xff\r\n"
    with ScriptedRelay({Phase.DOT: [Say(reply)]}) as relay:
        outcome = submit(transport_to(relay.port))
        assert isinstance(outcome, Refused)
        assert outcome.reply.enhanced == "5.7.1"
        assert outcome.reply.text.isprintable()
        assert "ungültig" in outcome.reply.text


EIGHT_BIT = OCTETS + "Grüße\r\n".encode()
INTERNATIONAL = replace(ENVELOPE, to=("jürgen@customer.example",))


def _without(name: str) -> tuple[str, ...]:
    return tuple(offer for offer in EXTENSIONS if not offer.startswith(name))


@pytest.mark.parametrize(
    ("extensions", "envelope", "octets"),
    [
        (_without("8BITMIME"), ENVELOPE, EIGHT_BIT),
        (_without("SMTPUTF8"), INTERNATIONAL, OCTETS),
        ((*_without("SIZE"), f"SIZE {len(OCTETS) - 1}"), ENVELOPE, OCTETS),
    ],
    ids=["8BITMIME", "SMTPUTF8", "SIZE"],
)
def test_what_a_relay_cannot_take_fails_for_good_without_mail(
    extensions: tuple[str, ...], envelope: Envelope, octets: bytes
) -> None:
    with ScriptedRelay(extensions=extensions) as relay:
        outcome = submit(transport_to(relay.port), envelope=envelope, octets=octets)
        relay.wait_until_over()
        assert isinstance(outcome, NotSent)
        assert not outcome.transient
        assert not outcome.halt
        assert relay.seen[0].verbs == ["EHLO", "QUIT"]


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", f"SIZE {len(OCTETS)}", "SIZE unlimited"])
def test_a_size_that_names_no_limit_below_the_message_lets_it_through(size: str) -> None:
    with ScriptedRelay(extensions=(*_without("SIZE"), size)) as relay:
        assert isinstance(submit(transport_to(relay.port)), Accepted)


def test_mail_says_what_the_message_needs_where_the_relay_offers_it() -> None:
    with ScriptedRelay() as relay:
        outcome = submit(transport_to(relay.port), envelope=INTERNATIONAL, octets=EIGHT_BIT)
        relay.wait_until_over()
        assert isinstance(outcome, Accepted)
        assert b"MAIL FROM:<%s> SIZE=%d BODY=8BITMIME SMTPUTF8" % (SENDER.encode(), len(EIGHT_BIT)) in (
            relay.seen[0].commands
        )
        assert relay.messages[0].octets == EIGHT_BIT
        assert relay.messages[0].recipients == INTERNATIONAL.recipients


def test_a_relay_without_extensions_gets_the_plainest_mail() -> None:
    with ScriptedRelay(extensions=()) as relay:
        assert isinstance(submit(transport_to(relay.port)), Accepted)
        relay.wait_until_over()
        assert b"MAIL FROM:<%s>" % SENDER.encode() in relay.seen[0].commands


async def _cancelled_while_held(relay: ScriptedRelay, octets: bytes) -> Outcome | None:
    login = relay.login or ("", "")
    sending = asyncio.create_task(send_and_leave(transport_to(relay.port, timeout=2, login=login), octets=octets))
    await asyncio.to_thread(relay.wait_until_holding)
    sending.cancel()
    try:
        return await sending
    except asyncio.CancelledError:
        return None
    finally:
        relay.release()
        await asyncio.to_thread(relay.wait_until_over)


@pytest.mark.parametrize("phase", [Phase.GREETING, Phase.EHLO, Phase.AUTH])
def test_an_attempt_that_is_cancelled_while_it_connects_leaves_nothing_behind(phase: Phase) -> None:
    with ScriptedRelay({phase: [Hold()]}, login=("sales", "pw")) as relay:
        outcome = asyncio.run(_cancelled_while_held(relay, OCTETS))
        assert outcome is None or isinstance(outcome, NotSent)  # aiosmtplib's wait_for loses some before Python 3.12
        assert relay.messages == []
        assert "MAIL" not in relay.seen[0].verbs


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY])
def test_an_attempt_that_is_cancelled_before_the_gap_ends_at_once_and_leaves_nothing_behind(
    phase: Phase, extensions: tuple[str, ...]
) -> None:
    with ScriptedRelay({phase: [Hold()]}, extensions=extensions) as relay:
        assert asyncio.run(_cancelled_while_held(relay, LARGE)) is None
        assert relay.messages == []
        assert relay.seen[0].dots == 0
        assert not relay.seen[0].commands_in_body
        assert "QUIT" not in relay.seen[0].verbs


def test_an_attempt_cancelled_while_it_enters_the_gap_writes_no_dot() -> None:
    async def cancelled_in_the_gap(relay: ScriptedRelay) -> None:
        waiting = asyncio.Event()

        async def never() -> None:
            waiting.set()
            await asyncio.Event().wait()

        sending = asyncio.create_task(transport_to(relay.port).send(ENVELOPE, OCTETS, never))
        await waiting.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.to_thread(relay.wait_until_over)

    with ScriptedRelay() as relay:
        asyncio.run(cancelled_in_the_gap(relay))
        assert relay.messages == []
        assert relay.seen[0].dots == 0


def test_a_cancelled_wait_for_the_reply_to_the_dot_ends_the_connection() -> None:
    with ScriptedRelay({Phase.DOT: [Keep(), Hold()]}, kept=True) as relay:
        assert asyncio.run(_cancelled_while_held(relay, OCTETS)) is None
        assert len(relay.messages) == 1  # so whoever cancelled must not call it unsent


@pytest.mark.parametrize("actions", [[Hold()], [Fin()], [Say(b"%$!\r\n")]], ids=["nothing", "FIN", "garbage"])
@pytest.mark.parametrize(("dot", "outcome"), [(b"250 2.0.0 Ok\r\n", Accepted), (b"550 5.7.1 No\r\n", Refused)])
def test_what_was_heard_of_the_message_stands_whatever_becomes_of_quit(
    actions: list[Say | Hold | Fin], dot: bytes, outcome: type[Outcome]
) -> None:
    with ScriptedRelay({Phase.DOT: [Say(dot)], Phase.QUIT: actions}, kept=True) as relay:
        assert isinstance(submit(transport_to(relay.port)), outcome)


def test_leaving_waits_for_no_answer_to_quit() -> None:
    async def left(relay: ScriptedRelay) -> Outcome:
        transport = transport_to(relay.port)
        heard = await transport.send(ENVELOPE, OCTETS, entered)
        async with asyncio.timeout(PATIENCE / 2):  # it holds for longer
            await transport.close()
        await asyncio.to_thread(relay.wait_until_holding)
        return heard

    with ScriptedRelay({Phase.QUIT: [Hold()]}, kept=True) as relay:
        assert isinstance(asyncio.run(left(relay)), Accepted)
        assert relay.seen[0].verbs[-1] == "QUIT"


def test_the_password_is_in_no_repr() -> None:
    transport = transport_to(25, login=("sales", "correct horse"))
    assert "horse" not in repr(transport)
    assert "horse" not in repr(vars(transport))
