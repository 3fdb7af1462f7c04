"""What a room found out about what it stands on, one line each, as `outbox doctor` prints it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from outbox.core.errors import OutboxError

LONGEST = 400  # characters of each sentence
_MOST = 4000  # characters of a server's words that are looked at
_SHORTEST_SECRET = 4  # shorter ones are in every second word
_LEFT_OUT = "(left out)"
_LONG = 24  # characters from which a blob may be a login as it is on the wire
_BLOB = re.compile(r"[A-Za-z0-9+/=_-]+")
_ID = re.compile(r"[0-9A-Fa-f-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check, what was found, and what to do about it; both are kept to one printable line of LONGEST characters.

    `passed` is False where the outbox cannot work so: `doctor` then fails. It is None where nothing of the kind is
    said: with something `todo` that is a warning, and without it, it could not be looked at, or was not asked for.
    """

    check: str
    passed: bool | None
    why: str
    todo: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "why", one_line(self.why))
        object.__setattr__(self, "todo", one_line(self.todo))

    @property
    def mark(self) -> Literal["ok", "warn", "FAIL", "-"]:
        """The one word that stands first."""
        if self.passed is not None:
            return "ok" if self.passed else "FAIL"
        return "warn" if self.todo else "-"


def failed(check: str, error: OutboxError, todo: str = "") -> Finding:
    """An error as a finding: what it says after a semicolon is what to do, and else `todo`."""
    why, _, said = error.message.partition("; ")
    return Finding(check, False, why, said or todo)


def one_line(text: str) -> str:
    """Printable characters on one line, at most LONGEST of them."""
    folded = " ".join(printable(text).split())
    return folded if len(folded) <= LONGEST else f"{folded[: LONGEST - 3]}..."


def without_secrets(text: str, secrets: Iterable[str | None]) -> str:
    """`text` of a server without these secrets, in clear, in hex or in base64, nor anything that looks like a login."""
    text = without_forms(text, secrets)
    return _BLOB.sub(lambda found: _LEFT_OUT if _is_login(found[0]) else found[0], text)


def without_forms(text: str, secrets: Iterable[str | None]) -> str:
    """`text` without these secrets, in clear, in hex or in base64; long words that are none of them stay."""
    text = printable(text)
    for secret in secrets:
        if secret is not None and len(secret) >= _SHORTEST_SECRET:
            text = re.sub(re.escape(secret), _LEFT_OUT, text, flags=re.IGNORECASE)
            text = _BLOB.sub(partial(_left, tuple(_forms(secret))), text)
    return text


def _is_login(blob: str) -> bool:
    return len(blob) >= _LONG and not _ID.fullmatch(blob)


def _left(forms: tuple[str, ...], blob: re.Match[str]) -> str:
    return _LEFT_OUT if any(form in blob[0].lower() for form in forms) else blob[0]


def printable(text: str) -> str:
    """`text` of a stranger with a blank for whatever a terminal or a log would act on; at most 4000 characters."""
    return "".join(character if character.isprintable() else " " for character in text[:_MOST])


def _forms(secret: str) -> Iterator[str]:
    """The secret's hex, and the characters that its base64 has in common wherever in a text it stands."""
    octets = secret.encode()
    yield octets.hex()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + octets).decode()
        sure = whole[-(-before * 8 // 6) : (before + len(octets)) * 8 // 6]
        if len(sure) >= _SHORTEST_SECRET:
            yield sure.lower()
            yield sure.lower().translate(str.maketrans("+/", "-_"))
