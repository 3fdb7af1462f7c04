"""Keys are rotated, retired and revoked while drafts, grants and reply tokens are under way."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from outbox import config, drafter, worker
from outbox.core.errors import Code, ConfigError, OutboxError, StateRefused, TryLater
from outbox.core.lifecycle import Room, State
from outbox.drafter.intake import Wanted
from outbox.operator.keylist import KeyList, Name
from outbox.operator.keyring import Key, KeyState, Revocation
from outbox.operator.keyring import open as open_keys
from outbox.store.claims import Claim, Heat, claim_if_cool, insert_worker
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.writer import Writer
from tests.cli.shell import Shell
from tests.house import HOUR, JANE, SALES, SECOND, HandClock, House
from tests.relay.recording import RecordingRelay

NAMES: tuple[Name, ...] = ("draft", "grant")


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[House]:
    """A house with a relay."""
    with RecordingRelay() as relay:
        yield House.build(tmp_path, relay)


def keys(house: House) -> list[Key]:
    with open_keys(house.settings, clock=house.clock) as opened:
        return opened.all_keys()


def key(house: House, name: Name, state: KeyState) -> Key:
    (found,) = [one for one in keys(house) if (one.name, one.state) == (name, state)]
    return found


def needed(house: House, name: Name, state: KeyState) -> tuple[int, int, int]:
    use = key(house, name, state).use
    assert use is not None
    return use.drafts, use.grants, use.requests


def rotate(house: House, name: Name) -> Key:
    house.clock.advance(SECOND)
    with open_keys(house.settings, clock=house.clock) as opened:
        return opened.rotate(name)


def activate(house: House, name: Name) -> Key:
    house.clock.advance(SECOND)
    with open_keys(house.settings, clock=house.clock) as opened:
        return opened.activate(name)


def replaced(house: House, name: Name) -> Key:
    """The old key, after another was made and signs."""
    rotate(house, name)
    activate(house, name)
    return key(house, name, KeyState.OLDER)


def retire(house: House, named: Key | str) -> Key:
    with open_keys(house.settings, clock=house.clock) as opened:
        return opened.retire(named if isinstance(named, str) else str(named.id))


def revoke(house: House, named: Key | str) -> Revocation:
    with open_keys(house.settings, clock=house.clock) as opened:
        return opened.revoke(named if isinstance(named, str) else str(named.id))


def refused(code: Code, house: House, verb: str, *given: Key | str) -> OutboxError:
    """The verb is refused with `code`, and changes neither settings nor journal nor any key file."""
    before = snapshot(house)
    with pytest.raises(OutboxError) as caught:
        globals()[verb](house, *given)
    assert caught.value.code is code, caught.value.message
    assert snapshot(house) == before
    return caught.value


def snapshot(house: House) -> list[object]:
    files = [house.folder / "outbox.toml", *sorted((house.folder / "keys").rglob("*.key*"))]
    return [*((file, file.read_bytes()) for file in files), house.rows("SELECT count(*) FROM journal")]


def signed_by(house: House, draft_id: str) -> object:
    return house.rows("SELECT key_id FROM drafts WHERE id = ?", draft_id)[0][0]


def still_sends(house: House) -> None:
    """From a draft through a request and a reply to the relay."""
    before = len(house.relay.to(JANE))
    draft_id = house.draft(subject=f"Offer {before}").id
    house.reply(house.ask(draft_id), "Ship it")
    house.inbox()
    house.drain()
    assert house.story(draft_id).draft.state is State.COMPLETED, house.story(draft_id).draft.error
    assert len(house.relay.to(JANE)) == before + 1


# Rotating


@pytest.mark.parametrize("name", NAMES)
def test_a_new_key_verifies_and_does_not_sign(house: House, name: Name) -> None:
    old = key(house, name, KeyState.NEWEST)
    new = rotate(house, name)
    assert (key(house, name, KeyState.NEWEST).id, key(house, name, KeyState.WAITS).id) == (old.id, new.id)
    assert stat.S_IMODE(new.file.stat().st_mode) == 0o600
    assert len(new.file.read_bytes()) >= 32
    ring = house.settings.draft_ring() if name == "draft" else house.settings.grant_ring()
    assert repr(ring) == f"KeyRing({old.id}, {new.id})"


@pytest.mark.parametrize("name", NAMES)
def test_one_key_waits_at_a_time(house: House, name: Name) -> None:
    rotate(house, name)
    house.clock.advance(SECOND)
    refused(Code.STATE_CONFLICT, house, "rotate", name)


def test_no_key_is_activated_where_none_waits(house: House) -> None:
    refused(Code.STATE_CONFLICT, house, "activate", "draft")
    replaced(house, "draft")
    refused(Code.STATE_CONFLICT, house, "activate", "draft")


@pytest.mark.parametrize("name", NAMES)
def test_a_key_does_not_sign_while_a_worker_runs_that_does_not_know_it(sending: House, name: Name) -> None:
    with worker.open(sending.settings, clock=sending.clock) as unaware:
        rotate(sending, name)
        assert isinstance(refused(Code.WORKER_ALIVE, sending, "activate", name), TryLater)
        unaware.run(drain=True)
    sending.clock.advance(SECOND)
    with worker.open(sending.settings, clock=sending.clock) as aware:
        new = activate(sending, name)
        approved = sending.approved(subject="signed with the new key")
        aware.run(drain=True)
    assert sending.story(approved.id).draft.state is State.COMPLETED
    table, column = ("drafts", "id") if name == "draft" else ("grants", "draft_id")
    assert sending.rows(f"SELECT key_id FROM {table} WHERE {column} = ?", approved.id) == [(new.id,)]


def test_what_was_under_way_before_a_rotation_is_sent_after_it(sending: House) -> None:
    approved = sending.approved(subject="granted before")
    asked = sending.draft(subject="asked before")
    request = sending.ask(asked.id)
    pending = sending.draft(subject="drafted before")
    for name in NAMES:
        replaced(sending, name)
    sending.reply(request, "Ship it")
    sending.inbox()
    sending.approve(pending.id)
    sending.drain()
    states = {sending.story(one.id).draft.state for one in (approved, asked, pending)}
    assert states == {State.COMPLETED}
    assert len(sending.relay.to(JANE)) == 3
    still_sends(sending)


def test_rotations_are_journalled_by_id_with_a_key_that_stays(house: House) -> None:
    old = {name: key(house, name, KeyState.NEWEST) for name in NAMES}
    for name in NAMES:
        replaced(house, name)
    retire(house, old["grant"])
    revoke(house, old["draft"])
    told = house.rows("SELECT action, key_id, detail FROM journal WHERE action LIKE '%_key' ORDER BY rowid")
    assert [action for action, _, _ in told] == [*["rotate_key", "activate_key"] * 2, "retire_key", "revoke_key"]
    staying = key(house, "grant", KeyState.NEWEST).id
    assert [by for _, by, _ in told][-2:] == [staying, staying]
    secrets = [file.read_bytes().hex() for file in (house.folder / "keys").rglob("*.key*")]
    assert not any(secret in str(detail) for _, _, detail in told for secret in secrets)


def test_who_holds_the_draft_key_alone_rotates_that(house: House) -> None:
    (house.folder / "keys" / "grant.key").unlink()
    old = replaced(house, "draft")
    assert retire(house, old).state is KeyState.RETIRED
    assert [one.id for one in keys(house) if one.name == "grant"] == [None]
    refused(Code.KEY_MISSING, house, "rotate", "grant")


def test_a_credential_is_rotated_by_whoever_makes_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    held = house.folder / "credentials"
    held.mkdir()
    (held / "draft.key").write_bytes(bytes(range(32)))
    (held / "draft.key").chmod(0o600)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(held))
    assert "credential" in refused(Code.NOT_SUPPORTED, house, "rotate", "draft").message


# The settings file


REMARKED = '# mine\n[keys] # here\n  draft = ["keys/draft.key"]  # signs\ngrant = [\n  "keys/grant.key",\n]\n'
WAYS = {
    "a-list-with-a-remark": REMARKED,
    "no-section": "# mine\n",
    "a-section-without-the-list": '[keys]\n\n[database]\nurl = "sqlite:///outbox.db"\n',
    "no-newline-at-its-end": '[database]\nurl = "sqlite:///outbox.db"',
    "lines-with-CR": '[keys]\r\ndraft = ["keys/draft.key"]\r\n',
}
NOT_PLAIN = {
    "a-remark-inside": '[keys]\ndraft = [ # newest first\n  "keys/draft.key",\n]\n',
    "a-dotted-name": 'keys.draft = ["keys/draft.key"]\n',
    "an-inline-table": 'keys = { draft = ["keys/draft.key"] }\n',
    "the-same-words-in-a-text": '[relay]\nusername = """\n[keys]\ndraft = ["keys/draft.key"]\n"""\n',
}


def listing(folder: Path, text: str) -> tuple[Path, KeyList]:
    """A settings file with this text and mode 0640, and the list of draft keys in it."""
    file = folder / "outbox.toml"
    file.write_bytes(text.encode())
    file.chmod(0o640)
    return file, KeyList.read(config.load(file), file, "draft")


@pytest.mark.parametrize("text", WAYS.values(), ids=WAYS)
def test_one_list_is_changed_and_every_other_word_stays(tmp_path: Path, text: str) -> None:
    file, found = listing(tmp_path, text)
    found.changed_to(("keys/draft.key", "keys/new.key")).apply()
    assert config.load(file).keys.draft == (Path("keys/draft.key"), Path("keys/new.key"))
    assert config.load(file).keys.grant == (Path("keys/grant.key"),)
    said = file.read_bytes().decode()
    assert said.replace(', "keys/new.key"', "").replace('draft = ["keys/draft.key"]\n', "").split() == (
        text.replace('draft = ["keys/draft.key"]\n', "").split() if "[keys]" in text else [*text.split(), "[keys]"]
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_a_list_that_is_not_plain_is_for_a_person_to_write(tmp_path: Path, text: str) -> None:
    file, found = listing(tmp_path, text)
    change = found.changed_to(("keys/new.key",))
    with pytest.raises(ConfigError, match=r'write draft = \["keys/new.key"\]') as caught:
        change.refuse_unsafe()
    assert caught.value.code is Code.NOT_SUPPORTED
    change.apply()
    assert file.read_bytes() == text.encode()


def test_a_key_is_made_also_where_a_person_has_to_list_it(house: House) -> None:
    file = house.folder / "outbox.toml"
    before = file.read_text()
    file.write_text(before.replace('draft = ["keys/draft.key"]', 'draft = [ # mine\n"keys/draft.key"]'))
    with pytest.raises(ConfigError) as caught:
        rotate(house, "draft")
    (made,) = (house.folder / "keys").glob("draft-*.key")
    line = f'["keys/draft.key", "keys/{made.name}"]'
    assert f"write draft = {line}" in caught.value.message
    file.write_text(before.replace('["keys/draft.key"]', line))
    assert key(house, "draft", KeyState.WAITS).file == made
    assert activate(house, "draft").file == made


def test_a_list_from_the_environment_is_changed_there(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    old = replaced(house, "draft")
    new = key(house, "draft", KeyState.NEWEST)
    monkeypatch.setenv("OUTBOX_KEYS__DRAFT", json.dumps([str(new.file), str(old.file)]))
    assert str(new.file) in refused(Code.NOT_SUPPORTED, house, "retire", old).message
    monkeypatch.setenv("OUTBOX_KEYS__DRAFT", json.dumps([str(new.file)]))
    assert retire(house, old).file.exists()


def test_settings_that_were_changed_meanwhile_are_not_overwritten(house: House) -> None:
    file = house.folder / "outbox.toml"
    change = KeyList.read(house.settings, file, "draft").changed_to(("keys/other.key",))
    file.write_text(file.read_text() + "# by another hand\n")
    with pytest.raises(StateRefused):
        change.apply()
    assert "keys/other.key" not in file.read_text()


# Retiring


def test_a_key_that_nothing_needs_is_put_away_and_all_goes_on(sending: House) -> None:
    still_sends(sending)
    for name in NAMES:
        old = replaced(sending, name)
        sending.clock.advance(25 * HOUR)
        gone = retire(sending, old)
        assert gone.file == sending.folder / "keys" / "retired" / f"{name}-{old.id}.key"
        assert (gone.file.read_bytes(), stat.S_IMODE(gone.file.stat().st_mode)) == (old.octets, 0o600)
        assert not old.file.exists()
        still_sends(sending)
    use = key(sending, "grant", KeyState.RETIRED).use
    assert use is not None
    assert use.journal > 0


def test_the_newest_key_is_not_retired(house: House) -> None:
    refused(Code.KEY_IN_USE, house, "retire", key(house, "draft", KeyState.NEWEST))


def test_a_key_that_is_not_there_is_unknown(house: House) -> None:
    for named in ("0123456789abcdef", "keys/absent.key", "outbox.toml", ""):
        refused(Code.KEY_UNKNOWN, house, "retire", named)
        refused(Code.KEY_UNKNOWN, house, "revoke", named)


def test_a_key_is_named_by_its_file_too(house: House) -> None:
    old = replaced(house, "draft")
    assert retire(house, "keys/draft.key").id == old.id
    refused(Code.STATE_CONFLICT, house, "retire", old)


def test_a_draft_key_is_not_retired_under_a_live_draft(house: House) -> None:
    draft_id = house.draft().id
    old = replaced(house, "draft")
    assert needed(house, "draft", KeyState.OLDER) == (1, 0, 0)
    refused(Code.KEY_IN_USE, house, "retire", old)
    house.cancel(draft_id)
    assert needed(house, "draft", KeyState.OLDER) == (0, 0, 0)
    retire(house, old)


def test_a_grant_key_is_not_retired_under_a_grant(sending: House) -> None:
    approved = sending.approved()
    old = replaced(sending, "grant")
    assert needed(sending, "grant", KeyState.OLDER) == (0, 1, 0)
    refused(Code.KEY_IN_USE, sending, "retire", old)
    sending.drain()
    assert sending.story(approved.id).draft.state is State.COMPLETED
    retire(sending, old)


def test_a_grant_key_is_not_retired_while_a_request_can_be_answered(sending: House) -> None:
    draft_id = sending.draft().id
    request = sending.ask(draft_id)
    old = replaced(sending, "grant")
    assert needed(sending, "grant", KeyState.OLDER) == (0, 0, 1)
    refused(Code.KEY_IN_USE, sending, "retire", old)
    sending.reply(request, "Ship it")
    sending.inbox()
    assert needed(sending, "grant", KeyState.OLDER) == (0, 0, 1)  # "Stop" may still come
    sending.drain()
    retire(sending, old)


def test_a_token_counts_for_the_key_of_the_worker_that_made_it(sending: House) -> None:
    draft_id = sending.draft().id
    sending.inbox()  # the letter is signed with the old key,
    replaced(sending, "grant")
    sending.drain()  # and its token made with the new one
    assert needed(sending, "grant", KeyState.NEWEST)[2] == 1
    sending.reply(sending.request_for(draft_id), "Ship it")
    sending.inbox()
    assert sending.story(draft_id).draft.state is State.APPROVED


def test_a_request_past_its_time_needs_no_key(sending: House) -> None:
    sending.ask(sending.draft().id)
    old = replaced(sending, "grant")
    sending.clock.advance(25 * HOUR)
    assert needed(sending, "grant", KeyState.OLDER)[2] == 0
    sending.inbox()  # it expires
    retire(sending, old)


def test_a_key_that_a_room_goes_on_signing_with_is_in_use(house: House) -> None:
    with drafter.open(house.settings, clock=house.clock) as room:
        old = replaced(house, "draft")
        house.clock.advance(SECOND)
        late = room.draft(Wanted(sender=SALES, to=(JANE,), subject="Late", text="Hello."))
    assert signed_by(house, late.draft.id) == old.id
    house.cancel(late.draft.id)
    assert "drafter" in refused(Code.KEY_IN_USE, house, "retire", old).message
    house.clock.advance(2 * HOUR)
    retire(house, old)


def test_a_key_that_a_worker_signs_with_is_in_use(sending: House) -> None:
    rotate(sending, "grant")
    sending.clock.advance(SECOND)
    with worker.open(sending.settings, clock=sending.clock):
        activate(sending, "grant")
        old = key(sending, "grant", KeyState.OLDER)
        sending.clock.advance(2 * HOUR)
        assert "worker" in refused(Code.KEY_IN_USE, sending, "retire", old).message
    sending.clock.advance(2 * HOUR)
    retire(sending, old)


# Revoking


def test_a_revoked_draft_key_takes_its_drafts_along_and_says_why(sending: House) -> None:
    pending, approved = sending.draft(subject="pending").id, sending.approved(subject="approved").id
    old = replaced(sending, "draft")
    other = sending.approved(subject="of the new key").id
    done = revoke(sending, old)
    assert (set(done.cancelled), done.stopping, done.workers) == ({pending, approved}, (), ())
    for draft_id in (pending, approved):
        draft = sending.story(draft_id).draft
        assert draft.state is State.CANCELLED
        assert draft.error is not None
        assert draft.error[0] == Code.KEY_REVOKED
        assert str(old.id) in draft.error[1]
    sending.drain()
    assert [sent.octets.count(b"of the new key") for sent in sending.relay.to(JANE)] == [1]
    assert sending.story(other).draft.state is State.COMPLETED
    assert key(sending, "draft", KeyState.REVOKED).file.suffix == ".revoked"
    still_sends(sending)


def test_a_revoked_grant_key_takes_grants_and_tokens_along(sending: House) -> None:
    asked = sending.draft(subject="asked").id
    request = sending.ask(asked)
    approved = sending.approved(subject="approved").id
    revoked = revoke(sending, key(sending, "grant", KeyState.NEWEST))
    assert set(revoked.cancelled) == {asked, approved}
    assert revoked.made is not None
    assert key(sending, "grant", KeyState.NEWEST).id == revoked.made.id
    sending.reply(request, "Ship it")
    sending.inbox()
    assert sending.replies() == []  # it carries no token of ours any more
    sending.drain()
    assert sending.relay.to(JANE) == []
    assert {sending.story(one).draft.error for one in (asked, approved)} == {
        (Code.KEY_REVOKED.value, f"key {revoked.key.id} was revoked, and this draft rests on it; draft it again")
    }
    still_sends(sending)


def test_what_was_not_asked_yet_is_asked_again_under_a_key_that_stays(sending: House) -> None:
    draft_id = sending.draft().id
    sending.inbox()
    done = revoke(sending, key(sending, "grant", KeyState.NEWEST))
    assert draft_id not in done.cancelled
    assert len(done.cancelled) == 1  # the letter alone
    sending.reply(sending.ask(draft_id), "Ship it")
    sending.inbox()
    assert sending.story(draft_id).draft.state is State.APPROVED


def test_what_is_being_sent_is_asked_to_stop(house: House) -> None:
    draft_id = house.approved().id
    database = connect(house.place)
    writer = Writer(database, Chain(Room.WORKER, "w", house.settings.grant_ring()))
    try:
        writer.run(lambda tx: insert_worker(tx, "w", host="elsewhere", pid=1, now=house.clock()))
        (claimed,), _ = writer.run(
            lambda tx: claim_if_cool(tx, Heat("mail", 9, 9, 9), worker_id="w", attempt_ids=["a"], now=house.clock())
        )
    finally:
        writer.close()
        database.close()
    assert isinstance(claimed, Claim)
    done = revoke(house, key(house, "draft", KeyState.NEWEST))
    assert (done.cancelled, done.stopping, done.workers) == ((), (draft_id,), ("w",))
    assert house.story(draft_id).draft.stop_asked_at is not None


def test_a_worker_that_still_believes_a_revoked_key_is_paused(sending: House) -> None:
    with worker.open(sending.settings, clock=sending.clock) as believing:
        done = revoke(sending, key(sending, "draft", KeyState.NEWEST))
        assert len(done.workers) == 1
        assert sending.rows("SELECT reason IS NOT NULL FROM pause") == [(1,)]
        approved = sending.approved().id
        with pytest.raises(TryLater):
            believing.run(drain=True)
    assert sending.story(approved).draft.state is State.APPROVED
    assert sending.relay.to(JANE) == []


def test_a_draft_made_with_a_revoked_key_is_never_sent(sending: House) -> None:
    with drafter.open(sending.settings, clock=sending.clock) as thief:
        revoke(sending, key(sending, "draft", KeyState.NEWEST))
        forged = thief.draft(Wanted(sender=SALES, to=(JANE,), subject="Forged", text="Hello.")).draft.id
    with pytest.raises(OutboxError) as caught:
        sending.approve(forged)
    assert caught.value.code is Code.SIGNATURE_INVALID
    sending.reply(sending.ask(forged), "Ship it")
    sending.inbox()
    sending.drain()
    assert sending.story(forged).draft.error is not None
    assert sending.story(forged).draft.error[0] == Code.SIGNATURE_INVALID  # type: ignore[index]
    assert sending.relay.to(JANE) == []


def test_a_revocation_that_was_cut_short_is_done_again(sending: House) -> None:
    pending = sending.draft().id
    old = replaced(sending, "draft")
    new = key(sending, "draft", KeyState.NEWEST)
    sending.set("keys", draft=json.dumps([f"keys/{new.file.name}"]))  # as after the list and before the rows
    assert key(sending, "draft", KeyState.UNLISTED).id == old.id
    assert revoke(sending, old).cancelled == (pending,)
    assert revoke(sending, old).cancelled == ()
    assert [one.state for one in keys(sending) if one.id == old.id] == [KeyState.REVOKED]
    still_sends(sending)


def test_a_retired_key_can_be_revoked(sending: House) -> None:
    old = replaced(sending, "grant")
    retire(sending, old)
    revoke(sending, old)
    assert [one.state for one in keys(sending) if one.id == old.id] == [KeyState.REVOKED]
    still_sends(sending)


# The command line


def test_the_commands_say_what_is_left_to_do(house: House) -> None:
    shell = Shell(house.folder)
    old = shell.run("keys", "list", "--json").lines[0]
    assert (old["name"], old["state"], old["drafts"]) == ("draft", "newest", 0)
    said = shell.run("keys", "rotate", "draft").out
    assert "outbox keys rotate draft --activate" in said
    new = shell.run("keys", "rotate", "draft", "--activate", "--json").data
    assert (new["state"], new["id"] != old["id"]) == ("newest", True)
    assert "keys/draft.key" in shell.run("keys", "list").out
    assert shell.run("keys", "retire", old["id"], "--json").data["state"] == "retired"
    assert shell.fails(1, "keys", "retire", new["id"])["error"] == "key_in_use"
    assert shell.fails(1, "keys", "revoke", "absent")["error"] == "key_unknown"
    shell.fails(2, "keys", "rotate", "reply")


def test_a_revocation_at_the_command_line_names_every_draft_that_it_ended(house: House) -> None:
    shell = Shell(house.folder)
    draft_id = house.draft().id
    done = shell.run("keys", "revoke", "keys/draft.key", "--json").data
    assert (done["cancelled"], done["made"] is not None) == ([draft_id], True)
    assert shell.run("show", draft_id, "--json").data["error"]["code"] == "key_revoked"
    again = shell.run("keys", "revoke", done["id"])
    assert "whatever drafts" in again.out


# A machine that stops

VERBS = ("rotate", "activate", "retire", "revoke", "revoke-the-only-one")
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.chmod"}


def act(house: House, verb: str, old: str) -> None:
    match verb:
        case "rotate":
            rotate(house, "draft")
        case "activate":
            activate(house, "draft")
        case "retire":
            retire(house, old)
        case _:
            revoke(house, old)


def stopped_at(point: int, house: House, verb: str, old: str) -> bool:
    """Do it in a process that ends at its nth open or change of a file; whether there were so many."""
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in {0, 9}
        return code == 9
    left = point

    def count(event: str, given: tuple[object, ...]) -> None:
        nonlocal left
        if event in _CHANGES or (event == "open" and str(given[0]).startswith(str(house.folder))):
            left -= 1
            if left == 0:
                os._exit(9)

    sys.addaudithook(count)
    try:
        act(house, verb, old)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.torture
@pytest.mark.parametrize("verb", VERBS)
def test_wherever_the_machine_stops_rooms_start_and_it_can_be_done_again(tmp_path: Path, verb: str) -> None:
    whole = House.build(tmp_path / "whole", RecordingRelay(port=2525))
    old = str(key(whole, "draft", KeyState.NEWEST).id)
    if verb in {"activate", "retire", "revoke"}:
        rotate(whole, "draft")
    if verb in {"retire", "revoke"}:
        activate(whole, "draft")
    for point in range(1, 200):
        house = House(
            Path(shutil.copytree(whole.folder, tmp_path / str(point))), whole.relay, HandClock(whole.clock.now)
        )
        if not stopped_at(point, house, verb, old):
            break
        house.settings.rings()  # what a room reads as it starts
        found = {one.id for one in keys(house)}
        assert old in found
        with suppress(StateRefused):  # it was done already, but for saying so
            act(house, verb, old)
        wanted = {"retire": KeyState.RETIRED, "rotate": KeyState.NEWEST, "activate": KeyState.OLDER}
        assert [one.state for one in keys(house) if one.id == old] == [wanted.get(verb, KeyState.REVOKED)]
        house.settings.rings()
    assert point > 5
