"""No hostile letter approves, none stops the loop, and each with a token of ours is recorded with its reason."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from dkim.crypto import parse_public_key

from outbox.inbox.verdict import Verdict
from tests.house import FOUNDER, SECOND
from tests.inbox.guarded import KINDS, Guarded, published, signers
from tests.inbox.letters import Asked, Letter, letters
from tests.inbox.zone import Zone
from tests.postgres import server
from tests.relay.recording import RecordingRelay
from tests.seeds import seeds

HOSTILE = letters("hostile")
NAMED = {letter.name: letter for letter in HOSTILE}
Make = Callable[[str], Guarded]


def kind_of(letter: Letter) -> str:
    return str(letter.expected.get("house", "none"))


def has_settings_of_its_own(letter: Letter) -> bool:
    return "set" in letter.expected


@pytest.fixture(scope="module")
def zone() -> Iterator[Zone]:
    with published() as served:
        yield served


@pytest.fixture(scope="module")
def make(asked_once: Asked, tmp_path_factory: pytest.TempPathFactory, zone: Zone) -> Iterator[Make]:
    """Builds a house that has asked, and believes replies in one way."""

    def build(kind: str) -> Guarded:
        folder = tmp_path_factory.mktemp(kind) / "house"
        before = server.made()
        house = asked_once.house.copied(folder, relay)
        server.keep_databases(before)
        return Guarded.build(dataclasses.replace(asked_once, house=house), kind, zone)

    with RecordingRelay() as relay:
        yield build


@pytest.fixture(scope="module")
def untouched(make: Make) -> Make:
    """One house of each kind, in which nothing is ever taken."""
    return cache(make)


@pytest.mark.parametrize("name", seeds(NAMED, 4))  # all of them together: below
def test_a_hostile_letter_does_not_count_and_it_is_known_why(make: Make, untouched: Make, name: str) -> None:
    letter = NAMED[name]
    guarded = (make if has_settings_of_its_own(letter) else untouched)(kind_of(letter))
    said = guarded.explain(guarded.octets_of(letter))
    assert not said.counts, said.checks
    assert said.why.startswith(letter.expected.get("why", "token: "))


@dataclasses.dataclass(frozen=True)
class Taken:
    """A house after its inbox has seen letters, and the file of each."""

    guarded: Guarded
    files: dict[str, Path]

    def check(self, chosen: list[Letter]) -> None:
        """Nothing was approved but what the approver did answer, and every letter has the row that it should have."""
        house = self.guarded.asked.house
        assert self.guarded.asked.states() == ("pending", "approved")
        assert self.guarded.asked.grants() == [(self.guarded.asked.other_id, FOUNDER)]
        rows = {
            str(uid): (counted, str(why)) for uid, counted, why in house.rows("SELECT uid, counted, why FROM replies")
        }
        for letter in chosen:
            counted, why = rows.pop(self.files[letter.name].name, (0, ""))
            assert not counted, letter.name
            assert why.startswith(letter.expected.get("why", "")), letter.name
            assert bool(why) == letter.expected.get("recorded", True), (letter.name, why)
        assert [counted for counted, _ in rows.values()] == [1]


def take(guarded: Guarded, chosen: list[Letter]) -> Taken:
    """Deliver letters, and behind them the approver's answer to the other request; then look."""
    files = {letter.name: guarded.asked.house.deliver(guarded.octets_of(letter)) for letter in chosen}
    stats = {file: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in files.values()}
    guarded.approve_other()
    guarded.asked.house.inbox()
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in files.values()} == stats
    return Taken(guarded, files)


@pytest.mark.parametrize("kind", KINDS)
def test_all_hostile_letters_together_change_nothing_and_hold_nobody_up(make: Make, kind: str) -> None:
    chosen = [letter for letter in HOSTILE if kind_of(letter) == kind and not has_settings_of_its_own(letter)]
    take(make(kind), chosen).check(chosen)


