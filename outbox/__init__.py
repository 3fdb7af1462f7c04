"""Outbox: the approval-gated outbox. Programs draft mail, a person approves it by reply, and it is sent at most once.

    import outbox
    outbox.draft(sender="sales@example.org", to="jane@example.net", subject="Offer", text="Dear Jane, ...")

Names are imported where they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outbox.core.errors import ConfigError as ConfigError
    from outbox.core.errors import OutboxError as OutboxError
    from outbox.core.errors import PolicyRefused as PolicyRefused
    from outbox.core.errors import Unavailable as Unavailable
    from outbox.core.message import Attachment as Attachment
    from outbox.drafter.api import Letter as Letter
    from outbox.drafter.api import WholeMessage as WholeMessage
    from outbox.drafter.api import draft as draft
    from outbox.drafter.api import draft_many as draft_many
    from outbox.drafter.api import open as open
    from outbox.drafter.api import verdict as verdict
    from outbox.drafter.room import Drafted as Drafted

__version__ = "0.1.0"
_HOMES = {
    "Attachment": "outbox.core.message",
    "ConfigError": "outbox.core.errors",
    "Drafted": "outbox.drafter.room",
    "Letter": "outbox.drafter.api",
    "OutboxError": "outbox.core.errors",
    "PolicyRefused": "outbox.core.errors",
    "Unavailable": "outbox.core.errors",
    "WholeMessage": "outbox.drafter.api",
    "draft": "outbox.drafter.api",
    "draft_many": "outbox.drafter.api",
    "open": "outbox.drafter.api",
    "verdict": "outbox.drafter.api",
}
__all__ = [
    "Attachment",
    "ConfigError",
    "Drafted",
    "Letter",
    "OutboxError",
    "PolicyRefused",
    "Unavailable",
    "WholeMessage",
    "draft",
    "draft_many",
    "open",
    "verdict",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'outbox' has no attribute {name!r}")
