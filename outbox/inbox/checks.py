"""Whether replies can be read, and whether it can be known who wrote them. Nothing in the mailbox is changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

from outbox.config import Settings, required
from outbox.core.address import domain as domain_of
from outbox.core.errors import Code, ConfigError, OutboxError, Unavailable
from outbox.core.finding import Finding, failed, without_secrets
from outbox.core.lifecycle import Room
from outbox.inbox.codes import parse_secret
from outbox.inbox.dns import Resolver
from outbox.inbox.mailbox import Mailbox
from outbox.inbox.room import open_mailbox, refuse_unproven_replies
from outbox.inbox.signature import Key, parse_key
from outbox.store.engine import connect
from outbox.store.views import has_counted_reply, proofs_of

_TIMEOUT = 10.0  # seconds
_ALGORITHMS = ("rsa-sha256", "ed25519-sha256")
_POLICIES = {"none", "quarantine", "reject"}
_REFUSED = "look at mailbox.username and mailbox.password_file; many providers want a password made for one app"
_LEARNT_LATER = "answer one request, run `outbox doctor` again, and pin the selector that it then names"


def check(settings: Settings, *, resolver: Resolver | None = None) -> Iterator[Finding]:
    """Look at the mailbox, at how authenticity is proved, and at the DNS of the approvers' domains."""
    if not settings.has_key("grant"):
        words = "not looked at: run `outbox doctor` as the user of the inbox, who has the grant key and the mailbox"
        yield Finding("inbox", None, words)
        return
    yield from _settings(settings)
    yield from _mailbox(settings)
    yield _addressing(settings)
    yield _authenticity(settings)
    yield from _codes(settings)
    yield from _domains(settings, resolver or Resolver(settings.dns.nameservers))


def _settings(settings: Settings) -> Iterator[Finding]:
    needed: tuple[Callable[[], object], ...] = (
        settings.grant_ring,
        lambda: settings.approvers,
        lambda: required(settings.approval.address, "approval.address"),
    )
    wrong = False
    for read in needed:
        try:
            read()
        except ConfigError as error:
            wrong = True
            yield failed("inbox", error, "the inbox does not start without it")
    if not wrong:
        yield Finding(
            "inbox", True, f"{', '.join(settings.approvers)} may approve, by mail to {settings.approval.address}"
        )


def _mailbox(settings: Settings) -> Iterator[Finding]:
    check, secrets = "mailbox", _secrets(settings)
    try:
        with closing(open_mailbox(settings, timeout=_TIMEOUT)) as mailbox:
            yield from _examined(mailbox, settings)
    except ConfigError as error:
        if error.code is Code.SECRET_UNREADABLE and _is_closed(settings):
            yield Finding(check, None, f"not looked at: {error.message}; run `outbox doctor` as the user of the inbox")
        else:
            yield failed(check, error, "the inbox does not start without it")
    except Unavailable as error:
        refused = error.code is Code.MAILBOX_REFUSED
        finding = failed(check, error, _REFUSED if refused else "look at mailbox.url, and at the way there")
        if not _is_maildir(settings):
            why, todo = without_secrets(finding.why, secrets), without_secrets(finding.todo, secrets)
            finding = replace(finding, why=why, todo=todo)
        yield finding
    except OSError as error:
        yield Finding(check, False, f"{settings.mailbox.url}: {error.strerror}", "let the inbox's user read it")


def _examined(mailbox: Mailbox, settings: Settings) -> Iterator[Finding]:
    check = "mailbox"
    if _is_maildir(settings):
        next(mailbox.messages((), since=0), None)
        yield Finding(check, True, f"{settings.mailbox.url} can be read")
        return
    from outbox.inbox.imap import ImapMailbox

    assert isinstance(mailbox, ImapMailbox)
    found = mailbox.examine()
    ours = "ours alone" if settings.mailbox.dedicated else "somebody's own: only headers are looked at first"
    yield Finding(check, True, f"{mailbox.name}: the login was accepted; {found.messages} messages; it is {ours}")
    idle = "IDLE" in found.capabilities
    why = (
        "the server says at once when something arrives (IDLE)" if idle else "it has no IDLE, and is asked every minute"
    )
    yield Finding("mailbox-idle", True, why)


