"""What a look at who wrote a message comes to: proof, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Proof:
    """What showed that the From domain sent a message. `selector` names DKIM's key; elsewhere it is empty."""

    method: Literal["dkim", "authentication-results", "code"]
    domain: str
    selector: str


@dataclass(frozen=True, slots=True)
class Unproven:
    """Why nothing showed it: one clause for people, in lower case and without a final dot."""

    why: str
