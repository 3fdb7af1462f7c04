"""Processes of `outbox` without the half second in which each would import everything: one that did is forked.

What runs is the command's own `main`, in a process, folder and environment of its own, with its own streams and exit
code. Tests of the start itself begin a new interpreter instead.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]


def serve() -> None:
    """Fork for each line on stdin, and answer with the exit code."""
    for name in ("cli.main", "drafter.api", "inbox.room", "operator.desk", "operator.setup", "worker.room"):
        import_module(f"outbox.{name}")
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_become(asked))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  it is the answer


def _become(asked: dict[str, object]) -> int:
    from outbox.cli.main import main

    for number, name in enumerate(asked["streams"]):  # type: ignore[arg-type]
        opened = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  what was read ahead is not the child's
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[arg-type]
    os.chdir(str(asked["folder"]))
    sys.argv = ["outbox", *asked["words"]]  # type: ignore[misc]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  as an interpreter ends
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


@cache
def _started(process_id: int) -> subprocess.Popen[str]:
    del process_id  # one for each test process
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.zygote"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(started.kill)
    return started


def run(words: list[str], folder: Path, environment: dict[str, str], stdin: bytes) -> tuple[int, bytes, bytes]:
    """Run `outbox` with these words; its exit code, stdout and stderr."""
    zygote = _started(os.getpid())
    with tempfile.TemporaryDirectory() as kept:
        streams = [Path(kept) / name for name in ("stdin", "stdout", "stderr")]
        for stream, octets in zip(streams, (stdin, b"", b""), strict=True):
            stream.write_bytes(octets)
        asked = {"words": words, "folder": str(folder), "environment": environment, "streams": [*map(str, streams)]}
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        print(json.dumps(asked), file=zygote.stdin, flush=True)
        code = int(zygote.stdout.readline())
        return code, streams[1].read_bytes(), streams[2].read_bytes()


if __name__ == "__main__":
    serve()
