"""Key rings: HMAC-SHA-256 under keys separated by purpose, with rotation (itsdangerous).

A signature is 32 octets together with the id of the key that made it. Who can verify can forge, so which room holds
which ring is the security model (../../docs/reference/privileges.md).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from itsdangerous import Signer

MINIMUM_KEY_OCTETS = 32
REPLY_MAC_OCTETS = 16


class Purpose(StrEnum):
    """Labels that keep a MAC made for one use from being valid for another."""

    DRAFT = "outbox.draft"
    SYSTEM = "outbox.system"
    GRANT = "outbox.grant"
    REPLY = "outbox.reply"
    JOURNAL = "outbox.journal"
    LEDGER = "outbox.ledger"
    SEAL = "outbox.seal"
    RECEIPT = "outbox.receipt"
    DELIVERY = "outbox.delivery-report"
    KEY_ID = "outbox.key-id"


@dataclass(frozen=True, slots=True)
class Signature:
    """32 octets, and the id of the key that made them."""

    key_id: str
    octets: bytes


def _begun(key: bytes, purpose: Purpose) -> hmac.HMAC:
    """The HMAC that itsdangerous would begin for each signature anew, with the key it derives for `purpose`."""
    signer = Signer(key, salt=purpose.encode(), key_derivation="hmac", digest_method=hashlib.sha256)
    return hmac.new(signer.derive_key(), digestmod=hashlib.sha256)


def _mac(begun: hmac.HMAC, payload: bytes) -> bytes:
    mac = begun.copy()
    mac.update(payload)
    return mac.digest()


class KeyRing:
    """The keys of one name, newest first. The newest signs; any may verify.

    The secrets stay out of repr, pickles and error texts. Of each key it keeps one HMAC for every purpose, begun.
    """

    __slots__ = ("_begun", "_newest")

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) < MINIMUM_KEY_OCTETS for key in keys):
            raise ValueError(f"a key ring needs keys of at least {MINIMUM_KEY_OCTETS} octets")
        each = [{purpose: _begun(key, purpose) for purpose in Purpose} for key in keys]
        self._begun = {_mac(begun[Purpose.KEY_ID], b"")[:8].hex(): begun for begun in each}
        self._newest = next(iter(self._begun))

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._begun)})"

    def __reduce__(self) -> str:
        raise TypeError("a KeyRing does not leave its process")

    def holds(self, key_id: str) -> bool:
        """Whether the key of this id is in this ring."""
        return key_id in self._begun

    def shares_a_key(self, other: KeyRing) -> bool:
        """Whether a key is in both rings, so that who holds one could do what the other is for."""
        return not self._begun.keys().isdisjoint(other._begun)

    def sign(self, purpose: Purpose, payload: bytes) -> Signature:
        """MAC `payload` with the newest key."""
        return Signature(self._newest, _mac(self._begun[self._newest][purpose], payload))

    def verify(self, purpose: Purpose, payload: bytes, signature: Signature) -> bool:
        """Whether the named key is in this ring and made `signature`; in constant time."""
        begun = self._begun.get(signature.key_id)
        return begun is not None and hmac.compare_digest(_mac(begun[purpose], payload), signature.octets)

    def reply_mac(self, payload: bytes) -> bytes:
        """The first 16 octets of the newest key's MAC: short enough for the local part of an address."""
        return _mac(self._begun[self._newest][Purpose.REPLY], payload)[:REPLY_MAC_OCTETS]

    def verify_reply_mac(self, payload: bytes, mac: bytes) -> bool:
        """Whether any key of this ring made `mac` for `payload`; in constant time for each key."""
        made = [_mac(begun[Purpose.REPLY], payload)[:REPLY_MAC_OCTETS] for begun in self._begun.values()]
        return sum(hmac.compare_digest(candidate, mac) for candidate in made) > 0
