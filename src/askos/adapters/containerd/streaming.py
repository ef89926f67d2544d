"""One connection to CRI's streaming server: the streams of a container, multiplexed by SPDY/3.1.

CRI's servers speak two protocols here. Over WebSockets containerd takes every stream for wanted, asked for or not, so
that a client which only looks ends the container's input; and the input cannot be ended alone. Over SPDY, which
Kubernetes' own clients use, each stream is opened and ended by itself. Of SPDY little is needed: opening streams,
data, the end of one.

A frame is four bytes for its kind or stream, one of flags, three for the length of what follows. Neither way anything
is buffered beyond the kernel's and a small window of ours: who does not read makes the other wait.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from typing import Literal
from urllib.parse import urlsplit

Name = Literal["error", "stdin", "stdout", "stderr", "resize"]

_PROTOCOL = "v4.channel.k8s.io"
_WINDOW = 1 << 16
_CHUNK = 1 << 15
_CONNECT_S = 15.0
_IS_CONTROL = 0x8000_0000
_CONTROL = _IS_CONTROL | 3 << 16
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 1


class StreamingError(Exception):
    """The streaming server cannot be used; the text says why."""


class Connection:
    """A connection to one address that CRI gave out, which is good for one.

    `send`s to the same stream must not overlap.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids: dict[Name, int] = {}
        self._names: dict[int, Name] = {}
        self._left = 0
        self._stream: Name | None = None
        self._over = False

    @staticmethod
    async def open(url: str, names: list[Name]) -> Connection:
        """Connect and open these streams, which must be those asked for and "error". Raises StreamingError."""
        parts = urlsplit(url)
        where = f"containerd's streaming server at {parts.netloc}"
        if parts.scheme != "http":
            raise StreamingError(f"{where} wants {parts.scheme}, which is not supported")
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=_WINDOW)
                connection = Connection(reader, writer)
                try:
                    await connection._upgrade(parts.netloc, parts.path)
                    await connection._open(names)
                except BaseException:
                    connection.close()
                    raise
        except TimeoutError:
            raise StreamingError(f"{where} does not answer") from None
        except (EOFError, ValueError):
            raise StreamingError(f"{where} does not speak SPDY/3.1 and {_PROTOCOL}") from None
        except OSError as error:
            raise StreamingError(f"{where} cannot be reached: {error.strerror or type(error).__name__}") from None
        return connection

    async def receive(self) -> tuple[Name, bytes] | None:
        """The next piece of a stream; None once the server has closed."""
        try:
            while not self._over:
                if self._left:
                    data = await self._reader.read(min(self._left, _CHUNK))
                    if not data:
                        break
                    self._left -= len(data)
                    if self._stream is not None:
                        return self._stream, data
                    continue
                kind, _, length = await self._frame()
                if not kind & _IS_CONTROL:
                    self._stream, self._left = self._names.get(kind), length
                elif kind == _CONTROL | _PING:
                    self._put(kind, 0, await self._reader.readexactly(length))
                elif kind == _CONTROL | _GOAWAY:
                    break
                else:
                    await self._skip(length)
        except (OSError, EOFError):
            pass
        self._over = True
        return None

    async def send(self, name: Name, data: bytes) -> None:
        """Send to a stream; waits while the server does not read. OSError once it has closed."""
        for start in range(0, len(data), _CHUNK):
            self._put(self._ids[name], 0, data[start : start + _CHUNK])
            await self._writer.drain()

    async def end(self, name: Name) -> None:
        """Say that nothing follows on a stream. The connection must stay until what was sent has gone out."""
        self._put(self._ids[name], _FIN, b"")
        await self._writer.drain()

    def close(self) -> None:
        """Close at once; what the kernel has not taken yet is dropped."""
        self._over = True
        self._writer.transport.abort()

    # Beginning

    async def _upgrade(self, host: str, path: str) -> None:
        self._writer.transport.set_write_buffer_limits(high=_WINDOW)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: Upgrade\r\n"
            f"Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {_PROTOCOL}\r\n\r\n"
        )
        self._writer.write(head.encode())
        try:
            answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        except asyncio.LimitOverrunError:
            raise ValueError("the answer's head is too long") from None
        if not answer.startswith("http/1.1 101 ") or _PROTOCOL not in answer:
            raise ValueError("the upgrade was refused")

    async def _open(self, names: list[Name]) -> None:
        # One compressor for the whole connection. SPDY's dictionary may be left out, and is.
        compressor = zlib.compressobj()
        for number, name in enumerate(names):
            stream = 2 * number + 1
            self._ids[name] = stream
            self._names[stream] = name
            pair = b"".join(struct.pack(">I", len(text)) + text for text in (b"streamtype", name.encode()))
            block = compressor.compress(struct.pack(">I", 1) + pair) + compressor.flush(zlib.Z_SYNC_FLUSH)
            self._put(_CONTROL | _SYN_STREAM, 0, struct.pack(">IIBB", stream, 0, 0, 0) + block)
        answered = 0
        while answered < len(names):
            kind, _, length = await self._frame()
            if not kind & _IS_CONTROL or kind == _CONTROL | _RST_STREAM:
                raise ValueError("a stream was refused")
            await self._skip(length)
            answered += kind == _CONTROL | _SYN_REPLY

    # Frames

    async def _frame(self) -> tuple[int, int, int]:
        """Kind (or the number of the stream), flags and length of the next."""
        kind, rest = struct.unpack(">II", await self._reader.readexactly(8))
        return kind, rest >> 24, rest & 0xFF_FFFF

    async def _skip(self, length: int) -> None:
        while length:
            data = await self._reader.read(min(length, _CHUNK))
            if not data:
                raise EOFError
            length -= len(data)

    def _put(self, kind: int, flags: int, payload: bytes) -> None:
        self._writer.write(struct.pack(">II", kind, flags << 24 | len(payload)) + payload)
