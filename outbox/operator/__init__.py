"""ROOM 4, faces people: the terminal's approve, reject and cancel; the first set-up; what lists and shows.

SECURITY. Holds whatever key the person at the terminal can read: the grant key signs his verdicts, either key signs
his journal. Talks to people at this machine. May write verdicts and cancellations. A bug here can approve in the name
of who runs the command, which `approval.terminal = "off"` closes where agents share his user.
"""

from outbox.operator.records import Records, open, read

__all__ = ["Records", "open", "read"]
