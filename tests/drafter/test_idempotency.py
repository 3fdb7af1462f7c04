"""One idempotency key of an agent names one draft, also where many ask at once."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from outbox.core.errors import Code
from outbox.core.message import Attachment
from tests.drafter.ledger import PLAIN, adopt, assert_not_adopted, assert_refused, rows_of
from tests.house import HOUR, House


def test_the_same_key_with_the_same_content_is_the_same_draft(house: House) -> None:
    first = house.draft(idempotency_key="offer-1")
    before = rows_of(house)
    house.clock.advance(HOUR)
    assert house.draft(idempotency_key="offer-1") == first
    assert rows_of(house) == before


def test_without_a_key_the_same_content_is_another_draft(house: House) -> None:
    assert house.draft().id != house.draft().id


@pytest.mark.parametrize(
    "other",
    [
        {"subject": "Other"},
        {"text": "other"},
        {"html": "<p>other</p>"},
        {"to": ("bob@customer.example",)},
        {"to": ("Jane <jane@customer.example>",)},
        {"cc": ("bob@customer.example",)},
        {"bcc": ("bob@customer.example",)},
        {"sender": "ceo@acme.example"},
        {"in_reply_to": "<a@x.example>"},
        {"references": ("<a@x.example>",)},
        {"attachments": (Attachment("a.txt", "text/plain", b"x"),)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_the_same_key_with_other_content_is_a_conflict(house: House, other: dict[str, object]) -> None:
    house.draft(idempotency_key="offer-1")
    refused = assert_refused(house, Code.IDEMPOTENCY_CONFLICT, idempotency_key="offer-1", **other)
    assert refused.field == "idempotency_key"


@pytest.mark.parametrize(
    "changed", [("a.txt", "text/plain", b"y"), ("b.txt", "text/plain", b"x"), ("a.txt", "a/b", b"x")]
)
def test_an_attachment_s_name_type_and_octets_are_content(house: House, changed: tuple[str, str, bytes]) -> None:
    house.draft(idempotency_key="offer-1", attachments=(Attachment("a.txt", "text/plain", b"x"),))
    attachments = (Attachment(*changed),)
    assert_refused(house, Code.IDEMPOTENCY_CONFLICT, idempotency_key="offer-1", attachments=attachments)


def test_another_agent_may_use_the_same_key(house: House) -> None:
    mine = house.draft(idempotency_key="offer-1", agent="sales-bot")
    theirs = house.draft(idempotency_key="offer-1", agent="billing-bot", subject="Invoice")
    assert mine.id != theirs.id


def test_a_key_still_names_its_draft_after_that_was_cancelled(house: House) -> None:
    first = house.draft(idempotency_key="offer-1")
    house.cancel(first.id)
    again = house.draft(idempotency_key="offer-1")
    assert (again.id, again.state) == (first.id, "cancelled")


def test_a_whole_message_is_the_same_whatever_its_date(house: House) -> None:
    dated = "Date: Fri, 15 Jan 2027 08:00:00 +0000\n" + PLAIN
    first = adopt(house, dated.encode(), idempotency_key="offer-1")
    again = adopt(house, dated.replace("08:00", "09:00").replace("\n", "\r\n").encode(), idempotency_key="offer-1")
    assert first.id == again.id


def test_a_whole_message_that_differs_in_one_octet_is_a_conflict(house: House) -> None:
    adopt(house, PLAIN.encode(), idempotency_key="offer-1")
    other = PLAIN.replace("Dear Jane", "Dear  Jane").encode()
    assert_not_adopted(house, Code.IDEMPOTENCY_CONFLICT, other, idempotency_key="offer-1")


def test_two_drafts_of_the_same_content_have_one_fingerprint_and_two_digests(house: House) -> None:
    first, second = house.draft(), house.draft()
    assert first.fingerprint == second.fingerprint
    assert first.digest != second.digest


def test_threads_that_draft_under_one_key_at_once_make_one_row(house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: house.draft(idempotency_key="offer-1").id, range(24)))
    assert len(set(made)) == 1
    assert rows_of(house) == (1, 1, 1)


def test_threads_that_draft_different_things_under_one_key_make_one_row(house: House) -> None:
    def one(number: int) -> str:
        try:
            return house.draft(idempotency_key="offer-1", subject=f"Offer {number}").subject
        except Exception as error:  # noqa: BLE001  looked at below, with its type
            return f"{type(error).__name__} {getattr(error, 'code', '')}"

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(one, range(16)))
    assert said.count("PolicyRefused idempotency_conflict") == 15
    assert rows_of(house) == (1, 1, 1)


def test_processes_that_draft_under_one_key_at_once_make_one_row(house: House) -> None:
    program = (
        "import outbox, sys\n"
        "d = outbox.draft(sender='sales@acme.example', to='jane@customer.example', subject='Offer', text='hi',\n"
        "                 idempotency_key='offer-1', config_file=sys.argv[1])\n"
        "print(d.id)\n"
    )
    command = [sys.executable, "-c", program, str(house.folder / "outbox.toml")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * 4, said
    assert len({out for out, _ in said}) == 1
    assert rows_of(house) == (1, 1, 1)


def test_the_journal_names_the_draft_its_agent_and_its_digest(house: House) -> None:
    draft = house.draft(agent="sales-bot")
    ((action, detail),) = house.rows("SELECT action, detail FROM journal WHERE draft_id = ?", draft.id)
    assert action == "insert"
    assert json.loads(str(detail)) == {"to": "pending", "agent": "sales-bot", "digest": draft.digest.hex()}
