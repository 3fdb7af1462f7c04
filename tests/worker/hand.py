"""What a test does beside the doors: rows made with the house's real keys, workers as threads and as processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from outbox.agreement import open_ledger
from outbox.clock import new_id, wall
from outbox.core.address import Mailbox
from outbox.core.canonical import sha256
from outbox.core.draft import Draft, Envelope
from outbox.core.grant import Channel, Grant, sign_grant
from outbox.core.lifecycle import Room
from outbox.core.message import Content, compose
from outbox.core.signed import SignedDraft, sign_draft
from outbox.core.signing import KeyRing
from outbox.ledger import Entered, Heard, Ledger
from outbox.store.claims import Claim, claim_if_cool, enter_gaps_if_held, insert_worker
from outbox.store.drafts import insert_pending
from outbox.store.engine import connect
from outbox.store.heat import Heat
from outbox.store.journal import Chain
from outbox.store.notices import insert_system
from outbox.store.verdicts import approve_if_pending
from outbox.store.writer import Writer
from tests.house import FOUNDER, HOUR, JANE, SALES, House
from tests.relay.scripted import ScriptedRelay

PATIENCE = 30  # seconds that a test waits for a worker before it gives up
HEATS = {"mail": Heat("mail", 10, 900, 300), "system": Heat("system", 60, 900, 300)}
WIRE = bytes(32)


@contextmanager
def writing(house: House, room: Room) -> Iterator[Writer]:
    """A writer of one room, with the house's grant key for the journal."""
    database = connect(house.place)
    writer = Writer(database, Chain(room, new_id(house.clock()), house.settings.grant_ring()))
    try:
        yield writer
    finally:
        writer.close()
        database.close()


def signed_with(ring: KeyRing, house: House, *, kind: str = "email", recipient: str = JANE) -> SignedDraft:
    """A draft as its room would compose it, signed with any key."""
    now = house.clock()
    draft_id = new_id(now)
    content = Content(Mailbox("", SALES), (Mailbox("", recipient),), (), "Offer", "Dear Jane,\n\nhere it is.\n")
    message = compose(content, draft_id, f"<{draft_id}@acme.example>")
    draft = Draft(draft_id, kind, "python", Envelope(SALES, (recipient,)), message, now, now + HOUR)
    return sign_draft(ring, draft, sha256(message))


def insert(house: House, signed: SignedDraft) -> str:
    """Insert a draft as a drafter would, or a system draft as the inbox would."""
    with writing(house, Room.INBOX if signed.draft.kind == "system" else Room.DRAFTER) as writer:
        if signed.draft.kind == "system":
            writer.run(lambda tx: insert_system(tx, signed, now=house.clock()))
        else:
            writer.run(lambda tx: insert_pending(tx, signed, now=house.clock(), idempotency_key=None))
    return signed.draft.id


def grant(house: House, draft_id: str) -> None:
    """Approve as the operator's desk stores it, without the desk's own look at the draft."""
    now = house.clock()
    with writing(house, Room.OPERATOR) as writer:
        digest = house.story(draft_id).draft.digest
        given = Grant(new_id(now), draft_id, digest, FOUNDER, Channel.TERMINAL, now, now + 24 * HOUR)
        made = sign_grant(house.settings.grant_ring(), given)
        writer.run(lambda tx: approve_if_pending(tx, given, made, now=now))


@contextmanager
def ledger_of(house: House) -> Iterator[Ledger]:
    """The house's ledger as a worker has it, begun where there is none."""
    state_dir, ring = house.settings.state_dir, house.settings.grant_ring()
    with closing(connect(house.place)) as database, closing(open_ledger(state_dir, ring, database)) as ledger:
        yield ledger


@dataclass(frozen=True)
class Dead:
    """A worker that is no more, and what it had claimed."""

    worker_id: str
    claimed: Claim | None

    @property
    def claim(self) -> Claim:
        assert self.claimed is not None
        return self.claimed


def dead_worker(
    house: House,
    *,
    holding: bool = True,
    in_gap: bool = False,
    heard: Heard | None = None,
    host: str | None = None,
    gate: str = "mail",
    worker_id: str | None = None,
) -> Dead:
    """Claim as a worker does and be gone; `in_gap`, after the ledger's line; `heard` fits whatever its attempt is.

    With `worker_id` it is a claim in the name of that worker, which is known already.
    """
    name, now = worker_id or new_id(house.clock()), house.clock()
    with ledger_of(house) as ledger, writing(house, Room.WORKER) as writer:
        if worker_id is None:
            here = host or socket.gethostname()
            writer.run(lambda tx: insert_worker(tx, name, host=here, pid=1, now=now))
        if not holding:
            return Dead(name, None)
        (claim,), _ = writer.run(
            lambda tx: claim_if_cool(tx, HEATS[gate], worker_id=name, attempt_ids=[new_id(now)], now=now)
        )
        if in_gap:
            writer.run(lambda tx: enter_gaps_if_held(tx, [(claim, WIRE)], now=now))
            ledger.append([Entered(claim.draft_id, claim.attempt_id, "", (), WIRE.hex(), now)])
        if heard is not None:
            ledger.append([replace(heard, attempt=claim.attempt_id)])
    return Dead(name, claim)


@contextmanager
def draining(house: House) -> Iterator[Future[None]]:
    """A drain under way; it has ended when the block has."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(house.drain)
        try:
            yield future
        finally:
            if isinstance(house.relay, ScriptedRelay):
                house.relay.release()
        future.result(PATIENCE)


def start_worker(house: House, *flags: str) -> subprocess.Popen[str]:
    """`python -m outbox worker` as a supervisor would start it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    return subprocess.Popen(
        [sys.executable, "-m", "outbox", "--config", str(house.folder / "outbox.toml"), "worker", *flags],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[str], patience: float = PATIENCE) -> tuple[int, str]:
    """Exit code and stderr of a worker; one that does not end is killed."""
    try:
        _, said = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
        raise AssertionError(f"the worker did not end:\n{said}") from None
    return process.returncode, said


def still_runs(process: subprocess.Popen[str], seconds: float) -> bool:
    """Whether a worker has not ended after so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def on_wall_clock(house: House) -> House:
    """For workers that are processes: they read the real clock."""
    house.clock.now = wall()
    return house


def alerts(house: House) -> list[dict[str, object]]:
    """The alerts in the worker's state file."""
    file = Path(house.folder / "state" / "worker.json")
    return json.loads(file.read_text())["alerts"] if file.exists() else []


def codes(house: House) -> list[object]:
    """The codes of the alerts in the worker's state file."""
    return [alert["code"] for alert in alerts(house)]


def system_drafts(house: House) -> list[str]:
    """Ids of the outbox's own mail."""
    return [draft.id for draft in house.drafts(system=True) if draft.kind == "system"]


def actions(house: House, draft_id: str) -> list[object]:
    """The journal's words about one draft, in the order they were written."""
    return [row[0] for row in house.rows("SELECT action FROM journal WHERE draft_id = ? ORDER BY rowid", draft_id)]
