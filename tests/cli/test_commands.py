"""Every command of the first part of the contract, as a script calls it."""

from __future__ import annotations

import json
import re
import sqlite3

import pytest

from outbox.store.schema import REVISION
from tests.cli.shell import Shell
from tests.house import APPROVAL, FOUNDER, JANE, SALES, SECOND, House

DRAFT_KEYS = {
    "id",
    "kind",
    "agent",
    "state",
    "from",
    "to",
    "cc",
    "bcc",
    "subject",
    "digest",
    "fingerprint",
    "message_id",
    "about",
    "created_at",
    "expires_at",
    "not_before",
    "stop_asked_at",
    "error",
    "rejection",
    "grants",
    "settlement",
    "resubmitted",
}
STORY_KEYS = DRAFT_KEYS | {"requests", "attempts"}
ATTEMPT_KEYS = {
    "id",
    "worker",
    "phase",
    "outcome",
    "code",
    "enhanced",
    "text",
    "queue_id",
    "wire_digest",
    "started_at",
    "gap_at",
    "ended_at",
    "recipients",
}
CHECKS = ["token", "from", "authenticity", "automatic", "replay", "fresh", "verdict"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
OFFER = ("draft", "--from", SALES, "--to", JANE, "--subject", "Offer", "--text", "Dear Jane")


def test_the_whole_loop_by_hand(house: House) -> None:
    shell = Shell(house.folder)
    draft_id = shell.run(*OFFER, "--cc", "bob@customer.example", "--bcc", "eve@customer.example").out.strip()
    assert shell.run("inbox", "--once").code == 0
    assert shell.run("worker", "--drain").code == 0
    house.clock.now = _now(house)
    house.reply(house.request_for(draft_id), "Ship it")
    assert shell.run("inbox", "--once").code == 0
    assert shell.run("worker", "--drain").code == 0
    data = shell.run("show", draft_id, "--json").data
    _assert_a_completed_story(data, draft_id)
    (sent,) = house.relay.to(JANE)
    assert sent.recipients == (JANE, "bob@customer.example", "eve@customer.example")
    told = shell.run("show", draft_id).out
    for word in (
        "drafted by cli",
        f"asked {FOUNDER}",
        f"approved by {FOUNDER} through reply",
        "claimed by worker",
        "queue id",
    ):
        assert word in told
    (reply,) = shell.run("replies", "--json").lines
    assert set(reply) == {"received_at", "from", "message_id", "draft", "verdict", "counted", "why"}
    assert (reply["from"], reply["draft"], reply["verdict"], reply["counted"]) == (FOUNDER, draft_id, "approve", True)
    assert TIME.fullmatch(reply["received_at"])
    assert "approve, counted" in shell.run("replies").out


def _now(house: House) -> int:
    ((at,),) = house.rows("SELECT max(created_at) FROM drafts")
    return int(str(at))


def _assert_a_completed_story(data: dict[str, object], draft_id: str) -> None:
    assert set(data) == STORY_KEYS
    assert (data["id"], data["state"], data["kind"], data["agent"]) == (draft_id, "completed", "email", "cli")
    assert (data["from"], data["to"], data["cc"], data["bcc"]) == (
        SALES,
        [JANE],
        ["bob@customer.example"],
        ["eve@customer.example"],
    )
    assert str(data["message_id"]).startswith("<")
    assert str(data["message_id"]).endswith(">")
    (grant,), (request,), (attempt,) = data["grants"], data["requests"], data["attempts"]  # type: ignore[misc]
    assert set(grant) == {"approver", "channel", "at", "expires_at"}
    assert (grant["approver"], grant["channel"]) == (FOUNDER, "reply")
    assert set(request) == {"approver", "draft", "at"}
    assert set(attempt) == ATTEMPT_KEYS
    assert (attempt["phase"], attempt["outcome"], attempt["code"], attempt["enhanced"]) == (
        "done",
        "accepted",
        250,
        "2.0.0",
    )
    assert attempt["queue_id"]
    assert re.fullmatch("[0-9a-f]{64}", attempt["wire_digest"])
    assert all(set(one) == {"address", "code", "text"} for one in attempt["recipients"])
    times = [
        data["created_at"],
        data["expires_at"],
        data["not_before"],
        grant["at"],
        grant["expires_at"],
        request["at"],
    ]
    times += [attempt["started_at"], attempt["gap_at"], attempt["ended_at"]]
    assert all(TIME.fullmatch(str(time)) for time in times), times
    assert data["stop_asked_at"] is data["error"] is data["rejection"] is data["settlement"] is data["about"] is None


def test_drafting_prints_the_id_or_the_whole_story(shell: Shell) -> None:
    done = shell.run(*OFFER)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n", done.out)
    data = shell.run(*OFFER, "--json").data
    assert set(data) == STORY_KEYS
    assert (data["state"], data["requests"], data["attempts"], data["grants"]) == ("pending", [], [], [])
    assert (data["not_before"], data["kind"], data["agent"]) == (None, "email", "cli")


def test_every_flag_of_draft_is_in_the_message(shell: Shell) -> None:
    (shell.folder / "body.txt").write_text("B\u00f6dy\n", encoding="utf-8")
    (shell.folder / "body.html").write_text("<p>html</p>\n")
    (shell.folder / "offer.pdf").write_bytes(b"%PDF")
    words = (
        "draft --from Sales<sales@acme.example> --to jane@customer.example --to bob@customer.example --cc c@x.example "
        "--bcc d@x.example --subject S --text-file body.txt --html-file body.html --attach offer.pdf "
        "--in-reply-to <a@x> --references <b@x> --references <c@x> --kind email --ttl 90s "
        "--agent bot --idempotency-key k --json"
    )
    data = shell.run(*words.split()).data
    assert (data["to"], data["cc"], data["bcc"]) == ([JANE, "bob@customer.example"], ["c@x.example"], ["d@x.example"])
    assert data["agent"] == "bot"
    assert shell.run(*words.split()).data["id"] == data["id"]
    octets = shell.run("show", data["id"], "--eml").out
    for line in (
        "In-Reply-To: <a@x>",
        "References: <b@x> <c@x>",
        'filename="offer.pdf"',
        "application/pdf",
        "B=C3=B6dy",
        "<p>html</p>",
    ):
        assert line in octets
    assert octets.startswith('From: "Sales" <sales@acme.example>')


def test_text_may_come_from_standard_input(shell: Shell) -> None:
    words = OFFER[:-2]
    draft_id = shell.run(*words, "--text-file", "-", stdin="Dear J\u00e4ne\n".encode()).out.strip()
    assert "Dear J=C3=A4ne" in shell.run("show", draft_id, "--eml").out
    draft_id = shell.run(*words, "--html-file", "-", stdin=b"<p>Dear</p>").out.strip()
    assert "<p>Dear</p>" in shell.run("show", draft_id, "--eml").out


def test_a_whole_message_may_come_from_a_file_or_standard_input(shell: Shell) -> None:
    octets = f"From: {SALES}\nTo: {JANE}\nDate: x\nSubject: Whole\n\nDear Jane\n".encode()
    (shell.folder / "mail.eml").write_bytes(octets)
    first = shell.run("draft", "--eml", "mail.eml", "--json").data
    assert (first["subject"], first["to"]) == ("Whole", [JANE])
    over = (
        "--from",
        "bounce@acme.example",
        "--to",
        "l@x.example",
        "--cc",
        "c@x.example",
        "--bcc",
        "b@x.example",
        "--agent",
        "bot",
    )
    second = shell.run("draft", "--eml", "-", *over, "--json", stdin=octets).data
    assert (second["from"], second["to"], second["cc"], second["bcc"]) == (
        "bounce@acme.example",
        ["l@x.example"],
        ["c@x.example"],
        ["b@x.example"],
    )
    assert "Date:" not in shell.run("show", second["id"], "--eml").out


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ((), "--from"),
        (("--text", "a", "--text-file", "b"), "--text"),
        (("--text-file", "-", "--html-file", "-"), "--html-file"),
        (("--text-file", "missing.txt"), "missing.txt"),
        (("--text-file", "."), "."),
        (("--html-file", "latin.txt"), "latin.txt"),
        (("--eml", "missing.eml"), "missing.eml"),
        (("--eml", "."), "."),
        (("--eml", "mail.eml", "--subject", "x"), "--subject"),
        (("--eml", "mail.eml", "--text", "x"), "--text"),
        (("--eml", "mail.eml", "--text", ""), "--text"),
        (("--eml", "mail.eml", "--text-file", "x"), "--text-file"),
        (("--eml", "mail.eml", "--attach", "x"), "--attach"),
        (("--eml", "mail.eml", "--in-reply-to", "<a@x>"), "--in-reply-to"),
        (("--eml", "mail.eml", "--references", "<a@x>"), "--references"),
    ],
)
def test_flags_that_make_no_sense_together_are_wrong_usage(shell: Shell, words: tuple[str, ...], field: str) -> None:
    (shell.folder / "latin.txt").write_bytes(b"\xe9")
    (shell.folder / "mail.eml").write_text(f"From: {SALES}\nTo: {JANE}\nSubject: Whole\n\nDear Jane\n")
    sender = () if not words or "--eml" in words else ("--from", SALES)
    assert shell.fails(2, "draft", *sender, *words)["field"] == field
    assert shell.run("list", "--json").out == ""


