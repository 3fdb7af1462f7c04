"""A power cut at any moment: what was not synced is gone, what had reached the relay is not.

Chosen: a trace and its replay. The shim (shim.c) records every write, cut, rename and sync of the worker's files, in
their order and with their octets, and where a final dot was written. From it the folder is built as it would be after a
power cut at each moment, a fresh worker drains it, and the relay's truth is compared. Against a SQLite VFS this also
sees the ledger and the folders' entries, which are not SQLite's; against dropping writes as they happen, one run gives
every moment, and the same trace tells what a weaker setting would have kept.

`synchronous=NORMAL` is that same trace without the syncs that FULL adds: NORMAL syncs the WAL before a checkpoint only.
What is kept of the unsynced is nothing, or a random choice of whole and torn writes, as a disk's cache would choose.

Where the database is on a server of its own, that stands while the worker's host loses its power: it keeps what it has
committed, and the ledger what was synced. There the worker is killed at a call, and its folder made as the trace says.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.crash.faults_table import Tally, write
from tests.crash.shimmed import Zygote
from tests.crash.test_torture_kills import ACCEPTED, Point, rehearsed
from tests.crash.torture import Load, TruthRelay
from tests.house import JANE, House
from tests.relay.recording import RecordingRelay

SECTOR = 512
MESSAGES = 2
Keep = Callable[["Change"], bytes | None]


@dataclass(frozen=True, slots=True)
class Change:
    """One record of the trace: an operation on a file, named below the folder."""

    op: str
    name: str
    offset: int
    octets: bytes

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0] or "."


@dataclass(slots=True)
class Inode:
    """A file's octets on the platter, and what is still on its way there."""

    octets: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)

    def apply(self, change: Change, octets: bytes) -> None:
        if change.op == "truncate":
            del self.octets[change.offset :]
            self.octets.extend(bytes(change.offset - len(self.octets)))
        else:
            self.octets.extend(bytes(max(0, change.offset - len(self.octets))))
            self.octets[change.offset : change.offset + len(octets)] = octets


@dataclass(slots=True)
class Disk:
    """Files by inode, and the folders' entries: as the process sees them, and as they are on the platter."""

    seen: dict[str, Inode]
    entries: dict[str, Inode]
    moved: list[tuple[Change, Inode | None]] = field(default_factory=list)  # entries not on the platter yet

    @classmethod
    def of(cls, files: dict[str, bytes]) -> Disk:
        inodes = {name: Inode(bytearray(octets)) for name, octets in files.items()}
        return cls(dict(inodes), dict(inodes))

    def take(self, change: Change) -> None:
        """Do what the process did."""
        match change.op:
            case "write" | "truncate":
                self._file(change).pending.append(change)
            case "sync" if change.name in self.seen:
                inode = self.seen[change.name]
                for one in inode.pending:
                    inode.apply(one, one.octets)
                inode.pending = []
            case "sync":
                for one, inode in [pair for pair in self.moved if pair[0].folder == change.name]:
                    self._enter(one, inode)
                self.moved = [pair for pair in self.moved if pair[0].folder != change.name]
            case "link" | "rename" | "unlink":
                self._move(change)

    def after_the_cut(self, keep: Keep, entry_is_kept: Callable[[], bool]) -> dict[str, bytes]:
        """The files that are there when the power is back."""
        for inode in {id(one): one for one in (*self.seen.values(), *self.entries.values())}.values():
            for change in inode.pending:
                if (octets := keep(change)) is not None:
                    inode.apply(change, octets)
        for change, inode in self.moved:
            if entry_is_kept():
                self._enter(change, inode)
        return {name: bytes(inode.octets) for name, inode in self.entries.items()}

    def _file(self, change: Change) -> Inode:
        if change.name not in self.seen:
            self.seen[change.name] = Inode()
            self._later(Change("link", change.name, 0, b""))
        return self.seen[change.name]

    def _move(self, change: Change) -> None:
        if change.op == "unlink":
            self.seen.pop(change.name, None)
        else:
            old = change.octets.decode()
            if old in self.seen:
                self.seen[change.name] = self.seen[old]
            if change.op == "rename":
                self.seen.pop(old, None)
        self._later(change)

    def _later(self, change: Change) -> None:
        self.moved.append((change, self.seen.get(change.name)))

    def _enter(self, change: Change, inode: Inode | None) -> None:
        if inode is None:
            self.entries.pop(change.name, None)
            return
        self.entries[change.name] = inode
        if change.op == "rename":
            self.entries.pop(change.octets.decode(), None)


def parsed(trace: Path) -> list[Change]:
    """The shim's records."""
    octets, changes = trace.read_bytes(), []
    while octets:
        line, octets = octets.split(b"\n", 1)
        op, name, offset, length = line.decode().split(" ")
        changes.append(Change(op, name, int(offset), octets[: int(length)]))
        octets = octets[int(length) :]
    return changes


