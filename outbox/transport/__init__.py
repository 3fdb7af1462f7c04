"""One message to one relay, on a connection that is kept: the only thing here that can reach anyone.

Holds the relay login; talks to the relay and to nobody else; writes nothing. A bug here could send twice or send other
octets, so it is given octets that were verified already, asks `enter_gap` before the final dot, and never raises to
say how a send went: outcomes are values, decided in one table (outcome.py).
"""
