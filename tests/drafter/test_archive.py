"""What settings add to an envelope as it is drafted: one more Bcc, and where bounces go. Both are signed and shown."""

from __future__ import annotations

import pytest

from outbox import drafter
from outbox.core.draft import Envelope
from outbox.core.errors import Code, OutboxError, PolicyRefused
from outbox.core.signed import verify_draft
from outbox.drafter.intake import Overrides
from outbox.store.engine import connect
from outbox.store.rows import load_draft
from tests.house import APPROVAL, JANE, SALES, House

ARCHIVE = "archive@acme.example"
BOUNCES = "bounces@acme.example"
WHOLE = (
    b"From: Sales <sales@acme.example>\r\nTo: jane@customer.example\r\nSubject: Offer\r\n\r\nDear Jane, here it is.\r\n"
)


def archiving(house: House, archive: str = ARCHIVE) -> House:
    house.set("policy", archive=f'"{archive}"')
    return house


def bouncing(house: House, return_path: str = BOUNCES) -> House:
    house.set("relay", return_path=f'"{return_path}"')
    return house


def adopted(house: House, overrides: Overrides | None = None) -> Envelope:
    """The envelope of a whole message's draft."""
    with drafter.open(house.settings, clock=house.clock) as room:
        return room.adopt(WHOLE, overrides or Overrides()).draft.envelope


def request_text(house: House, draft_id: str) -> str:
    """What the approver would be asked with, as it is stored."""
    house.inbox()
    ((octets,),) = house.rows(
        "SELECT octets FROM messages JOIN drafts ON drafts.id = draft_id WHERE kind = 'system' AND about = ?", draft_id
    )
    assert isinstance(octets, bytes)
    return octets.decode().replace("\r\n", "\n")


# The archive


def test_the_archive_is_in_bcc_and_signed(house: House) -> None:
    draft = archiving(house).draft(bcc=("jack@customer.example",))
    assert draft.envelope == Envelope(SALES, (JANE,), (), ("jack@customer.example", ARCHIVE))
    database = connect(house.place)
    try:
        with database.reading() as connection:
            signed = load_draft(connection, draft.id)
    finally:
        database.close()
    verify_draft(house.settings.draft_ring(), signed)
    assert signed.draft.envelope == draft.envelope
    assert ARCHIVE.encode() not in signed.draft.message


def test_a_whole_message_goes_to_the_archive_too(house: House) -> None:
    assert adopted(archiving(house)) == Envelope(SALES, (JANE,), (), (ARCHIVE,))


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
def test_an_archive_that_was_named_already_is_not_added(house: House, field: str) -> None:
    draft = archiving(house).draft(**{"to": (JANE,), field: ("Archive@acme.example",)})  # type: ignore[arg-type]
    assert [address.lower() for address in draft.envelope.recipients].count(ARCHIVE) == 1


def test_the_archive_is_no_recipient_for_a_draft_that_has_none(house: House) -> None:
    with pytest.raises(PolicyRefused) as refused:
        archiving(house).draft(to=())
    assert refused.value.code is Code.NO_RECIPIENT


def test_a_full_list_of_recipients_leaves_room_for_the_archive(house: House) -> None:
    house.set("policy", max_recipients="2")
    everybody = (JANE, "jack@customer.example")
    assert archiving(house).draft(to=everybody).envelope.recipients == (*everybody, ARCHIVE)
    with pytest.raises(PolicyRefused) as refused:
        house.draft(to=(*everybody, "jill@customer.example"))
    assert refused.value.code is Code.TOO_MANY_RECIPIENTS


def test_what_settings_add_does_not_tell_two_drafts_of_one_key_apart(house: House) -> None:
    first = house.draft(idempotency_key="offer-1")
    bouncing(archiving(house))
    assert house.draft(idempotency_key="offer-1").id == first.id
    assert house.draft(idempotency_key="offer-2").envelope.recipients == (JANE, ARCHIVE)


def test_the_approver_sees_the_archive_and_where_bounces_go(house: House) -> None:
    bouncing(archiving(house))
    text = request_text(house, house.draft().id)
    assert (
        f"    From     {SALES}\n    Bounces  would go to {BOUNCES}\n    To       {JANE}\n    Bcc      {ARCHIVE}\n"
        in text
    )
    assert "Beware" not in text


def test_the_outboxs_own_mail_has_neither(house: House) -> None:
    bouncing(archiving(house))
    house.draft()
    house.inbox()
    (notice,) = [draft for draft in house.drafts(system=True) if draft.kind == "system"]
    assert notice.envelope.sender == APPROVAL
    assert ARCHIVE not in notice.envelope.recipients


# The return path


def test_bounces_go_to_the_return_path_and_the_message_stays_as_it_is(house: House) -> None:
    plain = house.draft()
    draft = bouncing(house).draft()
    assert draft.envelope == Envelope(BOUNCES, (JANE,))
    assert (draft.fingerprint, draft.subject) == (plain.fingerprint, plain.subject)
    assert adopted(house) == Envelope(BOUNCES, (JANE,))
    assert adopted(house, Overrides(sender="billing@acme.example")) == Envelope(BOUNCES, (JANE,))


def test_what_may_not_be_a_sender_is_refused_although_bounces_go_elsewhere(house: House) -> None:
    bouncing(house)
    for sender, code in (("sales@other.example", Code.FROM_DOMAIN), (APPROVAL, Code.APPROVAL_ADDRESS)):
        with pytest.raises(PolicyRefused) as refused:
            adopted(house, Overrides(sender=sender))
        assert refused.value.code is code


def test_the_return_path_is_of_a_domain_that_may_be_drafted_from(house: House) -> None:
    with pytest.raises(OutboxError, match=r"policy\.from_domains"):
        bouncing(house, "bounces@other.example").draft()


def test_the_approval_address_may_take_the_bounces_and_nothing_else(house: House) -> None:
    bouncing(house, APPROVAL)
    assert house.draft().envelope == Envelope(APPROVAL, (JANE,))
    for given in ({"sender": APPROVAL}, {"to": (APPROVAL,)}, {"bcc": ("approve+x@acme.example",)}):
        with pytest.raises(PolicyRefused) as refused:
            house.draft(**given)
        assert refused.value.code is Code.APPROVAL_ADDRESS


def test_the_archive_is_not_the_approval_address(house: House) -> None:
    with pytest.raises(OutboxError, match="approval address"):
        archiving(house, "approve+archive@acme.example").draft()
