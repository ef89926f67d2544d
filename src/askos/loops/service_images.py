"""The host's part of bringing images of the image service: it says what it waits for, and takes what comes.

What is waited for is known here alone, and follows from what capsules need now; the server asks for it as long as it
is linked (`wants`), and brings it (`supply`). When either of them dies, it is all said once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from askos.loops.image_rights import ImageRights
from askos.loops.wake import Bell
from askos.model.errors import AskosError, InvalidError, NotFoundError, RuntimeFailedError, UnavailableError
from askos.model.images import is_of_service, of_service
from askos.ports import runtime as rt
from askos.ports.calls import Frame, HostCall

Receive = Callable[[HostCall], AbstractAsyncContextManager[str]]
"""Puts what a call carries into a file, and gives its path. CutOffError."""

Key = tuple[str, str]
"""An image's uuid, and the project that wants to run it."""


class CutOffError(InvalidError):
    """What was sent has no end."""


class _Waiting:
    """One image that is waited for."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.count = 0


class ServiceImages:
    """All that this host waits for."""

    def __init__(self, runtime: rt.Runtime, rights: ImageRights) -> None:
        self._runtime = runtime
        self._rights = rights
        self._waiting: dict[Key, _Waiting] = {}
        self._bells: set[Bell] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    async def fetch(self, image_uuid: str, project_id: str) -> None:
        """Wait until an image is on this host and the project may use it. NotFoundError when there is no such image
        for it (any more); RuntimeFailedError, UnavailableError."""
        key = (image_uuid, project_id)
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting()
            for bell in self._bells:
                bell.ring()
        waiting.count += 1
        try:
            await asyncio.shield(waiting.done)
        finally:
            waiting.count -= 1
            if not waiting.count and self._waiting.get(key) is waiting:
                # Nobody wants it any more.
                del self._waiting[key]
                waiting.done.cancel()

    async def wants(self, call: HostCall) -> None:
        """A standing call: control frames {"image", "project"} for all that is waited for and not yet said, until the
        caller goes."""
        bell = Bell()
        self._bells.add(bell)
        gone = asyncio.ensure_future(_ended(call))
        told: dict[Key, _Waiting] = {}
        try:
            while not gone.done():
                # What was waited for and came, and is waited for again, is said again.
                news = {key: waiting for key, waiting in self._waiting.items() if told.get(key) is not waiting}
                told = dict(self._waiting)
                for image_uuid, project_id in news:
                    await call.send(Frame(control={"image": image_uuid, "project": project_id}))
                ring = asyncio.ensure_future(bell.wait(None))
                try:
                    await asyncio.wait([gone, ring], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    ring.cancel()
        finally:
            self._bells.discard(bell)
            gone.cancel()

    async def supply(self, call: HostCall, receive: Receive) -> None:
        """{"image", "project"}: the project may use the image. Answers with a control frame {"have": whether it is here
        already}; when it is not, its file comes on channel 0. {"image", "project", "failure", "kind"}: it does not
        come; kind: "not-found", "final" or "later"."""
        arguments = call.arguments
        key = (str(arguments["image"]), str(arguments["project"]))
        if arguments.get("failure"):
            self._end(key, _failure(str(arguments["failure"]), str(arguments.get("kind"))))
            return
        try:
            async with self._locks.setdefault(key[0], asyncio.Lock()):
                await self._take(call, key, receive)
        except CutOffError:
            # Whoever sent it comes again.
            raise
        except InvalidError as error:
            why = f"Image {key[0]} of the image service cannot be run: {error.message}"
            self._end(key, RuntimeFailedError(why, retryable=False))
            raise
        except AskosError as error:
            self._end(key, error)
            raise
        self._end(key, None)

    async def _take(self, call: HostCall, key: Key, receive: Receive) -> None:
        ref = of_service(key[0])
        found = await self._runtime.image(ref)
        have = found is not None and self._rights.noted(ref, found.id)
        await call.send(Frame(control={"have": have}))
        if not have:
            async with receive(call) as path:
                await self._runtime.import_image(path, ref, rename=True)
            found = await self._runtime.image(ref)
        if found is None:
            raise UnavailableError(f"Image {key[0]} was removed from the host while it came. It is fetched again.")
        await self._rights.fetched(ref, found.id, key[1], login=True, was_there=False)

    def _end(self, key: Key, error: AskosError | None) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is None or waiting.done.done():
            return
        if error is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(error)

    async def collect(self, used: set[str]) -> list[str]:
        """Remove images of the image service that no capsule here uses; returns their names. `used`: uuids."""
        kept = {of_service(uuid) for uuid in used} | {of_service(uuid) for uuid, _ in self._waiting}
        kept |= {of_service(uuid) for uuid, lock in self._locks.items() if lock.locked()}
        self._locks = {uuid: lock for uuid, lock in self._locks.items() if lock.locked()}
        images = await self._runtime.images()
        removed = [tag for image in images for tag in image.tags if is_of_service(tag) and tag not in kept]
        for tag in removed:
            await self._runtime.remove_image(tag)
        return removed


async def _ended(call: HostCall) -> None:
    async for _frame in call.frames():
        pass


def _failure(message: str, kind: str) -> AskosError:
    if kind == "not-found":
        return NotFoundError(message, "image-not-found")
    return RuntimeFailedError(message, retryable=kind != "final")


def wanted(control: dict[str, Any] | None) -> Key | None:
    """What a frame of `wants` says."""
    return None if control is None else (str(control["image"]), str(control["project"]))
