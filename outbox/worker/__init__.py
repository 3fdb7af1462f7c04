"""ROOM 3, faces the relay: claims, verifies again, sends, records.

SECURITY. Holds the draft key (verifies), the grant key (verifies grants, signs system drafts, fills reply tokens in)
and the relay login. Talks to the relay alone. May write attempts, their outcomes and system drafts. It is the only room
that can reach anyone: a bug here can send what was not approved or send it twice, so every row is verified after the
claim as if a thief had written it, and the database lets each draft into the gap once.
"""

from outbox.worker.room import Worker, open

__all__ = ["Worker", "open"]
