"""Images of the image service as the container API looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from askos.api.glance.fields import shown
from askos.model.errors import NotFoundError
from askos.model.identity import Caller
from askos.model.stored_images import StoredImage
from askos.ports.image_store import ImageReader, ImageStore

LATEST = "latest"


class Finder:
    """For `api.lookups` and the search of images. Administrators find what their own project may use, too: they run
    it there."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def find(self, ident: str, caller: Caller) -> str:
        """The uuid of an image with a file, by uuid or name, or by NAME:TAG as `commit` made it. NotFoundError;
        ConflictError."""
        reader = ImageReader(caller.project_id)
        try:
            image = await self._store.find(ident, reader)
        except NotFoundError:
            tagged = await self._tagged(ident, reader)
            own = [image for image in tagged if image.project_id == caller.project_id]
            # As docker has it: a tag names the last image that got it. One's own go first.
            usable = own or [image for image in tagged if image.visibility == "public"]
            if not usable:
                raise
            image = usable[0]
        if image.status != "active":
            why = f"its status is {image.status}" + (f": {image.failure}" if image.failure else "")
            raise NotFoundError(f"Image {ident} cannot be used: {why}.", "image-not-found")
        return image.uuid

    async def search(self, text: str, caller: Caller, exact: bool) -> Sequence[dict[str, Any]]:
        """Records of all active images that the caller's project may run whose name is this, or has it inside; or that
        are this NAME:TAG."""
        reader = ImageReader(caller.project_id)
        found = [
            image
            for image in await self._store.images(reader)
            if image.status == "active" and (image.name == text if exact else text in (image.name or ""))
        ]
        return [shown(image) for image in found or await self._tagged(text, reader)]

    async def names(self, uuids: Sequence[str], caller: Caller) -> dict[str, tuple[str, str]]:
        """Name and tag of those images that the caller may see, by uuid."""
        if not uuids:
            return {}
        wanted = set(uuids)
        reader = ImageReader(caller.project_id, is_admin=caller.is_admin)
        return {
            image.uuid: (image.name, image.tags[0] if image.tags else LATEST)
            for image in await self._store.images(reader)
            if image.uuid in wanted and image.name
        }

    async def _tagged(self, text: str, reader: ImageReader) -> list[StoredImage]:
        """Active images of this NAME:TAG, the newest first. What has no tag is the latest."""
        name, colon, tag = text.rpartition(":")
        if not (colon and name and tag) or "/" in tag:
            return []
        return [
            image
            for image in await self._store.images(reader)
            if image.status == "active" and image.name == name and tag in (image.tags or [LATEST])
        ]
