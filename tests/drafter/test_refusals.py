"""Every rule of policy at drafting refuses with its stable code, and writes no row."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outbox.core.errors import Code, PolicyRefused
from outbox.core.message import Attachment
from outbox.drafter.room import read_attachments
from tests.drafter.ledger import PLAIN, adopt, assert_not_adopted, assert_refused, rows_of
from tests.house import JANE, SALES, House

MIB = 1024 * 1024


def test_an_ordinary_draft_writes_one_draft_one_message_and_one_journal_row(house: House) -> None:
    before = rows_of(house)
    house.draft()
    assert [after - earlier for after, earlier in zip(rows_of(house), before, strict=True)] == [1, 1, 1]


# Sender


@pytest.mark.parametrize(
    "sender",
    ["sales@evil.example", "sales@sub.acme.example", "sales@acme.example.evil.example", "sales@xacme.example"],
)
def test_a_sender_outside_the_from_domains_is_refused(untouched: House, sender: str) -> None:
    assert assert_refused(untouched, Code.FROM_DOMAIN, sender=sender).field == "from"


def test_a_from_domain_is_compared_without_regard_to_case(house: House) -> None:
    assert house.draft(sender="sales@ACME.example").envelope.sender == SALES


def test_a_from_header_outside_the_from_domains_is_refused_whatever_the_envelope_says(house: House) -> None:
    foreign = PLAIN.replace(f"From: {SALES}", "From: ceo@evil.example").encode()
    assert_not_adopted(house, Code.FROM_DOMAIN, foreign, sender=SALES)


def test_an_envelope_sender_outside_the_from_domains_is_refused_whatever_the_header_says(house: House) -> None:
    assert_not_adopted(house, Code.FROM_DOMAIN, PLAIN.encode(), sender="bounce@evil.example")


# Recipients


def test_a_draft_without_recipient_is_refused(house: House) -> None:
    assert_refused(house, Code.NO_RECIPIENT, to=())


def test_a_whole_message_without_recipient_is_refused(house: House) -> None:
    assert_not_adopted(house, Code.NO_RECIPIENT, PLAIN.replace(f"To: {JANE}\n", "").encode())


def test_ten_recipients_are_allowed(house: House) -> None:
    assert len(house.draft(to=_people(4), cc=_people(8)[4:], bcc=_people(10)[8:]).envelope.recipients) == 10


@pytest.mark.parametrize(("to", "cc", "bcc"), [(11, 11, 11), (9, 11, 11), (5, 8, 11)])
def test_more_than_ten_recipients_are_refused_wherever_they_stand(untouched: House, to: int, cc: int, bcc: int) -> None:
    everybody = _people(11)
    assert_refused(untouched, Code.TOO_MANY_RECIPIENTS, to=everybody[:to], cc=everybody[to:cc], bcc=everybody[cc:bcc])


def test_the_limit_on_recipients_is_a_setting(house: House) -> None:
    house.set("policy", max_recipients="1")
    assert_refused(house, Code.TOO_MANY_RECIPIENTS, to=_people(2))


def test_an_address_that_is_named_twice_receives_one_copy(house: House) -> None:
    envelope = house.draft(
        to=(JANE, JANE.upper().replace("CUSTOMER.EXAMPLE", "customer.example")), bcc=(JANE,)
    ).envelope
    assert envelope.recipients == (JANE,)


def _people(count: int) -> tuple[str, ...]:
    return tuple(f"person{number}@customer.example" for number in range(count))


NOT_ADDRESSES = [
    "",
    " ",
    "jane",
    "@",
    "@x.example",
    "jane@",
    "jane@@x.example",
    "a@x.example@y.example",
    "a@x.example,b@y.example",
    "a@x.example, b@y.example",
    "a@x.example;b@y.example",
    "a@x.example b@y.example",
    "Jane <a@x.example>, Bob <b@y.example>",
    "<a@x.example><b@y.example>",
    "Jane <a@x.example> b@y.example",
    "friends: a@x.example, b@y.example;",
    "friends:;",
    "<@relay.example:a@x.example>",
    "a@x.example (Jane)",
    "a@x.example\r\nBcc: evil@x.example",
    "a@x.example\nRCPT TO:<evil@x.example>",
    "a\r@x.example",
    "a\0@x.example",
    "a@x.example\0",
    "a@x.example\n",
    "\na@x.example",
    "a@x.example\r",
    "\r\na@x.example",
    "a@x.example\r\n ",
    "Jane\r\nBcc: evil@x.example <a@x.example>",
    '"Jane\r\n" <a@x.example>',
    '"Jane"\n<a@x.example>',
    "Jane <a@x.example\n>",
    "Jane <a@x.example>\n",
    "Jane <a@x.example",
    "Jane a@x.example>",
    "<>",
    "Jane <>",
    "a@x.example>",
    "<a@x.example",
    "a@x..example",
    "a@.example",
    "a@x.example.",
    "a..b@x.example",
    ".a@x.example",
    "a.@x.example",
    "a b@x.example",
    "a@x example",
    "a@x_y.example",
    "a@-x.example",
    "a@x-.example",
    "a@[127.0.0.1]",
    "a@[IPv6:::1]",
    "a@127.0.0.1",
    "a@localhost",
    '"a b"@x.example',
    '"a"@x.example',
    "a\t@x.example",
    "a@x\u3002example,b@y.example",
    "a\u2028@x.example",
    "a@x.example\u2028",
    "a\u200b@x.example",
    "a@x\u200b.example",
    "a\x85@x.example",
    "a@x.example\x85",
    "a\x7f@x.example",
    "a\x1b[2J@x.example",
    "a\uff0cb@x.example,c@x.example",
    f"{'a' * 65}@x.example",
    f"a@{'b' * 64}.example",
    f"a@{'b.' * 130}example",
    "=?utf-8?q?a=40x.example?=",
    "a@xn--a.example",
    "\ud800@x.example",
    "a@x.example SIZE=1",
    "a@x.example> NOTIFY=NEVER",
    "mailto:a@x.example",
]


@pytest.mark.parametrize("address", NOT_ADDRESSES)
def test_what_is_not_exactly_one_address_is_refused_as_recipient(untouched: House, address: str) -> None:
    assert_refused(untouched, Code.ADDRESS_INVALID, to=(address,))


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "sender"])
@pytest.mark.parametrize("address", ["a@x.example,b@y.example", "a@x.example\r\nBcc: b@y.example", "jane"])
def test_a_wrong_address_is_refused_in_every_place(untouched: House, field: str, address: str) -> None:
    given = {"to": (JANE,), field: address if field == "sender" else (address,)}
    assert assert_refused(untouched, Code.ADDRESS_INVALID, **given).field == {"sender": "from"}.get(field, field)


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "sender"])
def test_a_wrong_address_is_refused_in_every_override_of_a_whole_message(untouched: House, field: str) -> None:
    wrong = "a@x.example,b@y.example"
    over = {field: wrong if field == "sender" else (wrong,)}
    assert_not_adopted(untouched, Code.ADDRESS_INVALID, PLAIN.encode(), **over)


# The approval address

APPROVALS = [
    "approve@acme.example",
    "approve+x@acme.example",
    "approve+@acme.example",
    "approve++@acme.example",
    "APPROVE@acme.example",
    "Approve+Anything@ACME.Example",
    "The Founder <approve+1@acme.example>",
    f"approve+{'a' * 39}@acme.example",
]


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
@pytest.mark.parametrize("address", APPROVALS)
def test_no_draft_writes_to_the_approval_address(untouched: House, field: str, address: str) -> None:
    assert_refused(untouched, Code.APPROVAL_ADDRESS, **{"to": (JANE,), field: (address,)})


@pytest.mark.parametrize("address", APPROVALS)
def test_no_draft_comes_from_the_approval_address(untouched: House, address: str) -> None:
    assert_refused(untouched, Code.APPROVAL_ADDRESS, sender=address)


@pytest.mark.parametrize("header", ["From", "To", "Cc", "Reply-To", "reply-to", "REPLY-TO"])
@pytest.mark.parametrize("address", [*APPROVALS[:3], "Jane <APPROVE+q@ACME.example>"])
def test_no_header_of_a_whole_message_names_the_approval_address(untouched: House, header: str, address: str) -> None:
    lines = {"from": f"From: {SALES}", "to": f"To: {JANE}", header.lower(): f"{header}: {address}"}
    octets = "\n".join([*lines.values(), "Subject: Offer", "", "here it is", ""]).encode()
    assert_not_adopted(untouched, Code.APPROVAL_ADDRESS, octets, sender=SALES, to=(JANE,), cc=(), bcc=())


def test_a_reply_to_that_hides_the_approval_address_behind_another_is_refused(house: House) -> None:
    octets = PLAIN.replace("Subject:", f"Reply-To: {JANE},\n approve+x@acme.example\nSubject:").encode()
    assert_not_adopted(house, Code.APPROVAL_ADDRESS, octets)


def test_a_bcc_header_with_the_approval_address_is_refused(house: House) -> None:
    octets = PLAIN.replace("Subject:", "Bcc: approve+x@acme.example\nSubject:").encode()
    assert_not_adopted(house, Code.APPROVAL_ADDRESS, octets)


def test_a_reply_to_in_encoded_words_is_refused(house: House) -> None:
    hidden = "=?utf-8?q?approve=2Bx=40acme=2Eexample?="
    octets = PLAIN.replace("Subject:", f"Reply-To: {hidden}\nSubject:").encode()
    before = rows_of(house)
    with pytest.raises(PolicyRefused):
        adopt(house, octets)
    assert rows_of(house) == before


def test_another_mailbox_that_begins_like_the_approval_address_may_be_written_to(house: House) -> None:
    assert house.draft(to=("approver@acme.example",)).envelope.to == ("approver@acme.example",)


# Subject and body


@pytest.mark.parametrize("subject", ["", " ", "\t \t", "\u00a0", "\u2003"])
def test_an_empty_subject_is_refused(untouched: House, subject: str) -> None:
    assert_refused(untouched, Code.SUBJECT_EMPTY, subject=subject)


@pytest.mark.parametrize("line", ["", "Subject:\n", "Subject: \n", "Subject: =?utf-8?q?_?=\n"])
def test_a_whole_message_without_subject_is_refused(untouched: House, line: str) -> None:
    assert_not_adopted(untouched, Code.SUBJECT_EMPTY, PLAIN.replace("Subject: Offer\n", line).encode())


@pytest.mark.parametrize("character", ["a", "\u00e9", "\U0001f600"])
def test_a_subject_has_at_most_200_characters(house: House, character: str) -> None:
    assert house.draft(subject=character * 200).subject == character * 200
    assert_refused(house, Code.SUBJECT_TOO_LONG, subject=character * 201)


def test_the_length_of_a_subject_is_that_of_its_decoded_words(house: House) -> None:
    words = "\n ".join(f"=?utf-8?q?{'a' * 60}?=" for _ in range(4))
    assert_not_adopted(house, Code.SUBJECT_TOO_LONG, PLAIN.replace("Offer", words).encode())


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t\r\n ", None])
def test_an_empty_body_is_refused(untouched: House, text: str | None) -> None:
    assert_refused(untouched, Code.BODY_EMPTY, text=text)


@pytest.mark.parametrize("html", ["", "<p> </p>", "<div><br></div>&nbsp;"])
def test_an_html_part_without_words_is_an_empty_body(untouched: House, html: str) -> None:
    assert_refused(untouched, Code.BODY_EMPTY, text=None, html=html)


def test_an_html_part_alone_is_a_body(house: House) -> None:
    assert house.draft(text=None, html="<p>Dear Jane</p>").subject == "Offer"


@pytest.mark.parametrize("body", ["", "\n", "   \n\n"])
def test_a_whole_message_with_an_empty_body_is_refused(untouched: House, body: str) -> None:
    head = PLAIN.split("\n\n", 1)[0]
    assert_not_adopted(untouched, Code.BODY_EMPTY, f"{head}\n\n{body}".encode())


# Attachments


def test_an_attachment_of_10_mib_is_allowed_and_one_octet_more_is_refused(house: House) -> None:
    house.draft(attachments=(_file(10 * MIB),))
    assert_refused(house, Code.ATTACHMENT_TOO_LARGE, attachments=(_file(10 * MIB + 1),))


def test_attachments_over_25_mib_together_are_refused(house: House) -> None:
    assert_refused(house, Code.ATTACHMENTS_TOO_LARGE, attachments=(_file(9 * MIB), _file(9 * MIB), _file(7 * MIB + 1)))


def test_an_attachment_in_a_whole_message_is_measured_as_it_is_decoded(house: House) -> None:
    lines = b"A" * 76 + b"\n"
    octets = (
        PLAIN.split("\n\n", 1)[0] + "\nContent-Type: multipart/mixed; boundary=b\n\n"
        "--b\n\nDear Jane\n--b\nContent-Disposition: attachment; filename=big\nContent-Transfer-Encoding: base64\n\n"
    ).encode() + lines * (10 * MIB // 57 + 1)
    assert_not_adopted(house, Code.ATTACHMENT_TOO_LARGE, octets + b"--b--\n")


def _file(size: int) -> Attachment:
    return Attachment("big.bin", "application/octet-stream", bytes(size))


def test_a_missing_attachment_is_refused(tmp_path: Path) -> None:
    assert _read_refused(tmp_path / "none.pdf") is Code.ATTACHMENT_MISSING


def test_a_folder_is_not_an_attachment(tmp_path: Path) -> None:
    assert _read_refused(tmp_path) is Code.ATTACHMENT_UNREADABLE


def test_a_pipe_is_not_an_attachment(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert _read_refused(tmp_path / "pipe") is Code.ATTACHMENT_UNREADABLE


def test_a_path_through_a_file_is_not_an_attachment(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert _read_refused(tmp_path / "file" / "inner") is Code.ATTACHMENT_UNREADABLE


def test_a_loop_of_links_is_not_an_attachment(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert _read_refused(tmp_path / "loop") is Code.ATTACHMENT_UNREADABLE


def test_a_name_that_no_file_can_have_is_not_an_attachment(tmp_path: Path) -> None:
    assert _read_refused(tmp_path / ("a" * 5000)) in {Code.ATTACHMENT_MISSING, Code.ATTACHMENT_UNREADABLE}


def test_a_name_with_a_nul_is_not_an_attachment(tmp_path: Path) -> None:
    assert _read_refused(tmp_path / "a\0b") in {Code.ATTACHMENT_MISSING, Code.ATTACHMENT_UNREADABLE}


def test_a_file_that_may_not_be_read_is_not_an_attachment() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "secret").write_bytes(b"x")
        (Path(folder) / "secret").chmod(0)
        with _as_no_root():
            assert _read_refused(Path(folder) / "secret") is Code.ATTACHMENT_UNREADABLE


@contextmanager
def _as_no_root() -> Iterator[None]:
    """Root reads files of mode 000 too; for a moment this process is somebody else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_sparse_file_over_10_mib_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as opened:
        opened.truncate(1 << 40)
    assert _read_refused(tmp_path / "huge") is Code.ATTACHMENT_TOO_LARGE


