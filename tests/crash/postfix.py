"""A real relay: Postfix on loopback, with configuration, queue and mail in a folder of its own.

What it accepted is what it delivered into a Maildir, one file a recipient, once its queue is empty.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from email import message_from_bytes, policy
from pathlib import Path
from types import TracebackType
from typing import Self

BOUND = 30.0  # seconds that anything here may take
PROGRAM = shutil.which("postfix", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
GONE, BUSY = "gone@customer.example", "busy@customer.example"
MISSING = (
    "Postfix is not here: `make servers` installs it, or says how"
    if PROGRAM is None
    else "Postfix starts only as root"
    if os.geteuid() != 0
    else None
)

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mail_owner = postfix
setgid_group = postdrop
myhostname = relay.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
biff = no
default_transport = error:this relay reaches nobody
virtual_mailbox_domains = customer.example, acme.example
virtual_mailbox_maps = static:sink/
virtual_mailbox_base = {folder}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_recipient_restrictions =
  check_recipient_access inline:{{ {{ {gone} = 550 5.1.1 Nobody }}, {{ {busy} = 451 4.3.0 Later }} }},
  permit_mynetworks, reject
"""
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
showq unix n - n - - showq
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """Started as a context manager, as root. `refused` for good is GONE, for now BUSY."""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="postfix-"))
        self.folder.chmod(0o755)
        try:
            self._configure()
            self._run("start")
            self._wait_for_greeting()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run([str(PROGRAM), "-c", self._config, "stop"], capture_output=True, check=False)
        shutil.rmtree(self.folder)

    @property
    def log(self) -> str:
        """What Postfix logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def drafts(self) -> Counter[str]:
        """How often each draft reached the recipient that it reached most often; under "" what names none."""
        copies = Counter((draft_id, recipient) for draft_id, recipient, _ in self._delivered())
        most: Counter[str] = Counter()
        for (draft_id, _), count in copies.items():
            most[draft_id] = max(most[draft_id], count)
        return most

    def strays(self, approved: Mapping[str, tuple[str, Sequence[str], bytes]]) -> list[bytes]:
        """What was delivered and is not what was approved, or went to somebody else. See `Adversary.strays`."""
        return [
            octets
            for draft_id, recipient, octets in self._delivered()
            if draft_id not in approved
            or recipient not in approved[draft_id][1]
            or not octets.endswith(approved[draft_id][2].replace(b"\r\n", b"\n"))
        ]

    def settle(self) -> None:
        """Wait until everything that was accepted has been delivered."""
        end = time.monotonic() + BOUND
        while self._queued():
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def forget(self) -> None:
        """Throw away what was delivered so far."""
        self.settle()
        for file in (self.folder / "mail").glob("sink/new/*"):
            file.unlink()

    def _configure(self) -> None:
        nobody, owner = pwd.getpwnam("nobody"), pwd.getpwnam("postfix")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        for name in ("conf", "queue", "data", "mail"):
            (self.folder / name).mkdir()
        os.chown(self.folder / "data", owner.pw_uid, owner.pw_gid)
        os.chown(self.folder / "mail", nobody.pw_uid, nobody.pw_gid)
        self._config = self.folder / "conf"
        values = {"folder": self.folder, "uid": nobody.pw_uid, "gid": nobody.pw_gid, "gone": GONE, "busy": BUSY}
        (self._config / "main.cf").write_text(MAIN.format(**values))
        (self._config / "master.cf").write_text(MASTER.format(port=self.port))

    def _run(self, verb: str) -> None:
        done = subprocess.run([str(PROGRAM), "-c", self._config, verb], capture_output=True, text=True, check=False)
        log = self.log if (self.folder / "log").exists() else ""
        assert done.returncode == 0, done.stdout + done.stderr + log

    def _wait_for_greeting(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=BOUND) as probe:
            assert probe.recv(100).startswith(b"220"), self.log
            probe.sendall(b"QUIT\r\n")

    def _queued(self) -> bool:
        folders = ("maildrop", "incoming", "active", "deferred", "hold")
        return any(file.is_file() for name in folders for file in (self.folder / "queue" / name).rglob("*"))

    def _delivered(self) -> list[tuple[str, str, bytes]]:
        """Draft, recipient and octets of each file in the Maildir."""
        found = []
        for file in (self.folder / "mail" / "sink").glob("new/*"):
            octets = file.read_bytes()
            message = message_from_bytes(octets, policy=policy.compat32)
            found.append((str(message["X-Outbox-Draft"] or ""), str(message["X-Original-To"]), octets))
        return found
