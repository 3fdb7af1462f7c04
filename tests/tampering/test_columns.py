"""A thief of the file changes one column after another: nothing leaves, or exactly what was approved does."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import Table

from outbox import operator
from outbox.core.lifecycle import State
from outbox.store import schema
from tests.house import FOUNDER, HOUR, JANE, SALES, SECOND, House
from tests.seeds import seeds

MALLORY = "mallory@evil.example"
SECOND_APPROVER = "second@acme.example"

# What a change of each free column may do: at most let the approved message leave, or keep it from leaving.
FREE: dict[tuple[str, str], str] = {
    ("drafts", "fingerprint"): "tells repeated drafts of one agent apart; of no authority",
    ("drafts", "idempotency_key"): "names a draft to its own agent; of no authority",
    ("drafts", "about"): "which draft a system draft speaks of, for people who look at the table",
    ("drafts", "state"): "where it is; what may leave from there is what the grants say",
    ("drafts", "not_before"): "when it is tried; a draft and its grant run out by their own signed times",
    ("drafts", "stop_asked_at"): "can keep a draft from leaving, never let one leave",
    ("drafts", "attempt_id"): "is written by the claim; the attempts' own index holds at most once",
    ("drafts", "error_code"): "says how it ended",
    ("drafts", "error_message"): "says how it ended",
    ("requests", "carrier_id"): "which mail carried the request; the token is made from what that mail says",
    ("requests", "ask"): "counts how often it was asked",
    ("requests", "created_at"): "can make a reply look too old; the token and the draft's times are signed",
    ("requests", "spent_at"): "a second grant of one draft is refused by its state and by the grants' own key",
}
# What signatures, digests and MACs are taken over, and what is made from that.
SIGNED: set[tuple[str, str]] = {
    *(("drafts", name) for name in (
        "id", "kind", "agent", "envelope", "thread_references", "created_at", "expires_at",  # under the digest
        "digest", "signature", "key_id",  # the digest and its signature
        "subject", "message_id",  # derived from the message
    )),
    ("messages", "draft_id"), ("messages", "octets"),
    *(("grants", name) for name in (
        "id", "draft_id", "digest", "approver", "channel", "at", "expires_at", "signature", "key_id",
    )),
    *(("requests", name) for name in ("id", "draft_id", "digest", "approver", "expires_at")),  # under the token's MAC
    ("resubmissions", "draft_id"), ("resubmissions", "reason"),  # under the draft's digest
}  # fmt: skip
# What no row of these tables can do is make anything leave; what else a thief of the file gains by one.
WITHOUT_AUTHORITY = {
    "rejections": "a reason to read, and a draft that the same agent cannot make again",
    "workers": "a worker that looks dead while it lives; its lock and the attempts' index hold",
    "attempts": "a second try, which the ledger refuses: tests/tampering/test_thefts.py",
    "recipients": "what the relay is said to have said",
    "replies": "the same reply is judged again, which its draft's state refuses; the grants' own key too",
    "proofs": "how it is said to be known who approved; the grant is signed without it",
    "seen_signatures": "the same as of replies: what a signed reply answers is signed in it",
    "codes": "a one-time code counts twice within its minutes, for who has read it and has a token, from a mail alone",
    "wrong_codes": "more guesses, of 12 in a million each, for who has a token, from a mail alone",
    "tellings": "an approver hears twice, or never, what became of a draft",
    "signed_replies": "another reply in a receipt, which is checked against DKIM and the journal",
    "evidence": "what a person believes who settles; no evidence sends anything",
    "settlements": "what is said to have been settled; a settlement sends nothing",
    "pause": "sending goes on, or stops",
    "clock": "a worker that does not notice a clock which was set back",
    "identity": "a worker that does not start, since the ledger is another's; or one that looks for fewer of its gaps",
    "counters": "what `outbox status` shows of drafts that have ended",
    "gate": "a burst; each of its drafts was approved",
    "journal": "a chain that does not verify: tests/store/test_journal.py",
}
TABLES: tuple[Table, ...] = (
    schema.drafts, schema.messages, schema.requests, schema.grants, schema.resubmissions,
)  # fmt: skip
COLUMNS = [(table.name, column.name) for table in TABLES for column in table.columns]


def test_every_column_is_signed_or_free_for_a_reason() -> None:
    assert SIGNED | set(FREE) == set(COLUMNS)
    assert {table.name for table in TABLES} | WITHOUT_AUTHORITY.keys() == schema.metadata.tables.keys()
    assert not SIGNED & set(FREE)
    assert all(FREE.values())


@dataclass(frozen=True)
class Scene:
    """A draft that is to be tampered with, and another one that a thief may take values from."""

    house: House
    draft_id: str
    other_id: str

    def stored(self, table: str, column: str, draft_id: str) -> object:
        key = "id" if table == "drafts" else "draft_id"
        rows = self.house.rows(f"SELECT {column} FROM {table} WHERE {key} = ?", draft_id)
        return rows[0][0] if rows else None

    def others(self, table: str, column: str) -> object:
        """The value that stands in the other draft's row."""
        value = self.stored(table, column, self.other_id)
        assert value is not None
        return value


