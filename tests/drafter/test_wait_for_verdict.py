"""`outbox.verdict(draft_id, timeout)`: an agent waits for what the approver says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import outbox
from outbox import operator
from outbox.core.errors import Code, DraftUnknown
from outbox.core.lifecycle import State
from outbox.store.views import DraftView
from tests.house import FOUNDER, House

PATIENCE = 60.0  # seconds; nothing here takes as long


def verdict(house: House, draft_id: str, timeout: float = PATIENCE) -> DraftView:
    return outbox.verdict(draft_id, timeout, config_file=house.folder / "outbox.toml")


def reject(house: House, draft_id: str) -> None:
    with operator.open(house.settings, clock=house.clock) as desk:
        desk.reject(draft_id, reason="too dear", named=None)


def test_a_rejection_comes_with_its_reason(house: House) -> None:
    draft = house.draft()
    reject(house, draft.id)
    found = verdict(house, draft.id)
    assert (found.id, found.state) == (draft.id, State.REJECTED)
    assert found.rejection is not None
    assert (found.rejection.approver, found.rejection.reason) == (FOUNDER, "too dear")


@pytest.mark.parametrize("state", [State.APPROVED, State.CANCELLED])
def test_whatever_is_not_pending_any_more_is_told_at_once(house: House, state: State) -> None:
    draft = house.draft()
    if state is State.APPROVED:
        house.approve(draft.id)
    else:
        house.cancel(draft.id)
    assert verdict(house, draft.id).state is state


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_what_nobody_answered_in_time_is_told_as_pending(house: House, timeout: float) -> None:
    assert verdict(house, house.draft().id, timeout).state is State.PENDING


def test_who_waits_is_told_as_soon_as_somebody_answers(house: House) -> None:
    draft = house.draft()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(verdict, house, draft.id, timeout=3600.0)
        reject(house, draft.id)
        assert waiting.result(PATIENCE).state is State.REJECTED


def test_waiting_needs_the_database_alone_and_writes_nothing(house: House) -> None:
    draft = house.draft()
    for file in (house.folder / "keys").iterdir():
        file.unlink()
    (house.folder / "outbox.toml").write_text(f'[database]\nurl = "{house.url or "sqlite:///outbox.db"}"\n')
    before = house.rows("SELECT * FROM journal")
    assert verdict(house, draft.id, 0).state is State.PENDING
    assert house.rows("SELECT * FROM journal") == before


def test_a_draft_that_is_not_there_is_said_at_once(house: House) -> None:
    with pytest.raises(DraftUnknown, match="there is no draft nobody"):
        verdict(house, "nobody")


def test_a_database_of_another_revision_is_refused(house: House) -> None:
    draft = house.draft()
    with house.connection() as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(outbox.ConfigError) as refused:
        verdict(house, draft.id)
    assert refused.value.code is Code.DATABASE_REVISION
