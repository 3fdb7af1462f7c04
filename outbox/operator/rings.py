"""The keys that whoever looks at the record holds: what no key of his made, he cannot tell from what nobody made."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.config import Settings
from outbox.core.errors import Code, ConfigError
from outbox.core.lifecycle import Room
from outbox.core.signing import KeyRing


@dataclass(frozen=True, slots=True)
class Rings:
    """Draft and grant keys, retired ones too; None where this person holds none of that name."""

    draft: KeyRing | None
    grant: KeyRing | None

    def of(self, room: Room) -> tuple[KeyRing, ...]:
        """The rings whose keys a room's journal rows may be made with, as far as they are held."""
        match room:
            case Room.DRAFTER:
                named: tuple[KeyRing | None, ...] = (self.draft,)
            case Room.INBOX | Room.WORKER:
                named = (self.grant,)
            case Room.OPERATOR:
                named = (self.grant, self.draft)
        return tuple(ring for ring in named if ring is not None)

    def hold(self, key_id: str) -> bool:
        """Whether any ring has the key of this id."""
        return any(has_key(ring, key_id) for ring in (self.draft, self.grant))


def has_key(ring: KeyRing | None, key_id: str) -> bool:
    """Whether a ring has the key of this id."""
    return ring is not None and ring.holds(key_id)


def held_rings(settings: Settings) -> Rings:
    """The rings that this user can read. Raises ConfigError where one that he can read is not as it must be."""
    draft = settings.record_ring("draft") if settings.has_key("draft") else None
    grant = settings.record_ring("grant") if settings.has_key("grant") else None
    return Rings(draft, grant)


def journal_ring(settings: Settings) -> KeyRing:
    """The key that journals what is done here: the grant key where this person can read it, else the draft key.

    Raises ConfigError where he can read neither.
    """
    if settings.has_key("grant"):
        return settings.grant_ring()
    if settings.has_key("draft"):
        return settings.draft_ring()
    raise ConfigError(
        Code.KEY_MISSING,
        "keys.grant, keys.draft: this user can read neither, so nothing can be journalled",
        field="keys",
    )
