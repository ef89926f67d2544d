"""Who uses a data folder, and which clouds are on this machine.

A lock file holds the pid of its holder; the kernel lets go of the lock when the holder ends, however it ends.
Running clouds are listed in /run/askos, so that a new one chooses other addresses for its networks.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from askos.adapters.containerd import processes
from askos.model.errors import SetupError

REGISTRY = Path("/run/askos")
_ENDS_S = 10.0


class Lock:
    """An exclusive lock on a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def take(self, what: str) -> None:
        """Take it. SetupError that names the holder when somebody else has it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _taken(fd):
            holding = _pid(fd)
            os.close(fd)
            raise SetupError(
                f"{what} is running already on {self._path.parent} (process {holding}). "
                "Stop it with `askos down`, or choose another folder with --data."
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Let it go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def holder(path: Path) -> int | None:
    """The pid of the process that holds the lock; None when nobody does."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _taken(fd) else _pid(fd)
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    """Try to take the lock. Whoever holds it and was killed lets go of it with the last of its threads: for that is
    waited."""
    deadline = time.monotonic() + _ENDS_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _pid(fd)
            if pid is None or processes.identify(pid) is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else None


class Cloud(msgspec.Struct, frozen=True):
    """A cloud on this machine."""

    data: str
    pool: str


def announce(instance: str, cloud: Cloud) -> None:
    """List a cloud as present on this machine."""
    REGISTRY.mkdir(parents=True, exist_ok=True)
    path = REGISTRY / f"{instance}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(cloud))
    temporary.replace(path)


def withdraw(instance: str) -> None:
    """Take a cloud off the list; removes the list with the last one."""
    (REGISTRY / f"{instance}.json").unlink(missing_ok=True)
    try:
        REGISTRY.rmdir()
    except OSError:
        return  # others are there


def pools_of_others(instance: str) -> list[str]:
    """The network pools of the other clouds on this machine."""
    pools = []
    for path in REGISTRY.glob("*.json"):
        if path.stem == instance:
            continue
        try:
            cloud = msgspec.json.decode(path.read_bytes(), type=Cloud)
        except (OSError, msgspec.DecodeError):
            continue
        if Path(cloud.data).is_dir():
            pools.append(cloud.pool)
        else:
            # Its data was removed by hand, without `askos down`.
            path.unlink(missing_ok=True)
    return pools
