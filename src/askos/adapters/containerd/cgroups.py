"""The control groups of one cloud: `/askos-<instance>` in every hierarchy (v1, hybrid and v2)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_GONE_S = 5.0


def parent_of(instance: str) -> str:
    """The group under which all groups of a cloud's sandboxes and containers are."""
    return f"/askos-{instance}"


def roots(instance: str) -> list[Path]:
    """The cloud's group in every mounted hierarchy in which it exists."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            path = Path(left.split()[4]) / parent_of(instance).lstrip("/")
            if path.is_dir():
                found.append(path)
    return found


def groups(instance: str) -> dict[str, list[Path]]:
    """The groups directly below, by name (the id of a container or sandbox)."""
    found: dict[str, list[Path]] = {}
    for root in roots(instance):
        for entry in os.scandir(root):
            if entry.is_dir(follow_symlinks=False):
                found.setdefault(entry.name, []).append(Path(entry.path))
    return found


def kill(folder: Path) -> None:
    """Kill every process in a group and below, and wait a moment until they have gone."""
    deadline = time.monotonic() + _GONE_S
    while time.monotonic() < deadline:
        pids = _pids(folder)
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def remove(folder: Path) -> bool:
    """Remove a group and those below it; False when something still lives in one."""
    for path, _, _ in os.walk(folder, topdown=False):
        deadline = time.monotonic() + 1.0
        while True:
            try:
                os.rmdir(path)
                break
            except FileNotFoundError:
                break
            except OSError:
                # The kernel lets go of a group a moment after its last process has ended.
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
    return True


def remove_cgroups(instance: str) -> list[str]:
    """Kill what is left in a cloud's groups and remove them; call it when everything is stopped.

    Returns the paths removed. Idempotent.
    """
    removed = []
    for root in roots(instance):
        kill(root)
        if remove(root):
            removed.append(str(root))
    return removed


def _pids(folder: Path) -> list[int]:
    pids = []
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            pids += [int(line) for line in (Path(path) / "cgroup.procs").read_text().split()]
    return pids
