"""Images that are made on a host only to be sent away: none of them stays there, also when somebody dies meanwhile."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from askos.model.errors import AskosError
from askos.ports import runtime as rt

_log = logging.getLogger(__name__)

PREFIX = "localhost/askos-commit/"


class PassingImages:
    """Knows which of them are in the making."""

    def __init__(self, runtime: rt.Runtime) -> None:
        self._runtime = runtime
        self._live: set[str] = set()

    @asynccontextmanager
    async def name(self) -> AsyncIterator[str]:
        """A name for an image, which is removed at the end."""
        # Nobody guesses it, so that nothing need be noted of who may use the image.
        name = f"{PREFIX}{uuid.uuid4().hex}:latest"
        self._live.add(name)
        try:
            yield name
        finally:
            try:
                await asyncio.shield(self._removed(name))
            finally:
                self._live.discard(name)

    async def _removed(self, name: str) -> None:
        try:
            if await self._runtime.image(name) is not None:
                await self._runtime.remove_image(name)
        except AskosError as error:
            _log.info("the image %s is removed later: %s", name, error)

    async def collect(self) -> list[str]:
        """Remove those that nobody is making any more; returns their names."""
        tags = [tag for image in await self._runtime.images() for tag in image.tags]
        left = [tag for tag in tags if tag.startswith(PREFIX) and tag not in self._live]
        for tag in left:
            await self._runtime.remove_image(tag)
        return left
