"""Images of the image service as the container API looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from askos.api.glance.fields import shown
from askos.model.errors import NotFoundError
from askos.model.identity import Caller
from askos.ports.image_store import ImageReader, ImageStore


class Finder:
    """For `api.lookups` and the search of images. Administrators find what their own project may use, too: they run
    it there."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def find(self, ident: str, caller: Caller) -> str:
        """The uuid of an image with a file, by uuid or name. NotFoundError; ConflictError."""
        image = await self._store.find(ident, ImageReader(caller.project_id))
        if image.status != "active":
            why = f"its status is {image.status}" + (f": {image.failure}" if image.failure else "")
            raise NotFoundError(f"Image {ident} cannot be used: {why}.", "image-not-found")
        return image.uuid

    async def search(self, text: str, caller: Caller, exact: bool) -> Sequence[dict[str, Any]]:
        """Records of all active images that the caller's project may run whose name is this, or has it inside."""
        return [
            shown(image)
            for image in await self._store.images(ImageReader(caller.project_id))
            if image.status == "active" and (image.name == text if exact else text in (image.name or ""))
        ]
