"""Worker processes that the shim can kill or stop at any call: a zygote that has everything imported forks them.

The zygote is started with the shim (shim.c, compiled here) in LD_PRELOAD and stays idle; each child arms it for itself
and then runs the command's own `main`. One line of JSON asks for a child or a signal, one tells what became of it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import itertools
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIM = Path(__file__).parent / "shim.c"
BOUND = 60.0  # seconds that any wait may take before the test fails
_MODULES = ("cli.main", "alerts", "operator.desk", "transport.smtp", "worker.room")


@dataclass(frozen=True, slots=True)
class Arm:
    """Where a child is struck: at call `number` of a region of its attempt (see shim.c), before or after it is made.

    Regions after EHLO count only where the MAIL command has `sender` in it. Signal 0 only counts; the labels of what
    was counted go to the file `log`. With `call` only calls of that name are counted.
    """

    region: str = "any"
    number: int = 0
    after: bool = False
    signal: int = 0
    sender: str = ""
    log: str = ""
    call: str = ""


@cache
def _compiler() -> str | None:
    return shutil.which("cc")


def _compiled(compiler: str, folder: Path) -> Path:
    library = folder / "shim.so"
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl", "-lpthread"]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return library


# The zygote's side


def serve(folder: str) -> None:
    """Fork, signal and reap until stdin ends; then nothing is left behind."""
    for name in _MODULES:
        import_module(f"outbox.{name}")
    gc.freeze()
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}  # its number by process id
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        read = b""
        while True:
            for key, _ in selector.select():
                octets = os.read(key.fd, 65536)
                if key.fd == woken:
                    _reap(children)
                    continue
                if not octets:
                    for process_id in children:
                        os.kill(process_id, signal.SIGKILL)
                    shutil.rmtree(folder)
                    return
                *lines, read = (read + octets).split(b"\n")
                for line in lines:
                    _take(json.loads(line), children)


def _take(asked: dict[str, object], children: dict[int, int]) -> None:
    number = int(str(asked["id"]))
    if "signal" in asked:  # to a child that was reaped it is too late
        for process_id in [pid for pid, owner in children.items() if owner == number]:
            os.kill(process_id, int(str(asked["signal"])))
        return
    process_id = os.fork()
    if process_id == 0:
        os._exit(_become(asked))
    children[process_id] = number


def _reap(children: dict[int, int]) -> None:
    while children:
        process_id, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if process_id == 0:
            return
        if os.WIFSTOPPED(status):
            told: dict[str, object] = {"id": children[process_id], "event": "stopped"}
        else:
            told = {"id": children.pop(process_id), "event": "ended", "code": os.waitstatus_to_exitcode(status)}
        os.write(1, json.dumps(told).encode() + b"\n")


def _become(asked: dict[str, object]) -> int:
    from outbox.cli.main import main

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    folder = str(asked["folder"])
    for number, name in enumerate((os.devnull, f"{asked['stderr']}.out", str(asked["stderr"]))):
        opened = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.chdir(folder)
    sys.argv = ["outbox", *asked["words"]]  # type: ignore[misc]
    _arm(folder, asked)
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


def _arm(folder: str, asked: dict[str, object]) -> None:
    shim = ctypes.CDLL(None)
    if asked["trace"]:
        shim.shim_trace(folder.encode(), str(asked["trace"]).encode())
    if asked["arm"]:
        arm = Arm(**asked["arm"])  # type: ignore[arg-type]
        where = arm.region.encode(), arm.number, arm.call.encode(), int(arm.after), arm.signal
        shim.shim_arm(folder.encode(), *where, arm.sender.encode(), arm.log.encode())


# The test's side


@dataclass(slots=True)
class Child:
    """One worker process."""

    number: int
    zygote: Zygote
    stderr: Path
    _stopped: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _stopped_or_over: threading.Event = field(default_factory=threading.Event)
    _code: int = 0

    def wait(self, bound: float = BOUND) -> int:
        """Its exit code, negative for a signal; fails where it does not end."""
        if not self._over.wait(bound):
            self.signal(signal.SIGKILL)
            self._over.wait(bound)
            raise AssertionError(f"a worker did not end:\n{self.said}")
        return self._code

    def has_ended(self, within: float) -> bool:
        """Whether it ends within so many seconds."""
        return self._over.wait(within)

    def has_stopped(self, bound: float = BOUND) -> bool:
        """Wait until it is stopped or has ended; whether it is stopped."""
        assert self._stopped_or_over.wait(bound), f"a worker neither stopped nor ended:\n{self.said}"
        return self._stopped.is_set() and not self._over.is_set()

    def signal(self, number: int) -> None:
        """Send a signal, where it is still there."""
        self.zygote.tell({"id": self.number, "signal": number})

    @property
    def said(self) -> str:
        """What it wrote on stderr."""
        return self.stderr.read_text() if self.stderr.exists() else ""

    @property
    def printed(self) -> str:
        """What it wrote on stdout."""
        return Path(f"{self.stderr}.out").read_text()

    def take(self, told: dict[str, object]) -> None:
        """What the zygote tells of it."""
        if told["event"] == "ended":
            self._code = int(str(told["code"]))
            self._over.set()
        else:
            self._stopped.set()
        self._stopped_or_over.set()


class Zygote:
    """Starts workers; one for each test process. It takes its folder, with what the workers said, away at its end."""

    def __init__(self) -> None:
        compiler = _compiler()
        if compiler is None:
            pytest.skip("there is no C compiler (cc) to build the shim with; apt-get install gcc libc6-dev")
        self._folder = Path(tempfile.mkdtemp(prefix="outbox-shim-"))
        self._numbers = itertools.count()
        self._children: dict[int, Child] = {}
        self._told = threading.Lock()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.shimmed", str(self._folder)],
            cwd=ROOT,
            env=environment | {"LD_PRELOAD": str(_compiled(compiler, self._folder))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self._read, daemon=True).start()

    @classmethod
    def shared(cls) -> Zygote:
        """The one of this test process; skips the test where there is no compiler."""
        return _shared()

    def close(self) -> None:
        """End it; what it started goes with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(BOUND)

    def start(self, folder: Path, *words: str, arm: Arm | None = None, trace: Path | None = None) -> Child:
        """Run `outbox` with these words in a folder, by default a worker that drains."""
        number = next(self._numbers)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=f"{number}-", delete=False) as stderr:
            child = self._children[number] = Child(number, self, Path(stderr.name))
        asked = {
            "id": number,
            "folder": str(folder),
            "words": list(words or ("worker", "--drain")),
            "arm": asdict(arm) if arm is not None else None,
            "trace": str(trace) if trace is not None else None,
            "stderr": str(child.stderr),
        }
        self.tell(asked)
        return child

    def tell(self, asked: dict[str, object]) -> None:
        """Write one line to the zygote."""
        assert self._process.stdin is not None
        with self._told:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self._children[told["id"]].take(told)


@cache
def _shared() -> Zygote:
    started = Zygote()
    atexit.register(started.close)
    return started


if __name__ == "__main__":
    serve(sys.argv[1])
