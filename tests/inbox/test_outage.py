"""A mailbox that stays away for five minutes is told to the operator once, and once more the next time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox.alerts import COOLDOWN, Alerts
from outbox.clock import new_id
from outbox.core.errors import Code, Unavailable
from outbox.core.lifecycle import Room
from outbox.outage import PATIENCE, Outage
from outbox.store.engine import connect
from outbox.store.journal import Chain
from outbox.store.writer import Writer
from tests.house import SECOND, House
from tests.relay.recording import RecordingRelay

AWAY = Unavailable(Code.MAILBOX_UNREACHABLE, "mailbox.url: mail.example:993 cannot be reached")
REFUSED = Unavailable(Code.MAILBOX_REFUSED, "mailbox.password_file: mail.example:993 refuses the login")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House.build(tmp_path, RecordingRelay(port=1))


@pytest.fixture
def outage(house: House) -> Iterator[Outage]:
    settings, ring = house.settings, house.settings.grant_ring()
    database = connect(house.place)
    writer = Writer(database, Chain(Room.INBOX, new_id(house.clock()), ring))
    yield Outage(Alerts(settings, Room.INBOX, ring, writer, house.clock), house.clock)
    writer.close()
    database.close()


def told(house: House) -> list[str]:
    """The codes that the operator was told."""
    file = house.folder / "state" / "inbox.json"
    return [alert["code"] for alert in json.loads(file.read_text())["alerts"]] if file.exists() else []


def fails_for(house: House, outage: Outage, duration: int, error: Unavailable = AWAY) -> None:
    """It fails every two seconds from now on, for so long."""
    for _ in range(0, duration, 2 * SECOND):
        outage.failed(error)
        house.clock.advance(2 * SECOND)


def test_it_is_told_once_when_it_has_lasted_for_five_minutes(house: House, outage: Outage) -> None:
    assert PATIENCE == 300 * SECOND
    fails_for(house, outage, PATIENCE)
    assert told(house) == []
    fails_for(house, outage, 3 * PATIENCE)
    assert told(house) == [AWAY.code]
    (mailed,) = house.drafts(system=True)
    assert AWAY.message in mailed.subject


def test_what_works_again_in_between_is_told_to_nobody(house: House, outage: Outage) -> None:
    for _ in range(5):
        fails_for(house, outage, PATIENCE)
        outage.worked()
    assert told(house) == []


def test_an_outage_is_told_and_that_it_is_over_and_so_is_the_next(
    house: House, outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        fails_for(house, outage, 2 * PATIENCE)
        outage.worked()
        outage.worked()
        house.clock.advance(COOLDOWN)
    assert told(house) == [AWAY.code] * 4
    logged = [record for record in caplog.records if record.name == "outbox.inbox"]
    again = [record.levelno for record in logged if record.message.startswith("it works again")]
    assert again == [logging.WARNING] * 2


def test_a_loop_waits_ever_longer_while_it_fails_and_not_at_all_when_it_works(house: House, outage: Outage) -> None:
    pauses = []
    for _ in range(9):
        pauses.append(outage.pause)
        outage.failed(AWAY)
        house.clock.advance(SECOND)
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    outage.worked()
    assert outage.pause == 0


def test_an_outage_that_changes_its_face_is_one(house: House, outage: Outage) -> None:
    fails_for(house, outage, PATIENCE - 2 * SECOND)
    fails_for(house, outage, 2 * PATIENCE, REFUSED)
    assert told(house) == [REFUSED.code]


def test_each_face_of_it_is_logged_once_and_not_every_two_seconds(
    house: House, outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    fails_for(house, outage, PATIENCE // 2)
    fails_for(house, outage, PATIENCE // 3, REFUSED)
    logged = [record.message for record in caplog.records if record.name == "outbox.inbox"]
    assert logged == [AWAY.message, REFUSED.message]