NEW_ID = "01a3185c-5000-7000-8000-00000000beef"
Value = Callable[[Scene, object], object]
VALUES: dict[tuple[str, str], list[Value]] = {
    ("drafts", "id"): [lambda _, __: NEW_ID],
    ("drafts", "kind"): [lambda _, __: "system", lambda _, __: "force_push_shared"],
    ("drafts", "agent"): [lambda _, __: "another agent"],
    ("drafts", "envelope"): [
        lambda _, old: str(old).replace(JANE, MALLORY),
        lambda _, old: str(old).replace('"bcc":[]', f'"bcc":["{MALLORY}"]'),
        lambda _, old: str(old).replace(SALES, "ceo@acme.example"),
        lambda _, old: str(old).replace('"cc":[]', '"cc":[ ]'),  # the same, written in another way
    ],
    ("drafts", "subject"): [lambda _, __: "Another offer"],
    ("drafts", "message_id"): [lambda scene, _: scene.others("drafts", "message_id")],
    ("drafts", "thread_references"): [lambda _, __: '{"in_reply_to":"<a@evil.example>","references":[]}'],
    ("drafts", "digest"): [lambda scene, _: scene.others("drafts", "digest"), lambda _, __: bytes(32)],
    ("drafts", "fingerprint"): [lambda scene, _: scene.others("drafts", "fingerprint")],
    ("drafts", "signature"): [lambda scene, _: scene.others("drafts", "signature"), lambda _, __: bytes(32)],
    ("drafts", "key_id"): [lambda scene, _: scene.house.settings.grant_ring()._newest, lambda _, __: ""],
    ("drafts", "idempotency_key"): [lambda _, __: "a key"],
    ("drafts", "about"): [lambda scene, _: scene.other_id],
    ("drafts", "created_at"): [lambda _, old: int(str(old)) - HOUR, lambda _, old: int(str(old)) + 1],
    ("drafts", "expires_at"): [lambda _, old: int(str(old)) + HOUR, lambda _, old: int(str(old)) - 1],
    ("drafts", "state"): [
        lambda _, __, state=state: state.value for state in State if state is not State.APPROVED
    ],
    ("drafts", "not_before"): [lambda _, __: 0, lambda scene, _: scene.house.clock() + HOUR],
    ("drafts", "stop_asked_at"): [lambda scene, _: scene.house.clock()],
    ("drafts", "attempt_id"): [lambda _, __: NEW_ID],
    ("drafts", "error_code"): [lambda _, __: "expired"],
    ("drafts", "error_message"): [lambda _, __: "it failed"],
    ("messages", "draft_id"): [lambda _, __: NEW_ID],
    ("messages", "octets"): [
        lambda _, old: bytes(old).replace(b"here it is", b"pay me now"),  # type: ignore[call-overload]
        lambda _, old: b"Bcc: mallory@evil.example\r\n" + bytes(old),  # type: ignore[call-overload]
        lambda _, old: bytes(old) + b"\r\n",  # type: ignore[call-overload]
        lambda scene, _: scene.others("messages", "octets"),
    ],
    ("requests", "id"): [lambda _, __: bytes(range(8))],
    ("requests", "draft_id"): [lambda scene, _: scene.other_id],
    ("requests", "approver"): [lambda _, __: MALLORY, lambda _, __: FOUNDER.title()],
    ("requests", "digest"): [lambda scene, _: scene.others("drafts", "digest")],
    ("requests", "carrier_id"): [lambda scene, _: scene.other_id],
    ("requests", "ask"): [lambda _, __: 3],
    ("requests", "created_at"): [
        lambda scene, _: scene.house.clock() - HOUR, lambda scene, _: scene.house.clock() + 9000 * HOUR
    ],
    ("requests", "expires_at"): [lambda _, old: int(str(old)) + HOUR],
    ("requests", "spent_at"): [lambda scene, _: scene.house.clock()],
    ("grants", "id"): [lambda _, __: NEW_ID],
    ("grants", "draft_id"): [lambda scene, _: scene.other_id],
    ("grants", "digest"): [lambda scene, _: scene.others("drafts", "digest")],
    ("grants", "approver"): [lambda _, __: SECOND_APPROVER, lambda _, __: FOUNDER.upper()],
    ("grants", "channel"): [lambda _, old: "terminal" if old == "reply" else "reply"],
    ("grants", "at"): [lambda _, old: int(str(old)) + 1],
    ("grants", "expires_at"): [lambda _, old: int(str(old)) + HOUR, lambda _, old: int(str(old)) - 1],
    ("grants", "signature"): [lambda _, __: bytes(32)],
    ("grants", "key_id"): [lambda scene, _: scene.house.settings.draft_ring()._newest],
    ("resubmissions", "draft_id"): [lambda scene, _: scene.other_id],
    ("resubmissions", "reason"): [lambda _, __: "the founder wants it", lambda _, old: f"{old} "],
}  # fmt: skip
CHANGES = [(table, column, number) for table, column in COLUMNS for number in range(len(VALUES[table, column]))]


