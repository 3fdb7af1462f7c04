"""Who waits for somebody else's commit hears of it at once, and of nothing else."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox.store.changes import Changes
from outbox.store.inotify import FileWatch
from tests.store.stage import Stage

BOUND = 10.0  # seconds that anything here may take


@pytest.fixture
def changes(stage: Stage) -> Iterator[Changes]:
    opened = Changes(stage.database)
    yield opened
    opened.close()


def followed(changes: Changes) -> list[int]:
    """The descriptors that are to be watched now."""
    watched: list[int] = []
    changes.follow(watched.append, watched.remove)
    return watched


def is_told(watched: list[int], *, within: float) -> bool:
    return bool(select.select(watched, [], [], within)[0])


def test_an_approval_is_told_at_once(stage: Stage, changes: Changes) -> None:
    draft_id = stage.insert()
    watched = followed(changes)
    changes.came()
    stage.approve(draft_id)
    assert is_told(watched, within=BOUND)
    assert changes.came()


def test_where_nothing_was_written_nothing_is_told(stage: Stage, changes: Changes) -> None:
    stage.approved()
    watched = followed(changes)
    changes.came()
    stage.read(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM drafts").scalar_one())
    assert not is_told(watched, within=0)
    assert not changes.came()


def test_what_was_told_is_told_once(stage: Stage, changes: Changes) -> None:
    watched = followed(changes)
    stage.approved()
    assert is_told(watched, within=BOUND)
    assert changes.came()
    assert not changes.came()
    assert not is_told(watched, within=0)


def test_who_no_longer_follows_is_told_nothing(changes: Changes) -> None:
    watched = followed(changes)
    assert len(watched) == 1
    assert changes.are_told
    changes.unfollow()
    assert watched == []
    assert not changes.are_told


def test_what_is_closed_is_unwatched_first_and_asks_for_nothing(stage: Stage, changes: Changes) -> None:
    watched = followed(changes)
    changes.close()
    assert watched == []
    stage.approved()
    changes.came()  # it connects again, and is watched again
    assert len(watched) == 1
    assert changes.are_told


@pytest.mark.sqlite
def test_a_file_that_cannot_be_watched_is_asked_again_and_again(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        FileWatch(str(tmp_path / "missing"))


@pytest.mark.sqlite
def test_what_was_written_and_is_no_commit_yet_is_looked_at_again_soon_and_ever_more_seldom(
    stage: Stage, changes: Changes
) -> None:
    """The file system tells of what is written; that it is a commit by now, nobody does."""
    watched = followed(changes)
    changes.came()
    assert changes.pause == 1.0
    with stage.house.connection() as other:
        other.execute("PRAGMA cache_size = 1")
        other.execute("BEGIN IMMEDIATE")
        for number in range(200):  # more than the cache holds, so that pages are written before they are committed
            other.execute(
                "INSERT INTO journal VALUES ('x:1', ?, 1, 'note', NULL, NULL, ?, 'k', zeroblob(32))",
                (number, "x" * 900),
            )
        assert is_told(watched, within=BOUND)
        assert not changes.came()
        pauses = [changes.pause]
        for _ in range(11):
            assert not changes.came()
            pauses.append(changes.pause)
        assert pauses[:4] == [0.001, 0.002, 0.004, 0.008]
        assert pauses[-1] == 1.0
        other.execute("COMMIT")
    assert changes.came()
    assert changes.pause == 0.001  # what was written may be of a commit that is not there to be seen yet
