"""The commands on our pages do what the pages say: each page is one session, against a real relay.

A fence is run unless a remark on the line before it says `not run: REASON`. `second terminal` leaves it running
beside the others. In a `console` block what a command prints is compared with what stands below it; "..." stands for
anything. A draft's id is written ID, and a page's relay becomes the test's.
Lines that only call make are test_makefile's.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.zygote import commands
from tests.contracts.markdown import ROOT, Fence, fences, page
from tests.relay.recording import RecordingRelay

HOWTOS = tuple(sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs" / "howto").glob("*.md")))
PAGES = ("docs/tutorial.md", "README.md", *HOWTOS)
RUN = {"sh", "console", "python"}
SHOWN = {"", "text", "json", "toml", "ini", "mermaid"}  # languages of what is only looked at
LEFT_OUT = (
    "python3 -m venv",  # the environment is there already,
    ". .venv/bin/activate",  # and its commands are in reach
    "make ",
    "git clone",
)
MARK = "\x1e"


@dataclass(frozen=True)
class Typed:
    """One command as a person types it, and what it is said to print; None where nothing is said."""

    line: str
    prints: str | None


def typed(fence: Fence) -> Iterator[Typed]:
    """The commands of a block, one by one."""
    if fence.language == "python":
        yield Typed(f"python - <<'END_OF_PROGRAM'\n{fence.text}END_OF_PROGRAM", None)
    elif fence.language == "sh":
        kept = [line for line in fence.text.splitlines() if not line.startswith(LEFT_OUT)]
        yield Typed("\n".join(kept), None)
    else:
        for block in re.split(r"^\$ ", fence.text, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", block)
            assert command is not None
            yield Typed(command[0].rstrip("\n"), block[command.end() :])


def matches(said: str, printed: str) -> bool:
    """Whether `printed` is what the page says, "..." being anything, blanks at line ends aside."""
    wanted = re.escape(said.strip()).replace(re.escape("..."), ".*")
    return re.fullmatch(wanted, re.sub(r"[ \t]+$", "", printed.strip(), flags=re.MULTILINE), re.DOTALL) is not None


def as_here(text: str, port: int) -> str:
    """A page's own relay is this test's, and ID stands for a draft's id."""
    text = re.sub(r"(127\.0\.0\.1:|--relay-port )(2525|25|587)\b", rf"\g<1>{port}", text)
    newest = "outbox list --json | tail -n 1 | cut -d '\"' -f 4"
    return re.sub(r"^(\$ )?(outbox \w+) ID\b", rf'\1\2 "$({newest})"', text, flags=re.MULTILINE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def second_terminal(line: str, port: int, environment: dict[str, str], folder: Path) -> Iterator[Path]:
    """Leave a command running, once its port answers; what it prints goes to a file."""
    output = folder / "second-terminal"
    with output.open("wb") as opened:
        process = subprocess.Popen(shlex.split(line), stdout=opened, stderr=opened, env=environment, cwd=folder)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, output.read_text()
            time.sleep(0.05)
        yield output
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an `outbox` that starts at once."""
    with commands(tmp_path_factory.mktemp("bin")) as folder:
        yield folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a person's shell would have: the commands in reach, unbuffered output, a plain language."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "TMPDIR", "LD_LIBRARY_PATH"}}
    reach = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return kept | {"PATH": reach, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


def play(commands: list[Typed], environment: dict[str, str], folder: Path) -> list[str]:
    """Type the commands into one shell; what each printed. Fails at the first that fails."""
    script = "".join(f"{one.line}\ncode=$?; printf '{MARK}'; [ $code -eq 0 ] || exit $code\n" for one in commands)
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    printed = ran.stdout.split(MARK)
    last = commands[min(len(printed) - 1, len(commands) - 1)]
    assert ran.returncode == 0, f"this failed with {ran.returncode}:\n{last.line}\n{printed[-2:]}"
    return printed


def run_blocks(name: str) -> list[Fence]:
    """The blocks of a page that are run."""
    return [one for one in fences(page(name)) if one.language in RUN and not one.remark]


def run_page(name: str, port: int, environment: dict[str, str], folder: Path) -> None:
    """Run every block of a page, and compare what is printed with what it says."""
    lines = [
        Typed(as_here(one.line, port), one.prints)
        for block in run_blocks(name)
        for one in typed(block)
        if one.line.strip()
    ]
    for command, printed in zip(lines, play(lines, environment, folder), strict=False):
        if command.prints is not None:
            assert matches(command.prints, printed), f"{command.line}\nprinted\n{printed}\nnot\n{command.prints}"


@pytest.mark.parametrize("name", PAGES)
def test_every_fence_is_run_shown_or_left_out_for_a_reason(name: str) -> None:
    for fence in fences(page(name)):
        assert fence.language in RUN | SHOWN, fence
        assert re.fullmatch(r"|second terminal|not run: \S.+", fence.remark), fence


@pytest.mark.parametrize("installed", [False, pytest.param(True, marks=pytest.mark.torture)])
def test_the_tutorial_does_what_it_says(
    tmp_path: Path, environment: dict[str, str], quick: Path, *, installed: bool
) -> None:
    if not installed:
        environment["PATH"] = f"{quick}{os.pathsep}{environment['PATH']}"
    port = free_port()
    (relay,) = [one.text.strip() for one in fences(page("docs/tutorial.md")) if one.remark == "second terminal"]
    with second_terminal(as_here(relay, port), port, environment, tmp_path) as output:
        run_page("docs/tutorial.md", port, environment, tmp_path)
        printed = output.read_text()
    asked, sent = re.findall(r"^-+ MESSAGE FOLLOWS -+$(.*?)^-+ END MESSAGE -+$", printed, re.MULTILINE | re.DOTALL)
    assert "\nTo: founder@example.org\n" in asked.partition("\n\n")[0]
    assert "\nTo: jane@example.net\n" in sent.partition("\n\n")[0]
    assert sent.rstrip().endswith("\n\nDear Jane, here is the offer.")


@pytest.mark.parametrize("name", [name for name in ("README.md", *HOWTOS) if run_blocks(name)])
def test_a_page_does_what_it_says(name: str, tmp_path: Path, environment: dict[str, str], quick: Path) -> None:
    environment["PATH"] = f"{quick}{os.pathsep}{environment['PATH']}"
    with RecordingRelay() as relay:
        run_page(name, relay.port, environment, tmp_path)


def test_three_dots_stand_for_anything_and_nothing_else_does() -> None:
    assert matches("made ...\nnote: ...", "made outbox.toml\nmade outbox.db\nnote: keys lie together")
    assert not matches("made it.", "made it!")
    assert not matches("made it", "made it\nand more")
