"""Seal the journal: where every chain stands goes into a file beside the database, and into the operators' mail.

The line is on the disk before the journal speaks of it: a seal that the journal knows and the file lacks was taken out.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from outbox.clock import Clock, new_id, wall
from outbox.config import Settings
from outbox.core.errors import Code, Unavailable, VerificationFailed
from outbox.core.lifecycle import Room
from outbox.core.message import Attachment
from outbox.core.notice import NOTICE_TTL, Notice, sign_notice
from outbox.core.seal import FIRST, Seal, SignedSeal, parse_seal, sign_seal, verify_seal
from outbox.core.signing import KeyRing
from outbox.operator.journal import seals_file
from outbox.operator.rings import held_rings
from outbox.store.chains import heads_after, rows_until
from outbox.store.engine import Database, connect
from outbox.store.events import settled_place
from outbox.store.identity import identity_of
from outbox.store.journal import Chain
from outbox.store.notices import insert_system
from outbox.store.revision import refuse_other_revision
from outbox.store.writer import Transaction, Writer

LARGEST_MAILED = 1024 * 1024  # octets; a longer seal is named in the mail by its digest alone
_TEXT = """\
Seal {number} of the journal: {rows} rows, of which {chains} chains grew since the seal before.
Digest {digest}

Keep this mail where the outbox's machine cannot reach it. With the attached file,

    outbox journal verify --seal FILE

finds what was changed, taken out or cut off in the journal up to this seal, also where the file of seals on that
machine was changed along with it.
"""
_TOO_LONG = "\nThe seal itself is too long for a mail; compare the digest with `outbox journal verify`.\n"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A seal that was made, where it was written, and whom it is mailed to."""

    signed: SignedSeal
    file: Path
    mailed: tuple[str, ...]


def seal_journal(settings: Settings, *, file: Path | None = None, whole: bool = False, clock: Clock = wall) -> Sealed:
    """Seal what the journal holds now; the head of every chain where `whole`, else of those that grew since.

    Needs the grant key. Raises ConfigError, Unavailable where file or database cannot be written, VerificationFailed
    where the last line of the file is no seal of ours.
    """
    ring, sender, operators = settings.grant_ring(), settings.notice_sender, settings.operators
    place = seals_file(settings, file)
    database = connect(settings.database_place, Room.OPERATOR)
    try:
        refuse_other_revision(database)
        with _appending(place) as descriptor:
            before = _last(place, held_rings(settings).grant or ring)
            signed = _seal(database, ring, before, whole=whole, now=clock())
            _append(descriptor, signed.line() + b"\n")
            _sync_folder(place.parent)
        now = clock()
        notices = [_notice(signed, sender, operator, now) for operator in operators]
        mails = [sign_notice(ring, notice, Room.OPERATOR, new_id(now), now) for notice in notices]

        def store(tx: Transaction) -> None:
            tx.journal("seal", now=now, detail={"seal": signed.seal.number, "digest": signed.digest.hex()})
            for mail in mails:
                insert_system(tx, mail, now=now)

        writer = Writer(database, Chain(Room.OPERATOR, new_id(now), ring))
        try:
            writer.run(store)
        finally:
            writer.close()
    finally:
        database.close()
    return Sealed(signed, place, operators)


def _seal(database: Database, ring: KeyRing, before: SignedSeal | None, *, whole: bool, now: int) -> SignedSeal:
    place = settled_place(database)
    with database.reading() as connection:
        identity = identity_of(connection).id
        if before is not None and before.seal.database != identity:
            words = "the last seal in the file is of another database; move that file away"
            raise VerificationFailed(Code.JOURNAL_BROKEN, words)
        # A journal that was cut, or restored from a backup, has rows below that place that no seal has.
        grew = before is not None and rows_until(connection, before.seal.place) == before.seal.rows
        since = before.seal.place if before is not None and grew and not whole else 0
        seal = Seal(
            number=before.seal.number + 1 if before is not None else 1,
            at=now,
            database=identity,
            rows=rows_until(connection, place),
            place=place,
            previous=before.digest if before is not None else FIRST,
            heads=heads_after(connection, since),
        )
    return sign_seal(ring, seal)


@contextmanager
def _appending(file: Path) -> Iterator[int]:
    """A descriptor that appends, held against another who seals. Raises Unavailable where that cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(file, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        os.close(descriptor)


def _unwritable(file: Path, error: OSError) -> Unavailable:
    return Unavailable(Code.FILE_UNREADABLE, f"{file} cannot be written: {error.strerror}; nothing was sealed")


def _last(file: Path, ring: KeyRing) -> SignedSeal | None:
    """The newest seal in the file. What a power cut left of a line is cut off: nobody was told of that seal."""
    octets = file.read_bytes()
    whole = octets[: octets.rfind(b"\n") + 1]
    if whole != octets:
        os.truncate(file, len(whole))
    if not whole:
        return None
    signed = parse_seal(whole.splitlines()[-1])
    if not verify_seal(ring, signed):
        words = f"the last seal in {file} was not made with a grant key of ours; `outbox journal verify` looks at it"
        raise VerificationFailed(Code.JOURNAL_BROKEN, words)
    return signed


def _append(descriptor: int, line: bytes) -> None:
    written = 0
    while written < len(line):
        written += os.write(descriptor, line[written:])
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Have the file's name on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _notice(signed: SignedSeal, sender: str, operator: str, now: int) -> Notice:
    seal, line = signed.seal, signed.line() + b"\n"
    text = _TEXT.format(number=seal.number, rows=seal.rows, chains=len(seal.heads), digest=signed.digest.hex())
    is_long = len(line) > LARGEST_MAILED
    return Notice(
        sender=sender,
        recipient=operator,
        subject=f"[outbox] seal {seal.number} of the journal",
        text=text + _TOO_LONG if is_long else text,
        expires_at=now + NOTICE_TTL,
        attachments=() if is_long else (Attachment(f"seal-{seal.number}.json", "application/json", line),),
    )
