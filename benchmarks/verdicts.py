"""The lines of "done when": what each asks for, what was measured, and whether it is met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.contestants import LANES
from benchmarks.drain import DOT_LANES, FAR_LANES, SLOW_DOT
from benchmarks.results import Result

_OURS = "outbox"
_TUNED = "django-post-office, tuned"
_COMMITS = "one-row commits of SQLite"
_DISTANT = SLOW_DOT + 0.002  # seconds in which a lane sends one message, at best


@dataclass(frozen=True, slots=True)
class Line:
    """One of them. `found` is None where it was not measured; `limit` is a least or a most."""

    words: str
    found: float | None
    limit: float
    least: bool
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """None where nothing was measured."""
        if self.found is None:
            return None
        return self.found >= self.limit if self.least else self.found <= self.limit


Results = Mapping[str, Result]


def lines(results: Results) -> list[Line]:
    """Every line, in the order of the issue."""
    return [
        line for part in (_drain, _slow, _far, _kills, _latency, _drafting, _growth, _rest) for line in part(results)
    ]


def _find(results: Results, benchmark: str, contestant: str, case: str | None, name: str) -> float | None:
    if benchmark not in results:
        return None
    result = results[benchmark]
    cases = [row.case for row in result.rows if row.contestant == contestant] if case is None else [case]
    found = [value for each in cases if (value := result.find(contestant, each, name)) is not None]
    return found[-1] if found else None  # of several cases the largest: they come in order


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _drain(results: Results) -> Iterator[Line]:
    def rate(name: str) -> float | None:
        return _find(results, "drain", name, None, "per_second")

    ours = rate(_OURS)
    yield Line("drain: x django-post-office at its best, one process", _ratio(ours, rate(_TUNED)), 3, least=True)
    yield Line("drain: x aiosmtplib on as many connections", _ratio(ours, rate("aiosmtplib")), 0.75, least=True)
    cpu = _find(results, "drain", _OURS, None, "cpu_per_1000")
    yield Line("drain: CPU seconds per 1,000", cpu, 0.25, least=False, unit="s")
    cases = [row.case for row in results["backlog"].rows if row.contestant == _OURS] if "backlog" in results else []
    rates = [_find(results, "backlog", _OURS, case, "per_second") for case in cases]
    ratio = _ratio(rates[-1], rates[0]) if len(rates) > 1 else None
    yield Line(f"backlog of {cases[-1] if cases else 100000}: x the rate of a short one", ratio, 0.95, least=True)
    yield Line("drain: peak RSS", _find(results, "backlog", _OURS, None, "peak_mb"), 80, least=False, unit="MB")
    late, early = (_find(results, "backlog", _OURS, None, name) for name in ("late_mb", "early_mb"))
    yield Line("backlog: RSS at the end x after a quarter (flat)", _ratio(late, early), 1.05, least=False)


def _slow(results: Results) -> Iterator[Line]:
    ours, single = (_find(results, "slow", name, "2 ms", "per_second") for name in (_OURS, _COMMITS))
    yield Line("fsync of 2 ms: x one commit for each message", _ratio(ours, single), 4, least=True)


def _far(results: Results) -> Iterator[Line]:
    for lanes in DOT_LANES:
        steady = _find(results, "dot", _OURS, str(lanes), "steady_per_second")
        words = f"20 ms to the dot, {lanes} lanes: x lanes / 22 ms"
        yield Line(words, _ratio(steady, lanes / _DISTANT), 0.9, least=True)
    for lanes in FAR_LANES:
        ours, theirs = (_find(results, "far", name, str(lanes), "steady_per_second") for name in (_OURS, "aiosmtplib"))
        yield Line(f"50 ms away, {lanes} lanes: x aiosmtplib", _ratio(ours, theirs), 1.5, least=True)


def _kills(results: Results) -> Iterator[Line]:
    killed = _find(results, "kills", _OURS, None, "kills")
    for name, words, limit in (
        ("duplicates", "duplicates", 0),
        ("silent_losses", "silent losses", 0),
        ("in_doubt_of_one", "in doubt after one of them (at most the lanes)", LANES),
        ("manual_steps", "manual steps", 0),
    ):
        yield Line(
            f"kill -9 x {20 if killed is None else killed:.0f}: {words}",
            _find(results, "kills", _OURS, None, name),
            limit,
            least=False,
        )


def _latency(results: Results) -> Iterator[Line]:
    for name, limit in (("p50_ms", 15), ("p99_ms", 60)):
        words = f"approval to acceptance, 1/s: {name.removesuffix('_ms')}"
        yield Line(words, _find(results, "latency", "approval to acceptance", "1/s", name), limit, False, "ms")
    for verb in ("pause", "cancel", "draft"):
        found = _find(results, "interrupt", verb, "full drain", "p99_ms")
        yield Line(f"{verb} under full drain: p99", found, 100, least=False, unit="ms")


def _drafting(results: Results) -> Iterator[Line]:
    one = _find(results, "drafting", "one at a time, of parts", "2 KB", "per_second")
    yield Line("drafting: one commit each", one, 1000, least=True, unit="/s")
    bulk = _find(results, "drafting", "in bulk, ready octets", "2 KB", "per_second")
    yield Line("drafting: in bulk from ready octets", bulk, 5000, least=True, unit="/s")


def _growth(results: Results) -> Iterator[Line]:
    small = _find(results, "growth", "claim", "1000", "p99_ms")
    large = _find(results, "growth", "claim", "1000000", "p99_ms")
    yield Line("claim p99 at 1e6: x that at 1e3", _ratio(large, small), 2, least=False)
    status = _find(results, "growth", "outbox status", "1000000", "p50_ms")
    yield Line("outbox status at 1e6: whole process", status, 300, least=False, unit="ms")
    waits = _find(results, "growth", "outbox prune", "1000000", "worst_ms")
    yield Line("outbox prune at 1e6: longest wait of a writer", waits, 50, least=False, unit="ms")


def _rest(results: Results) -> Iterator[Line]:
    one, eight = (_find(results, "scale", f"outbox on PostgreSQL{n}", c, "steady_per_second") for n, c in _WORKERS)
    yield Line("8 workers on PostgreSQL: x one", _ratio(eight, one), 7, least=True)
    idle = _find(results, "idle", "idle worker", None, "cpu_percent")
    yield Line("idle worker: of a core", idle, 0.5, least=False, unit="%")
    started = _find(results, "idle", "outbox --version", "whole process", "ms")
    yield Line("outbox --version", started, 150, least=False, unit="ms")


_WORKERS = (("", "1"), (", 8 workers", "8"))
_MARKS = {True: "met", False: "NOT met", None: "not measured"}


def table(found: list[Line]) -> str:
    """As text, one line each."""
    width = max(len(line.words) for line in found)
    return "\n".join(
        f"{line.words.ljust(width)}  {measured(line):>12}  {asked(line):>12}  {mark(line)}" for line in found
    )


def measured(line: Line) -> str:
    """The figure, as it is read."""
    return "-" if line.found is None else f"{_number(line.found)}{f' {line.unit}' if line.unit else ''}"


def asked(line: Line) -> str:
    """What is asked for, as it is read."""
    return f"{'>=' if line.least else '<='} {_number(line.limit)}{f' {line.unit}' if line.unit else ''}"


def mark(line: Line) -> str:
    """Whether it is met."""
    return _MARKS[line.met]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
