"""docs/benchmarks.md and its plots, made from the kept results: no figure in it was typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from benchmarks import results
from benchmarks.plots import PLOTS, draw
from benchmarks.results import Result, Row
from benchmarks.verdicts import asked, lines, mark, measured


@dataclass(frozen=True, slots=True)
class Section:
    """What the page says of one benchmark, beside its figures."""

    name: str
    title: str
    words: str


_SECTIONS = (
    Section(
        "drain",
        "Drain",
        (
            "Mails of 2 KB, one recipient, all queued before the clock starts, drained into Postfix's smtp-sink "
            "on loopback (our own sink where Postfix is not installed). Wall clock of the whole command, from "
            "exec to exit; CPU is user and system of the whole tree. Before it is timed, each contestant drains "
            "the same queue into a sink that counts, and only who brings each mail exactly once is timed. "
            "aiosmtplib and smtp-source keep no queue and no record: they are what the wire allows. All on SQLite "
            "have WAL and synchronous=FULL; Django begins with IMMEDIATE, as its documentation advises."
        ),
    ),
    Section(
        "backlog",
        "A long backlog",
        (
            "The same drain with a hundred thousand waiting. `early` is the memory after a quarter of the run, "
            "`late` at its end."
        ),
    ),
    Section(
        "slow",
        "A slow disk",
        (
            "The same drain with an fsync that takes 2 ms longer (a shim loaded with LD_PRELOAD), beside how many "
            "one-row transactions that disk commits: what one commit for each message could reach at most."
        ),
    ),
    Section(
        "far",
        "A relay that is far away",
        (
            "Every reply comes 50 ms after what it answers; what was sent in one flight is answered together. The "
            "case is the number of connections; the rate is that at the sink between the first and the last tenth "
            "of the messages."
        ),
    ),
    Section(
        "dot",
        "A relay that is slow to accept",
        "Only the reply to the final dot takes 20 ms.",
    ),
    Section(
        "kills",
        "kill -9 in mid-drain",
        (
            "Each is killed after a random number of messages, the same for all, and started again; then it "
            "drains to its end. Duplicates and losses are counted at the sink. In doubt is what a contestant says "
            "itself that it does not know; a manual step is a lock that somebody has to take away."
        ),
    ),
    Section(
        "latency",
        "From approval to acceptance",
        (
            "A worker with nothing to do; approvals at a steady rate. From when the approval is asked for, before "
            "its own commit, to when the relay writes its 250."
        ),
    ),
    Section(
        "interrupt",
        "Getting in under full drain",
        "How long the verbs of another process take while the worker drains.",
    ),
    Section(
        "drafting",
        "Drafting",
        "The Python API in a room that is open.",
    ),
    Section(
        "growth",
        "Growth",
        (
            "One database that grows; every draft in it was drafted, approved and sent. `claim` and `draft` are "
            "single transactions, `list`, `status` and `prune` whole processes. Of `prune` the waits are those of "
            "another process that wants to write meanwhile."
        ),
    ),
    Section(
        "scale",
        "Several workers",
        "PostgreSQL; a relay that takes 100 ms for each reply; 10 lanes a worker.",
    ),
    Section(
        "idle",
        "Idle, and starting",
        "A worker with an empty outbox, and whole processes.",
    ),
    Section(
        "profile",
        "Where the time goes",
        (
            "A drain under py-spy, which looks only at the thread that holds the interpreter: in percent of all looks, "
            "first in the function itself, then in functions of this project with what they call."
        ),
    ),
)
_UNITS = {
    "per_second": "messages/s",
    "steady_per_second": "at the sink, /s",
    "seconds": "s",
    "cpu_per_1000": "CPU s per 1,000",
    "server_cpu_per_1000": "server's CPU s per 1,000",
    "peak_mb": "peak MB",
    "early_mb": "early MB",
    "late_mb": "late MB",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "worst_ms": "worst ms",
    "cpu_percent": "% of a core",
    "wakes_per_second": "wake-ups/s",
    "written_bytes": "octets written",
    "resident_mb": "MB",
    "percent": "%",
}


def write(folder: Path, docs: Path) -> None:
    """Write the page, and its plots beside it."""
    found = results.read(folder, PLOTS)
    draw(found, docs / "benchmarks")
    (docs / "benchmarks.md").write_text("\n".join(_page(found)) + "\n")


def _page(found: dict[str, Result]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Written by `make bench` out of `benchmarks/results`; no figure was typed. Each is the median of its"
    yield "repetitions; one run alternates the contestants. What is quoted anywhere is a ratio out of one run; an"
    yield "absolute figure stands beside its limit on the same machine."
    yield ""
    yield from _machine(found)
    yield "## What was to be reached"
    yield ""
    yield "| | measured | asked for | |"
    yield "|---|---:|---:|---|"
    for line in lines(found):
        yield f"| {line.words} | {measured(line)} | {asked(line)} | {mark(line)} |"
    for section in _SECTIONS:
        if section.name in found:
            yield from _figures(section, found[section.name])


def _machine(found: dict[str, Result]) -> Iterator[str]:
    if not found:
        return
    machine = next(iter(found.values())).machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield "## Where"
    yield ""
    yield from _wrapped(
        f"{machine.cores} cores of {machine.processor}, {machine.memory_gb} GB, Linux {machine.kernel}, databases on "
        f"{machine.file_system}. {versions}."
    )
    yield ""


def _figures(section: Section, result: Result) -> Iterator[str]:
    yield ""
    yield f"## {section.title}"
    yield ""
    yield from _wrapped(section.words)
    load = f"{min(result.loads):.1f} to {max(result.loads):.1f}" if result.loads else "not noted"
    quick = " A quick run: it shows that it works, not how fast it is." if result.quick else ""
    machine = result.machine
    yield from _wrapped(f"Load average before the measurements: {load}; {machine.at}, commit {machine.commit}.{quick}")
    yield ""
    yield f"![{section.title}](benchmarks/{section.name}.svg)"
    yield ""
    yield from _table(result)
    for failure in result.failed:
        yield ""
        yield from _wrapped(f"Failed: {' '.join(failure.split())[:300]}")


def _table(result: Result) -> Iterator[str]:
    """Fixed columns, so that a page's source is as readable as the page."""
    columns = list(dict.fromkeys(name for row in result.rows for name in row.samples))
    heads = ["", "case", *(_UNITS.get(name, name.replace("_", " ")) for name in columns)]
    cells = [[row.contestant, row.case, *(_cell(row, name) for name in columns)] for row in result.rows]
    widths = [max(len(line[place]) for line in (heads, *cells)) for place in range(len(heads))]
    yield "```text"
    for line in (heads, *cells):
        named = [line[place].ljust(widths[place]) for place in range(2)]
        figures = [line[place].rjust(widths[place]) for place in range(2, len(line))]
        yield "  ".join([*named, *figures]).rstrip()
    yield "```"
    yield from _remarks(result)


def _remarks(result: Result) -> Iterator[str]:
    said = {row.contestant: row.remark for row in result.rows if row.remark}
    said |= {row.contestant: "a limit of this machine" for row in result.rows if row.is_limit}
    if said:
        yield ""
        yield from _wrapped(". ".join(f"{name}: {remark}" for name, remark in said.items()) + ".")


def _wrapped(words: str) -> list[str]:
    return wrap(words, 118, break_long_words=False, break_on_hyphens=False)


def _cell(row: Row, name: str) -> str:
    value = row.figure(name)
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
