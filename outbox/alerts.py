"""Tell the operator: stderr, state file and command first, then a system draft; the relay may be what broke."""

from __future__ import annotations

import logging
import shlex
import subprocess
import threading
from dataclasses import asdict, dataclass, replace

from outbox.clock import Clock, new_id
from outbox.config import Settings
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, OutboxError
from outbox.core.finding import printable
from outbox.core.lifecycle import Room
from outbox.core.notice import NOTICE_TTL, Notice, sign_notice
from outbox.core.signing import KeyRing
from outbox.state_file import Json, StateFile
from outbox.store.notices import insert_system
from outbox.store.writer import Writer

log = logging.getLogger("outbox.alerts")
_KEPT = 20
_COMMAND_TIMEOUT = 10  # seconds
COOLDOWN = 3600 * MICROSECONDS  # in which the same is not mailed again


@dataclass(frozen=True, slots=True)
class Alert:
    """What happened, to which draft, when (microseconds UTC)."""

    code: Code
    message: str
    draft_id: str | None
    at: int
    told: bool = False  # whoever is to be told has been, as far as it lies with this process

    def repeats(self, earlier: Alert) -> bool:
        """Whether it says the same again: of one draft the same code, else the same words."""
        same = self.message == earlier.message if self.draft_id is None else self.draft_id == earlier.draft_id
        return earlier.told and same and self.code == earlier.code and 0 <= self.at - earlier.at < COOLDOWN


class Alerts:
    """One room's alerts, and what is wrong for as long as it lasts; both are in its state file."""

    def __init__(self, settings: Settings, room: Room, ring: KeyRing, writer: Writer, clock: Clock) -> None:
        self._operators = settings.operators
        self._sender = settings.notice_sender
        self._command = shlex.split(settings.alerts.command)
        self.state = StateFile(settings.state_dir / f"{room}.json", room, clock)
        self._room, self._ring, self._writer, self._clock = room, ring, writer, clock
        self._raised = _earlier(self.state)
        self._open: dict[Code, str] = {}
        self._guard = threading.Lock()
        self.state.put(self._fields())
        if self._raised:
            self._write_state()  # else the loop's first write would leave them out

    def tell(
        self, code: Code, message: str, *, draft_id: str | None = None, by_mail: bool = True, lasts: bool = False
    ) -> None:
        """Raise one alert; the same within the cooldown is only logged.

        `by_mail` is false where a system draft is what went wrong: they never cause another. What `lasts` is shown as
        open until `over`.
        """
        message = printable(message).replace("=?", "= ?")
        alert = Alert(code, message, draft_id, self._clock())
        with self._guard:
            repeated = any(alert.repeats(earlier) for earlier in self._raised)
            if lasts:
                self._open[code] = message
            if not repeated:
                self._raised = [*self._raised, alert][-_KEPT:]
        level = logging.INFO if repeated else logging.ERROR
        log.log(level, "%s", message, extra={"action": "alert", "code": code.value, "draft": draft_id})
        self._write_state()
        if repeated:
            return
        self._run_command(alert)
        if by_mail:
            for operator in self._operators:
                self._insert_draft(alert, operator)
        with self._guard:
            self._raised = [replace(one, told=True) if one == alert else one for one in self._raised]
        self._write_state()

    def over(self, code: Code) -> None:
        """What lasted is over."""
        with self._guard:
            was_open = self._open.pop(code, None) is not None
        if was_open:
            self._write_state()

    def _write_state(self) -> None:
        self.state.write(self._fields())

    def _fields(self) -> dict[str, Json]:
        return {
            "alerts": [asdict(alert) for alert in self._raised],
            "open": [{"code": code.value, "message": message} for code, message in self._open.items()],
        }

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
            expires_at=now + NOTICE_TTL,
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


def _earlier(state: StateFile) -> list[Alert]:
    """What the last run of this room left in its state file, as far as that can be read."""
    said = state.earlier().get("alerts")
    return [alert for one in (said if isinstance(said, list) else []) if (alert := _parse(one)) is not None][-_KEPT:]


def _parse(fields: object) -> Alert | None:
    match fields:
        case {"code": str(code), "message": str(message), "draft_id": None | str() as draft_id, "at": int(at)}:
            told = isinstance(fields, dict) and fields.get("told") is True
            return Alert(Code(code), message, draft_id, at, told) if code in set(Code) else None
    return None


def _text(alert: Alert) -> str:
    about = f"Draft {alert.draft_id}; `outbox show {alert.draft_id}` tells its story.\n" if alert.draft_id else ""
    return f"{alert.message}\n\nCode {alert.code}\n{about}"