def _named(changes: list[tuple[str, str, int]], turn: int) -> list[object]:
    """Every third change; the three turns together try each at one moment, and `make torture` each at every moment."""
    return [
        pytest.param(
            *change,
            id=f"{change[0]}.{change[1]}-{change[2]}",
            marks=[] if CHANGES.index(change) % 3 == turn else pytest.mark.torture,
        )
        for change in changes
    ]


@pytest.fixture
def scene(house: House) -> Scene:
    draft = house.draft(text="Dear Jane,\n\nhere it is.\n", resubmit="the price was corrected")
    other = house.draft(to=("jack@customer.example",), subject="Another offer", text="Dear Jack.\n")
    return Scene(house, draft.id, other.id)


def _tamper(scene: Scene, table: str, column: str, number: int) -> None:
    old = scene.stored(table, column, scene.draft_id)
    new = VALUES[table, column][number](scene, old)
    assert new != old, "this changes nothing"
    key = "id" if table == "drafts" else "draft_id"
    if (table, column) == ("grants", "approver"):
        scene.house.set("approval", approvers=f'["{FOUNDER}", "{SECOND_APPROVER}"]')
    with scene.house.as_thief() as thief:
        thief.execute("DELETE FROM requests WHERE draft_id = ?", (scene.other_id,))  # its key would stand in the way
        _change(thief, f"UPDATE {table} SET {column} = ? WHERE {key} = ?", new, scene.draft_id)


def _change(thief: sqlite3.Connection, statement: str, *values: object) -> None:
    assert thief.execute(statement, values).rowcount > 0, "this changes nothing"


def _drain_for_days(house: House) -> None:
    """Long enough for every pause and window, short of every expiry."""
    house.drain()
    house.clock.advance(2 * HOUR)
    house.drain()


def _assert_only_what_was_approved_left(scene: Scene, approved: bytes, *, signed: bool) -> None:
    """What reached anybody but the approvers is the approved message, once, to the approved envelope."""
    own = {(FOUNDER,), (SECOND_APPROVER,)}
    left = [sent for sent in scene.house.relay.messages if sent.recipients not in own]
    assert len(left) <= (0 if signed else 1)
    for sent in left:
        assert (sent.sender, sent.recipients) == (SALES, (JANE,))
        date, _, rest = sent.octets.partition(b"\r\n")
        assert date.startswith(b"Date: ")
        assert rest == approved


def test_a_draft_that_nobody_touched_leaves(scene: Scene) -> None:
    approved = bytes(scene.stored("messages", "octets", scene.draft_id))  # type: ignore[call-overload]
    _reply_to_request(scene, scene.house.ask(scene.draft_id))
    scene.house.inbox()
    _drain_for_days(scene.house)
    _assert_only_what_was_approved_left(scene, approved, signed=False)
    assert len(scene.house.relay.to(JANE)) == 1


