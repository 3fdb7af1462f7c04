"""Evidence about a draft that may have left: copies in mailboxes, and what the operator's own command finds.

Every source that cannot be looked at is said to be so; none is waited for longer than its time-out, and nothing here
ever concludes that a draft did not leave.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, ConfigError, OutboxError
from outbox.core.evidence import Evidence
from outbox.core.finding import printable
from outbox.core.grant import without_tokens
from outbox.keyfiles import read_secret
from outbox.operator.sought import Sought

if TYPE_CHECKING:
    from outbox.imap.session import Account

__all__ = ["Sought", "gather"]

_GRACE = 0.5  # seconds more for a look to say itself that its time is over
_MOST_SAID = 64 * 1024  # octets of the command's output that are kept
_LONGEST_LINE = 200  # characters of it that are shown
_COULD_NOT_START = (126, 127)  # of env(1)


def gather(settings: Settings, sought: Sought, *, timeout: float = 20.0) -> list[Evidence]:
    """What every source says, within about `timeout` seconds for all of them. Never raises."""
    found: list[Evidence] = []
    ended = threading.Event()

    def look() -> None:
        for evidence in _filed(settings, sought, timeout):
            found.append(evidence)  # noqa: PERF402  one by one: what was found before the time is over counts
        ended.set()

    looking = threading.Thread(target=look, daemon=True)  # looking a name up has no time-out of its own
    until = time.monotonic() + timeout
    looking.start()
    logged = _logged(settings, sought, timeout)
    looking.join(max(until - time.monotonic(), 0.0) + _GRACE)
    gathered = [*found, *logged]
    if not ended.is_set():
        gathered.append(Evidence("imap", None, f"not every folder was looked into within {timeout:g} s; try again"))
    return gathered


def _filed(settings: Settings, sought: Sought, timeout: float) -> Iterator[Evidence]:
    """What lies in the Sent and archive folders."""
    from outbox.operator.filed import look

    try:
        account, secret = _account(settings, timeout)
    except OutboxError as error:
        yield Evidence("imap", None, f"no folder was looked into: {error.message}")
        return
    except OSError as error:  # the authorities that SSL_CERT_FILE names
        yield Evidence("imap", None, f"no folder was looked into: TLS cannot be set up: {error.strerror}")
        return
    yield from look(account, secret, settings.reconcile.folders, sought)


def _account(settings: Settings, timeout: float) -> tuple[Account, Callable[[], str]]:
    """Where to look, and what gives the secret. A login belongs to its server: another server needs one of its own."""
    from outbox.imap.session import Account
    from outbox.imap.token_command import access_token

    own, inbox = settings.reconcile.mailbox, settings.mailbox
    section = "reconcile.mailbox" if own.url or own.username else "mailbox"
    server = _server(own.url or inbox.url or "")
    username = own.username if own.url or own.username else inbox.username
    if not username:
        raise _missing(f"{section}.username")

    def secret() -> str:
        if section == "reconcile.mailbox":
            return _password(settings)
        if inbox.token_command:
            return access_token(inbox.token_command, timeout=timeout)
        return settings.mailbox_password()

    tls = server.scheme == "imaps"
    account = Account(
        host=server.hostname or "",
        port=server.port or (993 if tls else 143),
        context=ssl.create_default_context() if tls else None,
        username=username,
        xoauth2=section == "mailbox" and inbox.auth == "xoauth2",
        folder="",
        read_only=True,
        timeout=timeout,
        ends_at=time.monotonic() + timeout,
        section=section,
        then="try again",
    )
    return account, secret


def _server(url: str) -> SplitResult:
    if not url or url.startswith("maildir:"):
        words = "reconcile.mailbox.url is not set, and mailbox.url is no IMAP server"
        raise ConfigError(Code.SETTING_MISSING, words, field="reconcile.mailbox.url")
    return urlsplit(url)


def _password(settings: Settings) -> str:
    name, file = "reconcile.mailbox.password_file", settings.reconcile.mailbox.password_file
    if file is None:
        raise _missing(name)
    octets = read_secret(settings.path(file), name, in_credentials=False)
    try:
        return octets.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(Code.SECRET_UNREADABLE, f"{name}: the file holds no UTF-8 text", field=name) from None


def _missing(name: str) -> ConfigError:
    return ConfigError(Code.SETTING_MISSING, f"{name} is not set", field=name)


def _logged(settings: Settings, sought: Sought, timeout: float) -> list[Evidence]:
    """What `reconcile.command` finds, where there is one."""
    words = shlex.split(settings.reconcile.command)
    if not words:
        return []
    try:
        said, code = _ran(["env", *_variables(sought), *words], timeout)
    except TimeoutError:
        return [
            Evidence("command", None, f"reconcile.command was not done within {timeout:g} s: nothing was looked at")
        ]
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        why = error.strerror if isinstance(error, OSError) else str(error)
        return [Evidence("command", None, f"reconcile.command could not be started: {why}")]
    return [_judged(said, code)]


def _judged(said: bytes, code: int) -> Evidence:
    text = without_tokens(said.decode("utf-8", "replace"))
    line = next((one for one in map(_one_line, text.splitlines()) if one), "")
    if code == 0 and line:
        return Evidence("command", True, f"reconcile.command found it: {line[:_LONGEST_LINE]}", text.encode())
    if code == 0:
        return Evidence("command", None, "reconcile.command ended with 0 and said nothing: that proves nothing")
    if code == 1:
        return Evidence("command", None, "reconcile.command does not find it: that proves nothing")
    how = f"ended with {code}" if code not in _COULD_NOT_START else "could not be started"
    return Evidence("command", None, f"reconcile.command {how}, so nothing was looked at; run it by hand")


def _one_line(text: str) -> str:
    return printable(text).strip()


def _variables(sought: Sought) -> list[str]:
    """For env(1): the environment itself is config's to read."""
    at = "" if sought.gap_at is None else datetime.fromtimestamp(sought.gap_at // MICROSECONDS, UTC).isoformat()
    named = {
        "MESSAGE_ID": sought.message_id,
        "DRAFT_ID": sought.draft_id,
        "QUEUE_ID": sought.queue_id or "",
        "GAP_AT": at,
        "RECIPIENTS": " ".join(sought.recipients),
    }
    return [f"{name}={_one_line(value)}" for name, value in named.items()]


def _ran(words: list[str], timeout: float) -> tuple[bytes, int]:
    """What a command printed, cut, and how it ended. Raises OSError, and TimeoutError once it was killed."""
    until = time.monotonic() + timeout
    with (
        subprocess.Popen(  # noqa: S603  the operator's own command, without a shell
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process,
        ExitStack() as unless_done,
    ):
        unless_done.callback(_kill, process)
        assert process.stdout is not None
        said = _read_until(process.stdout.fileno(), until)
        try:
            code = process.wait(max(until - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        unless_done.pop_all()
    return said, code


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its children: they hold its output open. It was not waited for, so the number is still its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _read_until(descriptor: int, until: float) -> bytes:
    """All that is written there, cut. Raises TimeoutError."""
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(until - time.monotonic(), 0.0)):
            octets = os.read(descriptor, _MOST_SAID)
            if not octets:
                return said
            said = (said + octets)[:_MOST_SAID]
            if time.monotonic() >= until:
                break
    raise TimeoutError
