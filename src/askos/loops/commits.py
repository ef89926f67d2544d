"""Images of containers: a record at once, and its file from the container's host as soon as that has made it."""

from __future__ import annotations

import asyncio
import logging
import uuid as uuids
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from askos.model.capsules import Capsule
from askos.model.errors import AskosError, ConflictError, InvalidError
from askos.model.identity import Caller
from askos.model.stored_images import StoredImage
from askos.ports.calls import HostCalls
from askos.ports.image_store import ImageStore

_log = logging.getLogger(__name__)

Over = Callable[[str | None], Awaitable[None]]
_LONGEST = 255


class ImageCommitter:
    """`api.commits.Committer`."""

    def __init__(self, images: ImageStore, calls: HostCalls) -> None:
        self._images = images
        self._calls = calls
        self._tasks: set[asyncio.Task[None]] = set()

    async def commit(self, capsule: Capsule, repository: str, tag: str, caller: Caller, over: Over) -> str:
        """See `api.commits.Committer`. The image is named like the repository, and has the tag as its tag, as Zun
        makes it."""
        for word, text in (("repository", repository), ("tag", tag)):
            if len(text) > _LONGEST or not text.isprintable():
                raise InvalidError(f"Invalid value for {word}: it has at most {_LONGEST} characters, all printable.")
        host = capsule.placement.host_uuid
        if host is None:
            raise ConflictError(f"Cannot make an image of container {capsule.uuid}: it has no host yet.")
        image = await self._images.create(
            StoredImage(
                uuid=str(uuids.uuid4()),
                project_id=caller.project_id,
                user_id=caller.user_id,
                name=repository,
                container_format="docker",
                disk_format="raw",
                tags=[tag] if tag else [],
                committed=True,
            )
        )
        task = asyncio.create_task(self._fill(capsule.uuid, host, image, over))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return image.uuid

    async def _fill(self, capsule_uuid: str, host: str, image: StoredImage, over: Over) -> None:
        failure: str | None = "Something failed inside Askos; its log has more."
        try:
            async with aclosing(self._pieces(capsule_uuid, host, image.uuid)) as pieces:
                await self._images.upload(image.uuid, pieces)
            failure = None
        except AskosError as error:
            failure = error.message
            _log.info("image %s of container %s was not made: %s", image.uuid, capsule_uuid, error)
        except asyncio.CancelledError:
            failure = "The server ended while it was made."
            raise
        except Exception:
            _log.exception("image %s of container %s was not made", image.uuid, capsule_uuid)
        finally:
            await asyncio.shield(over(failure))

    async def _pieces(self, capsule_uuid: str, host: str, name: str) -> AsyncGenerator[bytes, None]:
        arguments = {"capsule": capsule_uuid, "name": f"commit-{name}", "stream": True}
        stream = await self._calls.open(host, "commit", arguments)
        try:
            async for frame in stream.frames():
                if frame.channel == 1 and frame.data:
                    yield frame.data
        finally:
            await stream.close()

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Give up what is under way; it is killed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