def _read_refused(file: Path) -> Code:
    with pytest.raises(PolicyRefused) as caught:
        read_attachments([file])
    assert caught.value.field == "attach"
    return caught.value.code


@pytest.mark.parametrize("media_type", ["text/plain\r\nX-Evil: yes", "text", "", "multipart/mixed", "a/b/c", "a b/c"])
def test_a_media_type_that_is_none_is_refused(untouched: House, media_type: str) -> None:
    before = rows_of(untouched)
    with pytest.raises(PolicyRefused):
        untouched.draft(attachments=(Attachment("a", media_type, b"x"),))
    assert rows_of(untouched) == before


def test_an_attached_message_beyond_7_bit_is_refused_or_kept_whole(house: House) -> None:
    try:
        house.draft(attachments=(Attachment("a.eml", "message/rfc822", b"Subject: x\n\n\xff\n"),))
    except PolicyRefused:
        assert rows_of(house)[0] == 0


# Header injection

INJECTIONS = [
    "x\r\nBcc: evil@x.example",
    "x\nBcc: evil@x.example",
    "x\rBcc: evil@x.example",
    "x\r\n\r\nbody",
    "x\0y",
    "=?utf-8?q?x=0D=0ABcc:_evil@x?=",
    "=?utf-8?Q?x=0ABcc:_evil@x?=",
    "=?utf-8?b?eA0KQmNjOiBldmlsQHg=?=",
    "=?UTF-8?B?eA0KQmNjOiBldmlsQHg=?= tail",
    "=?utf-8?q?x=0D?= =?utf-8?q?=0ABcc:_evil@x?=",
    "=?utf-8*en?q?x=0D=0ABcc:_evil@x?=",
    "=?nope?q?a?= =?utf-8?q?x=0D=0ABcc:_evil@x?=",
    "=?us-ascii?q?x=0D=0ABcc:_evil@x?=",
    "=?utf-7?q?x+AA0ACg-Bcc:_evil@x?=",
    "x\x0bBcc: evil@x",
    "x\x0cBcc: evil@x",
    "x\x1cBcc: evil@x",
    "x\u2028Bcc: evil@x",
    "x\u2029Bcc: evil@x",
]


