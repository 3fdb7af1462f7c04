"""What the relay receives, unstuffed, is what it was given, octet by octet."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from outbox.transport.outcome import Accepted
from tests.relay.scripted import ScriptedRelay
from tests.relay.submission import submit, transport_to

_dotted = st.sampled_from([b"", b".", b"..", b"...", b".a", b". ", b"a.", b"QUIT", b"RSET", b".QUIT", b"\0", b"\xff."])
_any = st.binary(max_size=60).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b""))
_messages = st.lists(_dotted | _any, min_size=1, max_size=12).map(lambda lines: b"\r\n".join(lines) + b"\r\n")


@settings(max_examples=150, deadline=None, database=None)
@given(messages=st.lists(_messages, min_size=1, max_size=3))
@example(messages=[b".\r\n"])
@example(messages=[b"\r\n.\r\n"])
@example(messages=[b"..\r\n.\r\n...\r\n"])
@example(messages=[(b"." * 3 + b"\r\n") * 30_000])  # dots on every border between two writes
def test_dots_at_the_start_of_lines_arrive_as_they_were(messages: list[bytes]) -> None:
    with ScriptedRelay() as relay:
        transport = transport_to(relay.port)
        for octets in messages:
            assert isinstance(submit(transport, octets=octets), Accepted)
        relay.wait_until_over()
        assert [sent.octets for sent in relay.messages] == messages
        assert all(seen.verbs == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"] for seen in relay.seen)
