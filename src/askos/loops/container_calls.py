"""What an agent answers about one Zun container: its processes and figures, its files, its terminal, an image of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import uuid as uuids
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any

from askos.loops import packing_up, processes, unpacking
from askos.loops.agent import Agent
from askos.loops.containers import ContainerWorker
from askos.loops.usage import Usage
from askos.model.errors import ConflictError, InvalidError, NotFoundError
from askos.model.images import normalise
from askos.ports import runtime as rt
from askos.ports.calls import Frame, HostCall

CHUNK = 256 * 1024
MOST_BYTES = 16 << 30
"""Of an archive that is put into a container."""


class ContainerCalls:
    """Handlers of calls; see each for arguments and result. `scratch`: for files on their way."""

    def __init__(self, agent: Agent, usage: Usage, scratch: Path) -> None:
        self._agent = agent
        self._usage = usage
        self._scratch = scratch
        self.methods: dict[str, Callable[[HostCall], Awaitable[Any]]] = {
            "top": self._top,
            "container_stats": self._stats,
            "get_archive": self._get,
            "put_archive": self._put,
            "resize": self._resize,
            "commit": self._commit,
        }

    # -- finding -----------------------------------------------------------------------------------------------

    def _worker(self, call: HostCall) -> ContainerWorker:
        uuid = str(call.arguments["capsule"])
        worker = self._agent.workers.get(uuid)
        if not isinstance(worker, ContainerWorker):
            raise NotFoundError(f"Container {uuid} is not on this host.", "container-not-found")
        return worker

    async def _newest(self, call: HostCall, *states: str) -> rt.Container:
        """The container of the capsule: the newest that is in one of these states. ConflictError."""
        uuid = self._worker(call).assignment.capsule_uuid
        _, containers = await self._agent.runtime.observe(uuid)
        fitting = [c for c in containers if c.state in states]
        if not fitting:
            what = "is not running" if "exited" not in states else "has no files yet: it has never been started"
            raise ConflictError(f"Container {uuid} {what}.")
        return max(fitting, key=lambda c: (c.run, c.attempt))

    # -- looking -----------------------------------------------------------------------------------------------

    async def _top(self, call: HostCall) -> dict[str, Any]:
        """{"capsule", "ps_args"} → {"titles", "processes"}; InvalidError for arguments that ps refuses."""
        container = await self._newest(call, "running", "paused")
        pids = await self._agent.runtime.processes(container.id)
        return await processes.listing(str(call.arguments.get("ps_args") or ""), set(pids))

    async def _stats(self, call: HostCall) -> dict[str, Any]:
        """{"capsule"} → cpu_percent (of one core), memory_bytes, memory_limit_bytes, read_bytes, write_bytes,
        rx_bytes, tx_bytes."""
        worker = self._worker(call)
        a = worker.assignment
        container = await self._newest(call, "running", "paused")
        found = [s for s in await self._usage.of([a.capsule_uuid]) if s["container_id"] == container.id]
        if not found:
            raise ConflictError(f"Container {a.capsule_uuid} is not running.")
        pids = await self._agent.runtime.processes(container.id)
        received = sent = read = written = 0
        if pids:
            received, sent = await asyncio.to_thread(processes.network_bytes, pids[0])
            read, written = await asyncio.to_thread(processes.disk_bytes, pids[0])
        return {
            "cpu_percent": (found[0]["nano_cores"] or 0) / 1e7,
            "memory_bytes": found[0]["memory_bytes"],
            "memory_limit_bytes": container.memory_bytes or a.spec.containers[0].memory_mib << 20,
            "read_bytes": read,
            "write_bytes": written,
            "rx_bytes": received,
            "tx_bytes": sent,
        }

    async def _resize(self, call: HostCall) -> None:
        """{"capsule", "width", "height"}: the size of the container's own terminal."""
        container = await self._newest(call, "running", "paused")
        await self._agent.runtime.resize(container.id, int(call.arguments["width"]), int(call.arguments["height"]))

    # -- files -------------------------------------------------------------------------------------------------

    async def _get(self, call: HostCall) -> dict[str, Any]:
        """{"capsule", "path", "limit_bytes" (optional)}: a tar archive on channel 1. Result: what docker tells of the
        path. NotFoundError when there is none; InvalidError when the archive would be longer than allowed."""
        container = await self._newest(call, "running", "paused", "exited")
        limit = call.arguments.get("limit_bytes")
        sent = 0
        async with await self._agent.runtime.root(container.id) as root:
            source = await asyncio.to_thread(packing_up.Source, root, str(call.arguments["path"]))
            pieces = source.pieces()
            try:
                told = await asyncio.to_thread(source.stat)
                while batch := await asyncio.to_thread(_batch, pieces):
                    sent += len(batch)
                    if limit is not None and sent > int(limit):
                        raise InvalidError(f"The archive is longer than {int(limit) >> 20} MiB. Ask for a part of it.")
                    await call.send(Frame(1, batch))
            finally:
                await asyncio.to_thread(_end, pieces, source)
        return told

    async def _put(self, call: HostCall) -> None:
        """{"capsule", "path"}: a tar archive comes on channel 0, up to its eof, and is put into that folder.
        NotFoundError when there is none; InvalidError for what cannot be put there."""
        container = await self._newest(call, "running", "paused", "exited")
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            await _receive(call, file)
            async with await self._agent.runtime.root(container.id) as root:
                await asyncio.to_thread(unpacking.unpack, root, str(call.arguments["path"]), file)

    # -- images ------------------------------------------------------------------------------------------------

    async def _commit(self, call: HostCall) -> dict[str, Any]:
        """{"capsule", "name"} → {"id", "name", "size_bytes"}: make an image of the container, for its project alone.
        With "stream" the image is sent as an OCI archive on channel 1, under no name, and does not stay here."""
        worker = self._worker(call)
        container = await self._newest(call, "running", "paused", "exited")
        if call.arguments.get("stream"):
            async with self._agent.passing_images.name() as name:
                image = await self._made(worker, container, name)
                await self._send_image(call, name)
            return {"id": image.id, "name": name, "size_bytes": image.size_bytes}
        name = normalise(str(call.arguments["name"]))
        project, rights, runtime = worker.assignment.project_id, self._agent.image_rights, self._agent.runtime
        there = await runtime.image(name)
        if there is not None and not rights.belongs_to(name, there.id, project):
            raise ConflictError(f"There is an image {name} on the host already. Choose another name.", "image-exists")
        image = await self._made(worker, container, name)
        await rights.fetched(name, image.id, project, login=True, was_there=False)
        return {"id": image.id, "name": name, "size_bytes": image.size_bytes}

    async def _made(self, worker: ContainerWorker, container: rt.Container, name: str) -> rt.Image:
        async with worker.work.committing():
            return await self._agent.runtime.commit(container.id, name)

    async def _send_image(self, call: HostCall, name: str) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        path = self._scratch / f"commit-{uuids.uuid4().hex}.tar"
        try:
            await self._agent.runtime.export_image(name, str(path), named=False)
            with path.open("rb") as file:
                while data := await asyncio.to_thread(file.read, CHUNK):
                    await call.send(Frame(1, data))
        finally:
            path.unlink(missing_ok=True)


def _batch(pieces: Any) -> bytes:
    """The next pieces of an archive together; empty at its end."""
    kept = bytearray()
    for piece in pieces:
        kept += piece
        if len(kept) >= CHUNK:
            break
    return bytes(kept)


def _end(pieces: Any, source: packing_up.Source) -> None:
    pieces.close()
    source.close()


async def _receive(call: HostCall, file: IO[bytes]) -> None:
    """What the caller sends, up to its end."""
    size, ended = 0, False
    async with contextlib.aclosing(_frames(call)) as frames:
        async for frame in frames:
            size += len(frame.data)
            if size > MOST_BYTES:
                raise InvalidError(f"The archive is longer than {MOST_BYTES >> 30} GiB.")
            await asyncio.to_thread(file.write, frame.data)
            if frame.eof:
                ended = True
                break
    if not ended:
        raise InvalidError("The archive was broken off on its way.")
    file.seek(0, os.SEEK_SET)


async def _frames(call: HostCall) -> Any:
    async for frame in call.frames():
        if frame.channel == 0 and frame.control is None:
            yield frame