@pytest.mark.parametrize("value", INJECTIONS)
def test_a_subject_never_becomes_another_header(untouched: House, value: str) -> None:
    assert_refused(untouched, Code.HEADER_INJECTION, subject=value)


@pytest.mark.parametrize("value", [value for value in INJECTIONS if value.isprintable()])
@pytest.mark.parametrize("field", ["to", "cc", "sender"])
def test_a_display_name_never_becomes_another_header(untouched: House, field: str, value: str) -> None:
    mailbox = f'"{value}" <{SALES if field == "sender" else JANE}>'
    assert_refused(untouched, Code.HEADER_INJECTION, **{field: mailbox if field == "sender" else (mailbox,)})


@pytest.mark.parametrize("value", INJECTIONS)
def test_an_attachment_name_never_becomes_another_header(untouched: House, value: str) -> None:
    assert_refused(untouched, Code.HEADER_INJECTION, attachments=(Attachment(value, "text/plain", b"x"),))


@pytest.mark.parametrize("value", INJECTIONS)
def test_an_agent_name_with_control_characters_is_refused(untouched: House, value: str) -> None:
    assert_refused(untouched, Code.HEADER_INJECTION, agent=value)


@pytest.mark.parametrize("field", ["in_reply_to", "references"])
@pytest.mark.parametrize(
    "value", ["<a@x>\r\nBcc: evil@x.example", "<a@x>\n", "a", "<a@x> <b@x>", "<a@x", "<@x>", "<a b@x>"]
)
def test_what_is_not_one_message_id_is_refused(untouched: House, field: str, value: str) -> None:
    before = rows_of(untouched)
    with pytest.raises(PolicyRefused) as caught:
        untouched.draft(**{field: value if field == "in_reply_to" else (value,)})  # type: ignore[arg-type]
    assert caught.value.code in {Code.HEADER_INJECTION, Code.MESSAGE_MALFORMED}
    assert rows_of(untouched) == before


