"""Processes of `outbox` without the half second in which each would import everything: one that did is forked.

What runs is the command's own `main`, in a process, folder and environment of its own, with its own streams and exit
code. Tests of the start itself begin a new interpreter instead.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _import() -> None:
    for name in ("cli.main", "drafter.api", "inbox.room", "operator.desk", "operator.setup", "worker.room"):
        import_module(f"outbox.{name}")


def serve_door(door: str) -> None:
    """Fork for each that comes to the socket `door` with its streams, and answer with the exit code."""
    _import()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(door)
        listener.listen(16)
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                said, streams, _, _ = socket.recv_fds(caller, 1 << 20, 3)
                asked = json.loads(said)
                os.umask(asked.pop("umask"))
                code = _become(asked, streams)
                caller.sendall(bytes([code & 255]))
                os._exit(0)
            caller.close()


CALLER = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:] == ["worker"]:  # it runs until it is killed, so it has to be this process
    os.execv({outbox!r}, ["outbox", "worker"])
asked = dict(words=sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ), umask=os.umask(0))
with socket.socket(socket.AF_UNIX) as door:
    door.connect({door!r})
    socket.send_fds(door, [json.dumps(asked).encode()], [0, 1, 2])
    os._exit(door.recv(1)[0])
"""


@contextmanager
def commands(folder: Path) -> Iterator[Path]:
    """A folder with an `outbox` for a shell's PATH that forks where an interpreter would begin."""
    with tempfile.TemporaryDirectory() as short:  # a socket's path may have 108 octets
        door = Path(short) / "door"
        started = subprocess.Popen([sys.executable, "-m", "tests.cli.zygote", str(door)], cwd=ROOT)
        try:
            until = time.monotonic() + 60
            while not door.exists():
                assert started.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            (folder / "outbox").write_text(
                CALLER.format(python=sys.executable, door=str(door), outbox=f"{Path(sys.executable).parent}/outbox")
            )
            (folder / "outbox").chmod(0o755)
            yield folder
        finally:
            started.kill()
            started.wait()


def serve() -> None:
    """Fork for each line on stdin, and answer with the exit code."""
    _import()
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            modes = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)
            os._exit(_become(asked, [os.open(*one) for one in zip(asked["streams"], modes, strict=True)]))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  it is the answer


def _become(asked: dict[str, object], streams: list[int]) -> int:
    from outbox.cli.main import main

    for number, opened in enumerate(streams):
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
    serve_door(sys.argv[1]) if len(sys.argv) > 1 else serve()
