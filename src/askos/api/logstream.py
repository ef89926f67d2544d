"""Logs as the body of an answer, as they come from their host."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

from aiohttp import web

from askos.api import rights
from askos.api.core import Request
from askos.model.errors import AskosError
from askos.ports.calls import CallStream, Frame

GONE_S = 0.3
"""How often it is looked whether the client is still there. A log that is followed may have nothing to write for
hours, and only a write would tell."""


async def respond(
    request: Request, stream: CallStream, frames: AsyncIterator[Frame], *, framed: bool = False
) -> web.StreamResponse:
    """Answer with what the host sends, until it or the client ends that, or the client's rights end; closes the stream.

    `framed`: each piece behind its channel (1 byte) and length (4 bytes, big-endian).
    """
    response = web.StreamResponse(headers={"X-Openstack-Request-Id": request.request_id})
    response.content_type = "application/octet-stream" if framed else "text/plain"
    copying: asyncio.Task[None] | None = None
    lost = rights.lost(request.raw)
    try:
        await response.prepare(request.raw)
        copying = asyncio.create_task(_copy(response, frames, framed=framed))
        while not copying.done() and not _gone(request.raw) and not lost.is_set():
            await asyncio.wait([copying], timeout=GONE_S)
        if lost.is_set():
            _cut(request.raw)
        elif copying.done():
            await copying
            await response.write_eof()
    except AskosError:
        _cut(request.raw)
    finally:
        if copying is not None:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
        await stream.close()
    return response


def _cut(raw: web.Request) -> None:
    """The status line is out; cutting the connection tells that the log is not whole."""
    if raw.transport is not None:
        raw.transport.abort()


def _gone(raw: web.Request) -> bool:
    return raw.transport is None or raw.transport.is_closing()


async def _copy(response: web.StreamResponse, frames: AsyncIterator[Frame], *, framed: bool) -> None:
    async for frame in frames:
        if frame.data:
            head = struct.pack(">BI", frame.channel, len(frame.data)) if framed else b""
            await response.write(head + frame.data)
