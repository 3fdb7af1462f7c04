"""ROOM 1, faces the agent: takes drafts in, and withdraws them.

SECURITY. Holds the draft key (signs). Talks to agents, all of them hostile until policy has passed, and to nobody
else. May write new drafts and cancel an agent's own. It has no grant key and no verb that approves: a bug here can fill
the outbox with drafts that nobody approves, or show an approver what the bug chose, but it cannot make mail leave.
"""

from outbox.drafter.room import Drafter, open

__all__ = ["Drafter", "open"]
