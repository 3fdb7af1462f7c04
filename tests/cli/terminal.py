"""The command line on a terminal: what a person sees there, as text."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from tests.cli.shell import TIMEOUT, Done, Shell

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(shell: Shell, *words: str) -> Done:
    """Run a command whose stdout is a terminal of its own; colours are taken out, stderr is apart."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "CREDENTIALS_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "outbox", *words],
        cwd=shell.folder,
        env=kept | {"PYTHONIOENCODING": "utf-8"} | shell.environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    said = bytearray()
    try:
        while chunk := _read(ours):
            said += chunk
        _, complaint = process.communicate(timeout=TIMEOUT)
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    text = _COLOUR.sub("", said.decode()).replace("\r\n", "\n")
    return Done(process.returncode, text, complaint.decode())


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: nobody holds the other side any more
        return b""
