"""What the fake runtime has beside sandboxes, containers and images: pausing, files, images made of containers."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from askos.model.errors import ConflictError, NotFoundError
from askos.ports import runtime as rt

if TYPE_CHECKING:
    from .fake_runtime import _Made


class FakeLiving(ABC):
    """Mixed into `FakeRuntime`. `committing`: waited for in every commit, while the container is paused."""

    containers: dict[str, _Made]
    stored: dict[str, rt.Image]
    committing: asyncio.Event | None = None

    @abstractmethod
    async def _enter(self, verb: str, *detail: str) -> None: ...

    @abstractmethod
    def _known(self, container_id: str, what: str) -> _Made: ...

    @abstractmethod
    def _set(self, made: _Made, **values: object) -> None: ...

    @abstractmethod
    def _event(self, kind: str, container_id: str) -> None: ...

    @abstractmethod
    async def _find(self, ref: str) -> rt.Image | None: ...

    def _runs(self, container_id: str) -> _Made | None:
        made = self.containers.get(container_id)
        return made if made is not None and made.seen.state in ("running", "paused") else None

    async def pause(self, container_id: str) -> None:
        await self._enter("pause", container_id)
        made = self._runs(container_id)
        if made is None:
            raise ConflictError("Cannot pause: the container does not run. Start it first.")
        self._set(made, state="paused")
        self._event("paused", container_id)

    async def unpause(self, container_id: str) -> None:
        await self._enter("unpause", container_id)
        made = self._runs(container_id)
        if made is not None:
            self._set(made, state="running")
            self._event("resumed", container_id)

    async def set_cpus(self, container_id: str, cpus: str) -> None:
        await self._enter("set_cpus", container_id, cpus)
        self._set(self._known(container_id, "confine the container"), cpus=cpus)

    async def processes(self, container_id: str) -> list[int]:
        await self._enter("processes", container_id)
        made = self._runs(container_id)
        return [] if made is None else made.pids

    async def resize(self, container_id: str, width: int, height: int) -> None:
        await self._enter("resize", container_id, str(width), str(height))
        made = self._runs(container_id)
        if made is None:
            raise ConflictError("Cannot resize the terminal: the container does not run.")
        if made.config.tty and made.process is not None:
            made.process.pipes.size = (width, height)

    async def root(self, container_id: str) -> AbstractAsyncContextManager[Path]:
        await self._enter("root", container_id)
        if container_id not in self.containers:
            raise NotFoundError("The container is gone.", "container-not-found")
        return self._folder(self.containers[container_id])

    @asynccontextmanager
    async def _folder(self, made: _Made) -> AsyncIterator[Path]:
        with tempfile.TemporaryDirectory(prefix="askos-fake-root-") as name:
            root = Path(name)
            for path, text in made.files.items():
                (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                (root / path.lstrip("/")).write_text(text)
            (root / "tmp").mkdir(exist_ok=True)
            yield root
            made.files.clear()
            for file in sorted(root.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    made.files[f"/{file.relative_to(root)}"] = file.read_text()

    async def commit(self, container_id: str, name: str) -> rt.Image:
        await self._enter("commit", container_id, name)
        made = self._known(container_id, "make an image of the container")
        before = made.seen.state
        if before == "running":
            self._set(made, state="paused")
            self._event("paused", container_id)
        try:
            if self.committing is not None:
                await self.committing.wait()
        finally:
            if before == "running" and made.seen.state == "paused":
                self._set(made, state="running")
                self._event("resumed", container_id)
        base = self.stored.get(made.seen.image_id)
        more: dict[str, Any] = {"user": base.user, "exposed_ports": base.exposed_ports} if base is not None else {}
        image = rt.Image(f"sha256:{uuid.uuid4().hex * 2}", [name], [], 2000, [], list(made.argv), **more)
        for known in self.stored.values():
            if name in known.tags:
                self.stored[known.id] = msgspec.structs.replace(known, tags=[t for t in known.tags if t != name])
        self.stored[image.id] = image
        self.committed[image.id] = dict(made.files)
        return image

    @property
    def committed(self) -> dict[str, dict[str, str]]:
        """The files of images that were made of containers, by image id."""
        found: dict[str, dict[str, str]] = self.__dict__.setdefault("_committed", {})
        return found

    async def export_image(self, ref: str, path: str, *, named: bool = True) -> None:
        await self._enter("export_image", ref, path)
        image = await self._find(ref)
        if image is None:
            raise NotFoundError(f"Image {ref} is not on this host.", "image-not-found")
        Path(path).write_bytes(f"image:{image.tags[0] if named else ''}".encode())
