"""The sections of the settings file, each value parsed once. docs/reference/settings.md describes them."""

from __future__ import annotations

import ipaddress
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from outbox.core.address import parse_address
from outbox.core.errors import OutboxError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> object:
    """Seconds out of `90`, "90s", "15m", "24h" or "7d"; anything else is left for pydantic to refuse."""
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", value.strip())
        if found is None:
            raise ValueError('a duration is a number of seconds, or "90s", "15m", "24h", "7d"')
        return int(found[1]) * _UNITS[found[2] or "s"]
    return value


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_address(value, "address")
    except OutboxError as error:
        raise ValueError("not one e-mail address") from error


def _command(value: str) -> str:
    shlex.split(value)  # ValueError for an unclosed quote
    return value


def _domain(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_address(f"a@{value}", "domain").partition("@")[2]
    except OutboxError as error:
        raise ValueError("not a mail domain") from error


def _pattern(value: str) -> str:
    if not re.fullmatch(r"(?:\*\.)?(?:[a-z0-9-]*\*?[a-z0-9-]*\.)+[a-z0-9-]{2,}|localhost", value.lower()):
        raise ValueError('a host name, in which "*" stands for letters of one label, as in "mx*.example.org"')
    return value.lower()


def _recipients(value: str) -> str:
    """As envelopes hold it: an address, or "@" and a domain in its ASCII form."""
    try:
        address = parse_address(value if not value.startswith("@") else f"a{value}", "recipient")
    except OutboxError as error:
        raise ValueError('an address, or "@example.org" for everybody there') from error
    return address.removeprefix("a") if value.startswith("@") else address


def _kind(value: str) -> str:
    from outbox.core.policy import KINDS

    if value not in KINDS:
        raise ValueError(f"a kind that can be drafted: {', '.join(sorted(KINDS))}")
    return value


def _nameserver(value: str) -> str:
    host, colon, port = (
        value.rpartition(":") if re.fullmatch(r"[0-9.]+:[0-9]+|\[.*\]:[0-9]+", value) else (value, "", "")
    )
    ipaddress.ip_address(host.strip("[]"))  # ValueError says what is wrong
    if colon and not 1 <= int(port) <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return value


Duration = Annotated[int, BeforeValidator(parse_duration), Field(ge=1, le=366 * 86400)]
Retry = Annotated[int, BeforeValidator(parse_duration), Field(ge=0, le=366 * 86400)]
Address = Annotated[str, BeforeValidator(_address)]
Domain = Annotated[str, BeforeValidator(_domain)]
HostPattern = Annotated[str, AfterValidator(_pattern)]
RecipientPattern = Annotated[str, AfterValidator(_recipients)]
Kind = Annotated[str, AfterValidator(_kind)]
Nameserver = Annotated[str, AfterValidator(_nameserver)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    # Settings validate every section by a schema of their own, so that a section's own is made only where it is asked
    # for. That is why defaults are made without one: they are not validated either way.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class DatabaseSettings(_Section):
    """Where drafts are kept."""

    url: str = "sqlite:///outbox.db"
    password_file: Path | None = None
    state_dir: Path = Path("state")


class KeySettings(_Section):
    """Files of raw octets, newest first."""

    draft: tuple[Path, ...] = (Path("keys/draft.key"),)
    grant: tuple[Path, ...] = (Path("keys/grant.key"),)


class PolicySettings(_Section):
    """What may be drafted at all."""

    from_domains: tuple[Domain, ...] = ()
    max_recipients: Annotated[int, Field(ge=1, le=1000)] = 10
    default_ttl: Duration = 86400
    max_ttl: Duration = 30 * 86400
    refuse_kinds: tuple[str, ...] = ()
    archive: Address | None = None


class WordSettings(_Section):
    """Words of a verdict, beside those that are known anyway. Each is a whole first line."""

    approve: tuple[str, ...] = ()
    reject: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()


class ApprovalSettings(_Section):
    """Who approves, and how it is known that it was he."""

    approvers: tuple[Address, ...] = ()
    address: Address | None = None
    addressing: Literal["plus", "plain"] = "plus"
    grant_ttl: Duration = 86400
    terminal: Literal["on", "off"] = "on"
    authenticity: Literal["dkim", "authentication-results", "code", "none"] = "dkim"
    authserv_id: HostPattern | None = None
    received_by: tuple[HostPattern, ...] = ()
    code_for_kinds: tuple[Kind, ...] = ()
    code_for_recipients: tuple[RecipientPattern, ...] = ()
    confirm: Literal["all", "problems", "none"] = "all"
    closing: tuple[str, ...] = ()
    words: WordSettings = WordSettings.model_construct()


class ApproverSettings(_Section):
    """What is known of one approver: other addresses of his, who signs his mail, and the secret of his codes."""

    also: tuple[Address, ...] = ()
    domains: tuple[Domain, ...] = ()
    selectors: tuple[str, ...] = ()
    code_file: Path | None = None


class OperatorSettings(_Section):
    """Whom alerts go to; empty means the approvers."""

    addresses: tuple[Address, ...] = ()


class AlertSettings(_Section):
    """A command that gets an alert's text on stdin."""

    command: Annotated[str, AfterValidator(_command)] = ""


class MailboxSettings(_Section):
    """Where replies arrive. An access token for XOAUTH2 is what `token_command` prints, or is in the password file."""

    url: str | None = None
    username: str = ""
    password_file: Path | None = None
    auth: Literal["password", "xoauth2"] = "password"
    token_command: Annotated[str, AfterValidator(_command)] = ""
    dedicated: bool = False


class RelaySettings(_Section):
    """The submission server. Durations in seconds."""

    host: str | None = None
    port: Port = 587
    security: Literal["tls", "starttls", "none"] | None = None
    username: str = ""
    password_file: Path | None = None
    lanes: Annotated[int, Field(ge=1, le=100)] = 10
    timeout: Duration = 60
    final_timeout: Duration = 600
    retry: Annotated[tuple[Retry, ...], Field(min_length=1)] = (60, 300, 1800, 7200)
    return_path: Address | None = None


class GateSettings(_Section):
    """At most `count` transmissions in `window`; once tripped, nothing for `cooldown`."""

    count: Annotated[int, Field(ge=1, le=1_000_000)] = 60
    window: Duration = 900
    cooldown: Duration = 300


class ThermalSettings(GateSettings):
    """The cutout for drafts, and apart from it the one for the outbox's own mail."""

    count: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    system: GateSettings = GateSettings.model_construct()


class DnsSettings(_Section):
    """Who is asked for the keys of DKIM: `ADDRESS` or `ADDRESS:PORT`; empty means the system's own."""

    nameservers: tuple[Nameserver, ...] = ()


class EvidenceMailbox(_Section):
    """Whose Sent and archive folders the operator looks into; empty means those of `mailbox`. IMAP only."""

    url: str | None = None
    username: str = ""
    password_file: Path | None = None


class ReconcileSettings(_Section):
    """Whether what provably was not sent is let go without a person."""

    auto_release: Literal["proven", "never"] = "proven"
    folders: tuple[str, ...] = ("Sent", "Archive")
    command: Annotated[str, AfterValidator(_command)] = ""
    mailbox: EvidenceMailbox = EvidenceMailbox.model_construct()


class WorkerSettings(_Section):
    """How long a stopping worker waits for the replies it is owed."""

    stop_timeout: Duration = 630
