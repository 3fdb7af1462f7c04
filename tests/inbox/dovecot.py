"""A real IMAP server: Dovecot on loopback in a folder of its own, with an account for every name that logs in."""

from __future__ import annotations

import imaplib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.relay.certificate import Certificate

BOUND = 30.0  # seconds that anything here may take
PASSWORD = "pass\"word\\of'him"
SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
PROGRAM = shutil.which("dovecot", path=SEARCHED)
MISSING = "Dovecot is not here: `make servers` installs it, or says how"

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
auth_verbose = yes
protocols = imap
listen = 127.0.0.1
disable_plaintext_auth = no
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
default_internal_user = {owner}
default_internal_group = {group}
default_login_user = {owner}
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:~/Maildir
mailbox_idle_check_interval = 1 s
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={owner} gid={group} home={folder}/homes/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""


class Dovecot:
    """Started as a context manager. `port` is plain IMAP; `tls_port` is there where a certificate was given.

    As root the mail belongs to nobody, as Dovecot wants it; as anybody else, to him.
    """

    def __init__(
        self, *, certificate: Certificate | None = None, mechanisms: str = "plain xoauth2", settings: str = ""
    ) -> None:
        self._certificate, self._mechanisms, self._settings = certificate, mechanisms, settings
        self._owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="imap-"))  # short: it holds sockets
        self.folder.chmod(0o755)
        (self.folder / "homes").mkdir()
        self.own(self.folder / "homes")
        self.port, self.tls_port = _free_port(), _free_port() if self._certificate else 0
        self._write_configuration()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    @property
    def log(self) -> str:
        """What the server logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def account(self, name: str) -> Account:
        """The mailbox of one login; it is there as soon as it is named."""
        account = Account(self, name)
        for part in ("", "new", "cur", "tmp"):
            (account.maildir / part).mkdir(parents=True, exist_ok=True)
        for made in (account.maildir.parent, account.maildir, *account.maildir.iterdir()):
            self.own(made)
        return account

    def start(self) -> None:
        """Start, and wait until it greets."""
        assert PROGRAM is not None, MISSING
        self._process = subprocess.Popen(
            [PROGRAM, "-F", "-c", self.folder / "dovecot.conf"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        end = time.monotonic() + BOUND
        while not self._greets():
            assert time.monotonic() < end, self.log
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)
        assert self._process.poll() is None, (self._process.communicate()[1], self.log)

    def stop(self) -> None:
        """Stop as an operator would, so that every client is told goodbye."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill every process of it at once."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it, and start it again on the same port."""
        self.kill()
        self.start()

    def doveadm(self, *arguments: str) -> str:
        """Run the server's own tool."""
        tool = shutil.which("doveadm", path=SEARCHED)
        assert tool is not None, MISSING
        command = [tool, "-c", str(self.folder / "dovecot.conf"), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
        assert ran.returncode == 0, (command, ran.stderr)
        return ran.stdout

    def own(self, made: Path) -> None:
        """Give a file or folder to whom mail belongs."""
        if os.getuid() == 0:
            os.chown(made, self._owner.pw_uid, self._owner.pw_gid)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(BOUND)
        assert process.stderr is not None
        process.stderr.close()

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), BOUND) as opened:
                return opened.recv(4) == b"* OK"
        except OSError:
            return False

    def _write_configuration(self) -> None:
        group = subprocess.run(["id", "-gn", self._owner.pw_name], capture_output=True, text=True, check=True)
        text = CONFIGURATION.format(
            folder=self.folder,
            owner=self._owner.pw_name,
            group=group.stdout.strip(),
            mechanisms=self._mechanisms,
            password=PASSWORD,
            port=self.port,
            tls_port=self.tls_port,
        )
        if self._certificate is None:
            text += "ssl = no\n"
        else:
            text += f"ssl = yes\nssl_cert = <{self._certificate.certificate}\nssl_key = <{self._certificate.key}\n"
        (self.folder / "dovecot.conf").write_text(text + self._settings)


@dataclass(frozen=True)
class Account:
    """One login's mailbox, as the world around it changes it."""

    server: Dovecot
    name: str
    password: str = PASSWORD

    @property
    def maildir(self) -> Path:
        """Where its mail lies."""
        return self.server.folder / "homes" / self.name / "Maildir"

    def deliver(self, octets: bytes) -> Path:
        """Drop a message into the Maildir, as a delivery agent does."""
        written = len(list(self.maildir.glob("*/*")))
        name = f"{time.time_ns()}.M{written}.test"
        file = self.maildir / "tmp" / name
        file.write_bytes(octets.replace(b"\r\n", b"\n"))
        self.server.own(file)
        return file.rename(self.maildir / "new" / name)

    def append(self, octets: bytes, *, folder: str = "INBOX", flags: str = "", arrived: datetime | None = None) -> int:
        """Put a message there by IMAP; its uid."""
        with self._logged_in() as client:
            moment = imaplib.Time2Internaldate(arrived) if arrived is not None else None
            kind, said = client.append(folder, flags, moment, octets)  # type: ignore[arg-type]  # None is allowed
            assert kind == "OK", said
            return int(said[0].split(b"]")[0].split()[-1])

    def flags(self, folder: str = "INBOX") -> dict[int, set[str]]:
        """The flags of every message by uid, without the one for recent mail."""
        told = self.server.doveadm("-f", "tab", "fetch", "-u", self.name, "uid flags", "mailbox", folder)
        rows = [line.split("\t") for line in told.splitlines()[1:]]
        return {int(uid): set(flags.split()) - {"\\Recent"} for uid, flags in rows}

    def expunge(self, uid: int) -> None:
        """Take a message out, as its owner does with another client."""
        self.server.doveadm("expunge", "-u", self.name, "mailbox", "INBOX", "uid", str(uid))

    def renumber(self, validity: int) -> None:
        """Give the folder another UIDVALIDITY."""
        self.server.doveadm("mailbox", "update", "--uid-validity", str(validity), "-u", self.name, "INBOX")

    def kick(self) -> None:
        """Disconnect every client of this login."""
        self.server.doveadm("kick", self.name)

    @contextmanager
    def _logged_in(self) -> Iterator[imaplib.IMAP4]:
        client = imaplib.IMAP4("127.0.0.1", self.server.port, BOUND)
        try:
            client.authenticate("PLAIN", lambda _: f"\0{self.name}\0{self.password}".encode())
            yield client
        finally:
            client.logout()


def _free_port() -> int:
    """Below those that the kernel gives to clients, so that none takes it while the server is down."""
    for port in random.sample(range(15_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")