def _is_maildir(settings: Settings) -> bool:
    return (settings.mailbox.url or "").startswith("maildir:")


def _secrets(settings: Settings) -> list[str]:
    try:
        return [settings.mailbox_password()]
    except ConfigError:
        return []


def _is_closed(settings: Settings) -> bool:
    listed = settings.mailbox.password_file
    return listed is not None and not os.access(settings.path(listed), os.R_OK)


def _addressing(settings: Settings) -> Finding:
    check, address = "plus-addressing", settings.approval.address
    if address is None or settings.approval.addressing == "plain":
        why = "the token stands in the thread and the subject" if address else "there is no approval.address"
        return Finding(check, None, f"not asked for: {why}")
    try:
        with closing(connect(settings.database_place, Room.INBOX)) as database, database.reading() as connection:
            if has_counted_reply(connection):
                return Finding(check, True, f"a reply to {address} with a token behind a + has come, and counted")
    except (OutboxError, OSError):
        pass  # the operator's checks say what is wrong with the database
    local, _, host = address.rpartition("@")
    why = (
        f"only a reply can show it: mail to {local}+x@{host} has to arrive in the mailbox; where replies bounce, or "
        'do not come, set approval.addressing = "plain"'
    )
    return Finding(check, None, why)


def _authenticity(settings: Settings) -> Finding:
    check, mode = "authenticity", settings.approval.authenticity
    if mode != "none":
        believed = f", and {settings.approval.authserv_id} is believed" if mode == "authentication-results" else ""
        return Finding(check, True, f'approval.authenticity is "{mode}"{believed}')
    if not settings.relay_is_local:
        try:
            refuse_unproven_replies(settings)
        except ConfigError as error:
            return failed(check, error, 'set approval.authenticity = "dkim"')
    why = 'approval.authenticity is "none": whoever has seen a request\'s mail can approve in the name of who got it'
    return Finding(check, None, why, 'set it to "dkim", or to "code" where mail carries no signature')


def _codes(settings: Settings) -> Iterator[Finding]:
    """The secret of each approver's one-time codes, where they are asked for."""
    approval, check = settings.approval, "code"
    if approval.authenticity != "code" and not approval.code_for_kinds and not approval.code_for_recipients:
        return
    for approver in approval.approvers:
        enrol = f"run `outbox enrol {approver}`, and scan what it shows"
        try:
            parse_secret(settings.code_text(approver).encode())
        except ConfigError as error:
            yield failed(check, error, enrol)
        except ValueError as error:
            yield Finding(check, False, f"{settings.code_file(approver)}: {error}", enrol)
        else:
            yield Finding(check, True, f"the secret of {approver}'s codes can be read, by this user alone")


def _domains(settings: Settings, resolver: Resolver) -> Iterator[Finding]:
    """What DNS says of the approvers' domains; nothing is asked where nothing of it is believed."""
    if settings.approval.authenticity == "none":
        yield Finding("dns", None, 'not asked: approval.authenticity is "none"')
        return
    asked: set[str] = set()
    for approver in settings.approval.approvers:
        try:
            for domain in sorted(_domains_of(settings, approver) - asked):
                asked.add(domain)
                yield _policy(settings, resolver, domain)
            if settings.approval.authenticity == "dkim":
                yield from _keys(settings, resolver, approver)
        except Unavailable as error:
            yield failed("dns", error, "look at dns.nameservers, or at the system's own")
            return


def _domains_of(settings: Settings, approver: str) -> set[str]:
    """Where an approver's mail may come from, without those domains that only sign it."""
    return {domain_of(address).lower() for address in (approver, *settings.details_of(approver).also)}


