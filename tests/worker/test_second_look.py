"""What a hostile reader found in the worker: a relay's words, and what is beside the worker."""

from __future__ import annotations

import pytest

from outbox.lock import WorkerLock, is_alive
from tests.house import House


@pytest.mark.parametrize("broken_at", [0, 20], ids=["whole", "over two lines"])
def test_a_relay_that_repeats_the_token_does_not_bring_it_into_the_database(house: House, broken_at: int) -> None:
    """Exchange repeats the Message-ID in its reply to the dot."""

    def repeat(octets: bytes) -> str:
        token = octets.split(b"Message-ID: <")[1].split(b".")[0].decode()
        whole = f"250-2.6.0 <{token[:broken_at]}\r\n250 2.6.0 {token[broken_at:]}@acme.example> Queued"
        return whole if broken_at else f"250 2.6.0 <{token}.x@acme.example> [InternalId=1] Queued mail for delivery"

    house.relay.says = repeat
    draft = house.draft()
    token = str(house.ask(draft.id)["Reply-To"]).partition("+")[2].partition("@")[0]
    assert len(token) == 39
    (request,) = house.story(draft.id).requests
    text = str(house.story(request.draft_id).attempts[0].text)
    assert "token" in text
    assert token not in "".join(text.split())
    for file in house.folder.glob("outbox.db*"):
        assert token.encode() not in file.read_bytes()


def test_a_worker_whose_lock_file_was_taken_away_knows_it(house: House) -> None:
    lock = WorkerLock(house.settings.state_dir, "one")
    assert lock.is_held
    assert is_alive(house.settings.state_dir, "one")
    (house.settings.state_dir / "worker-one.lock").unlink()
    assert not lock.is_held
    lock.release()
