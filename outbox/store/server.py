"""The address of a PostgreSQL database, parsed once, its password apart from it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from outbox.core.errors import Code, ConfigError

SCHEME = "postgresql+psycopg"
_PARAMETERS = frozenset((
    "channel_binding", "connect_timeout", "gssencmode", "host", "hostaddr", "keepalives", "keepalives_count",
    "keepalives_idle", "keepalives_interval", "krbsrvname", "port", "require_auth", "sslcert", "sslcrl", "sslkey",
    "sslmode", "sslrootcert", "target_session_attrs", "tcp_user_timeout",
))  # fmt: skip
_ENCRYPTED = frozenset(("require", "verify-ca", "verify-full"))
_FORM = f"{SCHEME}://USER@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE"


@dataclass(frozen=True, slots=True)
class Server:
    """What libpq is given to find a database, but for the password; `str` is its name for people."""

    parameters: tuple[tuple[str, str], ...]
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        told = dict(self.parameters)
        whose = f"{told['user']}@" if "user" in told else ""
        hosts, ports = told.get("host", "").split(","), told.get("port", "").split(",")
        ports += [""] * (len(hosts) - len(ports))
        where = ",".join(f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False))
        return f"postgresql://{whose}{where}/{told['dbname']}"


def parse_server(url: str, password: str | None = None) -> Server:
    """A server out of `database.url`. Raises ConfigError, which never holds the URL: there may be a password in it."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _wrong(f"it cannot be read; its form is {_FORM}") from None
    login, _, hosts = parts.netloc.rpartition("@")
    whose, colon, _secret = login.partition(":")
    if colon:
        raise _wrong("it holds a password; put that into a file, and name it in database.password_file")
    database = unquote(parts.path.removeprefix("/"))
    if parts.scheme != SCHEME or parts.fragment or not database or "/" in database:
        raise _wrong(f"its form is {_FORM}")
    named = dict(query)
    if unknown := sorted(named.keys() - _PARAMETERS):
        raise _wrong(f"{unknown[0]!a} is no parameter that may stand in it")
    told = {"dbname": database} | ({"user": unquote(whose)} if whose else {}) | _hosts(hosts) | named
    if any("\0" in value for value in told.values()):
        raise _wrong(f"its form is {_FORM}")
    server = Server(tuple(told.items()), password)
    _refuse_clear(told)
    return server


def _hosts(written: str) -> dict[str, str]:
    """Several with commas between them, each with a port or without."""
    if not written:
        return {}
    hosts, ports = [], []
    for one in written.split(","):
        host, colon, port = one.rpartition(":") if not one.endswith("]") else (one, "", "")
        if not colon:
            host, port = one, ""
        if port and not port.isdecimal():
            raise _wrong("a port is a number")
        hosts.append(unquote(host.strip("[]")))
        ports.append(port)
    return {"host": ",".join(hosts)} | ({"port": ",".join(ports)} if any(ports) else {})


def _refuse_clear(told: dict[str, str]) -> None:
    """Raise ConfigError for a server on the network without TLS: claims and octets would go over it in clear."""
    remote = [host for host in told.get("host", "").split(",") if not _is_local(host)]
    if (remote or "hostaddr" in told) and told.get("sslmode") not in _ENCRYPTED:
        where = remote[0] if remote else told["hostaddr"]
        raise _wrong(f"{where} is not this machine: add ?sslmode=verify-full&sslrootcert=FILE (or sslmode=require)")


def _is_local(host: str) -> bool:
    return host in {"", "localhost", "::1"} or host.startswith(("/", "@", "127."))


def _wrong(words: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, f"database.url: {words}", field="database.url")
