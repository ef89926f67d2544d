"""Kubernetes' channel protocol over a WebSocket: the first byte of each message names a channel.

v4 and v5 are spoken, v4 also in its base64 form (text messages whose first character is the channel's digit). v5 adds
that one side can end a channel: a message on channel 255 with the channel's number. Who offers no protocol gets v4.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from askos.api.errors import ApiError
from askos.api.sockets import IDLE_S, Socket
from askos.model.errors import AskosError
from askos.ports.calls import CallStream, Frame

V5, V4, V4_BASE64 = "v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"
PROTOCOLS = (V5, V4, V4_BASE64)
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


def check_upgrade(raw: web.Request) -> None:
    """Raises a 400 for a request that cannot become a WebSocket in one of our protocols."""
    if raw.headers.get("Upgrade", "").lower() != "websocket":
        raise ApiError(400, "This is a WebSocket endpoint: connect with an Upgrade.", code="container.invalid")
    offered = [p.strip() for value in raw.headers.getall("Sec-WebSocket-Protocol", []) for p in value.split(",")]
    if offered and not set(offered) & set(PROTOCOLS):
        known = ", ".join(PROTOCOLS)
        title = f"None of the protocols {', '.join(offered)} is spoken here. Offer one of {known}."
        raise ApiError(400, title, code="container.invalid")


class Channels(Socket):
    """One WebSocket. Use it as a context, which opens and closes it."""

    def __init__(self, raw: web.Request, *, idle_s: float = IDLE_S) -> None:
        super().__init__(raw, PROTOCOLS, idle_s=idle_s)

    @property
    def half_closes(self) -> bool:
        """Whether both sides can end a single channel."""
        return self.response.ws_protocol == V5

    async def send(self, channel: int, data: bytes) -> None:
        """Send on a channel; waits while the client does not read. ConnectionResetError when it has gone."""
        self.touch()
        if self.response.ws_protocol == V4_BASE64:
            await self.response.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self.response.send_bytes(bytes([channel]) + data)

    async def end(self, channel: int) -> None:
        """Tell that nothing more follows on a channel, if the protocol can."""
        if self.half_closes:
            await self.send(CLOSE, bytes([channel]))

    async def messages(self) -> AsyncIterator[tuple[int, bytes]]:
        """(channel, data) as the client sends them, until it has gone. (channel, b"") with `CLOSE` is its end."""
        async for message in self.response:
            self.touch()
            if message.type is WSMsgType.BINARY and message.data:
                yield message.data[0], message.data[1:]
            elif message.type is WSMsgType.TEXT and self.response.ws_protocol == V4_BASE64 and message.data:
                with contextlib.suppress(ValueError, binascii.Error):
                    yield int(message.data[0]), base64.b64decode(message.data[1:], validate=True)


# -- processes --------------------------------------------------------------------------------------------------------


async def carry(channels: Channels, stream: CallStream, frames: AsyncIterator[Frame], *, wanted: set[int]) -> None:
    """Carry a process between its host and a client until one of them ends it; tell the client how it ended.

    `wanted`: those of STDIN, STDOUT and STDERR that the client has asked for.
    """
    feeder = asyncio.create_task(_feed(channels, stream, stdin=STDIN in wanted))
    try:
        await _drain(channels, stream, frames, wanted)
    finally:
        feeder.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await feeder


async def _feed(channels: Channels, stream: CallStream, *, stdin: bool) -> None:
    """From the client to the process."""
    async for channel, data in channels.messages():
        if channel == STDIN and stdin:
            await stream.send(Frame(0, data))
        elif channel == CLOSE and data[:1] == bytes([STDIN]) and stdin:
            await stream.send(Frame(0, b"", eof=True))
        elif channel == RESIZE:
            with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError, ValueError):
                size = msgspec.json.decode(data)
                await stream.send(Frame(control={"resize": [int(size["Width"]), int(size["Height"])]}))
    # The client has gone: so does the call.
    await stream.close()


async def _drain(channels: Channels, stream: CallStream, frames: AsyncIterator[Frame], wanted: set[int]) -> None:
    """From the process to the client, and how it ended."""
    try:
        async for frame in frames:
            if frame.data and frame.channel in wanted:
                await channels.send(frame.channel, frame.data)
        status = ended(stream.result["exit_code"])
    except AskosError as error:
        status = {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": error.message}
    except ConnectionResetError:
        return
    with contextlib.suppress(ConnectionResetError):
        await channels.send(ERROR, msgspec.json.encode(status))


def ended(exit_code: int | None) -> dict[str, Any]:
    """The v1.Status of a process that has ended; None: nobody knows how."""
    if not exit_code:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {exit_code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    }
