"""What all WebSockets of the API have in common: opening, keeping alive, closing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Self

from aiohttp import web

from askos.api import rights

MAX_MESSAGE = 4 << 20
"""Largest message of a client, in bytes; a larger one ends the connection."""
IDLE_S = 4 * 3600.0
"""A connection over which nothing has gone for so long is closed."""
PING_S = 30.0
"""How often a ping goes out, so that nothing on the way takes the connection for dead. An answer is not asked for: a
client whose reader is paused gives none. Whether it is still there is TCP's to find out."""

CLOSE_S = 5.0
"""Whoever does not even take the good-bye within this is cut off."""
KEEP_ALIVE_S = 30
"""Seconds of silence after which TCP begins to ask."""


class Socket:
    """One WebSocket. Use it as a context, which opens and closes it."""

    def __init__(self, raw: web.Request, protocols: tuple[str, ...], *, idle_s: float = IDLE_S) -> None:
        self.response = web.WebSocketResponse(protocols=protocols, max_msg_size=MAX_MESSAGE)
        self._raw = raw
        self._idle_s = idle_s
        self._touched = 0.0
        self._lost = rights.lost(raw)
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.response.prepare(self._raw)
        raw = self._raw.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        self.touch()
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._keeper is not None
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        await self.response.close()

    async def leave(self, message: bytes) -> None:
        """Close it, unless somebody else does already."""
        if not self.response.closed:
            await self.response.close(code=1000, message=message)

    def touch(self) -> None:
        """Something has gone over it."""
        self._touched = asyncio.get_running_loop().time()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left = self._touched + self._idle_s - loop.time()
            if left <= 0:
                await self.response.close(message=b"nothing was sent for a long time")
                return
            try:
                async with asyncio.timeout(min(left, PING_S)):
                    await self._lost.wait()
            except TimeoutError:
                with contextlib.suppress(ConnectionError):
                    await self.response.ping()
            else:
                await self._put_out()
                return

    async def _put_out(self) -> None:
        """The client's rights have ended."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.response.close(code=rights.CLOSE_CODE, message=rights.REASON.encode())
        except (TimeoutError, ConnectionError):
            if self._raw.transport is not None:
                self._raw.transport.abort()
