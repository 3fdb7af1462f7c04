"""The lines of a ledger, as text with a MAC over themselves and the line before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from outbox.core.canonical import VERSION, encode, quoted, quoted_or_null
from outbox.core.lifecycle import POSSIBLY_SENT
from outbox.core.signing import KeyRing, Purpose, Signature

GENESIS = bytes(32)
MAC_AT = -67  # in a line, from its end: 64 hexadecimal digits, a quote, a brace and the line feed
# The members of a line's canonical JSON, in their order: those before "previous", those between it and "version", those
# after it. Both are under the MAC, and not in the file.
_Parts = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Begun:
    """The first line: whose ledger this is."""

    database: str

    def parts(self) -> _Parts:
        """Its canonical JSON, as `_Parts` says."""
        return f'"database":{quoted(self.database)},"is":"begun"', "", ""


@dataclass(frozen=True, slots=True)
class Entered:
    """An attempt entered the gap at `at`: from here on it may have been sent, and after `expires_at` not once more.

    Instants in microseconds UTC; `expires_at` is the draft's, as it is signed, and 0 in lines from before it was there.
    """

    draft: str
    attempt: str
    digest: str
    grants: tuple[str, ...]
    wire_digest: str
    at: int
    expires_at: int = 0

    def parts(self) -> _Parts:
        """Its canonical JSON, as `_Parts` says."""
        first = (
            f'"at":{self.at},"attempt":{quoted(self.attempt)},"digest":{quoted(self.digest)},'
            f'"draft":{quoted(self.draft)},"expires_at":{self.expires_at},'
            f'"grants":[{",".join(map(quoted, self.grants))}],"is":"entered"'
        )
        return first, "", f'"wire_digest":{quoted(self.wire_digest)}'


@dataclass(frozen=True, slots=True)
class Heard:
    """How an attempt in the gap ended; `outcome` as it is stored, `error` what its draft ends with, if it ends."""

    attempt: str
    outcome: str
    code: int | None
    enhanced: str | None
    text: str
    queue_id: str | None
    recipients: tuple[tuple[str, int, str], ...]
    error: tuple[str, str] | None

    def parts(self) -> _Parts:
        """Its canonical JSON, as `_Parts` says."""
        code = "null" if self.code is None else self.code
        error = "null" if self.error is None else f"[{quoted(self.error[0])},{quoted(self.error[1])}]"
        recipients = ",".join(f"[{quoted(one[0])},{one[1]},{quoted(one[2])}]" for one in self.recipients)
        first = (
            f'"attempt":{quoted(self.attempt)},"code":{code},"enhanced":{quoted_or_null(self.enhanced)},'
            f'"error":{error},"is":"heard","outcome":{quoted(self.outcome)}'
        )
        return (
            first,
            f'"queue_id":{quoted_or_null(self.queue_id)},"recipients":[{recipients}],"text":{quoted(self.text)}',
            "",
        )

    @property
    def may_have_been_sent(self) -> bool:
        """Whether the relay took it, or may have."""
        return self.outcome in POSSIBLY_SENT


@dataclass(frozen=True, slots=True)
class Fenced:
    """The operator vouched for the database as it was then: what stands before is not looked for in it.

    `fence` is the id under which the database knows of it: one that does not was restored since.
    """

    fence: str
    at: int
    by: str
    note: str

    def parts(self) -> _Parts:
        """Its canonical JSON, as `_Parts` says."""
        first = f'"at":{self.at},"by":{quoted(self.by)},"fence":{quoted(self.fence)},"is":"fenced"'
        return f'{first},"note":{quoted(self.note)}', "", ""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """At `at`, lines about drafts whose time was over at `until` or before were taken out; some may be there.

    `blank_until` is the ledger's own: of what was drafted before, it knew nothing then either. Microseconds UTC.
    """

    at: int
    blank_until: int
    until: int

    def parts(self) -> _Parts:
        """Its canonical JSON, as `_Parts` says."""
        return f'"at":{self.at},"blank_until":{self.blank_until},"is":"forgotten"', f'"until":{self.until}', ""


Line = Begun | Entered | Heard | Fenced | Forgotten
_KINDS: dict[object, Callable[..., Line]] = {
    "begun": Begun,
    "entered": Entered,
    "heard": Heard,
    "fenced": Fenced,
    "forgotten": Forgotten,
}


def seal(ring: KeyRing, line: Line, previous: bytes) -> tuple[bytes, bytes]:
    """The MAC of a line that comes after the one with the MAC `previous`, and its text with its end."""
    first, between, last = line.parts()
    under_mac = (first, f'"previous":"{previous.hex()}"', between, f'"version":{VERSION}', last)
    signature = ring.sign(Purpose.LEDGER, f"{{{','.join(filter(None, under_mac))}}}".encode())
    sealed = (first, between, last, f'"key":"{signature.key_id}","mac":"{signature.octets.hex()}"')
    return signature.octets, f"{{{','.join(filter(None, sealed))}}}\n".encode()


def parse(ring: KeyRing, text: bytes, previous: bytes) -> tuple[Line, bytes] | None:
    """A line and its MAC; None where it is not what was written after the one with the MAC `previous`."""
    try:
        fields = json.loads(text)
        key_id, mac = fields.pop("key"), bytes.fromhex(fields.pop("mac"))
        under_mac = encode({"version": VERSION, **fields, "previous": previous.hex()})
        if not ring.verify(Purpose.LEDGER, under_mac, Signature(key_id, mac)):
            return None
        kind = _KINDS[fields.pop("is")]
        return kind(**{name: _tuples(value) for name, value in fields.items()}), mac
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
