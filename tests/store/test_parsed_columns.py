"""Columns of JSON are parsed as what wrote them writes them, and nothing else is read."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.draft import Envelope, Thread
from outbox.core.errors import Code, VerificationFailed
from outbox.core.grant import Channel
from outbox.store.rows import envelope_text, grants_of_rows, parse_envelope, parse_thread, thread_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.just('a"\\@b.example')
TEXTS = st.lists(TEXT, max_size=3).map(tuple)


@given(st.builds(Envelope, TEXT, TEXTS, TEXTS, TEXTS) | st.builds(Envelope, TEXT, st.tuples(TEXT)))
def test_an_envelope_is_read_as_it_was_written(envelope: Envelope) -> None:
    assert parse_envelope(envelope_text(envelope)) == envelope


@given(st.builds(Thread, st.none() | TEXT, TEXTS))
def test_thread_references_are_read_as_they_were_written(thread: Thread) -> None:
    assert parse_thread(thread_text(thread)) == thread


WRITTEN = envelope_text(Envelope("sales@acme.example", ("jane@customer.example",)))
OTHERS = {
    "space before": f" {WRITTEN}",
    "space after": f"{WRITTEN} ",
    "line end after": f"{WRITTEN}\n",
    "space within": json.dumps(json.loads(WRITTEN)),
    "two values": WRITTEN * 2,
    "another order": '{"from":"a","to":["b"],"cc":[],"bcc":[]}',
    "a needless escape": WRITTEN.replace("jane", "j\\u0061ne"),
    "a slash escaped": WRITTEN.replace("jane", "j\\/ne"),
    "a control character": WRITTEN.replace("jane", "j\x1fne"),
    "a name twice": WRITTEN.replace('{"bcc":[]', '{"bcc":[],"bcc":[]'),
    "a name more": WRITTEN.replace("}", ',"x":1}'),
    "a number": WRITTEN.replace('"jane@customer.example"', "1"),
    "one text for a list": WRITTEN.replace('["jane@customer.example"]', '"jane@customer.example"'),
    "octets": WRITTEN.encode(),
    "a list": "[]",
    "nothing": "",
    "null": None,
    "a byte order mark": f"\ufeff{WRITTEN}",
}


@pytest.mark.parametrize("stored", OTHERS)
def test_an_envelope_that_nobody_wrote_is_not_read(stored: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse_envelope(OTHERS[stored])


@pytest.mark.parametrize(
    "stored",
    [
        '{"in_reply_to": null,"references":[]}',
        '{"references":[],"in_reply_to":null}',
        '{"in_reply_to":null}',
        b"{}",
        " ",
    ],
)
def test_thread_references_that_nobody_wrote_are_not_read(stored: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse_thread(stored)


class GrantRow(NamedTuple):
    """A row of grants."""

    channel: object
    id: str = "g"
    draft_id: str = "d"
    digest: bytes = b""
    approver: str = "founder@acme.example"
    at: int = 1
    expires_at: int = 2
    key_id: str = "k"
    signature: bytes = b""


@pytest.mark.parametrize("channel", [*Channel])
def test_a_channel_is_read_by_its_value(channel: Channel) -> None:
    assert grants_of_rows("d", [GrantRow(channel.value)])[0][0].channel is channel


@pytest.mark.parametrize("channel", ["Reply", "", "reply ", None, b"reply"])
def test_a_channel_that_nobody_wrote_makes_its_grant_invalid(channel: object) -> None:
    with pytest.raises(VerificationFailed) as refused:
        grants_of_rows("d", [GrantRow(channel)])
    assert refused.value.code is Code.GRANT_INVALID
