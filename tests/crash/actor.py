"""One process that does random verbs of one room on one database: actor.py ROLE SETTINGS SEED SECONDS."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from outbox import config, drafter, inbox, operator, worker
from outbox.config import Settings
from outbox.core.errors import StateRefused, TryLater
from outbox.core.lifecycle import State
from outbox.drafter.intake import Wanted

RECIPIENTS = ("jane@customer.example", "joe@customer.example", "busy@customer.example", "gone@customer.example")


def act_as_drafter(settings: Settings, dice: random.Random) -> None:
    """Draft a few, and think better of some."""
    agent = f"agent-{dice.randrange(3)}"
    with drafter.open(settings) as room:
        for _ in range(dice.randrange(1, 5)):
            made = room.draft(
                Wanted(
                    sender="sales@acme.example",
                    to=tuple(dice.sample(RECIPIENTS, dice.randrange(1, 3))),
                    subject=f"Offer {dice.random()}",
                    text="Dear customer,\n\nhere it is.",
                    agent=agent,
                    ttl=dice.choice([60, 3600, 86400]),
                )
            )
            if dice.random() < 0.2:
                with suppress(StateRefused):
                    room.withdraw(made.draft.id, agent=agent)


def act_as_operator(settings: Settings, dice: random.Random) -> None:
    """Approve most of what is pending; reject or cancel the rest, whatever became of it meanwhile."""
    with operator.read(settings) as records:
        found = records.drafts(states=[State.PENDING, State.APPROVED, State.EXECUTING], system=True, limit=1000)
    with operator.open(settings) as desk:
        for draft in dice.sample(found, min(len(found), 10)):
            with suppress(StateRefused):
                if draft.state is State.PENDING and dice.random() < 0.8:
                    desk.approve(draft.id, named=None)
                elif draft.state is State.PENDING and dice.random() < 0.5:
                    desk.reject(draft.id, reason="no", named=None)
                elif dice.random() < 0.1:
                    desk.cancel(draft.id)


def act_as_inbox(settings: Settings, _dice: random.Random) -> None:
    """Ask for what is pending."""
    with inbox.open(settings) as room:
        room.once()


def act_as_worker(settings: Settings, _dice: random.Random) -> None:
    """Send what is due."""
    with worker.open(settings) as room, suppress(TryLater):
        room.run(drain=True)


ROLES: dict[str, Callable[[Settings, random.Random], None]] = {
    "drafter": act_as_drafter,
    "operator": act_as_operator,
    "inbox": act_as_inbox,
    "worker": act_as_worker,
}


def main(role: str, settings_file: str, seed: str, seconds: str) -> None:
    settings, dice = config.load(Path(settings_file)), random.Random(int(seed))
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        ROLES[role](settings, dice)


if __name__ == "__main__":
    main(*sys.argv[1:])
