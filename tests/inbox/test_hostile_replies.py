"""No hostile letter approves, none stops the loop, and each with a token of ours is recorded with its reason."""

from __future__ import annotations

import pytest

from tests.house import SECOND
from tests.inbox.letters import Asked, Letter, letters

HOSTILE = letters("hostile")


@pytest.mark.parametrize("letter", HOSTILE, ids=[letter.name for letter in HOSTILE])
def test_a_hostile_letter_changes_nothing_and_holds_nobody_up(asked: Asked, letter: Letter) -> None:
    octets = letter.filled(asked)
    file = asked.house.deliver(octets)
    was = file.stat()
    asked.house.reply(asked.other, "Ship it")  # what comes after it is read all the same
    asked.house.inbox()
    assert asked.states() == ("pending", "approved")
    assert asked.grants() == [(asked.other_id, "founder@acme.example")]
    refused = [reply for reply in asked.house.replies() if not reply.counted]
    if letter.expected.get("recorded", True):
        (reply,) = refused
        assert reply.why.startswith(letter.expected["why"])
    else:
        assert refused == []
    assert file.read_bytes() == octets
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (was.st_mtime_ns, was.st_ino)


@pytest.mark.parametrize("letter", HOSTILE, ids=[letter.name for letter in HOSTILE])
def test_explain_says_beforehand_why_it_changes_nothing(asked: Asked, letter: Letter) -> None:
    octets = letter.filled(asked)
    said = asked.explain(octets)
    asked.house.deliver(octets)
    asked.house.inbox()
    assert not said.counts
    for reply in asked.house.replies():
        assert (reply.verdict, reply.why) == (said.reading.verdict.value, said.why)


def test_the_corpus_is_as_large_as_it_claims() -> None:
    assert len(HOSTILE) >= 30


def test_another_draft_s_token_answers_that_draft_and_not_the_one_in_the_subject(asked: Asked) -> None:
    asked.house.reply(asked.other, "Ship it", Subject=f"Re: {asked.request['Subject']}")
    asked.house.inbox()
    assert asked.states() == ("pending", "approved")


def test_the_request_itself_in_the_mailbox_is_no_reply(asked: Asked) -> None:
    for sent in asked.house.relay.messages:
        asked.house.deliver(sent.octets)
    asked.house.deliver(bytes(asked.request))
    asked.house.inbox()
    assert asked.house.replies() == []
    assert asked.states() == ("pending", "pending")


def test_a_message_id_that_came_before_is_a_replay(asked: Asked) -> None:
    asked.house.reply(asked.request, "hm", Message_ID="<same@phone.example>")
    asked.house.reply(asked.request, "Ship it", Message_ID="<same@phone.example>")
    asked.house.inbox()
    assert sorted(reply.why.partition(":")[0] for reply in asked.house.replies()) == ["replay", "verdict"]
    assert asked.states() == ("pending", "pending")


def test_the_same_octets_twice_count_once(asked: Asked) -> None:
    octets = asked.house.reply(asked.request, "Ship it", Message_ID=None).read_bytes()
    asked.house.inbox()
    asked.house.clock.advance(SECOND)
    asked.house.deliver(octets)
    asked.house.inbox()
    assert [reply.counted for reply in asked.house.replies()] == [True, False]
    assert asked.house.replies()[1].why.startswith("replay:")
    assert len(asked.grants()) == 1


def test_an_old_approval_cannot_be_played_again_for_a_new_draft(asked: Asked) -> None:
    octets = asked.house.reply(asked.request, "Ship it").read_bytes()
    asked.house.inbox()
    newer = asked.house.draft(subject="A third offer")
    request = asked.house.ask(newer.id)
    asked.house.deliver(octets.replace(asked.words()["TOKEN"].encode(), str(request["Reply-To"])[8:47].encode()))
    asked.house.inbox()
    assert asked.house.story(newer.id).draft.state == "pending"
