"""Letters made to exhaust: each is refused or read within a bounded time, and what comes after it is read."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from outbox.inbox.verdict import read_verdict
from tests.inbox.letters import Asked

TEXT = b"Content-Type: text/plain; charset=us-ascii\n\n"
MIB = 1024 * 1024
BOUNDED = 5.0  # seconds for one letter; each of these takes a linear reader a small part of it


def _parts(count: int) -> bytes:
    part = b"--b\nContent-Type: text/plain\n\nShip it\n"
    return b'Content-Type: multipart/mixed; boundary="b"\n\n' + part * count + b"--b--\n"


def _nested(depth: int) -> bytes:
    head = b'Content-Type: multipart/mixed; boundary="b0"\n\n'
    inner = [b'--b%d\nContent-Type: multipart/mixed; boundary="b%d"\n\n' % (n, n + 1) for n in range(depth)]
    return head + b"".join(inner) + b"--b%d\nContent-Type: text/plain\n\nShip it\n" % depth


def _messages_in_messages(depth: int) -> bytes:
    return b"Content-Type: message/rfc822\n\n" * depth + TEXT + b"Ship it\n"


BOMBS: dict[str, Callable[[], bytes]] = {
    "ten thousand parts": lambda: _parts(10_000),
    "multiparts 3,000 deep": lambda: _nested(3_000),
    "multiparts 150 deep": lambda: _nested(150) + b"\nbut fix the price\n",
    "messages in messages 3,000 deep": lambda: _messages_in_messages(3_000),
    "messages in messages 150 deep": lambda: _messages_in_messages(150),
    "thirty megabytes of text": lambda: TEXT + b"Ship it\n\n" + b"> quoted line of the request\n" * (30 * MIB // 29),
    "one line of three megabytes": lambda: TEXT + b"Ship it " * (3 * MIB // 8),
    "three megabytes below the verdict": lambda: TEXT + b"Ship it\n" + b"x" * 3 * MIB,
    "a header line of 200 KiB": lambda: b"X-Long: " + b"x" * 200 * 1024 + b"\n" + TEXT + b"hm\n",
    "a message id of 200 KiB": lambda: b"References: <" + b"x" * 200 * 1024 + b"@y>\n" + TEXT + b"hm\n",
    "every octet there is": lambda: TEXT + bytes(range(256)) * 1000,
    "nothing but NUL": lambda: TEXT + bytes(MIB),
    "a reason that is no character": lambda: b"Content-Type: text/plain; charset=utf-7\n\nhm +2AA-\n",
    "base64 of a megabyte": lambda: TEXT.replace(b"\n\n", b"\nContent-Transfer-Encoding: base64\n\n") + b"A" * MIB,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_neither_approves_nor_stops_the_loop(asked: Asked, bomb: str) -> None:
    octets = asked.letter(BOMBS[bomb]())
    file = asked.house.deliver(octets)
    asked.house.reply(asked.other, "Ship it")
    began = time.perf_counter()
    asked.house.inbox()
    assert time.perf_counter() - began < BOUNDED
    assert asked.states() == ("pending", "approved")
    assert sorted(reply.counted for reply in asked.house.replies()) == [False, True]
    assert file.read_bytes() == octets


HIDDEN = (
    "Auto-Submitted: auto-replied",
    "Precedence: bulk",
    "From: mallory@evil.example",
    "Date: Mon, 1 Jan 2024 00:00:00 +0000",
)
FLOODS = {"many": b"X-Flood: x\n" * 1_100, "long": b"X-Flood: " + b"x" * 300 * 1024 + b"\n"}


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_of_headers_hides_nothing_from_the_checks(asked: Asked, flood: bytes, hidden: str) -> None:
    asked.house.deliver(asked.letter(flood + hidden.encode() + b"\n" + TEXT + b"Ship it\n"))
    asked.house.inbox()
    assert asked.states() == ("pending", "pending")
    (reply,) = asked.house.replies()
    assert not reply.counted


def test_a_reason_that_is_no_character_does_not_stop_the_loop(asked: Asked) -> None:
    asked.house.deliver(asked.letter(b"Content-Type: text/plain; charset=utf-7\n\nReject: +2AA-\n"))
    asked.house.reply(asked.other, "Ship it")
    asked.house.inbox()
    assert asked.states()[1] == "approved"
    assert len(asked.house.replies()) == 2


def test_a_stop_with_a_strange_message_id_stops(asked: Asked) -> None:
    asked.house.deliver(asked.letter(TEXT + b"Stop\n", Message_ID="<a\x01b@mail.example>"))
    asked.house.inbox()
    assert asked.states() == ("cancelled", "pending")


SLOW: dict[str, Callable[[], bytes]] = {
    "attributions": lambda: TEXT + b"Ship it\n" + b"On 1 wrote:\n>\n" * 100_000,
    "an author of blanks": lambda: b"From: a@b.example," + b" " * 40_000 + b"x y\n" + TEXT + b"hm\n",
    "a quadratic charset": lambda: b"Content-Type: text/plain; charset=punycode\n\n-" + b"a9" * 500_000,
    "parts without a content type": lambda: b'Content-Type: multipart/mixed; boundary="b"\n\n' + b"--b\n\n" * 500_000,
    "many lines in deep parts": lambda: _nested(190) + b"x\n" * 600_000,
    "blank lines": lambda: TEXT + b"Ship it\n" + b"\n" * 3 * MIB,
}


@pytest.mark.parametrize("bomb", SLOW)
def test_a_stranger_who_guesses_no_token_cannot_keep_the_inbox_busy(asked: Asked, bomb: str) -> None:
    """The token here has our form and nothing more: anyone who knows the approval address can send this."""
    made_up = asked.words()["TOKEN_FLIPPED"]
    asked.house.deliver(asked.letter(SLOW[bomb](), From=None, To=f"approve+{made_up}@acme.example", In_Reply_To=None))
    began = time.perf_counter()
    asked.house.inbox()
    assert time.perf_counter() - began < BOUNDED
    assert asked.house.replies() == []  # a token that we did not make is none of ours


def test_reading_a_text_takes_time_in_proportion_to_it() -> None:
    began = time.perf_counter()
    read_verdict("Ship it\n" + "On 1 wrote:\n>\n" * 10_000)
    small = time.perf_counter() - began
    began = time.perf_counter()
    read_verdict("Ship it\n" + "On 1 wrote:\n>\n" * 80_000)
    assert time.perf_counter() - began < 24 * small