def _policy(settings: Settings, resolver: Resolver, domain: str) -> Finding:
    check = "dns"
    if not domain.isascii():
        return Finding(check, None, f"{domain} was not asked about: its name is beyond ASCII")
    servers = resolver.mx(domain)
    where, policy = _dmarc(resolver, domain)
    said = f"its DMARC policy is {policy}" if where == domain else f"the DMARC policy of {where} is {policy} for it"
    if not policy:
        said = "it has no DMARC policy"
    if not servers:
        return Finding(check, None, f"{domain} has no mail server (MX); {said}", "look at the approvers' addresses")
    why = f"{domain} gets its mail at {servers[0]}; {said}"
    if not policy and settings.approval.authenticity == "authentication-results":
        todo = f"publish one at _dmarc.{domain}, or take another approval.authenticity: dmarc=pass never comes so"
        return Finding(check, False, why, todo)
    if policy in {"", "none"} and domain in settings.policy.from_domains:
        return Finding(check, None, why, f"publish p=quarantine at _dmarc.{domain}: now anybody can write in its name")
    return Finding(check, True, why)


def _dmarc(resolver: Resolver, domain: str) -> tuple[str, str]:
    """Whose DMARC record holds for `domain`, and what policy it names; two empty texts where there is none."""
    labels = domain.split(".")
    for start in range(min(len(labels) - 1, 5)):
        name = ".".join(labels[start:])
        records = [record for record in resolver.txt(f"_dmarc.{name}") if record[:8].lower() == b"v=dmarc1"]
        if len(records) == 1:
            tags = dict(_tag(part) for part in records[0].decode("ascii", "replace").split(";")[:30])
            policy = tags.get("p", "") if start == 0 else tags.get("sp", tags.get("p", ""))
            return name, policy if policy in _POLICIES else "none"
    return "", ""


def _tag(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip().lower(), value.strip().lower()


def _keys(settings: Settings, resolver: Resolver, approver: str) -> Iterator[Finding]:
    """Whether the pinned selectors are there; where none is, what can be pinned, and how much that matters."""
    check, details = "dkim", settings.details_of(approver)
    domains = sorted(_domains_of(settings, approver) | {domain.lower() for domain in details.domains})
    for selector in details.selectors:
        yield _key(resolver, selector, domains)
    if details.selectors:
        return
    learnt = _learnt(settings, approver, domains)
    seen = f"selectors = {json.dumps(learnt)} under [approver.{json.dumps(approver, ensure_ascii=False)}]"
    shared = [domain for domain in domains if domain in settings.policy.from_domains]
    if shared:
        why = f"any key of {shared[0]} proves who replied as {approver}, and programs send from that domain too"
        todo = f"if every reply that counted was his own, write {seen}" if learnt else _LEARNT_LATER
        yield Finding(check, None, why, todo)
    else:
        hint = f"; to pin what signed his replies so far, write {seen}" if learnt else ""
        yield Finding(check, True, f"any key of {', '.join(domains)} proves who replied as {approver}{hint}")


def _key(resolver: Resolver, selector: str, domains: list[str]) -> Finding:
    check, whys = "dkim", []
    for domain in domains:
        records = resolver.txt(f"{selector.lower()}._domainkey.{domain}")
        for algorithm in _ALGORITHMS:
            key = parse_key(records, algorithm)
            if isinstance(key, Key) and not key.testing:
                return Finding(check, True, f"selector {selector} of {domain} has a key in DNS")
            whys.append(f"{domain} {'has a key that is only being tested (t=y)' if isinstance(key, Key) else key.why}")
    todo = "what this selector signs does not count: see `outbox replies`, and pin what his mail is signed with now"
    return Finding(check, False, f"selector {selector}: {'; '.join(dict.fromkeys(whys))}", todo)


def _learnt(settings: Settings, approver: str, domains: list[str]) -> list[str]:
    """The selectors that signed the approvals of one approver so far."""
    try:
        with closing(connect(settings.database_place, Room.INBOX)) as database, database.reading() as connection:
            proofs = proofs_of(connection, approver)
    except (OutboxError, OSError):
        return []  # the operator's checks say what is wrong with the database
    found = (proof.selector for proof in proofs if proof.method == "dkim" and proof.domain in domains)
    return list(dict.fromkeys(found))
