"""The demonstration runs as a newcomer runs it, and fails when a claim does not hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from outbox.core.errors import Code, OutboxError
from outbox.demo.stage import Stage


def test_every_claim_of_the_demonstration_holds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "outbox", "demo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "claims held" in done.stdout.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_does_not_hold_fails_the_demonstration() -> None:
    with pytest.raises(OutboxError) as failed:
        Stage().claim("two and two is five", 2 + 2 == 5)
    assert (failed.value.code, failed.value.exit_code) == (Code.DEMO_FAILED, 1)