@pytest.mark.parametrize("letter", list(filter(has_settings_of_its_own, HOSTILE)), ids=lambda letter: letter.name)
def test_a_hostile_letter_changes_nothing_where_more_is_set(make: Make, letter: Letter) -> None:
    take(make(kind_of(letter)), [letter]).check([letter])


def test_the_corpus_is_as_large_as_it_claims() -> None:
    assert len(HOSTILE) >= 400
    assert {kind_of(letter) for letter in HOSTILE} == set(KINDS)


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


def _as_it_is(octets: bytes, _modulus: int) -> bytes:
    return octets


def _with_a_zero_in_front(octets: bytes, _modulus: int) -> bytes:
    return b"\0" + octets


def _plus_the_modulus(octets: bytes, modulus: int) -> bytes:
    return (int.from_bytes(octets, "big") + modulus).to_bytes(257, "big")


@pytest.mark.parametrize("rewrite", [_as_it_is, _with_a_zero_in_front, _plus_the_modulus])
def test_a_signed_letter_that_came_before_is_a_replay_however_its_signature_is_written(
    make: Make, rewrite: Callable[[bytes, int], bytes]
) -> None:
    """Yahoo signs no Message-ID, relaxed signatures let blanks be added, and an RSA signature is a number."""
    guarded, signer = make("dkim"), signers()["rsa"]
    text = b"Content-Type: text/plain; charset=us-ascii\n\nYes\n--\nbut not before Jane agrees\n"
    octets = guarded.asked.letter(text, Subject=f"Re: {guarded.asked.request['Subject']}")
    octets = signer.sign(octets, fields=("date", "from", "subject", "in-reply-to"))
    guarded.asked.house.deliver(octets)
    guarded.asked.house.inbox()
    found = re.search(rb" b=\n((?:\t.*\n)+)", octets)
    assert found is not None
    modulus = parse_public_key(signer.key.public)["modulus"]
    written = base64.b64encode(rewrite(base64.b64decode(b"".join(found[1].split())), modulus))
    again = (
        octets.replace(found[1], b"\t" + written + b"\n").replace(b"\n--\n", b"\n-- \n").replace(b"<letter@", b"<new@")
    )
    said = guarded.explain(again)
    assert said.reading.verdict is Verdict.APPROVE
    assert not said.counts, said.checks
    assert said.why.startswith(("replay:", "authenticity:"))


def test_a_signed_letter_that_came_before_is_a_replay_whatever_relays_put_on_top(make: Make) -> None:
    """Purelymail signs the Received that it wrote itself; one more on top breaks no signature."""
    guarded, fields = make("dkim"), ("date", "from", "subject", "in-reply-to", "received")
    text = b"Content-Type: text/plain; charset=us-ascii\n\nYes\n--\nbut not before Jane agrees\n"
    octets = guarded.asked.letter(text, Subject=f"Re: {guarded.asked.request['Subject']}")
    hop = f"Received: from a.example by b.example; {guarded.asked.date()}\n".encode()
    octets = signers()["provider"].sign(hop + octets, fields=fields)
    guarded.asked.house.deliver(octets)
    guarded.asked.house.inbox()
    again = hop + octets.replace(b"\n--\n", b"\n-- \n").replace(b"<letter@", b"<new@")
    said = guarded.explain(again)
    assert said.reading.verdict is Verdict.APPROVE
    assert said.why.startswith("replay:"), said.checks


def test_an_old_approval_cannot_be_played_again_for_a_new_draft(asked: Asked) -> None:
    octets = asked.house.reply(asked.request, "Ship it").read_bytes()
    asked.house.inbox()
    newer = asked.house.draft(subject="A third offer")
    request = asked.house.ask(newer.id)
    asked.house.deliver(octets.replace(asked.words()["TOKEN"].encode(), str(request["Reply-To"])[8:47].encode()))
    asked.house.inbox()
    assert asked.house.story(newer.id).draft.state == "pending"
