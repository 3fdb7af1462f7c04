"""What is found out about a draft after its attempt. Presence proves that it left; absence proves nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where it was looked, and what was found: True that it left, False that it did not, None where nothing is proved.

    `detail` is one line for people; `octets` what was found, as it was, where it is worth keeping.
    """

    source: str
    found: bool | None
    detail: str
    octets: bytes | None = None
