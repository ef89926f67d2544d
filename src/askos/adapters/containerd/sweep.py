"""Removing what a crash left in our private containerd and what nothing refers to any more.

containerd tidies up when it starts, but not everything: killed in the middle of making or removing a sandbox it can
leave a network namespace, a shim, a container that CRI does not know, its snapshot, a mount or a control group.

What is touched belongs to us alone: it lies under our state folder, its command line carries our socket's address,
or it is in our cloud's control group. What CRI knows is never touched; that is the agent's to remove. Nothing is
made while a sweep runs, so what is not referred to now is not about to be either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from askos.adapters.containerd import cgroups, cnicache, disk, gvisor, layers, mounts, teardown
from askos.adapters.containerd.commit import VIEW
from askos.adapters.containerd.making import BusyError
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import NAMESPACE, RpcError, failed
from askos.adapters.containerd.runtime import ContainerdRuntime
from askos.model.errors import RuntimeFailedError

_CALL_S = 20.0
_EXEC_S = 5.0
_LONG_S = 2.0
_SETTLE_S = 0.5
_SIGKILL = 9
_UNPACKING = "extract-"
_SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
_log = logging.getLogger(__name__)


async def sweep(runtime: ContainerdRuntime, root: Path, state: Path, socket: Path) -> list[str]:
    """Remove leftovers; returns what was removed, one line each. For a private containerd only.

    `root`, `state` and `socket`: of the `PrivateContainerd`. Call it after containerd has started or come back, and now
    and then. Idempotent; raises UnavailableError when containerd does not answer.
    """
    try:
        # A shim can take its time over these, and they are in nobody's way: while they go, others are made.
        removed = await _end_execs(runtime, state)
        begun = time.monotonic()
        async with runtime.held():
            held = time.monotonic()
            removed += await _Sweep(runtime, root, state, socket).run()
    except RpcError as error:
        raise failed(error, "look for leftovers in containerd") from None
    except BusyError as error:
        _log.info("leftovers are looked for later: %s", error)
        return removed
    ended = time.monotonic()
    if ended - begun > _LONG_S:
        _log.warning(
            "nothing could be started for %.1f s while leftovers were looked for (%.1f s of it: waiting for what was "
            "being made)", ended - begun, held - begun,
        )  # fmt: skip
    return removed


async def _end_execs(runtime: ContainerdRuntime, state: Path) -> list[str]:
    """End the processes of exec sessions of a dead predecessor, all at once, and remove their pipes."""
    if not runtime.exec_root.is_dir():
        return []
    strange = [path for path in runtime.exec_root.iterdir() if path.name not in runtime.live_execs]
    return list(await asyncio.gather(*(_end_exec(runtime, state, path) for path in strange)))


async def _end_exec(runtime: ContainerdRuntime, state: Path, folder: Path) -> str:
    container, _, exec_id = folder.name.partition(".")
    fields = {"container_id": container, "exec_id": exec_id}
    pid_file = state / "io.containerd.runtime.v2.task" / NAMESPACE / container / f"{exec_id}.pid"
    with contextlib.ExitStack() as readers:
        # A start that was under way waits in the shim for a reader of its pipes, and holds up everything else there.
        for path in folder.glob("std*"):  # noqa: ASYNC240 - three names
            with contextlib.suppress(OSError):
                readers.callback(os.close, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        # One whose start has failed for want of a reader lives, but the shim takes it for not begun.
        await asyncio.to_thread(_kill_process, pid_file, container)
        for method, request in (
            ("Kill", api.KillRequest(**fields, signal=_SIGKILL)),
            ("Wait", api.WaitRequest(**fields)),
            ("DeleteProcess", api.DeleteProcessRequest(**fields)),
        ):
            with contextlib.suppress(RpcError):
                await runtime.client.call(f"tasks.v1.Tasks/{method}", request, _EXEC_S)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return f"exec session {exec_id} of container {container}"


class _Sweep:
    def __init__(self, runtime: ContainerdRuntime, root: Path, state: Path, socket: Path) -> None:
        self._runtime = runtime
        self._client = runtime.client
        self._root = root
        self._state = state
        self._socket = socket
        self._removed: list[str] = []

    async def run(self) -> list[str]:
        await self._containers()
        known = await self._known()
        await self._snapshots(known)
        await self._shims(known)
        ids = set(known)
        await asyncio.to_thread(self._bundles, ids)
        await asyncio.to_thread(self._groups, ids)
        await asyncio.to_thread(self._namespaces, _namespaces(known.values()))
        records = await asyncio.to_thread(cnicache.remove, self._state, ids)
        self._removed += [f"CNI records of {sandbox_id}" for sandbox_id in records]
        return self._removed

    async def _known(self) -> dict[str, Any]:
        request = api.ListContainersRequest()
        answer = await self._client.call("containers.v1.Containers/List", request, _CALL_S)
        return {container.id: container for container in answer.containers}

    async def _containers(self) -> None:
        """Containers in containerd's books that CRI does not know."""
        sandboxes, containers = await self._runtime.cri_lists()
        in_cri = {item.id for item in (*sandboxes, *containers)}
        for container_id, container in (await self._known()).items():
            if container_id in in_cri:
                continue
            kill = api.KillRequest(container_id=container_id, signal=_SIGKILL, all=True)
            await self._try("tasks.v1.Tasks/Kill", kill)
            for _ in range(40):
                delete = api.DeleteTaskRequest(container_id=container_id)
                if await self._try("tasks.v1.Tasks/Delete", delete) != "failed_precondition":
                    break
                await asyncio.sleep(0.05)
            request = api.DeleteContainerRequest(id=container_id)
            await self._try("containers.v1.Containers/Delete", request)
            await self._remove_snapshot(container.snapshotter, container.snapshot_key)
            teardown.shim_socket(self._socket, container_id).unlink(missing_ok=True)
            self._removed.append(f"container {container_id}")

    async def _snapshots(self, known: dict[str, Any]) -> None:
        """Writable layers that no container uses, and what images were looked at through for a commit.

        A layer of an image is unpacked into one ("extract-…"). Whoever is killed, or gives up, in the middle of it
        leaves that behind, under a lease that keeps it for a day; in the middle of a commit, for an hour.
        """
        used = {container.snapshot_key for container in known.values()}
        works = self._runtime.pulls, self._runtime.commits
        before = [(work.idle, work.begun) for work in works]
        found: list[Any] = []
        request = api.ListSnapshotsRequest(snapshotter=self._runtime.snapshotter)
        async for page in self._client.stream("snapshots.v1.Snapshots/List", request, _CALL_S):
            found += page.info
        # Containers and sandboxes are unpacked for as well, but none is being made now.
        no_pull, no_commit = (
            idle and work.begun == begun for work, (idle, begun) in zip(works, before, strict=True)
        )  # fmt: skip
        for info in found:
            if info.kind == api.ACTIVE:
                left = info.name not in used and (no_pull or not info.name.startswith(_UNPACKING))
            else:
                left = no_commit and info.name.startswith(VIEW)
            if left and await self._remove_snapshot(self._runtime.snapshotter, info.name):
                self._removed.append(f"snapshot {info.name}")

    async def _shims(self, known: dict[str, Any]) -> None:
        """Shims that serve no task. One that is just ending is given the time to."""
        idle: set[str] | None = None
        for _ in range(2):
            answer = await self._client.call("tasks.v1.Tasks/List", api.ListTasksRequest(), _CALL_S)
            serving = {_sandbox_of(known.get(task.id), task.id) for task in answer.tasks}
            now = set(await asyncio.to_thread(teardown.shims, self._socket)) - serving
            idle = now if idle is None else idle & now
            if not idle:
                return
            await asyncio.sleep(_SETTLE_S)
        for shim_id, process in teardown.shims(self._socket).items():
            if idle and shim_id in idle:
                await teardown.end_shim(self._socket, shim_id, process)
                self._removed.append(f"shim {shim_id}")

    def _bundles(self, known: set[str]) -> None:
        """Folders, mounts and runc's records of containers that containerd does not know."""
        for folder, word in (
            (self._state / "io.containerd.runtime.v2.task" / NAMESPACE, "bundle"),
            (self._root / "io.containerd.runtime.v2.task" / NAMESPACE, "work folder"),
            (self._state / "runc" / NAMESPACE, "runc record"),
            (self._state / "io.containerd.grpc.v1.cri" / "sandboxes", "sandbox folder"),
            (self._state / "io.containerd.grpc.v1.cri" / "containers", "container folder"),
        ):
            for path in _children(folder):
                if path.name not in known:
                    for group in cgroups.groups(self._runtime.instance).get(path.name, []):
                        cgroups.kill(group)
                    mounts.remove_tree(path)
                    teardown.shim_socket(self._socket, path.name).unlink(missing_ok=True)
                    self._removed.append(f"{word} {path.name}")
        for path in _children(self._state / gvisor.HANDLER / NAMESPACE):
            if gvisor.container_of(path) not in known:
                path.unlink(missing_ok=True)
                self._removed.append(f"runsc record {path.name}")

    def _groups(self, known: set[str]) -> None:
        """Control groups of containers that containerd does not know, with what still runs in them."""
        for name, folders in cgroups.groups(self._runtime.instance).items():
            if name not in known:
                for folder in folders:
                    cgroups.kill(folder)
                    cgroups.remove(folder)
                self._removed.append(f"control group {name}")

    def _namespaces(self, used: set[str]) -> None:
        """Network namespaces that no sandbox refers to."""
        for path in _children(self._state / "io.containerd.grpc.v1.cri" / "netns"):
            if str(path) not in used:
                # Mounted over twice after an unlucky restart: each unmount takes one away.
                while mounts.unmount(path):
                    pass
                path.unlink(missing_ok=True)
                self._removed.append(f"network namespace {path.name}")

    async def _remove_snapshot(self, snapshotter: str, key: str) -> bool:
        with contextlib.suppress(RpcError, RuntimeFailedError):
            # Of a container with a limited disk: containerd would find the folder busy.
            layer = await layers.writable_folder(self._client, snapshotter, key)
            await asyncio.to_thread(disk.unplace, layer)
        request = api.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
        return await self._try("snapshots.v1.Snapshots/Remove", request) is None

    async def _try(self, method: str, request: Any) -> str | None:
        """Call; the code of what went wrong, or None."""
        try:
            await self._client.call(method, request, _CALL_S)
        except RpcError as error:
            if error.away:
                raise
            return error.code
        return None


def _kill_process(pid_file: Path, container: str) -> None:
    """Kill the process that a file names, if it is one of this container."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if container in Path(f"/proc/{pid}/cgroup").read_text():
            os.kill(pid, _SIGKILL)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _sandbox_of(container: Any | None, container_id: str) -> str:
    """The id under which the shim of a task was started: its sandbox's."""
    if container is None:
        return container_id
    annotations = json.loads(container.spec.value or b"{}").get("annotations") or {}
    return str(annotations.get(_SANDBOX_ID, container_id))


def _namespaces(containers: Any) -> set[str]:
    paths = set()
    for container in containers:
        linux = json.loads(container.spec.value or b"{}").get("linux") or {}
        for namespace in linux.get("namespaces") or []:
            if namespace.get("type") == "network" and namespace.get("path"):
                paths.add(namespace["path"])
    return paths
