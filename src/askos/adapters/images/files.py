"""Files of images, in one folder: `<uuid>`, and `<uuid>.<digits>.part` while one is written.

A file gets its name when it is whole and on the disk, so that what has a name can be trusted. What a crash leaves is
told by `names`, and removed by whoever knows which images there are.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import IO

from askos.model.errors import NotFoundError, StorageFullError, UnavailableError
from askos.model.stored_images import FileFacts

CHUNK = 1 << 20
KEEP_FREE = 512 << 20
"""Bytes of the disk that images never take."""
_LOOK = 32 << 20
"""How many bytes are written between two looks at the disk's free space."""


class ImageFolder:
    """`ports.image_store.ImageFiles`."""

    def __init__(self, folder: Path, *, keep_free: int = KEEP_FREE) -> None:
        self._folder = folder
        self._keep_free = keep_free
        self._writing: set[str] = set()

    async def write(self, uuid: str, chunks: AsyncIterator[bytes]) -> FileFacts:
        """See `ports.image_store.ImageFiles`."""
        draft = self._folder / f"{uuid}.{os.urandom(4).hex()}.part"
        self._writing |= {uuid, draft.name}
        try:
            facts = await self._write(draft, chunks)
            await asyncio.to_thread(_settle, draft, self._folder / uuid)
            return facts
        except OSError as error:
            raise _failure(uuid, error) from error
        finally:
            # Nothing waits here: what is cancelled must not leave its file behind.
            draft.unlink(missing_ok=True)
            self._writing -= {uuid, draft.name}

    async def _write(self, draft: Path, chunks: AsyncIterator[bytes]) -> FileFacts:
        writer = _Writer(draft, self._keep_free)
        try:
            held = bytearray()
            async for chunk in chunks:
                held += chunk
                if len(held) >= CHUNK:
                    await asyncio.to_thread(writer.add, bytes(held))
                    held.clear()
            await asyncio.to_thread(writer.finish, bytes(held))
        finally:
            writer.file.close()
        return FileFacts(writer.size, writer.md5.hexdigest(), writer.sha512.hexdigest())

    async def read(self, uuid: str, start: int, length: int | None) -> AsyncGenerator[bytes, None]:
        """See `ports.image_store.ImageFiles`."""
        try:
            file = await asyncio.to_thread(_open, self._folder / uuid, start)
        except FileNotFoundError:
            raise NotFoundError(f"No image found with ID {uuid}: its file is gone.", "image-not-found") from None
        except OSError as error:
            raise _unreadable(uuid, error) from error
        with file:
            left = length
            while left is None or left > 0:
                try:
                    data = await asyncio.to_thread(file.read, CHUNK if left is None else min(CHUNK, left))
                except OSError as error:
                    raise _unreadable(uuid, error) from error
                if not data:
                    return
                left = None if left is None else left - len(data)
                yield data

    async def remove(self, uuid: str) -> None:
        """See `ports.image_store.ImageFiles`."""
        await asyncio.to_thread((self._folder / uuid).unlink, missing_ok=True)

    async def names(self) -> list[str]:
        """See `ports.image_store.ImageFiles`."""
        found = await asyncio.to_thread(lambda: os.listdir(self._folder) if self._folder.is_dir() else [])
        return [name for name in found if name not in self._writing]


class _Writer:
    """One file on its way to the disk. Its methods block."""

    def __init__(self, path: Path, keep_free: int) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = path.parent
        self._keep_free = keep_free
        self.file = path.open("wb")
        self.size = 0
        self._looked = -_LOOK
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.sha512 = hashlib.sha512()

    def add(self, data: bytes) -> None:
        if self.size - self._looked >= _LOOK:
            self._looked = self.size
            if shutil.disk_usage(self._folder).free - len(data) < self._keep_free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.file.write(data)
        self.md5.update(data)
        self.sha512.update(data)
        self.size += len(data)

    def finish(self, data: bytes) -> None:
        if data:
            self.add(data)
        self.file.flush()
        os.fsync(self.file.fileno())


def _settle(draft: Path, path: Path) -> None:
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open(path: Path, start: int) -> IO[bytes]:
    file = path.open("rb")
    file.seek(start)
    return file


def _failure(uuid: str, error: OSError) -> UnavailableError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        why = "the disk of the image service is full. Delete images that nobody needs, or ask for more room."
        return StorageFullError(f"Cannot keep image {uuid}: {why}")
    return UnavailableError(f"Cannot keep image {uuid}: {(error.strerror or str(error)).lower()}.")


def _unreadable(uuid: str, error: OSError) -> UnavailableError:
    return UnavailableError(f"Cannot read image {uuid}: {(error.strerror or str(error)).lower()}.")