@pytest.mark.parametrize(
    ("words", "code", "field"),
    [
        (("--from", "s@evil.example"), "from_domain", "from"),
        (("--to", "a@x.example,b@x.example"), "address_invalid", "to"),
        (("--cc", f"Jane <{APPROVAL}>"), "approval_address", "to"),
        (("--subject", ""), "subject_empty", "subject"),
        (("--text", ""), "body_empty", "text"),
        (("--attach", "missing.pdf"), "attachment_missing", "attach"),
        (("--attach", "."), "attachment_unreadable", "attach"),
        (("--kind", "Venture-Kill"), "non_delegable_kind", "kind"),
        (("--kind", "sms"), "unknown_kind", "kind"),
        (("--ttl", "soon"), "ttl_out_of_range", "ttl"),
        (("--ttl", "0"), "ttl_out_of_range", "ttl"),
        (("--subject", "=?utf-8?q?x=0D=0ABcc:_evil@x?="), "header_injection", "Subject"),
    ],
)
def test_a_draft_that_breaks_a_rule_exits_1_with_its_code(
    shell: Shell, words: tuple[str, ...], code: str, field: str
) -> None:
    error = shell.fails(1, *OFFER, *words)
    assert (error["error"], error["field"]) == (code, field)
    assert shell.run("list", "--json").out == ""


