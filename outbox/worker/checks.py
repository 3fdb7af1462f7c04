"""Whether the relay lets the worker in, and what it offers. No MAIL command, but for the one test that is asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from typing import assert_never

from outbox.agreement import disagreement
from outbox.clock import Clock, new_id, wall
from outbox.config import Settings
from outbox.core.draft import DAY, MICROSECONDS, Envelope
from outbox.core.errors import ConfigError, OutboxError
from outbox.core.finding import Finding, failed, without_forms, without_secrets
from outbox.core.lifecycle import Room
from outbox.core.message import date_line
from outbox.core.notice import Notice, sign_notice
from outbox.store.engine import connect
from outbox.transport.outcome import Accepted, InDoubt, NotSent, Outcome, Refused
from outbox.transport.smtp import Examined, GapEntered, Relay, SmtpTransport, boottime
from outbox.worker.submission import relay_of
from outbox.worker.verification import Verifier

PATIENCE = 10  # seconds for each step of the conversation
_DOT_PATIENCE = 60  # seconds for the reply to the test message's final dot
_SOON = 14  # days before a certificate ends
_TTL = 3600 * MICROSECONDS
_WANTED = ("SIZE", "PIPELINING", "8BITMIME", "SMTPUTF8", "DSN")
_ADVICE = (  # what stands in a failure's words, and what to do about it
    ("login", "look at relay.username and relay.password_file; many providers want a password made for one app"),
    ("certificate", "relay.host is to be the name in its certificate, and the clock right; till then nothing is sent"),
    ("STARTTLS", 'where it has a port for TLS alone, set relay.port = 465 and relay.security = "tls"'),
)
_UNREACHED = "look at relay.host, relay.port and relay.security, and at what lies between here and there"
_NOT_TESTED = Finding("relay-test", False, "no test message was sent", "mend what failed above, and ask for it again")
_TEST = """\
This is a test message. `outbox doctor --send-test` sent it from {sender}.

