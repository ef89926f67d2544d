"""Records of the image service: `ports.image_store.ImageStore` on a migrated database, with files beside it.

A file is written before its record says so, and removed after its record has gone: a crash between leaves a file
without an active image, which `collect` removes, and never an active image without a file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import msgspec
from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from askos.adapters.sql.database import Database
from askos.adapters.sql.schema import stored_images
from askos.model.errors import AskosError, ConflictError, NotFoundError
from askos.model.stored_images import StoredImage
from askos.ports.clock import now_us as system_clock
from askos.ports.image_store import ImageFiles, ImageReader

_log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(StoredImage).decode
_SHARED = ("public", "community")


class SqlImages:
    """`ports.image_store.ImageStore`."""

    def __init__(self, database: Database, files: ImageFiles, *, clock: Callable[[], int] = system_clock) -> None:
        self._db = database
        self._files = files
        self._clock = clock

    async def create(self, image: StoredImage) -> StoredImage:
        """See `ports.image_store.ImageStore`."""
        now = self._clock()
        image = msgspec.structs.replace(image, created_us=now, updated_us=now)
        try:
            async with self._db.write() as connection:
                await connection.execute(insert(stored_images).values(**_row(image)))
        except IntegrityError as error:
            raise ConflictError(f"Image ID {image.uuid} already exists!") from error
        return image

    async def images(self, reader: ImageReader) -> list[StoredImage]:
        """See `ports.image_store.ImageStore`."""
        query = select(stored_images.c.record).order_by(stored_images.c.created_us.desc(), stored_images.c.uuid)
        if not reader.is_admin:
            mine = stored_images.c.project_id == reader.project_id
            query = query.where(or_(mine, stored_images.c.visibility.in_(_SHARED)))
        async with self._db.read() as connection:
            return [_decode(record) for record in (await connection.execute(query)).scalars()]

    async def image(self, uuid: str, reader: ImageReader) -> StoredImage:
        """See `ports.image_store.ImageStore`."""
        async with self._db.read() as connection:
            return await _one(connection, uuid, reader)

    async def find(self, ident: str, reader: ImageReader) -> StoredImage:
        """See `ports.image_store.ImageStore`."""
        named = select(stored_images.c.record).where(
            stored_images.c.name == ident, stored_images.c.status == "active",
            or_(stored_images.c.project_id == reader.project_id, stored_images.c.visibility == "public"),
        )  # fmt: skip
        async with self._db.read() as connection:
            try:
                return await _one(connection, ident, reader)
            except NotFoundError:
                found = [_decode(record) for record in (await connection.execute(named)).scalars()]
        own = [image for image in found if image.project_id == reader.project_id]
        found = own or found
        if not found:
            raise NotFoundError(f"Image {ident} could not be found.", "image-not-found")
        if len(found) > 1:
            raise ConflictError(f"Several images have the name {ident}. Use the id instead.")
        return found[0]

    async def change(self, uuid: str, reader: ImageReader, change: Callable[[StoredImage], StoredImage]) -> StoredImage:
        """See `ports.image_store.ImageStore`."""
        async with self._db.write() as connection:
            before = await _one(connection, uuid, reader, lock=True)
            after = change(before)
            if after != before:
                after = msgspec.structs.replace(after, updated_us=self._clock())
                await _store(connection, after)
            return after

    async def delete(self, uuid: str, reader: ImageReader, check: Callable[[StoredImage], None]) -> None:
        """See `ports.image_store.ImageStore`."""
        async with self._db.write() as connection:
            check(await _one(connection, uuid, reader, lock=True))
            await connection.execute(delete(stored_images).where(stored_images.c.uuid == uuid))
        await self._files.remove(uuid)

    # -- files -------------------------------------------------------------------------------------------------

    async def upload(self, uuid: str, chunks: AsyncIterator[bytes]) -> StoredImage:
        """See `ports.image_store.ImageStore`."""
        await self._turn(uuid, "queued", status="saving")
        try:
            facts = await self._files.write(uuid, chunks)
            values = {"size_bytes": facts.size_bytes, "md5": facts.md5, "sha512": facts.sha512}
            return await self._turn(uuid, "saving", status="active", **values)
        except BaseException as error:
            # Shielded: the client that went away has cancelled this.
            await asyncio.shield(self._undo(uuid, error))
            raise

    async def _undo(self, uuid: str, error: BaseException) -> None:
        try:
            await self._files.remove(uuid)
            why = error.message if isinstance(error, AskosError) else "The upload was broken off."
            async with self._db.write() as connection:
                image = await _one(connection, uuid, _EVERYBODY, lock=True)
                if image.status == "saving":
                    await _store(connection, _undone(image, why, self._clock()))
        except NotFoundError:
            return
        except AskosError as again:
            _log.warning("image %s: its broken upload could not be undone: %s", uuid, again)

    async def _turn(self, uuid: str, before: str, **values: Any) -> StoredImage:
        async with self._db.write() as connection:
            image = await _one(connection, uuid, _EVERYBODY, lock=True)
            if image.status != before:
                why = f"Its status is {image.status}, and only an image that is queued can be given a file."
                raise ConflictError(f"Cannot upload data for image {uuid}. {why}")
            image = msgspec.structs.replace(image, updated_us=self._clock(), **values)
            await _store(connection, image)
            return image

    def read(self, image: StoredImage, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `ports.image_store.ImageStore`."""
        return self._files.read(image.uuid, start, length)

    async def recover(self) -> None:
        """See `ports.image_store.ImageStore`."""
        unfinished = select(stored_images.c.record).where(stored_images.c.status.in_(("queued", "saving")))
        async with self._db.write() as connection:
            for record in (await connection.execute(unfinished)).scalars().all():
                image = _decode(record)
                # Nobody else ever fills one that was to be made of a container.
                if image.status == "saving" or image.committed:
                    await _store(connection, _undone(image, "The server ended while it was made.", self._clock()))

    async def collect(self) -> list[str]:
        """See `ports.image_store.ImageStore`."""
        # Files first: one that is begun and becomes active meanwhile is not among them.
        names = await self._files.names()
        # A file that is whole already while its record still says saving is about to be noted.
        query = select(stored_images.c.uuid).where(stored_images.c.status.in_(("active", "saving")))
        async with self._db.read() as connection:
            kept = set((await connection.execute(query)).scalars())
        removed = [name for name in names if name not in kept]
        for name in removed:
            await self._files.remove(name)
        return removed