def test_input_over_64_mib_is_refused_and_not_cut(shell: Shell) -> None:
    with (shell.folder / "huge").open("wb") as opened:
        opened.truncate(64 * 1024 * 1024 + 1)
    assert "64 MiB" in shell.says(2, *OFFER[:-2], "--text-file", "huge")


def test_a_refusal_is_one_sentence_for_people(shell: Shell) -> None:
    assert "not in policy.from_domains (acme.example)" in shell.says(1, *OFFER, "--from", "s@evil.example")


@pytest.mark.parametrize(
    "flag", ["--subject", "--text", "--agent", "--idempotency-key", "--kind", "--to", "--attach", "--in-reply-to"]
)
def test_words_that_are_not_unicode_are_refused_in_one_line(shell: Shell, flag: str) -> None:
    (shell.folder / "n\udcff.txt").write_bytes(b"x")
    value = b"n\xff.txt" if flag == "--attach" else b"\xff"
    assert shell.fails(2, *OFFER, flag, value)["error"] == "usage"


def test_a_list_is_one_line_a_draft_the_oldest_first_without_the_outbox_s_own(unsent: House, shell: Shell) -> None:
    drafts = _drafts(unsent, 3)
    unsent.inbox()
    listed = shell.run("list", "--json").lines
    assert [one["id"] for one in listed] == drafts
    assert all(set(one) == DRAFT_KEYS for one in listed)
    everything = shell.run("list", "--system", "--json").lines
    assert sorted(one["kind"] for one in everything) == ["email"] * 3 + ["system"] * 3
    assert {one["about"] for one in everything if one["kind"] == "system"} == set(drafts)
    words = shell.run("list").out.splitlines()
    assert [line.split()[:2] for line in words] == [[draft_id, "pending"] for draft_id in drafts]
    assert "\x1b" not in shell.run("list").out


def test_a_list_can_be_narrowed_by_state_limit_and_place(unsent: House, shell: Shell) -> None:
    ids = _drafts(unsent, 4)
    unsent.cancel(ids[1])
    unsent.approve(ids[2])
    assert _ids(shell.run("list", "--json", "--state", "cancelled")) == [ids[1]]
    assert _ids(shell.run("list", "--json", "--state", "cancelled", "--state", "approved")) == [ids[1], ids[2]]
    assert _ids(shell.run("list", "--json", "--limit", "2")) == ids[:2]
    assert _ids(shell.run("list", "--json", "--after", ids[1])) == ids[2:]
    assert _ids(shell.run("list", "--json", "--after", ids[0], "--limit", "1", "--state", "approved")) == [ids[2]]
    assert shell.run("list", "--json", "--after", ids[3]).out == ""


