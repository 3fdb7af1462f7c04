"""One plot for each benchmark, as SVG, from the kept results alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from benchmarks.results import Result, Row

mpl.use("svg")
mpl.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "outbox",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
from matplotlib import pyplot as plt  # noqa: E402  after the backend is chosen
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: E402  the same

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _THEIRS, _LIMIT = "#1f6f54", "#9aa5a0", "#d9c27a"
_WIDTH = 7.2  # inches


def _bars(result: Result, figure: str, words: str, rows: Sequence[Row] | None = None) -> None:
    """One bar for each contestant; where there are several cases, a group for each."""
    shown = [row for row in (result.rows if rows is None else rows) if row.figure(figure) is not None]
    several = len({row.case for row in shown}) > 1
    figure_, axes = plt.subplots(figsize=(_WIDTH, 0.6 + 0.28 * max(1, len(shown))))
    for place, row in enumerate(reversed(shown)):
        value = row.figure(figure) or 0.0
        axes.barh(place, value, color=_colour(row), height=0.7)
        axes.text(value, place, f" {value:,.0f}" if value >= 10 else f" {value:.2f}", va="center", fontsize=8)
    names = [f"{row.contestant} ({row.case})" if several else row.contestant for row in reversed(shown)]
    axes.set_yticks(range(len(shown)), names)
    axes.set_xlabel(words)
    axes.margins(x=0.12)
    figure_.tight_layout()


def _colour(row: Row) -> str:
    """Ours, theirs, or what is no contestant but a limit: it keeps no queue."""
    if row.is_limit or row.contestant.startswith(("aiosmtplib", "smtp-source")):
        return _LIMIT
    return _OURS if row.contestant.startswith("outbox") else _THEIRS


def _lines(result: Result, figure: str, across: str, words: str) -> None:
    """One line for each contestant, over the cases, which are numbers."""
    drawn, axes = plt.subplots(figsize=(_WIDTH, 3.2))
    for name in dict.fromkeys(row.contestant for row in result.rows):
        points = [
            (float(row.case.removesuffix("/s")), value)
            for row in result.rows
            if row.contestant == name and (value := row.figure(figure)) is not None
        ]
        if points:
            _line(axes, name, points)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain(axes, sorted({float(row.case.removesuffix("/s")) for row in result.rows}))
    axes.set_xlabel(across)
    axes.set_ylabel(words)
    axes.legend(frameon=False, fontsize=8)
    drawn.tight_layout()


def _plain(axes: Axes, cases: Sequence[float]) -> None:
    """Numbers as people write them, and a tick for each case alone."""
    axes.set_xticks(cases, [f"{case:,.0f}" for case in cases])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))


def _line(axes: Axes, name: str, points: Sequence[tuple[float, float]]) -> None:
    ours = name.startswith("outbox on") or name in {"outbox", "claim", "approval to acceptance"}
    style: dict[str, Any] = {"color": _OURS, "linewidth": 2.4} if ours else {"linewidth": 1.4}
    axes.plot(*zip(*points, strict=True), marker="o", label=name, **style)


def _scale(result: Result) -> None:
    """One line over the number of workers, beside the straight one."""
    points = [(float(row.case), value) for row in result.rows if (value := row.figure("steady_per_second")) is not None]
    drawn, axes = plt.subplots(figsize=(_WIDTH, 3.2))
    if points:
        _line(axes, "outbox on PostgreSQL", points)
        first = points[0][1] / points[0][0]
        axes.plot([x for x, _ in points], [x * first for x, _ in points], color=_LIMIT, label="as many times one")
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("workers")
    axes.set_ylabel("messages/s")
    drawn.tight_layout()


PLOTS: dict[str, Callable[[Result], None]] = {
    "drain": lambda found: _bars(found, "per_second", "messages/s, whole command", _without_disk(found)),
    "backlog": lambda found: _bars(found, "per_second", "messages/s, whole command"),
    "slow": lambda found: _bars(found, "per_second", "per second, fsync 2 ms slower"),
    "far": lambda found: _lines(found, "steady_per_second", "connections", "messages/s, relay 50 ms away"),
    "dot": lambda found: _lines(found, "steady_per_second", "connections", "messages/s, 20 ms to the dot"),
    "kills": lambda found: _bars(found, "duplicates", "duplicates after the kills"),
    "latency": lambda found: _lines(found, "p99_ms", "approvals a second", "p99 in ms"),
    "interrupt": lambda found: _bars(found, "p99_ms", "p99 in ms under full drain"),
    "drafting": lambda found: _bars(found, "per_second", "drafts/s"),
    "growth": lambda found: _lines(found, "p99_ms", "drafts", "p99 in ms"),
    "scale": _scale,
    "idle": lambda found: _bars(found, "ms", "ms, whole process"),
    "profile": lambda found: _bars(found, "percent", "% of the time", _of_case(found, "itself")),
}


def _without_disk(result: Result) -> list[Row]:
    return [row for row in result.rows if row.case != "disk" and row.contestant != "smtp-source"]


def _of_case(result: Result, case: str) -> list[Row]:
    return [row for row in result.rows if row.case == case]


def draw(results: dict[str, Result], folder: Path) -> list[str]:
    """Draw every result that there is; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        PLOTS[name](result)
        plt.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close()
    return list(results)