The relay {host}:{port} takes mail from this outbox. Nothing waits for an answer to this message.
"""


def check(
    settings: Settings, *, send_test: bool = False, clock: Clock = wall, tls: ssl.SSLContext | None = None
) -> Iterator[Finding]:
    """Look at the relay; with `send_test`, send one message to the first operator.

    `tls` is for a relay whose certificate the system does not trust.
    """
    if not (settings.has_key("draft") and settings.has_key("grant")):
        words = "not looked at: run `outbox doctor` as the user of the worker, who has both keys and the relay's login"
        yield Finding("relay", None, words)
        if send_test:
            yield _NOT_TESTED
        return
    yield from _settings(settings)
    try:
        relay = relay_of(settings, patience=PATIENCE, dot_patience=_DOT_PATIENCE)
    except ConfigError as error:
        yield failed("relay", error, "the worker does not start without it")
        if send_test:
            yield _NOT_TESTED
        return
    transport = SmtpTransport(relay, tls=tls)
    examined = asyncio.run(transport.examine())
    if isinstance(examined, NotSent):
        yield _unreached(relay, examined)
    else:
        yield from _reached(settings, relay, examined, clock())
    if send_test:
        yield _NOT_TESTED if isinstance(examined, NotSent) else _test(settings, relay, transport, clock())


def _settings(settings: Settings) -> Iterator[Finding]:
    """Everything but the relay that the worker does not start without."""
    needed: tuple[Callable[[], object], ...] = (settings.rings, settings.rules, lambda: settings.approvers)
    wrong = False
    for read in needed:
        try:
            read()
        except ConfigError as error:
            wrong = True
            yield failed("worker", error, "the worker does not start without it")
    if not wrong:
        yield _ledger(settings)
        yield Finding("worker", True, "its keys, policy.from_domains and approval.approvers are there")


def _ledger(settings: Settings) -> Finding:
    """Whether a worker would start with the ledger that is there, and this database."""
    try:
        database = connect(settings.database_place, Room.WORKER)
        try:
            why: OutboxError | None = disagreement(settings.state_dir, settings.record_ring("grant"), database)
        finally:
            database.close()
    except OutboxError as error:
        why = error
    if why is not None:
        return failed("ledger", why, "no worker starts till then")
    return Finding("ledger", True, "it agrees with the database")


def _unreached(relay: Relay, outcome: NotSent) -> Finding:
    why = without_secrets(outcome.why, [relay.password])
    return Finding("relay", False, why, next((todo for word, todo in _ADVICE if word in outcome.why), _UNREACHED))


def _reached(settings: Settings, relay: Relay, examined: Examined, now: int) -> Iterator[Finding]:
    offered = dict(examined.extensions)
    yield Finding("relay", True, f"{relay.host}:{relay.port} answers")
    yield _secured(examined, offered, now, is_local=settings.relay_is_local)
    if relay.username:
        yield Finding("relay-login", True, f"the login of {relay.username} was accepted")
    elif "AUTH" in offered and not settings.relay_is_local:
        todo = "set relay.username and relay.password_file, unless it knows this machine"
        yield Finding("relay-login", None, "it offers a login, and none is configured", todo)
    else:
        yield Finding("relay-login", None, "none is configured")
    yield _offers(offered)


def _secured(examined: Examined, offered: dict[str, str], now: int, *, is_local: bool) -> Finding:
    check = "relay-tls"
    if examined.tls is None or examined.certificate_ends is None:
        if is_local:
            return Finding(check, True, "in clear, to a relay on loopback")
        starttls = "; it offers STARTTLS" if "STARTTLS" in offered else ""
        why = f"in clear: whoever is on the way reads mail and login, and can change what was approved{starttls}"
        return Finding(check, None, why, 'set relay.security = "starttls", or "tls" with port 465')
    days = (examined.certificate_ends - now // MICROSECONDS) // DAY
    why = f"{examined.tls}, with a certificate that was verified and is good for {days} more days"
    todo = f"have it renewed: after {days} days nothing is sent" if days < _SOON else ""
    return Finding(check, None if todo else True, why, todo)


def _offers(offered: dict[str, str]) -> Finding:
    there = ", ".join(f"{name} {offered[name]}".strip() for name in _WANTED if name in offered)
    lacks = [name for name in _WANTED if name not in offered]
    why = f"it offers {without_secrets(there, ()) or 'no extension'}" + (f"; not {', '.join(lacks)}" if lacks else "")
    if "8BITMIME" in lacks:
        return Finding("relay-offers", None, why, "a message with octets beyond ASCII cannot be sent; ask for 8BITMIME")
    return Finding("relay-offers", True, why)


def _test(settings: Settings, relay: Relay, transport: SmtpTransport, now: int) -> Finding:
    """Send one message that is signed and verified as every system draft is; no row is written of it."""
    try:
        verifier = Verifier(*settings.rings(), settings.rules(), settings.approvers, settings.operators)
        operator = settings.operators[0]
        notice = _notice(settings, relay, operator, expires_at=now + _TTL)
        signed = sign_notice(verifier.grant_ring, notice, Room.WORKER, new_id(now), now)
        verifier.verify(signed, [], now=now)
    except OutboxError as error:
        return failed("relay-test", error, "mend that, and ask for the test again")
    octets = date_line(now) + signed.draft.message
    outcome = asyncio.run(_sent(transport, signed.draft.envelope, octets))
    return _tested(outcome, relay, operator=operator, sender=notice.sender)


def _notice(settings: Settings, relay: Relay, operator: str, *, expires_at: int) -> Notice:
    sender = settings.notice_sender
    text = _TEST.format(sender=sender, host=relay.host, port=relay.port)
    return Notice(sender, operator, "[outbox] test message", text, expires_at)


async def _sent(transport: SmtpTransport, envelope: Envelope, octets: bytes) -> Outcome:
    try:
        return await transport.send(envelope, octets, _enter_no_gap)
    finally:
        await transport.close()


async def _enter_no_gap() -> GapEntered:
    """A test has no row: sent twice, it is a test twice."""
    return GapEntered(boottime())


def _tested(outcome: Outcome, relay: Relay, *, operator: str, sender: str) -> Finding:
    check, secrets = "relay-test", [relay.password]
    match outcome:
        case Accepted(reply, queue_id, _):
            called = f", queue id {without_forms(queue_id, secrets)}" if queue_id else ""
            said = without_secrets(str(reply), secrets)
            return Finding(check, True, f"a test message to {operator} was taken{called}; the relay said {said}")
        case Refused(transient, reply, _):
            why = f"the relay refused a test message to {operator}: {without_secrets(str(reply), secrets)}"
            return Finding(
                check, False, why, "try again later" if transient else f"ask who runs it if it takes mail from {sender}"
            )
        case NotSent(why):
            return Finding(check, False, f"no test message left: {without_secrets(why, secrets)}", _UNREACHED)
        case InDoubt(why):
            said = f"it is not known whether a test message left: {without_secrets(why, secrets)}"
            return Finding(check, False, said, f"look into the mailbox of {operator}")
    assert_never(outcome)
