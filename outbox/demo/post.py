"""Where the founder's replies arrive: a real Dovecot on loopback where that is installed, else a Maildir."""

from __future__ import annotations

import getpass
import grp
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_FOLDERS = ("new", "cur", "tmp")
_LOGIN = "outbox"
_STARTS_WITHIN = 10.0  # seconds
_CONFIGURATION = """\
protocols = imap
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
ssl = no
disable_plaintext_auth = no
default_internal_user = {internal}
default_login_user = {login}
default_internal_group = {group}
first_valid_uid = 1
mail_location = maildir:{maildir}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


def find_dovecot() -> str | None:
    """The program, wherever the system keeps it."""
    return shutil.which("dovecot") or shutil.which("dovecot", path="/usr/sbin:/usr/local/sbin")


class Post:
    """One mailbox in a folder. Use as a context manager; `init` are the settings of it for `outbox init`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._maildir = folder, folder / "Maildir"
        self._program = find_dovecot()
        self._delivered = 0
        self.port = 0

    @property
    def is_imap(self) -> bool:
        """Whether a real IMAP server answers for it."""
        return self._program is not None

    @property
    def url(self) -> str:
        """What mailbox.url takes."""
        return f"imap://127.0.0.1:{self.port}/INBOX" if self.is_imap else "maildir:Maildir"

    @property
    def settings(self) -> str:
        """Lines of the [mailbox] section beside its url."""
        return f'username = "{_LOGIN}"\npassword_file = "keys/mailbox.password"\n' if self.is_imap else ""

    def __enter__(self) -> Self:
        for part in _FOLDERS:
            (self._maildir / part).mkdir(parents=True)
        if self._program is not None:
            self._start(self._program)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_imap:
            self._server.terminate()
            self._server.wait()

    def write_password(self, file: Path) -> None:
        """What a person would put into mailbox.password_file."""
        if self.is_imap:
            file.touch(mode=0o600)
            file.write_text(self._password)

    def deliver(self, octets: bytes) -> None:
        """Put a message into the mailbox, as a mail server does."""
        self._delivered += 1
        name = f"{time.time():.6f}.{self._delivered}.demo"
        written = self._maildir / "tmp" / name
        written.write_bytes(octets)
        if os.geteuid() == 0 and self.is_imap:
            os.chown(written, self._owner.pw_uid, self._owner.pw_gid)
        written.rename(self._maildir / "new" / name)

    def _start(self, program: str) -> None:
        home = self._folder / "dovecot"
        for part in ("run", "state", "home"):
            (home / part).mkdir(parents=True)
        self._password = secrets.token_urlsafe(12)
        root = os.geteuid() == 0
        self._owner = pwd.getpwnam("mail") if root else pwd.getpwuid(os.geteuid())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        if root:
            for path in (home / "home", self._maildir, *(self._maildir / part for part in _FOLDERS)):
                os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
            self._folder.chmod(0o711)
        me = getpass.getuser()
        text = _CONFIGURATION.format(
            folder=home,
            maildir=self._maildir,
            internal="dovecot" if root else me,
            login="dovenull" if root else me,
            group="dovecot" if root else grp.getgrgid(self._owner.pw_gid).gr_name,
            uid=self._owner.pw_uid,
            gid=self._owner.pw_gid,
            port=self.port,
            password=self._password,
        )
        configuration = home / "dovecot.conf"
        configuration.write_text(text)
        self._server = subprocess.Popen(  # noqa: S603  the program that was found
            [program, "-F", "-c", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait_for_greeting()

    def _wait_for_greeting(self) -> None:
        ends = time.monotonic() + _STARTS_WITHIN
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                    if connection.recv(4).startswith(b"* OK"):
                        return
            except OSError:
                if time.monotonic() > ends or self._server.poll() is not None:
                    raise
                time.sleep(0.02)
