"""What a thief of the file might try: grants forged and borrowed, states set back, rows swapped after showing."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from email.message import EmailMessage

import pytest

from outbox.clock import new_id
from outbox.core.canonical import digest
from outbox.core.draft import Envelope
from outbox.core.errors import Code, Unavailable
from outbox.core.grant import Channel, Grant, sign_grant
from outbox.core.lifecycle import State
from outbox.core.message import date_line
from outbox.core.signed import SignedDraft, sign_draft
from outbox.core.signing import KeyRing, Signature
from outbox.ledger import LedgerRefused
from outbox.store.engine import connect
from outbox.store.rows import envelope_text, load_draft
from tests.house import FOUNDER, HOUR, JANE, SALES, House
from tests.relay.scripted import Fin, Keep, Phase, ScriptedRelay
from tests.seeds import seeds
from tests.worker.hand import system_drafts

JACK = "jack@customer.example"
MALLORY = "mallory@evil.example"


def _load(house: House, draft_id: str) -> SignedDraft:
    database = connect(house.place)
    try:
        with database.reading() as connection:
            return load_draft(connection, draft_id)
    finally:
        database.close()


def _write(thief: sqlite3.Connection, signed: SignedDraft) -> None:
    """Put a whole draft where one of the same id is."""
    draft = signed.draft
    thief.execute(
        "UPDATE drafts SET envelope = ?, subject = ?, message_id = ?, digest = ?, signature = ?, key_id = ? "
        "WHERE id = ?",
        (
            envelope_text(draft.envelope), signed.subject, signed.message_id, signed.digest,
            signed.signature.octets, signed.signature.key_id, draft.id,
        ),
    )  # fmt: skip
    thief.execute("UPDATE messages SET octets = ? WHERE draft_id = ?", (draft.message, draft.id))


def _other_words(signed: SignedDraft, ring: KeyRing | None = None) -> SignedDraft:
    """Another message to somebody else under the same id, with its digest; signed, where there is a key."""
    message = signed.draft.message.replace(b"here it is", b"pay me now").replace(JANE.encode(), MALLORY.encode())
    draft = replace(signed.draft, message=message, envelope=Envelope(SALES, (MALLORY,)))
    if ring is not None:
        return sign_draft(ring, draft, signed.fingerprint)
    return replace(signed, draft=draft, digest=digest(draft))


def _insert_grant(thief: sqlite3.Connection, grant: Grant, signature: Signature) -> None:
    thief.execute(
        "INSERT INTO grants (id, draft_id, digest, approver, channel, at, expires_at, signature, key_id) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            grant.id, grant.draft_id, grant.digest, grant.approver, grant.channel.value, grant.at, grant.expires_at,
            signature.octets, signature.key_id,
        ),
    )  # fmt: skip


def _set_back(thief: sqlite3.Connection, draft_id: str) -> None:
    thief.execute("UPDATE drafts SET state = 'approved', not_before = 0, attempt_id = NULL WHERE id = ?", (draft_id,))


def _customers(house: House) -> list[tuple[str, ...]]:
    return [sent.recipients for sent in house.relay.messages if sent.recipients != (FOUNDER,)]


def _drain_for_days(house: House) -> None:
    house.drain()
    house.clock.advance(2 * HOUR)
    house.drain()


def _assert_nothing_leaves(house: House, draft_id: str, code: str) -> None:
    _drain_for_days(house)
    found = house.story(draft_id).draft
    assert _customers(house) == []
    assert (found.state, (found.error or ("",))[0]) == (State.FAILED, code)


def test_a_grant_that_is_copied_to_another_draft_grants_nothing(house: House) -> None:
    house.approved()
    other = house.draft(to=(JACK,))
    with house.as_thief() as thief:
        thief.execute(
            "INSERT INTO grants SELECT 'copied', ?, (SELECT digest FROM drafts WHERE id = ?), approver, channel, at, "
            "expires_at, signature, key_id FROM grants",
            (other.id, other.id),
        )
        _set_back(thief, other.id)
    house.drain()
    assert _customers(house) == [(JANE,)]
    assert (house.story(other.id).draft.error or ("",))[0] == "grant_invalid"


def test_a_grant_that_is_moved_to_another_draft_grants_nothing(house: House) -> None:
    draft, other = house.approved(), house.draft(to=(JACK,))
    with house.as_thief() as thief:
        thief.execute("UPDATE grants SET draft_id = ?", (other.id,))
        _set_back(thief, other.id)
    house.drain()
    assert _customers(house) == []
    assert (house.story(draft.id).draft.error or ("",))[0] == "grant_missing"
    assert (house.story(other.id).draft.error or ("",))[0] == "grant_invalid"


def test_a_grant_whose_time_is_extended_grants_nothing(house: House) -> None:
    house.set("approval", grant_ttl='"1h"')
    draft = house.approved()
    house.clock.advance(HOUR)
    with house.as_thief() as thief:
        thief.execute("UPDATE grants SET expires_at = expires_at + ?", (24 * HOUR,))
    _assert_nothing_leaves(house, draft.id, "grant_invalid")


def test_a_grant_from_a_time_that_is_not_yet_grants_nothing(house: House) -> None:
    draft = house.draft()
    house.clock.advance(HOUR)
    house.approve(draft.id)
    house.clock.advance(-HOUR)
    with house.as_thief() as thief:
        thief.execute("UPDATE drafts SET not_before = 0")
    house.drain()
    assert _customers(house) == []
    assert (house.story(draft.id).draft.error or ("",))[0] == "grant_invalid"


@pytest.mark.parametrize("approver", [FOUNDER, MALLORY])
def test_a_grant_signed_with_the_draft_key_grants_nothing(house: House, approver: str) -> None:
    draft = house.draft()
    now = house.clock()
    forged = Grant(new_id(now), draft.id, draft.digest, approver, Channel.TERMINAL, now, now + HOUR)
    with house.as_thief() as thief:
        _insert_grant(thief, forged, sign_grant(house.settings.draft_ring(), forged))
        _set_back(thief, draft.id)
    _assert_nothing_leaves(house, draft.id, "grant_invalid")


def test_a_grant_that_is_signed_anew_with_the_draft_key_grants_nothing(house: House) -> None:
    draft = house.approved()
    (row,) = house.rows("SELECT id, approver, at FROM grants")
    now = house.clock()
    longer = Grant(str(row[0]), draft.id, draft.digest, str(row[1]), Channel.TERMINAL, now, now + 24 * HOUR)
    signature = sign_grant(house.settings.draft_ring(), longer)
    with house.as_thief() as thief:
        thief.execute("DELETE FROM grants")
        _insert_grant(thief, longer, signature)
    _assert_nothing_leaves(house, draft.id, "grant_invalid")


def test_a_true_grant_beside_a_forged_one_grants_nothing(house: House) -> None:
    draft = house.approved()
    now = house.clock()
    forged = Grant(new_id(now), draft.id, draft.digest, MALLORY, Channel.TERMINAL, now, now + HOUR)
    with house.as_thief() as thief:
        _insert_grant(thief, forged, sign_grant(house.settings.draft_ring(), forged))
    _assert_nothing_leaves(house, draft.id, "grant_invalid")


def test_a_pending_draft_that_is_set_to_approved_does_not_leave(house: House) -> None:
    draft = house.draft()
    with house.as_thief() as thief:
        _set_back(thief, draft.id)
    _assert_nothing_leaves(house, draft.id, "grant_missing")


def test_a_rejected_draft_that_is_set_to_approved_does_not_leave(house: House) -> None:
    draft = house.draft()
    house.reply(house.ask(draft.id), "No")
    house.inbox()
    assert house.story(draft.id).draft.state is State.REJECTED
    with house.as_thief() as thief:
        _set_back(thief, draft.id)
    _assert_nothing_leaves(house, draft.id, "grant_missing")


def test_a_draft_that_was_cancelled_before_its_approval_does_not_leave(house: House) -> None:
    draft = house.draft()
    house.cancel(draft.id)
    with house.as_thief() as thief:
        _set_back(thief, draft.id)
    _assert_nothing_leaves(house, draft.id, "grant_missing")


def test_a_draft_that_was_cancelled_after_its_approval_leaves_as_approved_or_not_at_all(house: House) -> None:
    draft = house.approved()
    (stored,) = house.rows("SELECT octets FROM messages")
    house.cancel(draft.id)
    with house.as_thief() as thief:
        _set_back(thief, draft.id)
    now = house.clock()
    _drain_for_days(house)
    assert [sent.octets for sent in house.relay.to(JANE)] in ([], [date_line(now) + bytes(stored[0])])  # type: ignore[call-overload]


def test_an_expired_draft_that_is_set_to_approved_does_not_leave(house: House) -> None:
    draft = house.approved(ttl=3600)
    house.clock.advance(HOUR)
    house.drain()
    assert house.story(draft.id).draft.state is State.EXPIRED
    with house.as_thief() as thief:
        _set_back(thief, draft.id)
    _drain_for_days(house)
    assert _customers(house) == []


def test_a_completed_draft_that_is_set_to_approved_does_not_leave_twice(house: House) -> None:
    draft = house.approved()
    house.drain()
    with house.as_thief() as thief:
        _set_back(thief, draft.id)
    _drain_for_days(house)
    assert _customers(house) == [(JANE,)]


def test_a_draft_in_doubt_that_is_set_to_approved_does_not_leave_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with ScriptedRelay({Phase.DOT: [Keep(), Fin()]}) as relay:
        house = House.build(tmp_path_factory.mktemp("house"), relay)  # type: ignore[arg-type]
        draft = house.approved()
        house.drain()
        with house.as_thief() as thief:
            _set_back(thief, draft.id)
        _drain_for_days(house)
        assert _customers(house) == [(JANE,)]


def test_a_completed_draft_that_is_set_back_without_its_attempts_does_not_leave_twice(house: House) -> None:
    draft = house.approved()
    house.drain()
    with house.as_thief() as thief:
        thief.execute("DELETE FROM recipients")
        thief.execute("DELETE FROM attempts")
        _set_back(thief, draft.id)
    with pytest.raises(LedgerRefused) as refused:
        house.drain()
    assert refused.value.code is Code.LEDGER_AHEAD
    assert _customers(house) == [(JANE,)]


@pytest.mark.parametrize("with_grant", [False, True])
def test_octets_envelope_and_digest_changed_together_do_not_leave(house: House, with_grant: bool) -> None:
    draft = house.approved()
    changed = _other_words(_load(house, draft.id))
    with house.as_thief() as thief:
        _write(thief, changed)
        if with_grant:
            thief.execute("UPDATE grants SET digest = ?", (changed.digest,))
    _assert_nothing_leaves(house, draft.id, "signature_invalid")


def test_a_draft_that_its_drafter_signs_anew_after_the_approval_does_not_leave(house: House) -> None:
    draft = house.approved()
    changed = _other_words(_load(house, draft.id), house.settings.draft_ring())
    with house.as_thief() as thief:
        _write(thief, changed)
    _assert_nothing_leaves(house, draft.id, "grant_invalid")


def test_a_draft_that_its_drafter_signs_anew_after_it_was_shown_is_not_granted(house: House) -> None:
    draft = house.draft()
    request = house.ask(draft.id)
    changed = _other_words(_load(house, draft.id), house.settings.draft_ring())
    with house.as_thief() as thief:
        _write(thief, changed)
    _assert_reply_grants_nothing(house, request, draft.id)


@pytest.mark.parametrize("rewrite_request", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_what_is_shown_is_what_is_granted_though_the_row_was_put_back_before_the_reply(
    house: House, rewrite_request: bool, signed: bool
) -> None:
    draft = house.draft()
    real = _load(house, draft.id)
    with house.as_thief() as thief:
        _write(thief, _other_words(real, house.settings.draft_ring() if signed else None))
    request = house.ask(draft.id)
    assert "pay me now" in str(request)
    with house.as_thief() as thief:
        _write(thief, real)
        if rewrite_request:
            thief.execute("UPDATE requests SET digest = ?", (real.digest,))
    _assert_reply_grants_nothing(house, request, draft.id)


def _assert_reply_grants_nothing(house: House, request: EmailMessage, draft_id: str) -> None:
    house.reply(request, "Ship it")
    house.inbox()
    assert house.rows("SELECT count(*) FROM grants") == [(0,)]
    assert house.story(draft_id).draft.state is State.PENDING
    _drain_for_days(house)
    assert _customers(house) == []


def test_two_approved_drafts_whose_messages_are_swapped_do_not_leave(house: House) -> None:
    one, other = house.approved(), house.approved(to=(JACK,), text="Dear Jack,\n\nyours is dearer.")
    first, second = _load(house, one.id).draft.message, _load(house, other.id).draft.message
    with house.as_thief() as thief:
        thief.execute("UPDATE messages SET octets = ? WHERE draft_id = ?", (second, one.id))
        thief.execute("UPDATE messages SET octets = ? WHERE draft_id = ?", (first, other.id))
    _assert_nothing_leaves(house, one.id, "digest_mismatch")
    assert (house.story(other.id).draft.error or ("",))[0] == "digest_mismatch"


def test_two_approved_drafts_that_are_swapped_whole_do_not_leave(house: House) -> None:
    one, other = house.approved(), house.approved(to=(JACK,), text="Dear Jack,\n\nyours is dearer.")
    first, second = _load(house, one.id), _load(house, other.id)
    with house.as_thief() as thief:
        _write(thief, replace(first, draft=replace(second.draft, id=one.id)))
        _write(thief, replace(second, draft=replace(first.draft, id=other.id)))
    _assert_nothing_leaves(house, one.id, "digest_mismatch")


def test_a_draft_that_is_given_another_id_everywhere_does_not_leave_under_it(house: House) -> None:
    draft = house.approved()
    house.drain()
    another = new_id(house.clock())
    with house.as_thief() as thief:
        for table in ("attempts", "grants", "messages"):
            thief.execute(f"UPDATE {table} SET draft_id = ?", (another,))
        thief.execute("UPDATE drafts SET id = ? WHERE id = ?", (another, draft.id))
        thief.execute("UPDATE attempts SET draft_id = id")  # so that the index does not see them
        _set_back(thief, another)
    with pytest.raises(LedgerRefused):  # which has that attempt for another draft
        house.drain()
    assert _customers(house) == [(JANE,)]


def test_a_draft_that_is_made_a_system_draft_does_not_leave(house: House) -> None:
    draft = house.draft()
    with house.as_thief() as thief:
        thief.execute("UPDATE drafts SET kind = 'system' WHERE id = ?", (draft.id,))
        _set_back(thief, draft.id)
    _assert_nothing_leaves(house, draft.id, "digest_mismatch")


@pytest.mark.parametrize("recipient", [MALLORY, JANE])
def test_a_system_draft_whose_recipient_was_changed_does_not_leave(house: House, recipient: str) -> None:
    house.draft()
    house.inbox()
    (request,) = system_drafts(house)
    with house.as_thief() as thief:
        thief.execute(
            "UPDATE drafts SET envelope = replace(envelope, ?, ?) WHERE id = ?", (FOUNDER, recipient, request)
        )
    _assert_nothing_leaves(house, request, "digest_mismatch")
    assert house.relay.to(recipient) == []


def test_who_can_read_the_database_cannot_answer_in_the_approvers_name(house: House) -> None:
    draft = house.draft()
    house.ask(draft.id)
    (request,) = system_drafts(house)
    stored = _load(house, request).draft.message
    placeholder = stored.split(b"Reply-To: ")[1].split(b"\r\n")[0].decode()
    (row,) = house.rows("SELECT id FROM requests")
    for token in (placeholder, f"approve+{bytes(row[0]).hex()}@acme.example"):  # type: ignore[call-overload]
        message = EmailMessage()
        message["Reply-To"], message["Subject"], message["Message-ID"] = token, "Send this?", "<x@acme.example>"
        message.set_content("...")
        house.reply(message, "Ship it")
    house.inbox()
    house.drain()
    assert house.story(draft.id).draft.state is State.PENDING
    assert _customers(house) == []


def test_a_careless_thief_who_leaves_the_guards_off_stops_the_worker(house: House) -> None:
    house.approved()
    with house.connection() as thief:
        thief.execute("DROP TRIGGER drafts_edges")
    with pytest.raises(Unavailable) as refused:
        house.drain()
    assert refused.value.code is Code.DATABASE_ALTERED
    assert house.relay.connections == 0


def test_a_thief_who_drops_the_index_that_holds_at_most_once_stops_the_worker(house: House) -> None:
    house.approved()
    with house.connection() as thief:
        thief.execute("DROP INDEX attempts_at_most_once")
    with pytest.raises(Unavailable):
        house.drain()
    assert house.relay.connections == 0


def test_the_guards_refuse_a_hand_at_the_prompt(house: House) -> None:
    draft = house.draft()
    with house.connection() as stranger, pytest.raises(sqlite3.IntegrityError, match="approval needs a grant"):
        _set_back(stranger, draft.id)


def test_a_second_approval_with_a_token_made_fresh_again_sends_no_second_copy(house: House) -> None:
    draft = house.draft()
    request = house.ask(draft.id)
    house.reply(request, "Ship it")
    house.inbox()
    house.drain()
    with house.as_thief() as thief:
        thief.execute("UPDATE requests SET spent_at = NULL")
    house.reply(request, "Ship it")
    house.inbox()
    _drain_for_days(house)
    assert _customers(house) == [(JANE,)]


def test_a_grant_taken_away_leaves_nothing_to_send_with(house: House) -> None:
    draft = house.approved()
    with house.as_thief() as thief:
        thief.execute("DELETE FROM grants")
    _assert_nothing_leaves(house, draft.id, "grant_missing")


POISON: dict[str, tuple[str, object]] = {
    "an instant beyond what JSON can say": ("UPDATE drafts SET created_at = ?, expires_at = 2 << 60", 2**60),
    "an expiry beyond what JSON can say": ("UPDATE drafts SET expires_at = ?", 2**62),
    "an envelope nested beyond reason": ("UPDATE drafts SET envelope = ?", "[" * 200_000),
    "an envelope of another shape": ("UPDATE drafts SET envelope = ?", "[1, 2]"),
    "an envelope of numbers": ("UPDATE drafts SET envelope = ?", '{"bcc":[],"cc":[],"from":1,"to":[2]}'),
    "an envelope that is no text": ("UPDATE drafts SET envelope = CAST(? AS TEXT)", b"\xff\xfe"),
    "an agent that is no text": ("UPDATE drafts SET agent = CAST(? AS TEXT)", b"\xff\xfe"),
    "a kind that is no text": ("UPDATE drafts SET kind = CAST(? AS TEXT)", b"\xff\xfe"),
    "references nested beyond reason": ("UPDATE drafts SET thread_references = ?", "[" * 200_000),
    "a signature of another length": ("UPDATE drafts SET signature = ?", b""),
    "a message without a header": ("UPDATE messages SET octets = ?", b""),
    "a message of zeros": ("UPDATE messages SET octets = ?", bytes(1000)),
    "no message": ("DELETE FROM messages WHERE draft_id <> ?", ""),
    "a grant beyond what JSON can say": ("UPDATE grants SET expires_at = ?", 2**62),
    "a grant of an unknown channel": ("UPDATE grants SET channel = ?", "telepathy"),
    "a grant that is no text": ("UPDATE grants SET approver = CAST(? AS TEXT)", b"\xff\xfe"),
    "a grant's approver with line breaks": ("UPDATE grants SET approver = ?", "a\r\nBcc: mallory@evil.example"),
}


@pytest.mark.parametrize("poison", seeds(POISON, 3))
def test_a_row_that_cannot_be_read_fails_and_stops_nobody_else(house: House, poison: str) -> None:
    statement, value = POISON[poison]
    bad = house.approved()
    with house.as_thief() as thief:
        thief.execute(statement, (value,))
    good = house.approved(to=(JACK,))
    house.drain()
    assert _customers(house) == [(JACK,)]
    assert house.rows("SELECT state FROM drafts WHERE id = ?", bad.id) == [("failed",)]
    assert house.rows("SELECT state FROM drafts WHERE id = ?", good.id) == [("completed",)]


# A grant is not there yet, and a signature is not the inbox's to verify.
UNSHOWABLE = [name for name in POISON if not name.startswith(("a grant", "a signature"))]


@pytest.mark.parametrize("poison", seeds(UNSHOWABLE, 3))
def test_a_row_that_cannot_be_read_is_not_asked_about_and_stops_no_other_request(house: House, poison: str) -> None:
    statement, value = POISON[poison]
    bad = house.draft()
    with house.as_thief() as thief:
        thief.execute(statement, (value,))
    good = house.draft(to=(JACK,))
    house.inbox()
    house.drain()
    assert house.request_for(good.id)
    assert not [sent for sent in house.relay.messages if f"draft={bad.id}".encode() in sent.octets]


def test_an_id_with_line_breaks_stops_nobody(house: House) -> None:
    bad = house.approved()
    with house.as_thief() as thief:
        for table, column in (("grants", "draft_id"), ("messages", "draft_id"), ("drafts", "id")):
            thief.execute(f"UPDATE {table} SET {column} = ?", ("x\r\nBcc: mallory@evil.example\r\n",))
    house.approved(to=(JACK,))
    house.drain()
    assert _customers(house) == [(JACK,)]
    assert house.rows("SELECT count(*) FROM drafts WHERE id = ?", bad.id) == [(0,)]
    told = house.relay.to(FOUNDER)
    assert not any(b"\r\nBcc:" in sent.octets.partition(b"\r\n\r\n")[0] for sent in told)
