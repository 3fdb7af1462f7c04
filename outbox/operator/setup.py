"""The first set-up: a folder with settings, keys and a database; never over something that is there."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from outbox.config import Settings, parse_text
from outbox.core.address import domain, parse_address
from outbox.core.errors import Code, ConfigError, PolicyRefused, UsageError
from outbox.core.signing import MINIMUM_KEY_OCTETS
from outbox.operator.enrolment import Enrolment, new_secret, unfit_name, write_new
from outbox.operator.providers import PROVIDERS
from outbox.store.engine import connect
from outbox.store.migrate import upgrade
from outbox.store.server import Server

TOGETHER = (
    "The draft key and the grant key lie together: whoever runs as this user can draft and approve. "
    'Give each room its own user (docs/reference/privileges.md), or set approval.terminal = "off".'
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `outbox init` was told. None leaves a setting to be filled in; `room` drafter makes no grant key.

    `account` is the mailbox at `provider`: with the two, relay, mailbox and approval address follow.
    """

    folder: Path
    from_domains: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    address: str | None = None
    relay_host: str | None = None
    relay_port: int | None = None
    relay_security: str | None = None
    mailbox: str | None = None
    authenticity: str | None = None
    room: str = "all"
    provider: str | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, what a person should know about it, and what is left for him to do, in this order.

    `enrolments` are the secrets of those approvers whose own account this is: they are at the terminal now.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]
    enrolments: tuple[Enrolment, ...] = ()
    left_to_do: tuple[str, ...] = ()


