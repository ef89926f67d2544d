"""The control groups of one cloud: `/askos-<instance>` in every hierarchy (v1, hybrid and v2).

/askos-<instance>/<id>                     a sandbox or container of a capsule without a group of its own
/askos-<instance>/<capsule uuid>/<id>      one of a capsule with a group, which limits all of them together
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

_GONE_S = 5.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_log = logging.getLogger(__name__)


class Hierarchy(msgspec.Struct, frozen=True):
    """A mounted hierarchy. `controllers`: what can be limited in it."""

    mount: Path
    unified: bool
    controllers: frozenset[str]


def parent_of(instance: str, capsule_uuid: str | None = None) -> str:
    """The group under which all groups of a cloud's sandboxes and containers are, or those of one capsule."""
    return f"/askos-{instance}" + (f"/{capsule_uuid}" if capsule_uuid else "")


def hierarchies() -> list[Hierarchy]:
    """All that are mounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(maxsplit=2)
        mount = Path(left.split()[4])
        if kind == "cgroup":
            found.append(Hierarchy(mount, False, frozenset(options.split(","))))
        elif kind == "cgroup2":
            try:
                names = (mount / "cgroup.controllers").read_text().split()
            except OSError:
                names = []
            found.append(Hierarchy(mount, True, frozenset(names)))
    return found


def ends_groups() -> bool:
    """Whether memory is limited by control groups that can end all of a container when it needs too much (v2)."""
    return any(h.unified and "memory" in h.controllers for h in hierarchies())


def roots(instance: str) -> list[Path]:
    """The cloud's group in every mounted hierarchy in which it exists."""
    paths = [h.mount / parent_of(instance).lstrip("/") for h in hierarchies()]
    return [path for path in paths if path.is_dir()]


def groups(instance: str) -> dict[str, list[Path]]:
    """The groups of containers and sandboxes by their id, whether their capsule has a group or not."""
    found: dict[str, list[Path]] = {}
    for root in roots(instance):
        for group in _members(root):
            found.setdefault(group.name, []).append(group)
    return found


def capsules(instance: str) -> set[str]:
    """The capsules that have a group in some hierarchy."""
    return {e.name for root in roots(instance) for e in _folders(root) if _UUID.fullmatch(e.name)}


def prepare(
    instance: str,
    capsule_uuid: str,
    *,
    pids_max: int,
    cpu_shares: int,
    cpu_quota_us: int,
    memory_bytes: int,
    cpu_period_us: int = 100_000,
) -> None:
    """Make a capsule's group and set its limits; 0: no limit. Idempotent; raises OSError.

    The kernel refuses limits below those of a container inside: when they shrink, shrink the containers' first.
    """
    values = {
        "pids": {"pids.max": str(pids_max or "max")},
        "cpu": {
            "cpu.shares": str(max(2, cpu_shares)),
            "cpu.cfs_period_us": str(cpu_period_us),
            "cpu.cfs_quota_us": str(cpu_quota_us or -1),
        },
        "memory": {"memory.limit_in_bytes": str(memory_bytes or -1)},
    }
    unified = {
        "pids": values["pids"],
        "cpu": {"cpu.weight": str(weight(cpu_shares)), "cpu.max": f"{cpu_quota_us or 'max'} {cpu_period_us}"},
        "memory": {"memory.max": str(memory_bytes or "max")},
    }
    missing = set(values)
    for hierarchy in hierarchies():
        wanted = hierarchy.controllers & missing
        if not wanted:
            continue
        missing -= wanted
        group = hierarchy.mount / parent_of(instance, capsule_uuid).lstrip("/")
        group.mkdir(parents=True, exist_ok=True)
        if hierarchy.unified:
            for above in (hierarchy.mount, group.parent):
                _enable(above, wanted)
        for controller in sorted(wanted):
            for name, value in (unified if hierarchy.unified else values)[controller].items():
                _write(group / name, value)
    if missing:
        _log.warning("this host has no control groups for %s: capsules are not limited in it", sorted(missing))


def discard(instance: str, capsule_uuid: str) -> bool:
    """Kill what is left in a capsule's group and remove it in every hierarchy; False when something stays."""
    done = True
    for root in roots(instance):
        group = root / capsule_uuid
        if group.is_dir():
            kill(group)
            done = remove(group) and done
    return done


def weight(cpu_shares: int) -> int:
    """Version 2's cpu.weight (1 to 10000) for version 1's cpu.shares (2 to 262144), as OCI runtimes convert it."""
    shares = min(max(cpu_shares, 2), 262_144)
    return 1 + (shares - 2) * 9999 // 262_142


def in_force(path: str, cpu_shares: int, memory_bytes: int) -> tuple[int, int]:
    """The shares and the memory that the kernel gives the group of a container, for those that it is said to have: 0
    stays 0, as does what has no process in a group of its own, and what the kernel has only rounded."""
    cpu, memory = _mounted("cpu"), _mounted("memory")
    if cpu is not None and cpu_shares and (group := cpu.mount / path.lstrip("/")) and _pids(group):
        said = weight(cpu_shares) if cpu.unified else max(2, cpu_shares)
        has = _number(group / ("cpu.weight" if cpu.unified else "cpu.shares"))
        if has and has != said:
            cpu_shares = 2 + (has - 1) * 262_142 // 9999 if cpu.unified else has
    if memory is not None and memory_bytes and (group := memory.mount / path.lstrip("/")) and _pids(group):
        has = _number(group / ("memory.max" if memory.unified else "memory.limit_in_bytes"))
        if has and has != memory_bytes // _PAGE * _PAGE:
            memory_bytes = has
    return cpu_shares, memory_bytes


@functools.cache
def _mounted(controller: str) -> Hierarchy | None:
    """Where a controller is. That does not change while the host runs, and the table of mounts may be long."""
    return next((h for h in hierarchies() if controller in h.controllers), None)


def _number(path: Path) -> int:
    """0: there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def process_counts(instance: str) -> dict[str, int]:
    """How many processes and threads each sandbox and container has, by id."""
    counts: dict[str, int] = {}
    for hierarchy in hierarchies():
        if "pids" in hierarchy.controllers:
            for group in _members(hierarchy.mount / parent_of(instance).lstrip("/")):
                with contextlib.suppress(OSError, ValueError):
                    counts[group.name] = int((group / "pids.current").read_text())
    return counts


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


def _enable(group: Path, controllers: frozenset[str]) -> None:
    """Let the groups below be limited (version 2)."""
    path = group / "cgroup.subtree_control"
    lacking = controllers - set(path.read_text().split())
    if lacking:
        _write(path, " ".join(f"+{name}" for name in sorted(lacking)))


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        # A write's own error does not say where.
        raise OSError(error.errno, f"cannot write {value!r}: {error.strerror}", str(path)) from None


def _members(root: Path) -> Iterator[Path]:
    """The groups of sandboxes and containers below the cloud's, in both layouts."""
    for entry in _folders(root):
        if _UUID.fullmatch(entry.name):
            yield from _folders(entry)
        else:
            yield entry


def _folders(path: Path) -> list[Path]:
    try:
        return [Path(e.path) for e in os.scandir(path) if e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _pids(folder: Path) -> list[int]:
    pids = []
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            pids += [int(line) for line in (Path(path) / "cgroup.procs").read_text().split()]
    return pids