def _drafts(unsent: House, count: int) -> list[str]:
    """Ids of drafts of one second each, the oldest first."""
    made = []
    for number in range(count):
        made.append(unsent.draft(subject=f"Offer {number}").id)
        unsent.clock.advance(SECOND)
    return made


def _ids(done: object) -> list[str]:
    return [one["id"] for one in done.lines]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--state", "done"),
        ("list", "--limit", "0"),
        ("list", "--limit", "many"),
        ("list", "--nope"),
        ("nope",),
        ("show",),
        ("approve",),
        ("reject", "x"),
        ("cancel",),
        ("db", "nope"),
        ("inbox", "nope"),
        ("inbox", "explain"),
        ("worker", "extra"),
        ("init", "--room", "kitchen"),
        ("--nope",),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2_and_one_line(shell: Shell, words: tuple[str, ...]) -> None:
    line = shell.says(2, *words)
    assert len(line) < 400


@pytest.mark.parametrize("words", [(), ("db",)], ids=["outbox", "db"])
def test_a_command_that_needs_another_shows_its_help_on_stderr(shell: Shell, words: tuple[str, ...]) -> None:
    done = shell.run(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: ")


def test_wrong_usage_with_json_is_one_object(shell: Shell) -> None:
    assert shell.fails(2, "list", "--state", "done")["error"] == "usage"


@pytest.mark.parametrize(
    "words", [("show",), ("cancel",), ("approve",), ("reject", "--reason", "no"), ("show", "--eml")], ids=" ".join
)
def test_an_unknown_draft_is_refused(shell: Shell, words: tuple[str, ...]) -> None:
    error = shell.fails(1, *words, "018f0000-0000-7000-8000-000000000000")
    assert error["error"] == "draft_unknown"
    assert "018f0000-0000-7000-8000-000000000000" in error["message"]


def test_a_rejection_can_be_read_by_the_agent(unsent: House, shell: Shell) -> None:
    draft_id = unsent.draft().id
    assert shell.run("reject", draft_id, "--reason", "price is wrong").code == 0
    data = shell.run("show", draft_id, "--json").data
    assert data["state"] == "rejected"
    assert set(data["rejection"]) == {"reason", "by", "at"}
    assert (data["rejection"]["reason"], data["rejection"]["by"]) == ("price is wrong", FOUNDER)
    assert TIME.fullmatch(data["rejection"]["at"])
    assert "price is wrong" in shell.run("show", draft_id).out


def test_several_drafts_are_approved_at_once(unsent: House, shell: Shell) -> None:
    ids = [unsent.draft(subject=f"Offer {number}").id for number in range(2)]
    done = shell.run("approve", *ids, "--as", FOUNDER, "--json")
    assert [one["state"] for one in done.lines] == ["approved", "approved"]
    assert [one["grants"][0]["channel"] for one in done.lines] == ["terminal", "terminal"]


@pytest.mark.parametrize("verb", [("cancel",), ("approve",), ("reject", "--reason", "no")], ids=" ".join)
def test_what_is_final_stays_so(unsent: House, shell: Shell, verb: tuple[str, ...]) -> None:
    draft_id = unsent.draft().id
    unsent.cancel(draft_id)
    assert shell.fails(1, *verb, draft_id)["error"] == "state_conflict"
    assert unsent.story(draft_id).draft.state == "cancelled"


def test_the_octets_are_printed_as_they_are_stored(unsent: House, shell: Shell) -> None:
    draft = unsent.draft(text=".dot\nFrom here\n\u00e9")
    ((octets,),) = unsent.rows("SELECT octets FROM messages WHERE draft_id = ?", draft.id)
    assert shell.run("show", draft.id, "--eml").out.encode() == octets


def test_a_request_is_printed_with_its_token_only_where_the_grant_key_is(unsent: House, shell: Shell) -> None:
    draft = unsent.draft()
    unsent.inbox()
    (request,) = unsent.story(draft.id).requests
    ((octets,),) = unsent.rows("SELECT octets FROM messages WHERE draft_id = ?", request.draft_id)
    assert isinstance(octets, bytes)
    held = re.search(rb"Reply-To: approve\+([a-z2-7]{13}0{26})@acme\.example", octets)
    assert held
    with_key = shell.run("show", request.draft_id, "--eml").out
    assert re.search(rf"Reply-To: approve\+{held[1][:13].decode()}[a-z2-7]{{26}}@acme\.example", with_key)
    assert held[1].decode() not in with_key
    (shell.folder / "keys" / "grant.key").unlink()
    assert shell.run("show", request.draft_id, "--eml").out.encode() == octets


def test_no_agent_can_have_a_token_filled_in_for_him(unsent: House, shell: Shell) -> None:
    draft = unsent.draft()
    unsent.inbox()
    (request,) = unsent.story(draft.id).requests
    ((octets,),) = unsent.rows("SELECT octets FROM messages WHERE draft_id = ?", request.draft_id)
    assert isinstance(octets, bytes)
    stolen = [
        line
        for line in octets.split(b"\r\n\r\n")[0].split(b"\r\n")
        if line.startswith((b"X-Outbox-Request", b" ", b"Message-ID"))
    ]
    mail = b"\n".join([f"From: {SALES}\nTo: {JANE}\nSubject: x".encode(), *stolen, b"", b"hi", b""])
    done = shell.run("draft", "--eml", "-", "--json", stdin=mail)
    assert done.code == 0, done.err
    shown = shell.run("show", done.data["id"], "--eml").out
    assert shown.encode() == unsent.rows("SELECT octets FROM messages WHERE draft_id = ?", done.data["id"])[0][0]
    assert "X-Outbox-Request" not in shown


def test_explain_says_check_by_check_what_a_message_would_do(unsent: House, shell: Shell) -> None:
    draft = unsent.draft()
    unsent.inbox()
    (request,) = unsent.story(draft.id).requests
    reply_to = re.search(r"Reply-To: (\S+)", shell.run("show", request.draft_id, "--eml").out)
    assert reply_to
    mail = (
        f"From: {FOUNDER}\nTo: {reply_to[1]}\nSubject: Re: x\nMessage-ID: <r@phone.example>\n"
        "Date: Fri, 15 Jan 2027 08:00:00 +0000\n\nReject: too expensive\n"
    )
    (shell.folder / "reply.eml").write_text(mail)
    rows = unsent.rows("SELECT count(*) FROM journal")
    data = shell.run("inbox", "explain", "reply.eml", "--json").data
    assert set(data) == {"draft", "verdict", "reason", "counts", "checks"}
    assert (data["draft"], data["verdict"], data["reason"], data["counts"]) == (
        draft.id,
        "reject",
        "too expensive",
        True,
    )
    assert [check["check"] for check in data["checks"]] == CHECKS
    assert all(set(check) == {"check", "passed", "why"} for check in data["checks"])
    stranger = shell.run("inbox", "explain", "-", "--json", stdin=mail.replace(FOUNDER, "eve@x.example").encode()).data
    assert stranger["counts"] is False
    assert {check["check"]: check["passed"] for check in stranger["checks"]}["from"] is False
    assert "changes nothing" in shell.run("inbox", "explain", "-", stdin=b"From: a@x.example\n\nhello\n").out
    assert unsent.rows("SELECT count(*) FROM journal") == rows
    assert unsent.rows("SELECT count(*) FROM replies") == [(0,)]
    assert unsent.story(draft.id).draft.state == "pending"


def test_explain_of_a_file_that_is_not_there_is_wrong_usage(shell: Shell) -> None:
    assert shell.fails(2, "inbox", "explain", "missing.eml")["error"] == "file_unreadable"


def test_a_worker_with_nothing_to_do_is_done(shell: Shell) -> None:
    done = shell.run("worker", "--drain")
    assert (done.code, done.out) == (0, "")


def test_drafts_beyond_the_cutout_wait_with_exit_75(house: House) -> None:
    shell = Shell(house.folder)
    house.set("thermal", count="1")
    ids = [shell.run(*OFFER).out.strip() for _ in range(2)]
    shell.run("approve", *ids)
    done = shell.run("worker", "--drain")
    assert done.code == 75
    assert [shell.run("show", one, "--json").data["state"] for one in ids] == ["completed", "approved"]


def test_a_draft_that_the_relay_refused_shows_its_code_and_the_relay_s_words(house: House) -> None:
    shell = Shell(house.folder)
    house.relay.refuse[JANE] = "550 5.1.1 no \x1b[2Jsuch user"
    draft_id = shell.run(*OFFER).out.strip()
    shell.run("approve", draft_id)
    assert shell.run("worker", "--drain").code == 0
    data = shell.run("show", draft_id, "--json").data
    assert set(data["error"]) == {"code", "message"}
    assert (data["state"], data["error"]["code"]) == ("failed", "relay_refused")
    assert data["attempts"][0]["outcome"] == "refused_permanent"
    assert "\x1b" not in shell.run("show", draft_id).out
    assert "\x1b" not in shell.run("list").out


def test_an_agent_s_words_cannot_act_on_a_terminal(unsent: House, shell: Shell) -> None:
    draft = unsent.draft(subject="\u202egnihton", agent="bot\u202e")
    for words in (("list",), ("show", draft.id)):
        assert "\u202e" not in shell.run(*words).out


def test_the_database_says_its_revision(shell: Shell) -> None:
    assert shell.run("db", "current").out == f"{REVISION}\n"
    assert shell.run("db", "current", "--json").data == {"revision": REVISION, "head": REVISION}
    assert shell.run("db", "upgrade").out == f"at revision {REVISION}\n"
    assert shell.run("db", "upgrade", "--json").data == {"revision": REVISION}


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("show", "x"),
        ("cancel", "x"),
        ("approve", "x"),
        ("reject", "x", "--reason", "y"),
        ("replies",),
        OFFER,
        ("inbox", "--once"),
        ("inbox", "explain", "-"),
        ("worker", "--drain"),
    ],
    ids=lambda words: words[0] + words[1][:3] if len(words) > 1 else words[0],
)
def test_a_database_of_another_revision_is_refused_by_every_command(
    unsent: House, shell: Shell, words: tuple[str, ...]
) -> None:
    with unsent.connection() as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert re.search(f"revision 9999.*{REVISION}.*db upgrade", shell.says(78, *words))


