"""The image service: records of images, and their files. As in `ports.store`, every verb is one transaction.

The embedded one keeps files in a folder; the same verbs can be asked of a Glance elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

import msgspec

from askos.model.stored_images import FileFacts, StoredImage


class ImageReader(msgspec.Struct, frozen=True):
    """Who looks: a project; administrators see those of all projects."""

    project_id: str
    is_admin: bool = False


class ImageStore(Protocol):
    """Images of all projects. What a reader may not see does not exist for it."""

    async def create(self, image: StoredImage) -> StoredImage:
        """A new record without a file. Its times are set here. ConflictError when the uuid is taken."""

    async def images(self, reader: ImageReader) -> list[StoredImage]:
        """All images of the reader's project (administrators: of all projects) and all public and community ones,
        newest first."""

    async def image(self, uuid: str, reader: ImageReader) -> StoredImage:
        """One by uuid. NotFoundError."""

    async def find(self, ident: str, reader: ImageReader) -> StoredImage:
        """By uuid, else by exact name: of those that are active the project's own go before public ones. NotFoundError;
        ConflictError when several of the project, or else several public ones, have that name."""

    async def change(self, uuid: str, reader: ImageReader, change: Callable[[StoredImage], StoredImage]) -> StoredImage:
        """Another record, made of the present one by `change`, whose errors pass. NotFoundError."""

    async def delete(self, uuid: str, reader: ImageReader, check: Callable[[StoredImage], None]) -> None:
        """Remove record and file, unless `check` raises. NotFoundError."""

    async def upload(self, uuid: str, chunks: AsyncIterator[bytes]) -> StoredImage:
        """Write the file of a queued image from `chunks`; active when this returns. When anything goes wrong, or
        `chunks` raises, nothing of the file is left and the image is queued again; one that was to be filled with a
        container's files is killed. NotFoundError (also when it is deleted meanwhile); ConflictError when it is not
        queued; StorageFullError."""

    def read(self, image: StoredImage, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """The file of an active image, or a part of it. It is read to its end even when the image is deleted
        meanwhile. NotFoundError when it has gone before the first piece; UnavailableError."""

    async def recover(self) -> None:
        """When a server starts: uploads that it did not live to finish are undone."""

    async def collect(self) -> list[str]:
        """Remove files without an image; returns their names."""


class ImageFiles(Protocol):
    """Where the embedded image service keeps files."""

    async def write(self, uuid: str, chunks: AsyncIterator[bytes]) -> FileFacts:
        """Write a whole file, safe against a power cut when this returns; all of it or nothing. StorageFullError,
        UnavailableError, and what `chunks` raises."""

    def read(self, uuid: str, start: int, length: int | None) -> AsyncGenerator[bytes, None]:
        """A file, or `length` bytes of it from `start`. NotFoundError; UnavailableError."""

    async def remove(self, uuid: str) -> None:
        """Remove a file, if it is there."""

    async def names(self) -> list[str]:
        """The names of all files; those that are being written by this process left out."""