@pytest.mark.parametrize("value", [value for value in INJECTIONS if value.isprintable()])
@pytest.mark.parametrize("header", ["Subject", "X-Campaign", "Comments", "List-Id"])
def test_no_header_of_a_whole_message_hides_another_in_encoded_words(untouched: House, header: str, value: str) -> None:
    lines = PLAIN.replace("Subject: Offer\n", "" if header == "Subject" else "Subject: Offer\n")
    assert_not_adopted(untouched, Code.HEADER_INJECTION, f"{header}: {value}\n{lines}".encode())


@pytest.mark.parametrize(
    "subject", ["=?utf-8?b?a?=", "=?y?b?c?=", "=?utf-8?b?====?=", "=?nope?q?x?=", "=?utf-8?q?=FF?="]
)
def test_encoded_words_that_cannot_be_decoded_are_only_text(house: House, subject: str) -> None:
    assert house.draft(subject=subject).subject == subject


@pytest.mark.parametrize(
    "given",
    [
        {"subject": "\udcff"},
        {"text": "\udcff"},
        {"text": "x", "html": "\udcff"},
        {"agent": "\udcff"},
        {"attachments": (Attachment("\udcff.txt", "text/plain", b"x"),)},
        {"sender": f'"\udcff" <{SALES}>'},
        {"kind": "\udcff"},
        {"idempotency_key": "\udcff"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_is_not_unicode_text_is_refused(untouched: House, given: dict[str, object]) -> None:
    before = rows_of(untouched)
    with pytest.raises(PolicyRefused):
        untouched.draft(**given)  # type: ignore[arg-type]
    assert rows_of(untouched) == before


# Kinds

NON_DELEGABLE = [
    "force_push_shared",
    "ruleset_disable",
    "account_switch",
    "cross_account_ops",
    "irreversible_capital_commit",
    "constitutional_rewrite",
    "authority_class_expansion",
    "venture_kill",
    "permission_escalation",
    "public_truth_claim",
]


@pytest.mark.parametrize("kind", NON_DELEGABLE)
def test_a_non_delegable_kind_is_refused(untouched: House, kind: str) -> None:
    assert assert_refused(untouched, Code.NON_DELEGABLE_KIND, kind=kind).field == "kind"


@pytest.mark.parametrize("kind", NON_DELEGABLE)
def test_a_non_delegable_kind_is_refused_for_a_whole_message(untouched: House, kind: str) -> None:
    assert_not_adopted(untouched, Code.NON_DELEGABLE_KIND, PLAIN.encode(), kind=kind)


SPELLINGS = [
    "VENTURE_KILL",
    "Venture_Kill",
    "venture-kill",
    "venture kill",
    "venture.kill",
    "venture/kill",
    "venture:kill",
    " venture_kill ",
    "venture__kill",
    "-venture_kill-",
    "venture_kill\n",
    "venture_kill\0",
    "venture\u200b_kill",
    "ven\u00adture_kill",
    "venture\u2060_kill",
    "\ufeffventure_kill",
    "venture_k\u200dill",
    "venture\u00a0kill",
    "\uff56\uff45\uff4e\uff54\uff55\uff52\uff45\uff3f\uff4b\uff49\uff4c\uff4c",
    "venture\uff3fkill",
    "VENTURE_K\u0130LL",
    "venture_ki\u0307ll",
    "\U0001d42fenture_kill",
]


@pytest.mark.parametrize("kind", SPELLINGS)
def test_no_spelling_makes_a_non_delegable_kind_delegable(untouched: House, kind: str) -> None:
    assert_refused(untouched, Code.NON_DELEGABLE_KIND, kind=kind)


@pytest.mark.parametrize(
    "kind", ["venture_k\u0131ll", "venture\u2010kill", "venture\u2013kill", "venture\u2212kill", "ventureKill"]
)
def test_what_only_looks_like_a_non_delegable_kind_is_refused_all_the_same(untouched: House, kind: str) -> None:
    before = rows_of(untouched)
    with pytest.raises(PolicyRefused) as caught:
        untouched.draft(kind=kind)
    assert caught.value.code in {Code.NON_DELEGABLE_KIND, Code.UNKNOWN_KIND}
    assert rows_of(untouched) == before


def test_settings_add_to_the_kinds_that_are_refused_and_take_none_away(house: House) -> None:
    house.set("policy", refuse_kinds='["E-Mail", "email"]')
    assert_refused(house, Code.NON_DELEGABLE_KIND)
    assert_refused(house, Code.NON_DELEGABLE_KIND, kind="venture_kill")


@pytest.mark.parametrize("kind", ["", "sms", "Email", "email ", "EMAIL", "e-mail", "\uff45mail", "email\0"])
def test_an_unknown_kind_is_refused(house: House, kind: str) -> None:
    assert_refused(house, Code.UNKNOWN_KIND, kind=kind)


def test_no_agent_drafts_the_outbox_s_own_mail(house: House) -> None:
    assert "reserved" in assert_refused(house, Code.UNKNOWN_KIND, kind="system").message
    assert_not_adopted(house, Code.UNKNOWN_KIND, PLAIN.encode(), kind="system")


# Time to live


@pytest.mark.parametrize("ttl", [0, -1, 30 * 86400 + 1, 10**12, 10**30])
def test_a_time_to_live_out_of_range_is_refused(house: House, ttl: int) -> None:
    assert assert_refused(house, Code.TTL_OUT_OF_RANGE, ttl=ttl).field == "ttl"
    assert_not_adopted(house, Code.TTL_OUT_OF_RANGE, PLAIN.encode(), ttl=ttl)


@pytest.mark.parametrize("ttl", [1, 30 * 86400])
def test_a_draft_lives_for_its_time_to_live(house: House, ttl: int) -> None:
    draft = house.draft(ttl=ttl)
    assert draft.expires_at - draft.created_at == ttl * 1_000_000


def test_the_default_and_the_longest_time_to_live_are_settings(house: House) -> None:
    house.set("policy", default_ttl='"15m"', max_ttl='"1h"')
    draft = house.draft()
    assert draft.expires_at - draft.created_at == 900 * 1_000_000
    assert_refused(house, Code.TTL_OUT_OF_RANGE, ttl=3601)


def test_an_agent_has_a_name_of_at_most_200_characters(house: House) -> None:
    assert house.draft(agent="a" * 200).agent == "a" * 200
    for name in ("", "a" * 201):
        before = rows_of(house)
        with pytest.raises(PolicyRefused):
            house.draft(agent=name)
        assert rows_of(house) == before