def initialise(plan: Plan) -> Made:
    """Make the folder's files. Raises ConfigError, and makes nothing, where one of them is there already."""
    plan = _at_provider(plan)
    text = _settings_text(plan)
    parse_text(text)
    keys = {"draft.key"} if plan.room == "drafter" else {"draft.key", "grant.key"}
    settings_file, database_file = plan.folder / "outbox.toml", plan.folder / "outbox.db"
    key_files = [plan.folder / "keys" / name for name in sorted(keys)]
    enrolments = _enrolments(plan)
    secret_files = [enrolment.file for enrolment in enrolments]
    taken = [file for file in (settings_file, database_file, *key_files, *secret_files) if os.path.lexists(file)]
    if taken:
        raise ConfigError(Code.FILE_EXISTS, f"{taken[0]} is there already; init overwrites nothing", field="--dir")
    try:
        for folder in (plan.folder, plan.folder / "keys", plan.folder / "state"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        words = f"{plan.folder} cannot be made a folder: {error.strerror}"
        raise ConfigError(Code.CONFIG_INVALID, words, field="--dir") from error
    for file in key_files:
        write_new(file, secrets.token_bytes(MINIMUM_KEY_OCTETS), 0o600)
    for enrolment in enrolments:
        write_new(enrolment.file, enrolment.octets, 0o600)
    write_new(settings_file, text.encode(), 0o644)
    upgrade_database(database_file)
    files = (settings_file, *key_files, *secret_files, database_file)
    here = tuple(enrolment for enrolment in enrolments if _is_own_account(plan, enrolment.approver))
    return Made(files, _notes(plan, enrolments), here, _left_to_do(plan))


def upgrade_database(path: Path) -> str:
    """Bring a database to this version's revision, and return that. A missing one is made, for this user alone."""
    if not path.exists():
        write_new(path, b"", 0o600)  # SQLite gives its other files the same mode
    database = connect(path)
    try:
        return upgrade(database)
    finally:
        database.close()


def upgrade_settings_database(settings: Settings) -> str:
    """`upgrade_database` for the database that the settings name."""
    place = settings.database_place
    if not isinstance(place, Server):
        return upgrade_database(place)
    with closing(connect(place, "migrations")) as database:
        return upgrade(database)


def _at_provider(plan: Plan) -> Plan:
    """The plan with what its provider makes of it; as it is where none was named."""
    if plan.provider is None:
        if plan.account is not None:
            raise UsageError(Code.USAGE, "an ADDRESS goes with --provider; else say --address", field="ADDRESS")
        return plan
    provider = PROVIDERS[plan.provider]
    said_twice = {
        "--address": plan.address is not None,
        "--mailbox": plan.mailbox is not None,
        "--relay-host": plan.relay_host is not None,
        "--relay-port": plan.relay_port is not None,
        "--relay-security": plan.relay_security is not None,
        "--room": plan.room != "all",
    }
    for flag, is_said in said_twice.items():
        if is_said:
            raise UsageError(Code.USAGE, f"{flag} and --provider contradict each other", field=flag)
    account = _account(plan.account)
    plan = replace(
        plan,
        account=account,
        address=account,
        from_domains=plan.from_domains or (domain(account),),
        approvers=plan.approvers or (account,),
        mailbox=provider.mailbox_url,
        relay_host=provider.smtp_host,
        relay_port=provider.smtp_port,
        relay_security="tls",
    )
    unsigned = any(provider.is_unsigned(approver, account) for approver in plan.approvers)
    return replace(plan, authenticity=plan.authenticity or ("code" if unsigned else "dkim"))


def _account(given: str | None) -> str:
    if given is None:
        raise UsageError(Code.USAGE, "--provider needs the ADDRESS of the mailbox there", field="ADDRESS")
    try:
        return parse_address(given, "ADDRESS")
    except PolicyRefused as error:
        raise UsageError(Code.USAGE, error.message, field="ADDRESS") from error


def _is_own_account(plan: Plan, approver: str) -> bool:
    """Whether an approver reads his mail in the very mailbox that requests are answered to."""
    if plan.provider is None or plan.account is None:
        return False
    return PROVIDERS[plan.provider].is_one_account(approver, plan.account)


def _enrolments(plan: Plan) -> list[Enrolment]:
    """A secret for each approver, where every approval needs a code."""
    if plan.authenticity != "code" or plan.room == "drafter":
        return []
    made = []
    for approver in dict.fromkeys(parse_address(given, "--approver") for given in plan.approvers):
        if "/" in approver:
            raise unfit_name(approver)
        file = plan.folder / "keys" / f"{approver}.code"
        made.append(Enrolment(approver, file, made=True, secret=new_secret()))
    return made


def _notes(plan: Plan, enrolments: list[Enrolment]) -> tuple[str, ...]:
    if plan.room == "drafter":
        return ("This folder has no grant key: who uses it can draft and withdraw, not approve.",)
    notes = [TOGETHER, *(_on_codes(one) for one in enrolments)]
    if plan.provider is not None and (beware := PROVIDERS[plan.provider].beware):
        notes.append(beware)
    return tuple(notes)


def _on_codes(enrolment: Enrolment) -> str:
    return (
        f"Each approval by {enrolment.approver} needs a one-time code, made with the secret in {enrolment.file}. At a "
        f"terminal `outbox enrol {enrolment.approver}` shows it as a QR code for his authenticator app."
    )


def _left_to_do(plan: Plan) -> tuple[str, ...]:
    """The steps that no program can take: an app password is made by its owner, and typed by him."""
    if plan.provider is None:
        return ()
    provider = PROVIDERS[plan.provider]
    relay, mailbox = (shlex.quote(str(plan.folder / "keys" / f"{name}.password")) for name in ("relay", "mailbox"))
    there = "" if plan.folder == Path() else f"cd {shlex.quote(str(plan.folder))}, then "
    get = f"Get an app password: {provider.app_login}."
    put = f"Put it into two files that only you can read: start this, paste it, press Enter, then Ctrl-D.\n{' ' * 7}"
    go = f"{there}`outbox doctor` looks whether all is well, and `outbox up` starts it."
    return (
        get,
        f"{put}(umask 077; tee {relay} > {mailbox})",
        f"{go} docs/howto/{provider.name}.md has the rest.",
    )


def _settings_text(plan: Plan) -> str:
    sections = [
        ("database", [_line("url", "sqlite:///outbox.db"), _line("state_dir", "state")]),
        ("keys", [_line("draft", ["keys/draft.key"], why="signs what is drafted"), *_grant_line(plan)]),
        (
            "policy",
            [_line("from_domains", list(plan.from_domains) or None, ["example.org"], why="what From may be of")],
        ),
        ("approval", _approval_lines(plan)),
        (
            "mailbox",
            [_line("url", plan.mailbox, "maildir:Maildir", why="where replies arrive"), *_login(plan, "mailbox")],
        ),
        (
            "relay",
            [
                _line("host", plan.relay_host, "127.0.0.1", why="the submission server"),
                _line("port", plan.relay_port, 587),
                _line("security", plan.relay_security, "starttls"),
                *_login(plan, "relay"),
            ],
        ),
    ]
    head = (
        "# docs/reference/settings.md describes every setting. Paths are relative to this file.\n"
        "# Settings that begin with # wait to be filled in.\n"
    )
    return head + "".join(f"\n[{name}]\n{''.join(lines)}" for name, lines in sections)


def _approval_lines(plan: Plan) -> list[str]:
    proofs = {
        "code": "a one-time code on the second line of each approval",
        "dkim": "the signature of the domain that the reply is from",
        "none": "whoever knows the token is believed",
    }
    return [
        _line("approvers", list(plan.approvers) or None, ["you@example.org"], why="who is asked; any one is enough"),
        _line("address", plan.address, "outbox@example.org", why="who asks; replies go to it with +TOKEN before the @"),
        _line("authenticity", plan.authenticity, "none", why=proofs.get(plan.authenticity or "", "")),
    ]


def _grant_line(plan: Plan) -> list[str]:
    if plan.room == "drafter":
        return []
    return [_line("grant", ["keys/grant.key"], why="signs approvals: no agent may read it")]


def _login(plan: Plan, section: str) -> list[str]:
    """The login of one section, which only a provider's has; what logs in to both may be one password, in two files."""
    if plan.provider is None:
        return []
    lines = [
        _line("username", plan.account),
        _line("password_file", f"keys/{section}.password", why="an app password; only its owner may read the file"),
    ]
    if section == "mailbox":
        lines.append(_line("dedicated", value=False, why="other mail arrives here too, and is left as it is"))
    return lines


def _line(
    name: str, value: str | bool | int | list[str] | None, example: str | int | list[str] = "", *, why: str = ""
) -> str:
    """One TOML line; JSON strings, numbers, booleans and lists of strings are TOML too."""
    remark = f"  # {why}" if why else ""
    if value is None:
        return f"# {name} = {json.dumps(example, ensure_ascii=False)}{remark}\n"
    return f"{name} = {json.dumps(value, ensure_ascii=False)}{remark}\n"
