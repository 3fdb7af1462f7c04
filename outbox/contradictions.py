"""Settings that are each as they may be, and cannot be so together."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from outbox.core.address import comparable, domain, without_extension
from outbox.core.errors import Code, ConfigError

if TYPE_CHECKING:
    from outbox.config import Settings

LONGEST_LOCAL_PART = 24


def refuse_contradictions(settings: Settings) -> None:
    """Raise ConfigError for the first."""
    if 0 in settings.relay.retry and not settings.relay_is_local:
        raise invalid("relay.retry", "0 is only for a relay on loopback")
    if settings.policy.default_ttl > settings.policy.max_ttl:
        raise invalid("policy.default_ttl", "it is longer than policy.max_ttl")
    if settings.approval.authenticity == "authentication-results" and settings.approval.authserv_id is None:
        raise invalid("approval.authserv_id", "authentication-results needs the name of the server to believe")
    _refuse_wrong_additions(settings)
    _refuse_unused_proofs(settings)
    _refuse_wrong_approvers(settings)
    if settings.mailbox.url is not None and not settings.mailbox.url.startswith("maildir:"):
        _refuse_wrong_server(settings.mailbox.url, "mailbox.url", '"maildir:PATH", or ')
    if settings.reconcile.mailbox.url is not None:
        _refuse_wrong_server(settings.reconcile.mailbox.url, "reconcile.mailbox.url")
    if settings.approval.address is not None:
        _refuse_wrong_address(settings, settings.approval.address)


def _refuse_wrong_additions(settings: Settings) -> None:
    """Raise ConfigError where what is added to every envelope would have every draft refused."""
    return_path, archive, address = settings.relay.return_path, settings.policy.archive, settings.approval.address
    if return_path is not None and domain(return_path) not in settings.policy.from_domains:
        raise invalid("relay.return_path", f"{return_path} is not in policy.from_domains")
    if archive is not None and address is not None and without_extension(archive) == without_extension(address):
        raise invalid("policy.archive", f"{archive} is the approval address, which no draft may write to")


def _refuse_unused_proofs(settings: Settings) -> None:
    """Raise ConfigError for a setting of one kind of proof where another is asked for: nothing is there for nothing."""
    approval = settings.approval
    if approval.authenticity != "authentication-results" and (approval.authserv_id or approval.received_by):
        name = "approval.authserv_id" if approval.authserv_id else "approval.received_by"
        raise invalid(name, f'it is for authentication-results, and approval.authenticity is "{approval.authenticity}"')
    for address, said in settings.approver.items():
        if approval.authenticity != "dkim" and (said.domains or said.selectors):
            name = f'approver."{address}".{"domains" if said.domains else "selectors"}'
            raise invalid(name, f'it is for dkim, and approval.authenticity is "{approval.authenticity}"')


def _refuse_wrong_approvers(settings: Settings) -> None:
    approvers = {comparable(address) for address in settings.approval.approvers}
    for address, said in settings.approver.items():
        name = f'approver."{address}"'
        if comparable(address) not in approvers:
            raise invalid(name, "this address is not in approval.approvers")
        others = approvers - {comparable(address)}
        if taken := [also for also in said.also if comparable(also) in others]:
            raise invalid(f"{name}.also", f"{taken[0]} is another approver")
        address_of_ours = settings.approval.address
        if address_of_ours and without_extension(address_of_ours) in map(without_extension, said.also):
            raise invalid(f"{name}.also", f"{address_of_ours} is the approval address, which is no person's")


def _refuse_wrong_server(url: str, name: str, otherwise: str = "") -> None:
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in {"imaps", "imap"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no host or port can be so
        is_whole = False
    if not is_whole or parts.username or parts.password or parts.query:
        raise invalid(name, f'{otherwise}"imaps://HOST:993/FOLDER" without a login in it')
    if parts.scheme == "imap" and not is_loopback(parts.hostname or ""):
        raise invalid(name, "imap:// is in clear, and only for a server on loopback; write imaps://")


def _refuse_wrong_address(settings: Settings, address: str) -> None:
    if len(address.rpartition("@")[0].encode()) > LONGEST_LOCAL_PART:
        words = f"at most {LONGEST_LOCAL_PART} octets before the @, so that a reply token fits"
        raise invalid("approval.address", words)
    if "+" in address:
        raise invalid("approval.address", "it is extended with +TOKEN, and has no + itself")
    one_account = settings.approval.authenticity == "code"
    if not one_account and without_extension(address) in map(without_extension, settings.approval.approvers):
        words = f'{address} is the approval address; an approver has a mailbox of his own, or authenticity is "code"'
        raise invalid("approval.approvers", words)


def invalid(name: str, words: str) -> ConfigError:
    """The error for a value that cannot be."""
    return ConfigError(Code.CONFIG_INVALID, f"{name}: {words}", field=name)


def is_loopback(host: str) -> bool:
    """Whether a host is this one, by its name or address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
