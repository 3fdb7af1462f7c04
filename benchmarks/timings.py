"""Percentiles of a list of seconds."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(seconds: Sequence[float], part: float) -> float:
    """The smallest value that `part` (0 to 1) of them do not exceed."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and worst, in milliseconds."""
    return {
        "p50_ms": percentile(seconds, 0.5) * 1000,
        "p99_ms": percentile(seconds, 0.99) * 1000,
        "worst_ms": max(seconds) * 1000,
    }
