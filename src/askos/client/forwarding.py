"""Port forwarding: local ports whose connections end inside a capsule.

Each local connection has a WebSocket of its own, so that a slow one does not hold up the others, and the end of
either direction is passed on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import NamedTuple

import aiohttp

from askos.client import remote, wire
from askos.client.errors import ApiError, ClientError
from askos.client.session import Query, Session

_DATA, _ERROR = 0, 1
_CHUNK = 64 * 1024


class Pair(NamedTuple):
    """A local port (0: any that is free) and the port in the capsule that it stands for."""

    local: int
    remote: int


async def serve(
    session: Session,
    path: str,
    query: Query,
    pairs: list[Pair],
    *,
    address: str = "127.0.0.1",
    ready: Callable[[list[Pair]], None],
    complain: Callable[[str], None],
) -> None:
    """Listen until cancelled. `path`: of the portforward endpoint; `query`: what else it needs, such as a namespace.

    `ready` is given the local ports as they came to be; `complain` one line for each connection that failed.
    ClientError when a local port cannot be listened on.
    """
    servers: list[asyncio.Server] = []
    open_: set[asyncio.Task[None]] = set()

    def taker(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(_tried(session, path, query, port, reader, writer, complain))
            open_.add(task)
            task.add_done_callback(open_.discard)

        return take

    try:
        found = []
        for pair in pairs:
            try:
                server = await asyncio.start_server(taker(pair.remote), address, pair.local)
            except OSError as error:
                # asyncio puts a sentence of its own around the system's word.
                why = (os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)).lower()
                raise ClientError(f"cannot listen on {address}:{pair.local}: {why}. Choose another port") from None
            servers.append(server)
            found.append(Pair(server.sockets[0].getsockname()[1], pair.remote))
        ready(found)
        await asyncio.Event().wait()
    finally:
        for server in servers:
            server.close()
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)


async def _tried(  # noqa: PLR0917 - one connection and all that it needs
    session: Session,
    path: str,
    query: Query,
    port: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    complain: Callable[[str], None],
) -> None:
    try:
        where: Query = [*query, ("port", str(port))]
        login = await asyncio.to_thread(session.login)
        try:
            await _forward(session, path, where, reader, writer)
        except ApiError as error:
            if error.status != 401 or not session.renew(login):
                raise
            await asyncio.to_thread(session.login)
            await _forward(session, path, where, reader, writer)
    except ClientError as error:
        complain(str(error))
    except (OSError, aiohttp.ClientError) as error:
        complain(f"a connection to port {port} broke: {str(error) or type(error).__name__}")
    finally:
        writer.transport.abort()


async def _forward(
    session: Session, path: str, query: Query, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry one connection until both directions have ended."""
    async with remote.connect(session, session.url("native", path, query)) as socket:
        sending = asyncio.create_task(_send(socket, reader))
        try:
            await _receive(socket, writer)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(socket: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(_CHUNK):
        await socket.send_bytes(wire.frame(_DATA, data))
    await socket.send_bytes(wire.half_close(_DATA))


async def _receive(socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    """Until the capsule's side has ended. ClientError with the words of the error channel."""
    greeted: set[int] = set()
    problem = b""
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == wire.CLOSE:
            if data[:1] == bytes([_DATA]):
                break
            continue
        if channel not in greeted:
            greeted.add(channel)
            data = data[2:]  # the port's number
        if channel == _DATA and data:
            writer.write(data)
            await writer.drain()
        elif channel == _ERROR:
            problem += data
    if problem:
        raise ClientError(problem.decode(errors="replace").rstrip("."))
    if writer.can_write_eof():
        writer.write_eof()
        await writer.drain()