_EVERYBODY = ImageReader("", is_admin=True)


def _undone(image: StoredImage, why: str, now_us: int) -> StoredImage:
    if image.committed:
        return msgspec.structs.replace(image, status="killed", failure=why, updated_us=now_us)
    return msgspec.structs.replace(image, status="queued", updated_us=now_us)


async def _one(connection: AsyncConnection, uuid: str, reader: ImageReader, *, lock: bool = False) -> StoredImage:
    query = select(stored_images.c.record).where(stored_images.c.uuid == uuid)
    record = (await connection.execute(query.with_for_update() if lock else query)).scalar()
    image = None if record is None else _decode(record)
    if image is None or not (reader.is_admin or image.visible_to(reader.project_id)):
        raise NotFoundError(f"No image found with ID {uuid}", "image-not-found")
    return image


async def _store(connection: AsyncConnection, image: StoredImage) -> None:
    await connection.execute(update(stored_images).where(stored_images.c.uuid == image.uuid).values(**_row(image)))


def _row(image: StoredImage) -> dict[str, Any]:
    return {
        "uuid": image.uuid,
        "project_id": image.project_id,
        "visibility": image.visibility,
        "name": image.name,
        "status": image.status,
        "created_us": image.created_us,
        "record": msgspec.json.encode(image).decode(),
    }
