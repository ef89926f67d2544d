"""Named pipes read and written by the event loop, without threads and with back-pressure.

The kernel's pipe buffer is the only buffer: what the other side does not take waits there, and the writer waits.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

_CHUNK = 1 << 16


class _End:
    """One end of a pipe; `path` is made. Only one task waits on it at a time."""

    def __init__(self, path: Path, flags: int) -> None:
        os.mkfifo(path, 0o600)
        self._fd = os.open(path, flags | os.O_NONBLOCK)
        self._wake = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._fd < 0

    def close(self) -> None:
        """Close this end; who waits on it goes on at once. What is in the pipe can still be read elsewhere."""
        if self._fd >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._wake.set()

    async def _ready(self, *, write: bool, timeout_s: float | None) -> bool:
        loop, fd = asyncio.get_running_loop(), self._fd
        self._wake.clear()
        (loop.add_writer if write else loop.add_reader)(fd, self._wake.set)
        try:
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            # Once closed, the number may belong to somebody else already.
            if self._fd == fd:
                (loop.remove_writer if write else loop.remove_reader)(fd)


class Reader(_End):
    """The reading end. It is opened at once, which does not wait for a writer."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDONLY)

    async def read(self, idle_s: float | None = None) -> bytes | None:
        """The next bytes; b"" once no writer is left or it is closed; None when nothing came for `idle_s`.

        Before a writer has opened the other end there is none "left" either: read only after that.
        """
        while not self.closed:
            try:
                return os.read(self._fd, _CHUNK)
            except BlockingIOError:
                if not await self._ready(write=False, timeout_s=idle_s):
                    return None
        return b""


class Writer(_End):
    """The writing end. It holds a reading end too, so that opening and writing never fail for want of one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDWR)
        self._lock = asyncio.Lock()

    async def write(self, data: bytes) -> None:
        """Write everything, waiting while the pipe is full; the rest is dropped when this end is closed."""
        view = memoryview(data)
        async with self._lock:
            while view and not self.closed:
                try:
                    view = view[os.write(self._fd, view) :]
                except BlockingIOError:
                    await self._ready(write=True, timeout_s=None)

    async def finish(self) -> None:
        """Close after what is being written has gone out."""
        async with self._lock:
            self.close()
