"""The corpus of replies: raw letters in the shapes of real clients, with places for what a running outbox knows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

from outbox.inbox.judgement import Judgement
from outbox.inbox.room import explain
from tests.house import APPROVAL, FOUNDER, SECOND, House

CORPUS = Path(__file__).parent.parent / "corpus"
DAY = 86400 * SECOND


@dataclass(frozen=True)
class Letter:
    """One raw letter of the corpus and what it is meant to come to."""

    folder: str
    name: str
    expected: dict[str, Any]

    def filled(self, asked: Asked) -> bytes:
        """Its octets, as an answer to what `asked` asked."""
        octets = (CORPUS / self.folder / f"{self.name}.eml").read_bytes()
        for word, value in asked.words().items():
            octets = octets.replace(b"{{" + word.encode() + b"}}", value.encode())
        return octets


def letters(folder: str) -> list[Letter]:
    """Every letter of one folder."""
    expected = tomllib.loads((CORPUS / folder / "expected.toml").read_text(encoding="utf-8"))
    return [Letter(folder, name, facts) for name, facts in expected.items()]


@dataclass(frozen=True)
class Asked:
    """A house that has asked about two drafts, and both requests as the approver got them."""

    house: House
    draft_id: str
    request: EmailMessage
    other_id: str
    other: EmailMessage

    def words(self) -> dict[str, str]:
        """What stands in the letters' places."""
        token, other = token_of(self.request), token_of(self.other)
        return {
            "APPROVER": FOUNDER,
            "REPLY_TO": str(self.request["Reply-To"]),
            "OTHER_REPLY_TO": str(self.other["Reply-To"]),
            "REQUEST_ID": str(self.request["Message-ID"]),
            "OTHER_REQUEST_ID": str(self.other["Message-ID"]),
            "DRAFT_MESSAGE_ID": self.house.story(self.draft_id).draft.message_id,
            "SUBJECT": str(self.request["Subject"]),
            "OTHER_SUBJECT": str(self.other["Subject"]),
            "TAG": token[:6],
            "OTHER_TAG": other[:6],
            "TOKEN": token,
            "TOKEN_UPPER": token.upper(),
            "TOKEN_SHORT": token[:-1],
            "TOKEN_FLIPPED": f"{token[:20]}{'a' if token[20] != 'a' else 'b'}{token[21:]}",
            "TOKEN_MIXED": token[:13] + other[13:],
            "PLACEHOLDER": token[:13] + "0" * 26,
            "DATE": self.date(),
            "OLD_DATE": self.date(-2 * DAY),
        }

    def date(self, later: int = 0) -> str:
        """The house's time as a Date header says it."""
        return format_datetime(datetime.fromtimestamp((self.house.clock.now + later) // SECOND, UTC))

    def letter(self, body: bytes, **headers: str | None) -> bytes:
        """A reply with the headers that count, and `body` from the first MIME header on."""
        values: dict[str, str | None] = {
            "From": f"The Founder <{FOUNDER}>",
            "To": str(self.request["Reply-To"]),
            "Date": self.date(),
            "Message-ID": "<letter@mail.example>",
            "In-Reply-To": str(self.request["Message-ID"]),
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        return "".join(f"{name}: {value}\n" for name, value in values.items() if value is not None).encode() + body

    def explain(self, octets: bytes) -> Judgement:
        """What the inbox would make of it."""
        return explain(self.house.settings, octets)

    def explainer(self) -> Callable[[bytes], Judgement]:
        """The same for many letters, with the settings read once."""
        return partial(explain, self.house.settings)

    def states(self) -> tuple[str, str]:
        """Of the draft and of the other one."""
        return tuple(self.house.story(one).draft.state.value for one in (self.draft_id, self.other_id))  # type: ignore[return-value]

    def grants(self) -> list[tuple[object, ...]]:
        """Whose and for what."""
        return self.house.rows("SELECT draft_id, approver FROM grants ORDER BY draft_id")


def token_of(request: EmailMessage) -> str:
    """The reply token in a request as it was sent."""
    found = re.fullmatch(rf"{APPROVAL.partition('@')[0]}\+([a-z2-7]{{39}})@acme\.example", str(request["Reply-To"]))
    assert found is not None, request["Reply-To"]
    return found[1]


def text_of(message: EmailMessage) -> str:
    """What a reader of plain text sees."""
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")
