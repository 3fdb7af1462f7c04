"""Settings: one TOML file, the environment, and files for secrets. The only reader of os.environ.

Fails closed: an unknown name, a bad value, a setting missing where it is needed, or a key that others can read is one
line naming the setting, before anything is opened. Every setting is described in docs/reference/settings.md.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_origin
from urllib.parse import urlsplit

from pydantic import PrivateAttr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from outbox.contradictions import invalid, is_loopback, refuse_contradictions
from outbox.core.address import comparable
from outbox.core.errors import Code, ConfigError
from outbox.core.signing import KeyRing
from outbox.keyfiles import read_key, read_secret
from outbox.sections import (
    Address,
    AlertSettings,
    ApprovalSettings,
    ApproverSettings,
    DatabaseSettings,
    DnsSettings,
    KeySettings,
    MailboxSettings,
    OperatorSettings,
    PolicySettings,
    ReconcileSettings,
    RelaySettings,
    ThermalSettings,
    WorkerSettings,
)
from outbox.store.server import Server, parse_server
from outbox.supervisor import Supervision

if TYPE_CHECKING:
    from outbox.core.policy import Policy

Value = TypeVar("Value")
PAUSED = "OUTBOX_PAUSED"
MOST_KEYS = 10  # as credentials of one name
_NO_SETTINGS = ("OUTBOX_CONFIG", PAUSED)


class Settings(BaseSettings):
    """Everything that can be set. `load` makes one; rooms take it whole and ask for what they need."""

    model_config = SettingsConfigDict(
        env_prefix="OUTBOX_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )
    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _credentials: Path | None = PrivateAttr(default=None)
    _paused: bool = PrivateAttr(default=False)
    _supervision: Supervision = PrivateAttr(default_factory=Supervision)

    database: DatabaseSettings = DatabaseSettings.model_construct()
    keys: KeySettings = KeySettings.model_construct()
    policy: PolicySettings = PolicySettings.model_construct()
    approval: ApprovalSettings = ApprovalSettings.model_construct()
    approver: dict[Address, ApproverSettings] = {}
    operator: OperatorSettings = OperatorSettings.model_construct()
    alerts: AlertSettings = AlertSettings.model_construct()
    mailbox: MailboxSettings = MailboxSettings.model_construct()
    relay: RelaySettings = RelaySettings.model_construct()
    thermal: ThermalSettings = ThermalSettings.model_construct()
    dns: DnsSettings = DnsSettings.model_construct()
    reconcile: ReconcileSettings = ReconcileSettings.model_construct()
    worker: WorkerSettings = WorkerSettings.model_construct()

    @classmethod
    def settings_customise_sources(  # its parameters are pydantic-settings'
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the file (given as init arguments); nothing else is looked at."""
        return env_settings, init_settings

    @property
    def supervision(self) -> Supervision:
        """What the supervisor that started this process asks for."""
        return self._supervision

    @property
    def is_paused(self) -> bool:
        """Whether OUTBOX_PAUSED is in the environment, with whatever value but an empty one."""
        return self._paused

    def path(self, setting: Path) -> Path:
        """A path as it is written, relative to the settings file."""
        return self._base / setting

    @property
    def database_place(self) -> Path | Server:
        """Where the database is: a SQLite file, or a PostgreSQL server."""
        if not self.database.url.startswith("postgresql"):
            return self.database_path
        has_password = self.database.password_file is not None or self._credential("database.password") is not None
        password = self._password("database", self.database.password_file) if has_password else None
        return parse_server(self.database.url, password)

    @property
    def database_path(self) -> Path:
        """The SQLite file. Raises ConfigError where the database is none."""
        prefix, url = "sqlite:///", self.database.url
        if url.startswith("postgresql"):
            words = "database.url: this is for a SQLite file; what it does, PostgreSQL's own tools do"
            raise ConfigError(Code.NOT_SUPPORTED, f"{words} (docs/howto/postgresql.md)", field="database.url")
        if not url.startswith(prefix) or len(url) == len(prefix):
            words = "database.url: it is sqlite:///FILE, or postgresql+psycopg://USER@HOST/DATABASE"
            raise ConfigError(Code.NOT_SUPPORTED, words, field="database.url")
        return self.path(Path(url.removeprefix(prefix)))

    @property
    def state_dir(self) -> Path:
        """Locks and state files."""
        return self.path(self.database.state_dir)

    def draft_ring(self) -> KeyRing:
        """The draft keys. Raises ConfigError where one is missing, short or readable by others."""
        return self._ring("draft", self.keys.draft)

    def grant_ring(self) -> KeyRing:
        """The grant keys. Raises ConfigError where one is missing, short or readable by others."""
        return self._ring("grant", self.keys.grant)

    def has_key(self, name: Literal["draft", "grant"]) -> bool:
        """Whether this user can read a key of that name here."""
        files = self._key_files(name, getattr(self.keys, name))
        return bool(files) and all(os.access(file, os.R_OK) for file, _ in files)

    def rings(self) -> tuple[KeyRing, KeyRing]:
        """Draft and grant keys together. Raises ConfigError where one key is in both: an agent could grant."""
        draft, grant = self.draft_ring(), self.grant_ring()
        if draft.shares_a_key(grant):
            raise ConfigError(
                Code.KEY_SHARED,
                "keys.grant: it lists a key that keys.draft lists too; make another",
                field="keys.grant",
            )
        return draft, grant

    def _ring(self, name: str, listed: tuple[Path, ...]) -> KeyRing:
        files = self._key_files(name, listed)
        if not files:
            raise ConfigError(Code.SETTING_MISSING, f"keys.{name}: no key file is listed", field=f"keys.{name}")
        return KeyRing([read_key(file, f"keys.{name}", in_credentials=held) for file, held in files])

    def record_ring(self, name: Literal["draft", "grant"]) -> KeyRing:
        """The keys in use and those put away: for ledger, journal and receipts alone, never for what may be sent."""
        listed = self._key_files(name, getattr(self.keys, name))
        folders = dict.fromkeys(file.parent for file, _ in listed)
        away = [(file, False) for folder in folders for file in sorted(folder.glob(f"retired/{name}-*.key*"))]
        if self._credentials is not None:
            away += [(file, True) for file in sorted(self._credentials.glob(f"retired_{name}-*.key*"))]
        octets = [read_key(file, f"keys.{name}", in_credentials=held) for file, held in (*listed, *away)]
        if not octets:
            raise ConfigError(Code.SETTING_MISSING, f"keys.{name}: no key file is listed", field=f"keys.{name}")
        return KeyRing(octets)

    def _key_files(self, name: str, listed: tuple[Path, ...]) -> list[tuple[Path, bool]]:
        """Where the keys are, newest first: `NAME.key`, `NAME.key.1` and on as credentials, else as listed."""
        if self._credential(f"{name}.key") is None:
            return [(self.path(file), False) for file in listed]
        names = (f"{name}.key", *(f"{name}.key.{number}" for number in range(1, MOST_KEYS)))
        return [(file, True) for each in names if (file := self._credential(each)) is not None]

    def _credential(self, name: str) -> Path | None:
        if self._credentials is None or not (self._credentials / name).is_file():
            return None
        return self._credentials / name

    def relay_password(self) -> str | None:
        """The relay's password, from a file or the credentials directory; None where there is no login."""
        if not self.relay.username:
            return None
        return self._password("relay", self.relay.password_file)

    def mailbox_password(self) -> str:
        """The mailbox's password or access token, from a file or the credentials directory."""
        return self._password("mailbox", self.mailbox.password_file)

    def _password(self, section: str, listed: Path | None) -> str:
        name, credential = f"{section}.password_file", self._credential(f"{section}.password")
        if credential is None and listed is None:
            words = f"{name}: a {section}.username needs a password file"
            raise ConfigError(Code.SETTING_MISSING, words, field=name)
        file = credential or self.path(listed or Path())
        password = self._secret_text(file, name, in_credentials=credential is not None)
        if not password:
            raise ConfigError(Code.SECRET_UNREADABLE, f"{name}: {file} is empty", field=name)
        return password

    def _secret_text(self, file: Path, setting: str, *, in_credentials: bool) -> str:
        octets = read_secret(file, setting, in_credentials=in_credentials)
        try:
            return octets.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            words = f"{setting}: {file} holds no UTF-8 text"
            raise ConfigError(Code.SECRET_UNREADABLE, words, field=setting) from None

    def details_of(self, approver: str) -> ApproverSettings:
        """What the settings say of one approver, whatever the case of his address."""
        found = (said for address, said in self.approver.items() if comparable(address) == comparable(approver))
        return next(found, ApproverSettings())

    def code_file(self, approver: str) -> Path:
        """Where the secret of an approver's one-time codes is, or would be."""
        listed = self.details_of(approver).code_file
        name = f"{approver}.code"
        if "/" in name:
            return self.path(listed or Path("keys"))  # no file is named after it: one has to be listed
        return self._credential(name) or self.path(listed or Path("keys") / name)

    def code_text(self, approver: str) -> str:
        """The text of that file. Raises ConfigError where it is missing or others can read it."""
        file = self.code_file(approver)
        in_credentials = self._credentials is not None and file.parent == self._credentials
        return self._secret_text(file, f"approver.{approver}.code_file", in_credentials=in_credentials)

    def rules(self) -> Policy:
        """The policy as it is now. Raises ConfigError without from_domains."""
        from outbox.core.policy import Policy

        return Policy(
            from_domains=frozenset(required(self.policy.from_domains, "policy.from_domains")),
            approval_address=self.approval.address,
            max_recipients=self.policy.max_recipients,
            max_ttl=self.policy.max_ttl,
            refuse_kinds=frozenset(self.policy.refuse_kinds),
            return_path=self.relay.return_path,
            archive=self.policy.archive,
        )

    @property
    def approvers(self) -> tuple[str, ...]:
        """Who may approve. Raises ConfigError where nobody is named."""
        return required(self.approval.approvers, "approval.approvers")

    @property
    def operators(self) -> tuple[str, ...]:
        """Who is told of what went wrong: the operators, or else the approvers."""
        return self.operator.addresses or self.approval.approvers

    @property
    def notice_sender(self) -> str:
        """Whom the outbox's own mail comes from: the approval address, or `outbox` at the first of from_domains."""
        return self.approval.address or f"outbox@{required(self.policy.from_domains, 'policy.from_domains')[0]}"

    @property
    def relay_is_local(self) -> bool:
        """Whether the relay is on loopback."""
        return self.relay.host is not None and is_loopback(self.relay.host)

    @property
    def mailbox_is_local(self) -> bool:
        """Whether replies are read from a Maildir, or from loopback."""
        url = self.mailbox.url or ""
        return url.startswith("maildir:") or is_loopback(urlsplit(url).hostname or "")

    @property
    def relay_security(self) -> Literal["tls", "starttls", "none"]:
        """As written; else TLS on port 465, none on loopback, STARTTLS otherwise."""
        if self.relay.security is not None:
            return self.relay.security
        if self.relay.port == 465:
            return "tls"
        return "none" if self.relay_is_local else "starttls"


