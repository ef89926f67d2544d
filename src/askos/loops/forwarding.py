"""Port forwarding on the host: one TCP connection inside a pod, carried over one call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from askos.model.errors import ConflictError, NotFoundError, UnavailableError
from askos.ports.calls import Frame, HostCall
from askos.ports.network import HostNetwork

DIAL_S = 30.0
_CHUNK = 64 * 1024
DATA = 1
"""Channel of what comes out of the pod."""


async def dial(network: HostNetwork, sandbox_id: str, port: int, pod: str) -> socket.socket:
    """Connect to a port on the pod's own loopback. ConflictError when nothing listens there."""
    try:
        return await network.connect(sandbox_id, "127.0.0.1", port, DIAL_S)
    except NotFoundError:
        raise ConflictError(f'Cannot forward to port {port} of pod "{pod}": it has no network any more.') from None
    except OSError as error:
        plain = error.errno and not isinstance(error, TimeoutError)
        why = os.strerror(error.errno).lower() if plain and error.errno else str(error) or "no answer"
        raise ConflictError(
            f'Cannot forward to port {port} of pod "{pod}": 127.0.0.1:{port}: {why}. Does a program listen there?'
        ) from error


async def relay(call: HostCall, sock: socket.socket) -> None:
    """Carry bytes both ways until both have ended; the end of one way is passed on. Closes the socket."""
    inward = asyncio.create_task(_inward(call, sock))
    try:
        await _outward(call, sock)
        await inward
    finally:
        inward.cancel()
        await asyncio.gather(inward, return_exceptions=True)
        sock.close()


async def _inward(call: HostCall, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    # The program has closed its end: what comes out of it tells that.
    with contextlib.suppress(ConnectionError):
        async for frame in call.frames():
            if frame.data:
                await loop.sock_sendall(sock, frame.data)
            if frame.eof:
                break
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


async def _outward(call: HostCall, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(sock, _CHUNK):
            await call.send(Frame(DATA, data))
    except ConnectionError as error:
        raise UnavailableError("The program in the pod has reset the connection.") from error
    await call.send(Frame(DATA, b"", eof=True))
