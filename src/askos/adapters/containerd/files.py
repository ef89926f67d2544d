"""The files of a container as a folder of the host, for as long as somebody reads or writes them.

Of one that runs it is the root of its process, with everything that is mounted in it; of one that has ended, its
layers are mounted anew. What is yielded is an open descriptor's path: it stays that folder whatever happens meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from askos.adapters.containerd import gvisor, mounts
from askos.adapters.containerd.proto import containerd_api_pb2 as api
from askos.adapters.containerd.rpc import Client, RpcError, failed
from askos.adapters.containerd.tasks import Tasks
from askos.model.errors import ConflictError, NotFoundError, RuntimeFailedError

_CALL_S = 20.0
_LONGEST = 3800
"""Bytes of mount options, of which a page is all that the kernel takes."""


class Files:
    """Gives access to containers' files."""

    def __init__(self, client: Client, tasks: Tasks, scratch: Path) -> None:
        self._client = client
        self._tasks = tasks
        self.scratch = scratch
        self._locks: dict[str, asyncio.Lock] = {}

    def held(self, container_id: str) -> asyncio.Lock:
        """Held while the layers of a container that has ended are mounted: they must not be given away meanwhile."""
        return self._locks.setdefault(container_id, asyncio.Lock())

    def forget(self, container_id: str) -> None:
        """A container was removed."""
        self._locks.pop(container_id, None)

    @asynccontextmanager
    async def root(self, container_id: str, snapshotter: str) -> AsyncIterator[Path]:
        """See `ports.runtime.Runtime.root`."""
        try:
            container = await self._container(container_id)
            pid = await self._tasks.pid(container_id)
        except RpcError as error:
            raise failed(error, "reach the container's files") from None
        if pid and gvisor.HANDLER.encode() in container.runtime.options.value:
            raise ConflictError("Files of a running gVisor container cannot be reached from outside. Stop it first.")
        if pid:
            with contextlib.closing(_Opened(f"/proc/{pid}/root")) as opened:
                if await self._tasks.pid(container_id) == pid:
                    yield opened.path
                    return
            # It ended just now, and the number may be somebody else's.
        async with self.held(container_id), self._mounted(container_id, snapshotter) as folder:
            with contextlib.closing(_Opened(str(folder))) as opened:
                yield opened.path

    async def _container(self, container_id: str) -> Any:
        try:
            request = api.GetContainerRequest(id=container_id)
            return (await self._client.call("containers.v1.Containers/Get", request, _CALL_S)).container
        except RpcError as error:
            if error.not_found:
                raise NotFoundError("The container is gone.", "container-not-found") from None
            raise

    @asynccontextmanager
    async def _mounted(self, container_id: str, snapshotter: str) -> AsyncIterator[Path]:
        request = api.MountsRequest(snapshotter=snapshotter, key=container_id)
        try:
            found = (await self._client.call("snapshots.v1.Snapshots/Mounts", request, _CALL_S)).mounts
        except RpcError as error:
            raise failed(error, "reach the container's files") from None
        if len(found) == 1 and found[0].type == "bind":
            yield Path(found[0].source)
            return
        if len(found) != 1 or found[0].type != "overlay":
            raise RuntimeFailedError(f"Cannot reach the container's files: they lie in {len(found)} mounts.")
        place = self.scratch / uuid.uuid4().hex[:8]
        try:
            await asyncio.to_thread(_mount_overlay, place, list(found[0].options))
        except OSError as error:
            await asyncio.to_thread(mounts.remove_tree, place)
            raise RuntimeFailedError(f"Cannot reach the container's files: {error.strerror}.") from None
        try:
            yield place / "root"
        finally:
            await asyncio.shield(asyncio.to_thread(mounts.remove_tree, place))


class _Opened:
    """An open folder, and the path that leads to it."""

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise RuntimeFailedError(f"Cannot reach the container's files: {error.strerror}.") from None
        self.path = Path(f"/proc/self/fd/{self._fd}")

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def _mount_overlay(place: Path, options: list[str]) -> None:
    (place / "root").mkdir(parents=True, mode=0o700)
    data = ",".join(option for option in options if option not in ("ro", "rw"))
    if len(data) > _LONGEST:
        data = ",".join(_shorter(place, option) for option in options)
    mounts.mount("overlay", place / "root", "overlay", 0, data)


def _shorter(place: Path, option: str) -> str:
    """Lower folders by short links to them."""
    name, equals, value = option.partition("=")
    if name != "lowerdir":
        return option
    short = []
    for number, folder in enumerate(value.split(":")):
        link = place / str(number)
        link.symlink_to(folder)
        short.append(str(link))
    return f"{name}{equals}{':'.join(short)}"
