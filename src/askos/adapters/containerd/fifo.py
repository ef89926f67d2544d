"""Named pipes read and written by the event loop, without threads and with back-pressure.

The kernel's pipe buffer is the only buffer: what the other side does not take waits there, and the writer waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

_CHUNK = 1 << 16


class Reader:
    """The reading end. It is opened at once, which does not wait for a writer."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    async def read(self, idle_s: float | None = None) -> bytes | None:
        """The next bytes; b"" once no writer is left; None when nothing came for `idle_s`.

        Before a writer has opened the other end there is none "left" either: read only after that.
        """
        while True:
            try:
                return os.read(self._fd, _CHUNK)
            except BlockingIOError:
                if not await _ready(self._fd, write=False, timeout_s=idle_s):
                    return None

    def close(self) -> None:
        """Close this end."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Writer:
    """The writing end. It also holds the reading end open, so that opening and writing never fail for want of one."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._lock = asyncio.Lock()

    async def write(self, data: bytes) -> None:
        """Write everything, waiting while the pipe is full; silently dropped when this end is closed."""
        view = memoryview(data)
        async with self._lock:
            while view and self._fd >= 0:
                try:
                    view = view[os.write(self._fd, view) :]
                except BlockingIOError:
                    await _ready(self._fd, write=True, timeout_s=0.5)

    def close(self) -> None:
        """Close this end; what is in the pipe can still be read from it."""
        if self._fd >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


async def _ready(fd: int, *, write: bool, timeout_s: float | None) -> bool:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    (loop.add_writer if write else loop.add_reader)(fd, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), timeout_s)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        # The end may have been closed meanwhile, and with it the registration.
        with contextlib.suppress(ValueError, OSError):
            (loop.remove_writer if write else loop.remove_reader)(fd)
