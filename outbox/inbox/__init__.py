"""ROOM 2, faces the approver: asks, reads replies, grants.

SECURITY. Holds the grant key (signs grants and system drafts, verifies reply tokens) and the mailbox; no draft key and
no relay login. Talks to approvers, through mail that is all hostile until every check has passed. May write replies,
grants, rejections, cancellations and system drafts. A bug here can approve what nobody approved, which is why it can
neither make a draft nor send one: it shows drafts by their digest, and the worker verifies their signature.
"""

from outbox.inbox.room import Inbox, open

__all__ = ["Inbox", "open"]
