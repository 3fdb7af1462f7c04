"""A connection to an IMAP server, logged in, with one folder open; every failure is a line that says what to do."""

from __future__ import annotations

import base64
import imaplib
import math
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from imapclient import IMAPClient  # type: ignore[import-untyped]  # it has hints, and no py.typed
from imapclient.exceptions import InvalidCriteriaError, LoginError  # type: ignore[import-untyped]  # the same

from outbox.core.errors import Code, Unavailable
from outbox.imap.wire import Wire

IDLE_AGAIN = 9 * 60.0  # seconds; servers end IDLE after 30 minutes, and some routers forget after 10
LONGEST_WORDS = 200  # characters of a server's own
_BLOB = re.compile(r"[A-Za-z0-9+/=_-]{24,}")
_IMAPLIB = re.compile(r"command: [A-Z]+ => ")
_PASSING = ("[UNAVAILABLE]", "[INUSE]", "[LIMIT]", "[SERVERBUG]")  # RFC 5530: not the login's fault
# What imaplib and IMAPClient raise where a server fails, breaks off or makes no sense.
BROKEN = (
    imaplib.IMAP4.error, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError,
    RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Account:
    """Where to connect, as whom, and how the folder is opened; `timeout` in seconds for each silence of the server.

    From `ends_at` on, by the monotonic clock, nothing more is waited for. `section` of the settings says all this, and
    `then` is what becomes of a failure that may pass.
    """

    host: str
    port: int
    context: ssl.SSLContext | None
    username: str
    xoauth2: bool
    folder: str
    read_only: bool
    timeout: float
    ends_at: float = math.inf
    section: str = "mailbox"
    then: str = "it is tried again"

    @property
    def place(self) -> str:
        """For people."""
        return f"{self.host}:{self.port}"

    @property
    def setting(self) -> str:
        """The setting that says where it is."""
        return f"{self.section}.url"


class Session:
    """What `connect` returns. `client` may be asked anything but IDLE, after `rouse`."""

    def __init__(self, client: IMAPClient, wire: Wire, opened: dict[bytes, object], made_at: float) -> None:
        self.client, self.wire, self.made_at = client, wire, made_at
        self.validity = int(str(opened[b"UIDVALIDITY"]))
        self.messages = int(str(opened.get(b"EXISTS", 0)))
        self.capabilities = frozenset(word.decode("ascii", "replace") for word in client.capabilities())
        self.idles = "IDLE" in self.capabilities
        self._idle_since = 0.0
        wire.untagged_responses.clear()

    def uid(self, number: int) -> str:
        """The lasting name of a message: its number says nothing once the folder has another UIDVALIDITY."""
        return f"{self.validity}.{number}"

    def number(self, uid: str) -> int | None:
        """The message's number here, or None for a name from another life of the folder."""
        validity, _, number = uid.partition(".")
        return int(number) if validity == str(self.validity) and re.fullmatch("[0-9]{1,10}", number) else None

    def listen(self, seconds: float, now: float) -> bool:
        """IDLE so long at most; whether messages came or went."""
        if self.wire.idling and now - self._idle_since >= IDLE_AGAIN:
            self.wire.rouse()
        if not self.wire.idling:
            self.wire.idle()
            self._idle_since = now
        return self.wire.hear(seconds)

    def rouse(self, *, for_news: bool) -> bool:
        """End IDLE; whether messages came or went meanwhile. Dovecot finds by SEARCH only what it had told of."""
        self.wire.rouse()
        if for_news:
            self.wire.allow()
            self.wire.noop()
        return self.wire.changed()


def connect(account: Account, secret: str, now: float) -> Session:
    """Connect, log in, open the folder. Raises Unavailable; nothing is left open then."""
    client, wire = reach(account, secret)
    with ExitStack() as unless_open:
        unless_open.callback(wire.shutdown)
        with _blaming(account, "broke off as the folder was opened"):
            opened = _open_folder(client, wire, account)
            session = Session(client, wire, opened, now)
        unless_open.pop_all()
    return session


def reach(account: Account, secret: str) -> tuple[IMAPClient, Wire]:
    """Connect and log in; no folder is open yet. Raises Unavailable; nothing is left open then."""
    with ExitStack() as unless_in:
        with _blaming(account, "cannot be reached"):
            timeout = min(account.timeout, max(account.ends_at - time.monotonic(), 0.01))
            wire = Wire(account.host, account.port, context=account.context, timeout=timeout, ends_at=account.ends_at)
        unless_in.callback(wire.shutdown)
        client = _Client(wire, account)
        _log_in(client, wire, account, secret)
        unless_in.pop_all()
    return client, wire


@contextmanager
def _blaming(account: Account, what: str) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise unavailable(account, what, error) from None


def unavailable(account: Account, what: str, error: BaseException) -> Unavailable:
    """One line: what happened, to what, what to do."""
    words = f"{account.setting}: {account.place} {what}: {words_of(error)}; {_advice(account, error)}"
    return Unavailable(Code.MAILBOX_UNREACHABLE, words, field=account.setting)


def is_refusal(error: BaseException) -> bool:
    """Whether this was a whole NO or BAD, after which the connection is as good as before."""
    return type(error) in {imaplib.IMAP4.error, InvalidCriteriaError}  # the second is a BAD to SEARCH, with advice


def words_of(error: BaseException) -> str:
    """What an error says, as one short line in which nothing looks like a credential."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate could not be verified ({error.verify_message.rstrip('.')})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({str(error.reason).lower().replace('_', ' ')})"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = _IMAPLIB.sub("", _text_of(error).partition("\n\n")[0])
    return "it hung up" if text == "socket error: EOF" else _cleaned(text)


def _text_of(error: BaseException) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _advice(account: Account, error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        named = f"{account.setting} must name the host as its certificate does"
        return f"{named}, and the authority be trusted (SSL_CERT_FILE)"
    if isinstance(error, (socket.gaierror, ConnectionRefusedError, ssl.SSLError)):
        return f"see that {account.setting} has the right host and port"
    return account.then


def _cleaned(text: str, *secrets: str) -> str:
    for secret in filter(None, secrets):
        text = text.replace(secret, "...")
    text = _BLOB.sub("...", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text[:4000]).split())[:LONGEST_WORDS]


class _Client(IMAPClient):  # type: ignore[misc]  # untyped
    """IMAPClient over a Wire."""

    def __init__(self, wire: Wire, account: Account) -> None:
        self._wire = wire
        super().__init__(account.host, account.port, ssl=account.context is not None, timeout=account.timeout)
        self.normalise_times = False
        wire.debug = 0  # IMAPClient asks for everything that is said to be logged, messages and all

    def _create_IMAP4(self) -> Wire:  # noqa: N802  IMAPClient's name
        return self._wire


class _Answers:
    """A SASL mechanism with one answer. XOAUTH2 wants an empty one to the reason it gives; then no more is said."""

    def __init__(self, answer: str) -> None:
        self._left = [answer.encode(), b""]

    def __call__(self, _challenge: bytes) -> bytes:
        if not self._left:
            raise imaplib.IMAP4.abort("the server asks on and on")
        return self._left.pop(0)


def _log_in(client: IMAPClient, wire: Wire, account: Account, secret: str) -> None:
    """With AUTHENTICATE where the server knows the mechanism: it carries any password without quoting."""
    attempt, answer = _login(client, account, secret)
    wire.allow()
    try:
        attempt()
    except LoginError as error:
        cause = error.__context__
        if cause is not None and is_refusal(cause):
            raise _refused(account, cause, secret, answer) from None
        raise _broke_at_login(account) from None
    except OSError as error:
        raise unavailable(account, "was lost during the login", error) from None
    except BROKEN:
        raise _broke_at_login(account) from None


def _login(client: IMAPClient, account: Account, secret: str) -> tuple[Callable[[], object], str]:
    """How to log in, and what is said on the way."""
    offered = client.capabilities()
    if account.xoauth2:
        if b"AUTH=XOAUTH2" not in offered:
            raise _no_such_login(account, 'mailbox.auth: {} does not offer XOAUTH2; write auth = "password"')
        answer = f"user={account.username}\1auth=Bearer {secret}\1\1"
        return lambda: client.sasl_login("XOAUTH2", _Answers(answer)), answer
    if b"AUTH=PLAIN" in offered:
        answer = f"\0{account.username}\0{secret}"
        return lambda: client.sasl_login("PLAIN", _Answers(answer)), answer
    if b"LOGINDISABLED" in offered:
        raise _no_such_login(account, 'mailbox.auth: {} takes no password; is auth = "xoauth2" meant?')
    said = account.username + secret
    if not said.isascii() or not said.isprintable():
        raise _no_such_login(
            account, account.section + ".password_file: {} takes no login with characters beyond ASCII"
        )
    quoted = account.username.replace("\\", "\\\\").replace('"', '\\"')  # imaplib quotes the password alone
    return lambda: client.login(f'"{quoted}"', secret), f"{account.username} {secret}"


def _no_such_login(account: Account, words: str) -> Unavailable:
    return Unavailable(Code.MAILBOX_REFUSED, words.format(account.place), field=words.partition(":")[0])


def _broke_at_login(account: Account) -> Unavailable:
    """Without the server's words: what it repeats here may be the password in an unforeseen spelling."""
    words = f"{account.setting}: {account.place} broke off during the login; {account.then}"
    return Unavailable(Code.MAILBOX_UNREACHABLE, words, field=account.setting)


def _refused(account: Account, cause: BaseException, secret: str, answer: str) -> Unavailable:
    text = _text_of(cause)
    if "command error: BAD" in text:
        text = "it did not understand it"  # and may repeat it, as Python spells octets
    encoded = (base64.b64encode(one.encode()).decode() for one in (answer, secret))
    words = _cleaned(text, *encoded, answer, secret, secret.replace("\\", "\\\\").replace('"', '\\"'))
    if text.upper().startswith(_PASSING):
        said_now = f"{account.setting}: {account.place} cannot take a login now: {words}; {account.then}"
        return Unavailable(Code.MAILBOX_UNREACHABLE, said_now, field=account.setting)
    setting = "mailbox.auth" if account.xoauth2 else f"{account.section}.password_file"
    refused = f"{setting}: {account.place} refuses the login of {account.username}: {words}"
    return Unavailable(Code.MAILBOX_REFUSED, refused, field=setting)


def _open_folder(client: IMAPClient, wire: Wire, account: Account) -> dict[bytes, object]:
    wire.allow()
    try:
        opened: dict[bytes, object] = client.select_folder(account.folder, readonly=account.read_only)
    except imaplib.IMAP4.readonly:
        words = f"mailbox.dedicated: at {account.place} {account.folder!r} may only be read; write dedicated = false"
        raise Unavailable(Code.MAILBOX_UNREACHABLE, words, field="mailbox.dedicated") from None
    except imaplib.IMAP4.error as error:
        if not is_refusal(error):
            raise
        words = (
            f"mailbox.url: {account.place} does not open the folder {account.folder!r} for {account.username}: "
            f"{words_of(error)}; name one that is there"
        )
        raise Unavailable(Code.MAILBOX_UNREACHABLE, words, field="mailbox.url") from None
    if b"UIDVALIDITY" not in opened:
        raise imaplib.IMAP4.abort("the folder has no UIDVALIDITY, so its messages have no lasting names")
    return opened