AFTER_THE_APPROVAL = [one for one in CHANGES if one[0] != "requests"]
OF_THE_REQUEST = [one for one in CHANGES if one[0] == "requests"]


@pytest.mark.parametrize(("table", "column", "number"), _named(AFTER_THE_APPROVAL, 0))
def test_a_column_changed_after_the_approval(scene: Scene, table: str, column: str, number: int) -> None:
    approved = bytes(scene.stored("messages", "octets", scene.draft_id))  # type: ignore[call-overload]
    _approve(scene)
    _tamper(scene, table, column, number)
    _drain_for_days(scene.house)
    _assert_only_what_was_approved_left(scene, approved, signed=(table, column) in SIGNED)


@pytest.mark.parametrize(("table", "column", "number"), _named(OF_THE_REQUEST, 0))
def test_a_column_of_the_request_changed_after_the_approval_changes_nothing(
    scene: Scene, table: str, column: str, number: int
) -> None:
    approved = bytes(scene.stored("messages", "octets", scene.draft_id))  # type: ignore[call-overload]
    _reply_to_request(scene, scene.house.ask(scene.draft_id))
    scene.house.inbox()
    if column == "spent_at":
        scene.house.clock.advance(SECOND)
    _tamper(scene, table, column, number)
    _drain_for_days(scene.house)
    _assert_only_what_was_approved_left(scene, approved, signed=False)
    assert len(scene.house.relay.to(JANE)) == 1


BEFORE_THE_REPLY = [one for one in CHANGES if one[0] != "grants" and one[:2] != ("drafts", "state")]


@pytest.mark.parametrize(("table", "column", "number"), _named(BEFORE_THE_REPLY, 1))
def test_a_column_changed_between_the_asking_and_the_reply(scene: Scene, table: str, column: str, number: int) -> None:
    approved = bytes(scene.stored("messages", "octets", scene.draft_id))  # type: ignore[call-overload]
    request = scene.house.ask(scene.draft_id)
    _tamper(scene, table, column, number)
    _reply_to_request(scene, request)
    scene.house.inbox()
    _drain_for_days(scene.house)
    _assert_only_what_was_approved_left(scene, approved, signed=(table, column) in SIGNED)


BEFORE_THE_ASKING = [one for one in BEFORE_THE_REPLY if one[0] != "requests"]


@pytest.mark.parametrize(("table", "column", "number"), _named(BEFORE_THE_ASKING, 2))
def test_a_column_changed_before_the_asking(scene: Scene, table: str, column: str, number: int) -> None:
    approved = bytes(scene.stored("messages", "octets", scene.draft_id))  # type: ignore[call-overload]
    _tamper(scene, table, column, number)
    scene.house.inbox()
    scene.house.drain()
    asked = [sent for sent in scene.house.relay.messages if scene.draft_id.encode() in sent.octets]
    if asked and b"X-Outbox-Request" in asked[0].octets:
        _reply_to_request(scene, scene.house.request_for(scene.draft_id))
    scene.house.inbox()
    _drain_for_days(scene.house)
    _assert_only_what_was_approved_left(scene, approved, signed=(table, column) in SIGNED)


@pytest.mark.parametrize("state", seeds([state for state in State if state is not State.PENDING], 3))
def test_a_state_written_before_the_reply_sends_nothing_that_was_not_granted(scene: Scene, state: State) -> None:
    scene.house.ask(scene.draft_id)
    with scene.house.as_thief() as thief:
        _change(thief, "UPDATE drafts SET state = ?, not_before = 0 WHERE id = ?", state.value, scene.draft_id)
    scene.house.inbox()
    _drain_for_days(scene.house)
    assert scene.house.relay.to(JANE) == []


def _approve(scene: Scene) -> None:
    with operator.open(scene.house.settings, clock=scene.house.clock) as desk:
        desk.approve(scene.draft_id, named=FOUNDER)


def _reply_to_request(scene: Scene, request: object) -> None:
    scene.house.reply(request, "Ship it", sender=str(request["To"]))  # type: ignore[index,arg-type]
