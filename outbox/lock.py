"""A worker is alive while it holds its lock: no heartbeat, nothing written, and the kernel lets go when it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from outbox.core.errors import Code, ConfigError


class WorkerLock:
    """An exclusive flock on `state/worker-ID.lock` for as long as this worker lives."""

    def __init__(self, state_dir: Path, worker_id: str) -> None:
        self._file = _file(state_dir, worker_id)
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            name = "database.state_dir"
            raise ConfigError(Code.CONFIG_INVALID, f"{name}: {self._file}: {error.strerror}", field=name) from error
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # nobody else's: whoever looks at it holds it for a moment
        if os.geteuid() == 0:  # run by hand; the worker's own user is to see that it has ended
            owner = state_dir.stat()
            os.fchown(self._descriptor, owner.st_uid, owner.st_gid)

    @property
    def is_held(self) -> bool:
        """Whether the file that others would look at is still the one locked here."""
        try:
            return os.path.samestat(self._file.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def release(self, *, keep_file: bool = False) -> None:
        """Let go, and leave no file behind, unless it is to say that this worker is dead."""
        if not keep_file:
            self._file.unlink(missing_ok=True)
        os.close(self._descriptor)


def is_alive(state_dir: Path, worker_id: str, *, bury: bool = True) -> bool | None:
    """Whether a worker holds its lock; None where there is no lock file. A dead one's is taken away, to `bury` it.

    What another user's lock says cannot be told from here: it counts as held.
    """
    file = _file(state_dir, worker_id)
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        if bury:
            file.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)


def _file(state_dir: Path, worker_id: str) -> Path:
    return state_dir / f"worker-{worker_id}.lock"


def living(state_dir: Path) -> list[str]:
    """The workers that hold a lock here."""
    names = [file.name.removeprefix("worker-").removesuffix(".lock") for file in state_dir.glob("worker-*.lock")]
    return [name for name in sorted(names) if is_alive(state_dir, name, bury=False)]
