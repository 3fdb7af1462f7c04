"""Files that are not what was written, database and ledger: a clear error or harmless, and never a wrong send."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outbox.core.errors import OutboxError
from outbox.core.lifecycle import State
from tests.crash.faults_table import Tally, write
from tests.faults.disks import HELD, PATIENCE, home_on, lines_of, worker_of
from tests.faults.truth import assert_the_promises_hold, rows_of
from tests.house import HOUR, JANE, House
from tests.relay.adversary import Adversary, Phase, complete
from tests.seeds import seeds
from tests.worker.hand import ended

# The database


def scattered(octets: bytearray, dice: random.Random) -> None:
    for _ in range(16):
        octets[dice.randrange(len(octets))] = dice.randrange(256)


def blotted(octets: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(octets) - 256)
    octets[start : start + 256] = dice.randbytes(256)


def zeroed(octets: bytearray, _: random.Random) -> None:
    octets[:] = bytes(len(octets))


DAMAGES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "scattered": scattered,
    "blotted": blotted,
    "zeroed": zeroed,
}


def page_size(database: Path) -> int:
    return int.from_bytes(database.read_bytes()[16:18], "big")


def damage(database: Path, page: int, how: str, dice: random.Random) -> None:
    """Spoil one page of a database that nobody has open."""
    size, octets = page_size(database), bytearray(database.read_bytes())
    spoilt = octets[page * size : (page + 1) * size]
    DAMAGES[how](spoilt, dice)
    octets[page * size : (page + 1) * size] = spoilt
    database.write_bytes(octets)


def assert_no_wrong_send(relay: Adversary, drafts: dict[str, bytes]) -> None:
    """Each at most once, and with the octets that were approved."""
    for sent in relay.to(JANE):
        assert sent.octets.partition(b"\r\n")[2] in drafts.values()
    assert max((relay.drafts[draft_id] for draft_id in drafts), default=0) <= 1


def root_page(house: House, name: str) -> int:
    """The first page of a table; of the schema, one that holds its words."""
    if name == "schema":
        size, octets = page_size(house.database), house.database.read_bytes()
        return next(n for n in range(1, len(octets) // size) if b"CREATE T" in octets[n * size : (n + 1) * size])
    return int(str(house.rows("SELECT rootpage FROM sqlite_master WHERE name = ?", name)[0][0])) - 1


def drain_as_a_process(house: House) -> tuple[int, str]:
    """A drain that is stopped where it comes to no end, as one that cannot store what it heard."""
    with worker_of(house) as process:
        try:
            _, said = process.communicate(timeout=8)
        except subprocess.TimeoutExpired:
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said


@pytest.fixture
def corruptible(tmp_path: Path) -> Iterator[tuple[House, Adversary]]:
    """One draft was sent, and three wait."""
    with home_on(tmp_path / "home") as (house, relay, _):
        house.set("worker", stop_timeout="1")
        house.drain()
        for number in range(3):
            house.approved(subject=f"Offer {number}")
        yield house, relay


def try_with_a_spoilt_page(house: House, relay: Adversary, page: int, how: str, dice: random.Random) -> Tally:
    """Drain, see what was sent, and put everything back."""
    octets = {str(one): bytes(two) for one, two in house.rows("SELECT draft_id, octets FROM messages")}  # type: ignore[call-overload]
    sound, before = house.folder.with_name("sound"), list(relay.messages)
    shutil.copytree(house.folder, sound)
    damage(house.database, page, how, dice)
    code, said = drain_as_a_process(house)
    relay.wait_until_over()
    assert "Traceback" not in said, said
    assert code in {0, 69, 75, 78}, said
    assert_no_wrong_send(relay, octets)
    found = Tally("corrupt pages", faults=1, messages=len(octets), accepted=sum(relay.drafts.values()))
    relay.messages[:] = before
    shutil.rmtree(house.folder)
    sound.rename(house.folder)
    return found


TABLES = [f"{table}-{how}" for table in ("schema", "drafts", "messages", "attempts") for how in ("scattered", "zeroed")]


@pytest.mark.sqlite  # a server's pages are its own to look after
@pytest.mark.parametrize("case", [*seeds(TABLES, 3), pytest.param("recipients-zeroed", marks=pytest.mark.torture)])
def test_a_corrupt_page_is_a_clear_error_or_harmless(corruptible: tuple[House, Adversary], case: str) -> None:
    house, relay = corruptible
    table, how = case.split("-")
    write([try_with_a_spoilt_page(house, relay, root_page(house, table), how, random.Random(how))])


@pytest.mark.sqlite
@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", DAMAGES)
def test_no_corrupt_page_makes_a_wrong_send(corruptible: tuple[House, Adversary], how: str) -> None:
    house, relay = corruptible
    dice, tally = random.Random(how), Tally("corrupt pages")
    for page in range(house.database.stat().st_size // page_size(house.database)):
        tally.add(try_with_a_spoilt_page(house, relay, page, how, dice))
    write([tally])


# The ledger, and the files beside it


def without_the_last_gap(file: Path) -> None:
    file.write_bytes(b"".join(lines_of(file)[:-2]))


def without_a_line(file: Path) -> None:
    lines = lines_of(file)
    file.write_bytes(b"".join(lines[:1] + lines[2:]))


def in_another_order(file: Path) -> None:
    first, second, third, *others = lines_of(file)
    file.write_bytes(b"".join([first, third, second, *others]))


def with_one_bit_changed(file: Path) -> None:
    octets = bytearray(file.read_bytes())
    octets[len(octets) // 2] ^= 1
    file.write_bytes(octets)


def cut_in_the_middle(file: Path) -> None:
    octets = file.read_bytes()
    file.write_bytes(octets[: len(octets) // 2])


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_device_that_is_full(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/full")


LEDGERS: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "no ledger at all": lambda file: file.write_bytes(b"\x00\xff" * 5000),
    "a hundred thousand brackets": lambda file: file.write_bytes(b"[" * 100_000 + b"\n"),
    "another's": lambda file: file.write_bytes(lines_of(file)[0].replace(b'"database":"', b'"database":"0')),
    "cut in the middle": cut_in_the_middle,
    "without the last gap": without_the_last_gap,
    "without a line": without_a_line,
    "in another order": in_another_order,
    "with one bit changed": with_one_bit_changed,
    "a folder": a_folder,
    "a pipe": a_pipe,
    "a device that is full": a_device_that_is_full,
}


@pytest.fixture
def sent_once(tmp_path: Path) -> Iterator[tuple[House, Adversary]]:
    """Two drafts have left and one waits."""
    with Adversary() as relay:
        house = House.build(tmp_path / "home", relay)  # type: ignore[arg-type]
        for number in range(2):
            house.approved(subject=f"Sent {number}")
            house.drain()
        house.approved(subject="Waiting")
        yield house, relay


@pytest.mark.parametrize("how", seeds(LEDGERS, 2), ids=lambda how: how.replace(" ", "_"))
def test_a_ledger_that_is_not_what_was_written_stops_the_worker(sent_once: tuple[House, Adversary], how: str) -> None:
    house, relay = sent_once
    file, before = house.settings.state_dir / "ledger", len(relay.messages)
    sound = file.read_bytes()
    LEDGERS[how](file)
    with pytest.raises(OutboxError) as told:
        house.drain()
    assert told.value.code.value.startswith("ledger_")
    assert "ledger" in told.value.message
    assert "\n" not in told.value.message
    assert len(relay.messages) == before
    if file.is_dir():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    file.write_bytes(sound)
    file.chmod(0o600)
    house.drain()
    assert [row.state for row in rows_of(house)] == [State.COMPLETED] * 3
    assert len(relay.to(JANE)) == 3
    assert_the_promises_hold(house, relay, Tally("ledger"))


def test_half_a_line_at_the_end_is_what_a_crash_left_and_is_cut_off(sent_once: tuple[House, Adversary]) -> None:
    house, relay = sent_once
    file = house.settings.state_dir / "ledger"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"is":"entered","draft":"01')
    house.drain()
    assert file.read_bytes().startswith(whole)
    assert all(line.endswith(b"}\n") for line in lines_of(file)[len(whole.splitlines()) :])
    assert len(relay.to(JANE)) == 3


@pytest.mark.parametrize("how", ["taken away", "replaced"])
@pytest.mark.parametrize("moment", ["DATA", pytest.param("MAIL", marks=pytest.mark.torture)])
def test_a_ledger_that_goes_while_a_worker_runs_lets_no_dot_follow(tmp_path: Path, how: str, moment: str) -> None:
    with home_on(tmp_path / "home") as (house, relay, first):
        house.drain()
        waiting = house.approved(subject="Waiting").id
        relay.scripts = [*({} for _ in range(relay.connections)), HELD[moment]]
        file, aside = house.settings.state_dir / "ledger", tmp_path / "aside"
        with worker_of(house) as process:
            relay.wait_until_holding()
            file.rename(aside)
            if how == "replaced":
                shutil.copy(aside, file)
            relay.release()
            code, said = ended(process)
        assert code in {69, 78}, said
        assert "ledger_missing" in said or str(file) in said
        assert relay.drafts == {first: 1}
        aside.rename(file)
        house.clock.advance(HOUR)
        house.drain()
        assert relay.drafts[waiting] == 1
        assert_the_promises_hold(house, relay, Tally("ledger"))


@pytest.mark.parametrize("how", ["a folder", "a device that is full"])
def test_a_state_file_that_cannot_be_written_keeps_nothing_from_being_sent_or_told(
    sent_once: tuple[House, Adversary], how: str
) -> None:
    house, relay = sent_once
    file = house.settings.state_dir / "worker.json"
    file.touch()
    LEDGERS[how](file)
    relay.scripts = [*({} for _ in range(relay.connections)), {Phase.RCPT: [complete(550, "5.1.1 Nobody")]}]
    house.drain()
    assert sorted(row.state for row in rows_of(house)) == [State.COMPLETED, State.COMPLETED, State.FAILED]
    assert len(relay.to("founder@acme.example")) == 1
