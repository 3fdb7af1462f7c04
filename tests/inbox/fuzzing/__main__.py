"""Fuzzing that is led by coverage, with atheris: `python -m tests.inbox.fuzzing SECONDS`, or `make fuzz`.

Each target has its share of the time in a process of its own. What breaks one is left under build/fuzz.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LONGEST = 20_000  # octets
SLOWEST = 10  # seconds for one input
MEMORY = 1024  # MiB
ROOT = Path(__file__).parent.parent.parent.parent
PACKAGES = ["outbox.inbox", "outbox.core", "email", "html", "dkim"]


def fuzz(target: str, seconds: str) -> None:
    """Fuzz one target in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=PACKAGES):
        from tests.inbox.fuzzing import targets

    folder = ROOT / "build" / "fuzz" / target
    (folder / "found").mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.seeds(target)):
        (folder / "found" / f"seed-{number}").write_bytes(seed)
    (folder / "marks").write_text("".join(map(_quoted, targets.MARKS)))
    options = [
        f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={SLOWEST}", f"-rss_limit_mb={MEMORY}",
        f"-dict={folder / 'marks'}", f"-artifact_prefix={folder}/broken-", "-print_final_stats=1", "-verbosity=0",
    ]  # fmt: skip
    atheris.Setup([target, *options, str(folder / "found")], targets.TARGETS[target])
    atheris.Fuzz()


def _quoted(mark: str) -> str:
    return '"' + "".join(f"\\x{octet:02x}" for octet in mark.encode()) + '"\n'


def main(seconds: str, target: str = "") -> int:
    """Fuzz one target, or each of them in a process of its own; 1 where one broke."""
    if target:
        fuzz(target, seconds)
        return 0
    from tests.inbox.fuzzing.targets import TARGETS

    share = max(1, int(seconds) // len(TARGETS))
    return int(any([_fuzz_apart(name, share) for name in TARGETS]))  # noqa: C419  all of them, also after one broke


def _fuzz_apart(target: str, seconds: int) -> bool:
    """Whether it broke; what it said is in a file then."""
    log = ROOT / "build" / "fuzz" / f"{target}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.inbox.fuzzing", str(seconds), target]
    with log.open("wb") as opened:
        broke = subprocess.run(command, cwd=ROOT, stdout=opened, stderr=opened, check=False).returncode != 0
    tried = re.search(r"number_of_executed_units: (\d+)", log.read_text("utf-8", "replace"))
    count = tried[1] if tried else "?"
    sys.stdout.write(f"{target:<10} {count} inputs in {seconds} s: {f'broken, see {log}' if broke else 'ok'}\n")
    sys.stdout.flush()
    return broke


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