def as_normal(changes: list[Change]) -> list[Change]:
    """The trace as synchronous=NORMAL would leave it: a commit does not sync the WAL, a checkpoint does.

    A checkpoint's sync of the WAL is one that follows another with no write between (FULL had synced it already).
    """
    kept, is_new = [], False
    for change in changes:
        if change.name.endswith("-wal"):
            if change.op == "sync" and is_new:
                is_new = False
                continue
            is_new = is_new or change.op == "write"
        kept.append(change)
    return kept


@dataclass(slots=True)
class Traced:
    """A run of the worker that sent everything: the folder before it, the trace, and what the relay took, in order."""

    before: Path
    relay: TruthRelay
    changes: list[Change]
    zygote: Zygote
    where: Path

    def files(self, keep: Keep, entry_is_kept: Callable[[], bool], changes: list[Change], cut: int) -> dict[str, bytes]:
        """The worker's files after a power cut behind so many records."""
        there = {str(file.relative_to(self.before)): file for file in self.before.rglob("*") if file.is_file()}
        disk = Disk.of({name: file.read_bytes() for name, file in there.items() if not name.startswith("Maildir")})
        for change in changes[:cut]:
            disk.take(change)
        return disk.after_the_cut(keep, entry_is_kept)

    def drained(self, files: dict[str, bytes], dots: int) -> tuple[Tally, list[str]]:
        """What the next worker makes of these files, after the relay had taken so many messages."""
        shutil.rmtree(self.where, ignore_errors=True)
        shutil.copytree(self.before / "Maildir", self.where / "Maildir")
        for name, octets in files.items():
            (self.where / name).parent.mkdir(parents=True, exist_ok=True)
            (self.where / name).write_bytes(octets)
        for key in (self.where / "keys").iterdir():
            key.chmod(0o600)
        whole = self.relay.taken[:]
        self.relay.taken[dots:] = []
        load = Load(House(self.where, RecordingRelay(port=self.relay.port)), self.relay, faults=1)
        load.note(self.zygote.start(self.where))
        tally, breaches = load.judged("power cut", self.zygote)
        self.relay.taken[:] = whole
        return tally, breaches


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    kept, zygote = tmp_path_factory.mktemp("power"), Zygote.shared()
    house, before, after = (kept / name for name in ("house", "before", "after"))
    with TruthRelay() as relay:
        load = Load.build(house, relay)
        load.approve(MESSAGES, JANE)
        shutil.copytree(house, before)
        child = zygote.start(house, trace=kept / "trace")
        assert child.wait() == 0, child.said
        changes = parsed(kept / "trace")
        assert sum(change.op == "dot" for change in changes) == len(relay.taken) == MESSAGES
        yield Traced(before, relay, changes, zygote, after)


def nothing(_change: Change) -> None:
    """What was not synced is gone."""


def never() -> bool:
    return False


