"""Whether a draft could be made here."""

from __future__ import annotations

from collections.abc import Iterator

from outbox.config import Settings
from outbox.core.errors import ConfigError
from outbox.core.finding import Finding, failed


def check(settings: Settings) -> Iterator[Finding]:
    """Look at what the drafter needs."""
    if not settings.has_key("draft"):
        yield Finding("drafter", None, "not looked at: run `outbox doctor` as the user that drafts, who has the key")
        return
    try:
        settings.draft_ring()
        rules = settings.rules()
    except ConfigError as error:
        yield failed("drafter", error, "see key-draft")
        return
    domains = ", ".join(sorted(rules.from_domains))
    yield Finding("drafter", True, f"drafts may be from {domains}, to {rules.max_recipients} recipients at most")
