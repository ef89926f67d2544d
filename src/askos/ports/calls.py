"""Imperative calls on a host: exec, logs, signals, images. They answer or fail; they change no wish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, Protocol

import msgspec


class Frame(msgspec.Struct, frozen=True):
    """A piece of a call's stream. `channel`: 0 stdin, 1 stdout, 2 stderr; `eof`: nothing more follows on it.

    A frame with `control` carries a small message instead of data, such as {"resize": [80, 24]}.
    """

    channel: int = 0
    data: bytes = b""
    eof: bool = False
    control: dict[str, Any] | None = None


class CallStream(Protocol):
    """The caller's end of a call."""

    async def send(self, frame: Frame) -> None:
        """Send to the host; waits while it does not read. Silently dropped once the call is over."""

    def frames(self) -> AsyncIterator[Frame]:
        """What the host sends, until the call is over; then `result` is set. Raises what the call raised."""

    @property
    def result(self) -> Any:
        """What the call returned; set when `frames` has ended."""

    async def close(self) -> None:
        """Give the call up, if it still goes on."""


class HostCalls(Protocol):
    """Reaches the agents of hosts. UnavailableError when a host is not connected or does not answer in time."""

    async def call(self, host_uuid: str, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        """One question, one answer."""

    async def open(self, host_uuid: str, method: str, arguments: dict[str, Any]) -> CallStream:
        """A call with streams in both directions."""


class HostCall(Protocol):
    """The host's end of a call."""

    method: str
    arguments: dict[str, Any]

    async def send(self, frame: Frame) -> None:
        """Send to the caller; waits while it does not read."""

    def frames(self) -> AsyncIterator[Frame]:
        """What the caller sends, until it half-closes. Ends when the caller has gone."""


async def deliver(stream: CallStream, frames: AsyncIterator[Frame], pieces: AsyncIterable[bytes]) -> None:
    """Send all pieces and their end, and take in `frames` of the same stream until the call is over. When that comes
    first (the host's disk is full, say) nothing more is sent. Raises what the call or the pieces raise."""

    async def send() -> None:
        async for piece in pieces:
            await stream.send(Frame(0, piece))
            # What is dropped waits for nothing: who sees that the call is over gets a turn.
            await asyncio.sleep(0)
        await stream.send(Frame(0, b"", eof=True))

    async def take() -> None:
        async for _frame in frames:
            pass

    sending, taking = asyncio.create_task(send()), asyncio.create_task(take())
    try:
        await asyncio.wait({sending, taking}, return_when=asyncio.FIRST_COMPLETED)
        if not taking.done():
            await sending
        await taking
    finally:
        sending.cancel()
        taking.cancel()
        await asyncio.gather(sending, taking, return_exceptions=True)
