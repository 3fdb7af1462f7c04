"""The facts of the outbox, pure: no I/O, clock, randomness, database or event loop.

Everything here takes octets, instants (microseconds UTC) and key material as arguments and returns values, so every
room can agree on what a draft is, what is signed and which transitions exist without sharing anything else.
"""
