"""Worker processes that drain one database at once: each draft is claimed by one, and the thermal limit is shared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.crash.faults_table import write
from tests.crash.shimmed import Zygote
from tests.crash.torture import Load, TruthRelay
from tests.house import JANE

LIMIT = 7  # of each worker's share; the limit of all is so many times their number, and one


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [2, *(pytest.param(number, marks=pytest.mark.torture) for number in (4, 8))])
def test_workers_beside_each_other_claim_each_draft_once_and_keep_the_limit_to_the_one(
    tmp_path: Path, workers: int
) -> None:
    limit = LIMIT * workers + 1
    zygote = Zygote.shared()
    with TruthRelay() as relay:
        load = Load.build(tmp_path / "house", relay, lanes=3)
        load.house.set("relay", timeout="30", final_timeout="30")  # eight on two cores are slow
        load.house.set("thermal", count=str(limit))
        load.approve(limit + 5, JANE)
        for _ in range(2):  # the second time over there is no place left
            for worker in [zygote.start(load.house.folder) for _ in range(workers)]:
                load.note(worker, expected=(75,))
            load.faults += workers
        mail = {str(key) for (key,) in load.house.rows("SELECT id FROM drafts WHERE kind <> 'system'")}
        sent = Counter(taken.draft_id for taken in relay.taken if taken.draft_id in mail)
        tally, breaches = load.judged(f"{workers} workers at once", zygote, waiting=5)
        tried_twice = load.house.rows("SELECT draft_id FROM attempts GROUP BY draft_id HAVING count(*) > 1")
        write([tally])
    assert breaches == []
    assert tried_twice == []
    assert len(sent) == sent.total() == limit