def by_chance(dice: random.Random) -> Keep:
    """Each unsynced write is there, gone, or torn at a sector."""

    def keep(change: Change) -> bytes | None:
        match dice.randrange(3):
            case 0:
                return change.octets
            case 1 if len(change.octets) > SECTOR:
                return change.octets[: SECTOR * dice.randrange(1, len(change.octets) // SECTOR + 1)]
            case 1 if change.op == "write":
                return change.octets[: dice.randrange(len(change.octets) + 1)] if "ledger" in change.name else None
            case _:
                return None

    return keep


def violations(traced: Traced, changes: list[Change], name: str, one_in: int = 1) -> list[str]:
    """What goes wrong after a power cut at any moment, everything unsynced being gone. Equal folders are tried once."""
    seen: set[tuple[object, ...]] = set()
    total, found = Tally(name), list[str]()
    for cut in range(len(changes) + 1):
        dots = sum(change.op == "dot" for change in changes[:cut])
        files = traced.files(nothing, never, changes, cut)
        key = (dots, *sorted(files.items()))
        if key in seen:
            continue
        seen.add(key)
        if len(seen) % one_in:
            continue
        tally, breaches = traced.drained(files, dots)
        total.add(tally)
        last = changes[cut - 1] if cut else None
        found += [f"cut after {last and (last.op, last.name)}: {breach}" for breach in breaches]
    write([total])
    return found


@pytest.mark.sqlite
@pytest.mark.parametrize("one_in", [3, pytest.param(1, marks=pytest.mark.torture)])
def test_a_power_cut_after_any_sync_or_dot_sends_nothing_twice_and_loses_nothing(traced: Traced, one_in: int) -> None:
    assert violations(traced, traced.changes, "power cut, synchronous=FULL", one_in) == []


@pytest.mark.sqlite
def test_with_synchronous_normal_the_same_power_cuts_are_found_out(traced: Traced) -> None:
    """It can fail: the ledger then knows of gaps that the database has forgotten, and the worker does not start."""
    assert violations(traced, as_normal(traced.changes), "power cut, synchronous=NORMAL", 2) != []


@pytest.mark.sqlite
def test_without_any_sync_the_same_power_cuts_send_second_copies(traced: Traced) -> None:
    """It can fail: with the ledger's syncs swallowed too there is nothing left that remembers."""
    unsynced = [change for change in as_normal(traced.changes) if change.op != "sync"]
    found = violations(traced, unsynced, "power cut, no sync at all")
    assert any(breach.endswith("2 times") for breach in found)


@pytest.mark.sqlite
@pytest.mark.torture
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_that_keeps_some_of_the_unsynced_sends_nothing_twice_and_loses_nothing(
    traced: Traced, seed: int
) -> None:
    dice, total, found = random.Random(seed), Tally("power cut, some unsynced writes kept or torn"), list[str]()
    for cut in range(len(traced.changes) + 1):
        dots = sum(change.op == "dot" for change in traced.changes[:cut])
        files = traced.files(by_chance(dice), lambda: dice.random() < 0.5, traced.changes, cut)
        tally, breaches = traced.drained(files, dots)
        total.add(tally)
        found += [f"cut after {cut}: {breach}" for breach in breaches]
    write([total])
    assert found == []


# The worker's host alone, where the database is on a server


@dataclass(slots=True)
class Host:
    """Where a worker runs, whose power fails again and again."""

    load: Load
    zygote: Zygote
    trace: Path
    syncs: bool = True  # whether its disk does what it is asked

    def cut(self, point: Point, *, after: bool) -> None:
        """One worker, till the power fails at a call; what was not synced is gone."""
        load, folder = self.load, self.load.house.folder
        if load.due() == 0:
            ACCEPTED.stock(load, 1)
        files = [file for file in folder.rglob("*") if file.is_file()]
        disk = Disk.of({str(file.relative_to(folder)): file.read_bytes() for file in files})
        self.trace.unlink(missing_ok=True)
        arm = point.armed(ACCEPTED, signal.SIGKILL, after=after)
        child = self.zygote.start(folder, arm=arm, trace=self.trace)
        if load.note(child, expected=(0, -signal.SIGKILL), where=f"the power fails at {point}") == 0:
            return
        load.faults += 1
        for change in parsed(self.trace):
            if self.syncs or change.op != "sync":
                disk.take(change)
        state = load.house.settings.state_dir
        shutil.rmtree(state)
        state.mkdir()
        for name, octets in disk.after_the_cut(nothing, never).items():
            if (folder / name).parent == state:
                (folder / name).write_bytes(octets)

    def cut_at(self, points: list[Point], *, before: bool) -> list[str]:
        """What goes wrong where the power fails at each of these points, as what is left is looked after."""
        for point in points:
            for after in (False, True) if before else (True,):
                self.cut(point, after=after)
        self.load.note(self.zygote.start(self.load.house.folder), where="the last worker")
        tally, breaches = self.load.judged("power cut of a worker's host", self.zygote)
        write([tally])
        return breaches if self.load.faults >= len(points) // 2 else [f"{self.load.faults} cuts"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with TruthRelay() as relay:
        yield Host(Load.build(tmp_path / "house", relay), Zygote.shared(), tmp_path / "trace")


def in_attempt(host: Host) -> list[Point]:
    """Where something becomes durable, or leaves, from the message on."""
    points = rehearsed(host.zygote, host.load, ACCEPTED)
    return [point for point in points if point.region in {"body", "dot"} and (point.is_seed or point.kind == "ledger")]


@pytest.mark.parametrize("_of_kind", ["postgresql"], indirect=True)
def test_a_host_whose_power_fails_while_the_server_stands_sends_nothing_twice_and_loses_nothing(host: Host) -> None:
    assert host.cut_at(in_attempt(host), before=False) == []


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("_of_kind", ["postgresql"], indirect=True)
def test_a_host_whose_power_fails_at_any_call_while_the_server_stands_sends_nothing_twice(host: Host) -> None:
    assert host.cut_at(rehearsed(host.zygote, host.load, ACCEPTED), before=True) == []


@pytest.mark.parametrize("_of_kind", ["postgresql"], indirect=True)
def test_without_any_sync_the_same_cuts_of_the_host_are_found_out(host: Host) -> None:
    """It can fail: the ledger then knows less than the server, and the worker does not start."""
    end = next(point for point in rehearsed(host.zygote, host.load, ACCEPTED) if point.region == "QUIT")
    host.syncs = False
    (found,) = host.cut_at([end], before=False)
    assert "is not in the ledger" in found
