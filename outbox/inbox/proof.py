"""What a look at who wrote a message comes to: proof, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Proof:
    """What showed that the From domain sent a message.

    `selector` names DKIM's key, and `key_record` is the TXT record with it, as seen; elsewhere both are empty.
    """

    method: Literal["dkim", "authentication-results", "code"]
    domain: str
    selector: str
    key_record: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Unproven:
    """Why nothing showed it: one clause for people, in lower case and without a final dot."""

    why: str