def test_a_database_of_a_newer_outbox_cannot_be_upgraded(unsent: House, shell: Shell) -> None:
    with unsent.connection() as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert shell.fails(78, "db", "upgrade")["error"] == "database_revision"
    assert shell.run("db", "current", "--json").data == {"revision": "9999", "head": REVISION}


def test_an_empty_database_is_refused_until_it_is_upgraded(shell: Shell) -> None:
    (shell.folder / "outbox.db").unlink()
    sqlite3.connect(shell.folder / "outbox.db").close()
    (shell.folder / "outbox.db").touch()
    assert shell.fails(78, "list")["error"] == "database_revision"
    assert shell.run("db", "upgrade").code == 0
    assert shell.run("list").code == 0


def test_a_missing_database_is_not_made_by_looking(shell: Shell) -> None:
    (shell.folder / "outbox.db").unlink()
    before = shell.snapshot()
    for words in (("list",), ("db", "current"), OFFER):
        assert shell.fails(78, *words)["error"] == "database_missing"
    assert "there is no database" in shell.says(78, "worker", "--drain")
    assert shell.snapshot() == before


def test_a_file_that_is_no_database_is_exit_69(shell: Shell) -> None:
    (shell.folder / "outbox.db").write_bytes(b"this is not a database, it is a letter" * 100)
    for words in (("list",), ("db", "upgrade"), OFFER):
        assert shell.fails(69, *words)["error"] == "database_unavailable"


def test_a_database_whose_guards_were_taken_away_is_refused_by_rooms_that_act(unsent: House, shell: Shell) -> None:
    with unsent.connection() as connection:
        connection.execute("DROP TRIGGER drafts_grant")
    for words in (("worker", "--drain"), ("inbox", "--once")):
        assert "drafts_grant" in shell.says(69, *words)


def test_help_and_version_are_there(shell: Shell) -> None:
    for words in (("--help",), ("draft", "--help"), ("inbox", "--help"), ("db", "--help")):
        done = shell.run(*words)
        assert (done.code, done.err) == (0, "")
        assert "Usage:" in done.out
    assert shell.run("--version").out.startswith("outbox, version ")


def test_json_is_one_object_a_line_in_utf_8(unsent: House, shell: Shell) -> None:
    unsent.draft(subject="J\u00e4ne \U0001f600")
    (line,) = shell.run("list", "--json").out.splitlines()
    assert "J\u00e4ne \U0001f600" in line
    assert json.loads(line)["subject"] == "J\u00e4ne \U0001f600"
