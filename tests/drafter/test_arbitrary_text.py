"""Whatever text an agent gives: a refusal, or a message that says exactly that and has exactly the expected headers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox.core.errors import PolicyRefused
from outbox.core.message import Attachment
from tests.drafter.ledger import adopt, header_names, read_back, rows_of, stored
from tests.drafter.test_composition import normal
from tests.house import JANE, SALES, House
from tests.relay.recording import RecordingRelay

HEADERS = ["from", "to", "subject", "message-id", "x-outbox-draft", "content-type", "mime-version"]
MANY = settings(max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
NASTY = st.sampled_from(
    [
        "\r",
        "\n",
        "\0",
        "\r\n",
        "\x85",
        "\u2028",
        "\x0b",
        "\x1c",
        "=?utf-8?q?",
        "=0D=0A",
        "?=",
        '"',
        "\\",
        "<",
        ">",
        ",",
        ";",
        ":",
        " ",
        "\t",
        "\u202e",
        "\u200b",
        "\U0001f600",
        "\u00e9",
        "\ufeff",
        ".",
        "From ",
        "Bcc: e@x",
        "=?utf-8?b?DQo=?=",
        "%0D%0A",
    ]
)
TEXT = st.one_of(
    st.text(max_size=120),
    st.lists(st.one_of(NASTY, st.text(max_size=8)), max_size=12).map("".join),
    st.text(alphabet=st.characters(codec="latin-1"), max_size=250),
)


@pytest.fixture(scope="module")
def room() -> Iterator[House]:
    """One house for every example: what they write does not meet."""
    with tempfile.TemporaryDirectory() as folder:
        yield House.build(Path(folder), RecordingRelay(port=2525))


def octets_or_refusal(house: House, **given_: object) -> bytes | None:
    """What was stored; None where it was refused, and then nothing was."""
    before = rows_of(house)
    try:
        draft = house.draft(**given_)  # type: ignore[arg-type]
    except PolicyRefused:
        assert rows_of(house) == before
        return None
    octets = stored(house, draft.id)
    assert octets.isascii()
    assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    return octets


def assert_headers(octets: bytes, *more: str) -> None:
    assert sorted(header_names(octets)) == sorted([*HEADERS, *more])
    assert sorted(name.lower() for name in read_back(octets)) == sorted([*HEADERS, *more])


@MANY
@given(subject=TEXT)
def test_any_subject_is_refused_or_read_back(room: House, subject: str) -> None:
    octets = octets_or_refusal(room, subject=subject)
    if octets is not None:
        assert_headers(octets, "content-transfer-encoding")
        assert str(read_back(octets)["Subject"]).strip() == subject.strip()


@MANY
@given(text=TEXT)
def test_any_text_is_refused_or_read_back(room: House, text: str) -> None:
    octets = octets_or_refusal(room, text=text)
    if octets is not None:
        assert_headers(octets, "content-transfer-encoding")
        assert read_back(octets).get_content().replace("\r\n", "\n") == normal(text)


@MANY
@given(name=TEXT)
def test_any_display_name_is_refused_or_read_back(room: House, name: str) -> None:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    octets = octets_or_refusal(room, sender=f'"{escaped}" <{SALES}>', to=(f'"{escaped}" <{JANE}>',))
    if octets is not None:
        assert_headers(octets, "content-transfer-encoding")
        message = read_back(octets)
        for header, address in (("From", SALES), ("To", JANE)):
            (one,) = message[header].addresses
            assert one.addr_spec == address
            # Python 3.11's own reader puts blanks between encoded words of one name; they are not looked at.
            assert "".join(one.display_name.split()) == "".join(name.split())


@MANY
@given(mailbox=TEXT)
def test_anything_in_place_of_a_recipient_is_refused_or_one_recipient(room: House, mailbox: str) -> None:
    octets = octets_or_refusal(room, to=(f"{mailbox} <{JANE}>",))
    if octets is not None:
        assert_headers(octets, "content-transfer-encoding")
        assert [one.addr_spec for one in read_back(octets)["To"].addresses] == [JANE]


@MANY
@given(name=TEXT.filter(lambda name: name == name.strip()), content=st.binary(max_size=300))
def test_any_attachment_is_refused_or_read_back(room: House, name: str, content: bytes) -> None:
    octets = octets_or_refusal(room, attachments=(Attachment(name, "application/x-thing", content),))
    if octets is not None:
        assert_headers(octets)
        (part,) = read_back(octets).iter_attachments()
        assert part.get_content() == content
        assert part.get_filename("") == name


@MANY
@given(head=TEXT, body=st.binary(max_size=200))
def test_any_header_block_is_refused_or_kept(room: House, head: str, body: bytes) -> None:
    given_ = (
        f"From: {SALES}\r\nTo: {JANE}\r\nSubject: Offer\r\n{head}\r\n\r\nwords\r\n".encode("utf-8", "replace") + body
    )
    before = rows_of(room)
    try:
        draft = adopt(room, given_)
    except PolicyRefused:
        assert rows_of(room) == before
        return
    octets = stored(room, draft.id)
    names = header_names(octets)
    assert names[:2] == ["message-id", "x-outbox-draft"]
    assert {"from", "to", "subject"} <= set(names)
    assert not {"bcc", "date", "sender", "return-path"} & set(names)
    assert draft.envelope.recipients[0] == JANE
    assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")
