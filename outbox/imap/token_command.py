"""A fresh access token for XOAUTH2, from a command of the operator's."""

from __future__ import annotations

import shlex
import subprocess

from outbox.core.errors import Code, Unavailable

_TIMEOUT = 30.0  # seconds


def access_token(command: str, *, timeout: float = _TIMEOUT) -> str:
    """What the command prints. Raises Unavailable, without its output, where it fails, or prints nothing in time."""
    try:
        done = subprocess.run(  # noqa: S603  the operator's own command, without a shell
            shlex.split(command), capture_output=True, timeout=timeout, check=True, stdin=subprocess.DEVNULL
        )
        token = done.stdout.decode("ascii").strip()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise Unavailable(
            Code.MAILBOX_REFUSED, f"mailbox.token_command: it gave no access token ({why}); run it by hand"
        ) from None
    if not token or not token.isprintable():
        raise Unavailable(Code.MAILBOX_REFUSED, "mailbox.token_command: it printed no access token; run it by hand")
    return token
