"""Tell the operator: stderr, state file and command first, then a system draft; the relay may be what broke."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from outbox.clock import Clock, new_id
from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, OutboxError
from outbox.core.lifecycle import Room
from outbox.core.notice import Notice, sign_notice
from outbox.core.signing import KeyRing
from outbox.store.notices import insert_system
from outbox.store.writer import Writer

log = logging.getLogger("outbox.alerts")
_KEPT = 20
_COMMAND_TIMEOUT = 10  # seconds
_TTL = 7 * 86400 * MICROSECONDS


@dataclass(frozen=True, slots=True)
class Alert:
    """What happened, to which draft, when (microseconds UTC)."""

    code: Code
    message: str
    draft_id: str | None
    at: int


class Alerts:
    """One room's alerts."""

    def __init__(self, settings: Settings, room: Room, ring: KeyRing, writer: Writer, clock: Clock) -> None:
        self._operators = settings.operators
        self._sender = settings.notice_sender
        self._command = shlex.split(settings.alerts.command)
        self._file = settings.state_dir / f"{room}.json"
        self._room, self._ring, self._writer, self._clock = room, ring, writer, clock
        self._raised = _earlier(self._file)

    def tell(self, code: Code, message: str, *, draft_id: str | None = None, by_mail: bool = True) -> None:
        """Raise one alert. `by_mail` is false where a system draft is what went wrong: they never cause another."""
        message = "".join(character if character.isprintable() else " " for character in message).replace("=?", "= ?")
        alert = Alert(code, message, draft_id, self._clock())
        log.error(message, extra={"action": "alert", "code": code.value, "draft": draft_id})
        self._raised = [*self._raised, alert][-_KEPT:]
        self._write_state()
        self._run_command(alert)
        if by_mail:
            for operator in self._operators:
                self._insert_draft(alert, operator)

    def _write_state(self) -> None:
        written = self._file.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(json.dumps({"alerts": [asdict(alert) for alert in self._raised]}), encoding="utf-8")
            written.replace(self._file)
        except OSError as error:
            log.warning("%s: %s", self._file, error.strerror, extra={"action": "state-file"})

    def _run_command(self, alert: Alert) -> None:
        if not self._command:
            return
        try:
            subprocess.run(  # noqa: S603  the operator's own command, without a shell
                self._command,
                input=_text(alert).encode(),
                stdout=subprocess.DEVNULL,
                timeout=_COMMAND_TIMEOUT,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("alerts.command: %s", error, extra={"action": "alert-command"})

    def _insert_draft(self, alert: Alert, operator: str) -> None:
        now = self._clock()
        notice = Notice(
            sender=self._sender,
            recipient=operator,
            subject=f"[outbox] {alert.code}: {alert.message}"[:180],
            text=_text(alert),
            expires_at=now + _TTL,
            about=alert.draft_id,
        )
        try:
            signed = sign_notice(self._ring, notice, self._room, new_id(now), now)
            self._writer.run(lambda tx: insert_system(tx, signed, now=now))
        except OutboxError as error:
            log.warning("the alert could not be mailed: %s", error, extra={"action": "alert-mail"})


def never_left(draft_id: str) -> tuple[Code, str]:
    """What to tell where an approved draft ran out of time: somebody said yes to a mail that never left."""
    return Code.EXPIRED, f"draft {draft_id} was approved and expired before it was sent"


def _earlier(file: Path) -> list[Alert]:
    """What the last run of this room left in its state file, if that can be read."""
    try:
        return [Alert(**alert) for alert in json.loads(file.read_text())["alerts"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _text(alert: Alert) -> str:
    about = f"Draft {alert.draft_id}; `outbox show {alert.draft_id}` tells its story.\n" if alert.draft_id else ""
    return f"{alert.message}\n\nCode {alert.code}\n{about}"
