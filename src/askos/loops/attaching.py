"""Attaching to a Zun container that has written already: its log comes first, then its own streams, nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from askos.loops import logs
from askos.ports.runtime import AttachSession

Stream = Literal["stdout", "stderr"]
_CHANNELS: dict[Stream, int] = {"stdout": 1, "stderr": 2}


class Past:
    """What a container wrote before somebody attached to it."""

    def __init__(self, folder: Path) -> None:
        self._reader = logs.Reader(folder)

    async def tell(self, send: logs.Send) -> None:
        """Send what is there now."""
        await self._reader.history(logs.Selection(), send)

    async def close_gap(self, send: logs.Send) -> dict[int, bytes]:
        """Once attached: send what was written since `tell`. Some of it may come over the new session too; it is
        returned by channel, so that `Attached` can leave that out."""
        since: dict[int, bytes] = {}

        async def noted(channel: int, data: bytes) -> None:
            since[channel] = since.get(channel, b"") + data
            await send(channel, data)

        await self._reader.more(logs.Selection(), noted)
        return since


class Attached:
    """A session without the begin of its output that `since` ends with already."""

    def __init__(self, session: AttachSession, since: dict[int, bytes]) -> None:
        self._session = session
        self._since = since
        self.write = session.write
        self.close_stdin = session.close_stdin
        self.resize = session.resize

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """See `ports.runtime.AttachSession`."""
        async for stream, data in self._session.output():
            told = self._since.pop(_CHANNELS[stream], b"")
            rest = data[overlap(told, data) :]
            if rest:
                yield stream, rest


def overlap(before: bytes, after: bytes) -> int:
    """How many bytes `after` begins with that `before` ends with, at the most."""
    for size in range(min(len(before), len(after)), 0, -1):
        if before.endswith(after[:size]):
            return size
    return 0
