"""What a second hostile reader found in the inbox: each of these once approved, or stopped it."""

from __future__ import annotations

import os
import time

import pytest

from outbox.core.html import words_of_html
from outbox.core.lifecycle import State
from outbox.inbox.verdict import Verdict, read_verdict
from tests.house import APPROVAL, FOUNDER, House

LETTER = "The agent asks.\n\n| price 100 EUR\n\nShip it   it is sent\nStop      it is not sent\n"
HEAD = "From: Outbox <approve@acme.example>\nSent: Friday, January 15, 2027 8:00 AM\nTo: Founder\nSubject: Offer\n"


def outlook(quoted: str) -> str:
    return f"Ship it\n\n{'_' * 32}\n{HEAD}\n{quoted}"


@pytest.mark.parametrize("quoted", [LETTER, "The agent asks.\n", "The agent\nasks. | price\n"])
def test_an_unmarked_quote_of_our_text_from_its_beginning_is_one(quoted: str) -> None:
    assert read_verdict(outlook(quoted), originals=["Another letter.", LETTER]).verdict is Verdict.APPROVE


def test_the_head_of_a_quote_with_nothing_of_ours_below_it_is_none() -> None:
    assert read_verdict(outlook(""), originals=[LETTER]).verdict is Verdict.UNCLEAR


@pytest.mark.parametrize(
    "remark",
    ["Stop", "no", "Ship it", "it is not sent", "Subject: must say 90 EUR", "To: only Bob", "<https://x.example/no>"],
)
def test_a_remark_inside_an_unmarked_quote_is_found(remark: str) -> None:
    quoted = LETTER.replace("| price 100 EUR\n", f"| price 100 EUR\n{remark}\n")
    assert read_verdict(outlook(quoted), originals=[LETTER]).verdict is Verdict.UNCLEAR


@pytest.mark.parametrize(
    "line",
    [
        "On second thought wait until 10:00 and ask bob@x.example what he wrote:",
        "On hold until Monday 10:00 please\n15.01.2027 08:00, Outbox <approve@acme.example> wrote:",
        "On reflection change the price to 5,000 before 10:30, as I wrote:",
        "Am 15.10.2026 12:00 schrieb ich dir: bitte erst den Preis nicht senden, danke:",
    ],
)
def test_a_remark_that_looks_like_an_attribution_is_found(line: str) -> None:
    assert read_verdict(f"Ship it\n\n{line}\n> price").verdict is Verdict.UNCLEAR


def test_a_stop_counts_however_long_what_stands_below_it_is() -> None:
    assert read_verdict("Stop\n\n> " + "x" * 10_000).verdict is Verdict.CANCEL


@pytest.mark.parametrize(
    "html",
    [
        "<p>hello < and you owe 1000 EUR ></p>",
        "<xmp><b you owe 1000 EUR></xmp>",
        "<xmp><b pay='1000 EUR'></xmp>",
        "<a 1='x=\"' href=\"https://x.example/1000 EUR\" y='\"'>site</a>",
        "<svg><a xlink:href='https://x.example/1000 EUR'>a</a></svg>",
        "<p>Hi</p><textarea><style></textarea><p>1000 EUR</p>",
    ],
)
def test_no_words_of_html_are_kept_from_the_approver(html: str) -> None:
    assert "1000 EUR" in words_of_html(html).text


@pytest.mark.parametrize(
    "text", ["boundary=x\n" * 30, "--x\n" * 6000, "Content-Type: message/rfc822\n"], ids=["boundaries", "rules", "type"]
)
def test_a_draft_that_looks_like_many_parts_stops_no_other(house: House, text: str) -> None:
    strange, plain = house.draft(text=text), house.draft()
    request, other = house.ask(strange.id), house.ask(plain.id)
    house.reply(request, "Reject")
    house.reply(other, "Ship it")
    house.inbox()
    assert house.story(strange.id).draft.state is State.REJECTED
    assert house.story(plain.id).draft.state is State.APPROVED


def test_a_file_whose_name_is_no_text_stops_no_other(house: House) -> None:
    draft = house.draft()
    octets = house.reply(house.ask(draft.id), "Ship it").read_bytes()
    (house.maildir / "new" / os.fsdecode(b"0\xff1")).write_bytes(octets)
    house.inbox()
    assert house.story(draft.id).draft.state is State.APPROVED


def test_a_yes_to_a_colleague_in_the_same_thread_is_no_approval(house: House) -> None:
    draft = house.draft()
    request = house.ask(draft.id)
    house.reply(request, "Yes", To="cfo@acme.example")
    house.inbox()
    assert house.story(draft.id).draft.state is State.PENDING
    assert house.replies() == []


def test_many_half_addresses_cost_no_time(house: House) -> None:
    house.deliver(f"From: {FOUNDER}\nTo: {'approve+,' * 25_000}\n\nYes\n".encode())
    began = time.perf_counter()
    house.inbox()
    assert time.perf_counter() - began < 5


def test_an_approver_beyond_ascii_gets_a_request_that_he_can_answer(house: House) -> None:
    house.set("approval", approvers='["j\u00f6s\u00e9@acme.example"]')
    draft = house.draft()
    house.inbox()
    house.drain()
    (request,) = house.relay.messages
    local = request.octets.split(b"Reply-To: ")[1].split(b"@")[0].decode()
    assert local.startswith(f"{APPROVAL.partition('@')[0]}+")
    assert "000000" not in local
    assert house.story(draft.id).requests[0].approver == "j\u00f6s\u00e9@acme.example"
