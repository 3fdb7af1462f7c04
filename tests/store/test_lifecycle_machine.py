"""Random interleavings of the rooms' verbs on one file never leave EDGES and never make two transmissions."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.store.machine import Lifecycle


@pytest.mark.parametrize("examples", [12, pytest.param(40, marks=pytest.mark.torture)])
def test_random_interleavings_stay_within_the_model(examples: int) -> None:
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=examples,
            phases=[Phase.generate],  # shrinking 40 steps takes longer than a test may
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
