"""What an agent answers about images: list, pull, import, remove."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from askos.loops.service_images import CutOffError, ServiceImages
from askos.model.errors import NotFoundError, UnavailableError
from askos.model.images import normalise
from askos.ports import runtime as rt
from askos.ports.calls import Frame, HostCall


class ImageCalls:
    """The methods that begin with "image"."""

    def __init__(self, runtime: rt.Runtime, upload_root: Path) -> None:
        self._runtime = runtime
        self._uploads = upload_root

    async def images(self, _call: HostCall) -> list[Any]:
        """All images on the host."""
        return [msgspec.to_builtins(image) for image in await self._runtime.images()]

    async def pull(self, call: HostCall) -> Any:
        """Pull with progress: control frames {"current", "total"} in bytes. Result: the image."""
        latest: list[tuple[int, int]] = []

        def note(current: int, total: int) -> None:
            latest[:] = [(current, total)]

        pull = asyncio.ensure_future(self._runtime.pull(normalise(call.arguments["ref"]), note))
        try:
            while not pull.done():
                await asyncio.wait([pull], timeout=0.2)
                if latest:
                    current, total = latest.pop()
                    await call.send(Frame(control={"current": current, "total": total}))
            return msgspec.to_builtins(await pull)
        finally:
            pull.cancel()

    async def import_(self, call: HostCall) -> list[str]:
        """Import the archive that comes as data frames. Result: the references made."""
        async with self._archive(call) as path:
            ref = call.arguments.get("ref")
            return await self._runtime.import_image(path, normalise(ref) if ref else None)

    def supply(self, images: ServiceImages) -> Callable[[HostCall], Awaitable[None]]:
        """The handler that brings images of the image service: see `ServiceImages.supply`."""

        async def supply(call: HostCall) -> None:
            await images.supply(call, self._archive)

        return supply

    @asynccontextmanager
    async def _archive(self, call: HostCall) -> AsyncIterator[str]:
        """The path of a file with what comes as data frames. CutOffError when that has no end."""
        self._uploads.mkdir(parents=True, exist_ok=True)
        path = self._uploads / f"{os.urandom(8).hex()}.tar"
        try:
            complete = False
            with path.open("wb") as file:
                async for frame in call.frames():
                    if frame.data:
                        await asyncio.to_thread(file.write, frame.data)
                    if frame.eof:
                        complete = True
                        break
            if not complete:
                raise CutOffError("Cannot import the image: the upload was cut off.")
            yield str(path)
        except OSError as error:
            raise UnavailableError(
                f"Cannot keep the archive on the host: {(error.strerror or str(error)).lower()}. "
                "See to the disk of its data folder, then try again."
            ) from error
        finally:
            path.unlink(missing_ok=True)

    async def remove(self, call: HostCall) -> None:
        """Remove an image by reference or id."""
        ref = str(call.arguments["ref"])
        found = await self._runtime.image(ref if ref.startswith("sha256:") else normalise(ref))
        if found is None:
            raise NotFoundError(f"Image {ref} could not be found.", "image-not-found")
        await self._runtime.remove_image(ref if ref.startswith("sha256:") else normalise(ref))
