"""Ending what a private containerd leaves when it is told to end: shims, processes, mounts.

Shims survive containerd on purpose. Ours are known by the socket address in their command line, their
processes by the cloud's control groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
from pathlib import Path

from askos.adapters.containerd import cgroups, cnicache, gvisor, mounts, processes
from askos.adapters.containerd.processes import Process
from askos.adapters.containerd.rpc import NAMESPACE

_SHIM_SOCKETS = Path("/run/containerd/s")


def shims(socket: Path) -> dict[str, Process]:
    """The shims of the containerd with this socket, by the id they were started for (a sandbox's)."""
    found = {}
    for process in processes.with_arguments("-address", str(socket)):
        arguments = processes.command_line(process.pid)
        with contextlib.suppress(ValueError, IndexError):
            found[arguments[arguments.index("-id") + 1]] = process
    return found


async def end_shim(socket: Path, shim_id: str, process: Process) -> None:
    """Kill a shim and remove its socket, which lies in a folder that all containerds share."""
    processes.send(process, signal.SIGKILL)
    await processes.ended(process, 5.0)
    shim_socket(socket, shim_id).unlink(missing_ok=True)


def shim_socket(socket: Path, shim_id: str) -> Path:
    """Where containerd's runc shim listens: a name made from daemon's address, namespace and id."""
    name = f"{socket}/{NAMESPACE}/{shim_id}"
    return _SHIM_SOCKETS / hashlib.sha256(name.encode()).hexdigest()


async def end_everything(root: Path, state: Path, socket: Path, instance: str) -> None:
    """Kill all shims and container processes of one private containerd; unmount what is below its root and state."""
    for _ in range(20):
        living = shims(socket)
        for shim_id, process in living.items():
            await end_shim(socket, shim_id, process)
        if not living:
            break
    await asyncio.to_thread(cgroups.remove_cgroups, instance)
    for folder in (root, state):
        await asyncio.to_thread(mounts.unmount_below, folder)
    for name in ("runc", gvisor.HANDLER, "io.containerd.runtime.v2.task", "io.containerd.grpc.v1.cri"):
        await asyncio.to_thread(mounts.remove_tree, state / name)
    await asyncio.to_thread(cnicache.remove, state, set())
    await asyncio.to_thread(cnicache.remove_broken, instance)
