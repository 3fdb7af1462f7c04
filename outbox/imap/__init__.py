"""IMAP for the rooms that look into mailboxes: a connection with limits on whatever the server may do to us.

The inbox reads replies through it, the operator looks for copies of what was sent.
"""
