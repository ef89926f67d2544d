"""Asks the host's resolvers what the cloud does not know itself."""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Callable
from typing import cast

_TRY_S = 2.0
_DEADLINE_S = 5.0
_TRUNCATED = 0x0200


class Forwarder:
    """Hands queries on as they are, with an id and a source port of its own (both guard against forged answers)."""

    def __init__(self, resolvers: Callable[[], list[str]], port: int = 53) -> None:
        self._resolvers = resolvers
        self._port = port

    async def ask(self, query: bytes, question_end: int) -> bytes | None:
        """The answer with the query's own id, whole (fetched by TCP when UDP cut it); None when nobody answered.

        `question_end`: where the question section of `query` ends.
        """
        try:
            return await asyncio.wait_for(self._ask(query, question_end), _DEADLINE_S)
        except TimeoutError:
            return None

    async def _ask(self, query: bytes, question_end: int) -> bytes | None:
        number = secrets.token_bytes(2)
        wire = number + query[2:]
        for resolver in self._resolvers():
            try:
                answer = await asyncio.wait_for(self._udp(resolver, wire, question_end), _TRY_S)
                if int.from_bytes(answer[2:4], "big") & _TRUNCATED:
                    answer = await asyncio.wait_for(self._tcp(resolver, wire, question_end), _TRY_S)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
            return query[:2] + answer[2:]
        return None

    async def _udp(self, resolver: str, wire: bytes, question_end: int) -> bytes:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Waiter(wire, question_end, loop.create_future()), remote_addr=(resolver, self._port)
        )
        try:
            return await protocol.answer
        finally:
            transport.close()

    async def _tcp(self, resolver: str, wire: bytes, question_end: int) -> bytes:
        reader, writer = await asyncio.open_connection(resolver, self._port)
        try:
            writer.write(struct.pack(">H", len(wire)) + wire)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
            if not _answers(answer, wire, question_end):
                raise OSError("an answer to another question")
            return answer
        finally:
            writer.close()


class _Waiter(asyncio.DatagramProtocol):
    def __init__(self, wire: bytes, question_end: int, answer: asyncio.Future[bytes]) -> None:
        self._wire = wire
        self._question_end = question_end
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own transport is no subclass of DatagramTransport.
        cast("asyncio.DatagramTransport", transport).sendto(self._wire)

    def datagram_received(self, data: bytes, addr: tuple[str | bytes, int]) -> None:
        if not self.answer.done() and _answers(data, self._wire, self._question_end):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


def _answers(data: bytes, wire: bytes, question_end: int) -> bool:
    """Whether data is a response with the id and (in any case) the question of the query."""
    same = data[:2] == wire[:2] and len(data) >= 12 and data[2] & 0x80 != 0
    # A server that refuses outright may leave the question out.
    return same and (data[4:6] == b"\0\0" or data[12:question_end].lower() == wire[12:question_end].lower())