def required(value: Value | None, name: str) -> Value:
    """`value`, where it is set. Raises ConfigError naming the setting."""
    if value is None or value in ((), ""):
        variable = "OUTBOX_" + name.replace(".", "__").upper()
        raise ConfigError(Code.SETTING_MISSING, f"{name} is not set; write it in outbox.toml or {variable}", field=name)
    return value


def load(named: Path | None = None) -> Settings:
    """Read settings from `named`, $OUTBOX_CONFIG or ./outbox.toml, under the environment. Raises ConfigError."""
    chosen = named or (Path(os.environ["OUTBOX_CONFIG"]) if os.environ.get("OUTBOX_CONFIG") else None)
    file = chosen or Path("outbox.toml")
    if chosen is not None and not chosen.is_file():
        raise ConfigError(Code.CONFIG_MISSING, f"there is no settings file at {chosen}", field="--config")
    _refuse_wrong_variables()
    settings = _parse(_read_toml(file) if file.is_file() else {})
    settings._base = file.resolve().parent  # noqa: SLF001  set once, here, where it is known
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    settings._credentials = Path(directory) if directory else None  # noqa: SLF001
    told = [os.environ.get(name) for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")]
    settings._supervision = Supervision.parse(*told)  # noqa: SLF001
    settings._paused = bool(os.environ.get(PAUSED))  # noqa: SLF001
    refuse_contradictions(settings)
    return settings


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(Code.CONFIG_INVALID, f"{file} cannot be read: {error}", field="--config") from error


def parse_text(text: str) -> None:
    """Raise ConfigError unless `text` is a settings file of this version."""
    try:
        written = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(Code.CONFIG_INVALID, f"that cannot be written as TOML: {error}", field="init") from error
    refuse_contradictions(_parse(written))


def _parse(written: dict[str, Any]) -> Settings:
    try:
        return Settings(**written)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(Code.CONFIG_UNKNOWN, f"{name} is not a setting of this version", field=name) from None
        words = first["msg"].removeprefix("Value error, ")
        raise invalid(name, words) from None
    except SettingsError as error:
        raise ConfigError(Code.CONFIG_INVALID, f"the environment: {error}", field="environment") from None


def _refuse_wrong_variables() -> None:
    """Raise ConfigError for a name that is no setting, or a list or section that is not JSON."""
    for variable, value in os.environ.items():
        if not variable.upper().startswith("OUTBOX_") or variable in _NO_SETTINGS:
            continue
        model: Any = Settings
        path = variable.lower().removeprefix("outbox_").split("__")
        for part in path:
            field = getattr(model, "model_fields", {}).get(part)
            if field is None:
                raise ConfigError(Code.CONFIG_UNKNOWN, f"{variable} names no setting of this version", field=variable)
            model = field.annotation
        if get_origin(model) in {tuple, dict} or hasattr(model, "model_fields"):
            try:
                json.loads(value)
            except ValueError:
                raise invalid(".".join(path), f"{variable} is not JSON; a list is [...]") from None
