"""The server's part of bringing images of the image service to hosts: it asks each host what it waits for (a standing
call), and brings that if the project may have it. Nothing is remembered: a new link asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing

from askos.loops.service_images import Key, wanted
from askos.loops.wake import Bell
from askos.model.errors import AskosError, NotFoundError, UnavailableError
from askos.model.stored_images import StoredImage
from askos.ports.calls import HostCalls, deliver
from askos.ports.image_store import ImageReader, ImageStore

_log = logging.getLogger(__name__)

AT_ONCE = 3
"""Images that are sent at the same time."""
CALL_S = 30.0


class ImageSupply:
    """Runs until cancelled. `sessions` tells which hosts are connected, each with the number of its session."""

    def __init__(
        self,
        images: ImageStore,
        calls: HostCalls,
        sessions: Callable[[], Mapping[str, int]],
        *,
        every_s: float = 5.0,
    ) -> None:
        self._images = images
        self._calls = calls
        self._sessions = sessions
        self._every_s = every_s
        self._asking: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._sending = asyncio.Semaphore(AT_ONCE)
        self.bell = Bell()

    async def run(self) -> None:
        """Keep one standing call for each host's session; again at every ring and every few seconds."""
        try:
            while True:
                sessions = set(self._sessions().items())
                for session, task in list(self._asking.items()):
                    if session not in sessions:
                        task.cancel()
                    if task.done():
                        del self._asking[session]
                for session in sessions - self._asking.keys():
                    self._asking[session] = asyncio.create_task(self._ask(session[0]))
                await self.bell.wait(self._every_s)
        finally:
            for task in self._asking.values():
                task.cancel()
            await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _ask(self, host: str) -> None:
        """Hear what one host waits for, until its link breaks."""
        try:
            async with asyncio.TaskGroup() as group:
                stream = await self._calls.open(host, "image_wants", {})
                try:
                    async for frame in stream.frames():
                        want = wanted(frame.control)
                        if want is not None:
                            group.create_task(self._bring(host, want))
                finally:
                    await stream.close()
        except* AskosError as broken:
            _log.debug("host %s does not say which images it needs: %s", host, broken.exceptions[0])
        except* Exception:
            _log.exception("bringing images to host %s failed; trying again", host)

    async def _bring(self, host: str, want: Key) -> None:
        """Bring one image; when that cannot be, say why."""
        try:
            async with self._sending:
                await self._send(host, want, await self._allowed(want))
        except AskosError as error:
            _log.info("image %s could not be brought to host %s: %s", want[0], host, error)
            kind = "not-found" if isinstance(error, NotFoundError) else "later"
            arguments = {"image": want[0], "project": want[1], "failure": error.message, "kind": kind}
            try:
                await self._calls.call(host, "image_supply", arguments, CALL_S)
            except AskosError as again:
                _log.debug("host %s could not be told: %s", host, again)

    async def _allowed(self, want: Key) -> StoredImage:
        uuid, project_id = want
        image = await self._images.image(uuid, ImageReader(project_id))
        if image.status != "active":
            raise NotFoundError(f"Image {uuid} has no file: its status is {image.status}.", "image-not-found")
        return image

    async def _send(self, host: str, want: Key, image: StoredImage) -> None:
        stream = await self._calls.open(host, "image_supply", {"image": want[0], "project": want[1]})
        try:
            frames = stream.frames()
            first = await anext(frames, None)
            if first is None:
                raise UnavailableError("The host ended the call before it began.")
            if (first.control or {}).get("have"):
                async for _frame in frames:
                    pass
            else:
                async with aclosing(self._images.read(image)) as pieces:
                    await deliver(stream, frames, pieces)
        finally:
            await stream.close()
