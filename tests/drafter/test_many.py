"""Many drafts at once: each has its own result or refusal, and what is accepted is stored as if drafted alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import outbox
from outbox import drafter
from outbox.core.errors import Code, PolicyRefused
from outbox.drafter.intake import Asked, Overrides, Wanted, Whole
from outbox.drafter.room import LARGEST_COMMIT, Drafted
from outbox.store.writer import MOST_IN_ONE_COMMIT
from tests.drafter.ledger import PLAIN, rows_of, stored
from tests.house import HOUR, JANE, SALES, House

OFFER = Wanted(sender=SALES, to=(JANE,), subject="Offer", text="Dear Jane,\n\nhere it is.")


def letters(count: int) -> list[Asked]:
    return [Asked(replace(OFFER, subject=f"Offer {number}")) for number in range(count)]


def draft_many(house: House, asked: list[Asked]) -> list[Drafted | PolicyRefused]:
    with drafter.open(house.settings, clock=house.clock) as room:
        return room.draft_many(asked)


def codes(results: list[Drafted | PolicyRefused]) -> list[Code | None]:
    return [one.code if isinstance(one, PolicyRefused) else None for one in results]


def subjects(house: House, results: list[Drafted | PolicyRefused]) -> list[str]:
    return [house.story(one.id).draft.subject for one in results if isinstance(one, Drafted)]


def test_each_of_many_is_drafted_in_its_order(house: House) -> None:
    results = draft_many(house, letters(5))
    assert subjects(house, results) == [f"Offer {number}" for number in range(5)]
    assert all(isinstance(one, Drafted) and one.is_new for one in results)
    assert rows_of(house) == (5, 5, 5)


def test_nothing_asked_for_is_nothing_drafted(house: House) -> None:
    assert draft_many(house, []) == []
    assert rows_of(house) == (0, 0, 0)


def test_one_that_is_refused_says_why_and_leaves_the_others_alone(house: House) -> None:
    first, second, third = letters(3)
    odd = Asked(replace(OFFER, to=("nobody",)))
    whole = Asked(Whole(b"From: ceo@evil.example\r\nTo: jane@customer.example\r\nSubject: x\r\n\r\nhi\r\n"))
    long_key = replace(second, idempotency_key="k" * 201)
    results = draft_many(house, [first, odd, whole, long_key, third])
    assert codes(results) == [None, Code.ADDRESS_INVALID, Code.FROM_DOMAIN, Code.IDEMPOTENCY_CONFLICT, None]
    assert subjects(house, results) == ["Offer 0", "Offer 2"]
    assert rows_of(house) == (2, 2, 2)


def test_what_was_refused_before_it_was_asked_keeps_its_place(house: House) -> None:
    refused = PolicyRefused(Code.FILE_UNREADABLE, "it is not a file")
    with drafter.open(house.settings, clock=house.clock) as room:
        results = room.draft_many([letters(1)[0], refused])
    assert codes(results) == [None, Code.FILE_UNREADABLE]


def test_all_of_them_refused_writes_nothing(house: House) -> None:
    assert codes(draft_many(house, [Asked(replace(OFFER, text=""))] * 3)) == [Code.BODY_EMPTY] * 3
    assert rows_of(house) == (0, 0, 0)


def test_one_of_many_is_stored_as_one_alone_is(house: House) -> None:
    whole = Whole(PLAIN.encode(), Overrides(agent="bot"))
    (many,) = draft_many(house, [Asked(whole, "k")])
    with drafter.open(house.settings, clock=house.clock) as room:
        alone = room.adopt(whole.octets, whole.overrides).draft
    assert isinstance(many, Drafted)
    story = house.story(many.id)
    assert replace(story.draft, id=alone.id, digest=alone.digest, message_id=alone.message_id) == alone
    assert stored(house, many.id).replace(many.id.encode(), alone.id.encode()) == stored(house, alone.id)
    columns = "action, attempt_id"
    assert house.rows(f"SELECT {columns} FROM journal WHERE draft_id = ?", many.id) == house.rows(
        f"SELECT {columns} FROM journal WHERE draft_id = ?", alone.id
    )


def test_a_draft_is_returned_as_it_is_read_back(house: House) -> None:
    with drafter.open(house.settings, clock=house.clock) as room:
        for wanted in (OFFER, replace(OFFER, cc=("b@x.example",), resubmit="the price is right now", agent="bot")):
            made = room.draft(wanted)
            assert made == room.story(made.draft.id)
        whole = room.adopt(PLAIN.encode(), Overrides(kind="email", ttl=60))
        assert whole == room.story(whole.draft.id)


def test_one_key_twice_among_many_is_one_draft(house: House) -> None:
    one = Asked(OFFER, "offer-1")
    other = Asked(replace(OFFER, subject="Other"), "offer-1")
    theirs = Asked(replace(OFFER, agent="billing-bot"), "offer-1")
    first, again, conflict, another = draft_many(house, [one, one, other, theirs])
    assert isinstance(first, Drafted)
    assert again == Drafted(first.id, is_new=False)
    assert codes([conflict]) == [Code.IDEMPOTENCY_CONFLICT]
    assert isinstance(another, Drafted)
    assert another.is_new
    assert another.id != first.id
    assert rows_of(house) == (2, 2, 2)


def test_many_asked_for_again_under_their_keys_are_the_same_drafts(house: House) -> None:
    asked = [replace(one, idempotency_key=f"k{number}") for number, one in enumerate(letters(4))]
    first = draft_many(house, asked[:3])
    house.clock.advance(HOUR)
    again = draft_many(house, asked)
    assert [one.id for one in again[:3] if isinstance(one, Drafted)] == [one.id for one in first]  # type: ignore[union-attr]
    assert [one.is_new for one in again if isinstance(one, Drafted)] == [False, False, False, True]
    assert rows_of(house) == (4, 4, 4)


def test_what_was_rejected_is_refused_among_many_with_the_newest_reason(house: House) -> None:
    from outbox import operator

    asked = [replace(one, idempotency_key=f"k{number}") for number, one in enumerate(letters(2))]
    rejected, _ = draft_many(house, asked)
    assert isinstance(rejected, Drafted)
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.reject(rejected.id, reason="too dear", named=None)
    plain, keyed, again, other = (
        letters(1)[0],
        asked[0],
        Asked(replace(OFFER, subject="Offer 0", resubmit="cheaper")),
        letters(2)[1],
    )
    results = draft_many(house, [plain, keyed, again, other])
    assert codes(results) == [Code.ALREADY_REJECTED, None, None, None]
    assert "too dear" in str(results[0])
    assert results[1] == Drafted(rejected.id, is_new=False)
    assert rows_of(house)[0] == 4


def test_a_long_list_is_stored_in_transactions_of_a_bounded_size(house: House) -> None:
    """Whoever reads meanwhile sees whole transactions, and at most one is under way while the next is prepared."""
    seen: list[int] = []

    def watched() -> Iterator[Asked]:
        for number, one in enumerate(letters(2 * MOST_IN_ONE_COMMIT + 2)):
            if number % MOST_IN_ONE_COMMIT in {0, 1, MOST_IN_ONE_COMMIT - 1}:
                seen.append(rows_of(house)[0])
            yield one

    with drafter.open(house.settings, clock=house.clock) as room:
        results = room.draft_many(watched())
    assert len(results) == 2 * MOST_IN_ONE_COMMIT + 2
    assert seen == sorted(seen)
    assert seen[:3] == [0, 0, 0]
    assert set(seen) <= {0, MOST_IN_ONE_COMMIT, 2 * MOST_IN_ONE_COMMIT}
    assert seen[-1] >= MOST_IN_ONE_COMMIT
    assert rows_of(house) == (len(results),) * 3


def test_large_messages_are_stored_before_too_many_are_in_memory(house: House) -> None:
    body = (b"a" * 76 + b"\r\n") * (LARGEST_COMMIT // 78 + 1)
    seen: list[int] = []

    def watched() -> Iterator[Asked]:
        for number in range(3):
            seen.append(rows_of(house)[0])
            yield Asked(Whole(PLAIN.replace("Offer", f"Offer {number}").encode() + body))

    with drafter.open(house.settings, clock=house.clock) as room:
        assert codes(room.draft_many(watched())) == [None] * 3
    assert seen[0] == 0
    assert seen[2] >= 1


def test_programs_draft_many_letters_and_whole_messages(house: House) -> None:
    results = outbox.draft_many(
        [
            outbox.Letter(sender=SALES, to=JANE, subject="Offer", text="hi", idempotency_key="1"),
            outbox.Letter(sender=SALES, to=JANE, subject="Offer", text="hi", attachments=["no-such-file"]),
            outbox.Letter(sender=SALES, to=JANE, subject="Offer", text="hi", ttl="soon"),
            outbox.WholeMessage(octets=PLAIN.encode(), to=["bob@customer.example"], agent="importer", ttl="2h"),
        ],
        config_file=house.folder / "outbox.toml",
    )
    assert codes(results) == [None, Code.ATTACHMENT_MISSING, Code.TTL_OUT_OF_RANGE, None]
    last = results[-1]
    assert isinstance(last, outbox.Drafted)
    draft = house.story(last.id).draft
    assert (draft.envelope.to, draft.agent) == (("bob@customer.example",), "importer")
    assert draft.expires_at - draft.created_at == 2 * HOUR


def test_an_open_door_drafts_more_than_once(house: House) -> None:
    with outbox.open(house.folder / "outbox.toml") as door:
        first = door.draft(outbox.Letter(sender=SALES, to=JANE, subject="Offer", text="hi"))
        second = door.draft(outbox.WholeMessage(octets=PLAIN.encode()))
        (third,) = door.draft_many([outbox.Letter(sender=SALES, to=[JANE], subject="Offer 3", text="hi")])
        with pytest.raises(PolicyRefused) as caught:
            door.draft(outbox.Letter(sender=SALES, to="nobody", subject="Offer", text="hi"))
    assert caught.value.code is Code.ADDRESS_INVALID
    assert isinstance(third, outbox.Drafted)
    assert [house.story(one).draft.state for one in (first.id, second.id, third.id)] == ["pending"] * 3
