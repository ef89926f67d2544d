"""The verbs of the runtime port that go beyond CRI: pausing, files, images of containers, terminals, cores."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as cri

from askos.adapters.containerd import blobs, commit, disk, images, layers
from askos.adapters.containerd.details import Details
from askos.adapters.containerd.files import Files
from askos.adapters.containerd.making import Ongoing
from askos.adapters.containerd.rpc import Client, RpcError, failed
from askos.adapters.containerd.tasks import Tasks
from askos.model.errors import ConflictError, RuntimeFailedError
from askos.ports.runtime import Image

_UPDATE_S = 30.0


class Living:
    """What `ContainerdRuntime` has beside sandboxes, containers and images."""

    client: Client
    snapshotter: str

    def __init__(self, client: Client, scratch: Path) -> None:
        self.client = client
        self._details = Details(client)
        self.commits = Ongoing()
        self._tasks = Tasks(client, self._details)
        self._files = Files(client, self._tasks, scratch)
        self._images: dict[str, Image] = {}

    async def pause(self, container_id: str) -> None:
        """Freeze a running container; nothing when it is paused. ConflictError when it does not run."""
        await self._tasks.pause(container_id)

    async def unpause(self, container_id: str) -> None:
        """Let a paused container go on; nothing when it is not paused."""
        await self._tasks.unpause(container_id)

    async def processes(self, container_id: str) -> list[int]:
        """Host pids of everything that runs in a container."""
        return await self._tasks.processes(container_id)

    async def resize(self, container_id: str, width: int, height: int) -> None:
        """Change the size of the container's own terminal; nothing without a tty. ConflictError when it is stopped."""
        await self._tasks.resize(container_id, width, height)

    async def set_cpus(self, container_id: str, cpus: str) -> None:
        """The cores that a container may use, such as "0-1"; in place."""
        resources = cri.LinuxContainerResources(cpuset_cpus=cpus)
        await self._update(container_id, resources, f"confine the container to the cores {cpus}")

    async def _update(self, container_id: str, resources: Any, what: str) -> None:
        request = cri.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
        self._details.changed(container_id)
        try:
            await self.client.cri("UpdateContainerResources", request, _UPDATE_S)
        except RpcError as error:
            raise failed(error, what) from None
        finally:
            self._details.changed(container_id)

    async def root(self, container_id: str) -> AbstractAsyncContextManager[Path]:
        """The container's files as a host folder; see `ports.runtime.Runtime.root`."""
        return self._files.root(container_id, self.snapshotter)

    async def commit(self, container_id: str, name: str) -> Image:
        """Make an image of a container; see `ports.runtime.Runtime.commit`."""
        try:
            origin = await commit.base(self.client, container_id)
            async with self._frozen(container_id):
                with self.commits:
                    image_id = await commit.commit(self.client, origin, name)
            await images.seen(self.client, name, image_id)
            found = await images.find(self.client, image_id, self._images)
        except RpcError as error:
            raise failed(error, "make an image of the container") from None
        if found is None:
            raise RuntimeFailedError(f"Made the image {name}, but it is gone again.")
        return found

    @asynccontextmanager
    async def _frozen(self, container_id: str) -> AsyncIterator[None]:
        """Paused, if it runs; what was paused before stays so."""
        if not await self._tasks.pid(container_id) or await self._details.paused(container_id):
            yield
            return
        try:
            await self._tasks.pause(container_id)
        except ConflictError:
            yield  # It has ended just now.
            return
        try:
            yield
        finally:
            await asyncio.shield(self._tasks.unpause(container_id))

    async def export_image(self, ref: str, path: str, *, named: bool = True) -> None:
        """Write an image as an OCI archive to a local file; whether the archive says its name. NotFoundError."""
        try:
            await blobs.export(self.client, images.resolvable(ref), path, named=named)
        except RpcError as error:
            raise failed(error, f"write the image {ref} to a file") from None
        except OSError as error:
            raise RuntimeFailedError(f"Cannot write the image {ref} to {path}: {error.strerror}.") from None

    # Ends, and layers in file systems of their own

    async def _thaw(self, container_id: str, *, kill: bool) -> bool:
        """A frozen process cannot end. Returns whether it was frozen."""
        return await self._tasks.thaw(container_id, kill=kill)

    async def _thaw_all(self, sandbox_id: str) -> None:
        for container_id in await self._details.paused_in(sandbox_id):
            await self._thaw(container_id, kill=True)

    async def _place(self, container_id: str, folder: str) -> None:
        """Put a new container's layer where it has a limit."""
        try:
            layer = await layers.writable_folder(self.client, self.snapshotter, container_id)
            await asyncio.to_thread(disk.place, layer, folder, container_id)
        except OSError as error:
            raise RuntimeFailedError(f"Could not limit the container's disk: {error.strerror} ({folder}).") from None

    async def _unplace(self, container_id: str) -> str:
        """Before a container is removed: let go of its layer's file system. Returns the folder; empty: none.

        Raises RpcError.
        """
        folder = await disk.folder_of(self.client, container_id)
        if folder:
            with contextlib.suppress(RpcError):
                layer = await layers.writable_folder(self.client, self.snapshotter, container_id)
                await asyncio.to_thread(disk.unplace, layer)
        return folder

    async def _discard(self, container_id: str, folder: str) -> None:
        """After a container was removed."""
        if folder:
            await asyncio.to_thread(disk.discard, folder, container_id)
        self._details.forget(container_id)
        self._files.forget(container_id)

    async def _layer(self, container_id: str) -> Path:
        """The host folder that holds what a container has written. Raises RpcError, RuntimeFailedError."""
        folder = await disk.folder_of(self.client, container_id)
        if folder:
            return disk.own_layer(folder, container_id)
        return await layers.writable_folder(self.client, self.snapshotter, container_id)
