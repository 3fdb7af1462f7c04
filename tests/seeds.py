"""A seed of a long list for `make test`; the whole of it is for `make torture` and `make exhaust`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def seeds(values: Iterable[str], one_in: int) -> list[object]:
    """Each value as a parameter of its own; all but one in so many are marked as torture."""
    return [
        value if number % one_in == 0 else pytest.param(value, marks=pytest.mark.torture)
        for number, value in enumerate(values)
    ]
